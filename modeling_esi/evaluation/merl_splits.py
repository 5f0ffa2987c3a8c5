"""MERL's public split files (https://github.com/cheliu-computation/MERL-ICML2024, finetune/data_split): three tables.

A folder holds `*_train.csv`, `*_val.csv` and `*_test.csv`. A row names its record by `ecg_path`, `filename` or
`ecg_id`; the last columns, as far as they hold only 0 and 1, are the labels. CPSC2018 (there "icbeb"; 4,950/551/1,376),
Chapman-Shaoxing-Ningbo (there "chapman", here "csn"; 16,546/1,860/4,620), and PTB-XL's tasks are published so.

A trap, to be told beside every figure: the columns of the Chapman files were made by looking for the acronym anywhere
in the text of the diagnoses. `ST` (sinus tachycardia) holds wherever `STE`, `STTC` or `STDD` stands, `AF` (atrial
flutter) for every `AFIB`, `VB` (bigeminy) and `AVB` for every `1AVB`, `SA` for every `LVQRSAL`.
`split_labels="columns"` takes them as they are, so that figures compare with published ones; `"diagnoses"` takes the
diagnoses themselves.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from .label_tasks import LabelTask, TaskRows

if TYPE_CHECKING:
    from .context import EvaluationContext

SUFFIXES = {"train": "train", "validation": "val", "test": "test"}
NAME_COLUMNS = ("ecg_path", "filename", "ecg_id")
DIAGNOSES_COLUMN = "diagnose"
SPLIT_LABELS = ("columns", "diagnoses")
NUM_NAMED = 5


@dataclass(frozen=True)
class SplitTable:
    """One table: `record_ids (n,)`, `label_names (C,)`, `targets (n, C)` bool, and `diagnoses` where it tells them."""

    record_ids: list[str]
    label_names: tuple[str, ...]
    targets: np.ndarray
    diagnoses: list[tuple[str, ...]] | None

    def targets_of_diagnoses(self) -> np.ndarray:
        """`(n, C)` bool from the diagnoses. ValueError where the table tells none."""
        if self.diagnoses is None:
            raise ValueError(f"split_labels: expected a column {DIAGNOSES_COLUMN!r} in the split files, got none.")
        return np.array([[name in held for name in self.label_names] for held in self.diagnoses], dtype=bool)


def read_task(
    context: EvaluationContext,
    split_dir: str,
    split_labels: str = "columns",
    splits: Sequence[str] = ("train", "validation", "test"),
) -> LabelTask:
    """The task of a folder of split files, on the context's records, whatever splits these lie in otherwise.

    Records that a table names and that are not at hand are counted in the task's notes. Raises FileNotFoundError or
    ValueError for a folder without the tables, tables that do not fit, or none of whose records are at hand.
    """
    if split_labels not in SPLIT_LABELS:
        raise ValueError(f"split_labels: expected one of {', '.join(SPLIT_LABELS)}, got {split_labels!r}.")
    tables = {split: read_split_table(find_table(split_dir, SUFFIXES[split])) for split in splits}
    names = _same_names(tables)
    _check_disjoint(tables)
    place = {record_id: row for row, record_id in enumerate(context.rows("all")["record_id"])}
    found, notes = {}, []
    for split, table in tables.items():
        at_hand = [number for number, record_id in enumerate(table.record_ids) if record_id in place]
        notes += _missing(split, table, set(at_hand)) + _disagreements(split, table)
        targets = table.targets if split_labels == "columns" else table.targets_of_diagnoses()
        rows = np.array([place[table.record_ids[number]] for number in at_hand], dtype=np.int64)
        found[split] = TaskRows("all", rows, targets[at_hand])
    if not len(found["test" if "test" in found else splits[0]]):
        raise ValueError(f"{split_dir}: none of the records that its tables name are in the data set; choose another.")
    name, prompt_set = _name_of_task(names)
    how = "its label columns" if split_labels == "columns" else "the diagnoses that they name"
    return LabelTask(name, names, found, prompt_set, f"MERL's public split files, with {how}", tuple(notes))


def find_table(split_dir: str, suffix: str) -> Path:
    """The one file `*_{suffix}.csv` of a folder. Raises FileNotFoundError or ValueError where there is none, or two."""
    folder = Path(split_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"split_dir: expected a folder with *_train.csv, *_val.csv, *_test.csv, got {folder}.")
    paths = sorted(folder.glob(f"*_{suffix}.csv"))
    if len(paths) != 1:
        raise ValueError(f"{folder}: expected one *_{suffix}.csv, got {', '.join(p.name for p in paths) or 'none'}.")
    return paths[0]


def read_split_table(path: Path) -> SplitTable:
    """One split file. Raises ValueError for one that names no records or has no labels."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        rows = [row for row in reader if row]
    wrong = next((number for number, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if wrong is not None or not rows:
        got = "no rows" if not rows else f"another number in line {wrong}"
        raise ValueError(f"{path.name}: expected rows of {len(header)} columns, got {got}; copy the file again.")
    name_column = next((column for column in NAME_COLUMNS if column in header), None)
    first = _first_label_column(rows, len(header))
    if name_column is None or first == len(header):
        raise ValueError(
            f"{path.name}: expected a column {', '.join(NAME_COLUMNS)} and last columns of 0 and 1, got {header[:8]}."
        )
    ids = [_record_id(row[header.index(name_column)]) for row in rows]
    targets = np.array([[cell == "1" for cell in row[first:]] for row in rows], dtype=bool)
    return SplitTable(ids, tuple(header[first:]), targets, _diagnoses(header, rows))


def _first_label_column(rows: list[list[str]], num_columns: int) -> int:
    first = num_columns
    while first > 0 and all(row[first - 1] in ("0", "1") for row in rows):
        first -= 1
    return first


def _record_id(cell: str) -> str:
    """`/chapman/WFDBRecords/18/186/JS18048.mat` -> `JS18048`; `A6729` and `9` are themselves."""
    name = PurePosixPath(cell).name
    return name.rpartition(".")[0] if name.endswith((".mat", ".hea", ".dat")) else name


def _diagnoses(header: list[str], rows: list[list[str]]) -> list[tuple[str, ...]] | None:
    if DIAGNOSES_COLUMN not in header:
        return None
    column = header.index(DIAGNOSES_COLUMN)
    return [tuple(word.strip() for word in row[column].split(",") if word.strip()) for row in rows]


def _same_names(tables: dict[str, SplitTable]) -> tuple[str, ...]:
    names = {table.label_names for table in tables.values()}
    if len(names) != 1:
        raise ValueError(f"split files: expected the same labels in the same order in each, got {sorted(names)}.")
    return names.pop()


def _check_disjoint(tables: dict[str, SplitTable]) -> None:
    seen: dict[str, str] = {}
    for split, table in tables.items():
        twice = [record_id for record_id in table.record_ids if seen.setdefault(record_id, split) != split]
        if twice:
            raise ValueError(
                f"split files: expected no record in two of them, got {len(twice)} of {split} that are also in "
                f"{seen[twice[0]]}: {', '.join(twice[:NUM_NAMED])}."
            )


def _missing(split: str, table: SplitTable, at_hand: set[int]) -> list[str]:
    missing = [record_id for number, record_id in enumerate(table.record_ids) if number not in at_hand]
    if not missing:
        return []
    first = ", ".join(missing[:NUM_NAMED])
    return [f"{split}: {len(missing):,} of {len(table.record_ids):,} records are not at hand: {first} ..."]


def _disagreements(split: str, table: SplitTable) -> list[str]:
    """How many labels of the columns are not among a record's own diagnoses."""
    if table.diagnoses is None:
        return []
    extra = table.targets & ~table.targets_of_diagnoses()
    if not extra.any():
        return []
    worst = np.argsort(-extra.sum(axis=0), kind="stable")[:NUM_NAMED]
    named = ", ".join(f"{table.label_names[c]} {extra[:, c].sum():,} of {table.targets[:, c].sum():,}" for c in worst)
    return [
        f"{split}: {extra.sum():,} of {table.targets.sum():,} labels of the columns are not among the record's own "
        f"diagnoses (an acronym inside another one): {named}; split_labels=diagnoses takes the diagnoses"
    ]


def _name_of_task(names: tuple[str, ...]) -> tuple[str, str]:
    """Which published task these labels are, and which shipped prompts describe them."""
    known = {"cpsc2018": {"VPC", "CRBBB", "CLBBB"}, "csn": {"STTC", "ALS", "TWC"}}
    known |= {"superdiagnostic": {"CD", "HYP"}, "rhythm": {"SBRAD", "AFLT"}, "form": {"LVOLT", "INVT"}}
    name = next((name for name, marks in known.items() if marks <= set(names)), "subdiagnostic")
    return name, name if name in ("cpsc2018", "csn") else "ptb_xl"
