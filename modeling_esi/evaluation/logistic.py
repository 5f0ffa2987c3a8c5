"""L2 logistic regression of many labels at once: one-vs-rest, all classes in one matrix, fast on few cores.

Per class: minimise `mean log-loss + strength / 2 * |w|^2`, the intercept free; scikit-learn's `C` is
`1 / (strength * num_records)`. The features are rotated once to the axes of their covariance, in which the Hessian is
nearly diagonal; L-BFGS with that diagonal as its start then needs tens of passes over the records, for all strengths
and classes together (Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

MEMORY = 10
MAX_STEPS = 100
TOLERANCE = 1e-8  # of the mean log-loss
_MIN_CURVATURE = 1e-3  # of a rare class: p (1 - p) of its mean


@dataclass(frozen=True)
class LinearModel:
    """`scores = features @ weight + bias`: `weight (P, C)`, `bias (C,)`, float32, for features as they come."""

    weight: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """`(N, C)` logits of `features (N, P)`."""
        return np.asarray(features, np.float32) @ self.weight + self.bias


class LogisticRegression:
    """Training records, prepared once for fits at any strength.

    Args:
        features: `(N, P)`.
        targets: `(N, C)` of 0 and 1. A class without both labels gets its prior as a constant score.

    Raises:
        ValueError: for shapes that do not fit, or features that are not finite.

    >>> features, targets = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[0], [0], [1], [1]])
    >>> model = next(LogisticRegression(features, targets).path([0.1]))
    >>> (model.scores(features)[:, 0] > 0).tolist()
    [False, False, True, True]
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        features, targets = _check(features, targets)
        self._mean = features.mean(dim=0)
        self._scale = features.std(dim=0, correction=0).clamp_min(1e-6)
        standard = (features - self._mean) / self._scale
        variances, self._axes = torch.linalg.eigh((standard.T @ standard / len(standard)).double())
        self._axes = self._axes.float()
        rotated = standard @ self._axes
        self._design = torch.cat([rotated, torch.ones(len(rotated), 1)], dim=1)  # last: the intercept
        self._variances = torch.cat([variances.clamp_min(0).float(), torch.ones(1)])
        self._targets = targets

    def path(self, strengths: Iterable[float]) -> Iterator[LinearModel]:
        """A model for each strength, fitted when it is asked for; each starts from the one before: strong to weak."""
        weights = torch.zeros(self._design.shape[1], self._targets.shape[1])
        weights[-1] = torch.logit(self._targets.mean(dim=0).clamp(1e-4, 1 - 1e-4))
        for strength in strengths:
            weights = self._minimise(weights, strength)
            yield self._in_own_units(weights)

    def _minimise(self, weights: torch.Tensor, strength: float) -> torch.Tensor:
        """L-BFGS; each step is two products with the records: logits along the direction, and the gradient."""
        penalty = torch.full((len(weights), 1), strength)
        penalty[-1] = 0
        prior = self._targets.mean(dim=0)
        curvature = (prior * (1 - prior)).clamp_min(_MIN_CURVATURE)
        diagonal = self._variances[:, None] * curvature + penalty  # (P + 1, C), of the Hessian at the prior
        logits = self._design @ weights
        loss, gradient = self._loss(logits, weights, penalty), self._gradient(logits, weights, penalty)
        history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for _ in range(MAX_STEPS):
            direction = -_two_loops(gradient, history, diagonal)
            slope = (gradient * direction).sum(dim=0)
            if -slope.min() < TOLERANCE:  # twice what could still be gained, were the estimate exact
                break
            along = self._design @ direction
            step, new_loss = self._line_search(weights, direction, logits, along, loss, slope, penalty)
            change = step * direction
            weights, logits = weights + change, logits + step * along
            turn = (new_gradient := self._gradient(logits, weights, penalty)) - gradient
            history = [*history[1 - MEMORY :], (change, turn, (change * turn).sum(dim=0))]
            gained, loss, gradient = (loss - new_loss).max(), new_loss, new_gradient
            if gained < TOLERANCE / 10:
                break
        return weights

    def _loss(self, logits: torch.Tensor, weights: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        """`(C,)` float64."""
        loss = (F.softplus(logits) - self._targets * logits).mean(dim=0, dtype=torch.float64)
        return loss + (penalty * weights.square()).sum(dim=0, dtype=torch.float64) / 2

    def _gradient(self, logits: torch.Tensor, weights: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        """`(P + 1, C)`."""
        return self._design.T @ (torch.sigmoid(logits) - self._targets) / len(logits) + penalty * weights

    def _line_search(
        self, weights: torch.Tensor, direction: torch.Tensor, logits: torch.Tensor, along: torch.Tensor,
        loss: torch.Tensor, slope: torch.Tensor, penalty: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """For each class the first of 1, 1/2, 1/4, ... that lowers its loss enough (Armijo), and that loss."""
        step = torch.ones(weights.shape[1])
        for _ in range(20):
            tried = self._loss(logits + step * along, weights + step * direction, penalty)
            too_far = tried > loss + 1e-4 * step * slope + 1e-9
            if not too_far.any():
                break
            step = torch.where(too_far, step / 2, step)
        return step, tried

    def _in_own_units(self, weights: torch.Tensor) -> LinearModel:
        weight = (self._axes @ weights[:-1]) / self._scale[:, None]
        return LinearModel(weight.numpy(), (weights[-1] - self._mean @ weight).numpy())


def _two_loops(
    gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], diagonal: torch.Tensor
) -> torch.Tensor:
    """The inverse Hessian's estimate times the gradient, each class with its own history (algorithm 7.4)."""
    vector, alphas = gradient.clone(), []
    for change, turn, product in reversed(history):
        alpha = _ratio((change * vector).sum(dim=0), product)
        vector -= alpha * turn
        alphas.append(alpha)
    vector = vector / diagonal
    for (change, turn, product), alpha in zip(history, reversed(alphas), strict=True):
        vector += change * (alpha - _ratio((turn * vector).sum(dim=0), product))
    return vector


def _ratio(numerator: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """0 for a class whose last step shows no curvature: it has arrived."""
    return torch.where(curvature > 1e-12, numerator / curvature.clamp_min(1e-12), torch.zeros_like(numerator))


def _check(features: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    features, targets = np.asarray(features, np.float32), np.asarray(targets)
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or 0 in features.shape:
        raise ValueError(f"expected features (N, P) and targets (N, C), got {features.shape} and {targets.shape}.")
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers, got others: look at the embeddings.")
    return torch.from_numpy(features), torch.from_numpy(targets.astype(np.float32))
