"""Numbers of a text with the unit they have: 0.12 s, 120 milliseconds and three small squares are one time.

Times are in ms, amplitudes in mV (1 mm is 0.1 mV at the standard 10 mm/mV), rates in bpm, angles in degrees. A small
square of ECG paper is 40 ms at 25 mm/s or 0.1 mV, a large one five times as much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# comparators
AT_LEAST, AT_MOST, EXACT = "at least", "at most", "is"

_UNITS: dict[str, tuple[str, float]] = {
    name: (dimension, factor)
    for names, dimension, factor in (
        ("ms|msec|msecs|millisecond|milliseconds", "ms", 1.0),
        ("s|sec|secs|second|seconds", "ms", 1000.0),
        ("min|minute|minutes", "ms", 60000.0),
        ("mv|millivolt|millivolts", "mV", 1.0),
        ("uv|microvolt|microvolts", "mV", 0.001),
        ("mm|millimeter|millimeters|millimetre|millimetres", "mm", 1.0),
        ("cm", "mm", 10.0),
        ("small square|small squares|small box|small boxes|little square|little squares|little boxes", "square", 1.0),
        ("large square|large squares|large box|large boxes|big square|big squares|big boxes", "square", 5.0),
        ("bpm|beats per minute|beat per minute|beats/min|beats/minute|/min|/minute|per minute|beats a minute"
         "|times per minute|cycles per minute|beats min|impulses per minute|waves per minute", "bpm", 1.0),
        ("degrees|degree|deg", "degrees", 1.0),
        ("%|percent|per cent", "%", 1.0),
        ("years|year|years of age", "years", 1.0),
        ("hours|hour|h", "hours", 1.0),
        ("days|day", "hours", 24.0), ("weeks|week", "hours", 168.0),
        ("celsius|°c", "celsius", 1.0),
        ("mv.ms", "mV·ms", 1.0), ("mm.s", "mV·ms", 100.0), ("mm/s", "mm/s", 1.0), ("mm/mv", "mm/mV", 1.0),
    )
    for name in names.split("|")
}  # fmt: skip
_NUMERALS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "half a": 0.5,
}  # fmt: skip
_UNIT = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
_NUMBER = r"(?:minus )?[-+]?\d+(?:[.,]\d+)?"
_MORE = (
    r"(?:at least|no less than|not less than|not under|not below|not shorter than|minimum of|a minimum of"
    r"|more than or equal to|greater than or equal to|equal to or greater than|equal to or more than"
    r"|exceed(?:s|ing|ed)?|in excess of|over|above"
    r"|beyond|past|outlast(?:s|ing)?|(?:more|greater|longer|taller|higher|deeper|wider|broader|larger|faster|later|older"
    r"|bigger)(?: in \w+)? than|upwards of|>)"
)
_LESS = (
    r"(?:at most|no more than|not more than|not greater than|no greater than|no longer than|not longer than"
    r"|not above|not over|(?:does|do|did) not exceed|not exceed(?:ing)?|never exceed(?:s|ing)?|less than or equal to"
    r"|up to|a maximum of|maximum of|not taller than|no taller than|no wider than|not wider than|not higher than"
    r"|without exceeding|fall(?:s|ing)? short of"
    r"|under|below|(?:less|shorter|smaller|narrower|lower|slower|fewer|younger|earlier|shallower)(?: in \w+)? than|<)"
)
_AFTER_MORE = (
    r"(?:or|and) (?:more|longer|greater|above|higher|deeper|wider|over|larger|taller|broader|beyond|upwards?|faster"
    r"|older|later)|onwards?|on|upwards?"
)
_AFTER_LESS = r"(?:or|and) (?:less|shorter|below|lower|smaller|under|narrower|fewer|slower|younger)"
QUANTITY = re.compile(
    rf"(?:(?P<less>{_LESS})|(?P<more>{_MORE}))?\s*(?:(?:about|a|the|an|only|around|approximately|roughly|some|of|usually"
    rf"|often|mostly|near|nearly)\s+)*"
    rf"(?:(?P<between>between|from)\s+)?"
    rf"(?<![\w.])(?P<low>{_NUMBER})(?:\s*-?\s*(?P<low_unit>{_UNIT})(?![\w°/]))?"
    rf"(?:\s*(?:to|and|or|-|through)\s*(?P<high>{_NUMBER})"
    rf"(?(low_unit)\s*-?\s*(?P=low_unit)(?![\w°/])|(?=\s*-?\s*(?:{_UNIT})(?![\w°/])|\s*$|\s*[,.;)])))?"
    rf"(?(low_unit)|(?:\s*-?\s*(?P<unit>{_UNIT})(?![\w°/]))?)"
    rf"(?:\s*(?:(?P<after_more>{_AFTER_MORE})|(?P<after_less>{_AFTER_LESS}))(?!\w))?"
)
_ROUGHLY = re.compile(r"\b(?:about|around|approximately|roughly|near|nearly|some)\b")
_NUMERAL = "|".join(_NUMERALS)
SPELLED_OUT = re.compile(
    rf"\b(?P<low>{_NUMERAL})(?:\s+(?:to|or|and)\s+(?P<high>{_NUMERAL}))?\s+(?:full |whole )?"
    r"(?=(?:small|little|large|big) (?:square|box)|milli|seconds\b|(?<=one )second\b|beats per|degrees\b|mm\b|mv\b)"
)
RATIO = re.compile(r"(?<![\d.:])(\d+)\s?:\s?(\d+)(?![\d:])|\b(\d|two|three|four|five) to (one)\b")


@dataclass(frozen=True)
class Measure:
    """A number or a range with its dimension (ms, mV, bpm, degrees, ...; "" where the text gives none).

    `low` equals `high` unless it is a range. `comparison` is "at least", "at most" or "is". `about`: a rough number.
    """

    low: float
    high: float
    dimension: str
    comparison: str
    text: str
    about: bool = False

    @property
    def ends(self) -> tuple[float, ...]:
        """The numbers that the text names."""
        return (self.low,) if self.low == self.high else (self.low, self.high)


def numerals_as_digits(text: str) -> str:
    """Numerals before a unit, and before squares of ECG paper, as digits.

    >>> numerals_as_digits("more than three small squares, every second beat")
    'more than 3 small squares, every second beat'
    """

    def digits(match: re.Match[str]) -> str:
        return f"{' to '.join(f'{_NUMERALS[match[name]]:g}' for name in ('low', 'high') if match[name])} "

    return SPELLED_OUT.sub(digits, text)


def measure_of(match: re.Match[str]) -> Measure:
    """The measure of a match of `QUANTITY`."""
    unit = match["unit"] or match["low_unit"] or ""
    dimension, factor = _UNITS.get(unit, ("", 1.0))
    values = [_number(match[name]) * factor for name in ("low", "high") if match[name]]
    comparison = EXACT
    if len(values) == 1:
        if match["more"] or match["after_more"]:
            comparison = AT_LEAST
        if match["less"] or match["after_less"]:
            comparison = AT_MOST
    told = " ".join(match[0].replace("mv", "mV").split())
    return Measure(min(values), max(values), dimension, comparison, told, bool(_ROUGHLY.search(told)))


def _number(text: str) -> float:
    sign = -1.0 if text.startswith("minus ") else 1.0
    return sign * float(text.removeprefix("minus ").replace(",", "."))


def same_dimension(one: Measure, other: Measure) -> tuple[float, ...]:
    """The factors by which the first may be multiplied to be in the unit of the second; none if it cannot be.

    1 mm is 0.1 mV, or 40 ms of paper; a square is either, and a number without a unit is taken in any.
    """
    if one.dimension == other.dimension:
        return (1.0,)
    if not one.dimension:
        return (1.0,)
    factors = {("mm", "mV"): (0.1,), ("mm", "ms"): (40.0,), ("square", "mV"): (0.1,), ("square", "ms"): (40.0,)}
    factors |= {("square", "mm"): (1.0,), ("mm", "square"): (1.0,)}
    factor = factors.get((one.dimension, other.dimension))
    if factor:
        return factor
    inverse = factors.get((other.dimension, one.dimension))
    return tuple(1 / number for number in inverse) if inverse else ()


def agrees(claimed: Measure, known: Measure) -> bool:
    """Whether a passage with the measure `known` says what is claimed: the same numbers, compared the same way."""
    return any(_agrees(claimed, known, factor) for factor in same_dimension(claimed, known))


def _agrees(claimed: Measure, known: Measure, factor: float) -> bool:
    ends = [end * factor for end in claimed.ends]
    if claimed.about and known.low < ends[0] < known.high and ends[-1] < known.high:
        return True  # "at roughly 300 per minute" of 250 to 330
    turns = (0.0, 360.0, -360.0) if known.dimension == "degrees" else (0.0,)
    if not all(any(_close(end + turn, value) for value in known.ends for turn in turns) for end in ends):
        return False
    if len(ends) == 2 or known.dimension == "degrees" or EXACT in (claimed.comparison, known.comparison):
        return len(known.ends) == 1 or len(ends) == 2 or _is_end(claimed, ends[0], known)
    return claimed.comparison == known.comparison


def _is_end(claimed: Measure, value: float, known: Measure) -> bool:
    """One end of a range: its low end is a lower limit, its high end an upper one."""
    if claimed.comparison == EXACT or known.dimension == "degrees":
        return True
    return _close(value, known.low if claimed.comparison == AT_LEAST else known.high)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= 0.011 * max(abs(one), abs(other))
