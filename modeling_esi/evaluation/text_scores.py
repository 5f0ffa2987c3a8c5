"""Written texts against true ones: BLEU, ROUGE-L, and the F1 of the findings in them.

BLEU is sacrebleu's (tokenisation 13a, lower case, exponential smoothing), ROUGE-L the F-measure of rouge-score without
stemming, which knows no letters but a-z. Both are given as shares of 1, not of 100. METEOR is not given: the kept
implementation (nltk) needs WordNet's files, which it fetches from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NEEDS = "scores of texts need {}: pip install 'esi-ecg[eval]'"


@dataclass(frozen=True)
class TextScores:
    """What the scores are sums or means of, per record, so that a resample costs no tokenising.

    Attributes:
        matched, possible: `(N, 4)`: n-grams of the written text that are in the true one, and all of them, n = 1 .. 4.
        lengths: `(N, 2)`: tokens written, tokens true.
        rouge_l: `(N,)`.
    """

    matched: np.ndarray
    possible: np.ndarray
    lengths: np.ndarray
    rouge_l: np.ndarray

    @classmethod
    def of(cls, written: Sequence[str], true: Sequence[str]) -> TextScores:
        """Raises ValueError for no texts or numbers of them that differ, ImportError without the two packages."""
        if len(written) != len(true) or not len(written):
            raise ValueError(f"texts: expected as many written as true ones, got {len(written)} and {len(true)}.")
        bleu, scorer = _bleu(), _rouge()
        counted = [bleu.sentence_score(said, [truth]) for said, truth in zip(written, true, strict=True)]
        rouge_l = [scorer.score(truth, said)["rougeL"].fmeasure for said, truth in zip(written, true, strict=True)]
        return cls(
            np.array([score.counts for score in counted]),
            np.array([score.totals for score in counted]),
            np.array([(score.sys_len, score.ref_len) for score in counted]),
            np.array(rouge_l),
        )

    def bleu(self, order: int, records: np.ndarray | slice = slice(None)) -> float:
        """BLEU of these records together, from n-grams up to `order`; 0 to 1."""
        matched, possible = (table[records, :order].sum(axis=0).tolist() for table in (self.matched, self.possible))
        written, true = self.lengths[records].sum(axis=0).tolist()
        settings: dict[str, Any] = {"smooth_method": "exp", "max_ngram_order": order}
        return _bleu().compute_bleu(matched, possible, written, true, **settings).score / 100

    def mean_rouge_l(self, records: np.ndarray | slice = slice(None)) -> float:
        """The mean ROUGE-L of these records."""
        return float(self.rouge_l[records].mean())

    def all(self, records: np.ndarray | slice = slice(None)) -> np.ndarray:
        """BLEU-1, BLEU-4 and ROUGE-L of these records."""
        return np.array([self.bleu(1, records), self.bleu(4, records), self.mean_rouge_l(records)])


def label_f1(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """`(C,)`: F1 of each label, NaN for a label that no record has. `found`, `true`: `(N, C)` bool."""
    hits, said, there = (found & true).sum(axis=0), found.sum(axis=0), true.sum(axis=0)
    return np.divide(2.0 * hits, said + there, out=np.full(len(hits), np.nan), where=there > 0)


def micro_f1(found: np.ndarray, true: np.ndarray) -> float:
    """F1 over all records and labels together; 0 where nothing is found and nothing true."""
    both = found.sum() + true.sum()
    return float(2 * (found & true).sum() / both) if both else 0.0


def _bleu() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise ImportError(NEEDS.format("sacrebleu")) from error
    return BLEU(lowercase=True, tokenize="13a", effective_order=True)


def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError(NEEDS.format("rouge-score")) from error
    return RougeScorer(["rougeL"], use_stemmer=False)
