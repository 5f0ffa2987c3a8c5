"""Any file of one ECG becomes a record: what it is shows in its first bytes, else in its suffix.

WFDB, DICOM, HL7 aECG, GE MUSE XML, EDF and EDF+, CSV and NumPy arrays are read. Readers follow one contract: sizes are
checked before anything is allocated; a file that cannot be read gives one ValueError or OSError with one sentence
that names its path; what is mended or left out is told in `ECGRecord.repairs`; no name, birth date, hospital number
or operator enters a record, a message or a log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from datasets_scripts.readers.demographics import IdentityRule, identity_rule
from datasets_scripts.records import ECGRecord

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
SUFFIX_FORMATS = {".dcm": "DICOM", ".dicom": "DICOM", ".xml": "XML", ".edf": "EDF", ".npy": "npy", ".scp": "SCP-ECG"}
SUFFIX_FORMATS |= {suffix: "CSV" for suffix in TABLE_SUFFIXES} | {suffix: "WFDB" for suffix in WFDB_SUFFIXES}
_BEGIN = 512
_XML = re.compile(rb"\s*<[?!a-zA-Z_]")
_OTHER_FORMATS = {
    b"\x89HDF": "HDF5, which holds many records: use a source such as code15",
    b"\xffBIOSEMI": "BDF with 24 bits: convert it to EDF or WFDB",
    b"ISHNE1.0": "ISHNE Holter: convert it to WFDB or EDF",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"%PDF": "a PDF, which is a picture of an ECG: export the signal",
}


def read_file(
    path: str | PathLike[str],
    *,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    patient_id: str = "drop",
    salt: str | None = None,
) -> ECGRecord:
    """Read one recording. `record_id` is the file's name without its suffix, and only that.

    Files that are named after a patient are the user's matter: rename them first.

    Args:
        path: a file, or a WFDB record without suffix.
        sampling_rate: in Hz, for files that do not say it (CSV without times, `.npy`).
        leads: names in the order of the columns, for files that do not name them (CSV without header, `.npy`).
        unit: of the numbers in a CSV or `.npy`; `"mV"` where neither file nor caller says one.
        patient_id: `"drop"` leaves the patient's number out, `"keep"` takes it as the file has it, `"hash"` takes the
            first 16 hex digits of `sha256(salt + number)`.
        salt: a secret, for `"hash"` only.

    Raises:
        FileNotFoundError, IsADirectoryError: if there is no such file.
        ValueError: for a file that is damaged, hostile, or no ECG, and where file and caller say different things.
        ImportError: if the package that reads the format is not installed.
    """
    path = Path(path)
    identify = identity_rule(patient_id, salt)
    kind = format_of(path)
    if kind in ("CSV", "npy"):
        from datasets_scripts.readers.array_records import read_csv_record, read_npy_record

        return (read_csv_record if kind == "CSV" else read_npy_record)(path, sampling_rate, leads, unit)
    record = _read(path, kind, identify)
    _check_agreement(path, record, kind, sampling_rate, leads, unit)
    return record


def format_of(path: Path) -> str:
    """`"WFDB"`, `"DICOM"`, `"XML"`, `"EDF"`, `"CSV"`, `"npy"` or `"SCP-ECG"`.

    Raises FileNotFoundError, IsADirectoryError, or ValueError for a file of none of these formats.
    """
    suffix = path.suffix.lower()
    if "::" in str(path):
        raise ValueError(f"{path}: expected a local path without '::', which stands for a chain of remote files")
    if not path.is_file():
        if suffix in WFDB_SUFFIXES or _header_beside(path):
            return "WFDB"
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder; give one file, or use the source 'files' for a folder")
        raise FileNotFoundError(f"{path}: no such file, and no WFDB header {path.name}.hea beside it")
    with path.open("rb") as file:
        begin = file.read(_BEGIN)
    kind = _kind_of_bytes(begin)
    if kind is None and suffix not in SUFFIX_FORMATS:
        if _header_beside(path):
            return "WFDB"
        told = next((told for magic, told in _OTHER_FORMATS.items() if begin.startswith(magic)), None)
        known = "WFDB, DICOM, aECG or MUSE XML, EDF, CSV or .npy"
        raise ValueError(
            f"{path}: expected {known}, got {told or f'a file that is none of them ({suffix or chr(39) * 2})'}"
        )
    if kind == "XML" and suffix in (*WFDB_SUFFIXES, *TABLE_SUFFIXES):
        kind = None  # one byte of a signal or a quoted header may look like the begin of XML
    return kind or SUFFIX_FORMATS[suffix]


def _header_beside(path: Path) -> bool:
    return bool(path.name) and path.with_name(path.name + ".hea").is_file()


def _kind_of_bytes(begin: bytes) -> str | None:
    if begin[128:132] == b"DICM":
        return "DICOM"
    if begin.startswith(b"\x93NUMPY"):
        return "npy"
    if begin.startswith(b"0       ") and re.fullmatch(rb"[0-9]+ *", begin[184:192]):
        return "EDF"
    if begin[16:22] == b"SCPECG":
        return "SCP-ECG"
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if begin.startswith(mark):
            begin = begin[len(mark) :].decode(encoding, "ignore").encode()
    return "XML" if _XML.match(begin) else None


def _read(path: Path, kind: str, identify: IdentityRule) -> ECGRecord:
    """The record of a format that says rate, leads and units itself."""
    if kind == "WFDB":
        from datasets_scripts.readers.wfdb_records import read_wfdb_record

        return read_wfdb_record(path)
    if kind == "DICOM":
        from datasets_scripts.readers.dicom_records import read_dicom_record

        return read_dicom_record(path, identify)
    if kind == "EDF":
        from datasets_scripts.readers.edf_records import read_edf_record

        return read_edf_record(path, identify)
    if kind == "SCP-ECG":
        raise ValueError(
            f"{path}: SCP-ECG is not read; convert it to DICOM, HL7 aECG XML or WFDB with the vendor's tool"
        )
    return _read_xml(path, identify)


def _read_xml(path: Path, identify: IdentityRule) -> ECGRecord:
    from datasets_scripts.readers.aecg_records import aecg_record
    from datasets_scripts.readers.muse_records import muse_record
    from datasets_scripts.readers.xml_safety import local_name, parse_xml

    root = parse_xml(path)
    readers = {"annotatedecg": aecg_record, "restingecg": muse_record}
    reader = readers.get(local_name(root))
    if reader is None:
        raise ValueError(
            f"{path}: expected an HL7 AnnotatedECG or a GE MUSE RestingECG, got XML with the root "
            f"{local_name(root)[:30]!r}; export it in one of these"
        )
    return reader(path, root, identify)


def _check_agreement(
    path: Path,
    record: ECGRecord,
    kind: str,
    sampling_rate: float | None,
    leads: Sequence[str] | None,
    unit: str | None,
) -> None:
    """ValueError where the caller says something else than the file."""
    if sampling_rate is not None and abs(sampling_rate - record.sampling_rate) > 1e-6 * record.sampling_rate:
        raise ValueError(
            f"{path}: is sampled at {record.sampling_rate:g} Hz, but sampling_rate={sampling_rate:g} was given; "
            f"leave it out"
        )
    if leads is not None and tuple(leads) != record.leads:
        raise ValueError(
            f"{path}: holds the leads {list(record.leads)}, but leads={list(leads)} was given; leave it out"
        )
    if unit is not None:
        raise ValueError(
            f"{path}: {kind} says the unit of every lead itself, but unit={unit!r} was given; leave it out"
        )
