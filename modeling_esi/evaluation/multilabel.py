"""Scores of several labels, judged: AUROC, AUPRC and F1 of each class and their means, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics import RareClassError, areas_of_resample, bootstrap_values, check_scores, interval_of
from .thresholds import f1_scores

METRICS = ("auroc", "auprc", "f1")


@dataclass(frozen=True)
class Judgement:
    """What the scores of one model are worth on some records.

    Attributes:
        label_names: the C classes, in the task's order.
        values: `(3, C)`, the metrics of `METRICS` for each class; NaN where it cannot be computed.
        samples: `(R, 3, C)`, the same on each resample of patients; None where there is none.
        num_positives: `(C,)` records that have the label.
        num_records, num_patients: that were judged.
        left_out: classes that are not in the means, and why.
        note: why there is no interval; empty where there is.
    """

    label_names: tuple[str, ...]
    values: np.ndarray
    samples: np.ndarray | None
    num_positives: np.ndarray
    num_records: int
    num_patients: int
    left_out: dict[str, str]
    note: str = ""

    def macro(self, metric: str) -> float | None:
        """The mean over the classes that can be judged; None where none can."""
        values = self.values[METRICS.index(metric)][self._is_judged]
        return float(np.nanmean(values)) if np.isfinite(values).any() else None

    def macro_samples(self, metric: str) -> np.ndarray | None:
        """`(R,)`: the same on each resample; None without resamples or values."""
        if self.samples is None or self.macro(metric) is None:
            return None
        return np.nanmean(self.samples[:, METRICS.index(metric)][:, self._is_judged], axis=1)

    @property
    def _is_judged(self) -> np.ndarray:
        return np.isfinite(self.values[0])

    def _without_f1(self) -> list[str]:
        """Classes with both labels that have no F1: no threshold could be chosen for them."""
        lacks = self._is_judged & ~np.isfinite(self.values[METRICS.index("f1")])
        return [name for name, is_lacking in zip(self.label_names, lacks, strict=True) if is_lacking]

    def figures(self, prefix: str = "") -> dict[str, Any]:
        """Flat keys: `auroc/NORM`, `num_positives/NORM`, `macro_auroc` with its bounds, ..., as in `results.Result`."""
        figures: dict[str, Any] = {}
        for metric in METRICS:
            figures[f"macro_{metric}"] = self.macro(metric)
            samples = self.macro_samples(metric)
            if samples is not None:
                low, high = interval_of(samples)
                figures |= {f"macro_{metric}_low": float(low), f"macro_{metric}_high": float(high)}
        if self.note:
            figures["macro_auroc_note"] = self.note
        if figures["macro_f1"] is None:
            figures["macro_f1_note"] = "no thresholds: they are taken from validation records only"
        elif without := self._without_f1():
            figures["macro_f1_note"] = f"without {', '.join(without)}: no validation record to choose a threshold on"
        figures |= {
            f"auroc/{name}": _or_none(area) for name, area in zip(self.label_names, self.values[0], strict=True)
        }
        figures |= {f"num_positives/{n}": int(c) for n, c in zip(self.label_names, self.num_positives, strict=True)}
        figures |= {"num_records": self.num_records, "num_patients": self.num_patients}
        figures["labels_left_out"] = list(self.left_out)
        return {f"{prefix}{key}": value for key, value in figures.items()}

    def rows(self, floor: Judgement | None = None) -> list[dict[str, Any]]:
        """A table of the classes: every metric, its bounds, and the floor of the AUROC."""
        bounds = None if self.samples is None else interval_of(self.samples)  # (2, 3, C)
        rows = []
        for column, name in enumerate(self.label_names):
            row: dict[str, Any] = {"class": name, "num_positives": int(self.num_positives[column])}
            for number, metric in enumerate(METRICS):
                row[metric] = _or_none(self.values[number, column])
                for place, bound in enumerate(("low", "high")):
                    value = np.nan if bounds is None else bounds[place, number, column]
                    row[f"{metric}_{bound}"] = _or_none(value)
            row["auroc_random_weights"] = None if floor is None else _or_none(floor.values[0, column])
            rows.append(row)
        return rows


def judge(
    scores: np.ndarray,
    targets: np.ndarray,
    label_names: Sequence[str],
    groups: Sequence[Hashable],
    thresholds: np.ndarray | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Judge scores against labels.

    Args:
        scores: `(N, C)`, higher where the label is more likely.
        targets: `(N, C)` of 0 and 1.
        label_names: the C classes.
        groups: the patient of each record.
        thresholds: `(C,)`, chosen on other records, NaN for a class that has none; None: no F1.
        num_resamples: of patients; 0: no intervals.
        seed: of the draws; the same seed, records and patients give pairs, see `difference`.

    Raises:
        ValueError: for shapes that do not fit, or scores or labels that make no sense.
    """
    scores, targets = check_scores(scores, targets)
    if len(label_names) != scores.shape[1] or len(groups) != len(scores):
        raise ValueError(
            f"expected names of {scores.shape[1]} classes and patients of {len(scores)} records, got "
            f"{len(label_names)} and {len(groups)}."
        )
    thresholds = np.full(scores.shape[1], np.nan) if thresholds is None else np.asarray(thresholds, np.float64)
    statistic = _statistic(scores, targets, thresholds)
    values = statistic(np.arange(len(scores)))
    samples, note = _resample(statistic, values, targets, groups, num_resamples, seed)
    positives = targets.sum(axis=0)
    return Judgement(
        tuple(label_names), values, samples, positives, len(scores), len(set(groups)),
        _left_out(label_names, positives, len(scores)), note,
    )  # fmt: skip


def difference(one: Judgement, other: Judgement, prefix: str = "") -> dict[str, Any]:
    """The means of `one` less those of `other`, with paired intervals: both judged on the same records, with one seed.

    Keys `macro_auroc/difference` with its bounds, and so on. Raises ValueError where classes or records differ.
    """
    if one.label_names != other.label_names or one.num_records != other.num_records:
        raise ValueError("difference: expected two judgements of the same classes on the same records.")
    figures: dict[str, Any] = {}
    for metric in METRICS:
        if one.macro(metric) is None or other.macro(metric) is None:
            continue
        key = f"{prefix}macro_{metric}"
        figures |= {f"{key}/other": other.macro(metric), f"{key}/difference": one.macro(metric) - other.macro(metric)}
        ours, theirs = one.macro_samples(metric), other.macro_samples(metric)
        if ours is not None and theirs is not None:
            bounds = interval_of(ours - theirs)
            figures |= {f"{key}/difference_low": bounds[0], f"{key}/difference_high": bounds[1]}
    return figures


# ----- steps ---------------------------------------------------------------------------------------------------------


def _statistic(scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`(3, C)`: the metrics of each class on records, by their numbers."""
    areas = areas_of_resample(scores, targets)
    has_threshold = np.isfinite(thresholds)
    predicted = scores >= thresholds  # False where the threshold is NaN

    def statistic(indices: np.ndarray) -> np.ndarray:
        weights = np.bincount(indices, minlength=len(scores))
        f1 = np.where(has_threshold, f1_scores(predicted, targets, weights), np.nan)
        return np.concatenate([areas(indices), f1[None]])

    return statistic


def _resample(
    statistic: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    targets: np.ndarray,
    groups: Sequence[Hashable],
    num_resamples: int,
    seed: int,
) -> tuple[np.ndarray | None, str]:
    if not np.isfinite(values[0]).any():
        return None, "no class has both labels"
    if num_resamples < 1:
        return None, ""
    try:
        return bootstrap_values(statistic, groups, targets, num_resamples, seed), ""
    except RareClassError as error:  # the figures stand without their interval: a test set may be small
        return None, str(error)


def _left_out(label_names: Sequence[str], positives: np.ndarray, num_records: int) -> dict[str, str]:
    reasons = {0: "no record has it", num_records: "every record has it"}
    return {name: reasons[n] for name, n in zip(label_names, positives.tolist(), strict=True) if n in reasons}


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
