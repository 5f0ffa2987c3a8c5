"""The SNOMED CT codes that ECG data sets write in `#Dx`: their names, and the classes they stand for.

`snomed.csv` holds all codes of the PhysioNet/CinC Challenge 2021 (30 scored, then 103 others; its two mapping tables,
https://github.com/physionetchallenges/evaluation-2021) and those that only the Chapman-Shaoxing-Ningbo release names
(`ConditionNames_SNOMED-CT.csv` of https://physionet.org/content/ecg-arrhythmia/1.0.0/). The names are ours. Columns:

- `scored`, `merged`: the Challenge scores 30 codes as 26 classes; `merged` names the class of the eight codes that it
  scores in pairs as the same diagnosis.
- `csn`: the acronym of that release, the first one where it lists several for a code (LBBB of LBBB, LBBBB and LFBBB).
  Three conditions are written by other codes in its records than in its list (AVNRT, SAAWR, Mobitz II): both have it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from datasets_scripts.report_text import findings_text

TASKS = ("challenge", "csn")
TABLE_FILE = "snomed.csv"


@dataclass(frozen=True)
class SNOMEDCode:
    """One row of the table; `abbreviation` as the Challenge writes it, `merged` and `csn` empty where there is none."""

    code: str
    abbreviation: str
    name: str
    scored: bool
    merged: str
    csn: str


@lru_cache(maxsize=1)
def snomed_codes() -> Mapping[str, SNOMEDCode]:
    """All known codes, in the table's order: the scored ones first, in the Challenge's order.

    >>> snomed_codes()["270492004"].name
    'first degree AV block'
    """
    with files("datasets_scripts").joinpath(TABLE_FILE).open(newline="", encoding="utf-8") as file:
        rows = [SNOMEDCode(**row | {"scored": row["scored"] == "yes"}) for row in csv.DictReader(file)]
    return MappingProxyType({row.code: row for row in rows})


def names_of_codes(codes: Iterable[str]) -> tuple[str, ...]:
    """The names of a record's codes in the order given, each once; codes that are not known are passed over.

    >>> names_of_codes(["426177001", "123"])
    ('sinus bradycardia',)
    """
    known = snomed_codes()
    return tuple(dict.fromkeys(known[code].name for code in codes if code in known))


def unknown_codes(codes: Iterable[str]) -> tuple[str, ...]:
    """Those codes that the table does not hold."""
    known = snomed_codes()
    return tuple(code for code in codes if code not in known)


def labels_of_codes(codes: Iterable[str], task: str = "challenge") -> tuple[str, ...]:
    """The labels of a record's codes in the order given, each once. Raises ValueError for another task.

    >>> labels_of_codes(["63593006", "284470004", "55827005"]), labels_of_codes(["284470004"], task="csn")
    (('PAC',), ('APB',))
    """
    check_task(task)
    known = snomed_codes()
    labels = (label_of_code(known[code], task) for code in codes if code in known)
    return tuple(dict.fromkeys(label for label in labels if label is not None))


def label_of_code(code: SNOMEDCode, task: str = "challenge") -> str | None:
    """The task's label that a code stands for, or None if it has none. Raises ValueError for another task."""
    check_task(task)
    if task == "csn":
        return code.csn or None
    return code.merged or code.abbreviation if code.scored else None


def check_task(task: str) -> None:
    """ValueError unless `task` is one of `TASKS`."""
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")


def label_names(task: str = "challenge") -> list[str]:
    """The labels: the 26 scored classes in the Challenge's order, or the acronyms of the CSN release, sorted.

    Raises ValueError for another task.
    """
    return list(label_prompts(task))


def label_prompts(task: str = "challenge") -> dict[str, list[str]]:
    """English texts for every label, one for each name of its codes; in the order of `label_names`.

    >>> label_prompts()["RBBB"]
    ['ECG Findings: complete right bundle branch block.', 'ECG Findings: right bundle branch block.']
    """
    check_task(task)
    phrases: dict[str, list[str]] = {}
    for code in snomed_codes().values():
        label = label_of_code(code, task)
        if label is not None and code.name not in phrases.setdefault(label, []):
            phrases[label].append(code.name)
    order = sorted(phrases) if task == "csn" else phrases
    return {label: [findings_text([phrase]) for phrase in phrases[label]] for label in order}
