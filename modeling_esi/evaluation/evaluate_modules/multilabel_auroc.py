"""Macro AUROC, AUPRC and F1 of several labels, with 95 % intervals over patients, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from modeling_esi.evaluation.multilabel import judge

DESCRIPTION = (
    "AUROC, AUPRC and F1 of each label and their means. A label that no record or every record has gets None, is named "
    "in labels_left_out and is not in the means."
)
INPUTS = """
Args:
    predictions: of each record a score for each label, higher where the label is more likely.
    references: of each record 0 or 1 for each label.
    label_names: names of the labels, in the order of the columns; default: "0", "1", ...
    thresholds: score from which a label is said, one for each label, chosen on OTHER records; default: no F1.
    patients: the patient of each record, for intervals; default: each record is one patient's.
    num_resamples: of patients, for the intervals; 0 (default): none.
    seed: of the resamples.

Returns:
    macro_auroc, macro_auprc, macro_f1 (None without thresholds), each with _low and _high of its interval; auroc/NAME
    and num_positives/NAME of each label; labels_left_out, num_records, num_patients.

>>> metric.compute(predictions=[[0.1], [0.4], [0.35], [0.8]], references=[[0], [0], [1], [1]])["macro_auroc"]
0.75
"""


class MultilabelAuroc(evaluate.Metric):
    """`evaluate`'s form of `modeling_esi.evaluation.multilabel.judge`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int8")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS, features=datasets.Features(features)
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[int]],
        label_names: Sequence[str] | None = None,
        thresholds: Sequence[float] | None = None,
        patients: Sequence[Hashable] | None = None,
        num_resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        scores = np.asarray(predictions)
        names = label_names or [str(column) for column in range(scores.shape[1])]
        groups = range(len(scores)) if patients is None else patients
        return judge(scores, references, names, groups, thresholds, num_resamples, seed).figures()
