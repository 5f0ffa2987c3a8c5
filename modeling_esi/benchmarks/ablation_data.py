"""The records of the ablation, in memory: PTB-XL that went through one filter, whole patients apart.

Choices are made on folds 7-8 alone; folds 1-2 and 9-10 judge what was chosen. Records of folds 9-10 are at hand raw, so
they go through the filter of the others first (`filter_and_standardise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
import torch

from datasets_scripts import ptb_xl
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import iter_records
from modeling_esi.evaluation.zero_shot import label_matrix
from modeling_esi.feature_extraction_esi import ESIFeatureExtractor

SAMPLING_RATE = 100
SUPERCLASSES = ("CD", "HYP", "MI", "NORM", "STTC")
STAGES = {  # folds that train, folds that judge
    "choose": ((1, 2, 3, 4, 5, 6), (7, 8)),
    "confirm": ((3, 4, 5, 6, 7, 8), (1, 2)),
    "report": ((1, 2, 3, 4, 5, 6, 7, 8), (9, 10)),
}


@dataclass(frozen=True)
class RecordSet:
    """Records of one split.

    Attributes:
        signals: `(N, 12, S)` float32 at 100 Hz, z-scores per lead, in the model's order of leads.
        records: the same N, without their signals in use; `text` is the template over the statements.
        targets: `(N, 5)` bool, the superclasses in the order of `SUPERCLASSES`.
    """

    signals: torch.Tensor
    records: tuple[ECGRecord, ...]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def patients(self) -> list[str]:
        """The patient of each record; a record without one is its own."""
        return [record.patient_id or f"record {record.record_id}" for record in self.records]

    def __add__(self, other: RecordSet) -> RecordSet:
        signals = torch.cat([self.signals, other.signals])
        return RecordSet(signals, self.records + other.records, np.concatenate([self.targets, other.targets]))


def load_filtered(data_dir: str | PathLike[str], folds: Sequence[int]) -> RecordSet:
    """Records of folds of a folder whose signals are filtered already, with a label and a statement each."""
    records = iter_records(ptb_xl, data_dir, sampling_rate=SAMPLING_RATE, folds=folds, labelled_only=True)
    return record_set(list(records))


def load_raw(data_dir: str | PathLike[str], folds: Sequence[int]) -> RecordSet:
    """Records of folds of PTB-XL as published, at 500 Hz, put through the filter here."""
    records = iter_records(ptb_xl, data_dir, sampling_rate=500, folds=folds, labelled_only=True)
    made = [
        replace(
            record,
            signal=filter_and_standardise(record.signal, record.sampling_rate),
            digital=None, gain=None, offset=None, sampling_rate=SAMPLING_RATE,
        )
        for record in records
    ]  # fmt: skip
    return record_set(made)


def record_set(records: Sequence[ECGRecord]) -> RecordSet:
    """Signals through the door, without scaling, and the template as each record's text.

    Raises ValueError for no records, and as the door does.
    """
    if not records:
        raise ValueError("records: expected at least one, got none: is it the right folder, are these its folds?")
    door = ESIFeatureExtractor(sampling_rate=SAMPLING_RATE, scaling="none")
    signals = door(list(records))["input_values"]
    told = tuple(replace(r, text=findings_text(r.statements, r.age, r.sex)) for r in records)
    return RecordSet(signals, told, label_matrix([record.labels for record in records], SUPERCLASSES))


def filter_and_standardise(signal: np.ndarray, sampling_rate: float) -> np.ndarray:
    """4th-order Butterworth 0.5-40 Hz forwards and backwards, z-score per lead, then 100 Hz.

    Args:
        signal: `(leads, samples)` in mV, without NaN.
        sampling_rate: in Hz; a whole multiple of 100.

    Raises:
        ValueError: for another rate.
    """
    import scipy.signal

    if sampling_rate % SAMPLING_RATE:
        raise ValueError(f"sampling_rate: expected a multiple of {SAMPLING_RATE} Hz, got {sampling_rate:g}.")
    band = scipy.signal.butter(4, np.array([0.5, 40]) * 2 / sampling_rate, btype="bandpass", output="sos")
    filtered = scipy.signal.sosfiltfilt(band, np.asarray(signal, np.float64), axis=1)
    spread = filtered.std(axis=1, keepdims=True)
    standard = (filtered - filtered.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return scipy.signal.resample_poly(standard, 1, int(sampling_rate) // SAMPLING_RATE, axis=1).astype(np.float32)
