"""The ESI authors' own layout: a CSV with `save_index` and `prompt`, and one `ecg_{save_index}.npy` per record.

An array is float `(num_samples, 12)` in mV. Its lead order is not written anywhere: the default is MIMIC-IV-ECG's
(I II III aVR aVF aVL V1..V6), since the authors saved that set's records as read, and MIMIC swaps aVF and aVL.
Pass `leads` if your arrays were saved in another order.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.load_report import LoadReport
from datasets_scripts.records import ECGRecord

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
PATIENT_COLUMNS = ("patient_id", "subject_id")
SPLIT_ENDS = {"train": 90, "validation": 95, "test": 100}  # in percent of the hashes
_PLAIN_INDEX = re.compile(r"[-\w.]+")
_NPY_MAGIC = b"\x93NUMPY"


def iter_records(
    data_dir: str | PathLike[str] | None = None,
    split: str | None = None,
    *,
    report: LoadReport,
    meta_path: str | PathLike[str] | None = None,
    file_path: str | PathLike[str] | None = None,
    sampling_rate: float = 500,
    leads: Sequence[str] = MIMIC_LEADS,
) -> Iterator[ECGRecord]:
    """The records of a split, in the table's order; `report` of a record is its prompt.

    `meta_path` is the CSV (default: the only one in `data_dir`), `file_path` the folder of the arrays (default: the
    CSV's). Columns `patient_id` or `subject_id`, `age` and `sex` are used where they are. Split: 90 % train, 5 %
    validation, 5 % test by a hash of the patient, or of `save_index` where no patient is named; so it never changes.
    Unreadable arrays are noted in `report`. Raises FileNotFoundError or ValueError for the table and the options.
    """
    meta_path, folder = _locate(data_dir, meta_path, file_path)
    for row in _rows(meta_path, split):
        path = folder / f"ecg_{row['save_index']}.npy"
        report.look_at(path)
        try:
            record = _record(path, row, tuple(leads), sampling_rate)
        except (ValueError, OSError) as error:
            report.reject(row["save_index"], error)
            continue
        yield record


def source_files(
    data_dir: str | PathLike[str] | None = None,
    split: str | None = None,
    *,
    meta_path: str | PathLike[str] | None = None,
    file_path: str | PathLike[str] | None = None,
    **_: Any,
) -> Iterator[Path]:
    """All files on which the records of a split depend: the CSV and every array."""
    meta_path, folder = _locate(data_dir, meta_path, file_path)
    yield meta_path
    for row in _rows(meta_path, split):
        if _PLAIN_INDEX.fullmatch(row["save_index"]):
            yield folder / f"ecg_{row['save_index']}.npy"


def label_names(**_: Any) -> list[str]:
    """This layout has texts only. Raises ValueError."""
    raise ValueError("esi_csv: expected a data set with labels, got one with prompts only; use ptb_xl or synthetic")


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """This layout has texts only. Raises ValueError."""
    label_names()
    return {}


def split_of(group: str) -> str:
    """The split of a patient (or record) by its hash: the same on every machine, in every process."""
    percent = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 100
    return next(split for split, end in SPLIT_ENDS.items() if percent < end)


def read_array(path: Path, num_leads: int) -> np.ndarray:
    """The array of one record, `(num_samples, num_leads)` float32. Pickled objects are refused unread.

    Raises FileNotFoundError or ValueError with one sentence.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; file_path must be the folder that holds ecg_{{save_index}}.npy")
    with path.open("rb") as file:
        if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            raise ValueError(f"{path}: expected a .npy file, got something else; save it with numpy.save")
    try:
        # mapped, not read: a header that announces more than the file holds allocates nothing
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError) as error:
        raise ValueError(
            f"{path}: expected plain numbers, got an array that cannot be read safely ({error}); arrays of Python "
            f"objects are pickles and are refused: save float32 with numpy.save(..., allow_pickle=False)"
        ) from error
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] != num_leads or not len(array):
        raise ValueError(f"{path}: expected float (num_samples, {num_leads}), got {array.dtype} {array.shape}")
    return np.array(array, dtype=np.float32)


def _locate(
    data_dir: str | PathLike[str] | None, meta_path: str | PathLike[str] | None, file_path: str | PathLike[str] | None
) -> tuple[Path, Path]:
    if meta_path is None:
        if data_dir is None:
            raise ValueError("esi_csv: expected meta_path (the CSV) or data_dir (a folder with one CSV), got neither")
        tables = sorted(Path(data_dir).glob("*.csv"))
        if len(tables) != 1:
            raise ValueError(f"{data_dir}: expected one CSV in this folder, got {len(tables)}; pass meta_path")
        meta_path = tables[0]
    meta_path = Path(meta_path)
    folder = Path(file_path) if file_path is not None else meta_path.parent
    for path, there in ((meta_path, meta_path.is_file()), (folder, folder.is_dir())):
        if not there:
            raise FileNotFoundError(f"{path}: no such file or folder; check meta_path and file_path")
    return meta_path, folder


def _rows(meta_path: Path, split: str | None) -> list[dict[str, str]]:
    if split is not None and split not in SPLIT_ENDS:
        raise ValueError(f"split: expected one of {', '.join(SPLIT_ENDS)} or None, got {split!r}")
    with meta_path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"save_index", "prompt"} <= set(rows[0]):
        raise ValueError(
            f"{meta_path}: expected the columns save_index and prompt, got {list(rows[0]) if rows else 'no row'}"
        )
    for row in rows:
        row["save_index"] = _index(row["save_index"])
    return [row for row in rows if split is None or split_of(_patient(row) or row["save_index"]) == split]


def _index(text: str | None) -> str:
    """`"12.0"` -> `"12"`: pandas writes whole numbers so where a column has gaps."""
    text = (text or "").strip()
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text


def _patient(row: dict[str, str]) -> str | None:
    for column in PATIENT_COLUMNS:
        if row.get(column):
            return _index(row[column])
    return None


def _record(path: Path, row: dict[str, str], leads: tuple[str, ...], sampling_rate: float) -> ECGRecord:
    if not _PLAIN_INDEX.fullmatch(row["save_index"]):
        raise ValueError(f"save_index: expected letters, digits, '_', '-', '.', got {row['save_index']!r}; not opened")
    array = read_array(path, len(leads))
    return ECGRecord(
        signal=np.ascontiguousarray(array.T),  # (samples, leads) -> (leads, samples)
        leads=leads,
        sampling_rate=sampling_rate,
        report=(row["prompt"] or "").strip(),
        record_id=row["save_index"],
        patient_id=_patient(row),
        age=float(row["age"]) if row.get("age") else None,
        sex={"m": "male", "male": "male", "f": "female", "female": "female"}.get(
            (row.get("sex") or "").strip().lower()
        ),
    )
