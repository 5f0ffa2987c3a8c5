"""Verification: do two recordings come from one person? Pairs, and the equal error rate with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sampled import Sampled

MAX_IMPOSTOR_PAIRS = 1_000_000  # beyond that a seeded sample of the pairs is judged


@dataclass(frozen=True)
class VerificationPairs:
    """Scores of pairs of a probe and an enrolled recording, and the persons of the two.

    Attributes:
        genuine: scores of pairs of one person, any order.
        genuine_person: the person of each.
        impostor: scores of pairs of two persons.
        impostor_persons: `(pairs, 2)`: of the probe, of the enrolled recording.
    """

    genuine: np.ndarray
    genuine_person: np.ndarray
    impostor: np.ndarray
    impostor_persons: np.ndarray

    def sampled(self, num_resamples: int, seed: int = 0) -> Sampled:
        """The equal error rate with its resamples: persons are drawn, and a pair counts by both its persons."""
        persons, numbers = np.unique(self.genuine_person, return_inverse=True)
        rank = _Ranked.of(self.genuine, self.impostor)
        first, second = (_numbers_among(persons, column) for column in self.impostor_persons.T)

        def statistic(drawn: np.ndarray) -> np.ndarray:
            weights = np.bincount(drawn, minlength=len(persons)).astype(np.float64)
            weights = np.append(weights, 1.0)  # of persons that are enrolled but never probe: they are not drawn
            return np.array([rank.equal_error_rate(weights[numbers], weights[first] * weights[second])])

        return Sampled.of(["equal_error_rate"], statistic, range(len(persons)), num_resamples, seed)


def _numbers_among(persons: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of `wanted` in the sorted `persons`; `len(persons)` for those that are not there."""
    places = np.searchsorted(persons, wanted)
    is_there = persons[np.minimum(places, len(persons) - 1)] == wanted
    return np.where(is_there, places, len(persons))


def verification_pairs(
    probes: np.ndarray, gallery: np.ndarray, probe_persons: np.ndarray, gallery_persons: np.ndarray, seed: int = 0
) -> VerificationPairs:
    """All pairs of a probe and an enrolled recording, unit vectors `(P, width)` and `(G, width)`.

    Of impostor pairs beyond `MAX_IMPOSTOR_PAIRS` a random sample is taken: the same number for each probe.
    """
    genuine, impostor = [], []
    most = max(1, MAX_IMPOSTOR_PAIRS // len(probes))
    generator = np.random.default_rng(seed)
    for row, (probe, person) in enumerate(zip(probes, probe_persons, strict=True)):
        scores = gallery @ probe
        same = np.flatnonzero(gallery_persons == person)
        others = np.flatnonzero(gallery_persons != person)
        if len(others) > most:
            others = np.sort(generator.choice(others, most, replace=False))
        genuine.append((np.full(len(same), row), same, scores[same]))
        impostor.append((np.full(len(others), row), others, scores[others]))
    (g_rows, _, g_scores), (i_rows, i_columns, i_scores) = (
        tuple(np.concatenate(part) for part in zip(*pairs, strict=True)) for pairs in (genuine, impostor)
    )
    two = np.stack([probe_persons[i_rows], gallery_persons[i_columns]], axis=1)
    return VerificationPairs(g_scores, probe_persons[g_rows], i_scores, two)


def equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Where the share of impostors let in equals the share of rightful persons turned away.

    It is read where the straight lines between neighbouring points of the ROC curve meet the line of equal errors, so
    that scores which tell nothing apart give 0.5.

    Args:
        genuine, impostor: scores of pairs of one person, of two; higher is more alike.

    Raises:
        ValueError: where one of them is empty, or not finite.

    >>> equal_error_rate(np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.3, 0.2]))
    0.3333333333333333
    """
    return _Ranked.of(genuine, impostor).equal_error_rate(np.ones(len(genuine)), np.ones(len(impostor)))


@dataclass(frozen=True)
class _Ranked:
    """The steps of the ROC curve from high scores to low: impostors above a genuine score, then what is equal to it.

    Between two genuine scores only impostors come in, along a straight line: so the curve needs no more points than
    these, and a resample no sorting.

    Attributes:
        impostor_step: `(I,)`: 2k above the k-th distinct genuine score (and below the one before), 2k + 1 equal to it.
        genuine_step: `(G,)`: 2k + 1.
        num_steps: of all kinds.
    """

    impostor_step: np.ndarray
    genuine_step: np.ndarray
    num_steps: int

    @classmethod
    def of(cls, genuine: np.ndarray, impostor: np.ndarray) -> _Ranked:
        genuine, impostor = np.asarray(genuine, np.float64), np.asarray(impostor, np.float64)
        if not (len(genuine) and len(impostor) and np.isfinite(genuine).all() and np.isfinite(impostor).all()):
            raise ValueError(
                f"scores: expected finite ones of both kinds of pairs, got {len(genuine)} genuine, {len(impostor)} "
                "impostor: there must be two persons, and each probe's must be enrolled."
            )
        distinct = np.unique(genuine)
        above, tied = (np.searchsorted(distinct, impostor, side=side) for side in ("right", "left"))
        step = 2 * (len(distinct) - above) + (above > tied)
        own = 2 * (len(distinct) - 1 - np.searchsorted(distinct, genuine)) + 1
        return cls(step.astype(np.int32), own, 2 * len(distinct) + 1)

    def equal_error_rate(self, genuine_weights: np.ndarray, impostor_weights: np.ndarray) -> float:
        """With each pair counted so often."""
        come, found = (
            np.cumsum(np.bincount(steps, weights, self.num_steps))
            for steps, weights in (
                (self.impostor_step, impostor_weights),
                (self.genuine_step, genuine_weights),
            )
        )
        let_in, turned_away = np.append(0.0, come / come[-1]), np.append(1.0, 1 - found / found[-1])
        after = int(np.argmax(let_in >= turned_away))  # the last point has 1 and 0: there is one, and it is not first
        excess = turned_away - let_in
        share = excess[after - 1] / (excess[after - 1] - excess[after])
        return float(let_in[after - 1] + share * (let_in[after] - let_in[after - 1]))
