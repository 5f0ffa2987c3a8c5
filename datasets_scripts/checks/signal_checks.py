"""What a preparation tells about one record's signal: quick looks at the stored integers, nothing is changed.

Each function takes one record and works on its integers where it has them, else on its float32 mV.
"""

from __future__ import annotations

import hashlib

import numpy as np

from datasets_scripts.checks.lead_statistics import LeadStatistics
from datasets_scripts.checks.leads import canonical_lead
from datasets_scripts.checks.limb_leads import limb_lead_notices
from datasets_scripts.records import DIGITAL_NAN, ECGRecord

__all__ = ["LeadStatistics", "looks_z_scored", "no_signal", "notices", "padding", "signal_hash"]

EDGE = 0.5  # seconds at either end that do not tell recordings apart, at most a twentieth of the recording
SHORTEST_PADDING = 0.1  # seconds
_Z_SCORE_MEAN, _Z_SCORE_DEVIATION = 0.01, 0.02


def signal_hash(record: ECGRecord) -> str:
    """32 hex digits, equal for records with the same samples, lead names, gain, offset and rate: one recording twice.

    Lead names count in canonical spelling, and the order of the leads does not count. The first and last half second
    (or twentieth, if that is less) are left out: PTB-XL's duplicates 137 = 138 and 143 = 144 are equal at 500 Hz but
    differ in the last 0.2 s at 100 Hz, where resampling saw what came after. Integers and the float32 mV of the same
    recording have different hashes. SHA-256, cut to 128 bits.
    """
    stored, edge = record.stored, _edge(record)
    digest = hashlib.sha256(f"{stored.dtype.kind} {record.num_samples} {record.sampling_rate!r}".encode())
    names = [canonical_lead(name) for name in record.leads]
    for i in sorted(range(len(names)), key=names.__getitem__):
        digest.update(f"|{names[i]}|".encode())
        row = stored[i, edge : record.num_samples - edge]
        if record.digital is None:
            digest.update(_canonical_floats(row))
        else:
            digest.update(_canonical_floats(np.array([record.gain[i], record.offset[i]])))
            digest.update(np.ascontiguousarray(row, dtype="<i2"))
    return digest.hexdigest()[:32]


def _edge(record: ECGRecord) -> int:
    return int(min(EDGE * record.sampling_rate, record.num_samples / 20))


def _canonical_floats(values: np.ndarray) -> np.ndarray:
    """Little-endian float32 with one zero and one NaN."""
    values = (values + np.float32(0)).astype("<f4", copy=False)
    absent = np.isnan(values)
    if absent.any():
        values[absent] = np.nan
    return values


def no_signal(record: ECGRecord) -> str | None:
    """Why nothing can be learnt from a record, or None: infinite values, or no lead that moves."""
    if record.digital is None and np.isinf(record.signal).any():
        return "infinite values in the signal"
    if any(_moves(row) for row in record.stored):
        return None
    return "every lead is flat or missing (NaN)"


def _moves(row: np.ndarray) -> bool:
    lowest, highest = row.min(), row.max()
    if np.isnan(lowest) or (row.dtype.kind == "i" and lowest == DIGITAL_NAN):
        row = row[~np.isnan(row) if row.dtype.kind == "f" else row != DIGITAL_NAN]
        return row.size > 0 and bool(row.max() > row.min())
    return bool(highest > lowest)


def looks_z_scored(record: ECGRecord) -> bool:
    """Whether every lead has mean 0 (within 0.01) and standard deviation 1 (within 0.02): amplitudes are then lost.

    Leads of constant 0 are passed over, since z-scoring makes nothing else of a flat lead; one lead must be left.
    """
    found = False
    for i, row in enumerate(record.stored):
        mean, deviation = _mean_and_deviation(record, i, row)
        if mean == deviation == 0:
            continue
        if not (abs(mean) <= _Z_SCORE_MEAN and abs(deviation - 1) <= _Z_SCORE_DEVIATION):
            return False
        found = True
    return found


def _mean_and_deviation(record: ECGRecord, i: int, row: np.ndarray) -> tuple[float, float]:
    """In mV, over the samples that are there; NaN if there is none."""
    present = row[row != DIGITAL_NAN] if record.digital is not None else row[np.isfinite(row)]
    if not present.size:
        return np.nan, np.nan
    mean, deviation = float(present.mean(dtype=np.float64)), float(present.std(dtype=np.float64))
    if record.digital is None:
        return mean, deviation
    return (mean - float(record.offset[i])) / float(record.gain[i]), deviation / abs(float(record.gain[i]))


def padding(record: ECGRecord) -> tuple[int, int]:
    """How many samples at the start and at the end are exactly zero in all leads, as zero-padding leaves them.

    Zero is the integer 0, or 0 mV. Runs of 0.1 s or less count as none. A record of nothing else is all leading.
    """
    zeros = [0.0] if record.offset is None or not record.offset.any() else [0.0, record.offset]
    stored, shortest = record.stored, SHORTEST_PADDING * record.sampling_rate
    leading = max(_run_length(stored, zero) for zero in zeros)
    trailing = max(_run_length(stored[:, ::-1], zero) for zero in zeros) if leading < record.num_samples else 0
    return (leading if leading > shortest else 0), (trailing if trailing > shortest else 0)


def _run_length(stored: np.ndarray, zero: float | np.ndarray) -> int:
    """Samples from the start at which every lead is at `zero`, a number or one per lead."""
    if (stored[:, 0] != zero).any():
        return 0
    other = (stored != np.reshape(zero, (-1, 1))).any(axis=0)
    return int(other.argmax()) if other.any() else stored.shape[1]


def notices(record: ECGRecord) -> dict[str, str]:
    """What a preparation reports about a record without mending it: kind -> detail, both in plain words."""
    found = limb_lead_notices(record)
    if looks_z_scored(record):
        found["z-scored leads"] = "every lead has mean 0 and standard deviation 1: its amplitude in mV is lost"
    leading, trailing = padding(record)
    if leading or trailing:
        found["zero padding"] = f"{leading} leading and {trailing} trailing samples"
    return found
