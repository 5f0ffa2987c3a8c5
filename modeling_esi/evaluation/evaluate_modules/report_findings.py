"""F1 of the findings that written reports name, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from modeling_esi.evaluation.label_matcher import LabelMatcher
from modeling_esi.evaluation.label_tasks import target_matrix
from modeling_esi.evaluation.metrics import macro
from modeling_esi.evaluation.text_scores import label_f1, micro_f1

DESCRIPTION = (
    "The findings that written reports name, found by phrases, against the records' labels: F1 of each label, micro F1 "
    "over all, macro F1 over the labels that a record has."
)
INPUTS = """
Args:
    predictions: written reports.
    references: the labels of each record, a list of names.
    prompts: of each label the phrases that name it, {label: phrase or phrases}.

Returns:
    label_f1_micro, label_f1_macro (None where no record has a label), label_f1/NAME, num_positives/NAME,
    labels_left_out (those that no record has).

>>> metric.compute(
...     predictions=["Atrial fibrillation.", "No atrial fibrillation."], references=[["AFIB"], []],
...     prompts={"AFIB": "atrial fibrillation"},
... )["label_f1_micro"]
1.0
"""


class ReportFindings(evaluate.Metric):
    """`evaluate`'s form of `modeling_esi.evaluation.text_scores.label_f1` over a `LabelMatcher`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("string"),
            "references": datasets.Sequence(datasets.Value("string")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS, features=datasets.Features(features)
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        prompts: Mapping[str, str | Sequence[str]],
    ) -> dict[str, Any]:
        names, matcher = list(prompts), LabelMatcher.from_prompts(prompts)
        found = target_matrix([matcher.find(text) for text in predictions], names)
        true = target_matrix(references, names)
        each = {
            name: None if np.isnan(f1) else float(f1) for name, f1 in zip(names, label_f1(found, true), strict=True)
        }
        return {
            "label_f1_micro": micro_f1(found, true),
            "label_f1_macro": macro(each),
            **{f"label_f1/{name}": f1 for name, f1 in each.items()},
            **{f"num_positives/{name}": int(number) for name, number in zip(names, true.sum(axis=0), strict=True)},
            "labels_left_out": [name for name, f1 in each.items() if f1 is None],
        }
