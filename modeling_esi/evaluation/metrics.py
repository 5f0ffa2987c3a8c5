"""Metrics as pure functions of numpy arrays: nothing here knows a model or a data set."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], float]

MAX_DRAWS_PER_RESAMPLE = 1000
_DRAWS_AT_ONCE = 256


class RareClassError(ValueError):
    """A class has its two labels in so few patients that hardly any resample shows both."""


# ----- area under the ROC curve --------------------------------------------------------------------------------------


def auroc_per_class(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    """Area under the ROC curve of each class, by name, in the order of `names`.

    Args:
        scores: `(N, C)`, higher where the label is more likely.
        targets: `(N, C)` of 0 and 1.
        names: the C classes.

    Returns:
        The area, equal to scikit-learn's; None for a class without positives or without negatives, which has none.

    Raises:
        ValueError: for shapes that do not fit, scores that are not finite, or targets other than 0 and 1.

    >>> auroc_per_class([[0.1, 0.5], [0.8, 0.5], [0.4, 0.2]], [[0, 0], [1, 0], [1, 0]], ["AFIB", "LBBB"])
    {'AFIB': 1.0, 'LBBB': None}
    """
    areas = auroc(scores, targets)
    if len(names) != len(areas):
        raise ValueError(f"names: expected one for each of the {len(areas)} classes, got {len(names)}: {list(names)}.")
    return {name: None if np.isnan(area) else float(area) for name, area in zip(names, areas, strict=True)}


def auroc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class, `(C,)` float64; NaN where a class has not both labels.

    It is the share of (positive, negative) pairs in which the positive has the higher score, a tie counting half.
    Arguments and errors as in `auroc_per_class`.
    """
    ranking = _Ranking.of(*check_scores(scores, targets))
    return ranking.areas(np.ones(len(ranking.order)))[0]


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision (AUPRC) of each class, `(C,)` float64, equal to scikit-learn's; NaN without positives.

    Without skill it is the share of positives, not one half. Arguments and errors as in `auroc_per_class`.
    """
    ranking = _Ranking.of(*check_scores(scores, targets))
    return ranking.areas(np.ones(len(ranking.order)))[1]


def areas_of_resample(scores: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`(2, C)`, AUROC and AUPRC of each class, as a function of record numbers; sorts the scores only once.

    NaN where the drawn records lack a label. Errors as in `auroc_per_class`.
    """
    ranking = _Ranking.of(*check_scores(scores, targets))

    def areas(indices: np.ndarray) -> np.ndarray:
        return ranking.areas(np.bincount(indices, minlength=len(ranking.order)))

    return areas


def macro(values: Mapping[str, float | None] | Iterable[float | None]) -> float | None:
    """Mean over the classes that have a value; None where none has. Report those without beside it."""
    listed = [value for value in (values.values() if isinstance(values, Mapping) else values) if value is not None]
    return float(np.mean(listed)) if listed else None


def macro_auroc(scores: np.ndarray, targets: np.ndarray) -> Statistic:
    """Macro AUROC as a function of record numbers, for `bootstrap_interval`; sorts the scores only once.

    A class without both labels among the records does not enter the mean. Errors as in `auroc_per_class`.
    """
    ranking = _Ranking.of(*check_scores(scores, targets))

    def statistic(indices: np.ndarray) -> float:
        weights = np.bincount(indices, minlength=len(ranking.order))
        return float(np.nanmean(ranking.areas(weights)[0]))

    return statistic


@dataclass(frozen=True)
class _Ranking:
    """Records sorted by score, for each class; all `(N, C)`.

    `order` are record numbers, `positive` their labels; the records tied with the one at a place stand from
    `tie_start` to before `tie_stop`.
    """

    order: np.ndarray
    positive: np.ndarray
    tie_start: np.ndarray
    tie_stop: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray) -> _Ranking:
        order = np.argsort(scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=0)
        columns = [_ties(column) for column in ranked.T]
        start, stop = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
        return cls(order, np.take_along_axis(targets, order, axis=0), start, stop)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """`(2, C)`, AUROC and average precision, with record i counted `weights[i]` times.

        The first is exact but for the division where weights are whole numbers below 2^53. The second is the mean over
        the positives of the precision at their score.
        """
        counted = np.asarray(weights, np.float64)[self.order]
        positives = np.where(self.positive, counted, 0.0)
        before, positives_before = _cumulated(counted), _cumulated(positives)
        below, positives_below = (
            np.take_along_axis(sums, self.tie_start, axis=0) for sums in (before, positives_before)
        )
        negatives_before = before - positives_before
        lower_or_tied = np.take_along_axis(negatives_before, self.tie_stop, axis=0)
        total, nothing = positives_before[-1], np.full(positives.shape[1], np.nan)
        pairs_won = (positives * (below - positives_below + lower_or_tied)).sum(axis=0) / 2
        pairs = total * negatives_before[-1]
        found, predicted = total - positives_below, before[-1] - below
        precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
        return np.stack(
            [
                np.divide(pairs_won, pairs, out=nothing.copy(), where=pairs > 0),
                np.divide((positives * precision).sum(axis=0), total, out=nothing, where=total > 0),
            ]
        )


def _cumulated(values: np.ndarray) -> np.ndarray:
    """`(N + 1, C)`: the sum of the rows before each place."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _ties(ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each place of a sorted column, where its run of equal values starts and where the next run does."""
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    stops = np.r_[starts[1:], len(ranked)]
    return np.repeat(starts, stops - starts), np.repeat(stops, stops - starts)


def check_scores(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays `(N, C)`, the targets bool. Raises ValueError as `auroc_per_class` says."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise ValueError(f"scores, targets: expected (records, classes) for both, got {scores.shape}, {targets.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers, got {np.count_nonzero(~np.isfinite(scores))} that are not.")
    return scores, _check_labels(targets)


def _check_labels(targets: np.ndarray) -> np.ndarray:
    if not np.isin(targets, (0, 1)).all():
        wrong = targets[~np.isin(targets, (0, 1))][0]
        raise ValueError(f"targets: expected 0 and 1, got {wrong!r}: one column per class, 1 where the label holds.")
    return targets.astype(bool)


# ----- intervals -----------------------------------------------------------------------------------------------------


def bootstrap_interval(
    statistic: Statistic,
    groups: Sequence[Hashable],
    targets: np.ndarray | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling whole patients with replacement.

    Recordings of one patient resemble each other: to draw them one by one would make the interval too narrow. A draw
    in which a class that has both labels in the data would lose one is drawn again, as in the PTB-XL benchmark
    (Strodthoff et al. 2020, arXiv 2004.13701), so that every resample averages over the same classes.

    Args:
        statistic: takes record numbers `(n,)`, one repeated as often as it was drawn, and gives a number.
        groups: the patient of each of the N records.
        targets: `(N, C)` of 0 and 1, or None where nothing has to be drawn again.
        num_resamples: how many patients' draws.
        seed: of the draws.
        level: share of the resamples between the two numbers.

    Returns:
        `(low, high)`.

    Raises:
        RareClassError: where in `MAX_DRAWS_PER_RESAMPLE` draws for each resample too few show every label.
        ValueError: for arguments that make no sense.

    >>> low, high = bootstrap_interval(lambda indices: float(np.mean(indices < 50)), groups=range(100))
    >>> low < 0.5 < high
    True
    """
    low, high = interval_of(bootstrap_values(statistic, groups, targets, num_resamples, seed), level)
    return float(low), float(high)


def bootstrap_values(
    statistic: Callable[[np.ndarray], float | np.ndarray],
    groups: Sequence[Hashable],
    targets: np.ndarray | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """`(num_resamples, ...)`: a statistic, a number or an array, on each resample of `bootstrap_interval`.

    The draws depend on groups, targets and seed alone: the values of two models on the same records are pairs, and
    the interval of their differences is the paired one. Arguments and errors as in `bootstrap_interval`.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected at least 1, got {num_resamples}.")
    group_of_record = _number_groups(groups)
    draws = _draw_groups(group_of_record, targets, num_resamples, np.random.default_rng(seed))
    records = np.arange(len(group_of_record))
    return np.array([statistic(np.repeat(records, counts[group_of_record])) for counts in draws])


def interval_of(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """`(2, ...)`: the percentiles that hold `level` of the resamples, the first axis, between them."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share between 0 and 1, got {level}.")
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _number_groups(groups: Sequence[Hashable]) -> np.ndarray:
    """`(N,)`: 0 for the first group, 1 for the next new one, ..."""
    numbers: dict[Hashable, int] = {}
    numbered = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    if not len(numbered):
        raise ValueError("groups: expected one patient per record, got none.")
    return numbered


def _draw_groups(
    group_of_record: np.ndarray, targets: np.ndarray | None, num_resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """How often each group is drawn, `(G,)`, for each accepted resample."""
    num_groups = group_of_record.max() + 1
    must_see = _labels_by_group(group_of_record, targets)
    # numbers drawn and counted, each draw in places of its own: five times as fast as rng.multinomial
    first = num_groups * np.arange(_DRAWS_AT_ONCE)[:, None]
    accepted = 0
    for drawn in range(0, num_resamples * MAX_DRAWS_PER_RESAMPLE, _DRAWS_AT_ONCE):
        groups = rng.integers(num_groups, size=(_DRAWS_AT_ONCE, num_groups)) + first
        counts = np.bincount(groups.ravel(), minlength=first.size * num_groups).reshape(_DRAWS_AT_ONCE, num_groups)
        complete = (counts.astype(np.float32) @ must_see > 0).all(axis=1)
        for draw in counts[complete][: num_resamples - accepted]:
            accepted += 1
            yield draw
        if accepted == num_resamples:
            return
        if not accepted and drawn >= MAX_DRAWS_PER_RESAMPLE * 10:
            break  # hopeless: do not spend the whole budget
    raise RareClassError(_rare_class_message(must_see, accepted, num_resamples))


def _labels_by_group(group_of_record: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
    """`(G, 2 C')` float32: whether a group shows the positive, the negative label of a class that has both."""
    num_groups = group_of_record.max() + 1
    if targets is None:
        return np.ones((num_groups, 1), np.float32)
    targets = _check_labels(np.asarray(targets))
    if targets.ndim != 2 or len(targets) != len(group_of_record):
        raise ValueError(f"targets: expected ({len(group_of_record)} records, classes), got {targets.shape}.")
    has_both = targets.any(axis=0) & ~targets.all(axis=0)
    labels = np.concatenate([targets[:, has_both], ~targets[:, has_both]], axis=1)
    shown = np.zeros((num_groups, labels.shape[1]), np.float32)
    np.maximum.at(shown, group_of_record, labels.astype(np.float32))
    return shown


def _rare_class_message(must_see: np.ndarray, accepted: int, num_resamples: int) -> str:
    num_patients = np.sort(must_see.sum(axis=0).astype(int))
    return (
        f"bootstrap: expected {num_resamples} resamples in which every class has both labels, got {accepted}: of "
        f"{len(must_see)} patients, the rarest labels are carried by only {', '.join(map(str, num_patients[:5]))}. "
        "Leave out classes so rare, or judge on more patients."
    )


# ----- retrieval -----------------------------------------------------------------------------------------------------


def recall_at_k(
    similarity: np.ndarray, keys: Sequence[Hashable] | None = None, k: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Share of rows that have a right column among their k most similar ones.

    Right is every column with the row's key: records with identical statements are equally right answers, and to
    count them as errors would punish a model for being right. Columns of equal similarity are taken in random order,
    in expectation: a model that cannot tell anything apart gets exactly the chance level.

    Args:
        similarity: `(N, N)`; row i and column i belong together.
        keys: what makes two records the same answer (`text_key`), N of them; None: only column i is right for row i.
        k: how many columns are looked at.

    Raises:
        ValueError: where shape, keys or k do not fit.

    >>> recall_at_k(np.array([[0.9, 0.1], [0.8, 0.2]]), k=(1, 2))
    {1: 0.5, 2: 1.0}
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(f"similarity: expected (N, N), row i belonging to column i, got {similarity.shape}.")
    hits = hits_at_k(similarity, answers := number_answers(keys, len(similarity)), answers, k)
    return {depth: float(share) for depth, share in zip(k, hits.mean(axis=0), strict=True)}


def number_answers(keys: Sequence[Hashable] | None, num_records: int) -> np.ndarray:
    """`(N,)`: equal numbers where the keys are equal; all different without keys. ValueError for another length."""
    if keys is None:
        return np.arange(num_records)
    if len(keys) != num_records:
        raise ValueError(f"keys: expected one for each of the {num_records} records, got {len(keys)}.")
    return _number_groups(keys)


def hits_at_k(
    similarity: np.ndarray, row_answers: np.ndarray, column_answers: np.ndarray, k: Sequence[int]
) -> np.ndarray:
    """`(rows, len(k))`: the chance that a right column is among the k first, 0 or 1 where nothing is tied.

    `similarity (rows, columns)`; a column is right for a row whose answer number it has. ValueError for a k below 1 or
    similarities that are NaN.
    """
    if min(k, default=0) < 1:
        raise ValueError(f"k: expected numbers of columns from 1, got {tuple(k)}.")
    if np.isnan(similarity).any():
        raise ValueError("similarity: expected numbers, got NaN: look at the embeddings.")
    right = row_answers[:, None] == column_answers[None, :]
    best_right = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    tied = similarity == best_right
    num_better = (similarity > best_right).sum(axis=1)
    num_tied, num_right = tied.sum(axis=1), (tied & right).sum(axis=1)
    return np.stack([1 - _miss_chance(num_tied, num_right, depth - num_better) for depth in k], axis=1)


def _miss_chance(num_tied: np.ndarray, num_right: np.ndarray, num_drawn: np.ndarray) -> np.ndarray:
    """Chance that `num_drawn` of the tied columns, drawn without replacement, hold none of the right ones."""
    chance = np.ones(len(num_tied))
    for i in range(max(0, num_drawn.max(initial=0))):
        still_drawing = i < num_drawn
        wrong_left, left = np.maximum(num_tied - num_right - i, 0), np.maximum(num_tied - i, 1)
        chance = np.where(still_drawing, chance * wrong_left / left, chance)
    return chance
