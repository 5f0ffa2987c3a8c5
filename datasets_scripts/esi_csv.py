"""The ESI authors' own layout: a CSV with `save_index` and `prompt`, and one `ecg_{save_index}.npy` per record.

An array is float `(num_samples, 12)` in mV. Its lead order is not written anywhere: the default is MIMIC-IV-ECG's
(I II III aVR aVF aVL V1..V6), since the authors saved that set's records as read, and MIMIC swaps aVF and aVL.
Pass `leads` if your arrays were saved in another order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.listing.csv_tables import SEXES, TableRow, parse_age, read_rows, require_columns, whole_number
from datasets_scripts.records import ECGRecord
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="ECGs with prompts, in the layout of the ESI authors",
    citation="Yu H, Guo P, Sano A. ECG Semantic Integrator (ESI): A Foundation ECG Model Pretrained with LLM-Enhanced "
    "Cardiological Text. Transactions on Machine Learning Research (2024). https://arxiv.org/abs/2405.19366",
)
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
PATIENT_COLUMNS = ("patient_id", "subject_id")
NEEDED_COLUMNS = ("save_index", "prompt")
_PLAIN_INDEX = re.compile(r"[-\w.]+")
_NPY_MAGIC = b"\x93NUMPY"


def list_entries(
    data_dir: str | PathLike[str] | None = None,
    *,
    meta_path: str | PathLike[str] | None = None,
    file_path: str | PathLike[str] | None = None,
    sampling_rate: float = 500,
    leads: Sequence[str] = MIMIC_LEADS,
) -> Iterator[Entry]:
    """All records in the table's order; `report` of a record is its prompt.

    `meta_path` is the CSV (default: the only one in `data_dir`), `file_path` the folder of the arrays (default: the
    CSV's). Columns `patient_id` or `subject_id`, `age` and `sex` are used where they are. Split: 90 % train, 5 %
    validation, 5 % test by a hash of the patient, or of `save_index` where no patient is named; so it never changes.
    `sampling_rate` (Hz) and `leads` are those of every array. Raises FileNotFoundError or ValueError for the table.
    """
    meta_path, folder = _locate(data_dir, meta_path, file_path)
    require_columns(meta_path, NEEDED_COLUMNS)
    return (_entry(meta_path, folder, row) for row in read_rows(meta_path, NEEDED_COLUMNS))


def read_entry(entry: Entry, *, sampling_rate: float = 500, leads: Sequence[str] = MIMIC_LEADS, **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError, for its array or for options that fit no ECG."""
    leads = tuple(leads)
    array = read_array(Path(entry.path), len(leads))
    signal = np.ascontiguousarray(array.T)  # (samples, leads) -> (leads, samples)
    return ECGRecord(signal, leads, sampling_rate, **entry.fields)


def tables(
    data_dir: str | PathLike[str] | None = None,
    *,
    meta_path: str | PathLike[str] | None = None,
    file_path: str | PathLike[str] | None = None,
    **_: Any,
) -> tuple[Path, ...]:
    """The CSV."""
    return (_locate(data_dir, meta_path, file_path)[0],)


def label_names(**_: Any) -> list[str]:
    """This layout has texts only. Raises ValueError."""
    raise ValueError("esi_csv: expected a data set with labels, got one with prompts only; use ptb_xl or synthetic")


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """This layout has texts only. Raises ValueError."""
    label_names()
    return {}


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


def _entry(meta_path: Path, folder: Path, row: TableRow) -> Entry:
    index, patient = whole_number(row.get("save_index")), _patient(row)
    record_id, path = index or f"row {row.number}", str(folder / f"ecg_{index}.npy")
    split = split_of(patient or record_id)
    try:
        fields = _metadata(row, index, patient)
    except ValueError as error:  # such a row depends on its table alone: what it names is not even looked at
        return Entry(record_id, path, split, files=(str(meta_path),), problem=str(error))
    return Entry(record_id, path, split, fields, files=(path,))


def _metadata(row: TableRow, index: str, patient: str | None) -> dict[str, Any]:
    if row.problem:
        raise ValueError(row.problem)
    if not _PLAIN_INDEX.fullmatch(index):
        raise ValueError(f"save_index: expected letters, digits, '_', '-', '.', got {index!r}; not opened")
    return {
        "record_id": index,
        "patient_id": patient,
        "report": row.get("prompt"),
        "age": parse_age(row.get("age")),
        "sex": SEXES.get(row.get("sex").lower()),
    }


def _patient(row: TableRow) -> str | None:
    for column in PATIENT_COLUMNS:
        if row.get(column):
            return whole_number(row.get(column))
    return None
