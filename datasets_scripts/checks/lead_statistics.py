"""How the leads of a corpus look, summed up over shards and processes in any order with the same result to the bit.

Every record adds whole numbers only (nanovolts, counts), so that it does not matter which shard it was in, which worker
read it, or whether the work was interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from datasets_scripts.checks.leads import LEADS, distinct_leads
from datasets_scripts.records import DIGITAL_NAN, ECGRecord

BINS_PER_DECADE = 40  # of the peak-to-peak amplitude: neighbouring bins differ by 6 %
_BIN_RANGE = (-4 * BINS_PER_DECADE, 4 * BINS_PER_DECADE)  # 0.0001 mV to 10 V
_NANOVOLT = 1e6  # per mV
_LARGEST = 1e18  # nV: what lies beyond is no ECG, and would not fit 64 bits


@dataclass
class LeadSums:
    """What the records that have one lead add up to. Voltages in nV, whole; only records whose lead moves add them."""

    num_records: int = 0
    num_flat: int = 0
    num_empty: int = 0
    num_with_nan: int = 0
    num_samples: int = 0
    num_nan_samples: int = 0
    sum_of_means: int = 0
    sum_of_variances: int = 0
    minimum: int | None = None
    maximum: int | None = None
    amplitudes: Counter[int] = field(default_factory=Counter)

    @property
    def num_moving(self) -> int:
        """Records in which the lead is neither flat nor without any sample."""
        return self.num_records - self.num_flat - self.num_empty

    def add_moving(self, mean: int, deviation: int, lowest: int, highest: int, amplitude_bin: int) -> None:
        """Add a record's voltages in nV."""
        self.sum_of_means += mean
        self.sum_of_variances += deviation * deviation
        self._widen(lowest, highest)
        self.amplitudes[amplitude_bin] += 1

    def _widen(self, lowest: int | None, highest: int | None) -> None:
        if lowest is not None and highest is not None:
            self.minimum = lowest if self.minimum is None else min(self.minimum, lowest)
            self.maximum = highest if self.maximum is None else max(self.maximum, highest)

    def merge(self, other: Self) -> None:
        """Add what another part of the corpus added up."""
        for name, value in vars(other).items():
            if name not in ("minimum", "maximum"):
                setattr(self, name, getattr(self, name) + value)
        self._widen(other.minimum, other.maximum)

    def summary(self, num_all: int) -> dict[str, float]:
        """The lead in figures, see `LeadStatistics.summary`; `num_all` records are in the corpus."""
        counts = {
            "records": self.num_records,
            "missing": num_all - self.num_records,
            "flat": self.num_flat,
            "empty": self.num_empty,
            "with_nan": self.num_with_nan,
            "nan_share": self.num_nan_samples / max(1, self.num_samples),
        }
        if not self.num_moving or self.minimum is None or self.maximum is None:
            return counts
        return counts | {
            "mean": _millivolt(self.sum_of_means / self.num_moving),
            "standard_deviation": _millivolt((self.sum_of_variances / self.num_moving) ** 0.5),
            "minimum": _millivolt(self.minimum),
            "maximum": _millivolt(self.maximum),
            "median_peak_to_peak": round(_median_amplitude(self.amplitudes), 6),
        }


class LeadStatistics:
    """Statistics for each lead (canonical names) over the records added so far.

    >>> statistics = LeadStatistics()
    >>> statistics.add(ECGRecord(np.array([[0.0, 1.0, 0.0, 1.0]]), ("DII",), 100))
    >>> lead = statistics.summary()["II"]
    >>> lead["mean"], lead["standard_deviation"], lead["maximum"], statistics.summary()["V1"]["missing"]
    (0.5, 0.5, 1.0, 1)
    """

    def __init__(self) -> None:
        self.num_records = 0
        self.leads: dict[str, LeadSums] = {}

    def add(self, record: ECGRecord) -> None:
        """Add one record. All samples count; those that are NaN (or infinite) are no samples."""
        self.num_records += 1
        names = distinct_leads(record.leads)
        measured = _from_digital(record) if record.digital is not None else _from_millivolt(record.signal)
        num_present, (mean, deviation, lowest, highest) = measured
        moves = (num_present > 0) & (highest > lowest)
        bins = _amplitude_bins(highest - lowest, moves)
        voltages = _whole_nanovolt(np.stack([mean, deviation, lowest, highest], axis=1))  # one row per lead
        num_samples = record.num_samples
        for i, (name, present) in enumerate(zip(names, num_present.tolist(), strict=True)):
            lead = self._lead(name)
            lead.num_records += 1
            lead.num_samples += num_samples
            lead.num_nan_samples += num_samples - present
            lead.num_with_nan += present < num_samples
            if moves[i]:
                lead.add_moving(*voltages[i], bins[i])
            elif present:
                lead.num_flat += 1
            else:
                lead.num_empty += 1

    def _lead(self, name: str) -> LeadSums:
        if name not in self.leads:
            self.leads[name] = LeadSums()
        return self.leads[name]

    def merge(self, other: LeadStatistics) -> None:
        """Add the statistics of other records."""
        self.num_records += other.num_records
        for name, lead in other.leads.items():
            self._lead(name).merge(lead)

    def summary(self) -> dict[str, dict[str, float]]:
        """For each of the twelve leads, and every other one met: counts of records, and voltages in mV.

        `records` have the lead, `missing` have not; of those that have it, it is `flat` in some (one value), `empty` in
        some (no sample), and lacks samples in those `with_nan`; `nan_share` of its samples are missing. Over the
        records where it moves: `mean` of the records' means, `standard_deviation` about each record's own mean (root
        mean square over records), `minimum`, `maximum`, and `median_peak_to_peak` over records, known to 3 %.
        """
        others = sorted(set(self.leads) - set(LEADS))
        return {name: self.leads.get(name, LeadSums()).summary(self.num_records) for name in (*LEADS, *others)}

    def to_dict(self) -> dict[str, Any]:
        """The exact sums as JSON values, in an order that does not depend on the records'; `from_dict` reads them."""
        leads = {}
        for name, lead in sorted(self.leads.items()):
            leads[name] = asdict(lead) | {"amplitudes": {str(i): lead.amplitudes[i] for i in sorted(lead.amplitudes)}}
        return {"num_records": self.num_records, "leads": leads}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The statistics of `to_dict`'s values."""
        statistics = cls()
        statistics.num_records = values["num_records"]
        for name, sums in values["leads"].items():
            amplitudes = Counter({int(i): count for i, count in sums["amplitudes"].items()})
            statistics.leads[name] = LeadSums(**dict(sums) | {"amplitudes": amplitudes})
        return statistics

    @classmethod
    def merged(cls, parts: Iterable[LeadStatistics]) -> Self:
        """The statistics of all parts together, the same in whatever order they come."""
        statistics = cls()
        for part in parts:
            statistics.merge(part)
        return statistics


_Measured = tuple[np.ndarray, np.ndarray]  # samples there (L,); mean, deviation, lowest, highest in mV (4, L)


def _from_digital(record: ECGRecord) -> _Measured:
    """From the integers, with exact sums of 64 bits."""
    digital = record.digital
    present = np.full(record.num_leads, record.num_samples)
    lowest, highest = digital.min(axis=1).astype(np.float64), digital.max(axis=1).astype(np.float64)
    totals = digital.sum(axis=1, dtype=np.int64)
    squares = np.einsum("ij,ij->i", digital, digital, dtype=np.int64)
    for i in np.flatnonzero(lowest == DIGITAL_NAN):
        row = digital[i][digital[i] != DIGITAL_NAN].astype(np.int64)
        present[i], totals[i], squares[i] = row.size, row.sum(), (row * row).sum()
        lowest[i], highest[i] = (row.min(), row.max()) if row.size else (0, 0)
    mean = totals / np.maximum(present, 1)
    deviation = np.sqrt(np.maximum(squares / np.maximum(present, 1) - mean * mean, 0))
    gain, offset = record.gain.astype(np.float64), record.offset.astype(np.float64)
    ends = (np.stack([lowest, highest]) - offset) / gain  # a negative gain exchanges them
    return present, np.stack([(mean - offset) / gain, deviation / np.abs(gain), ends.min(axis=0), ends.max(axis=0)])


def _from_millivolt(signal: np.ndarray) -> _Measured:
    present = np.zeros(len(signal), np.int64)
    values = np.zeros((4, len(signal)))
    for i, row in enumerate(signal):
        row = row[np.isfinite(row)].astype(np.float64)
        present[i] = row.size
        if row.size:
            mean = row.mean()
            values[:, i] = mean, np.sqrt(np.mean((row - mean) ** 2)), row.min(), row.max()
    return present, values


def _whole_nanovolt(millivolt: np.ndarray) -> list[list[int]]:
    return np.clip(np.rint(millivolt * _NANOVOLT), -_LARGEST, _LARGEST).astype(np.int64).tolist()


def _amplitude_bins(peak_to_peak: np.ndarray, moves: np.ndarray) -> list[int]:
    decades = np.log10(np.where(moves, peak_to_peak, 1.0))
    return np.clip(np.floor(decades * BINS_PER_DECADE), *_BIN_RANGE).astype(np.int64).tolist()


def _median_amplitude(amplitudes: Counter[int]) -> float:
    """The geometric middle of the bin that holds the middle record, in mV."""
    reached, middle = 0, (amplitudes.total() + 1) // 2
    for index in sorted(amplitudes):
        reached += amplitudes[index]
        if reached >= middle:
            return 10 ** ((index + 0.5) / BINS_PER_DECADE)
    raise ValueError("amplitudes: expected at least one record whose lead moves, got none")


def _millivolt(nanovolt: float) -> float:
    return round(nanovolt / _NANOVOLT, 6)
