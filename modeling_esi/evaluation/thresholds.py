"""From a score to yes or no, and to a probability: both chosen on validation records, for others."""

from __future__ import annotations

import numpy as np

from .logistic import LogisticRegression
from .metrics import check_scores


def best_f1_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each class the score from which "yes" gives the highest F1, `(C,)`; NaN for a class without positives.

    To be called with validation records: a threshold chosen on the test set makes its F1 too high. Of equally good
    thresholds the highest is taken.

    Args:
        scores: `(N, C)`.
        targets: `(N, C)` of 0 and 1.

    >>> best_f1_thresholds([[0.1], [0.4], [0.35], [0.8]], [[0], [0], [1], [1]]).tolist()
    [0.35]
    """
    scores, targets = check_scores(scores, targets)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    found = np.cumsum(np.take_along_axis(targets, order, axis=0), axis=0)  # true positives with so many "yes"
    predicted = np.arange(1, len(scores) + 1)[:, None]
    f1 = 2 * found / (predicted + found[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold parts equal scores
    best = np.take_along_axis(ranked, f1.argmax(axis=0)[None], axis=0)[0].astype(np.float64)
    return np.where(found[-1] > 0, best, np.nan)


def f1_scores(predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """F1 of each class, `(C,)`; NaN for a class without positives.

    `predicted`, `targets`: `(N, C)` bool; record i counts `weights[i]` times.

    >>> f1_scores(np.array([[True], [True], [False]]), np.array([[True], [False], [True]])).tolist()
    [0.5]
    """
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    found, said, held = (weights @ part for part in (predicted & targets, predicted, targets))
    return np.divide(2 * found, said + held, out=np.full(targets.shape[1], np.nan), where=held > 0)


def f1_per_class(scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """F1 of each class with "yes" from its threshold on, `(C,)`; NaN without a threshold or without positives.

    Equal to scikit-learn's `f1_score` of `scores >= thresholds`. Errors as in `metrics.auroc_per_class`, and ValueError
    for another number of thresholds.
    """
    scores, targets = check_scores(scores, targets)
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (scores.shape[1],):
        raise ValueError(f"thresholds: expected one for each of {scores.shape[1]} classes, got {thresholds.shape}.")
    return np.where(np.isnan(thresholds), np.nan, f1_scores(scores >= thresholds, targets))


def probabilities_of(scores: np.ndarray, known_scores: np.ndarray, known_targets: np.ndarray) -> np.ndarray:
    """Probabilities `(n, C)` of scores that are none, such as cosines: a logistic curve for each class (Platt 1999).

    Args:
        scores: `(n, C)`.
        known_scores, known_targets: `(m, C)` of validation records, on which the curves are fitted (L2, scikit-learn's
            C = 1). A class without both labels there gets its share of positives as probability of every record.

    Raises:
        ValueError: as `metrics.auroc_per_class`.

    >>> probabilities_of([[0.2], [0.9]], [[0.1], [0.3], [0.7], [0.8]], [[0], [0], [1], [1]]).round(1).tolist()
    [[0.3], [0.8]]
    """
    known_scores, known_targets = check_scores(known_scores, known_targets)
    logits = [
        next(LogisticRegression(known[:, None], targets[:, None]).path([1 / len(targets)])).scores(column[:, None])
        for column, known, targets in zip(np.asarray(scores).T, known_scores.T, known_targets.T, strict=True)
    ]
    return 1 / (1 + np.exp(-np.concatenate(logits, axis=1).astype(np.float64)))
