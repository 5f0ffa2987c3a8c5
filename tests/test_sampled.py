"""Figures with their resamples: intervals, notes, and differences that are narrower because they are paired."""

import numpy as np
import pytest

from modeling_esi.evaluation.results import Result
from modeling_esi.evaluation.sampled import Sampled, add_sampled


def mean_of(values: np.ndarray, num_resamples: int = 100, seed: int = 0) -> Sampled:
    return Sampled.of(["mean"], lambda rows: values[rows].mean(keepdims=True), range(len(values)), num_resamples, seed)


def test_flat_keys_with_bounds_notes_and_facts():
    values = np.random.default_rng(0).normal(size=50)
    found = (mean_of(values) | Sampled({"none": None}, facts={"num_records": 50}, notes={"none": "why"})).figures("t/")
    assert list(found) == ["t/mean", "t/mean_low", "t/mean_high", "t/none", "t/none_note", "t/num_records"]
    assert found["t/mean_low"] < found["t/mean"] == values.mean() < found["t/mean_high"]
    assert mean_of(values, num_resamples=0).figures() == {"mean": values.mean()}


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    one = rng.normal(size=200)
    other = one - 0.1 + 0.05 * rng.normal(size=200)  # worse by a tenth on nearly every record
    found = mean_of(one).difference(mean_of(other), "t/")
    assert found["t/mean/difference"] == one.mean() - other.mean() and found["t/mean/other"] == other.mean()
    assert 0.08 < found["t/mean/difference_low"] < found["t/mean/difference_high"] < 0.12
    alone = mean_of(one).figures()
    assert alone["mean_high"] - alone["mean_low"] > 0.2  # unpaired, nothing would be seen
    assert Sampled({"mean": None}).difference(mean_of(one)) == {}


def test_labels_too_rare_for_resamples_leave_a_note():
    found = Sampled.of(["x"], lambda rows: np.zeros(1), range(60), 20, targets=np.eye(60)).figures()
    assert found["x"] == 0.0 and "rarest labels" in found["x_note"]


def test_a_result_gets_the_figures_of_every_model():
    result = Result("toy", "", "toy/test")
    asked = []

    def judge(role: str, num_resamples: int) -> Sampled:
        asked.append((role, num_resamples))
        return mean_of(np.arange(20.0) + len(role), num_resamples)

    add_sampled(result, judge, ["trained", "random_weights", "compared"], 30)
    assert asked == [("trained", 30), ("random_weights", 0), ("compared", 30)]
    assert {"mean", "mean_low", "mean_high"} == result.trained.keys() and list(result.random_weights) == ["mean"]
    assert result.compared["mean/difference"] == -1.0
    assert result.compared["mean/difference_low"] == pytest.approx(-1.0)
