"""The equal error rate by hand, against scikit-learn's ROC curve, and its interval over persons."""

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from modeling_esi.evaluation import verification
from modeling_esi.evaluation.verification import equal_error_rate, verification_pairs


def by_scikit_learn(genuine: np.ndarray, impostor: np.ndarray) -> float:
    truth = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    let_in, recognised, _ = roc_curve(truth, np.r_[genuine, impostor], drop_intermediate=False)
    return brentq(lambda x: 1 - x - np.interp(x, let_in, recognised), 0, 1)


def test_by_hand():
    # above 0.5 two of three genuine pairs, no impostor; at 0.5 one of three impostors: a third each
    assert equal_error_rate([0.9, 0.8, 0.4], [0.5, 0.3, 0.2]) == pytest.approx(1 / 3)
    # all but one of four genuine pairs above, one of two impostors: the line from (0, 1/4) to (1/2, 1/4) meets x = 1/4
    assert equal_error_rate([0.9, 0.8, 0.7, 0.1], [0.5, 0.05]) == pytest.approx(1 / 4)
    assert equal_error_rate([0.9, 0.8], [0.5, 0.1]) == 0.0
    assert equal_error_rate([0.1, 0.2], [0.5, 0.9]) == 1.0
    assert equal_error_rate([0.3, 0.3, 0.3], [0.3, 0.3]) == 0.5


@pytest.mark.parametrize("num_levels", [4, 30, 100_000])  # few levels: many ties
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_crossing_of_scikit_learns_curve(seed, num_levels):
    rng = np.random.default_rng([seed, num_levels])
    genuine = rng.integers(num_levels // 4, num_levels, 37) / num_levels
    impostor = rng.integers(0, num_levels, 211) / num_levels
    assert equal_error_rate(genuine, impostor) == pytest.approx(by_scikit_learn(genuine, impostor), abs=1e-9)


def test_weights_are_copies():
    rng = np.random.default_rng(5)
    genuine, impostor = rng.normal(1, 1, 20).round(1), rng.normal(0, 1, 50).round(1)
    genuine_weights, impostor_weights = rng.integers(0, 4, 20), rng.integers(0, 4, 50)
    weighted = verification._Ranked.of(genuine, impostor).equal_error_rate(genuine_weights, impostor_weights)
    copied = equal_error_rate(np.repeat(genuine, genuine_weights), np.repeat(impostor, impostor_weights))
    assert weighted == pytest.approx(copied)


def test_pairs_by_hand():
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    probes = np.array([[0.8, 0.6], [0.0, 1.0]])
    pairs = verification_pairs(probes, gallery, np.array([7, 9]), np.array([7, 9, 4]))
    assert pairs.genuine == pytest.approx([0.8, 1.0]) and pairs.genuine_person.tolist() == [7, 9]
    assert pairs.impostor == pytest.approx([0.6, 0.96, 0.0, 0.8])
    assert pairs.impostor_persons.tolist() == [[7, 9], [7, 4], [9, 7], [9, 4]]


def test_beyond_the_limit_a_seeded_sample_of_impostors_is_judged(monkeypatch):
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(60, 5))
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    persons = np.arange(60)
    whole = verification_pairs(embeds, embeds, persons, persons)
    monkeypatch.setattr(verification, "MAX_IMPOSTOR_PAIRS", 600)
    some, again = (verification_pairs(embeds, embeds, persons, persons, seed=1) for _ in range(2))
    assert len(whole.impostor) == 60 * 59 and len(some.impostor) == 600 and len(some.genuine) == 60
    np.testing.assert_array_equal(some.impostor, again.impostor)
    assert some.impostor.mean() == pytest.approx(whole.impostor.mean(), abs=0.1)
    assert np.bincount(some.impostor_persons[:, 0]).tolist() == [10] * 60


def test_the_interval_covers_the_known_rate():
    rng = np.random.default_rng(1)
    covered, num_persons = 0, 40
    for seed in range(12):
        # genuine scores N(2, 1), impostors N(0, 1): at the threshold 1 both errors are 0.1587
        genuine, impostor = rng.normal(2, 1, num_persons), rng.normal(0, 1, (num_persons, num_persons))
        first, second = np.nonzero(~np.eye(num_persons, dtype=bool))
        pairs = verification.VerificationPairs(
            genuine, np.arange(num_persons), impostor[first, second], np.stack([first, second], axis=1)
        )
        figures = pairs.sampled(100, seed).figures()
        value, low, high = (figures[f"equal_error_rate{end}"] for end in ("", "_low", "_high"))
        covered += low <= 0.1587 <= high
        assert low <= value <= high and value == equal_error_rate(pairs.genuine, pairs.impostor)
    assert covered >= 9


@pytest.mark.parametrize(("genuine", "impostor"), [([], [0.1]), ([0.1], []), ([np.nan], [0.1])])
def test_one_kind_of_pairs_alone_is_refused(genuine, impostor):
    with pytest.raises(ValueError, match="finite ones of both kinds"):
        equal_error_rate(genuine, impostor)
