"""PTB-XL (https://physionet.org/content/ptb-xl/1.0.3/): 12-lead ECGs of 10 s with German reports and SCP codes.

Read as published (1.0.3 and 1.0.1), and from tables with fewer columns. Facts of the set: sex 0 is male, 1 female; age
300 stands for over 89 (stored as 90); a code counts whatever its likelihood; folds 1-8 train, 9 validates, 10 tests,
and no patient is in two folds.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Collection, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from datasets_scripts.load_report import LoadReport
from datasets_scripts.ptb_xl_labels import (
    STATEMENTS_FILE,
    SCPStatement,
    check_task,
    label_names,
    label_of_code,
    label_prompts,
    published_file,
    published_folder,
    read_scp_statements,
)
from datasets_scripts.records import ECGRecord
from datasets_scripts.wfdb_records import HIDDEN_AGE, OVER_89, read_wfdb_record

__all__ = ["iter_records", "label_names", "label_prompts", "source_files", "statements_of_codes"]

TABLE_FILE = "ptbxl_database.csv"
FOLDS = {"train": tuple(range(1, 9)), "validation": (9,), "test": (10,)}
FILE_COLUMN = {100: "filename_lr", 500: "filename_hr"}


def iter_records(
    data_dir: str | PathLike[str] | None,
    split: str | None = None,
    *,
    report: LoadReport,
    sampling_rate: int = 500,
    folds: Collection[int] | None = None,
    task: str = "superdiagnostic",
    labelled_only: bool = False,
) -> Iterator[ECGRecord]:
    """The records of a split, in the table's order; what cannot be read is noted in `report`.

    `sampling_rate` chooses between the two published versions (100 or 500 Hz); `folds` replaces the split's folds;
    `task` names the labels; `labelled_only` leaves out records without a label of the task, as the benchmark does.
    `statements` are the descriptions of all the record's codes, the most likely first, then by code.
    Raises FileNotFoundError or ValueError if the folder or an option makes no sense.
    """
    check_task(task)
    data_dir = published_folder(data_dir)
    column = _file_column(sampling_rate)
    statements = read_scp_statements(data_dir)
    for row in _rows(data_dir, split, folds, column):
        path = data_dir / row[column]
        report.look_at(path)
        try:
            metadata = _metadata(row, statements, task)
            if labelled_only and not metadata["labels"]:
                report.filter("labelled_only")
                continue
            record = replace(_read(path, row[column], sampling_rate), **metadata)
        except (ValueError, OSError) as error:
            report.reject(row["ecg_id"], error)
            continue
        yield record


def source_files(
    data_dir: str | PathLike[str] | None,
    split: str | None = None,
    *,
    sampling_rate: int = 500,
    folds: Collection[int] | None = None,
    **_: Any,
) -> Iterator[Path]:
    """All files on which the records of a split depend: both tables and every header and signals file."""
    data_dir = published_folder(data_dir)
    column = _file_column(sampling_rate)
    yield from (data_dir / TABLE_FILE, data_dir / STATEMENTS_FILE)
    for row in _rows(data_dir, split, folds, column):
        if _is_inside(row[column]):  # any other is not even looked at
            yield from (data_dir / f"{row[column]}{suffix}" for suffix in (".hea", ".dat"))


def statements_of_codes(codes: dict[str, float], statements: dict[str, SCPStatement]) -> tuple[str, ...]:
    """The descriptions of a record's codes: the most likely first, equal ones by code; ValueError for unknown codes."""
    unknown = sorted(set(codes) - set(statements))
    if unknown:
        raise ValueError(f"SCP codes {unknown} are not in {STATEMENTS_FILE}; use the table published with the records")
    ordered = sorted(codes, key=lambda code: (-codes[code], code))
    return tuple(dict.fromkeys(statements[code].description for code in ordered))


def _file_column(sampling_rate: int) -> str:
    if sampling_rate not in FILE_COLUMN:
        raise ValueError(f"sampling_rate: PTB-XL is published at 100 and 500 Hz, got {sampling_rate!r}")
    return FILE_COLUMN[sampling_rate]


def _rows(data_dir: Path, split: str | None, folds: Collection[int] | None, column: str) -> list[dict[str, str]]:
    """The table's rows of the asked folds, every value a string."""
    path = published_file(data_dir, TABLE_FILE)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    needed = {"ecg_id", "scp_codes", "strat_fold"}
    if not rows or not needed <= set(rows[0]):
        raise ValueError(f"{path}: expected the columns {sorted(needed)}, got {list(rows[0]) if rows else 'no row'}")
    if not any(row.get(column) for row in rows):
        other = next(rate for rate, name in FILE_COLUMN.items() if name != column)
        raise ValueError(f"{path}: expected file names in column {column}, got none; try sampling_rate={other}")
    wanted = _wanted_folds(split, folds)
    return [row for row in rows if wanted is None or int(float(row["strat_fold"] or 0)) in wanted]


def _wanted_folds(split: str | None, folds: Collection[int] | None) -> tuple[int, ...] | None:
    if folds is not None:
        if not folds or not set(folds) <= set(range(1, 11)):
            raise ValueError(f"folds: expected numbers from 1 to 10, got {folds!r}")
        return tuple(folds)
    if split is not None and split not in FOLDS:
        raise ValueError(f"split: expected one of {', '.join(FOLDS)} or None, got {split!r}")
    return None if split is None else FOLDS[split]


def _metadata(row: dict[str, str], statements: dict[str, SCPStatement], task: str) -> dict[str, Any]:
    codes = _scp_codes(row["scp_codes"])
    labels = {label_of_code(statements[code], task) for code in codes if code in statements} - {None}
    return {
        "record_id": row["ecg_id"],
        "patient_id": _whole(row.get("patient_id")),
        "report": (row.get("report") or "").strip(),
        "statements": statements_of_codes(codes, statements),
        "labels": tuple(sorted(labels)),
        "age": _age(row.get("age")),
        "sex": {"0": "male", "1": "female"}.get(_whole(row.get("sex")) or ""),
    }


def _read(path: Path, name: str, sampling_rate: int) -> ECGRecord:
    if not name:
        raise ValueError(f"the table names no file at {sampling_rate} Hz")
    if not _is_inside(name):
        raise ValueError(f"expected a path inside the data set's folder, got {name!r}; it is not opened")
    record = read_wfdb_record(path)
    if record.sampling_rate != sampling_rate:
        raise ValueError(f"{path}: expected {sampling_rate} Hz, got a header that says {record.sampling_rate:g} Hz")
    return record


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def _scp_codes(text: str) -> dict[str, float]:
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"scp_codes: expected a mapping such as {{'NORM': 100.0}}, got {text[:80]!r}") from error


def _whole(text: str | None) -> str | None:
    """`"15709.0"` -> `"15709"`: the published table writes identifiers as decimal numbers."""
    if not text:
        return None
    return text.removesuffix(".0")


def _age(text: str | None) -> float | None:
    if not text:
        return None
    age = float(text)
    return float(OVER_89) if age == HIDDEN_AGE else age
