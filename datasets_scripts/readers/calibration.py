"""Integers of a recorder become a record: units, limits, and the int16 in which a record keeps what was read.

Every reader of a file format ends here, so that all records follow the same rules: `mV = (digital - offset) / gain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.records import DIGITAL_NAN, ECGRecord

MAX_VALUES = 2**27  # leads times samples: 3 leads over 4 days at 128 Hz
MAX_LEADS = 256
SAMPLING_RATES = (1.0, 100_000.0)  # Hz; outside of it a header is wrong
MILLIVOLT_PER_STEP = (1e-9, 1e3)  # of one integer step
_INT16 = np.iinfo(np.int16)
_MICRO = ("u", "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}")
_SYMBOLS = {"V": 1e3, "mV": 1.0, "mv": 1.0, "nV": 1e-6, "nv": 1e-6, "UV": 1e-3}  # not "MV", which might be mega
_SYMBOLS |= {micro + volt: 1e-3 for micro in _MICRO for volt in "Vv"}
_WORDS = {"volt": 1e3, "millivolt": 1.0, "microvolt": 1e-3, "nanovolt": 1e-6}


def voltage_unit(unit: str) -> float | None:
    """Millivolts of one `unit`, None where it is no voltage.

    >>> voltage_unit("uV"), voltage_unit("MICROVOLTS"), voltage_unit("mmHg")
    (0.001, 0.001, None)
    """
    unit = unit.strip()
    return _SYMBOLS.get(unit, _WORDS.get(unit.lower().removesuffix("s")))


def millivolt_per_unit(path: Path, unit: str) -> float:
    """Millivolts of one `unit`. Raises ValueError for what is no voltage."""
    factor = voltage_unit(unit)
    if factor is None:
        raise ValueError(f"{path}: expected a unit such as mV, uV or V, got {unit[:20]!r}; units are never guessed")
    return factor


def checked_rate(path: Path, sampling_rate: float) -> float:
    """The sampling rate in Hz, rounded to a millionth. Raises ValueError for one that no recorder has."""
    low, high = SAMPLING_RATES
    if not low <= sampling_rate <= high:  # also for NaN
        raise ValueError(f"{path}: expected a sampling rate of {low:g} to {high:g} Hz, got {sampling_rate:g} Hz")
    return round(float(sampling_rate), 6)


def check_size(path: Path, num_leads: int, num_samples: int) -> None:
    """ValueError for sizes that no recording has; to be called before anything is allocated."""
    if not (1 <= num_leads <= MAX_LEADS and 1 <= num_samples and num_leads * num_samples <= MAX_VALUES):
        raise ValueError(
            f"{path}: announces {num_samples} samples of {num_leads} leads; expected 1 to {MAX_LEADS} leads and at "
            f"most {MAX_VALUES} values in one record: correct the file, or cut the recording into shorter records"
        )


def check_leads(path: Path, leads: Sequence[str]) -> None:
    """ValueError where one name stands for two leads, or a lead has no name."""
    if not all(leads) or len(set(leads)) < len(leads):
        names = ", ".join(name[:20] or "(no name)" for name in leads)
        raise ValueError(f"{path}: expected each lead once, with its name, got {names}; correct the file")


def record_of_integers(
    path: Path,
    integers: np.ndarray,
    gain: Sequence[float],
    offset: Sequence[float],
    leads: Sequence[str],
    sampling_rate: float,
    absent: np.ndarray | None = None,
    **metadata: Any,
) -> ECGRecord:
    """The record of integers `(num_leads, num_samples)`: int16 where they fit, if need be moved by a constant.

    `gain` (steps per mV) and `offset` for each lead; `absent`, of the shape of `integers`, is True where there is no
    sample. Integers that do not fit give float32 mV. `metadata` are other fields of `ECGRecord`. Raises ValueError.
    """
    gain, offset = np.asarray(gain, np.float64), np.asarray(offset, np.float64)
    _check_calibration(path, gain, offset)
    check_leads(path, leads)
    present = integers if absent is None else integers[~absent]
    low, high = (int(present.min()), int(present.max())) if present.size else (0, 0)
    shift = 0
    if not DIGITAL_NAN < low <= high <= _INT16.max and high - low < 2 * _INT16.max:
        shift = (low + high) // 2  # unsigned 16 bits: the middle becomes zero
    metadata |= {"record_id": path.stem}
    if DIGITAL_NAN < low - shift and high - shift <= _INT16.max:
        shifted = integers - np.int64(shift) if shift else integers
        digital = shifted if absent is None else np.where(absent, DIGITAL_NAN, shifted)
        return ECGRecord.from_digital(
            np.ascontiguousarray(digital, np.int16), gain, offset - shift, tuple(leads), sampling_rate, **metadata
        )
    signal = (integers - offset[:, None]) / gain[:, None]
    return record_of_millivolts(path, signal, leads, sampling_rate, absent, **metadata)


def record_of_millivolts(
    path: Path,
    signal: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    absent: np.ndarray | None = None,
    **metadata: Any,
) -> ECGRecord:
    """The record of float mV `(num_leads, num_samples)`, NaN for no sample. Raises ValueError for infinite values."""
    check_leads(path, leads)
    with np.errstate(over="ignore", invalid="ignore"):
        signal = np.array(signal, np.float32)
    if absent is not None:
        signal[absent] = np.nan
    if np.isinf(signal).any():
        raise ValueError(f"{path}: expected finite numbers (or NaN for no sample), got infinite ones; correct the file")
    return ECGRecord(signal, tuple(leads), sampling_rate, **metadata | {"record_id": path.stem})


def _check_calibration(path: Path, gain: np.ndarray, offset: np.ndarray) -> None:
    low, high = MILLIVOLT_PER_STEP
    for step in gain:
        if not (math.isfinite(step) and 1 / high <= abs(step) <= 1 / low):
            raise ValueError(f"{path}: expected {low:g} to {high:g} mV per integer step, got {step:g} steps per mV")
    if not np.all(np.abs(offset) < 2**31):  # also for NaN
        raise ValueError(f"{path}: expected a zero line within 32 bits, got {offset.tolist()}")
