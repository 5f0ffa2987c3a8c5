"""PTB-XL (https://physionet.org/content/ptb-xl/1.0.3/): 12-lead ECGs of 10 s with German reports and SCP codes.

Read as published (1.0.3 and 1.0.1), and from tables with fewer columns. Facts of the set: sex 0 is male, 1 female; age
300 stands for over 89 (stored as 90); a code counts whatever its likelihood; folds 1-8 train, 9 validates, 10 tests,
and no patient is in two folds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from datasets_scripts.checks.signal_checks import looks_z_scored
from datasets_scripts.listing.csv_tables import TableRow, parse_age, read_rows, whole_number
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
from datasets_scripts.readers.wfdb_records import HIDDEN_AGE, OVER_89, read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.sources import Entry, SourceFacts

__all__ = [
    "FACTS",
    "label_names",
    "label_prompts",
    "list_entries",
    "read_entry",
    "split_of_fold",
    "statements_of_codes",
    "tables",
]

FACTS = SourceFacts(
    title="PTB-XL, a large publicly available electrocardiography dataset",
    homepage="https://physionet.org/content/ptb-xl/1.0.3/",
    license="cc-by-4.0",
    citation="Wagner P, Strodthoff N, Bousseljot R-D, Kreiseler D, Lunze FI, Samek W, Schaeffter T. PTB-XL, a large "
    "publicly available electrocardiography dataset. Scientific Data 7, 154 (2020). "
    "https://doi.org/10.1038/s41597-020-0495-6",
)
TABLE_FILE = "ptbxl_database.csv"
FOLDS = {"train": tuple(range(1, 9)), "validation": (9,), "test": (10,)}
Z_SCORED = "z_scored: amplitudes are not millivolts"
FILE_COLUMN = {100: "filename_lr", 500: "filename_hr"}


def list_entries(
    data_dir: str | PathLike[str] | None,
    *,
    sampling_rate: int = 500,
    folds: Collection[int] | None = None,
    task: str = "superdiagnostic",
    labelled_only: bool = False,
) -> Iterator[Entry]:
    """All records in the table's order.

    `sampling_rate` chooses between the two published versions (100 or 500 Hz); of `folds`, where given, are the only
    records listed, each in the split of its fold as ever; `task` names the labels; `labelled_only` leaves out records
    without a label of the task, as the benchmark does. `statements` are the descriptions of all the record's codes, the
    most likely first, then by code. A row without a fold from 1 to 10 is a problem, told with the training split.
    Raises FileNotFoundError or ValueError if the folder or an option makes no sense.
    """
    check_task(task)
    wanted = _wanted_folds(folds)
    data_dir = published_folder(data_dir)
    column = _file_column(sampling_rate)
    statements = read_scp_statements(data_dir)
    rows = (row for row in _rows(data_dir, column) if _fold(row) in (None, *wanted))
    return (_entry(data_dir, row, column, statements, task, labelled_only) for row in rows)


def read_entry(entry: Entry, *, sampling_rate: int = 500, **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError, also for a header of another sampling rate.

    Derived copies of the set are z-scored although their headers say mV: `repairs` tells such a record.
    """
    record = read_wfdb_record(Path(entry.path))
    if record.sampling_rate != sampling_rate:
        raise ValueError(
            f"{entry.path}: expected {sampling_rate} Hz, got a header that says {record.sampling_rate:g} Hz"
        )
    repairs = (*record.repairs, Z_SCORED) if looks_z_scored(record) else record.repairs
    return record.with_metadata(**entry.fields, repairs=repairs)


def tables(data_dir: str | PathLike[str] | None, **_: Any) -> tuple[Path, ...]:
    """The two published tables: of the records, and of the SCP statements."""
    data_dir = published_folder(data_dir)
    return (data_dir / TABLE_FILE, data_dir / STATEMENTS_FILE)


def split_of_fold(fold: int) -> str:
    """The benchmark's split of a fold from 1 to 10.

    >>> split_of_fold(8), split_of_fold(9), split_of_fold(10)
    ('train', 'validation', 'test')
    """
    return next(split for split, folds in FOLDS.items() if fold in folds)


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


def _rows(data_dir: Path, column: str) -> list[TableRow]:
    path = published_file(data_dir, TABLE_FILE)
    rows = list(read_rows(path, ("ecg_id", "scp_codes", "strat_fold")))
    if not any(row.get(column) for row in rows):
        other = next(rate for rate, name in FILE_COLUMN.items() if name != column)
        raise ValueError(f"{path}: expected file names in column {column}, got none; try sampling_rate={other}")
    return rows


def _wanted_folds(folds: Collection[int] | None) -> tuple[int, ...]:
    if folds is None:
        return tuple(range(1, 11))
    if not folds or not set(folds) <= set(range(1, 11)):
        raise ValueError(f"folds: expected numbers from 1 to 10, got {folds!r}")
    return tuple(folds)


def _fold(row: TableRow) -> int | None:
    """The row's fold, None where it names none from 1 to 10."""
    text = whole_number(row.get("strat_fold"))
    return int(text) if re.fullmatch(r"[1-9]|10", text) else None


def _entry(
    data_dir: Path, row: TableRow, column: str, statements: dict[str, SCPStatement], task: str, labelled_only: bool
) -> Entry:
    fold, name = _fold(row), row.get(column)
    record_id = row.get("ecg_id") or f"row {row.number}"
    path, split = str(data_dir / name), "train" if fold is None else split_of_fold(fold)
    try:
        fields = _metadata(row, statements, task)
        if labelled_only and not fields["labels"]:
            return Entry(record_id, path, split, left_out_by="labelled_only", files=(str(data_dir / TABLE_FILE),))
        _check_fold_and_name(row, name, column)
    except ValueError as error:  # such a row depends on its table alone: what it names is not even looked at
        return Entry(record_id, path, split, files=(str(data_dir / TABLE_FILE),), problem=str(error))
    return Entry(record_id, path, split, fields, files=(f"{path}.hea", f"{path}.dat"))


def _check_fold_and_name(row: TableRow, name: str, column: str) -> None:
    if _fold(row) is None:
        raise ValueError(f"strat_fold: expected a number from 1 to 10, got {row.get('strat_fold')!r}")
    if not name:
        rate = next(rate for rate, of_rate in FILE_COLUMN.items() if of_rate == column)
        raise ValueError(f"the table names no file at {rate} Hz")
    if not _is_inside(name):
        raise ValueError(f"expected a path inside the data set's folder, got {name!r}; it is not opened")


def _metadata(row: TableRow, statements: dict[str, SCPStatement], task: str) -> dict[str, Any]:
    if row.problem:
        raise ValueError(row.problem)
    codes = _scp_codes(row.get("scp_codes"))
    labels = {label_of_code(statements[code], task) for code in codes if code in statements} - {None}
    return {
        "record_id": row.get("ecg_id"),
        "patient_id": whole_number(row.get("patient_id")) or None,
        "report": row.get("report"),
        "statements": statements_of_codes(codes, statements),
        "labels": tuple(sorted(labels)),
        "age": _age(row.get("age")),
        "sex": {"0": "male", "1": "female"}.get(whole_number(row.get("sex"))),
    }


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def _scp_codes(text: str) -> dict[str, float]:
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"scp_codes: expected a mapping such as {{'NORM': 100.0}}, got {text[:80]!r}") from error


def _age(text: str) -> float | None:
    return float(OVER_89) if whole_number(text) == str(HIDDEN_AGE) else parse_age(text)
