"""Pictures of results: ROC curves, calibration, robustness. No display is needed; same values give the same bytes.

matplotlib's objects are used directly, not `pyplot`, which would keep figures and settings for the whole program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .metrics import auroc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
MOST_NAMED = 12  # classes beyond that are drawn in grey, without a name
_GREY = "0.75"
_NAMES = {
    "leads": ("leads", "number of leads"),
    "noise": ("noise", "signal-to-noise ratio (dB)"),
    "sampling_rate": ("sampling rate", "sampling rate (Hz)"),
    "duration": ("duration", "duration (s)"),
}


def roc_figure(scores: np.ndarray, targets: np.ndarray, label_names: Sequence[str], title: str = "") -> Figure:
    """A ROC curve for each class that has both labels, with its area and positives in the legend, and their mean.

    The mean curve is that of the true positive rates at each false positive rate; its area is the macro AUROC.

    Args:
        scores: `(N, C)`, higher where the label is more likely.
        targets: `(N, C)` of 0 and 1.
        label_names: the C classes. Of more than `MOST_NAMED` those with most positives are named.
        title: above the axes.

    Raises:
        ValueError: for shapes that do not fit, and where no class has both labels.
    """
    from sklearn.metrics import roc_curve

    scores, targets = np.asarray(scores), np.asarray(targets).astype(bool)
    areas = auroc(scores, targets)
    drawn = _by_positives(np.isfinite(areas), targets)
    if not drawn:
        raise ValueError("roc: expected a class with both labels, got none.")
    figure, axes = _square(title, "false positive rate", "true positive rate")
    rates, mean = np.linspace(0, 1, 501), np.zeros(501)
    for place, column in enumerate(drawn):
        wrong, right, _ = roc_curve(targets[:, column], scores[:, column])
        mean += np.interp(rates, wrong, right) / len(drawn)
        name = f"{label_names[column]}  {areas[column]:.3f}  (n = {targets[:, column].sum():,})"
        _named_line(axes, wrong, right, name, place)
    axes.plot([0, *rates], [0, *mean], color="black", linewidth=2, zorder=3, label=f"macro  {areas[drawn].mean():.3f}")
    return _legend(figure, axes, "class, AUROC, positives")


def calibration_figure(
    probabilities: np.ndarray, targets: np.ndarray, label_names: Sequence[str], title: str = "", num_bins: int = 10
) -> Figure:
    """How often a label holds where the model gives it so much probability: a line for each class, and the diagonal.

    Records are sorted by probability into `num_bins` bins of equal numbers; a point is a bin's mean probability and its
    share of positives. The legend tells the expected calibration error, the mean distance of the two, and its mean.

    Args:
        probabilities: `(N, C)`, 0 to 1.
        targets, label_names, title: as in `roc_figure`.
        num_bins: of records.

    Raises:
        ValueError: for shapes that do not fit, numbers outside 0 to 1, and where no class has both labels.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets).astype(bool)
    if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("calibration: expected probabilities from 0 to 1: cosines and logits are none.")
    drawn = _by_positives(np.isfinite(auroc(probabilities, targets)), targets)
    if not drawn:
        raise ValueError("calibration: expected a class with both labels, got none.")
    figure, axes = _square(title, "predicted probability", "share of positives")
    errors = []
    for place, column in enumerate(drawn):
        told, held, error = calibration_curve(probabilities[:, column], targets[:, column], num_bins)
        _named_line(axes, told, held, f"{label_names[column]}  {error:.3f}", place, marker="o", markersize=3)
        errors.append(error)
    return _legend(figure, axes, f"class, calibration error\n(mean {np.mean(errors):.3f})")


def calibration_curve(
    probabilities: np.ndarray, targets: np.ndarray, num_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean probability and share of positives of each bin of equal numbers, and the expected calibration error.

    >>> told, held, error = calibration_curve(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]), 2)
    >>> held.tolist(), round(error, 3)
    ([0.0, 1.0], 0.15)
    """
    order = np.argsort(probabilities, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if len(part)]
    told, held = (np.array([values[part].mean() for part in bins]) for values in (probabilities, targets))
    error = sum(len(part) * abs(t - h) for part, t, h in zip(bins, told, held, strict=True)) / len(order)
    return told, held, float(error)


def robustness_figure(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Macro AUROC under each change: one panel a group of changes, one line a kind, bars for the 95 % interval.

    Args:
        rows: of `robustness`: `group`, `kind`, `value` (the number of leads, dB, Hz or seconds), `macro_auroc`, `low`,
            `high`, `random_weights`; the first row, of group `clean`, is drawn as a line through all panels.
        title: above all panels.

    Raises:
        ValueError: without a clean row and one other.
    """
    clean = next((row for row in rows if row["group"] == "clean"), None)
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"] != "clean"))
    if clean is None or not groups:
        raise ValueError("robustness: expected a row of the group 'clean' and one of a change.")
    figure = _figure(3.2 * len(groups) + 0.8, 3.4)
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        _panel(axes, [row for row in rows if row["group"] == group], clean)
        heading, label = _NAMES.get(group, (group, group))
        axes.set(title=heading, xlabel=label)
    panels[0].set_ylabel("macro AUROC")
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def save_figure(figure: Figure, stem: str | PathLike[str]) -> tuple[Path, Path]:
    """Write `stem.png` and `stem.svg`; both are the same bytes for the same figure. Returns their paths."""
    import matplotlib

    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg"))
    figure.savefig(png, dpi=DPI, metadata={"Software": None})
    with matplotlib.rc_context({"svg.hashsalt": "esi-ecg", "svg.fonttype": "none"}):
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


# ----- steps ---------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = _figure(7.5, 5.0)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", linewidth=1, label="_diagonal")
    return figure, axes


def _by_positives(can_be_drawn: np.ndarray, targets: np.ndarray) -> list[int]:
    """Columns, those with most positives first."""
    order = np.argsort(-targets.sum(axis=0), kind="stable")
    return [int(column) for column in order if can_be_drawn[column]]


def _named_line(axes: Axes, x: np.ndarray, y: np.ndarray, name: str, place: int, **style: Any) -> None:
    is_named = place < MOST_NAMED
    color = f"C{place % 10}" if is_named else _GREY
    dashes = "-" if place < 10 else "--"
    axes.plot(
        x, y, dashes, color=color, linewidth=1.3 if is_named else 0.7, zorder=2 if is_named else 1,
        label=name if is_named else f"_{name}", **style,
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize="small")
    return figure


def _panel(axes: Axes, rows: list[Mapping[str, Any]], clean: Mapping[str, Any]) -> None:
    axes.axhline(clean["macro_auroc"], color="0.4", linewidth=1, linestyle="--", label="unchanged")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for number, kind in enumerate(kinds):
        points = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["value"])
        x, y = ([row[key] for row in points] for key in ("value", "macro_auroc"))
        label = kind.replace("_", " ") if len(kinds) > 1 else "this model"
        axes.errorbar(x, y, yerr=_bars(points), color=f"C{number}", marker="o", markersize=3, capsize=2, label=label)
    floor = sorted((row["value"], row["random_weights"]) for row in rows if row.get("random_weights") is not None)
    if floor:
        axes.plot(*zip(*floor, strict=True), color=_GREY, linestyle="none", marker="_", label="random weights")
    axes.set_xticks(sorted({row["value"] for row in rows}))
    axes.tick_params(axis="x", labelsize="small")
    axes.legend(fontsize="x-small", frameon=False)


def _bars(points: list[Mapping[str, Any]]) -> np.ndarray | None:
    """`(2, n)` distances to the bounds of the interval; None where one has none."""
    if any(row.get("low") is None or row.get("high") is None for row in points):
        return None
    distances = [
        [row["macro_auroc"] - row["low"] for row in points],
        [row["high"] - row["macro_auroc"] for row in points],
    ]
    return np.maximum(distances, 0)
