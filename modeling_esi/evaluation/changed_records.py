"""Recordings changed in one way at a time: which changes there are, and the embeddings of changed records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord

from .embedding import ecg_vectors, evaluation_mode, window_length
from .perturbations import LEAD_SETS, NOISES, add_noise, change_rate, keep_leads, lead_origins, shorten

if TYPE_CHECKING:
    import datasets

GROUPS = ("leads", "noise", "sampling_rate", "duration")
SNRS = (24.0, 18.0, 12.0, 6.0, 0.0)  # dB
RATES = (100.0, 250.0, 500.0, 1000.0)  # Hz
DURATIONS = (2.5, 5.0, 7.5, 10.0)  # seconds

Change = Callable[[ECGRecord], ECGRecord]


@dataclass(frozen=True)
class Condition:
    """One change of all records.

    Attributes:
        group: `"clean"` or one of `GROUPS`.
        kind: which of the group: a kind of noise; elsewhere the group's name.
        value: number of leads, dB, Hz or seconds.
        unit: of the value.
        change: what is done to a record.
        detail: what the door makes of it.
    """

    group: str
    kind: str
    value: float
    unit: str
    change: Change
    detail: str = ""

    @property
    def key(self) -> str:
        """Such as `noise/white/24dB`; `clean`."""
        if self.group == "clean":
            return "clean"
        kind = f"{self.kind}/" if self.kind != self.group else ""
        return f"{self.group}/{kind}{self.value:g}{self.unit}"


def conditions(
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
    lead_sets: Mapping[str, tuple[str, ...]] = LEAD_SETS,
    noises: Sequence[str] = NOISES,
    snrs: Sequence[float] = SNRS,
    rates: Sequence[float] = RATES,
    durations: Sequence[float] = DURATIONS,
) -> Iterator[Condition]:
    """The unchanged records first, then every change of these groups. ValueError for a group that is none."""
    if unknown := [group for group in groups if group not in GROUPS]:
        raise ValueError(f"changes: expected some of {', '.join(GROUPS)}, got {', '.join(unknown)}.")
    yield Condition("clean", "clean", 0.0, "", _unchanged)
    if "leads" in groups:
        for leads in lead_sets.values():
            yield Condition("leads", "leads", len(leads), "", partial(keep_leads, leads=leads), _said_of_leads(leads))
    if "noise" in groups:
        for kind in noises:
            for snr in snrs:
                yield Condition("noise", kind, snr, "dB", partial(add_noise, kind=kind, snr_db=snr, seed=seed))
    if "sampling_rate" in groups:
        for rate in rates:
            change = partial(change_rate, sampling_rate=rate)
            yield Condition("sampling_rate", "sampling_rate", rate, "Hz", change, "resampled by the door")
    if "duration" in groups:
        for seconds in durations:
            yield Condition("duration", "duration", seconds, "s", partial(shorten, duration=seconds), "padded, masked")


def embed_changed(
    model: nn.Module,
    feature_extractor: Any,
    dataset: datasets.Dataset,
    change: Change,
    batch_size: int = 64,
    device: Any = None,
    progress: str | None = None,
    layer: str = "projected",
    window: float | None = None,
) -> np.ndarray:
    """The ECG embeddings of changed records, `(N, P)` float32 in the data set's order.

    A record that cannot be changed so, or that the door refuses afterwards, has a row of NaN: `refusal` tells why.

    Args:
        model, feature_extractor, dataset, batch_size, device, layer, window: as in `embedding.embed_ecgs`.
        change: of one record.
        progress: what the progress bar is called; None: no bar.
    """
    from tqdm.auto import tqdm

    device = device if device is not None else next(model.parameters()).device
    reader = RecordReader(dataset)
    length = window_length(window, feature_extractor)
    embeds: np.ndarray | None = None
    with evaluation_mode(model), tqdm(total=len(dataset), desc=progress, disable=progress is None) as bar:
        for start in range(0, len(dataset), batch_size):
            numbers = range(start, min(start + batch_size, len(dataset)))
            kept, inputs = _through_the_door(reader, numbers, change, feature_extractor, device)
            if kept:
                some = ecg_vectors(model, inputs, layer, length).float().cpu().numpy()
                if embeds is None:
                    embeds = np.full((len(dataset), some.shape[1]), np.nan, np.float32)
                embeds[kept] = some
            bar.update(len(numbers))
    return np.full((len(dataset), 1), np.nan, np.float32) if embeds is None else embeds


def refusal(record: ECGRecord, change: Change, feature_extractor: Any) -> str | None:
    """Why a changed record cannot be embedded; None where it can."""
    try:
        return feature_extractor.reject_reason(change(record))
    except ValueError as error:
        return str(error)


# ----- steps ---------------------------------------------------------------------------------------------------------


def _unchanged(record: ECGRecord) -> ECGRecord:
    return record


def _said_of_leads(leads: Sequence[str]) -> str:
    origins = lead_origins(leads)
    parts = [f"recorded {' '.join(leads)}"]
    for origin in ("derived", "masked"):
        if names := [lead for lead, found in origins.items() if found == origin]:
            parts.append(f"{origin} {' '.join(names)}")
    return "; ".join(parts)


def _through_the_door(
    reader: RecordReader, numbers: range, change: Change, feature_extractor: Any, device: Any
) -> tuple[list[int], dict[str, Any]]:
    """The numbers of those records that can be changed and read, and their inputs."""
    records = reader.records(numbers)
    try:
        return list(numbers), feature_extractor([change(record) for record in records], device=device)
    except ValueError:  # some cannot be: which ones, each is asked
        readable = [refusal(record, change, feature_extractor) is None for record in records]
    kept = [number for number, fine in zip(numbers, readable, strict=True) if fine]
    changed = [change(record) for record, fine in zip(records, readable, strict=True) if fine]
    return kept, feature_extractor(changed, device=device) if kept else {}
