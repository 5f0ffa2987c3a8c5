"""BLEU-1, BLEU-4 and ROUGE-L of written reports, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from modeling_esi.evaluation.text_scores import TextScores

DESCRIPTION = (
    "Written reports against the true ones, word by word: BLEU of sacrebleu (13a, lower case), mean F-measure of "
    "ROUGE-L of rouge-score. Shares of 1, not of 100."
)
INPUTS = """
Args:
    predictions: written reports.
    references: the true report of each.

Returns:
    bleu1, bleu4, rouge_l.

>>> metric.compute(predictions=["sinus rhythm"], references=["sinus rhythm"])["rouge_l"]
1.0
"""


class ReportText(evaluate.Metric):
    """`evaluate`'s form of `modeling_esi.evaluation.text_scores.TextScores`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        scores = TextScores.of(predictions, references)
        return {"bleu1": scores.bleu(1), "bleu4": scores.bleu(4), "rouge_l": scores.mean_rouge_l()}
