"""Whether a description says what its passages say: leads, numbers, findings and directions, sentence by sentence.

`check_description` reads each sentence as claims (`claims.py`) and looks each claim up in the passages (`evidence.py`,
`claim_checks.py`). A sentence is flagged with a problem in plain words where it names a lead, a number, a finding or a
direction that no cited passage gives to that wave, where it takes a doubt or a negation of the statement away, where it
says the opposite of another sentence, and where hardly any of its words are in the passages. No model is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasets_scripts.cqa.claim_checks import Statement, claim_problems, compares, waves_in_words
from datasets_scripts.cqa.claims import Claim, Reading, read_sentence
from datasets_scripts.cqa.ecg_terms import ASSERTIONS
from datasets_scripts.cqa.evidence import Page, ends_of, pages_of, sentences_of_text
from datasets_scripts.cqa.named_findings import findings_named, names_in
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.statements import ParsedFinding

LEAST_WORDS = 0.34  # share of known content words, under which a sentence with no claim of a page is not supported
HEDGED = frozenset({"possible", "consider", "cannot rule out", "probable", "borderline", "suggested"})
_NEGATIVE = frozenset({"no", "not", "without", "absence", "excluded"})
_DENIAL = r"\b(?:no|without|absence of|not) (?:(?:evidence|sign|signs) of )?(?:(?:acute|definite|clear|any|a|an) )?"
_ATRIAL = frozenset({"p", "flutter", "fibrillatory"})


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


def check_description(description: str, findings: Sequence[ParsedFinding], passages: Sequence[Passage]) -> Support:
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
    statement = Statement.of(findings)
    texts = sentences_of_text(description)
    readings = [read_sentence(text) for text in texts]
    checked = []
    for at, reading in enumerate(readings):
        share, key = _coverage(reading, pages, statement)
        problems = [*claim_problems(reading, pages, statement), *_doubts_lost(reading, readings[:at], statement)]
        problems += _contradicted(at, readings, pages)
        if not problems and share < LEAST_WORDS and reading.words and not _is_confirmed(reading, pages):
            problems.append(f"is hardly supported: {share:.0%} of its words are in the passages")
        checked.append(CheckedSentence(texts[at], round(share, 3), key, tuple(dict.fromkeys(problems))))
    return Support(tuple(checked))


# ----- support --------------------------------------------------------------------------------------------------------


def _coverage(reading: Reading, pages: Sequence[Page], statement: Statement) -> tuple[float, str]:
    """The share of the content words that the best page has, and the key of the passage nearest to the sentence."""
    if not pages:
        return (1.0 if reading.words and reading.words <= statement.words else 0.0), ""
    differential = compares(reading)

    def share(page: Page) -> float:
        known = page.words | statement.words | (page.mimic_words if differential else frozenset())
        return len(reading.words & known) / len(reading.words) if reading.words else 1.0

    best = max(pages, key=share)
    nearest = max(best.sentences, key=lambda entry: len(entry.reading.words & reading.words), default=None)
    return share(best), nearest.key if nearest else best.key


def _is_confirmed(reading: Reading, pages: Sequence[Page]) -> bool:
    """Whether a page makes one of the sentence's claims: the same wave said to be the same, or in the same leads."""
    return any(
        (claim.leads and claim.leads == known.leads)
        or (claim.waves & known.waves and (claim.poles & page.poles or claim.leads or claim.measures))
        for page in pages
        for claim in reading.claims
        for known, _ in page.claims
    )


# ----- the statement's doubts, and the description against itself -----------------------------------------------------


def _doubts_lost(reading: Reading, before: Sequence[Reading], statement: Statement) -> Iterator[str]:
    """Stated findings that are denied, negated ones that are told of, possible ones that are told as certain.

    A doubt that an earlier sentence has told of the same finding need not be told again.
    """
    named = dict(findings_named(reading.text))
    negative = not _NEGATIVE.isdisjoint(reading.plain.split())
    for finding in statement.findings:
        if finding.name not in named:
            continue
        if finding.negated:
            if not (negative or reading.hedged):
                yield f"tells of {finding.name}; the statement says that there is none"
        elif negative:
            if _denies(reading, named[finding.name]):
                yield f"denies {finding.name}; the statement names it"
        elif finding.certainty in HEDGED and _asserts(reading):
            if not any(entry.hedged and finding.name in names_in(entry.text) for entry in before):
                yield f"tells of {finding.name} as certain; the statement says {finding.certainty}"


def _asserts(reading: Reading) -> bool:
    return not reading.hedged and any(cue in reading.plain for cue in ASSERTIONS)


def _denies(reading: Reading, phrase: Sequence[str]) -> bool:
    """Whether a negation stands right before the first word of a finding's name."""
    return bool(re.search(rf"{_DENIAL}{re.escape(phrase[0][:6])}", reading.plain))


def _contradicted(at: int, readings: Sequence[Reading], pages: Sequence[Page]) -> Iterator[str]:
    """An earlier sentence that says the opposite in the same leads.

    Not where one page says both, and not where each sentence follows a page of its own: one finding may be regular and
    another irregular.
    """
    for other in readings[:at]:
        clashes = {clash for mine in readings[at].claims for theirs in other.claims for clash in _clashes(mine, theirs)}
        if not clashes or _nearest(readings[at], pages) is not _nearest(other, pages):
            continue
        for wave, axis in sorted(clashes):
            if not any(len(page.ends.get((wave, axis), ())) > 1 for page in pages):
                yield f"contradicts the sentence '{other.text}' on the {waves_in_words({wave})} ({axis})"


def _nearest(reading: Reading, pages: Sequence[Page]) -> Page | None:
    return max(pages, key=lambda page: len(page.words & reading.words), default=None)


def _clashes(one: Claim, other: Claim) -> Iterator[tuple[str, str]]:
    """What the two claims say opposite things of: once each, and of the same leads or of none."""
    if bool(one.leads) != bool(other.leads) or (one.leads and not one.leads & other.leads):
        return
    theirs = _single_ends(other)
    for key, end in _single_ends(one).items():
        if theirs.get(key, end) != end and not (key[1] == "rate" and (one.waves | other.waves) & _ATRIAL):
            yield key


def _single_ends(claim: Claim) -> dict[tuple[str, str], str]:
    ends = ends_of(pole for pole in claim.poles if pole[1] in ("polarity", "regularity", "rate", "side"))
    return {key: next(iter(found)) for key, found in ends.items() if len(found) == 1}
