"""A record's typical beat, coarse and quick: enough to see which way its waves point, not to measure them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets_scripts.checks.leads import LEADS, distinct_leads
from datasets_scripts.records import ECGRecord, digital_to_millivolt

RATE = 100.0  # Hz: every k-th sample is looked at; aliasing moves peaks by less than the rules' margins
LEAST_RATE = 50.0  # Hz: below it a QRS complex is four samples or fewer
LONGEST = 20.0  # seconds
BEFORE, AFTER = 0.30, 0.45  # seconds around the QRS complex
REFRACTORY = 0.30  # seconds from one QRS complex to the next, at least
_QRS_WIDTH = 0.08  # seconds
_LEAST_BEATS = 3


@dataclass(frozen=True)
class MedianBeat:
    """`signal (num_leads, samples)` in mV, `leads` its rows' canonical names, `sampling_rate` in Hz."""

    signal: np.ndarray
    leads: tuple[str, ...]
    sampling_rate: float

    def part(self, lead: str, start: float, end: float) -> np.ndarray:
        """The samples of a lead from `start` to `end`, in seconds after the middle of the QRS complex."""
        first, last = (round((BEFORE + time) * self.sampling_rate) for time in (start, end))
        return self.signal[self.leads.index(lead), first:last]


def excerpt(record: ECGRecord, rows: Sequence[int], step: int, num_samples: int | None = None) -> np.ndarray:
    """Every `step`-th of the first `num_samples` samples of some leads, float32 mV, NaN where there is none."""
    stored = record.stored[:, :num_samples:step][list(rows)]
    if record.digital is None:
        return stored
    return digital_to_millivolt(stored, record.gain[list(rows)], record.offset[list(rows)])


def median_beat(record: ECGRecord) -> MedianBeat | None:
    """The median over the beats of the first 20 s, of the record's leads that are among the twelve.

    None where fewer than three beats are found, or below 50 Hz. A beat is where the leads together change fastest.
    """
    if record.sampling_rate < LEAST_RATE:
        return None
    names = distinct_leads(record.leads)
    rows = [i for i, name in enumerate(names) if name in LEADS]
    step = max(1, round(record.sampling_rate / RATE))
    rate = record.sampling_rate / step
    signal = np.nan_to_num(excerpt(record, rows, step, round(LONGEST * record.sampling_rate)), posinf=0.0, neginf=0.0)
    before, after = round(BEFORE * rate), round(AFTER * rate)
    beats = [i for i in _beats(signal, rate) if before <= i <= signal.shape[1] - after]
    if len(beats) < _LEAST_BEATS:
        return None
    windows = np.stack([signal[:, i - before : i + after] for i in beats])  # (beats, leads, samples)
    return MedianBeat(np.median(windows, axis=0), tuple(names[i] for i in rows), rate)


def _beats(signal: np.ndarray, rate: float) -> list[int]:
    """Middles of the QRS complexes: the highest peaks of the leads' summed slopes, none close to a higher one."""
    width = max(1, round(_QRS_WIDTH * rate))
    slope = np.abs(np.diff(signal, axis=1)).sum(axis=0)
    if slope.size <= width:
        return []
    slope = np.convolve(slope, np.ones(width) / width, "same")
    inner = slope[1:-1]
    is_peak = (inner >= slope[:-2]) & (inner > slope[2:]) & (inner > 0.4 * np.percentile(slope, 98))
    peaks = np.flatnonzero(is_peak) + 1
    chosen: list[int] = []
    for peak in peaks[np.argsort(-slope[peaks], kind="stable")].tolist():
        if all(abs(peak - other) > REFRACTORY * rate for other in chosen):
            chosen.append(peak)
    return chosen
