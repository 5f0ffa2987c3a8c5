"""What a sentence claims about an ECG: which wave, said to be how, in which leads, with which numbers.

A sentence is cut into items (waves, poles, leads, measures, negations, separators: the words of `ecg_terms.py`), and
these are gathered into claims: "ST elevation in II, III and aVF with reciprocal depression in aVL" makes two of the
ST segment. What a claim does not say stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from datasets_scripts.cqa.ecg_terms import (
    ALTERNATIVES,
    EMPTY,
    HEDGES,
    LEAD_GROUPS,
    NEGATIONS,
    PARTS,
    POLES,
    SAME,
    SEPARATING,
    WAVES,
)
from datasets_scripts.cqa.measures import QUANTITY, RATIO, Measure, measure_of, squares_as_numbers

Pole = tuple[str, str, str]  # wave, axis, end of the axis

_ATOM = (
    r"(?:v\s?[1-9]r?(?:\s*-\s*v?\s?[1-9]r?|\s+(?:to|through|thru|up to)\s+v\s?[1-9]r?)?(?!\w)|av[rlf](?!\w)"
    r"|(?<!type )(?<!mobitz )(?<!class )(?<!grade )(?<!degree )(?<!kind )(?:iii|ii|i)(?![\w'.]\w|\w))"
)
_JOIN = r"\s*(?:,?\s*(?:and|or|plus|as well as|to|&|and/or)\s+|,|/|\+|&)\s*(?:(?:in|also in|lead|leads|from|both)\s+)*"
_LEADS = re.compile(rf"(?<![\w'])(?:leads? )?{_ATOM}(?:{_JOIN}{_ATOM})*")
_RANGE = re.compile(r"v\s?([1-9])(r?)\s*(?:-|to|through|thru|up to)\s*v?\s?([1-9])")
_SINGLE = re.compile(r"v\s?[1-9]r?|av[rlf]|iii|ii|i")
_LEAD_NAMES = {"avr": "aVR", "avl": "aVL", "avf": "aVF", "i": "I", "ii": "II", "iii": "III"}
_GROUP = "|".join(sorted(LEAD_GROUPS, key=len, reverse=True))
_GROUPS = re.compile(
    rf"\b(?:{_GROUP})(?:(?:\s*,\s*|\s*/\s*|,?\s+(?:and|or)\s+)(?:the )?(?:{_GROUP}))*\s+(?:wall )?(?:leads?|derivations?)\b"
    rf"|\b(?:inferiorly|anteriorly|laterally)\b|\bleads? (?:of|over|facing) the (?:{_GROUP}) wall\b"
)
_PLACES = "inferior|lateral|high lateral|anterior|septal|anteroseptal|anterolateral|inferolateral|inferoposterior|posterior"
_PLACED = re.compile(
    rf"\b({_PLACES})(?=(?: (?:deep|symmetric|horizontal|downsloping|slight|marked|inverted|tall|pathological|abnormal))*"
    r" (?:st|stt|[qrt])(?: segments?| waves?)*(?: elevation| depression| inversion| changes?| abnormalit|s?\b))"
)
_GROUP_NAME = re.compile(rf"\b(?:{_GROUP})\b")
_EVERY_LEAD = re.compile(r"\b(?:all|every|each|any)(?: of the| the)?(?: (?:12|twelve))? leads?\b|\ball twelve\b")
_GAP = (
    r"(?:distance|interval|spacing|time|gap|space)s? (?:between|from|separating) (?:the |two |each )*"
    r"(?:successive |consecutive |adjacent |neighbou?ring |onset of (?:the )?)*"
)
_REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[\u2010-\u2015\u2212]", "-"), (r"[\u2018\u2019\u2032\u0060\u00b4]", "'"), (r"\u00b0(?! ?c\b)", " degrees "),
        (r"\u2265|>=", " at least "), (r"\u2264|<=", " at most "), (r"[\u2248~]", " about "), (r"[\u00b5\u03bc]v", "uv"),
        (r"\b12[- ]lead\b", "ecg"), (r"\br[ -]r(?=\W)", "rr"), (r"\bp[ -]p(?=\W)", "pp"), (r"\bp[ -]r(?=\W)", "pr"),
        (r"\bq[ -]t(?=\W|c)", "qt"), (r"\br[ -]p(?=\W)", "rp"), (r"\bst[-/]t\b", "stt"), (r"\bst and t wave", "stt"),
        (r"\b(re|pre)-(?=ent|exc|pol)", r"\1"), (r"\bnon-", "non"), (r"(?<=[a-z])-(?=[a-z])", " "),
        (r"\b(\w+)n't\b", r"\1n not"), (r"'s\b", ""), (r"\brsr (?:prime|')", "rsr'"), (r"\bcannot\b", "can not"),
        (r"\batrioventricular\b", "av"), (r"\b(atria|ventricle)s\b", r"\1"), (r"\bper cent\b", "%"),
        (r"\bm[vV]\s?[·.*x]\s?ms\b|\bmillivolt milliseconds?\b", "mv.ms"), (r"\bmm\s?[·.*x]\s?s\b", "mm.s"),
        (r"\b(?:does|do|did) not exceed", "not exceed"),
        (r"\b(?:type|mobitz) (?:1|i)\b", "typeone"), (r"\b(?:type|mobitz) (?:2|ii)\b", "typetwo"),
        (rf"\b{_GAP}(?:r waves|rs|qrs complexes|beats|ventricular \w+|r peaks|heartbeats)\b", "rr interval"),
        (rf"\b{_GAP}p waves\b", "pp interval"),
        (rf"\b{_GAP}(?:onset of )?(?:the )?p wave(?: onset)? (?:and|to) (?:the )?(?:onset of )?(?:the )?qrs\b", "pr interval"),
    )
)  # fmt: skip
_TOKEN = re.compile(r"[\ue000-\uf8ff]|r/s|[^\W\d_]+'?|\d+|[,;:().]")
_LEAD_MARK, _GROUP_MARK, _RATIO_MARK, _NUMBER_MARK = 0xE000, 0xE400, 0xE800, 0xEC00
_COPULAS = frozenset("is are was were be become becomes turn turns stay stays remain remains appear appears look".split())
_STOPS_NOUN = frozenset("in on at to from by with than as which that is are was when while where if and or".split())
_CONTRASTING = frozenset("while whereas but although though".split())
_SHOWING = frozenset("show display demonstrate exhibit reveal have has record contain carry look".split())
_LINKING = frozenset("by after before behind between from past apart later to until".split())
_NOT_NEGATING = frozenset("only every all always necessarily each just".split())
_REVERSED = {
    ("presence", "present"): ("presence", "absent"),
    ("regularity", "irregular"): ("regularity", "regular"), ("regularity", "regular"): ("regularity", "irregular"),
    ("width", "wide"): ("width", "narrow"), ("width", "narrow"): ("width", "wide"),
}  # fmt: skip
_UNIVERSAL = frozenset({"rr", "rhythm", "qrs", "beat", "rate"})


@dataclass(frozen=True)
class Claim:
    """One thing that a sentence says of one wave or of several at once.

    `waves` are values of `ecg_terms.WAVES`, `poles` what is said of them, `leads` the leads named with them, `groups`
    loosely named leads ("lateral leads"), `measures` the numbers; `absent` means that the waves are said to be absent.
    """

    waves: frozenset[str]
    poles: frozenset[Pole]
    leads: frozenset[str]
    groups: tuple[str, ...]
    measures: tuple[Measure, ...]
    absent: bool
    next_waves: frozenset[str] = frozenset()  # "after 120 ms by a spike" measures both


@dataclass(frozen=True)
class Reading:
    """A sentence as read: its claims, its content words brought to a common form, ratios, and whether it is hedged."""

    text: str
    claims: tuple[Claim, ...]
    words: frozenset[str]
    plain: str
    ratios: frozenset[str]
    hedged: bool
    every_lead: bool
    choices: frozenset[tuple[str, str]]  # "left" of left and right, with the word behind it

    @property
    def leads(self) -> frozenset[str]:
        """All leads that the sentence names."""
        return frozenset().union(*(claim.leads for claim in self.claims))


@dataclass(frozen=True)
class _Item:
    kind: str  # wave, pole, leads, group, measure, ratio, not, break, and, comma, word
    value: object


@dataclass
class _Gathered:
    """A claim while it is being read."""

    waves: list[str] = field(default_factory=list)
    poles: list[tuple[str, str]] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    absent: bool = False
    settled: bool = False  # something is said behind its waves
    links: bool = False  # a measure leads from its waves to the next ones

    def is_empty(self) -> bool:
        return not (self.waves or self.poles or self.leads or self.groups or self.measures)


def plain_form(text: str) -> str:
    """Lower case, one kind of dash and of prime, hyphens opened, `R-R` as `rr`: the text that is read."""
    text = f" {' '.join(text.split())} ".lower()
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return squares_as_numbers(" ".join(text.split()))


@lru_cache(maxsize=20_000)
def read_sentence(text: str) -> Reading:
    """The claims of one sentence; any text can be read.

    >>> claim = read_sentence("ST elevation of at least 0.1 mV in II, III and aVF").claims[0]
    >>> sorted(claim.waves), sorted(claim.leads), claim.measures[0].low, claim.measures[0].comparison
    (['st'], ['II', 'III', 'aVF'], 0.1, 'at least')
    """
    plain = plain_form(text)
    every_lead = bool(_EVERY_LEAD.search(plain))
    marked, marks = _marked(_EVERY_LEAD.sub("ecg", plain))
    tokens = _TOKEN.findall(marked)
    items = _items(tokens, marks)
    words = [singular(token) for token in tokens if token[0].isalpha()]
    return Reading(
        text=text,
        claims=_claims(items),
        words=frozenset(content_words(words)),
        plain=plain,
        ratios=frozenset(str(mark.value) for mark in marks.values() if mark.kind == "ratio"),
        hedged=not HEDGES.isdisjoint(words),
        every_lead=every_lead,
        choices=frozenset(_choices(words)),
    )


def content_words(words: list[str]) -> list[str]:
    """The words that say something, each in the form that stands for all with its meaning."""
    return [_stem(SAME.get(word, word)) for word in words if word not in EMPTY and (len(word) > 1 or word in "pqrstuj")]


def _choices(words: list[str]) -> Iterator[tuple[str, str]]:
    """Words of which another could stand in their place, each with the next word that says something."""
    for at, word in enumerate(words):
        if word in ALTERNATIVES:
            following = next((other for other in words[at + 1 : at + 4] if content_words([other])), "")
            yield word, "".join(content_words([following])) if following not in ALTERNATIVES else ""


def singular(word: str) -> str:
    """A word without its plural or third-person ending."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]


def _stem(word: str) -> str:
    for ending in ("ically", "ation", "ingly", "ing", "edly", "ed", "ally", "ly", "al", "ity", "ion", "ic", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


# ----- items ----------------------------------------------------------------------------------------------------------


def _marked(text: str) -> tuple[str, dict[str, _Item]]:
    """The text with leads, lead groups, ratios and measures each replaced by one character, and what these stand for."""
    marks: dict[str, _Item] = {}

    def put(first: int, kind: str, value: object) -> str:
        character = chr(first + len(marks))
        marks[character] = _Item(kind, value)
        return f" {character} "

    text = _LEADS.sub(lambda match: put(_LEAD_MARK, "leads", _lead_names(match[0])), text)
    text = _GROUPS.sub(lambda match: put(_GROUP_MARK, "group", tuple(_GROUP_NAME.findall(match[0]))), text)
    text = _PLACED.sub(lambda match: put(_GROUP_MARK, "group", (match[1],)), text)
    text = RATIO.sub(lambda match: put(_RATIO_MARK, "ratio", _ratio(match)), text)

    def number(match: re.Match[str]) -> str:
        return put(_NUMBER_MARK, "measure", measure_of(match))

    return QUANTITY.sub(number, text), marks


def _ratio(match: re.Match[str]) -> str:
    digits = {"two": "2", "three": "3", "four": "4", "five": "5", "one": "1"}
    first, second = (match[1], match[2]) if match[1] else (match[3], match[4])
    return f"{digits.get(first, first)}:{digits.get(second, second)}"


def _lead_names(text: str) -> tuple[str, ...]:
    names: list[str] = []

    def spell_out(match: re.Match[str]) -> str:
        names.extend(f"V{number}{match[2].upper()}" for number in range(int(match[1]), int(match[3]) + 1))
        return " "

    rest = _RANGE.sub(spell_out, text)
    for name in _SINGLE.findall(rest):
        name = name.replace(" ", "")
        names.append(_LEAD_NAMES.get(name, name.upper()))
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=1)
def _phrases() -> Mapping[str, tuple[tuple[tuple[str, ...], _Item], ...]]:
    """Waves and poles by their first word, the longest phrase first."""
    by_word: dict[str, list[tuple[tuple[str, ...], _Item]]] = {}
    for kind, table in (("wave", WAVES), ("pole", POLES)):
        for phrase, value in table.items():
            words = tuple(phrase.split())
            by_word.setdefault(words[0], []).append((words, _Item(kind, value)))
    return MappingProxyType(
        {word: tuple(sorted(entries, key=lambda entry: -len(entry[0]))) for word, entries in by_word.items()}
    )


def _items(tokens: list[str], marks: Mapping[str, _Item]) -> list[_Item]:
    words = [singular(token) for token in tokens]
    items: list[_Item] = []
    at = 0
    while at < len(words):
        item, length = _item_at(tokens, words, at, marks)
        items.append(item)
        at += length
    return items


def _item_at(tokens: list[str], words: list[str], at: int, marks: Mapping[str, _Item]) -> tuple[_Item, int]:
    word = words[at]
    if word in marks:
        return marks[word], 1
    if word in ",()":
        return _Item("comma", word), 1
    if word in ";:.":
        return _Item("break", word), 1
    for source in (words, tokens):
        for phrase, item in _phrases().get(source[at], ()):
            if tuple(source[at : at + len(phrase)]) == phrase:
                return item, len(phrase)
    if word in ("and", "or"):
        return _Item("and", word), 1
    if word in NEGATIONS and not (at + 1 < len(words) and words[at + 1] in _NOT_NEGATING):
        return _Item("not", word), 1
    return _Item("word", word), 1


# ----- claims ---------------------------------------------------------------------------------------------------------


def _claims(items: list[_Item]) -> tuple[Claim, ...]:
    gathering = _Gathering(items)
    for at, item in enumerate(items):
        gathering.take(at, item)
    gathering.finish()
    following = [*gathering.done[1:], _Gathered()]
    return tuple(_claim(one, other) for one, other in zip(gathering.done, following, strict=False))


class _Gathering:
    """One walk over the items of a sentence."""

    def __init__(self, items: list[_Item]) -> None:
        self.items = items
        self.done: list[_Gathered] = []
        self.now = _Gathered()
        self.broken = False  # a comma or a separating word stands since the last wave
        self.joined = False  # only "and", commas and empty words stand since the last wave
        self.negating = False
        self.measuring = False  # no leads stand behind the last measure
        self.last_waves: list[str] = []

    def take(self, at: int, item: _Item) -> None:
        getattr(self, f"_take_{item.kind}")(at, item.value)

    def finish(self) -> None:
        """Ends the present claim; one without waves takes those of the claim before."""
        if not self.now.is_empty():
            if not self.now.waves:
                self.now.waves = list(self.last_waves) or _implied_waves(self.now)
            self.last_waves = self.now.waves
            self.done.append(self.now)
        self.now = _Gathered()

    def _take_wave(self, at: int, wave: str) -> None:
        again = wave in self.now.waves and not (self.broken or self.now.leads)
        if self.now.waves and not again and not (self.joined and not self.now.settled):
            self.finish()
        self.now.waves.append(wave)
        self.now.absent = self.now.absent or self.negating
        self.joined, self.broken, self.now.settled = True, False, False

    def _take_pole(self, at: int, pole: tuple[str, str]) -> None:
        before_noun = self._stands_before_wave(at)
        if pole == ("presence", "absent") and not before_noun and self._next_is(at, "of"):
            return  # lack of something that is no wave
        if before_noun and self.now.waves:
            self.finish()
        elif self.now.waves and (self.now.leads or self.now.groups) and self.now.poles and self.now.settled:
            self.finish()
        if self.negating and not before_noun:
            pole = _REVERSED.get(pole, ("", ""))
            self.negating = False
        if pole == ("presence", "absent") and self.negating:
            self.negating = False
        elif pole[0] and not before_noun and self._follows_last_of_several(at):
            last = self.now.waves.pop()
            self.finish()
            self.now.waves, self.now.poles = [last], [pole]
        elif pole[0]:
            self.now.poles.append(pole)
        if not before_noun:
            self.now.settled = True
            self.joined = False

    def _stands_before_wave(self, at: int) -> bool:
        """Whether the pole belongs to a wave behind it: "broad, notched R wave", not "R is broad, S is deep"."""
        before = [item.value for item in self.items[max(0, at - 2) : at] if item.kind in ("word", "not")]
        if self.now.waves and not _COPULAS.isdisjoint(before):
            return False
        passed, joined = 0, False
        for item in self.items[at + 1 :]:
            if item.kind == "wave":
                return not joined
            if item.kind == "pole":
                joined = False
            elif item.kind in ("comma", "and"):
                joined = True
            elif item.kind == "word" and item.value not in _STOPS_NOUN and not joined and passed < 3:
                passed += 1
            else:
                return False
        return False

    def _follows_last_of_several(self, at: int) -> bool:
        """"Flat T waves, ST depression": the depression is of the ST segment alone."""
        return bool(at and self.items[at - 1].kind == "wave" and len(self.now.waves) > 1 and self.now.poles)

    def _next_is(self, at: int, word: str) -> bool:
        return at + 1 < len(self.items) and self.items[at + 1].value == word

    def _take_leads(self, at: int, leads: tuple[str, ...]) -> None:
        self._begin_with_leads(at)
        self.measuring = False
        self.now.leads.extend(leads)
        self._settle()

    def _begin_with_leads(self, at: int) -> None:
        """Leads before a verb begin a claim: "qR in aVL, and the inferior leads show rS"."""
        following = self.items[at + 1] if at + 1 < len(self.items) else None
        shows = following and following.kind in ("word", "pole") and following.value in _SHOWING
        if shows and self.now.settled:
            self.finish()

    def _take_group(self, at: int, names: tuple[str, ...]) -> None:
        following = [item for item in self.items[at + 1 : at + 4] if item.kind not in ("comma", "break", "word")]
        named = following[0].value if following and following[0].kind == "leads" else ()
        self._begin_with_leads(at)
        self.measuring = False
        self.now.groups.extend(name for name in names if LEAD_GROUPS[name].isdisjoint(named) or not named)
        self._settle()

    def _take_measure(self, at: int, measure: Measure) -> None:
        if self.now.measures and (self.now.leads or self.now.groups) and not self.measuring:
            waves, poles, absent = self.now.waves, list(self.now.poles), self.now.absent
            self.finish()
            self.now.waves, self.now.poles, self.now.absent = list(waves), poles, absent
        self.measuring = True
        self.now.measures.append(measure)
        following = self.items[at + 1] if at + 1 < len(self.items) else None
        if following and following.kind == "word" and following.value in _LINKING:
            self.now.links = True
        self._settle()

    def _settle(self) -> None:
        self.now.settled = bool(self.now.waves)
        self.joined = False
        self.negating = False

    def _take_ratio(self, at: int, ratio: str) -> None:
        self.joined = False

    def _take_not(self, at: int, word: str) -> None:
        self.negating = True
        self.joined = False

    def _take_and(self, at: int, word: str) -> None:
        self.broken = True

    def _take_comma(self, at: int, mark: str) -> None:
        self.broken = True
        if not self.joined:
            self.negating = False

    def _take_break(self, at: int, mark: str) -> None:
        if self.now.waves or self.now.poles or self.now.measures:
            self.finish()
        self.joined = self.negating = False

    def _take_word(self, at: int, word: str) -> None:
        if word in SEPARATING:
            self.negating = False
        if word in _CONTRASTING and self.now.settled:
            self.finish()
        if word not in ("the", "a", "an", "both", "of", "either", "wave"):
            self.joined = False


def _implied_waves(gathered: _Gathered) -> list[str]:
    axes = {axis for axis, _ in gathered.poles}
    if axes == {"rate"} or any(measure.dimension == "bpm" for measure in gathered.measures):
        return ["rate"]
    if axes == {"side"} or any(measure.dimension == "degrees" for measure in gathered.measures):
        return ["axis"]
    return []


def _parts(waves: list[str]) -> frozenset[str]:
    parts = frozenset().union(*(PARTS.get(wave, {wave}) for wave in waves))
    return parts | ({"pr"} if {"p", "qrs"} <= parts else set())


def _claim(gathered: _Gathered, following: _Gathered) -> Claim:
    waves = _parts(gathered.waves)
    poles = {spread for pole in gathered.poles for spread in _of_waves(pole, waves)}
    poles |= {pole for measure in gathered.measures for pole in _implied_poles(measure, waves)}
    absent = gathered.absent or ("presence", "absent") in gathered.poles
    return Claim(
        waves, frozenset(poles), frozenset(gathered.leads), tuple(dict.fromkeys(gathered.groups)),
        tuple(gathered.measures), absent, _parts(following.waves) if gathered.links else frozenset(),
    )  # fmt: skip


def _of_waves(pole: tuple[str, str], waves: frozenset[str]) -> set[Pole]:
    """What is said of each of the waves; speed belongs to the rate, order of beats to the rhythm."""
    axis, end = pole
    if axis == "rate":
        return {("rate", axis, end)}
    if axis == "side":
        return {("axis", axis, end)} if "axis" in waves or not waves else set()
    if axis == "regularity" and (not waves or waves & _UNIVERSAL):
        return {("rhythm", axis, end)}
    return {("qrs" if wave == "beat" else wave, axis, end) for wave in waves}


def _implied_poles(measure: Measure, waves: frozenset[str]) -> set[Pole]:
    """Numbers that say the same as a word: a QRS of 120 ms or more is wide."""
    at_least, at_most = measure.comparison == "at least", measure.comparison == "at most"
    poles: set[Pole] = set()
    if measure.dimension == "ms":
        for wave, low, high in (("qrs", 120, 110), ("pr", 120, 200), ("qt", 370, 440), ("p", 110, 110)):
            if wave in waves or (wave == "qrs" and "beat" in waves):
                poles |= {(wave, "width", "wide")} if at_least and measure.low >= high else set()
                poles |= {(wave, "width", "narrow")} if at_most and measure.low <= low else set()
    if measure.dimension == "degrees" and "axis" in waves:
        poles |= {("axis", "side", "left")} if measure.high <= -30 and measure.low >= -90 else set()
        poles |= {("axis", "side", "right")} if measure.low >= 90 else set()
    if measure.dimension == "bpm":
        poles |= {("rate", "rate", "fast")} if measure.low >= 100 and not at_most else set()
        poles |= {("rate", "rate", "slow")} if measure.high <= 60 and not at_least else set()
    return poles
