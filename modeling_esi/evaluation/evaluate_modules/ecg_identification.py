"""Rank-1 and rank-5 accuracy and equal error rate of ECG identification, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from modeling_esi.evaluation.enrolment import Enrolment
from modeling_esi.evaluation.identification import identification

DESCRIPTION = (
    "Whose ECG is it: probes are looked for among the enrolled recordings by cosine similarity (rank-1 and rank-5 "
    "accuracy); all pairs of a probe and an enrolled recording are verified (equal error rate)."
)
INPUTS = """
Args:
    predictions: ECG embeddings, one vector for each recording.
    references: the person of each recording, as text.
    is_enrolled: of each recording, whether it is in the gallery; the others are probes, whose persons must be there.
    num_resamples: of persons, for the intervals, which need ten persons at least; 0 (default): none.
    seed: of the resamples.

Returns:
    rank1, rank5, equal_error_rate, each with _low and _high of its 95 % interval; chance_rank1, num_persons,
    num_gallery, num_probes, num_genuine_pairs, num_impostor_pairs, num_enrolled_persons.

>>> metric.compute(
...     predictions=[[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], references=["ann", "ben", "ann"],
...     is_enrolled=[True, True, False],
... )["rank1"]
1.0
"""


class ECGIdentification(evaluate.Metric):
    """`evaluate`'s form of `modeling_esi.evaluation.identification.identification`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Value("string"),
            "is_enrolled": datasets.Value("bool"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS, features=datasets.Features(features)
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[str],
        is_enrolled: Sequence[bool],
        num_resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        enrolled = np.asarray(is_enrolled, dtype=bool)
        enrolment = Enrolment(np.flatnonzero(enrolled), np.flatnonzero(~enrolled))
        return identification(np.asarray(predictions), list(references), enrolment, num_resamples, seed)
