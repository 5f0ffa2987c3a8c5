"""Recall at k of ECG-text retrieval, both ways, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from modeling_esi.evaluation.retrieval import retrieval

DESCRIPTION = (
    "How often the text of an ECG is among the k nearest of all texts by cosine similarity (k = 1, 5, 10), and the ECG "
    "of a text among all ECGs. Ties count in expectation: embeddings that tell nothing apart get the chance level."
)
INPUTS = """
Args:
    predictions: ECG embeddings, one vector for each record.
    references: text embeddings of the same records, in the same order and as wide.
    keys: what makes two records the same answer, such as their text_key; default: only the record's own text is right.
    patients: the patient of each record; default: no intervals.
    num_resamples: of patients, who are drawn as those who ask; the candidates stay all.
    seed: of the resamples.

Returns:
    ecg_to_text/recall@1, @5, @10, text_to_ecg/recall@1, @5, @10, with patients each with _low and _high of its 95 %
    interval; num_candidates.

>>> metric.compute(predictions=[[1.0, 0.0], [0.0, 1.0]], references=[[0.9, 0.1], [0.2, 0.8]])["ecg_to_text/recall@1"]
1.0
"""


class ECGTextRetrieval(evaluate.Metric):
    """`evaluate`'s form of `modeling_esi.evaluation.retrieval.retrieval`."""

    def _info(self) -> evaluate.MetricInfo:
        vector = datasets.Sequence(datasets.Value("float32"))
        features = datasets.Features({"predictions": vector, "references": vector})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        keys: Sequence[Hashable] | None = None,
        patients: Sequence[Hashable] | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        ecg_embeds, text_embeds = np.asarray(predictions), np.asarray(references)
        return retrieval(ecg_embeds, text_embeds, keys, groups=patients, num_resamples=num_resamples, seed=seed)
