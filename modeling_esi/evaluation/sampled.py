"""Figures with their values on each resample of patients: intervals, and paired differences between two models."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .metrics import RareClassError, bootstrap_values, interval_of

if TYPE_CHECKING:
    from .results import Result


@dataclass(frozen=True)
class Sampled:
    """What one model reaches.

    Attributes:
        values: the figures by name; None where there is none.
        samples: `(R,)` for each name that has an interval: the figure on each resample of patients.
        facts: what has no interval: counts, references, figures of single classes.
        notes: by name, why there is no interval.
    """

    values: Mapping[str, float | None]
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        statistic: Callable[[np.ndarray], np.ndarray],
        groups: Sequence[Hashable],
        num_resamples: int,
        seed: int = 0,
        targets: np.ndarray | None = None,
    ) -> Sampled:
        """From a statistic of record numbers that gives all the named figures at once.

        Args:
            names: of the figures.
            statistic: record numbers `(n,)` to `(len(names),)`.
            groups, seed, targets: as in `metrics.bootstrap_values`; equal ones make two models' samples pairs.
            num_resamples: 0: no intervals.
        """
        values = statistic(np.arange(len(groups)))
        named = dict(zip(names, np.asarray(values, np.float64).tolist(), strict=True))
        if not num_resamples:
            return cls(named)
        try:
            samples = bootstrap_values(statistic, groups, targets, num_resamples, seed)
        except RareClassError as error:  # the figures stand without their intervals: a test set may be small
            return cls(named, notes=dict.fromkeys(names, str(error)))
        return cls(named, dict(zip(names, samples.T, strict=True)))

    def __or__(self, other: Sampled) -> Sampled:
        """The figures of both."""
        return Sampled(
            {**self.values, **other.values}, {**self.samples, **other.samples}, {**self.facts, **other.facts},
            {**self.notes, **other.notes},
        )  # fmt: skip

    def figures(self, prefix: str = "") -> dict[str, Any]:
        """Flat keys: each figure with `_low` and `_high` of its 95 % interval, or `_note`; then the facts."""
        found: dict[str, Any] = {}
        for name, value in self.values.items():
            found[name] = value
            if name in self.samples:
                found |= _bounds(name, self.samples[name])
            if name in self.notes:
                found[f"{name}_note"] = self.notes[name]
        return {f"{prefix}{key}": value for key, value in (found | dict(self.facts)).items()}

    def difference(self, other: Sampled, prefix: str = "") -> dict[str, Any]:
        """`{name}/other` and `{name}/difference` (this less the other) with its paired interval."""
        found: dict[str, Any] = {}
        for name, value in self.values.items():
            theirs = other.values.get(name)
            if value is None or theirs is None:
                continue
            found |= {f"{name}/other": theirs, f"{name}/difference": value - theirs}
            if name in self.samples and name in other.samples:
                found |= _bounds(f"{name}/difference", self.samples[name] - other.samples[name])
        return {f"{prefix}{key}": value for key, value in found.items()}


def add_sampled(result: Result, judge: Callable[[str, int], Sampled], roles: Sequence[str], num_resamples: int) -> None:
    """Judge each model and put its figures into `result`; the floor goes without intervals.

    Args:
        result: gets `trained`, `random_weights` and, where a second model is judged, `compared`.
        judge: a role and a number of resamples to figures.
        roles: of `EvaluationContext.models`.
        num_resamples: of patients.
    """
    judged = {role: judge(role, 0 if role == "random_weights" else num_resamples) for role in roles}
    result.trained |= judged["trained"].figures()
    if "random_weights" in judged:
        result.random_weights |= judged["random_weights"].figures()
    if "compared" in judged:
        result.compared |= judged["trained"].difference(judged["compared"])


def _bounds(name: str, samples: np.ndarray) -> dict[str, float]:
    low, high = interval_of(samples)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}
