"""Seconds of a linear probe as large as PTB-XL, from cached embeddings to figures with intervals and subgroups.

Embeddings are random with a spectrum that falls as trained encoders' do; labels are as frequent as PTB-XL's 71 codes.
All that `linear_probe --fractions 1` does is run: the fits of model and floor over all strengths, thresholds, 1,000
resamples of patients, the figures of each subgroup.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from modeling_esi.benchmarks.measured import measured
from modeling_esi.evaluation import linear_probe
from modeling_esi.evaluation.context import EvaluationContext

NUM_RECORDS, WIDTH, NUM_CLASSES = 21_799, 1024, 71
FOLDS = {"train": 0.8, "validation": 0.1, "test": 0.1}
NUM_RESAMPLES = 1000
NUM_THREADS = 2


class EmbeddedRecords(EvaluationContext):
    """A context whose embeddings are there already: `embeds[role][split]`, arrays `(n, P)`."""

    embeds: dict[str, dict[str, np.ndarray]]

    def models(self) -> dict[str, tuple[Any, Any]]:
        return {role: (self.model, self.processor) for role in self.embeds}

    def ecg_embeds(
        self, split: str | None = None, role: str = "trained", layer: str = "projected", records: Any = None
    ) -> np.ndarray:
        return self.embeds[role][split or self.split]


def run(num_records: int | None = None, folder: str | None = None) -> Iterator[str]:
    """The table of the measurement, line by line; `folder` is not needed."""
    number = num_records or NUM_RECORDS
    found = measured(__name__, "probe_seconds", number, WIDTH, NUM_CLASSES)
    how = f"all labels, {NUM_THREADS} threads"
    yield f"linear probe, logistic, {number:,} records x {WIDTH:,}, {NUM_CLASSES} classes, {how}"
    for part, seconds in found.items():
        yield f"{part:32}{seconds:8.1f} s"


def probe_seconds(num_records: int, width: int, num_classes: int) -> dict[str, float]:
    """Wall and CPU seconds of the fit of one model, and of the whole protocol with its floor, on `NUM_THREADS`."""
    torch.set_num_threads(NUM_THREADS)
    context = embedded_records(num_records, width, num_classes)
    found = {}
    parts = {
        "one fit, all strengths": lambda: _fit(context),
        "the whole protocol": lambda: linear_probe.run(context, fractions=(1.0,), seeds=(42,)),
    }
    for name, part in parts.items():
        wall, cpu = time.perf_counter(), time.process_time()
        part()
        found |= {f"{name}, wall": time.perf_counter() - wall, f"{name}, CPU": time.process_time() - cpu}
    return found


def embedded_records(num_records: int, width: int, num_classes: int, seed: int = 0) -> EmbeddedRecords:
    """Records of synthetic patients with labels that a linear model can partly tell from their embeddings."""
    rng = np.random.default_rng(seed)
    falling = np.arange(1, width + 1, dtype=np.float32)[:, None] ** -1.0
    features = rng.normal(size=(num_records, width)).astype(np.float32)
    features = features @ (rng.normal(size=(width, width)).astype(np.float32) * falling)
    truth = features @ rng.normal(size=(width, num_classes)).astype(np.float32)
    scores = 1.5 * truth / truth.std(axis=0) + rng.logistic(size=truth.shape)
    shares = np.geomspace(0.43, 0.002, num_classes)
    targets = scores > [np.quantile(column, 1 - share) for column, share in zip(scores.T, shares, strict=True)]
    parts = np.split(np.arange(num_records), np.cumsum([int(share * num_records) for share in FOLDS.values()])[:-1])
    rows = {split: _rows(split, numbers, targets, rng) for split, numbers in zip(FOLDS, parts, strict=True)}
    model = SimpleNamespace(feature_extractor=None)
    context = EmbeddedRecords(model, model, "random", dataset_rows=rows, num_resamples=NUM_RESAMPLES, seed=seed)
    floor = features + 4 * rng.normal(size=features.shape).astype(np.float32)
    context.embeds = {
        role: dict(zip(FOLDS, (of_role[numbers] for numbers in parts), strict=True))
        for role, of_role in (("trained", features), ("random_weights", floor))
    }
    return context


def _rows(split: str, numbers: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Dataset:
    names = [f"class {column:02}" for column in range(targets.shape[1])]
    return Dataset.from_dict(
        {
            "record_id": [f"r{number}" for number in numbers],
            "patient_id": [f"{split}-{i // 8}-{i % 8 % 7}" for i in range(len(numbers))],  # one of seven comes twice
            "labels": [[names[column] for column in np.flatnonzero(targets[number])] for number in numbers],
            "sex": rng.choice(["female", "male"], len(numbers)).tolist(),
            "age": rng.integers(18, 95, len(numbers)).astype(float).tolist(),
        }
    )


def _fit(context: EmbeddedRecords) -> None:
    task = linear_probe.load_tasks(context)[0]
    embeds = {split: context.ecg_embeds(split) for split in FOLDS}
    targets = {split: rows.targets for split, rows in task.splits.items()}
    linear_probe.fit_logistic(embeds["train"], targets["train"], embeds["validation"], targets["validation"])
