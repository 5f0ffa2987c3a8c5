"""L2 logistic regression of many labels at once: one-vs-rest, all classes in one matrix, fast on few cores.

Per class: minimise `mean log-loss + strength / 2 * |w|^2`, the intercept free; scikit-learn's `C` is
`1 / (strength * num_records)`. The features are rotated once to the axes of their covariance, in which the Hessian is
nearly diagonal; L-BFGS with that diagonal as its start then needs few passes over the records, for all strengths and
classes together (Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 3.1). A class that has arrived takes no
further part: a rare one, which weak strengths let run far, makes no work for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

MEMORY = 10
MAX_STEPS = 100
TOLERANCE = 1e-4  # of the scores: root mean square of what another step would still change, over the training records
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
        features, self._targets = _check(features, targets)
        self._mean = features.mean(dim=0)
        self._scale = features.std(dim=0, correction=0).clamp_min(1e-6)
        standard = (features - self._mean) / self._scale
        variances, axes = torch.linalg.eigh((standard.T @ standard / len(standard)).double())
        self._variances, self._axes = variances.clamp_min(0).float(), axes.float()
        self._features = standard @ self._axes  # (N, P), uncorrelated

    def path(self, strengths: Iterable[float]) -> Iterator[LinearModel]:
        """A model for each strength, fitted when it is asked for; each starts from the one before: strong to weak."""
        weights = torch.zeros(len(self._targets), self._features.shape[1] + 1)  # last: the intercept
        weights[:, -1] = torch.logit(self._targets.mean(dim=1).clamp(1e-4, 1 - 1e-4))
        for strength in strengths:
            weights = self._minimise(weights, strength)
            yield self._in_own_units(weights)

    def _minimise(self, weights: torch.Tensor, strength: float) -> torch.Tensor:
        """L-BFGS of all classes, each until its scores stand."""
        weights, classes = weights.clone(), torch.arange(len(weights))
        at = self._start(weights, strength)
        for _ in range(MAX_STEPS):
            direction = -_two_loops(at)
            slope = (at.gradient * direction).sum(dim=1)
            enough = at.hessian[:, -1] * TOLERANCE**2  # curvature x mean square change of scores is about -slope
            moving = (-slope >= enough) & (at.gained >= enough / 10)
            weights[classes[~moving]] = at.weights[~moving]
            if not moving.any():
                return weights
            if not moving.all():
                at, classes, direction, slope = at.only(moving), classes[moving], direction[moving], slope[moving]
            at = self._step(at, direction, slope)
        weights[classes] = at.weights
        return weights

    def _start(self, weights: torch.Tensor, strength: float) -> _Place:
        prior = self._targets.mean(dim=1, keepdim=True)
        curvature = (prior * (1 - prior)).clamp_min(_MIN_CURVATURE)
        hessian = torch.cat([curvature * self._variances + strength, curvature], dim=1)
        logits = self._logits(weights)
        loss = _loss(weights, logits, self._targets, strength)
        gradient = self._gradient(weights, logits, self._targets, strength)
        endless = torch.full_like(loss, torch.inf)
        return _Place(weights, logits, self._targets, hessian, loss, endless, gradient, strength)

    def _step(self, at: _Place, direction: torch.Tensor, slope: torch.Tensor) -> _Place:
        """Two products with the records: logits along the direction, and the gradient where it led."""
        along = self._logits(direction)
        step, loss = _line_search(at, direction, along, slope)
        change = step * direction
        weights, logits = at.weights + change, at.logits + step * along
        gradient = self._gradient(weights, logits, at.targets, at.strength)
        turn = gradient - at.gradient
        return replace(
            at, weights=weights, logits=logits, loss=loss, gained=at.loss - loss, gradient=gradient,
            history=(*at.history[1 - MEMORY :], (change, turn, (change * turn).sum(dim=1, keepdim=True))),
        )  # fmt: skip

    def _logits(self, weights: torch.Tensor) -> torch.Tensor:
        """`(C, N)`: with the classes first, the products with the records take two thirds of the time."""
        return torch.addmm(weights[:, -1:], weights[:, :-1], self._features.T)

    def _gradient(
        self, weights: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, strength: float
    ) -> torch.Tensor:
        """`(C, P + 1)`."""
        wrong = (torch.sigmoid(logits) - targets) / logits.shape[1]
        return torch.cat([wrong @ self._features + strength * weights[:, :-1], wrong.sum(dim=1, keepdim=True)], dim=1)

    def _in_own_units(self, weights: torch.Tensor) -> LinearModel:
        weight = (self._axes @ weights[:, :-1].T) / self._scale[:, None]
        return LinearModel(weight.numpy(), (weights[:, -1] - self._mean @ weight).numpy())


@dataclass(frozen=True)
class _Place:
    """Where the descent of some classes stands; the first axis of each tensor is the class.

    Attributes:
        weights: `(C, P + 1)`, the intercept last.
        logits, targets: `(C, N)`.
        hessian: as `weights`, its diagonal where all records have the class's share of positives as probability.
        loss: `(C,)` float64.
        gained: `(C,)` float64, by the step before.
        gradient: as `weights`.
        strength: of the penalty.
        history: of the last steps the change of weights, of gradients, and the product of the two.
    """

    weights: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    hessian: torch.Tensor
    loss: torch.Tensor
    gained: torch.Tensor
    gradient: torch.Tensor
    strength: float
    history: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...] = ()

    def only(self, classes: torch.Tensor) -> _Place:
        """Of some classes, `(C,)` bool."""
        history = tuple(tuple(part[classes] for part in step) for step in self.history)
        names = ("weights", "logits", "targets", "hessian", "loss", "gained", "gradient")
        return replace(self, history=history, **{name: getattr(self, name)[classes] for name in names})


def _loss(weights: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, strength: float) -> torch.Tensor:
    """`(C,)` float64."""
    loss = (F.softplus(logits) - targets * logits).mean(dim=1, dtype=torch.float64)
    return loss + strength / 2 * weights[:, :-1].square().sum(dim=1, dtype=torch.float64)


def _line_search(
    at: _Place, direction: torch.Tensor, along: torch.Tensor, slope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each class the first of 1, 1/2, 1/4, ... that lowers its loss enough (Armijo), `(C, 1)`, and that loss."""
    step = torch.ones(len(direction), 1)
    for _ in range(20):
        tried = _loss(at.weights + step * direction, at.logits + step * along, at.targets, at.strength)
        too_far = tried > at.loss + 1e-4 * step[:, 0] * slope + 1e-9
        if not too_far.any():
            break
        step = torch.where(too_far[:, None], step / 2, step)
    return step, tried


def _two_loops(at: _Place) -> torch.Tensor:
    """The inverse Hessian's estimate times the gradient, each class with its own history (algorithm 7.4)."""
    vector, alphas = at.gradient.clone(), []
    for change, turn, product in reversed(at.history):
        alpha = _ratio((change * vector).sum(dim=1, keepdim=True), product)
        vector -= alpha * turn
        alphas.append(alpha)
    vector /= at.hessian
    for (change, turn, product), alpha in zip(at.history, reversed(alphas), strict=True):
        vector += change * (alpha - _ratio((turn * vector).sum(dim=1, keepdim=True), product))
    return vector


def _ratio(numerator: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """0 for a class whose last step shows no curvature: it has arrived."""
    return torch.where(curvature > 1e-12, numerator / curvature.clamp_min(1e-12), torch.zeros_like(numerator))


def _check(features: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Features `(N, P)` and targets `(C, N)`."""
    features, targets = np.asarray(features, np.float32), np.asarray(targets)
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or 0 in features.shape:
        raise ValueError(f"expected features (N, P) and targets (N, C), got {features.shape} and {targets.shape}.")
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers, got others: look at the embeddings.")
    return torch.from_numpy(features), torch.from_numpy(targets.T.astype(np.float32, order="C"))
