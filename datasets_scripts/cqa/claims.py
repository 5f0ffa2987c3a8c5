"""What a sentence claims about an ECG: which wave, said to be how, in which leads, with which numbers.

The items of a sentence (`sentence_items.py`) are gathered into claims in one walk: "ST elevation in II, III and aVF
with reciprocal depression in aVL" makes two of the ST segment. What a claim does not say stays empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from datasets_scripts.cqa.ecg_terms import EXCEPTING, HEDGES, LEAD_GROUPS, PARTS, SEPARATING
from datasets_scripts.cqa.measures import Measure
from datasets_scripts.cqa.sentence_items import (
    EVERY_LEAD,
    Item,
    choices_of,
    content_words,
    items_of,
    plain_form,
    singular,
    tokens_of,
)

Pole = tuple[str, str, str]  # wave, axis, end of the axis

_COPULAS = frozenset("is are was were be become turn stay remain appear look".split())
_STOPS_NOUN = SEPARATING | frozenset(
    "in on at to from by with than as which that is are was when while where if and or until till before after over"
    " during between beyond through into once then".split()
)
_IN_A_NOUN = frozenset("the a an both of either wave".split())
_CONTRASTING = frozenset("while whereas but although though".split())
_VERBS = frozenset("invert flatten shorten lengthen widen broaden disappear".split())
_LASTING = frozenset("last measure exceed".split())
_COMPARATIVES = frozenset("larger bigger higher smaller lower".split())
_DIMENSIONS = frozenset("wide broad deep tall high long".split())
_HAVING = frozenset("preceded followed precede follow have show contain display accompanied develop".split())
_SHOWING = frozenset("show display demonstrate exhibit reveal have has record contain carry look".split())
_LINKING = frozenset("by after before behind between from past apart later to until".split())
_REVERSED = {
    ("presence", "present"): ("presence", "absent"),
    ("regularity", "irregular"): ("regularity", "regular"), ("regularity", "regular"): ("regularity", "irregular"),
    ("width", "wide"): ("width", "narrow"), ("width", "narrow"): ("width", "wide"),
    ("conduction", "conducted"): ("conduction", "blocked"),
}  # fmt: skip
_LATER = frozenset("after within following".split())
_SIZES_IN = {  # the small letter is the small wave
    "rs": (("r", "size", "small"),), "qr": (("q", "size", "small"),),
    "rsr": (("r", "size", "small"), ("r", "size", "large")),
}  # fmt: skip
_RATES = frozenset({"rate", "ventricular rate", "atrial rate"})
_WITHOUT_SIZE = _RATES | frozenset({"rhythm", "rr", "pp", "pr", "qt", "rp", "axis", "baseline", "pause", "coupling"})
_UNIVERSAL = _RATES | frozenset({"rr", "rhythm", "qrs", "beat"})


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
    other_waves: frozenset[str] = frozenset()  # also measured: "after 120 ms by a spike", "first part of the QRS"


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

    @cached_property
    def leads(self) -> frozenset[str]:
        """All leads that the sentence names one by one."""
        return frozenset().union(*(claim.leads for claim in self.claims))

    @cached_property
    def all_leads(self) -> frozenset[str]:
        """All leads that the sentence names, those of groups as well."""
        return self.leads.union(*(LEAD_GROUPS[name] for claim in self.claims for name in claim.groups))

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """All numbers of the sentence."""
        return tuple(measure for claim in self.claims for measure in claim.measures)


@dataclass
class _Gathered:
    """A claim while it is being read."""

    waves: list[str] = field(default_factory=list)
    poles: list[tuple[str, str]] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    wholes: list[str] = field(default_factory=list)  # what its waves are parts of
    absent: bool = False
    settled: bool = False  # something is said behind its waves
    signed: bool = False  # said to be positive or negative
    links: bool = False  # a measure leads from its waves to the next ones

    def is_empty(self) -> bool:
        return not (self.waves or self.poles or self.leads or self.groups or self.measures)


@lru_cache(maxsize=20_000)
def read_sentence(text: str) -> Reading:
    """The claims of one sentence; any text can be read.

    >>> claim = read_sentence("ST elevation of at least 0.1 mV in II, III and aVF").claims[0]
    >>> sorted(claim.waves), sorted(claim.leads), claim.measures[0].low, claim.measures[0].comparison
    (['st'], ['II', 'III', 'aVF'], 0.1, 'at least')
    """
    plain = plain_form(text)
    tokens, marks = tokens_of(plain)
    items = items_of(tokens, marks)
    words = [singular(token) for token in tokens if token[0].isalpha()]
    return Reading(
        text=text,
        claims=_claims(items),
        words=frozenset(content_words(words)),
        plain=plain,
        ratios=frozenset(str(mark.value) for mark in marks.values() if mark.kind == "ratio"),
        hedged=not HEDGES.isdisjoint(words),
        every_lead=bool(EVERY_LEAD.search(plain)),
        choices=frozenset(choices_of(words)),
    )


# ----- claims ---------------------------------------------------------------------------------------------------------


def _claims(items: list[Item]) -> tuple[Claim, ...]:
    gathering = _Gathering(items)
    for at, item in enumerate(items):
        gathering.take(at, item)
    gathering.finish()
    following = [*gathering.done[1:], _Gathered()]
    return tuple(_claim(one, other) for one, other in zip(gathering.done, following, strict=False))


class _Gathering:
    """One walk over the items of a sentence."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.done: list[_Gathered] = []
        self.now = _Gathered()
        self.broken = False  # a comma or a separating word stands since the last wave
        self.joined = False  # only "and", commas and empty words stand since the last wave
        self.negating = ""  # "no" before a noun; "not" before a verb, which a noun may follow
        self.denied = False  # a wave stands behind the negation
        self.belonging = False  # "of" stands since the last wave
        self.measuring = False  # no leads stand behind the last measure
        self.last_waves: list[str] = []
        self.subject: list[str] = []  # the waves of the first claim of a clause

    def take(self, at: int, item: Item) -> None:
        getattr(self, f"_take_{item.kind}")(at, item.value)

    def finish(self) -> None:
        """Ends the present claim; one without waves takes those of the claim before."""
        if not self.now.is_empty():
            if not self.now.waves:
                self.now.waves = _implied_waves(self.now, self.last_waves)
            if not self.last_waves or set(self.now.waves) - {"rhythm", "rate"}:
                self.last_waves = self.now.waves
            self.subject = self.subject or self.now.waves
            self.done.append(self.now)
        self.now = _Gathered()

    def _take_wave(self, at: int, wave: str) -> None:
        if self.belonging and wave in ("beat", "qrs"):
            self.now.wholes.append(wave)  # "the T wave of the premature beat" speaks of the T wave
            return
        if self.now.waves and self._is_comparand(at):
            return
        if self.now.waves and self.broken and self.items[at - 1].value in _articles(self.now):
            self.finish()
        again = wave in self.now.waves and not (self.broken or self.now.leads)
        listed = self.joined and not self.now.settled and not self._begins_clause(at)
        if self.now.waves and not again and not listed:
            self.finish()
        self.now.waves.append(wave)
        self.denied = self.negating == "no"
        self.now.absent = self.now.absent or self.denied
        self.joined, self.broken, self.belonging, self.now.settled = True, False, False, False

    def _is_comparand(self, at: int) -> bool:
        """The S wave "longer than the R wave, or longer than 40 ms" is what lasts 40 ms."""
        return any(item.value == "than" for item in self.items[max(0, at - 2) : at] if item.kind == "word")

    def _begins_clause(self, at: int) -> bool:
        """In "a tall R, and the QRS is wide" the R is not wide."""
        before = {item.kind for item in self.items[max(0, at - 3) : at]}
        return bool(self.now.poles) and {"comma", "and"} <= before and self._next(at).value in _COPULAS

    def _take_pole(self, at: int, pole: tuple[str, str]) -> None:
        if self.items[at].text in _VERBS:
            self._return_to_subject(at)
        noun = self._wave_behind(at)
        if self._says_nothing(at, pole, noun):
            return
        if self.now.waves and noun:
            self.finish()
        elif self.now.waves and self._is_complete():
            self.finish()
            self.now.waves = list(self.last_waves)
        if self.negating and not noun:
            pole = _REVERSED.get(pole, ("", ""))
            self.negating = ""
        elif self.negating and pole == ("presence", "absent"):
            pole, self.negating = ("", ""), ""  # "no loss of R waves"
        if pole[0] and not noun and self._follows_last_of_several(at):
            last = self.now.waves.pop()
            self.finish()
            self.now.waves.append(last)
        if pole[0]:
            self.now.poles.append(pole)
            self.now.signed = self.now.signed or self.items[at].text in ("positive", "negative")
        if not noun:
            self.now.settled, self.joined = True, False

    def _is_complete(self) -> bool:
        return bool((self.now.leads or self.now.groups) and self.now.poles and self.now.settled)

    def _says_nothing(self, at: int, pole: tuple[str, str], noun: str) -> bool:
        """A pole word that is none: "30 ms wide", "should be upright", "the PR of slow beats", "lack of blood"."""
        if self.items[at - 1 if at else 0].kind == "measure" and self.items[at].text in _DIMENSIONS:
            return True
        if any(item.value == "should" for item in self.items[max(0, at - 3) : at]):
            return True
        if self.items[at].text in _COMPARATIVES and any(item.value == "than" for item in self.items[at + 1 :]):
            return True  # larger than something else, not large
        if self.belonging and noun in ("beat", "qrs") and self.now.waves:
            return True
        return pole == ("presence", "absent") and not noun and self._next(at).value == "of"

    def _wave_behind(self, at: int) -> str:
        """The wave that the pole stands before: "broad, notched R wave", not "R is broad, S is deep"; "" if none."""
        before = [item.value for item in self.items[max(0, at - 2) : at] if item.kind in ("word", "not")]
        if self.now.waves and not _COPULAS.isdisjoint(before):
            return ""
        passed, joined = 0, False
        text = self.items[at].text
        if text.endswith("ly") and text != "early" and self._next(at).kind != "pole":
            return ""
        for item in self.items[at + 1 :]:
            if item.kind == "wave":
                return "" if joined else str(item.value)
            if item.kind == "pole":
                joined = False
            elif item.kind in ("comma", "and"):
                joined = True
            elif item.kind == "word" and item.value not in _STOPS_NOUN and not joined and passed < 3:
                passed += 1
            else:
                return ""
        return ""

    def _follows_last_of_several(self, at: int) -> bool:
        """In "flat T waves, ST depression" the depression is of the ST segment alone."""
        return bool(at and self.items[at - 1].kind == "wave" and len(self.now.waves) > 1 and self.now.poles)

    def _next(self, at: int) -> Item:
        return self.items[at + 1] if at + 1 < len(self.items) else Item("end", "")

    def _take_leads(self, at: int, leads: tuple[str, ...]) -> None:
        excepted = any(item.value in EXCEPTING for item in self.items[max(0, at - 2) : at] if item.kind == "word")
        if excepted and ("presence", "absent") not in self.now.poles:
            return
        self._begin_with_leads(at)
        self.measuring = False
        self.now.leads.extend(leads)
        self._settle()

    def _begin_with_leads(self, at: int) -> None:
        """Leads before a verb begin a claim: "qR in aVL, and the inferior leads show rS"."""
        parted = bool(at) and self.items[at - 1].kind in ("and", "comma")
        verb = self._next(at).value
        complete = self.now.settled or self.now.leads
        if (verb in _SHOWING and complete) or (parted and verb in _COPULAS and self.now.waves):
            self.finish()
        elif self.now.waves and (self.now.leads or self.now.groups) and self._begins_like_the_last(at):
            self.finish()

    def _begins_like_the_last(self, at: int) -> bool:
        """Leads that leave out the verb: "V5 and V6 show tall R waves and the right chest leads deep S waves"."""
        before = [item for item in self.items[:at] if item.value != "the"]
        behind = [item for item in self.items[at + 1 :] if item.value not in ("a", "an", "the")]
        return bool(before and behind) and before[-1].kind == "and" and behind[0].kind in ("pole", "wave")

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
        if any(item.value in _LATER for item in self.items[max(0, at - 3) : at] if item.kind == "word"):
            self.now.wholes.extend(self.subject)  # P is followed "by a QRS after 120 ms": a time between the two
        if self._next(at).value in _LINKING:
            self.now.links = True
        self._settle()

    def _settle(self) -> None:
        self.now.settled = bool(self.now.waves)
        self.joined = False
        self.negating = ""

    def _take_ratio(self, at: int, ratio: str) -> None:
        self.joined = False

    def _take_not(self, at: int, word: str) -> None:
        self.negating = "not" if word == "not" else "no"
        self.denied = False
        self.joined = False

    def _take_and(self, at: int, word: str) -> None:
        self.broken = True

    def _take_comma(self, at: int, mark: str) -> None:
        self.broken = True
        if not self.joined:
            self.negating = ""

    def _take_break(self, at: int, mark: str) -> None:
        if self.now.waves or self.now.poles or self.now.measures:
            self.finish()
        self.subject = []
        self.joined, self.negating = False, ""

    def _return_to_subject(self, at: int) -> None:
        """ "Each QRS follows a spike and is wide": the QRS is wide."""
        if at and self.items[at - 1].kind in ("and", "comma") and self.subject and self.now.waves:
            between = self.now.waves
            self.finish()
            self.now.waves, self.now.wholes, self.now.settled = list(self.subject), list(between), True

    def _take_word(self, at: int, word: str) -> None:
        if word in _COPULAS or word in _LASTING:
            self._return_to_subject(at)
        if self.negating == "not" and word in _HAVING:
            self.negating = "no"
        elif word in SEPARATING:
            self.negating = ""
        if self.denied and (word == "the" or word not in _IN_A_NOUN):
            self.negating = ""  # "no baseline between flutter waves"
        if word == "with" and not self.now.waves and (self.now.poles or self.now.measures):
            self.finish()
        if word in _CONTRASTING and (self.now.settled or self.now.leads):
            self.finish()
        if word == "of" or word in _STOPS_NOUN:
            self.belonging = word == "of" and bool(self.now.waves)
        if word not in _IN_A_NOUN:
            self.joined = False


def _articles(gathered: _Gathered) -> tuple[str, ...]:
    """Articles that begin something of its own: in "a small r, an S" S is not small, in "no ST, the T" T is there."""
    return ("a", "an", "the") if gathered.absent else ("a", "an")


def _implied_waves(gathered: _Gathered, last: list[str]) -> list[str]:
    """The waves of a claim that names none: mostly those named last; leads that are positive or negative have a QRS."""
    axes = {axis for axis, _ in gathered.poles}
    if gathered.signed and gathered.leads and not set(last) - {"axis"}:
        return ["qrs"]
    if last:
        return list(last)
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
    if "pr" not in gathered.waves:  # regular P waves and QRS complexes need not have anything to do with each other
        poles -= {pole for pole in poles if pole[:2] == ("pr", "regularity")}
    poles |= {pole for wave in gathered.waves for pole in _SIZES_IN.get(wave, ())}
    poles |= {pole for measure in gathered.measures for pole in _implied_poles(measure, waves)}
    absent = gathered.absent or ("presence", "absent") in gathered.poles
    return Claim(
        waves, frozenset(poles), frozenset(gathered.leads), tuple(dict.fromkeys(gathered.groups)),
        tuple(gathered.measures), absent, _parts(gathered.wholes + (following.waves if gathered.links else [])),
    )  # fmt: skip


def _of_waves(pole: tuple[str, str], waves: frozenset[str]) -> set[Pole]:
    """What is said of each of the waves; speed belongs to the rate, order of beats to the rhythm."""
    axis, end = pole
    if axis == "rate":
        return {("rate", axis, end)}
    if axis == "side":
        return {("axis", axis, end)} if "axis" in waves or not waves else set()
    if axis in ("size", "trend"):
        waves = waves - _WITHOUT_SIZE
    if axis == "regularity" and (not waves or waves & _UNIVERSAL):
        return {("rhythm", axis, end)} | {(wave, axis, end) for wave in waves - _UNIVERSAL}
    if pole == ("polarity", "up") and "r" in waves:
        return {(wave, axis, end) for wave in waves} | {("r", "size", "large")}  # R is raised where it is higher
    return {("qrs" if wave == "beat" else wave, axis, end) for wave in waves}


def _implied_poles(measure: Measure, waves: frozenset[str]) -> set[Pole]:
    """Numbers that say the same as a word: a QRS of 120 ms or more is wide."""
    at_least, at_most = measure.comparison == "at least", measure.comparison == "at most"
    number = measure.low
    poles: set[Pole] = set()
    if measure.dimension == "ms":
        for wave, low, high in (("qrs", 120, 110), ("pr", 120, 200), ("qt", 370, 440), ("p", 120, 110)):
            if wave in waves or (wave == "qrs" and "beat" in waves):
                poles |= {(wave, "width", "wide")} if number >= high and not at_most else set()
                poles |= {(wave, "width", "narrow")} if number <= low and at_most else set()
        poles |= {(wave, "width", "wide") for wave in waves & {"q", "r", "s"}} if at_least else set()
    if measure.dimension == "degrees" and "axis" in waves:
        poles |= {("axis", "side", "left")} if measure.high <= -30 and measure.low >= -90 else set()
        poles |= {("axis", "side", "right")} if measure.low >= 90 else set()
    if measure.dimension == "bpm":
        poles |= {("rate", "rate", "fast")} if number >= 100 and not at_most else set()
        poles |= {("rate", "rate", "slow")} if measure.high <= 60 and not at_least else set()
    return poles
