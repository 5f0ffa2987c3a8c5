"""What is wrong with the claims of one sentence: leads, numbers, directions and findings that no passage gives.

Each claim is judged by the page that supports it best. A sentence that names findings is judged by the pages of these,
so that a description of several findings cannot borrow the leads of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasets_scripts.cqa.claims import Claim, Pole, Reading, read_sentence
from datasets_scripts.cqa.ecg_terms import (
    ADDITIONS,
    ALLIED,
    ALTERNATIVES,
    DIFFERENTIAL,
    EVERYWHERE,
    LEAD_GROUPS,
    TELLING_WAVES,
)
from datasets_scripts.cqa.evidence import Page, covered_leads, measures_for, own_leads
from datasets_scripts.cqa.measures import Measure, agrees
from datasets_scripts.cqa.named_findings import findings_named, names_in, pictures_in, words_of_name
from datasets_scripts.cqa.sentence_items import words_of_pole
from datasets_scripts.cqa.statements import ParsedFinding

NEARLY_ALL = 0.9  # this share of common words makes a copy
# names that say no more than a claim on rate, regularity or axis does
PLAIN_NAMES = {
    "regular rhythm": ("regularity", "regular"), "irregular rhythm": ("regularity", "irregular"),
    "tachycardia": ("rate", "fast"), "bradycardia": ("rate", "slow"), "premature complex": ("timing", "early"),
    "left axis deviation": ("side", "left"), "right axis deviation": ("side", "right"),
}  # fmt: skip
_LEAD_ORDER = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6 V7 V8 V9".split()
_WAVE_NAMES = {"st": "ST segment", "qrs": "QRS", "pr": "PR interval", "qt": "QT interval", "rr": "R-R interval"}
_END_NAMES = {
    ("polarity", "up"): "upward", ("polarity", "down"): "downward", ("symmetry", "yes"): "symmetric",
    ("symmetry", "no"): "asymmetric", ("slope", "up"): "upsloping", ("slope", "down"): "downsloping",
    ("side", "left"): "to the left", ("side", "right"): "to the right",
}  # fmt: skip
_CHECKED_AXES = frozenset(
    "polarity width regularity rate side curve slope symmetry concordance timing size trend".split()
)
_ADDED_AXES = frozenset("polarity size width outline curve slope".split())
_ALWAYS_KNOWN = frozenset({"qrs", "beat", "rhythm", "rate", "rr", "baseline", "pause"})
_LOOSELY_DESCRIBED = _ALWAYS_KNOWN - {"qrs"}
_EXEMPT_FROM_PRESENCE = _ALWAYS_KNOWN | {"axis", "st", "pr", "qt", "pp", "rp"}


@dataclass(frozen=True)
class Statement:
    """What the statement itself grants a description."""

    findings: tuple[ParsedFinding, ...]
    names: frozenset[str]
    words: frozenset[str]
    poles: frozenset[Pole]

    def leads_for(self, page: Page) -> frozenset[str]:
        """The leads and territories that the statement names with the page's finding; all of them for other pages."""
        own = [finding for finding in self.findings if finding.name == page.finding] or self.findings
        places = (place.removesuffix(" leads") for finding in own for place in finding.territory)
        named = (lead for finding in own for lead in finding.leads)
        return frozenset(named).union(*(LEAD_GROUPS.get(place, frozenset()) for place in places))

    @classmethod
    def of(cls, findings: Sequence[ParsedFinding]) -> Statement:
        said = [
            f"{' '.join((*finding.form, *finding.territory))} {finding.name} {finding.age_of_infarct} "
            f"{finding.rate_response} rate {finding.frequency} {finding.severity}, {' '.join(finding.notes)}"
            for finding in findings
        ]
        readings = [read_sentence(text) for text in said]
        return cls(
            tuple(findings),
            frozenset(finding.name for finding in findings).union(*(names_in(text) for text in said)),
            frozenset().union(*(reading.words for reading in readings)),
            frozenset().union(*(claim.poles for reading in readings for claim in reading.claims)),
        )


def compares(reading: Reading) -> bool:
    """Whether a sentence sets the finding apart from others, and may name its mimics."""
    return any(cue in reading.plain for cue in DIFFERENTIAL)


def claim_problems(reading: Reading, pages: Sequence[Page], statement: Statement) -> list[str]:
    """What is wrong with the claims of a sentence, each judged by the page that supports it best."""
    if not pages or any(reading.plain == entry.reading.plain for page in pages for entry in page.sentences):
        return []
    pages = _pages_spoken_of(reading, pages)
    problems = list(_invented(reading, pages, statement))
    for claim in reading.claims:
        found = [list(_problems_on_page(claim, page, statement)) for page in pages]
        problems += min(found, key=len)
    problems += [*_ratio_problems(reading, pages), *_misplaced(reading, pages, statement)]
    if not problems:
        problems += [*_copied_wrongly(reading, pages), *_added(reading, pages, statement)]
    problems += _swapped(reading, pages, statement)
    if reading.every_lead and not any(_is_everywhere(page) for page in pages):
        problems.append(f"speaks of all leads; the passage does not ({pages[0].label})")
    return problems


def _pages_spoken_of(reading: Reading, pages: Sequence[Page]) -> Sequence[Page]:
    """The pages of the findings that a sentence names, or that have nearly the same sentence; all if it names none."""
    named = {name for name, _ in findings_named(reading.text)}
    found = [page for page in pages if page.finding and (page.finding in named or page.finding in reading.plain)]
    if not found:
        return pages
    others = [page for page in pages if page.finding not in {other.finding for other in found}]
    return found + [page for page in others if any(_is_copy(reading, entry.reading) for entry in page.sentences)]


def _problems_on_page(claim: Claim, page: Page, statement: Statement) -> Iterator[str]:
    unknown = _unknown_wave(claim, page)
    if unknown:
        yield unknown
        return
    turned = _turned(claim, page, statement)
    yield from turned
    if not turned:
        yield from _lead_problems(claim, page, statement)
    for measure in filter(_is_checkable, claim.measures):
        yield from _measure_problems(claim, measure, page)


def _is_checkable(measure: Measure) -> bool:
    """A bare number that nothing compares may count anything."""
    return bool(measure.dimension) or measure.comparison != "is"


def _unknown_wave(claim: Claim, page: Page) -> str:
    """A wave that the page does not speak of, told with something special about it."""
    unheard = {wave for wave in claim.waves & TELLING_WAVES - page.waves if f" {wave} " not in f" {page.plain} "}
    if claim.absent or not unheard and claim.waves & (page.waves | _ALWAYS_KNOWN):
        return ""
    said = {pole for pole in claim.poles if pole[1] not in ("state", "presence")}
    if claim.waves and (unheard or said or claim.measures or claim.leads):
        return f"speaks of {waves_in_words(unheard or claim.waves)}; the passage does not ({page.label})"
    return ""


def _turned(claim: Claim, page: Page, statement: Statement) -> list[str]:
    """Directions that the page gives the other way round."""
    problems = []
    for wave, axis, end in () if claim.absent else sorted(claim.poles - statement.poles):
        known = page.ends.get((wave, axis))
        said = f"says that the {waves_in_words({wave})} is {_end_in_words(axis, end)}; the passage"
        if not known:
            unheard = page.words.isdisjoint(words_of_pole(axis, end))
            if axis in _ADDED_AXES and wave not in _LOOSELY_DESCRIBED and unheard:
                problems.append(f"{said} does not ({page.label})")
        elif axis in _CHECKED_AXES and end not in known and not _is_allied(wave, axis, end, page.poles):
            told = " or ".join(_end_in_words(axis, other) for other in sorted(known))
            problems.append(f"{said} says {told} ({page.label})")
    return problems + _presence_problems(claim, page)


def _is_allied(wave: str, axis: str, end: str, poles: frozenset[Pole]) -> bool:
    pairs = (*ALLIED, *((other, one) for one, other in ALLIED))
    return any(one == (axis, end) and (wave, *other) in poles for one, other in pairs)


def _presence_problems(claim: Claim, page: Page) -> list[str]:
    """A wave said to be absent that the page never misses, and one told of that the page only misses."""
    waves = claim.waves - _EXEMPT_FROM_PRESENCE
    if len(waves) != 1:
        return []
    entries = [entry for entry, _ in page.claims if waves <= entry.waves]
    if not entries:
        return []
    nearly = {("presence", "hidden"), ("size", "small")}
    missed = any(entry.absent or nearly & {pole[1:] for pole in entry.poles} for entry in entries)
    if claim.absent and not (missed or _is_lost_at_times(waves, page)):
        return [f"says that the {waves_in_words(waves)} is absent; the passage does not ({page.label})"]
    if not claim.absent and all(entry.absent for entry in entries):
        return [f"says that the {waves_in_words(waves)} is present; the passage says that it is absent ({page.label})"]
    return []


def _is_lost_at_times(waves: frozenset[str], page: Page) -> bool:
    """Whether a sentence of the page speaks of the waves and of absence: "absent in sinus rhythm"."""
    absent = words_of_pole("presence", "absent")
    return any(
        not absent.isdisjoint(entry.reading.words) and any(waves & claim.waves for claim in entry.reading.claims)
        for entry in page.sentences
    )


def _lead_problems(claim: Claim, page: Page, statement: Statement) -> Iterator[str]:
    """Leads in which neither page nor statement has what the claim says; a group of leads needs one that has."""
    if not claim.leads and not claim.groups or any(pole[1:] == ("state", "normal") for pole in claim.poles):
        return  # what is normal somewhere else is no false lead
    covered = covered_leads(page, claim)
    if not covered:
        return
    granted = statement.leads_for(page)
    wrong = claim.leads - covered - granted
    if wrong:
        yield f"names {_leads(wrong)}; the passage has {_leads(covered)} ({page.place_of(covered)})"
    loosely = covered_leads(page, claim, loosely=True) | granted
    loosely = loosely.union(*(own_leads(known) for known, _ in page.claims if known.waves & claim.waves))
    for name in claim.groups:
        if not LEAD_GROUPS[name] & loosely:
            yield f"names {name} leads; the passage has {_leads(covered)} ({page.label})"


def _measure_problems(claim: Claim, measure: Measure, page: Page) -> Iterator[str]:
    """A number that the page does not give to the claim's waves, or gives to them in other leads alone."""
    known = measures_for(page, claim, measure)
    agreeing = [entry for entry in known if agrees(measure, entry.measure)]
    if agreeing:
        elsewhere = frozenset().union(*(entry.leads for entry in agreeing))
        leads = own_leads(claim)
        if leads and all(entry.leads for entry in agreeing) and not leads & elsewhere:
            yield f"gives {measure.text} in {_leads(leads)}; the passage in {_leads(elsewhere)} ({page.label})"
        return
    same = dict.fromkeys(entry.measure.text for entry in known if entry.measure.dimension == measure.dimension)
    told = ", ".join(same) or "none"
    waves = waves_in_words(claim.waves) or "a measure"
    yield f"gives {measure.text} for {waves}; the passage has {told} ({page.label})"


def _misplaced(reading: Reading, pages: Sequence[Page], statement: Statement) -> Iterator[str]:
    """Leads of a sentence that speaks of no wave, where the sentences with its words have others ("strain in V1")."""
    if not reading.leads or any(claim.waves for claim in reading.claims):
        return
    for page in pages:
        about = [entry.reading for entry in page.sentences if entry.reading.words & reading.words]
        known = frozenset().union(*(entry.all_leads for entry in about))
        wrong = reading.leads - known - statement.leads_for(page)
        if not known or not wrong:
            return
    yield f"names {_leads(wrong)}; the passage has {_leads(known)} ({page.label})"


def _ratio_problems(reading: Reading, pages: Sequence[Page]) -> Iterator[str]:
    """Ratios that no page gives; 2:1 may stand for "every second", 1:1 for "each"."""
    known = frozenset().union(*(entry.reading.ratios for page in pages for entry in page.sentences))
    words = " ".join(page.plain for page in pages)
    for ratio in sorted(reading.ratios - known):
        if not (ratio == "2:1" and "second" in words) and not (ratio == "1:1" and "each" in words):
            yield f"gives a ratio of {ratio}; the passage has {', '.join(sorted(known)) or 'none'}"


def _copied_wrongly(reading: Reading, pages: Sequence[Page]) -> Iterator[str]:
    """A sentence that has nearly the words of one of a page, but leads or numbers that this one does not have."""
    copied = [
        (entry.reading, page.label) for page in pages for entry in page.sentences if _is_copy(reading, entry.reading)
    ]
    changes = [(_changed(reading, known), known.text, label) for known, label in copied]
    if changes and all(changed for changed, _, _ in changes):
        changed, text, label = changes[0]
        yield f"{changed}; the passage has '{text}' ({label})"


def _changed(reading: Reading, known: Reading) -> str:
    """The leads or the number that a copied sentence has and its original has not."""
    leads = reading.leads - known.all_leads
    if known.all_leads and leads:
        return f"names {_leads(leads)}"
    merged = len(reading.measures) > len(known.measures)
    measures = () if merged else filter(_is_checkable, reading.measures)
    wrong = [measure.text for measure in measures if not any(agrees(measure, other) for other in known.measures)]
    return f"gives {wrong[0]}" if wrong else ""


def _is_copy(reading: Reading, known: Reading) -> bool:
    shared = len(reading.words & known.words)
    return shared >= 4 and shared >= NEARLY_ALL * len(reading.words | known.words)


def _added(reading: Reading, pages: Sequence[Page], statement: Statement) -> Iterator[str]:
    """A picture that a sentence says to be there besides: "There is also ST depression"."""
    if not any(cue in reading.plain for cue in ADDITIONS):
        return
    known = statement.names.union(*(page.pictures for page in pages))
    poles = statement.poles.union(*(page.poles for page in pages))
    said = {pole for claim in reading.claims for pole in claim.poles if pole[1] not in ("state", "presence")}
    for name in sorted(pictures_in(reading.text) - known):
        if not said or not said <= poles:
            yield f"adds {name}; neither the statement nor the passage does ({pages[0].label})"


def _is_everywhere(page: Page) -> bool:
    """Whether a page speaks of all leads, in one of the ways in which that is said."""
    return any(entry.reading.every_lead for entry in page.sentences) or any(word in page.plain for word in EVERYWHERE)


def _swapped(reading: Reading, pages: Sequence[Page], statement: Statement) -> Iterator[str]:
    """Left for right, second for third: before a noun before which the page has only the other."""
    known = frozenset().union(*(entry.reading.choices for page in pages for entry in page.sentences))
    for word, noun in sorted(reading.choices - known):
        others = [other for other in ALTERNATIVES[word] if (other, noun) in known]
        if others and word not in statement.words and (noun or word.startswith("type")):
            yield f"says {word} {noun}; the passage says {' or '.join(others)} ({pages[0].label})"


def _invented(reading: Reading, pages: Sequence[Page], statement: Statement) -> Iterator[str]:
    """Findings that neither the statement nor a page mentions."""
    allowed = statement.names.union(*(page.names for page in pages))
    if compares(reading):
        allowed = allowed.union(*(page.mimic_names for page in pages))
    ends = statement.poles.union(*(page.poles for page in pages))
    phrases = dict(findings_named(reading.text))
    labels = ", ".join(page.label for page in pages[:3])
    for name in sorted(names_in(reading.text) - allowed):
        said = any(pole[1:] == PLAIN_NAMES.get(name) for pole in ends)
        if not said and not _is_part(phrases.get(name, (name,)), allowed, pages):
            yield f"names {name}; neither the statement nor the passage does ({labels})"


def _is_part(phrase: Sequence[str], allowed: frozenset[str], pages: Sequence[Page]) -> bool:
    """Whether the words of a name are all part of an allowed name ("AV block" of "first degree AV block"), or stand
    together in one sentence of a page and its name; "sinus rhythm" is known where a page speaks of sinus beats.
    """
    parts = frozenset(phrase)
    if any(parts <= words_of_name(name) for name in allowed):
        return True
    words = read_sentence(" ".join(phrase)).words
    words = words - ({"rhythm"} if "sinus" in parts else {"beat"} if "escape" in parts else set())
    return any(
        words <= entry.reading.words | read_sentence(page.finding).words for page in pages for entry in page.sentences
    )


# ----- words ----------------------------------------------------------------------------------------------------------


def waves_in_words(waves: frozenset[str] | set[str]) -> str:
    """The names of waves, as in "P wave and QRS"."""
    names = (_WAVE_NAMES.get(wave, f"{wave.upper()} wave" if len(wave) == 1 else wave) for wave in sorted(waves))
    return " and ".join(names)


def _end_in_words(axis: str, end: str) -> str:
    return _END_NAMES.get((axis, end), end)


def _leads(leads: frozenset[str]) -> str:
    """Leads as a list in the usual order.

    >>> _leads(frozenset({"aVF", "II", "III"}))
    'II, III and aVF'
    """
    ordered = sorted(leads, key=lambda lead: (_LEAD_ORDER.index(lead) if lead in _LEAD_ORDER else 99, lead))
    return " and ".join(filter(None, (", ".join(ordered[:-1]), ordered[-1]))) if ordered else ""
