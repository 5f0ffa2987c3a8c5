"""What a recording is compared with: an index of `modeling_esi.search`, or synthetic recordings made at the start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from datasets_scripts.records import ECGRecord
from datasets_scripts.synthetic import generate_record
from modeling_esi.evaluation.embedding import evaluation_mode
from modeling_esi.search.index import ECGIndex

NUM_SYNTHETIC = 160
FIRST_SEED = 1_000_000  # far from the seeds that people type
SAMPLE = 2000  # recordings of an index that a score is compared with
_AT_ONCE = 32


@dataclass(frozen=True)
class Neighbour:
    """A recording that is near: cosine of the embeddings, what its report says or which labels it has, whose it is."""

    similarity: float
    text: str
    patient: str


class Archive(Protocol):
    """Recordings to compare with."""

    #: What they are, in words.
    name: str

    def nearest(self, record: ECGRecord, k: int) -> list[Neighbour]:
        """The `k` recordings nearest to this one, best first. Raises ValueError where the door refuses it."""

    def sample(self) -> np.ndarray:
        """`(N, P)` float32 embeddings of some of them, of length 1."""


class SyntheticArchive:
    """Synthetic recordings with their reports, embedded when this is made.

    Args:
        model, processor: an `ESIModel` and its `ESIProcessor`.
        num_records: how many.
    """

    def __init__(self, model: nn.Module, processor: Any, num_records: int = NUM_SYNTHETIC) -> None:
        self._model, self._door = model, processor.feature_extractor
        self.name = f"{num_records} synthetic recordings"
        seeds = range(FIRST_SEED, FIRST_SEED + num_records)
        settings = {"sampling_rate": max(self._door.sampling_rate, 100), "duration": max(self._door.duration, 5.0)}
        records = [generate_record(seed, **settings) for seed in seeds]
        parts = [self._embed(records[start : start + _AT_ONCE]) for start in range(0, num_records, _AT_ONCE)]
        self._embeds = np.concatenate(parts)
        self._told = [(record.report, _whose(record.age, record.sex)) for record in records]

    def nearest(self, record: ECGRecord, k: int) -> list[Neighbour]:
        """As `Archive`."""
        similarity = self._embeds @ self._embed([record])[0]
        return [Neighbour(float(similarity[row]), *self._told[row]) for row in np.argsort(-similarity)[:k]]

    def sample(self) -> np.ndarray:
        """As `Archive`: all of them."""
        return self._embeds

    def _embed(self, records: list[ECGRecord]) -> np.ndarray:
        inputs = self._door(records, device=next(self._model.parameters()).device, return_tensors="pt")
        with evaluation_mode(self._model):
            return self._model.get_ecg_features(**inputs).float().cpu().numpy()


class IndexArchive:
    """An index of one's own archive. Raises OSError or ValueError for a folder that is none, or of another model.

    Args:
        folder: what `python -m modeling_esi.search build` wrote.
        model, processor: those that it was built with.
    """

    def __init__(self, folder: str | os.PathLike[str], model: nn.Module, processor: Any) -> None:
        self._index = ECGIndex.load(folder, (model, processor))
        self._index.embed_texts(["ECG"])  # another model than the index's is refused now, not at the first recording
        self.name = f"the {len(self._index):,} recordings of the index"

    def nearest(self, record: ECGRecord, k: int) -> list[Neighbour]:
        """As `Archive`."""
        hits = self._index.query(ecg=record, k=k)
        return [Neighbour(hit.score, *_told(hit.record_id, hit.metadata)) for hit in hits]

    def sample(self) -> np.ndarray:
        """As `Archive`: at most 2,000, evenly over the index."""
        step = -(-len(self._index) // SAMPLE)
        return np.asarray(self._index.embeddings[::step], dtype=np.float32)


def _told(record_id: str, metadata: dict[str, Any]) -> tuple[str, str]:
    words = metadata.get("text") or ", ".join(metadata.get("labels") or ()) or f"recording {record_id}"
    return " ".join(words.split()), _whose(metadata.get("age"), metadata.get("sex"))


def _whose(age: float | None, sex: str | None) -> str:
    return ", ".join([*([] if sex is None else [sex]), *([] if age is None else [f"{age:.0f} years"])])
