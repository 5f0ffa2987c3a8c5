"""BLEU, ROUGE-L and F1 equal the libraries' on random cases, and hand-made numbers."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from modeling_esi.evaluation.text_scores import TextScores, label_f1, micro_f1

sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra eval")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="needs the extra eval")
WORDS = ["sinus", "Rhythm", "left", "axis", "deviation,", "T", "wave", "inversion.", "QT", "450", "ms"]


def texts(seed: int, number: int = 12, shortest: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(shortest, 15))) for _ in range(number)]


@pytest.mark.parametrize("seed", range(4))
def test_bleu_equals_sacrebleu(seed):
    written, true = texts(seed), texts(seed + 100, shortest=1)
    scores = TextScores.of(written, true)
    for order in (1, 4):
        corpus = sacrebleu.metrics.BLEU(lowercase=True, max_ngram_order=order).corpus_score(written, [true])
        assert scores.bleu(order) == pytest.approx(corpus.score / 100, abs=1e-12)
    drawn = np.random.default_rng(seed).integers(0, 12, 12)
    again = [[side[i] for i in drawn] for side in (written, true)]
    corpus = sacrebleu.metrics.BLEU(lowercase=True).corpus_score(again[0], [again[1]])
    assert scores.bleu(4, drawn) == pytest.approx(corpus.score / 100, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rouge_l_equals_rouge_score(seed):
    written, true = texts(seed), texts(seed + 100)
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    expected = np.mean([scorer.score(t, w)["rougeL"].fmeasure for w, t in zip(written, true, strict=True)])
    assert TextScores.of(written, true).mean_rouge_l() == pytest.approx(expected)


def test_by_hand():
    scores = TextScores.of(["sinus rhythm left axis"], ["Sinus rhythm, axis left x y"])
    # four words, all of them in the truth of seven tokens: precision 1, too short by exp(1 - 7/4)
    assert scores.bleu(1) == pytest.approx(np.exp(1 - 7 / 4))
    # the longest common run in order is "sinus rhythm left" or "... axis": 3 of 4 and 3 of 6 words
    assert scores.mean_rouge_l() == pytest.approx(2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
    same = TextScores.of(["atrial fibrillation with block"], ["Atrial fibrillation with block"])
    assert (same.bleu(1), same.bleu(4), same.mean_rouge_l()) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("seed", range(3))
def test_label_f1_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    found, true = rng.random((30, 5)) < 0.4, rng.random((30, 5)) < 0.4
    true[:, 2] = False
    each = label_f1(found, true)
    expected = f1_score(true, found, average=None, zero_division=0)
    assert np.isnan(each[2])
    np.testing.assert_allclose(np.delete(each, 2), np.delete(expected, 2))
    assert micro_f1(found, true) == pytest.approx(f1_score(true, found, average="micro"))
    assert micro_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0.0


def test_as_many_written_as_true():
    with pytest.raises(ValueError, match="got 1 and 2"):
        TextScores.of(["a"], ["b", "c"])
    with pytest.raises(ValueError, match="got 0 and 0"):
        TextScores.of([], [])
