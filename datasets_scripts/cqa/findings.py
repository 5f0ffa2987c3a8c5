"""The findings that a statement can name: canonical names, synonyms and codes, from `findings.csv`.

Rules of the table, which statements, knowledge pages and data sets share:

- A name is lower case and singular where the finding can be counted. The territory is part of the name where clinical
  practice, PTB-XL or SNOMED CT treat it as an entity of its own: infarcts (`inferior myocardial infarction`), ischemia
  that is named by its territory (`lateral myocardial ischemia`) and subendocardial injury. For ST and T findings, Q
  waves, R waves and low voltage the territory is a modifier.
- Possible, old, frequent, multifocal, marked, rapid ventricular response, rate and leads are modifiers, never parts of
  a name. "Nonspecific" is part of it (PTB-XL's NST_, NT_), except for ST depression and elevation (STD_, STE_).
- Words for the same picture are synonyms of one row: ectopic atrial tachycardia of atrial tachycardia, a conduction
  defect of intraventricular conduction delay, left atrial abnormality of left atrial enlargement (PTB-XL's LAO/LAE),
  complete left bundle branch block of left bundle branch block.
- `needs_waveform` is `no` for what no ECG shows by itself (cardiac surgery, heart failure) and for recording faults.
- `scp` holds codes of PTB-XL's `scp_statements.csv`, `snomed` those of `datasets_scripts/snomed.csv`, separated by `|`.
  A SNOMED code for two findings (atrial fibrillation or flutter) stands in both rows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from datasets_scripts.cqa.wording import SEPARATORS, words_of

TABLE_FILE = "findings.csv"
Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One row of the table; `synonyms` as written there, `scp` and `snomed` codes may be empty."""

    name: str
    group: str
    needs_waveform: bool
    synonyms: tuple[str, ...] = ()
    scp: tuple[str, ...] = ()
    snomed: tuple[str, ...] = ()


def phrase_of(text: str) -> Phrase:
    """The words of a finding's name without separators, as names are compared."""
    return tuple(word for word in words_of(text) if word not in SEPARATORS and word not in "/+&")


def _finding(row: Mapping[str, str]) -> Finding:
    parts = {column: tuple(filter(None, row[column].split("|"))) for column in ("synonyms", "scp", "snomed")}
    return Finding(row["name"], row["group"], row["needs_waveform"] == "yes", **parts)


@lru_cache(maxsize=1)
def all_findings() -> Mapping[str, Finding]:
    """All findings by name, in the table's order.

    >>> all_findings()["first degree av block"].scp
    ('1AVB',)
    """
    with files("datasets_scripts.cqa").joinpath(TABLE_FILE).open(newline="", encoding="utf-8") as file:
        return MappingProxyType({row["name"]: _finding(row) for row in csv.DictReader(file)})


@lru_cache(maxsize=1)
def finding_phrases() -> Mapping[Phrase, str]:
    """The words of every name and synonym with the name they stand for; names go before synonyms."""
    phrases = {phrase_of(name): name for name in all_findings()}
    for finding in all_findings().values():
        for synonym in finding.synonyms:
            phrases.setdefault(phrase_of(synonym), finding.name)
    phrases.pop((), None)
    return MappingProxyType(phrases)


@lru_cache(maxsize=1)
def _findings_by_code() -> Mapping[str, tuple[Finding, ...]]:
    by_code: dict[str, tuple[Finding, ...]] = {}
    for finding in all_findings().values():
        for code in finding.scp + finding.snomed:
            by_code[code] = (*by_code.get(code, ()), finding)
    return MappingProxyType(by_code)


def findings_of_code(code: str) -> tuple[Finding, ...]:
    """The findings of an SCP code (PTB-XL's spelling) or a SNOMED CT code; none if it is not in the table.

    >>> [finding.name for finding in findings_of_code("195080001")]
    ['atrial fibrillation', 'atrial flutter']
    """
    return _findings_by_code().get(code, ())


def find_finding(text: str) -> Finding | None:
    """The finding with this name, synonym, abbreviation or code; None if there is none. Case and plurals do not count.

    A text without a row of its own that reads as one finding with modifiers ("old inferior infarct") is not a name:
    `parse_statement` is for those.

    >>> find_finding("PVCs").name, find_finding("IRBBB").name, find_finding("426177001").name
    ('ventricular premature complex', 'incomplete right bundle branch block', 'sinus bradycardia')
    """
    by_code = findings_of_code(text.strip())
    if by_code:
        return by_code[0]
    name = finding_phrases().get(phrase_of(text))
    return all_findings()[name] if name else None
