"""WFDB files become records: https://physionet.org/physiotools/wag/ (PTB-XL, MIMIC-IV-ECG, the Challenge sets, ...).

Rules, each told in the record or in a log line:
- Units V, mV, uV and nV become mV; no unit means mV (header(5)); an unknown unit is an error.
- A channel in a unit that is no voltage (mmHg, NU, ...), or that is named as another signal (RESP, PLETH, EEG, ...), is
  left out with a warning; a record with nothing else is an error.
- `#Age`, `#Sex`, `#Dx` comments fill `age`, `sex` and `labels` (SNOMED codes as strings); 300 years means over 89.
- Frames of several samples per lead are averaged to the header's rate, as `wfdb.rdrecord` does.
- Integers that fit int16 are kept as `digital`; else the record holds float32 mV only.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from datasets_scripts.records import DIGITAL_NAN, ECGRecord
from datasets_scripts.wfdb_checks import frames_of, read_checked_header
from datasets_scripts.wfdb_header import SignalLine, WFDBHeader, check_own_file, parse_header

logger = logging.getLogger(__name__)

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
MILLIVOLT_PER_UNIT = {"V": 1000.0, "v": 1000.0, "mV": 1.0, "mv": 1.0, "nV": 1e-6}
MILLIVOLT_PER_UNIT |= {
    micro + volt: 1e-3 for micro in ("u", "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}") for volt in "Vv"
}
OTHER_UNITS = (
    "mmhg",
    "cmh2o",
    "kpa",
    "pa",
    "nu",
    "%",
    "bpm",
    "degc",
    "c",
    "ohm",
    "ohms",
    "l/min",
    "lpm",
    "ml",
    "l",
    "g",
)
OTHER_SIGNALS = re.compile(
    r"(resp\w*|pleth|ppg|abp|art|pap|cvp|bp|spo2|sao2|co2|icp|temp|eeg|eog|emg)\b", re.IGNORECASE
)
# signal(5): the integer of each format that stands for "no sample"; format 8 has none
NAN_OF_FORMAT = {"80": -(2**7), "508": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11)}
NAN_OF_FORMAT |= {"16": -(2**15), "61": -(2**15), "160": -(2**15), "516": -(2**15)}
NAN_OF_FORMAT |= {"24": -(2**23), "524": -(2**23), "32": -(2**31)}
HIDDEN_AGE, OVER_89 = 300, 90  # PTB-XL (and its copy in the Challenge sets) writes 300 for every age above 89


def read_wfdb_record(path: Path) -> ECGRecord:
    """The record of a WFDB header, given by its path with `.hea`, `.dat`, `.mat` or no extension.

    Raises FileNotFoundError or ValueError, each with one sentence: expected, got, what to do.
    """
    header = read_checked_header(header_path(path))
    leads = _lead_lines(header)
    kept = [index for index, line in enumerate(leads) if _is_voltage(header.path, line)]
    if not kept:
        names = ", ".join(line.name for line in leads)
        raise ValueError(f"{header.path}: expected at least one lead in mV, got only other signals: {names}")
    metadata = {"record_id": header.path.stem, **metadata_of_comments(header.comments)}
    names = tuple(leads[index].name for index in kept)
    if header.segments or any(line.samples_per_frame > 1 for line in leads):
        physical = _read_with_wfdb(header, physical=True).p_signal
        scale = np.array([_millivolt_per_unit(header.path, leads[index]) for index in kept])
        signal = (physical[:, kept] * scale).T  # (samples, leads) -> (leads, samples)
        return ECGRecord(np.ascontiguousarray(signal, np.float32), names, header.sampling_rate, **metadata)
    integers = _read_integers(header)[kept]
    return _calibrated(header, [leads[index] for index in kept], integers, metadata)


def header_path(path: Path) -> Path:
    """Where the header of a record is; errors name what this reader reads.

    Raises FileNotFoundError if there is none; ValueError for a file of another format.
    """
    if "::" in str(path):
        raise ValueError(f"{path}: expected a local path without '::', which stands for a chain of remote files")
    if path.suffix.lower() in WFDB_SUFFIXES:
        return path.with_suffix(path.suffix if path.suffix.lower() == ".hea" else ".hea")
    candidate = path.with_name(path.name + ".hea") if path.name else path
    if candidate.exists() or not path.is_file():
        return candidate
    raise ValueError(
        f"{path}: expected a WFDB record (a .hea header with its .dat or .mat file beside it), got "
        f"{path.suffix or 'a file without extension'}; convert it to WFDB, other formats are not read yet"
    )


def metadata_of_comments(comments: tuple[str, ...]) -> dict[str, Any]:
    """`age`, `sex` and `labels` of a header's comments, as the PhysioNet/CinC Challenge sets write them."""
    age, sex = _comment(comments, "age"), (_comment(comments, "sex") or "").lower()
    codes = re.split(r"[,\s]+", _comment(comments, "dx", whole_line=True) or "")
    return {
        "age": _age(age),
        "sex": {"m": "male", "male": "male", "f": "female", "female": "female"}.get(sex),
        "labels": tuple(dict.fromkeys(code for code in codes if code.isdigit())),
    }


def _comment(comments: tuple[str, ...], key: str, whole_line: bool = False) -> str | None:
    value = r"([^<#]*)" if whole_line else r"([^\s<#,]+)"
    for comment in comments:
        match = re.search(rf"(?:^|[\s<]){key}>?\s*:\s*{value}", comment, re.IGNORECASE)
        if match:
            return match[1]
    return None


def _age(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\d{1,3}(\.\d+)?", text):
        return None
    age = float(text)
    if age == HIDDEN_AGE:
        return float(OVER_89)
    return age if age <= 150 else None


def _lead_lines(header: WFDBHeader) -> tuple[SignalLine, ...]:
    """The signal lines that name the leads: the header's own, or those of the first segment that has some."""
    if not header.segments:
        return header.signals
    name = next((name for name, _ in header.segments if name != "~"), None)
    if name is None:
        raise ValueError(f"{header.path}: expected at least one segment with samples, got only gaps ('~')")
    lines = parse_header(header.path.parent / f"{name}.hea").signals
    if len(lines) != header.num_leads:
        raise ValueError(f"{header.path}: expected {header.num_leads} leads in segment {name}, got {len(lines)}")
    return lines


def _is_voltage(path: Path, line: SignalLine) -> bool:
    other_unit = line.unit is not None and line.unit.lower() in OTHER_UNITS
    if not other_unit and not OTHER_SIGNALS.match(line.name):
        _millivolt_per_unit(path, line)
        return True
    logger.warning("%s: left out %s (%s): not a lead of an ECG", path, line.name, line.unit or "no unit")
    return False


def _millivolt_per_unit(path: Path, line: SignalLine) -> float:
    if line.unit is None:
        return 1.0
    if line.unit not in MILLIVOLT_PER_UNIT:
        raise ValueError(
            f"{path}: expected lead {line.name} in one of {', '.join(MILLIVOLT_PER_UNIT)}, got unit {line.unit!r}; "
            f"correct the header"
        )
    return MILLIVOLT_PER_UNIT[line.unit]


def _read_with_wfdb(header: WFDBHeader, physical: bool) -> wfdb.Record:
    """`wfdb.rdrecord` on a checked header; its errors become one sentence. Never with `pn_dir`: nothing is fetched."""
    check_own_file(header.path)
    try:
        return wfdb.rdrecord(str(header.path.with_suffix("").absolute()), physical=physical, pn_dir=None)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{header.path}: its signals cannot be read ({error}); correct the header, or copy the record again"
        ) from error


def _read_integers(header: WFDBHeader) -> np.ndarray:
    """All samples as integers, `(leads, samples)`."""
    first = header.signals[0]
    if all((line.file_name, line.fmt, line.skew) == (first.file_name, "16", 0) for line in header.signals):
        # the usual case (PTB-XL, MIMIC-IV-ECG, Challenge sets) without wfdb's slow second parse of the header
        count = frames_of(header) * header.num_leads
        path = header.path.parent / first.file_name
        flat = np.fromfile(path, dtype="<i2", count=count, offset=first.byte_offset)
        return flat.reshape(-1, header.num_leads).T  # (samples, leads) -> (leads, samples)
    return _read_with_wfdb(header, physical=False).d_signal.T  # (samples, leads) -> (leads, samples)


def _calibrated(
    header: WFDBHeader, lines: list[SignalLine], integers: np.ndarray, metadata: dict[str, Any]
) -> ECGRecord:
    """The record of integers `(leads, samples)`: int16 with gain and offset where they fit, else float32 mV."""
    names = tuple(line.name for line in lines)
    gain = np.array([line.gain / _millivolt_per_unit(header.path, line) for line in lines])
    offset = np.array([line.baseline for line in lines], dtype=np.float64)
    absent = np.stack([row == NAN_OF_FORMAT.get(line.fmt, None) for row, line in zip(integers, lines, strict=True)])
    present = integers[~absent]
    if present.size == 0 or (present.min() > DIGITAL_NAN and present.max() <= np.iinfo(np.int16).max):
        digital = np.where(absent, DIGITAL_NAN, integers).astype(np.int16)
        return ECGRecord.from_digital(digital, gain, offset, names, header.sampling_rate, **metadata)
    signal = np.where(absent, np.nan, (integers - offset[:, None]) / gain[:, None])
    return ECGRecord(signal.astype(np.float32), names, header.sampling_rate, **metadata)
