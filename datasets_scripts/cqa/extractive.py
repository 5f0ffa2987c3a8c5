"""A description without a model: sentences of the shipped pages, chosen and ordered by what the statement says.

Each finding of a statement brings a headline, where the statement says more than its name (`headline.py`), and
sentences from its page's section Waveform. Which ones depends on how many findings share the description, on the leads
and territory that are named, on the age of an infarct, and on what the other findings change. A negated finding is said
to be absent, and nothing of its picture is told. The same statement always gives the same description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets_scripts.cqa.headline import groups_of, headline, is_plain, placed_leads, territory_page
from datasets_scripts.cqa.knowledge import KnowledgePage, leads_in, numbers_in
from datasets_scripts.cqa.statements import RATE_FINDINGS, ParsedFinding, ParsedStatement

STATEMENT = "the statement"  # the source of a headline
# sentences of a page: where it stands alone, beside others, and where it is a cause; the paper's texts have 73 words
ALONE, AMONG_OTHERS, AS_CAUSE = 4, 2, 1
SLOW_RESPONSE = "slow ventricular response"
_ACUTE = re.compile(r"\b(?:acute|reciprocal|hyperacute)\b", re.IGNORECASE)
_LATER = re.compile(r"\b(?:subacute|later on|later|chronic|persists?)\b", re.IGNORECASE)
_PASSING = re.compile(r"\bsubacute\b|\bST (?:segment|elevation|depression)\b", re.IGNORECASE)  # gone when it is old
_MEASURED = re.compile(r"\b(?:PR|QRS|QTc?)\b")
_GENERAL_GROUPS = frozenset({"rhythm", "summary"})  # their pages tell normal values, which another finding may change
_SINGLE_BEATS = frozenset({"ectopy"})  # these change a few beats, not the rhythm
_FIRST, _UNFIT = 3, -2  # marks: the first sentence says what the finding is, and stays with one misfit


@dataclass(frozen=True)
class SourcedSentence:
    """A sentence and where it comes from: the name of a page, or `STATEMENT`."""

    text: str
    source: str


def describe(parsed: ParsedStatement, pages: Mapping[str, KnowledgePage]) -> tuple[SourcedSentence, ...]:
    """What the statement looks like on the ECG, sentence by sentence; empty if none of its findings has a picture.

    >>> from datasets_scripts.cqa.knowledge import load_knowledge
    >>> from datasets_scripts.cqa.statements import parse_statement
    >>> said = describe(parse_statement("Possible left axis deviation"), load_knowledge())
    >>> said[0].text, said[1].source
    ('Possible left axis deviation.', 'left axis deviation')
    """
    told = [finding for finding in parsed.findings if not finding.negated and finding.name in pages]
    if not told:
        return ()
    most = ALONE if len({finding.name for finding in told}) == 1 else AMONG_OTHERS
    sentences: list[SourcedSentence] = []
    for group in groups_of(parsed.findings):
        if not (len(group) == 1 and is_plain(group[0]) and group[0].name in pages):
            sentences.append(SourcedSentence(headline(group, pages), STATEMENT))
        for finding in group:
            if finding in told:
                sentences += _of_finding(finding, told, pages, most)
    return tuple({sentence.text: sentence for sentence in reversed(sentences)}.values())[::-1]


def pages_of(parsed: ParsedStatement, pages: Mapping[str, KnowledgePage]) -> tuple[str, ...]:
    """The names of the pages that a statement's description may rest on, in the order of its findings.

    Beside the pages of the findings: those of their territories, which tell the leads, and of the rate response.
    """
    names: list[str] = []
    for finding in parsed.findings:
        if finding.name in pages:
            names += [_page_of(finding, pages).name, finding.name, _rate_finding(finding.rate_response)]
        names += [page.name for place in finding.territory if (page := territory_page(place, pages))]
    return tuple(name for name in dict.fromkeys(names) if name in pages)


def _of_finding(
    finding: ParsedFinding, told: Sequence[ParsedFinding], pages: Mapping[str, KnowledgePage], most: int
) -> list[SourcedSentence]:
    page = _page_of(finding, pages)
    chosen = _chosen(finding, page, [pages[other.name] for other in told if other.name != finding.name], pages)
    most = AS_CAUSE if finding.relation else most
    kept = sorted(chosen[:most], key=page.waveform.index)
    sentences = [SourcedSentence(text, page.name) for text in kept]
    rate_page = pages.get(_rate_finding(finding.rate_response))
    if rate_page is not None and rate_page.name != finding.name:
        sentences.append(SourcedSentence(rate_page.waveform[0], rate_page.name))
    return sentences


def _page_of(finding: ParsedFinding, pages: Mapping[str, KnowledgePage]) -> KnowledgePage:
    """The page of the finding in its territory, where there is one ("ischemia, inferior leads")."""
    names = (f"{place} {finding.name}" for place in finding.territory if len(finding.territory) == 1)
    return pages[next((name for name in names if name in pages), finding.name)]


def _rate_finding(response: str) -> str:
    return SLOW_RESPONSE if response == "slow" else RATE_FINDINGS.get(response, "")


def _chosen(
    finding: ParsedFinding, page: KnowledgePage, others: Sequence[KnowledgePage], pages: Mapping[str, KnowledgePage]
) -> list[str]:
    """The page's sentences that fit the statement, the best first; at least one."""
    leads = frozenset(placed_leads(finding, pages)) if _is_placed_apart(finding) else frozenset()
    lasting = [other for other in others if other.group not in _GENERAL_GROUPS | _SINGLE_BEATS]
    changed = {key for other in lasting for key in _measured(other.waveform)}
    marks: dict[str, int] = {}
    for number, sentence in enumerate(page.waveform):
        mark = _fit_of_age(sentence, finding.age_of_infarct) + _fit_of_leads(sentence, leads)
        mark += _FIRST if number == 0 else 0
        if page.group in _GENERAL_GROUPS and changed & _measured([sentence]):
            mark += _UNFIT
        marks[sentence] = mark
    ordered = sorted(page.waveform, key=lambda sentence: -marks[sentence])
    return [sentence for sentence in ordered if marks[sentence] >= 0] or list(page.waveform[:1])


def _is_placed_apart(finding: ParsedFinding) -> bool:
    """Whether the leads say more than the name: an inferior infarct's page is about its leads already."""
    return bool(finding.leads) or any(place not in finding.name for place in finding.territory)


def _fit_of_age(sentence: str, age: str) -> int:
    if not age:
        return 0
    acute, later = bool(_ACUTE.search(sentence)), bool(_LATER.search(sentence))
    if age == "old":
        return _UNFIT if acute or _PASSING.search(sentence) else 0
    return {"acute": acute + _UNFIT * later, "recent": acute}.get(age.rpartition(" ")[2], 0)


def _fit_of_leads(sentence: str, leads: frozenset[str]) -> int:
    named = frozenset(leads_in(sentence))
    if not leads or not named:
        return 0
    return 1 if named & leads else _UNFIT


def _measured(sentences: Sequence[str]) -> set[str]:
    """The intervals of which the sentences give a duration."""
    return {
        name.rstrip("c")
        for sentence in sentences
        for name in _MEASURED.findall(sentence)
        if any(number.unit == "ms" for number in numbers_in(sentence))
    }
