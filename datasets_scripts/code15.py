"""CODE-15 % (https://zenodo.org/records/4916206): 345,779 12-lead ECGs of 7 or 10 s at 400 Hz with six labels.

Read as published: `exams.csv`, and `exams_part0.hdf5` to `exams_part17.hdf5` with `exam_id (N,)` and float32 `tracings
(N, 4096, 12)`, the leads in the order DI DII DIII AVR AVL AVF V1..V6. Every recording stands in the middle of its 4,096
samples, with zeros before and after it, which are taken off; every file ends with one row of zeros for exam 0, which is
no exam.

The unit is not stated plainly: "the scale 1e-4V: so if the signal is in V it should be multiplied by 1000" says two
things at once (https://github.com/antonior92/ecg-age-prediction/issues/1). So it is decided for each file by the height
of QRS complexes (`millivolt_per_unit`), and every record says in `repairs` what was decided.

An HDF5 file can name other files to be read in its place. None is: links, external and virtual data sets are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets_scripts.listing.csv_tables import TableRow, parse_age, read_rows, whole_number
from datasets_scripts.readers.wfdb_header import check_own_file
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import Entry, SourceFacts, split_of

if TYPE_CHECKING:
    import h5py

FACTS = SourceFacts(
    title="CODE-15%: a large scale annotated dataset of 12-lead ECGs",
    homepage="https://zenodo.org/records/4916206",
    license="cc-by-4.0",
    citation="Ribeiro AH, Paixao GMM, Lima EM, Horta Ribeiro M, Pinto Filho MM, Gomes PR, Oliveira DM, Meira Jr W, "
    "Schon TB, Ribeiro ALP. CODE-15%: a large scale annotated dataset of 12-lead ECGs (version 1.0.0). Zenodo (2021). "
    "https://doi.org/10.5281/zenodo.4916206",
)
TABLE_FILE = "exams.csv"
SAMPLING_RATE = 400
NUM_SAMPLES = 4096
LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
# The labels by their columns; several ways to say each, the first of which is the statement
LABEL_PHRASES = {
    "1dAVb": ("first degree AV block", "prolonged PR interval, first degree AV block"),
    "RBBB": ("right bundle branch block", "complete right bundle branch block"),
    "LBBB": ("left bundle branch block", "complete left bundle branch block"),
    "SB": ("sinus bradycardia", "slow sinus rhythm, bradycardia"),
    "ST": ("sinus tachycardia", "fast sinus rhythm, tachycardia"),
    "AF": ("atrial fibrillation", "atrial fibrillation with irregular ventricular response"),
}
NORMAL = "normal ECG"
# Units of which the publications speak, by their size in mV
UNITS = {1.0: "1 mV", 0.1: "1e-4 V"}
# The median height of QRS complexes over leads and recordings, in mV: 1.14 in PTB-XL (0.6 to 2.3 in 98 % of its
# recordings); the bands of the two units lie apart, and what is between them is refused
PLAUSIBLE_QRS = (0.4, 3.2)
NUM_RECORDINGS_MEASURED = 32
QRS_WINDOW = 600  # samples: 1.5 s hold a QRS complex down to 40 beats a minute
MAX_EXAMS = 2**20  # in one file; 20,001 as published
MAX_CHUNK_BYTES = 2**25  # HDF5 unpacks a whole chunk to give one row of it
_PLAIN_FILE = re.compile(r"[-\w]+\.(?:hdf5|h5)", re.ASCII)
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def list_entries(data_dir: str | PathLike[str] | None, *, millivolt_per_unit: float | None = None) -> Iterator[Entry]:
    """All exams in the order of `exams.csv`; split by a hash of the patient.

    `statements` are the names of the labels that hold; without any, "normal ECG" where `normal_ecg` says so. To know
    its row and unit, every HDF5 file is opened once, when the table first names it. `millivolt_per_unit` replaces the
    decision about the unit (1 for mV, 0.1 for 1e-4 V). Exams that no file holds, or a file twice, and tracings without
    a row in the table, are problems. Raises FileNotFoundError or ValueError for the table and the option, ImportError
    without h5py.
    """
    if millivolt_per_unit is not None and not 0 < millivolt_per_unit < float("inf"):
        raise ValueError(f"millivolt_per_unit: expected a positive number, got {millivolt_per_unit!r}")
    _h5py()
    folder = _folder(data_dir)
    if not (folder / TABLE_FILE).is_file():
        raise FileNotFoundError(
            f"{folder / TABLE_FILE}: no such file; data_dir must be CODE-15 %'s folder, as published"
        )
    rows = read_rows(folder / TABLE_FILE, ("exam_id", "patient_id", "trace_file", *LABEL_PHRASES))
    return _entries(folder, rows, millivolt_per_unit)


def read_entry(entry: Entry, **_: Any) -> ECGRecord:
    """The record of an entry, in mV, without the zeros around it.

    Raises FileNotFoundError, or ValueError for a file that is not CODE-15 %'s, or was changed since it was listed.
    """
    fields = dict(entry.fields)
    units_per_millivolt = np.float32(fields.pop("gain", 1.0))
    with open_tracings(Path(entry.path)) as (exam_ids, tracings):
        index = entry.index
        if index is None or index >= len(exam_ids) or str(exam_ids[index]) != entry.record_id:
            raise ValueError(f"{entry.path}: expected exam {entry.record_id} in row {index}; list the data set again")
        values = np.asarray(tracings[index], np.float32)
    start, end = trimmed(values)
    if start == end:
        raise ValueError(f"{entry.path}: exam {entry.record_id} holds nothing but zeros")
    num_zeros = NUM_SAMPLES - (end - start)
    trim = (f"zero_padding_trimmed: {num_zeros} samples",) if num_zeros else ()
    fields["repairs"] = (*trim, *fields.get("repairs", ()))
    signal = np.ascontiguousarray(values[start:end].T) / units_per_millivolt  # (samples, leads) -> (leads, samples)
    return ECGRecord(signal, LEADS, SAMPLING_RATE, record_id=entry.record_id, **fields)


def tables(data_dir: str | PathLike[str] | None, **_: Any) -> tuple[Path, ...]:
    """`exams.csv`, and the HDF5 files, which say in which row an exam is and decide the unit."""
    folder = _folder(data_dir)
    return (folder / TABLE_FILE, *sorted(path for path in folder.glob("*") if _PLAIN_FILE.fullmatch(path.name)))


def label_names(**_: Any) -> list[str]:
    """The six labels, in the table's order."""
    return list(LABEL_PHRASES)


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """English texts for every label, in the style of the training texts (`ECG Findings: atrial fibrillation.`)."""
    return {label: [findings_text([phrase]) for phrase in phrases] for label, phrases in LABEL_PHRASES.items()}


def trimmed(values: np.ndarray) -> tuple[int, int]:
    """The first sample of `(num_samples, num_leads)` that is not 0 in every lead, and the one after the last such.

    Both are equal where all is 0.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN is not 0 either
        told = np.flatnonzero((values != 0).any(axis=1))
    return (int(told[0]), int(told[-1]) + 1) if len(told) else (0, 0)


def qrs_height(values: np.ndarray) -> float:
    """The usual height of QRS complexes in `(num_samples, num_leads)`, in its own unit; NaN where there is none.

    From peak to peak in windows of 1.5 s, which a wandering baseline hardly changes; the median over windows and leads.
    """
    start, end = trimmed(values)
    values = values[start:end]
    num_windows = len(values) // QRS_WINDOW
    if num_windows == 0 or not np.isfinite(values).all():
        return float("nan")
    windows = values[: num_windows * QRS_WINDOW].reshape(num_windows, QRS_WINDOW, -1)
    return float(np.median(np.median(windows.max(axis=1) - windows.min(axis=1), axis=0)))


def millivolt_per_unit(heights: np.ndarray) -> float:
    """The unit of tracings in mV, 1 or 0.1, decided by the heights of QRS complexes in some recordings (`qrs_height`).

    Raises ValueError where the median is plausible in neither unit, or no height is known.

    >>> millivolt_per_unit(np.array([0.9, 1.3, 2.4])), millivolt_per_unit(np.array([9.0, 13.0, 24.0]))
    (1.0, 0.1)
    """
    known = np.asarray(heights)[np.isfinite(heights)]
    height = float(np.median(known)) if len(known) else float("nan")
    low, high = PLAUSIBLE_QRS
    for unit in UNITS:
        if low <= height * unit <= high:
            return unit
    raise ValueError(
        f"expected QRS complexes of {low:g} to {high:g} mV, got a median height of {height:.4g}, which is plausible "
        f"neither in mV nor in 1e-4 V; find out the unit and pass millivolt_per_unit"
    )


# ----- the files -----------------------------------------------------------------------------------------------------


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading CODE-15 % needs h5py: pip install 'esi-ecg[formats]'") from error
    return h5py


@contextmanager
def open_tracings(path: Path) -> Iterator[tuple[np.ndarray, h5py.Dataset]]:
    """`exam_id (N,)` and the data set `tracings (N, 4096, 12)`, of which no more than what is asked for is read.

    Raises FileNotFoundError, or ValueError for any other file: links, data kept in or put together from other files,
    other shapes and types, chunks that unpack to more than 32 MB. No other file is opened.
    """
    h5py = _h5py()
    check_own_file(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            exam_ids, tracings = _own_dataset(path, file, "exam_id"), _own_dataset(path, file, "tracings")
            _check_shapes(path, exam_ids, tracings)
            yield exam_ids[:], tracings
    except (OSError, RuntimeError, KeyError, TypeError, OverflowError) as error:  # what h5py raises for broken files
        raise ValueError(f"{path}: cannot be read as HDF5 ({error}); unpack or copy the file again") from error


def _own_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A data set that lies in the file itself; asking so far opens no other file."""
    h5py = _h5py()
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{path}: expected a data set {name}, got none or a link, which is not followed")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{path}: expected a data set {name}, got something else")
    stored = dataset.id.get_create_plist()
    own_layouts = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if stored.get_layout() not in own_layouts or stored.get_external_count():
        raise ValueError(f"{path}: expected {name} inside the file, got data kept in other files, which are not opened")
    if stored.get_layout() == h5py.h5d.CHUNKED:
        chunk_bytes = int(np.prod(stored.get_chunk(), dtype=object)) * dataset.dtype.itemsize
        if chunk_bytes > MAX_CHUNK_BYTES:
            raise ValueError(
                f"{path}: expected chunks of at most {MAX_CHUNK_BYTES} bytes in {name}, got {chunk_bytes}; write it "
                f"anew with chunks of one recording"
            )
    return dataset


def _check_shapes(path: Path, exam_ids: h5py.Dataset, tracings: h5py.Dataset) -> None:
    if exam_ids.ndim != 1 or exam_ids.dtype.kind not in "iu" or not 0 < len(exam_ids) <= MAX_EXAMS:
        raise ValueError(
            f"{path}: expected exam_id as integers (N,) with N from 1 to {MAX_EXAMS}, got {exam_ids.dtype} "
            f"{exam_ids.shape}"
        )
    expected = (len(exam_ids), NUM_SAMPLES, len(LEADS))
    if tracings.shape != expected or tracings.dtype != np.float32:
        raise ValueError(f"{path}: expected tracings as float32 {expected}, got {tracings.dtype} {tracings.shape}")


@dataclass
class _TraceFile:
    """What one listing needs to know of a file: the row of every exam, those that stand twice, and the unit."""

    rows: dict[str, int] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    gain: float = 1.0
    repairs: tuple[str, ...] = ()
    missing: bool = False
    problem: str | None = None


def _look_into(path: Path, unit: float | None) -> _TraceFile:
    if not path.exists():
        return _TraceFile(missing=True)  # reading the exam says so
    found = _TraceFile()
    try:
        with open_tracings(path) as (exam_ids, tracings):
            for row, exam in enumerate(exam_ids.tolist()):
                if exam != 0 and found.rows.setdefault(str(exam), row) != row:
                    found.repeated.add(str(exam))
            measured = list(found.rows.values())[:NUM_RECORDINGS_MEASURED]
            heights = [] if unit else [qrs_height(tracings[row]) for row in measured]
        found.gain, found.repairs = _decided(heights, unit)
    except ValueError as error:
        found.problem = str(error) if str(path) in str(error) else f"{path}: {error}"
    return found


def _decided(heights: list[float], unit: float | None) -> tuple[float, tuple[str, ...]]:
    """Units per mV, and how that was decided."""
    if unit is not None:
        return 1 / unit, (f"unit_given: {unit:g} mV",)
    unit = millivolt_per_unit(np.array(heights))
    return round(1 / unit), (f"unit_decided: {UNITS[unit]}, since QRS complexes are {np.nanmedian(heights):.3g} high",)


# ----- the table -----------------------------------------------------------------------------------------------------


def _folder(data_dir: str | PathLike[str] | None) -> Path:
    if data_dir is None:
        raise ValueError(f"data_dir: expected CODE-15 %'s folder, which holds {TABLE_FILE}, got None")
    return Path(data_dir)


def _entries(folder: Path, rows: Iterator[TableRow], unit: float | None) -> Iterator[Entry]:
    files: dict[str, _TraceFile] = {}
    listed: dict[str, set[str]] = {}
    for row in rows:
        exam, name = whole_number(row.get("exam_id")), row.get("trace_file")
        if _PLAIN_FILE.fullmatch(name) and name not in files:
            files[name], listed[name] = _look_into(folder / name, unit), set()
        yield _entry(folder, row, exam, name, files, listed)
    for name, file in files.items():  # what the table does not know has neither patient nor labels
        for exam in sorted(set(file.rows) - listed[name], key=int):
            problem = f"{name} holds exam {exam}, of which {TABLE_FILE} says nothing"
            yield Entry(exam, str(folder / name), "train", index=file.rows[exam], problem=problem)


def _entry(
    folder: Path,
    row: TableRow,
    exam: str,
    name: str,
    files: Mapping[str, _TraceFile],
    listed: Mapping[str, set[str]],
) -> Entry:
    patient = whole_number(row.get("patient_id"))
    record_id, split = exam or f"row {row.number}", split_of(patient or exam)
    try:
        fields = _metadata(row, exam, patient, name)
        if exam in listed[name]:
            raise ValueError(f"row {row.number} of {TABLE_FILE}: expected each exam once, got {exam} again")
        listed[name].add(exam)
    except ValueError as error:  # such a row depends on its table alone
        table = str(folder / TABLE_FILE)
        return Entry(record_id, table, split, files=(table,), problem=str(error))
    file = files[name]
    problem = file.problem
    if problem is None and exam in file.repeated:
        problem = f"{name} holds exam {exam} more than once"
    elif problem is None and not file.missing and exam not in file.rows:
        problem = f"{name} does not hold exam {exam}, which {TABLE_FILE} says it does"
    fields |= {"gain": file.gain, "repairs": file.repairs}
    return Entry(record_id, str(folder / name), split, fields, index=file.rows.get(exam), problem=problem)


def _metadata(row: TableRow, exam: str, patient: str, name: str) -> dict[str, Any]:
    """The fields of a row. ValueError for one that makes no sense."""
    if row.problem:
        raise ValueError(row.problem)
    if not re.fullmatch(r"[1-9]\d*", exam, re.ASCII) or not patient:
        raise ValueError(f"expected a number as exam_id and a patient_id, got {exam[:40]!r} and {patient[:40]!r}")
    if not _PLAIN_FILE.fullmatch(name):
        raise ValueError(f"trace_file: expected the plain name of an HDF5 file, got {name[:80]!r}; it is not opened")
    labels = tuple(label for label in LABEL_PHRASES if _flag(row, label))
    statements = tuple(LABEL_PHRASES[label][0] for label in labels)
    if not labels and row.get("normal_ecg") and _flag(row, "normal_ecg"):
        statements = (NORMAL,)
    male = _flag(row, "is_male") if row.get("is_male") else None
    return {
        "patient_id": patient,
        "labels": labels,
        "statements": statements,
        "age": parse_age(row.get("age")),
        "sex": {True: "male", False: "female"}.get(male),
    }


def _flag(row: TableRow, column: str) -> bool:
    text = row.get(column)
    if text.lower() not in _FLAGS:
        raise ValueError(f"{column}: expected True or False, got {text[:40]!r}")
    return _FLAGS[text.lower()]
