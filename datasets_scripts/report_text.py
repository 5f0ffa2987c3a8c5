"""The text of a record: the report as it is, or the paper's template over its label statements.

Template: ESI, arXiv 2405.19366: demographics, `ECG Findings:`, and the waveforms that the findings may show.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

TEXT_CHOICES = ("report", "statements", "report_else_statements", "none")
FINDINGS = "ECG Findings: "
WAVEFORMS = "Potential ECG waveforms:"
_DEMOGRAPHICS = re.compile(r"^this patient is [^.]*\.\s*")
OLDEST_AGE_TOLD = 89  # PTB-XL and others hide ages above it; a record stores 90 for all of them


def findings_text(
    statements: Sequence[str],
    age: float | None = None,
    sex: str | None = None,
    waveforms: Sequence[str] | None = None,
) -> str:
    """The paper's template over plain-word statements; what is not known is left out.

    `age` in years (above 89 it is told as "over 89"), `sex` `"male"` or `"female"`, `waveforms` one description each.
    Raises ValueError if there is no statement or the sex is another word.

    >>> findings_text(["sinus rhythm", "long QT-interval"], age=56, sex="female")
    'This patient is a 56 year-old Female. ECG Findings: sinus rhythm, long QT-interval.'
    >>> findings_text(["sinus rhythm"])
    'ECG Findings: sinus rhythm.'
    """
    if isinstance(statements, str) or not statements:
        raise ValueError(f"statements: expected at least one statement in a list, got {statements!r}")
    sentences = [_demographics(age, sex), f"{FINDINGS}{', '.join(statements)}."]
    text = " ".join(sentence for sentence in sentences if sentence)
    if waveforms:
        text = "\n".join([text, WAVEFORMS, *waveforms])
    return text


def split_waveforms(text: str) -> tuple[str, list[str]]:
    """A text of `findings_text` without its descriptions, and the descriptions; of another text, all and none.

    >>> split_waveforms(findings_text(["sinus rhythm", "LBBB"], waveforms=["P before each QRS", "broad QRS"]))
    ('ECG Findings: sinus rhythm, LBBB.', ['P before each QRS', 'broad QRS'])
    """
    told, _, descriptions = text.partition(f"\n{WAVEFORMS}\n")
    return told, descriptions.split("\n") if descriptions else []


def is_template(record: Any) -> bool:
    """Whether a record's text is `findings_text` over its statements, with descriptions or without."""
    if not record.statements:
        return False
    return split_waveforms(record.text)[0] == findings_text(record.statements, record.age, record.sex)


def _demographics(age: float | None, sex: str | None) -> str:
    """One sentence about age and sex; empty if neither is known."""
    if sex not in (None, "male", "female"):
        raise ValueError(f"sex: expected 'male', 'female' or None, got {sex!r}")
    if age is not None and not math.isfinite(age):
        age = None
    if age is None:
        return f"This patient is {sex}." if sex else ""
    over = age > OLDEST_AGE_TOLD
    told = f"over {OLDEST_AGE_TOLD}" if over else str(int(age))
    if sex is None:
        return f"This patient is {told} years old."
    return f"This patient is {'an' if over else 'a'} {told} year-old {sex.capitalize()}."


def choose_text(
    record_fields: Mapping[str, Any],
    text: str = "report_else_statements",
    waveforms: Mapping[str, str] | None = None,
) -> str:
    """The text of a record by the name of the choice; empty if the record has nothing of the kind.

    `record_fields` holds `report`, `statements` and, where known, `age` and `sex` (a stored row will do). `text` is
    `"report"` (as it is), `"statements"` (`findings_text`), `"report_else_statements"`, or `"none"`: always empty, for
    what needs no text. ValueError for another name.
    `waveforms` is a dictionary from statements to what they look like; those it has are told behind the findings. Its
    letter case, spaces and final full stops do not count (`normalise_statement`).
    """
    check_text_choice(text)
    if text == "none":
        return ""
    report = (record_fields.get("report") or "").strip()
    statements = record_fields.get("statements") or ()
    if text == "report" or (text == "report_else_statements" and report):
        return report
    if len(statements) == 0:
        return ""
    told = _descriptions(statements, waveforms) if waveforms else None
    return findings_text(list(statements), record_fields.get("age"), record_fields.get("sex"), told)


def _descriptions(statements: Sequence[str], waveforms: Mapping[str, str]) -> list[str]:
    """The descriptions of these statements in their order, each once."""
    told = [waveforms.get(normalise_statement(statement)) for statement in statements]
    return list(dict.fromkeys(description for description in told if description))


def check_text_choice(text: str) -> None:
    """ValueError unless `text` is one of `TEXT_CHOICES`."""
    if text not in TEXT_CHOICES:
        raise ValueError(f"text: expected one of {', '.join(TEXT_CHOICES)}, got {text!r}")


def augment_statements_text(
    statements: Sequence[str],
    age: float | None,
    sex: str | None,
    rng: np.random.Generator,
    drop_demographics: float = 0.5,
    subset_probability: float = 0.5,
    waveforms: Mapping[str, str] | None = None,
    drop_waveforms: float = 0.5,
) -> str:
    """A varied `findings_text` for training: without it zero-shot collapses, since whole templates are learnt by heart.

    With probability `drop_demographics` age and sex are left out; with probability `subset_probability` only a random
    non-empty subset of the statements is said, in random order. Where `waveforms` (as in `choose_text`) describes what
    is said, the descriptions follow, except with probability `drop_waveforms`: a prompt has none. `rng` is the only
    source of chance: a generator in the same state gives the same text. Raises ValueError as `findings_text` does, and
    for a probability outside 0..1.
    """
    chances = {"drop_demographics": drop_demographics, "subset_probability": subset_probability}
    for name, probability in (chances | {"drop_waveforms": drop_waveforms}).items():
        if not 0 <= probability <= 1:
            raise ValueError(f"{name}: expected a probability between 0 and 1, got {probability!r}")
    statements = list(statements)
    if rng.random() < drop_demographics:
        age = sex = None
    if statements and rng.random() < subset_probability:
        size = int(rng.integers(1, len(statements) + 1))
        statements = [statements[i] for i in rng.permutation(len(statements))[:size]]
    is_described = bool(waveforms) and rng.random() >= drop_waveforms
    return findings_text(statements, age, sex, _descriptions(statements, waveforms) if is_described else None)


def augment_text(
    record: Any,
    rng: np.random.Generator,
    subset_probability: float = 0.5,
    waveforms: Mapping[str, str] | None = None,
) -> str:
    """A varied text of a record for training: fewer demographics, statements or sentences than it has.

    Where the record's `text` is the template over its statements, `augment_statements_text`; if it tells descriptions,
    those of the statements that stay are taken from `waveforms` (`told_waveforms` of all texts). Where it is a report,
    with `subset_probability`, a random non-empty subset of its sentences in random order. `record` has the fields of
    `ECGRecord`; `rng` is the only source of chance.
    """
    if is_template(record):
        told = waveforms if split_waveforms(record.text)[1] else None
        return augment_statements_text(record.statements, record.age, record.sex, rng, waveforms=told)
    sentences = split_sentences(record.text)
    if rng.random() >= subset_probability:
        return record.text
    size = int(rng.integers(1, len(sentences) + 1))
    return " ".join(sentences[i] for i in rng.permutation(len(sentences))[:size])


def split_sentences(text: str) -> list[str]:
    """The sentences of a report; one empty one of an empty report.

    >>> split_sentences("Sinus rhythm. Rate 72/min, normal axis.")
    ['Sinus rhythm.', 'Rate 72/min, normal axis.']
    """
    return re.split(r"(?<=[.!?])\s+", text.strip())


def told_waveforms(texts: Iterable[str], statements: Iterable[Sequence[str]]) -> dict[str, str]:
    """The descriptions that texts tell for each statement, as `choose_text` takes them; empty where they tell none.

    A text lists descriptions without saying which statement each belongs to; some statements have none, and some share
    one. A statement's own stands in every text that says the statement. Where several do, those that are already
    the only one of another statement are left out. So nothing is told of an ECG that its own text does not tell.

    Args:
        texts: of a data set's records, whose templates were made with one dictionary. Reports are passed over.
        statements: of the same records.
    """
    texts = list(texts)
    if not any(WAVEFORMS in text for text in texts):
        return {}
    always: dict[str, list[str]] = {}
    for text, names in zip(texts, statements, strict=True):
        told, descriptions = split_waveforms(text)
        if names and told.endswith(findings_text(names)):
            for name in map(normalise_statement, names):
                always[name] = [one for one in always.get(name, descriptions) if one in descriptions]
    is_open = True
    while is_open:
        only = {found[0] for found in always.values() if len(found) == 1}
        rest = {name: [one for one in found if one not in only] for name, found in always.items() if len(found) > 1}
        is_open = any(len(rest[name]) < len(always[name]) for name in rest)
        always |= rest
    return {name: "\n".join(found) for name, found in always.items() if found}


def text_key(statements: Sequence[str], report: str = "") -> str:
    """What two records must share to be positives of each other: a hash of what is said, without age and sex.

    The sorted set of statements, or, where there is none, the report without the template's first sentence about the
    patient; letter case, spaces and a final full stop do not count. Empty if there is neither: the record is like no
    other.

    >>> text_key(["sinus rhythm", "Normal ECG"]) == text_key(["normal ECG", "sinus rhythm"], "another report")
    True
    """
    said = sorted({normalise_statement(statement) for statement in statements} - {""})
    report = _DEMOGRAPHICS.sub("", normalise_statement(report))
    if not said and not report:
        return ""
    content = "\n".join(["statements", *said] if said else ["report", report])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def normalise_statement(text: str) -> str:
    """A statement as dictionaries and keys know it: without letter case, outer spaces and the final full stop."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".")


def read_waveforms(path: str | PathLike[str]) -> dict[str, str]:
    """A dictionary of waveform descriptions, from a JSON object: statement -> what it looks like on the ECG, one line.

    Raises FileNotFoundError, or ValueError where the file is something else.
    """
    with Path(path).open(encoding="utf-8") as file:
        try:
            values = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path}: expected a JSON object from statements to descriptions, got no JSON") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"{path}: expected a JSON object from statements to descriptions, got something else")
    return {normalise_statement(name): " ".join(description.split()) for name, description in values.items()}
