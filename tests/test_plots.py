"""Pictures by their properties: lines, labels, bytes."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modeling_esi.evaluation.plots import (
    MOST_NAMED,
    calibration_curve,
    calibration_figure,
    robustness_figure,
    roc_figure,
    save_figure,
)

PNG = b"\x89PNG\r\n\x1a\n"


def scored(num_records: int = 80, num_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    targets = rng.random((num_records, num_classes)) < np.linspace(0.5, 0.2, num_classes)
    return targets + rng.normal(size=targets.shape), targets, [f"class {i}" for i in range(num_classes)]


def test_roc_has_a_line_for_each_class_with_both_labels_and_a_diagonal():
    scores, targets, names = scored()
    targets[:, 1] = False
    figure = roc_figure(scores, targets, names, title="toy")
    axes = figure.axes[0]
    assert len(axes.lines) == 4 and axes.get_title() == "toy"  # the diagonal, two classes and their mean
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith(f"class 0  {roc_auc_score(targets[:, 0], scores[:, 0]):.3f}  (n = ")
    assert [label[:7] for label in labels] == ["class 0", "class 2", "macro  "]
    x, y = axes.lines[1].get_data()
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(targets[:, 0], scores[:, 0]))
    mean = np.mean([roc_auc_score(targets[:, c], scores[:, c]) for c in (0, 2)])
    x, y = axes.lines[3].get_data()
    assert np.trapezoid(y, x) == pytest.approx(mean, abs=2e-3) and labels[-1] == f"macro  {mean:.3f}"
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1) and (np.diff(y) >= 0).all()


def test_of_many_classes_the_most_frequent_are_named():
    scores, targets, names = scored(num_records=200, num_classes=MOST_NAMED + 4)
    axes = roc_figure(scores, targets, names).axes[0]
    assert len(axes.lines) == MOST_NAMED + 6
    assert len(axes.get_legend().get_texts()) == MOST_NAMED + 1  # and the mean of all


def test_calibration_by_hand():
    told, held, error = calibration_curve(np.array([0.9, 0.1, 0.3, 0.7, 0.5]), np.array([1, 0, 1, 1, 0]), 2)
    # bins 0.1 0.3 0.5 (one of three) and 0.7 0.9 (both): distances 0.3 - 1/3 and 0.8 - 1, weighed 3 and 2 of 5
    assert told == pytest.approx([0.3, 0.8]) and held == pytest.approx([1 / 3, 1.0])
    assert error == pytest.approx((3 * (1 / 3 - 0.3) + 2 * 0.2) / 5)


def test_perfectly_calibrated_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    probabilities = rng.random((40_000, 1))
    targets = rng.random(probabilities.shape) < probabilities
    axes = calibration_figure(probabilities, targets, ["even"]).axes[0]
    told, held = axes.lines[1].get_data()
    assert len(told) == 10
    np.testing.assert_allclose(told, held, atol=0.03)
    assert float(axes.get_legend().get_texts()[0].get_text().split()[-1]) < 0.02


def test_scores_are_no_probabilities_and_a_picture_needs_a_class():
    scores, targets, names = scored()
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibration_figure(scores, targets, names)
    for draw in (roc_figure, calibration_figure):
        with pytest.raises(ValueError, match="class with both labels, got none"):
            draw(np.full((4, 1), 0.5), np.zeros((4, 1)), ["never"])


def robustness_rows() -> list[dict]:
    def row(group: str, kind: str, value: float, score: float) -> dict:
        bounds = {"low": score - 0.03, "high": score + 0.02}
        return {"group": group, "kind": kind, "value": value, "macro_auroc": score, "random_weights": 0.5} | bounds

    rows = [row("clean", "clean", 0.0, 0.82)]
    rows += [row("leads", "leads", n, 0.7 + 0.01 * n) for n in (1, 2, 3, 6, 8)]
    rows += [row("noise", kind, snr, 0.6 + 0.008 * snr) for kind in ("white", "powerline") for snr in (24, 12, 0)]
    return rows


def test_robustness_has_a_panel_for_each_group_and_a_line_for_each_kind():
    figure = robustness_figure(robustness_rows(), title="toy")
    leads, noise = figure.axes
    assert (leads.get_title(), leads.get_xlabel()) == ("leads", "number of leads")
    assert len(leads.containers) == 1 and len(noise.containers) == 2
    x, y = leads.containers[0].lines[0].get_data()
    assert list(x) == [1, 2, 3, 6, 8] and y == pytest.approx([0.71, 0.72, 0.73, 0.76, 0.78])
    assert list(noise.containers[0].lines[0].get_xdata()) == [0, 12, 24]
    labels = [text.get_text() for text in noise.get_legend().get_texts()]
    assert set(labels) == {"unchanged", "random weights", "white", "powerline"}
    assert leads.lines[0].get_ydata()[0] == 0.82
    with pytest.raises(ValueError, match="'clean'"):
        robustness_figure(robustness_rows()[1:])


def test_files_are_png_and_svg_with_the_same_bytes_each_time(tmp_path):
    figures = [roc_figure(*scored()), robustness_figure(robustness_rows())]
    for number, figure in enumerate(figures):
        png, svg = save_figure(figure, tmp_path / "plots" / f"{number}.5")
        assert png.name == f"{number}.5.png" and png.read_bytes().startswith(PNG) and png.stat().st_size > 5000
        assert b"<svg" in svg.read_bytes()[:400] and b"AUROC" in svg.read_bytes()
    again = save_figure(roc_figure(*scored()), tmp_path / "again")
    for path, ending in zip(again, ("png", "svg"), strict=True):
        assert path.read_bytes() == (tmp_path / "plots" / f"0.5.{ending}").read_bytes()
