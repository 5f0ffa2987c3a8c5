"""Recordings of one's own: a folder of files, or a table (CSV) that names them with text, labels and patients.

Columns of the table: `path`, and where they are there `text`, `labels`, `statements`, `patient_id`, `age`, `sex`,
`record_id`, `split`, `sampling_rate`, `leads`, `unit`; others are not looked at. Lists are JSON or separated by `;`.

- Paths are relative to the table's folder, or to `data_dir` for a table that lies elsewhere. Nothing outside `data_dir`
  is ever opened, neither by `..` nor through a link.
- Split: the column, else by a hash of the patient, else by a hash of the path. Without a table nobody knows whose
  recording is whose: two files of one patient may then come into different splits. Name the patients in a table.
- Identifiers of the table's patients are stored as numbers in the order of the table (`p000001`), as salted hashes, or
  as they are (`patient_id="drop"`, `"hash"`, `"keep"`): evaluation needs to know which records are of one patient, not
  who it is. Those inside files are dropped, hashed or kept as `datasets_scripts.readers.formats` says.
- Without a table, every file with a known ending is listed (`.txt` is not: a table may name it).
- Ages above 89 are stored as 90.
- File names become `record_id` and stand in reports: where they tell names of people, give `record_id` and rename them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from datasets_scripts.listing.csv_tables import TableRow, parse_age, parse_sex, read_rows, require_columns, whole_number
from datasets_scripts.listing.file_listing import (
    READABLE_SUFFIXES,
    Fence,
    FoundFile,
    list_files,
    record_name,
    wfdb_files,
)
from datasets_scripts.readers.demographics import OVER_89, identity_rule
from datasets_scripts.readers.formats import format_of, read_file
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import SPLIT_ENDS, SPLITS, Entry, SourceFacts, split_of

FACTS = SourceFacts(title="ECG recordings of one's own", license="")  # a push asks for it
SPLIT_WORDS = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation"}


@dataclass(frozen=True)
class FileEntry(Entry):
    """An entry with what the table says about reading its file: `sampling_rate`, `leads`, `unit`."""

    read_as: Mapping[str, Any] = field(default_factory=dict)


def list_entries(
    data_dir: str | PathLike[str] | None,
    *,
    table: str | PathLike[str] | None = None,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    patient_id: str = "drop",
    salt: str | None = None,
    split_ends: Mapping[str, int] | None = None,
) -> Iterator[Entry]:
    """All recordings below `data_dir`, sorted by path, or those of `table`, in its order.

    Args:
        data_dir: the folder that holds every file; by default the table's.
        table: a CSV, by its path in `data_dir` or elsewhere.
        sampling_rate, leads, unit: of CSV and .npy files, which do not say them; in Hz, names, `"mV"` or another unit.
            The table's columns go before, and are held against what other formats say themselves.
        patient_id: `"drop"` (numbers instead of the table's identifiers), `"hash"` (with `salt`) or `"keep"`.
        salt: a secret of yours; the same one gives the same hashes in another data set.
        split_ends: the upper ends of the splits in percent, `{"train": 90, "validation": 95, "test": 100}` by default.

    Raises:
        FileNotFoundError, ValueError: for a folder, table or option that makes no sense; for a table that puts one
            patient in two splits; where a folder holds no file that could be read.
    """
    names = _PatientNames(patient_id, salt)
    ends = _checked_ends(split_ends)
    root, table_path = _locate(data_dir, table)
    if table_path is None:
        return _entries_of_folder(root, ends)
    columns = require_columns(table_path, ("path",))
    if {"split", "patient_id"} <= set(columns):
        _check_patients_in_one_split(table_path)
    return _entries_of_table(root, table_path, names, ends)


def read_entry(
    entry: Entry,
    *,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    patient_id: str = "drop",
    salt: str | None = None,
    **_: Any,
) -> ECGRecord:
    """The record of an entry, as `read_file` reads it; what the table says goes before.

    Raises FileNotFoundError or ValueError, also where the package that reads the format is not installed.
    """
    read_as = dict(getattr(entry, "read_as", {}))
    asked = {"sampling_rate": sampling_rate, "leads": leads, "unit": unit}
    if any(value is not None for value in asked.values()) and format_of(Path(entry.path)) in ("CSV", "npy"):
        read_as = {name: value for name, value in asked.items() if value is not None} | read_as
    try:
        record = read_file(entry.path, **read_as, patient_id=patient_id, salt=salt)
    except ImportError as error:
        raise ValueError(f"{entry.path}: {error}") from error
    return record.with_metadata(**entry.fields)


def tables(
    data_dir: str | PathLike[str] | None, *, table: str | PathLike[str] | None = None, **_: Any
) -> tuple[Path, ...]:
    """The table, if there is one."""
    table_path = _locate(data_dir, table)[1]
    return () if table_path is None else (table_path,)


def label_names(
    *, data_dir: str | PathLike[str] | None = None, table: str | PathLike[str] | None = None, **_: Any
) -> list[str]:
    """All labels of the table, sorted. ValueError where there is no table or no label in it."""
    table_path = _locate(data_dir, table)[1]
    if table_path is None:
        raise ValueError("files: expected a table with a column labels, got none; labels come from the table only")
    found = {label for row in read_rows(table_path, ("path",)) if not row.problem for label in _labels_or_none(row)}
    if not found:
        raise ValueError(f"{table_path}: expected labels in a column of this name, got none")
    return sorted(found)


def label_prompts(**options: Any) -> dict[str, list[str]]:
    """For every label of the table the text `ECG Findings: LABEL.`, in the label's own words."""
    return {label: [findings_text([label])] for label in label_names(**options)}


def parse_list(column: str, text: str) -> tuple[str, ...]:
    """The words of a cell, a JSON list of strings or words separated by `;`, each once. ValueError for broken JSON.

    >>> parse_list("labels", "AFIB; LBBB"), parse_list("labels", '["ST; T", "AFIB"]')
    (('AFIB', 'LBBB'), ('ST; T', 'AFIB'))
    """
    words: Any = text.split(";")
    if text.startswith("["):
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{column}: expected a JSON list of strings, or words separated by ';', got {text[:60]!r}")
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))


# ----- a folder ------------------------------------------------------------------------------------------------------


def _entries_of_folder(root: Path, ends: Mapping[str, int]) -> Iterator[Entry]:
    entries = (_entry_of_file(root, found, ends) for found in list_files(root))
    first = next(entries, None)
    if first is None:
        raise ValueError(
            f"{root}: expected files ending in {', '.join(READABLE_SUFFIXES)}, got none; name files without such an "
            f"ending in a table"
        )
    return chain([first], entries)


def _entry_of_file(root: Path, found: FoundFile, ends: Mapping[str, int]) -> Entry:
    name = record_name(found.name)
    return FileEntry(
        record_id=name,
        path=str(root / found.name),
        split=split_of(name, ends),
        fields={"record_id": name},
        files=tuple(str(root / part) for part in found.files),
        problem=found.problem,
    )


# ----- a table -------------------------------------------------------------------------------------------------------


class _PatientNames:
    """What is stored instead of a table's patient identifiers."""

    def __init__(self, patient_id: str, salt: str | None) -> None:
        self._rule = identity_rule(patient_id, salt)  # raises ValueError
        self._numbers: dict[str, int] = {}

    def stored(self, patient: str) -> str:
        named = self._rule(patient)  # None where identifiers are dropped
        return named or f"p{self._numbers.setdefault(patient, len(self._numbers) + 1):06d}"


def _entries_of_table(root: Path, table: Path, names: _PatientNames, ends: Mapping[str, int]) -> Iterator[Entry]:
    fence = Fence(root)
    folder = table.parent if fence.holds(table) else root
    for row in read_rows(table, ("path",)):
        patient = whole_number(row.get("patient_id"))
        stored = names.stored(patient) if patient and not row.problem else None
        record_id, path = row.get("record_id") or f"row {row.number}", str(folder / row.get("path"))
        split = SPLIT_WORDS.get(row.get("split").lower(), "train")
        try:
            if row.problem:
                raise ValueError(row.problem)
            name = fence.name_inside(folder, row.get("path"))
            record_id, path = row.get("record_id") or record_name(name), str(root / name)
            split = _split(row, patient or record_name(name), ends)
            fields, read_as = _fields(row, stored) | {"record_id": record_id}, _read_as(row)
        except ValueError as error:  # such a row depends on its table alone: what it names is not even looked at
            yield FileEntry(record_id, path, split, files=(str(table),), problem=str(error))
            continue
        yield FileEntry(record_id, path, split, fields, files=wfdb_files(path), read_as=read_as)


def _split(row: TableRow, group: str, ends: Mapping[str, int]) -> str:
    if "split" not in row.values:
        return split_of(group, ends)
    word = row.get("split").lower()
    if word not in SPLIT_WORDS:
        raise ValueError(f"split: expected one of {', '.join(SPLIT_WORDS)}, got {row.get('split')!r}")
    return SPLIT_WORDS[word]


def _fields(row: TableRow, patient: str | None) -> dict[str, Any]:
    """What the row says; an empty cell says nothing, but an empty list of labels says that none holds."""
    age = parse_age(row.get("age"))
    fields = {
        "report": row.get("text") or None,
        "patient_id": patient,
        "age": None if age is None else min(age, OVER_89),
        "sex": parse_sex(row.get("sex")),
    }
    for column in ("labels", "statements"):
        fields[column] = parse_list(column, row.get(column)) if column in row.values else None
    return {name: value for name, value in fields.items() if value is not None}


def _read_as(row: TableRow) -> dict[str, Any]:
    read_as = {
        "sampling_rate": _sampling_rate(row.get("sampling_rate")),
        "leads": parse_list("leads", row.get("leads")) or None,
        "unit": row.get("unit") or None,
    }
    return {name: value for name, value in read_as.items() if value is not None}


def _sampling_rate(text: str) -> float | None:
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"sampling_rate: expected a positive number (Hz) or nothing, got {text[:40]!r}")
    return rate


def _check_patients_in_one_split(table: Path) -> None:
    """Splits are by patient, never by record. A row whose split is no word is a problem of its own."""
    seen: dict[str, str] = {}
    for row in read_rows(table, ("path",)):
        patient, split = whole_number(row.get("patient_id")), SPLIT_WORDS.get(row.get("split").lower())
        if row.problem or not patient or split is None:
            continue
        if seen.setdefault(patient, split) != split:
            raise ValueError(
                f"{table}, row {row.number}: expected every patient in one split, got patient {patient!r} in "
                f"{seen[patient]} and in {split}; put all records of a patient in one"
            )


def _labels_or_none(row: TableRow) -> tuple[str, ...]:
    try:
        return parse_list("labels", row.get("labels"))
    except ValueError:  # the row's entry tells it
        return ()


# ----- options -------------------------------------------------------------------------------------------------------


def _locate(data_dir: str | PathLike[str] | None, table: str | PathLike[str] | None) -> tuple[Path, Path | None]:
    """The folder, and the table if there is one."""
    if data_dir is None and table is None:
        raise ValueError("files: expected data_dir (the folder of your recordings) or table (a CSV), got neither")
    root = None if data_dir is None else Path(data_dir)
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; data_dir must be the folder that holds your recordings")
    if table is None:
        return root, None
    candidates = [Path(table)] if root is None else [root / table, Path(table)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{' or '.join(map(str, dict.fromkeys(candidates)))}: no such table; check table")
    return found.parent if root is None else root, found


def _checked_ends(ends: Mapping[str, int] | None) -> dict[str, int]:
    if ends is None:
        return dict(SPLIT_ENDS)
    ordered = {name: ends[name] for name in SPLITS if name in ends}
    values = [0, *ordered.values()]
    if len(ordered) != len(ends) or not ordered or values != sorted(values) or values[-1] != 100:
        raise ValueError(f"split_ends: expected rising percents up to 100 for {', '.join(SPLITS)}, got {dict(ends)!r}")
    return ordered
