"""WFDB files become records: https://physionet.org/physiotools/wag/ (PTB-XL, MIMIC-IV-ECG, the Challenge sets, ...).

Rules; what is mended or left out stands in the record's `repairs`:
- Units V, mV, uV and nV become mV; no unit means mV (header(5)); an unknown unit is an error.
- A channel in a unit that is no voltage (mmHg, NU, ...), or that is named as another signal (RESP, PLETH, EEG, ...), is
  left out (`left_out_channel: PLETH`); a record with nothing else is an error.
- `#Age`, `#Sex`, `#Dx` comments fill `age`, `sex` and `labels` (SNOMED codes as strings); 300 years means over 89.
- Frames of several samples per lead are averaged to the header's rate, in integers, as `wfdb.rdrecord` does.
- Integers that fit int16 are kept as `digital`; else the record holds float32 mV only.
- Samples whose sum is not the header's checksum are an error, or kept on request (`wrong_checksum: II`).
- Missing samples are counted (`nan_samples: 120`); a lead without any sample, and one that never changes, is named
  (`nan_lead: V3`, `flat_lead: V2`). Nothing is filled in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.readers.wfdb_checks import check_segments, frames_of, wrong_checksums
from datasets_scripts.readers.wfdb_header import SignalLine, WFDBHeader, parse_header
from datasets_scripts.readers.wfdb_signals import NAN_OF_FORMAT, read_signals
from datasets_scripts.records import DIGITAL_NAN, ECGRecord, digital_to_millivolt

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
WRONG_CHECKSUM_CHOICES = ("reject", "keep")
EXACT_IN_FLOAT32 = 2**24  # offsets up to here are the same number in float32
HIDDEN_AGE, OVER_89 = 300, 90  # PTB-XL (and its copy in the Challenge sets) writes 300 for every age above 89


def read_wfdb_record(path: Path, on_wrong_checksum: str = "reject") -> ECGRecord:
    """The record of a WFDB header, given by its path with `.hea`, `.dat`, `.mat` or no extension.

    `on_wrong_checksum="keep"` keeps leads whose samples are not those that were written, and names them in `repairs`.
    Raises FileNotFoundError or ValueError, each with one sentence: expected, got, what to do.
    """
    if on_wrong_checksum not in WRONG_CHECKSUM_CHOICES:
        raise ValueError(
            f"on_wrong_checksum: expected one of {', '.join(WRONG_CHECKSUM_CHOICES)}, got {on_wrong_checksum!r}"
        )
    header = parse_header(header_path(path))
    lines = _lead_lines(header)
    kept = [index for index, line in enumerate(lines) if _is_voltage(line)]
    if not kept:
        names = ", ".join(line.name for line in lines)
        raise ValueError(f"{header.path}: expected at least one lead in mV, got only other signals: {names}")
    leads = tuple(lines[index].name for index in kept)
    read = _read_segments if header.segments else _read_one_segment
    stored, wrong = read(header, kept, on_wrong_checksum)
    repairs = [f"left_out_channel: {lines[index].name}" for index in sorted(set(range(len(lines))) - set(kept))]
    repairs += wrong + missing_and_flat(stored.get("digital", stored["signal"]), leads)
    metadata = {"record_id": header.path.stem, **metadata_of_comments(header.comments)}
    return ECGRecord(leads=leads, sampling_rate=header.sampling_rate, repairs=tuple(repairs), **stored, **metadata)


def missing_and_flat(stored: np.ndarray, leads: Sequence[str]) -> list[str]:
    """What `repairs` says of samples that are not there and of leads that never change, in the order of the leads.

    `stored (num_leads, num_samples)`: int16 with -32768 for "no sample", or float32 with NaN.

    >>> missing_and_flat(np.array([[1, -32768, 2], [3, 3, -32768], [-32768] * 3], np.int16), ["I", "II", "V3"])
    ['nan_samples: 5', 'flat_lead: II', 'nan_lead: V3']
    """
    low, high = stored.min(axis=1), stored.max(axis=1)  # NaN, or the sentinel, where a sample is missing
    gaps = np.flatnonzero(low == DIGITAL_NAN if stored.dtype == np.int16 else np.isnan(low)).tolist()
    flat = low == high if stored.shape[1] > 1 else np.zeros(len(leads), bool)
    missing, remarks = 0, {int(index): f"flat_lead: {leads[index]}" for index in np.flatnonzero(flat)}
    for index in gaps:
        row = stored[index]
        present = row[row != DIGITAL_NAN] if stored.dtype == np.int16 else row[~np.isnan(row)]
        missing += row.size - present.size
        remarks.pop(index, None)
        if present.size == 0:
            remarks[index] = f"nan_lead: {leads[index]}"
        elif present.size > 1 and present.min() == present.max():
            remarks[index] = f"flat_lead: {leads[index]}"
    counted = [f"nan_samples: {missing}"] if missing else []
    return counted + [remarks[index] for index in sorted(remarks)]


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
        f"{path.suffix or 'a file without extension'}; give the path of its header"
    )


def metadata_of_comments(comments: tuple[str, ...]) -> dict[str, Any]:
    """`age`, `sex` and `labels` of a header's comments, as the PhysioNet/CinC Challenge sets write them."""
    text = "\n".join(comments)
    age, sex = _comment(text, "age"), (_comment(text, "sex") or "").lower()
    codes = re.split(r"[,\s]+", _comment(text, "dx", whole_line=True) or "")
    return {
        "age": _age(age),
        "sex": {"m": "male", "male": "male", "f": "female", "female": "female"}.get(sex),
        "labels": tuple(dict.fromkeys(code for code in codes if code.isdigit())),
    }


def _comment(text: str, key: str, whole_line: bool = False) -> str | None:
    """What the first comment `key: value` or `<key>: value` says; `text` has one comment in each line."""
    value = r"([^<#\n]*)" if whole_line else r"([^\s<#,]+)"
    match = re.search(rf"(?:^|[ \t<]){key}>?[ \t]*:[ \t]*{value}", text, re.IGNORECASE | re.MULTILINE)
    return match[1] if match else None


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


def _is_voltage(line: SignalLine) -> bool:
    other_unit = line.unit is not None and line.unit.lower() in OTHER_UNITS
    return not other_unit and not OTHER_SIGNALS.match(line.name)


def _millivolt_per_unit(path: Path, line: SignalLine) -> float:
    if line.unit is None:
        return 1.0
    if line.unit not in MILLIVOLT_PER_UNIT:
        raise ValueError(
            f"{path}: expected lead {line.name} in one of {', '.join(MILLIVOLT_PER_UNIT)}, got unit {line.unit!r}; "
            f"correct the header"
        )
    return MILLIVOLT_PER_UNIT[line.unit]


def _read_one_segment(
    header: WFDBHeader, kept: list[int], on_wrong_checksum: str
) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """What is stored of the kept leads (`signal`, or `digital`, `gain` and `offset`), and `repairs` for wrong ones."""
    lines = [header.signals[index] for index in kept]
    scale = np.array([_millivolt_per_unit(header.path, line) for line in lines])
    num_samples = frames_of(header)
    rows = read_signals(header, num_samples)
    wrong = _wrong_leads(header, rows, on_wrong_checksum)
    if len(kept) < len(rows) or any(line.skew or line.samples_per_frame > 1 for line in lines):
        rows = [_frame_means(_shifted(rows[index], line), line) for index, line in zip(kept, lines, strict=True)]
    gain, offset = np.array([line.gain for line in lines]) / scale, np.array([float(line.baseline) for line in lines])
    return _calibrated(np.stack(rows) if isinstance(rows, list) else rows, lines, gain, offset), wrong


def _wrong_leads(header: WFDBHeader, rows: Sequence[np.ndarray], on_wrong_checksum: str) -> list[str]:
    """`repairs` for leads with a wrong checksum; ValueError for the first one unless they are to be kept."""
    sentences = wrong_checksums(header, rows)
    leads = [index for index in sentences if _is_voltage(header.signals[index])]
    if leads and on_wrong_checksum == "reject":
        raise ValueError(sentences[leads[0]])
    return [f"wrong_checksum: {header.signals[index].name}" for index in leads]


def _shifted(row: np.ndarray, line: SignalLine) -> np.ndarray:
    """The samples of a signal that the file holds `skew` frames late; at the end there are none (header(5))."""
    late = line.skew * line.samples_per_frame
    if late == 0:
        return row
    wide = row.astype(np.int64)
    return np.append(wide[late:], np.full(late, NAN_OF_FORMAT.get(line.fmt, DIGITAL_NAN)))


def _frame_means(row: np.ndarray, line: SignalLine) -> np.ndarray:
    """The mean of every frame as an integer, cut towards zero as `wfdb` does; missing where one sample is missing."""
    if line.samples_per_frame == 1:
        return row
    frames = row.reshape(-1, line.samples_per_frame)
    means = np.trunc(frames.sum(axis=1, dtype=np.int64) / line.samples_per_frame).astype(np.int64)
    absent = NAN_OF_FORMAT.get(line.fmt)
    return means if absent is None else np.where((frames == absent).any(axis=1), absent, means)


def _calibrated(
    integers: np.ndarray, lines: list[SignalLine], gain: np.ndarray, offset: np.ndarray
) -> dict[str, np.ndarray | None]:
    """Integers `(leads, samples)` as int16 with gain and offset where they fit, else as float32 mV."""
    exact = np.abs(offset).max() <= EXACT_IN_FLOAT32
    if exact and integers.dtype == np.int16 and all(line.fmt == "16" for line in lines):
        return {"signal": None, "digital": integers, "gain": gain, "offset": offset}  # its sentinel is DIGITAL_NAN
    absent = np.stack([row == NAN_OF_FORMAT.get(line.fmt) for row, line in zip(integers, lines, strict=True)])
    present = np.where(absent, 0, integers)
    if exact and present.min() > DIGITAL_NAN and present.max() <= np.iinfo(np.int16).max:
        digital = np.where(absent, DIGITAL_NAN, integers).astype(np.int16)
        return {"signal": None, "digital": digital, "gain": gain, "offset": offset}
    signal = np.where(absent, np.nan, (integers - offset[:, None]) / gain[:, None])
    return {"signal": signal.astype(np.float32)}


def _read_segments(
    header: WFDBHeader, kept: list[int], on_wrong_checksum: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """`signal` of a record in several segments, NaN where there is none, and `repairs` for leads with wrong checksums.

    With a layout segment the others hold some of its leads, known by name; without one they all hold the same leads.
    """
    headers = {segment.path.stem: segment for segment in check_segments(header)}
    lines = _lead_lines(header)
    leads = [lines[index].name for index in kept]
    signal = np.full((len(kept), sum(length for _, length in header.segments)), np.nan, np.float32)
    start, wrong = 0, []
    for name, length in header.segments:
        segment = headers.get(name)
        own = [index for index, line in enumerate(segment.signals) if _is_voltage(line)] if segment else []
        if own:
            rows = _rows_of(segment, [segment.signals[index].name for index in own], leads)
            stored, remarks = _read_one_segment(segment, own, on_wrong_checksum)
            signal[rows, start : start + length] = _millivolt(stored)
            wrong += remarks
        start += length
    return {"signal": signal}, list(dict.fromkeys(wrong))


def _rows_of(segment: WFDBHeader, names: list[str], leads: list[str]) -> list[int]:
    """Which of the record's `leads` the segment's `names` are. ValueError where that is not plain."""
    if names == leads:
        return list(range(len(leads)))
    if len(set(names)) < len(names) or len(set(leads)) < len(leads) or not set(names) <= set(leads):
        raise ValueError(
            f"{segment.path}: expected leads among those of the whole record, {', '.join(leads)}, each once, "
            f"got {', '.join(names)}"
        )
    return [leads.index(name) for name in names]


def _millivolt(stored: dict[str, np.ndarray | None]) -> np.ndarray:
    if stored["signal"] is not None:
        return stored["signal"]
    return digital_to_millivolt(stored["digital"], stored["gain"], stored["offset"])
