"""EDF and EDF+ files become records (https://www.edfplus.info/specs/; read with pyEDFlib).

The whole header is checked against the file's size before the C library opens it. Rules:
- Channels that are ECG voltages by label and dimension are leads; others are left out and told. EDF+ annotations too.
- All leads must have one sampling rate: which of two rates a record should have is not guessed.
- Integers are kept, with gain and offset from the physical and digital extremes.
- Discontinuous files (EDF+D), unfinished ones (-1 data records) and BDF (24 bits) are refused.
- Age and sex are read from the EDF+ patient field; the field itself, which holds name and birth date, goes nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.readers.calibration import MAX_LEADS, check_size, checked_rate, record_of_integers, voltage_unit
from datasets_scripts.readers.demographics import IdentityRule, age_between, date_from, sex_of
from datasets_scripts.readers.lead_codes import plain_lead_name
from datasets_scripts.records import ECGRecord

HEADER_BYTES = 256  # of the file, and again for each signal
BYTES_PER_SAMPLE = 2
ANNOTATIONS = "EDF Annotations"
_MAIN_FIELDS = {"version": 8, "patient": 80, "recording": 80, "date": 8, "time": 8, "header_bytes": 8, "reserved": 44}
_MAIN_FIELDS |= {"num_records": 8, "duration": 8, "num_signals": 4}
_SIGNAL_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8}
_SIGNAL_FIELDS |= {"digital_max": 8, "prefilter": 80, "samples_per_record": 8, "reserved": 32}
_ECG_LABEL = re.compile(r"(ecg|ekg|ml[i1]|mcl|cm5|cc5)", re.IGNORECASE)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True)
class _Signal:
    """One signal of the header; `step` is in mV, None where the signal is no lead."""

    index: int
    label: str
    samples_per_record: int
    step: float | None
    offset: float


@dataclass(frozen=True)
class _Header:
    patient: str
    recording: str
    is_plus: bool
    num_records: int
    duration: float  # of a data record, in seconds
    signals: tuple[_Signal, ...]
    num_trailing_bytes: int


def read_edf_record(path: Path, identify: IdentityRule) -> ECGRecord:
    """The ECG leads of an EDF or EDF+ file. `identify` is an `identity_rule`; plain EDF states no patient number.

    Raises FileNotFoundError or ValueError with one sentence. ImportError where pyEDFlib is not installed.
    """
    header = _read_header(path)
    leads = [signal for signal in header.signals if signal.step is not None]
    if not leads:
        labels = ", ".join(signal.label for signal in header.signals)
        raise ValueError(f"{path}: expected a channel such as 'ECG I' in volts, got channels: {labels}")
    rates = {signal.label: signal.samples_per_record / header.duration for signal in leads}
    if len(set(rates.values())) > 1:
        told = ", ".join(f"{label} {rate:g} Hz" for label, rate in rates.items())
        raise ValueError(f"{path}: expected one sampling rate for all leads, got {told}; export them at one rate")
    repairs = [f"left_out_channel: {signal.label}" for signal in header.signals if signal.step is None]
    if header.num_trailing_bytes:
        repairs.append(f"ignored_trailing_bytes: {header.num_trailing_bytes}")
    return record_of_integers(
        path,
        _digital(path, header, leads),
        [1.0 / signal.step for signal in leads],
        [signal.offset for signal in leads],
        [plain_lead_name(signal.label) or signal.label for signal in leads],
        checked_rate(path, leads[0].samples_per_record / header.duration),
        repairs=tuple(repairs),
        **_metadata(header, identify),
    )


def _read_header(path: Path) -> _Header:
    """The header, every number of it checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        main = _fields(path, file.read(HEADER_BYTES), _MAIN_FIELDS, 1)
        main = {name: values[0] for name, values in main.items()}
        if main["version"] != "0":
            raise ValueError(f"{path}: expected an EDF file of version 0, got another; convert BDF to EDF or WFDB")
        if main["reserved"].startswith("EDF+D"):
            raise ValueError(f"{path}: expected a continuous recording, got EDF+D with gaps; cut it into EDF+C files")
        num_signals = _whole(path, main["num_signals"], "number of signals", 1, MAX_LEADS)
        fields = _fields(path, file.read(HEADER_BYTES * num_signals), _SIGNAL_FIELDS, num_signals)
    _whole(path, main["header_bytes"], "header bytes", *[HEADER_BYTES * (1 + num_signals)] * 2)
    num_records = _whole(path, main["num_records"], "number of data records", 1, size)
    duration = _decimal(path, main["duration"], "duration of a data record")
    if not duration > 0:
        raise ValueError(
            f"{path}: expected data records longer than 0 s, got {duration:g} s: no signal is in this file"
        )
    per_record = [_whole(path, text, "samples per data record", 1, size) for text in fields["samples_per_record"]]
    expected = HEADER_BYTES * (1 + num_signals) + num_records * sum(per_record) * BYTES_PER_SAMPLE
    if size < expected:
        raise ValueError(
            f"{path}: announces {num_records} data records, {expected} bytes in all, but has {size}; the file is cut "
            f"short, copy it again"
        )
    signals = tuple(
        _signal(path, index, {name: values[index] for name, values in fields.items()}) for index in range(num_signals)
    )
    is_plus = main["reserved"].startswith("EDF+C")
    return _Header(main["patient"], main["recording"], is_plus, num_records, duration, signals, size - expected)


def _fields(path: Path, data: bytes, widths: dict[str, int], count: int) -> dict[str, list[str]]:
    """The fixed-width texts of a header: all values of the first field, then all of the second, ..."""
    if len(data) < count * sum(widths.values()) or not all(32 <= byte < 127 for byte in data):
        raise ValueError(f"{path}: expected an EDF header of printable ASCII, got another or a shorter one")
    text, begin, fields = data.decode("ascii"), 0, {}
    for name, width in widths.items():
        fields[name] = [text[begin + width * index :][:width].strip() for index in range(count)]
        begin += width * count
    return fields


def _whole(path: Path, text: str, what: str, low: int, high: int) -> int:
    if not re.fullmatch(r"-?[0-9]{1,8}", text) or not low <= int(text) <= high:
        expected = f"{low}" if low == high else f"{low} to {high}"
        raise ValueError(f"{path}: expected {expected} as {what}, got {text[:8]!r}; correct the file or copy it again")
    return int(text)


def _decimal(path: Path, text: str, what: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", text):
        raise ValueError(f"{path}: expected a number as {what}, got {text[:8]!r}; correct the file")
    return float(text)


def _signal(path: Path, index: int, fields: dict[str, str]) -> _Signal:
    label, samples = fields["label"], int(fields["samples_per_record"])
    unit = voltage_unit(fields["unit"])
    is_lead = unit is not None and (plain_lead_name(label) is not None or _ECG_LABEL.match(label) is not None)
    if not is_lead:
        return _Signal(index, label, samples, None, 0.0)
    low, high = (
        _whole(path, fields[name], f"{name} of {label}", -32768, 32767) for name in ("digital_min", "digital_max")
    )
    bottom, top = (_decimal(path, fields[name], f"{name} of {label}") for name in ("physical_min", "physical_max"))
    if low >= high or bottom == top:
        raise ValueError(
            f"{path}: expected a digital and a physical range of {label}, got {low}..{high} and {bottom:g}..{top:g}"
        )
    step = (top - bottom) / (high - low)  # negative where the amplifier turns the sign
    return _Signal(index, label, samples, step * unit, low - bottom / step)


def _digital(path: Path, header: _Header, leads: list[_Signal]) -> np.ndarray:
    """The integers of the leads, `(num_leads, num_samples)`."""
    try:
        import pyedflib
    except ImportError as error:
        raise ImportError("reading EDF needs pyEDFlib: pip install 'esi-ecg[formats]'") from error

    num_samples = header.num_records * leads[0].samples_per_record
    check_size(path, len(leads), num_samples)
    check_files = pyedflib.DO_NOT_CHECK_FILE_SIZE if header.num_trailing_bytes else pyedflib.CHECK_FILE_SIZE
    try:
        with pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, check_files) as reader:
            rows = [_index_of(header, signal) for signal in leads]
            if [reader.getLabel(row).strip() for row in rows] != [signal.label for signal in leads]:
                raise ValueError("the library lists other channels")
            return np.stack([reader.readSignal(row, digital=True) for row in rows])
    except (OSError, ValueError, IndexError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be read as EDF ({type(error).__name__}); correct the file") from error


def _index_of(header: _Header, signal: _Signal) -> int:
    """Where the library lists a signal: it leaves out the annotations of EDF+ before it."""
    before = header.signals[: signal.index]
    return signal.index - sum(header.is_plus and other.label == ANNOTATIONS for other in before)


def _metadata(header: _Header, identify: IdentityRule) -> dict[str, Any]:
    """`age`, `sex` and `patient_id` of EDF+ (`code sex birthdate name`); nothing from the free text of plain EDF."""
    if not header.is_plus:
        return {}
    code, sex, birth, *_ = [*header.patient.split(), "X", "X", "X"]
    words = [*header.recording.split(), "X", "X"]
    recorded = _edf_date(words[1]) if words[0] == "Startdate" else None
    return {
        "age": age_between(_edf_date(birth), recorded),
        "sex": sex_of(sex),
        "patient_id": identify(None if code == "X" else code),
    }


def _edf_date(text: str) -> Any:
    match = re.fullmatch(r"([0-9]{2})-([A-Z]{3})-([0-9]{4})", text)
    if not match or match[2] not in _MONTHS:
        return None
    return date_from(match[3], str(_MONTHS.index(match[2]) + 1), match[1])
