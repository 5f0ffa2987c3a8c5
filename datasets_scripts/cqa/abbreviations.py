"""Text as terms to search by: words in one spelling, and the findings that they name whatever the abbreviation.

"LBBB", "left bundle-branch block" and SCP's CLBBB all give the term `finding:left bundle branch block`, in a book's
passage as in a question, by the names and synonyms of `findings.csv`. Abbreviations beyond that table stand here with
what they are short for. LAD is an axis or an artery: the words around it decide, and where they do not it is both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from datasets_scripts.cqa.findings import all_findings, finding_phrases, phrase_of
from datasets_scripts.cqa.statements import parse_statement
from datasets_scripts.cqa.wording import words_of

FINDING = "finding:"
AXIS, ARTERY = f"{FINDING}left axis deviation", "artery:left anterior descending"

# abbreviation -> what it is short for; the full words lead on to findings where they name one
ABBREVIATIONS: Mapping[str, str] = MappingProxyType(
    {
        "acs": "acute coronary syndrome", "arvc": "arrhythmogenic right ventricular cardiomyopathy",
        "avb": "av block", "avn": "av node", "awmi": "anterior myocardial infarction",
        "ber": "early repolarization", "brs": "brugada pattern", "cad": "coronary artery disease",
        "crt": "cardiac resynchronization therapy biventricular pacing", "cva": "cerebrovascular accident",
        "dcm": "dilated cardiomyopathy", "hcm": "hypertrophic cardiomyopathy", "hocm": "hypertrophic cardiomyopathy",
        "icd": "implantable cardioverter defibrillator", "ivr": "idioventricular rhythm",
        "iwmi": "inferior myocardial infarction", "lbb": "left bundle branch", "lcx": "left circumflex artery",
        "lvot": "left ventricular outflow tract", "nicd": "intraventricular conduction delay",
        "omi": "occlusion myocardial infarction", "pe": "pulmonary embolism", "pmi": "posterior myocardial infarction",
        "qtc": "corrected qt interval", "rbb": "right bundle branch", "rca": "right coronary artery",
        "rvot": "right ventricular outflow tract", "san": "sinus node", "tdp": "torsades de pointes",
        "vpd": "ventricular premature complex", "apd": "atrial premature complex",
    }
)  # fmt: skip
_ABBREVIATION = re.compile(rf"\b({'|'.join(ABBREVIATIONS)})s?\b", re.IGNORECASE)
_LAD = re.compile(r"\b(?:LAD|left anterior descending)\b", re.IGNORECASE)
_ARTERY_AROUND = re.compile(
    r"\b(?:arter\w*|coronar\w*|occlu\w*|stenos\w*|descending|culprit|stent\w*|thromb\w*|lesion\w*|proximal|distal"
    r"|RCA|LCX|wrap\w*|septal perforator|vessel)\b",
    re.IGNORECASE,
)
_AXIS_AROUND = re.compile(r"\b(?:axis|degrees|deviat\w*|fascicular|LAFB|LAHB|RAD|frontal plane)\b|°", re.IGNORECASE)
_WORD = re.compile(r"\d+(?:\.\d+)?:\d+|\d+\.\d+|[^\W_]+(?:'(?=\W|$))?")


@dataclass(frozen=True)
class Terms:
    """`words` of a text, the names of the `findings` in it in order, `other` terms, and `named`: words of the names."""

    words: tuple[str, ...]
    findings: tuple[str, ...]
    other: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()

    @property
    def all(self) -> list[str]:
        """Every term, as an index takes them: a finding is told apart from words by its mark."""
        return [*self.words, *(f"{FINDING}{name}" for name in self.findings), *self.other]


def spelled_out(text: str) -> str:
    """The text with every abbreviation of the table followed by what it is short for.

    >>> spelled_out("Acute PE")
    'Acute PE (pulmonary embolism)'
    """
    return _ABBREVIATION.sub(lambda match: f"{match[0]} ({ABBREVIATIONS[match[1].lower()]})", text)


def terms_of(text: str) -> Terms:
    """The terms of a text.

    >>> terms_of("Notched R in LBBB").findings
    ('left bundle branch block',)
    >>> terms_of("Occlusion of the LAD").other, terms_of("LAFB with LAD").findings
    (('artery:left anterior descending',), ('left anterior fascicular block', 'left axis deviation'))
    """
    text = spelled_out(text)
    findings, named = _findings_in(phrase_of(text))
    other: tuple[str, ...] = ()
    if _LAD.search(text):
        artery, axis = bool(_ARTERY_AROUND.search(text)), bool(_AXIS_AROUND.search(text))
        other = (ARTERY,) if artery or not axis else ()
        if artery and not axis:
            findings = tuple(name for name in findings if f"{FINDING}{name}" != AXIS)
    words = tuple(word for raw in _WORD.findall(text.casefold()) for word in _spellings(raw))
    return Terms(words, findings, other, named)


def findings_asked(text: str) -> tuple[str, ...]:
    """The findings that a question or a statement is about, also those of which it gives the parts.

    >>> findings_asked("What does an old inferior MI look like?")
    ('inferior myocardial infarction',)
    """
    terms = terms_of(text)
    parsed = [name for name in parse_statement(spelled_out(text)).names if name in all_findings()]
    if terms.other:  # LAD as an artery
        parsed = [name for name in parsed if f"{FINDING}{name}" != AXIS or name in terms.findings]
    more = [name for name in terms.findings if not any(known.endswith(name) for known in parsed)]
    return tuple(dict.fromkeys([*parsed, *more]))


@lru_cache(maxsize=2**16)
def _spellings(raw: str) -> tuple[str, ...]:
    """A word in the common spelling of statements; numbers, and what that spelling leaves out, as they are."""
    words = tuple(word for word in words_of(raw) if word[0].isalnum())
    return words if words and "." not in raw else (raw,)


@lru_cache(maxsize=1)
def _phrases_by_first_word() -> Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]:
    """The names and synonyms of findings by their first word, longest first."""
    by_first: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for phrase, name in finding_phrases().items():
        by_first.setdefault(phrase[0], []).append((phrase, name))
    for phrases in by_first.values():
        phrases.sort(key=lambda entry: -len(entry[0]))
    return MappingProxyType({first: tuple(phrases) for first, phrases in by_first.items()})


def _findings_in(words: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The findings that the words name, longest names first come; and the words that name them."""
    by_first, found, named, at = _phrases_by_first_word(), [], set(), 0
    while at < len(words):
        for phrase, name in by_first.get(words[at], ()):
            if tuple(words[at : at + len(phrase)]) == phrase:
                found.append(name)
                named.update(phrase)
                at += len(phrase)
                break
        else:
            at += 1
    return tuple(found), frozenset(named)
