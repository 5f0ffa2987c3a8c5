"""AUPRC, F1, thresholds and paired intervals, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from modeling_esi.evaluation.metrics import areas_of_resample, average_precision, bootstrap_values, interval_of
from modeling_esi.evaluation.multilabel import METRICS, difference, judge
from modeling_esi.evaluation.thresholds import best_f1_thresholds, f1_per_class, probabilities_of

NAMES = ("NORM", "LAFB/LPFB", "_AVB", "never")


def random_case(seed: int, num_records: int = 60, num_levels: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.random((num_records, 4)) < [0.5, 0.2, 0.1, 0.0]
    return (rng.integers(0, num_levels, (num_records, 4)) + 0.3 * num_levels * targets) / num_levels, targets


@pytest.mark.parametrize("num_levels", [2, 7, 10_000])
@pytest.mark.parametrize("seed", range(8))
def test_average_precision_equals_scikit_learn_with_ties(seed, num_levels):
    scores, targets = random_case(seed, num_levels=num_levels)
    found = average_precision(scores, targets)
    assert np.isnan(found[3])
    for column in np.flatnonzero(targets.any(axis=0)):
        assert found[column] == pytest.approx(average_precision_score(targets[:, column], scores[:, column]), abs=1e-12)


def test_areas_of_a_resample_equal_scikit_learn_on_the_drawn_records():
    scores, targets = random_case(3, num_levels=5)
    indices = np.random.default_rng(0).integers(0, 60, 60)
    roc, precision = areas_of_resample(scores, targets)(indices)
    for column in range(3):
        drawn = targets[indices, column], scores[indices, column]
        assert roc[column] == pytest.approx(roc_auc_score(*drawn), abs=1e-12)
        assert precision[column] == pytest.approx(average_precision_score(*drawn), abs=1e-12)


@pytest.mark.parametrize("num_levels", [3, 20, 10_000])
@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_gives_a_higher_f1_and_f1_equals_scikit_learn(seed, num_levels):
    scores, targets = random_case(seed, num_levels=num_levels)
    thresholds = best_f1_thresholds(scores, targets)
    found = f1_per_class(scores, targets, thresholds)
    assert np.isnan(thresholds[3]) and np.isnan(found[3])
    for column in range(3):
        possible = [f1_score(targets[:, column], scores[:, column] >= t) for t in np.unique(scores[:, column])]
        assert found[column] == pytest.approx(max(possible), abs=1e-12)


def test_judgement_holds_names_order_counts_and_what_is_left_out():
    scores, targets = random_case(1)
    judged = judge(scores, targets, NAMES, range(60), best_f1_thresholds(scores, targets), num_resamples=60)
    figures = judged.figures("form/")
    assert [key for key in figures if "/auroc/" in key] == [f"form/auroc/{name}" for name in NAMES]
    assert figures["form/auroc/never"] is None and judged.left_out == {"never": "no record has it"}
    assert figures["form/labels_left_out"] == ["never"]
    areas = [roc_auc_score(targets[:, c], scores[:, c]) for c in range(3)]
    assert figures["form/macro_auroc"] == pytest.approx(np.mean(areas))
    assert figures["form/macro_auroc_low"] < figures["form/macro_auroc"] < figures["form/macro_auroc_high"]
    assert figures["form/num_positives/LAFB/LPFB"] == targets[:, 1].sum()
    rows = judged.rows()
    assert [row["class"] for row in rows] == list(NAMES) and rows[3]["auprc"] is None
    assert rows[0]["f1_low"] <= rows[0]["f1"] <= rows[0]["f1_high"]


def test_the_label_itself_gives_one_and_permuted_labels_one_half():
    targets = random_case(4, 200)[1][:, :3]
    exact = judge(targets.astype(float), targets, NAMES[:3], range(200), np.full(3, 0.5), num_resamples=20)
    assert [exact.macro(metric) for metric in METRICS] == [1.0, 1.0, 1.0]
    assert exact.figures()["macro_auroc_low"] == 1.0
    noise = np.random.default_rng(0).normal(size=targets.shape)
    permuted = judge(noise, targets, NAMES[:3], range(200), num_resamples=200).figures()
    assert permuted["macro_auroc_low"] < 0.5 < permuted["macro_auroc_high"]


def test_without_validation_there_is_no_f1_and_it_is_told():
    scores, targets = random_case(2)
    figures = judge(scores, targets, NAMES, range(60), num_resamples=0).figures()
    assert figures["macro_f1"] is None and "validation records only" in figures["macro_f1_note"]
    assert "macro_auroc_low" not in figures


def test_a_class_without_a_threshold_is_not_in_the_mean_of_f1_and_is_named():
    scores, targets = random_case(2)
    thresholds = np.array([np.nan, 0.5, 0.5, 0.5])
    figures = judge(scores, targets, NAMES, range(60), thresholds, num_resamples=0).figures()
    assert figures["macro_f1_note"] == f"without {NAMES[0]}: no validation record to choose a threshold on"
    assert figures["macro_f1"] == pytest.approx(np.mean(f1_per_class(scores, targets, thresholds)[1:3]))
    every = judge(scores, targets, NAMES, range(60), np.full(4, 0.5), num_resamples=0).figures()
    assert "macro_f1_note" not in every


def test_too_rare_classes_give_figures_without_interval_and_the_reason():
    judged = judge(np.random.default_rng(0).random((60, 60)), np.eye(60), [f"c{i}" for i in range(60)], range(60))
    assert judged.macro("auroc") is not None and "of 60 patients" in judged.figures()["macro_auroc_note"]


def test_a_model_compared_with_itself_differs_by_exactly_nothing():
    scores, targets = random_case(5)
    one = judge(scores, targets, NAMES, range(60), num_resamples=50)
    same = difference(one, judge(scores * 2, targets, NAMES, range(60), num_resamples=50))
    assert (
        same["macro_auroc/difference"] == same["macro_auroc/difference_low"] == same["macro_auroc/difference_high"] == 0
    )


def test_pairs_make_the_interval_of_a_difference_narrow():
    rng = np.random.default_rng(6)
    targets = rng.random((300, 3)) < 0.3
    scores = targets + rng.normal(size=(300, 3))
    other = scores + 0.1 * rng.normal(size=(300, 3))
    one, two = (judge(s, targets, NAMES[:3], range(300), num_resamples=200) for s in (scores, other))
    paired = difference(one, two, "x/")
    width = paired["x/macro_auroc/difference_high"] - paired["x/macro_auroc/difference_low"]
    alone = one.figures()["macro_auroc_high"] - one.figures()["macro_auroc_low"]
    assert width < 0.4 * alone
    with pytest.raises(ValueError, match="the same classes on the same records"):
        difference(one, judge(scores[:50], targets[:50], NAMES[:3], range(50), num_resamples=5))


def test_bootstrap_values_of_an_array_and_their_interval():
    values = bootstrap_values(lambda indices: np.array([indices.mean(), 1.0]), range(40), num_resamples=30, seed=2)
    assert values.shape == (30, 2) and (interval_of(values)[:, 1] == 1.0).all()
    with pytest.raises(ValueError, match="num_resamples: expected at least 1"):
        bootstrap_values(lambda indices: 0.0, range(3), num_resamples=0)
    with pytest.raises(ValueError, match="thresholds: expected one for each of 4"):
        f1_per_class(*random_case(0), np.zeros(3))
    with pytest.raises(ValueError, match="expected names of 4 classes"):
        judge(*random_case(0), NAMES[:3], range(60))


def test_probabilities_of_scores_are_platts_curves_of_other_records():
    rng = np.random.default_rng(5)
    known_targets = rng.random((300, 3)) < [0.5, 0.1, 0.0]
    known, scores = 0.1 * known_targets + 0.05 * rng.normal(size=(300, 3)), 0.1 * rng.random((50, 3))
    found = probabilities_of(scores, known, known_targets)
    for column in (0, 1):
        mean, scale = known[:, column].mean(), known[:, column].std()
        curve = LogisticRegression(C=1.0).fit((known[:, [column]] - mean) / scale, known_targets[:, column])
        expected = curve.predict_proba((scores[:, [column]] - mean) / scale)[:, 1]
        np.testing.assert_allclose(found[:, column], expected, atol=2e-3)
    assert np.ptp(found[:, 2]) < 1e-6 and found[0, 2] < 1e-3  # no positives to learn from: a constant
    assert (np.diff(found[np.argsort(scores[:, 0]), 0]) > 0).all()
