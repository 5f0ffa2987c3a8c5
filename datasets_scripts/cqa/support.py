"""Whether a description says what its passages say: leads, numbers, findings and directions, sentence by sentence.

`check_description` reads each sentence as claims (`claims.py`) and looks each claim up in the passages
(`evidence.py`). A sentence is flagged with a problem in plain words where it names a lead, a number, a finding or a
direction that no cited passage gives to that wave, where it takes a doubt or a negation of the statement away, where it
says the opposite of another sentence, and where hardly any of its words are in the passages. No model is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasets_scripts.cqa.claims import Claim, Pole, Reading, read_sentence
from datasets_scripts.cqa.ecg_terms import ALLIED, ALTERNATIVES, ASSERTIONS, DIFFERENTIAL, LEAD_GROUPS, TELLING_WAVES
from datasets_scripts.cqa.evidence import (
    Page,
    covered_leads,
    findings_named,
    measures_for,
    names_in,
    pages_of,
    sentences_of_text,
    words_of_name,
)
from datasets_scripts.cqa.measures import Measure, agrees
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.statements import ParsedFinding

# under this share of known content words a sentence counts as not supported: with a claim that a page makes, without
FEW_WORDS, MANY_WORDS = 0.2, 0.4
HEDGED = frozenset({"possible", "consider", "cannot rule out", "probable", "borderline", "suggested"})
_LEAD_ORDER = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6 V7 V8 V9".split()
_WAVE_NAMES = {"st": "ST segment", "qrs": "QRS", "pr": "PR interval", "qt": "QT interval", "axis": "axis", "rate": "rate"}
_CHECKED_AXES = frozenset(
    "polarity width presence regularity rate side curve slope symmetry concordance timing size conduction".split()
)
_EXEMPT_FROM_PRESENCE = frozenset({"qrs", "beat", "rate", "rhythm", "axis", "rr", "baseline", "st"})


@dataclass(frozen=True)
class CheckedSentence:
    """A sentence with the share of it that is supported (0 to 1), the key of the passage that supports it best, and
    what is wrong with it in plain words (empty if nothing is).
    """

    text: str
    support: float
    passage_key: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Support:
    """A description as checked, sentence by sentence."""

    sentences: tuple[CheckedSentence, ...]

    @property
    def score(self) -> float:
        """The mean support of the sentences, where a flagged one counts for half; 0 for an empty description."""
        if not self.sentences:
            return 0.0
        return sum(part.support / (2 if part.problems else 1) for part in self.sentences) / len(self.sentences)

    @property
    def flagged(self) -> tuple[CheckedSentence, ...]:
        """The sentences with problems."""
        return tuple(part for part in self.sentences if part.problems)

    def kept(self, drop_flagged: bool = True) -> str:
        """The description, without its flagged sentences unless `drop_flagged` is False."""
        return " ".join(part.text for part in self.sentences if not (drop_flagged and part.problems))


def check_description(
    description: str, findings: Sequence[ParsedFinding], passages: Sequence[Passage]
) -> Support:
    """Checks each sentence of a description against the findings of its statement and the passages it follows.

    `passages` are those that the description cites: pages of the shipped base, or of any corpus. Leads and territories
    that the statement itself names are taken as given. Any text can be checked; an empty one has no sentences.

    >>> page = Passage("ST elevation of at least 0.1 mV in II, III and aVF.", "Inferior infarction")
    >>> check_description("ST elevation is seen in leads II, III and aVF.", (), [page]).flagged
    ()
    >>> check_description("ST elevation is seen in V1-V3.", (), [page]).flagged[0].problems
    ('names V1, V2 and V3; the passage has II, III and aVF (Inferior infarction)',)
    """
    pages = pages_of(passages)
    statement = _Statement.of(findings)
    texts = sentences_of_text(description)
    readings = [read_sentence(text) for text in texts]
    checked = []
    for at, reading in enumerate(readings):
        share, key = _coverage(reading, pages, statement)
        problems = [*_problems(reading, pages, statement), *_doubts_lost(reading, readings[:at], statement)]
        problems += _contradicted(at, readings, pages)
        enough = FEW_WORDS if _is_confirmed(reading, pages) else MANY_WORDS
        if not problems and share < enough and reading.words:
            problems.append(f"is hardly supported: {share:.0%} of its words are in the passages")
        checked.append(CheckedSentence(texts[at], round(share, 3), key, tuple(dict.fromkeys(problems))))
    return Support(tuple(checked))


@dataclass(frozen=True)
class _Statement:
    """What the statement itself grants a description."""

    findings: tuple[ParsedFinding, ...]
    names: frozenset[str]
    leads: frozenset[str]
    words: frozenset[str]

    @classmethod
    def of(cls, findings: Sequence[ParsedFinding]) -> _Statement:
        leads = {lead for finding in findings for lead in finding.leads}
        places = [place for finding in findings for place in finding.territory]
        for place in places:
            leads |= LEAD_GROUPS.get(place.removesuffix(" leads"), frozenset())
        said = " ".join(
            f"{finding.name} {finding.age_of_infarct} {finding.rate_response} {finding.frequency} {finding.severity} "
            f"{' '.join((*finding.form, *finding.territory, *finding.notes))}"
            for finding in findings
        )
        names = frozenset(finding.name for finding in findings)
        return cls(tuple(findings), names, frozenset(leads), read_sentence(said).words if said.strip() else frozenset())


# ----- support --------------------------------------------------------------------------------------------------------


def _coverage(reading: Reading, pages: Sequence[Page], statement: _Statement) -> tuple[float, str]:
    """The share of the content words that the best page has, and the key of the passage nearest to the sentence."""
    if not pages:
        return (1.0 if reading.words and reading.words <= statement.words else 0.0), ""
    differential = _compares(reading)

    def share(page: Page) -> float:
        known = page.words | statement.words | (page.mimic_words if differential else frozenset())
        return len(reading.words & known) / len(reading.words) if reading.words else 1.0

    best = max(pages, key=share)
    nearest = max(best.readings, key=lambda entry: len(entry[0].words & reading.words), default=None)
    return share(best), nearest[2] if nearest else best.key


def _is_confirmed(reading: Reading, pages: Sequence[Page]) -> bool:
    """Whether a page makes one of the sentence's claims: the same wave said to be the same, or in the same leads."""
    return any(
        (claim.poles & page.poles or claim.leads or claim.measures) and claim.waves & known.waves
        for page in pages
        for claim in reading.claims
        for known, _ in page.claims
    )


def _compares(reading: Reading) -> bool:
    return any(cue in reading.plain for cue in DIFFERENTIAL)


# ----- problems of a sentence -----------------------------------------------------------------------------------------


def _problems(reading: Reading, pages: Sequence[Page], statement: _Statement) -> list[str]:
    """What is wrong with the claims of a sentence, each judged by the page that supports it best."""
    if not pages or any(reading.plain == known.plain for page in pages for known, _, _ in page.readings):
        return []
    pages = _pages_spoken_of(reading, pages)
    problems = list(_invented(reading, pages, statement))
    for claim in reading.claims:
        found = [list(_claim_problems(claim, page, statement)) for page in pages]
        problems += min(found, key=len)
    problems += _ratio_problems(reading, pages)
    problems += _swapped(reading, pages, statement)
    if reading.every_lead and not any(_is_everywhere(page) for page in pages):
        problems.append(f"speaks of all leads; the passage does not ({pages[0].label})")
    return problems


def _pages_spoken_of(reading: Reading, pages: Sequence[Page]) -> Sequence[Page]:
    """The pages of the findings that a sentence names, or all where it names none."""
    named = {name for name, _ in findings_named(reading.text)}
    return [page for page in pages if page.finding in named] or pages


def _claim_problems(claim: Claim, page: Page, statement: _Statement) -> Iterator[str]:
    unknown = _unknown_wave(claim, page)
    if unknown:
        yield unknown
        return
    turned = _turned(claim, page)
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
    known = frozenset().union(*(entry.waves for entry, _ in page.claims))
    if claim.waves & known or claim.waves & {"qrs", "beat", "rhythm", "rate", "rr", "baseline"} or claim.absent:
        return ""
    said = {pole for pole in claim.poles if pole[1] not in ("state", "presence")}
    if claim.waves and (claim.waves & TELLING_WAVES or said or claim.measures or claim.leads):
        return f"speaks of {_waves(claim.waves)}; the passage does not ({page.label})"
    return ""


def _turned(claim: Claim, page: Page) -> list[str]:
    """Directions that the page gives the other way round."""
    ends: dict[tuple[str, str], set[str]] = {}
    for wave, axis, end in page.poles:
        ends.setdefault((wave, axis), set()).add(end)
    problems = []
    for wave, axis, end in sorted(claim.poles):
        known = ends.get((wave, axis))
        if axis in _CHECKED_AXES and known and end not in known and not _is_allied(wave, axis, end, page.poles):
            if axis != "presence":
                problems.append(
                    f"says that the {_waves({wave})} is {end}; the passage says {' or '.join(sorted(known))} ({page.label})"
                )
    return problems + _presence_problems(claim, page)


def _is_allied(wave: str, axis: str, end: str, poles: frozenset[Pole]) -> bool:
    pairs = [(one, other) for one, other in ALLIED] + [(other, one) for one, other in ALLIED]
    return any(one == (axis, end) and (wave, *other) in poles for one, other in pairs)


def _presence_problems(claim: Claim, page: Page) -> list[str]:
    waves = claim.waves - _EXEMPT_FROM_PRESENCE
    if len(waves) != 1:
        return []
    entries = [entry for entry, _ in page.claims if waves <= entry.waves]
    if not entries:
        return []
    absent = [entry.absent or any(pole[1:] == ("size", "small") for pole in entry.poles) for entry in entries]
    if claim.absent and not any(absent):
        return [f"says that the {_waves(waves)} is absent; the passage does not ({page.label})"]
    if not claim.absent and all(entry.absent for entry in entries):
        return [f"says that the {_waves(waves)} is present; the passage says that it is absent ({page.label})"]
    return []


def _lead_problems(claim: Claim, page: Page, statement: _Statement) -> Iterator[str]:
    if not claim.leads and not claim.groups:
        return
    covered = covered_leads(page, claim)
    if not covered:
        return
    wrong = claim.leads - covered - statement.leads
    if wrong:
        section = page.sections_of(covered)
        place = f"{page.label}, {section}" if section and section not in page.label else page.label
        yield f"names {_leads(wrong)}; the passage has {_leads(covered)} ({place})"
    loosely = covered_leads(page, claim, loosely=True) | statement.leads
    for name in claim.groups:
        if not LEAD_GROUPS[name] & loosely:
            yield f"names {name} leads; the passage has {_leads(covered)} ({page.label})"


def _measure_problems(claim: Claim, measure: Measure, page: Page) -> Iterator[str]:
    known = measures_for(page, claim, measure)
    if any(agrees(measure, other) for other in known):
        return
    told = ", ".join(dict.fromkeys(other.text for other in known if other.dimension == measure.dimension)) or "none"
    yield f"gives {measure.text} for {_waves(claim.waves) or 'a measure'}; the passage has {told} ({page.label})"


def _ratio_problems(reading: Reading, pages: Sequence[Page]) -> Iterator[str]:
    known = frozenset().union(*(entry[0].ratios for page in pages for entry in page.readings))
    words = " ".join(page.plain for page in pages)
    for ratio in sorted(reading.ratios - known):
        if not (ratio == "2:1" and "second" in words) and not (ratio == "1:1" and "each" in words):
            yield f"gives a ratio of {ratio}; the passage has {', '.join(sorted(known)) or 'none'}"


def _is_everywhere(page: Page) -> bool:
    words = ("widespread", "diffuse", "throughout", "most leads", "generalized", "across", "limb leads")
    return any(entry[0].every_lead for entry in page.readings) or any(word in page.plain for word in words)


def _swapped(reading: Reading, pages: Sequence[Page], statement: _Statement) -> Iterator[str]:
    """Left for right, second for third: before a noun before which the page has only the other."""
    known = frozenset().union(*(entry[0].choices for page in pages for entry in page.readings))
    for word, noun in sorted(reading.choices - known):
        others = [other for other in ALTERNATIVES[word] if (other, noun) in known]
        if others and word not in statement.words:
            yield f"says {word} {noun}; the passage says {' or '.join(others)} ({pages[0].label})"


def _invented(reading: Reading, pages: Sequence[Page], statement: _Statement) -> Iterator[str]:
    """Findings that neither the statement nor a page mentions."""
    differential = _compares(reading)
    allowed = statement.names.union(*(page.names for page in pages))
    words = statement.words.union(*(page.words for page in pages))
    if differential:
        allowed = allowed.union(*(page.mimic_names for page in pages))
    known = frozenset().union(*(words_of_name(name) for name in allowed))
    told = frozenset(word for page in pages for word in page.plain.split())
    surface = {name: phrase for name, phrase in findings_named(reading.text)}
    for name in sorted(names_in(reading.text) - allowed):
        phrase = surface.get(name, (name,))
        parts = frozenset(phrase)
        if any(parts <= words_of_name(other) for other in allowed) or parts <= told:
            continue
        if read_sentence(" ".join(phrase)).words <= words and not parts - known - told:
            continue
        yield f"names {name}; neither the statement nor the passage does ({', '.join(page.label for page in pages[:3])})"


# ----- the statement's doubts, and the description against itself -----------------------------------------------------


def _doubts_lost(reading: Reading, before: Sequence[Reading], statement: _Statement) -> Iterator[str]:
    named = {name for name, _ in findings_named(reading.text)}
    negative = any(f" {word} " in f" {reading.plain} " for word in ("no", "not", "without", "absence", "excluded"))
    for finding in statement.findings:
        if finding.name not in named:
            continue
        if finding.negated and not negative and not reading.hedged:
            yield f"tells of {finding.name}; the statement says that there is none"
        hedged_before = any(entry.hedged and finding.name in names_in(entry.text) for entry in before)
        certain = any(cue in reading.plain for cue in ASSERTIONS) and not reading.hedged and not hedged_before
        if not finding.negated and finding.certainty in HEDGED and certain and not negative:
            yield f"tells of {finding.name} as certain; the statement says {finding.certainty}"


def _contradicted(at: int, readings: Sequence[Reading], pages: Sequence[Page]) -> Iterator[str]:
    """An earlier sentence that says the opposite in the same leads, unless one page says both."""
    for other in readings[:at]:
        for mine in readings[at].claims:
            for theirs in other.claims:
                for wave, axis in _clashes(mine, theirs):
                    ends = [{end for known, name, end in page.poles if (known, name) == (wave, axis)} for page in pages]
                    if not any(len(found) > 1 for found in ends):
                        yield f"contradicts the sentence '{other.text}' on the {_waves({wave})} ({axis})"


def _clashes(one: Claim, other: Claim) -> Iterator[tuple[str, str]]:
    if bool(one.leads) != bool(other.leads) or (one.leads and not one.leads & other.leads):
        return
    theirs = {(wave, axis): end for wave, axis, end in other.poles}
    counts = [pole[:2] for pole in (*one.poles, *other.poles)]
    for wave, axis, end in one.poles:
        single = counts.count((wave, axis)) == 2
        if axis in ("polarity", "regularity", "rate", "side") and single and theirs.get((wave, axis), end) != end:
            yield wave, axis


# ----- words ----------------------------------------------------------------------------------------------------------


def _waves(waves: frozenset[str] | set[str]) -> str:
    return " and ".join(_WAVE_NAMES.get(wave, f"{wave.upper()} wave" if len(wave) == 1 else wave) for wave in sorted(waves))


def _leads(leads: frozenset[str]) -> str:
    """Leads as a list in the usual order.

    >>> _leads(frozenset({"aVF", "II", "III"}))
    'II, III and aVF'
    """
    ordered = sorted(leads, key=lambda lead: (_LEAD_ORDER.index(lead) if lead in _LEAD_ORDER else 99, lead))
    return " and ".join(filter(None, (", ".join(ordered[:-1]), ordered[-1]))) if ordered else ""
