"""Linear probe: a linear model on frozen embeddings, trained with 1 %, 10 % and 100 % of the labels.

Two named methods. `merl`: MERL's (arXiv 2403.06659): AdamW, cosine schedule, 100 epochs of which 5 warm up, batch 16,
learning rate 1e-3. `logistic`: L2 logistic regression, one-vs-rest, one strength for all classes. What is chosen
(strength, epoch, thresholds of F1) is chosen on validation records, scaling is learned on training records; the test
records are scored at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from .context import SPLIT_NAMES
from .label_tasks import LabelTask, check_no_leak
from .logistic import LinearModel, LogisticRegression
from .metrics import auroc, macro
from .probe_file import save_probe
from .probe_training import train_linear
from .results import Result
from .task_results import add_task, empty_result, leave_out_empty, note_unlearnable
from .task_sources import load_tasks
from .thresholds import best_f1_thresholds

if TYPE_CHECKING:
    from .context import EvaluationContext

METHODS = ("logistic", "merl")
INVERSE_STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 5))  # scikit-learn's C, strong to weak
PROTOCOL = (
    "Linear probe on frozen {layer} embeddings, method {method}: {how}. Shares of the training labels by "
    "scikit-learn's train_test_split(train_size=share, random_state=seed), seeds {seeds}; figures with intervals are "
    "of the first seed."
)
HOW = {
    "logistic": "L2 logistic regression, one-vs-rest, features standardised on the training records, one strength for "
    "all classes by the macro AUROC on validation records",
    "merl": "AdamW, cosine, {epochs} epochs of which 5 warm up, batch 16, learning rate 1e-3, weight decay 0.01; the "
    "epoch by the macro AUROC on validation records",
}


@dataclass(frozen=True)
class Probe:
    """A fitted probe: the linear model, the thresholds chosen on validation records, and what else was chosen."""

    model: LinearModel
    thresholds: np.ndarray
    chosen: dict[str, Any]


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], tuple[LinearModel, dict[str, Any]]]


@dataclass(frozen=True)
class _Plan:
    """What all probes of a run share: the method, the seeds, the layer, whether subgroups are judged, the bar."""

    fit: Fit
    seeds: Sequence[int]
    layer: str
    subgroups: bool
    bar: Any

    def seeds_of(self, fraction: float) -> Sequence[int]:
        """One where there is nothing to draw: the same records, and a method without random numbers."""
        return self.seeds[:1] if fraction == 1 and self.fit is fit_logistic else self.seeds


def run(
    context: EvaluationContext,
    *,
    tasks: Sequence[str] | None = None,
    method: str = "logistic",
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: Sequence[int] = (42, 43, 44),
    epochs: int = 100,
    layer: str = "pooled",
    split_dir: str | None = None,
    split_labels: str = "columns",
    subgroups: bool = True,
) -> Result:
    """Train a linear model on frozen embeddings, and judge it on the test records of each task.

    At the largest share ROC curves and calibration are drawn and the probe is kept, as probe_TASK.npz, in the output
    folder.

    Args:
        tasks: which of the data set's tasks; default: every one.
        method: "logistic" (L2 logistic regression) or "merl" (AdamW as in MERL).
        fractions: shares of the training labels.
        seeds: of the shares, and of the training of "merl"; the first one's figures get intervals.
        epochs: of "merl".
        layer: "pooled", the encoder's own vector, or "projected", the space shared with the texts.
        split_dir: folder of MERL's split files (*_train.csv, *_val.csv, *_test.csv), which name records and labels.
        split_labels: of these files, "columns" as published, or "diagnoses".
        subgroups: also judge by sex, age band and device, at the largest share.

    Raises:
        ValueError: for arguments that make no sense, or data without training or validation records.
    """
    _check_arguments(method, fractions, seeds)
    how = HOW[method].format(epochs=epochs)
    protocol = PROTOCOL.format(layer=layer, method=method, how=how, seeds=", ".join(map(str, seeds)))
    result = empty_result(context, "linear_probe", protocol, method=method, layer=layer, seeds=list(seeds), chosen={})
    fit: Fit = fit_logistic if method == "logistic" else _merl_fit(epochs)
    found = load_tasks(context, tasks, split_dir, split_labels)
    found = leave_out_empty(result, found, SPLIT_NAMES, are_named=tasks is not None)
    with tqdm(desc="linear probe", unit=" fits", disable=not context.progress) as bar:
        plan = _Plan(fit, seeds, layer, subgroups, bar)
        bar.total = len(found) * sum(len(plan.seeds_of(share)) + len(context.models()) - 1 for share in fractions)
        for task in found:
            result.notes += check_no_leak(context, task)
            for fraction in fractions:
                _add_fraction(result, context, task, fraction, plan, fraction == max(fractions))
    return result


def fit_probe(
    embeds: dict[str, np.ndarray], targets: dict[str, np.ndarray], rows: np.ndarray, fit: Fit, seed: int
) -> Probe:
    """A probe from training records and validation records alone.

    Args:
        embeds, targets: `(n, P)` and `(n, C)`, by split: `train` and `validation`. Others are not looked at.
        rows: which training records.
        fit: the method.
        seed: of its training.
    """
    chosen_on = embeds["validation"], targets["validation"]
    model, chosen = fit(embeds["train"][rows], targets["train"][rows], *chosen_on, seed)
    return Probe(model, best_f1_thresholds(model.scores(chosen_on[0]), chosen_on[1]), chosen)


def share_of(num_records: int, fraction: float, seed: int) -> np.ndarray:
    """`(n,)`: numbers of the training records of a share. Raises ValueError for one without any record.

    >>> len(share_of(17084, 0.01, 42)), len(share_of(17084, 1.0, 42))
    (170, 17084)
    """
    if fraction >= 1:
        return np.arange(num_records)
    return np.asarray(train_test_split(np.arange(num_records), train_size=fraction, random_state=seed)[0])


def fit_logistic(
    features: np.ndarray,
    targets: np.ndarray,
    validation_features: np.ndarray,
    validation_targets: np.ndarray,
    seed: int = 0,
) -> tuple[LinearModel, dict[str, Any]]:
    """L2 logistic regression at the strength that is best on validation records.

    Strengths are tried from strong to weak, ten times weaker each, until two in a row are no better than the best.

    Returns:
        The model, and what was chosen: `C` as scikit-learn defines it; `is_at_edge`, where the first or last one won.
    """
    records = LogisticRegression(features, targets)
    best: tuple[float, float, LinearModel] | None = None
    since_best = 0
    for inverse, model in zip(
        INVERSE_STRENGTHS, records.path(1 / (c * len(features)) for c in INVERSE_STRENGTHS), strict=True
    ):
        area = _macro_auroc(model.scores(validation_features), validation_targets)
        since_best += 1
        if best is None or area > best[0]:
            best, since_best = (area, inverse, model), 0
        if since_best == 2:
            break
    area, inverse, model = best
    chosen = {"C": inverse, "is_at_edge": inverse in (INVERSE_STRENGTHS[0], INVERSE_STRENGTHS[-1])}
    return model, chosen | {"validation_macro_auroc": area}


# ----- steps ---------------------------------------------------------------------------------------------------------


def _add_fraction(
    result: Result, context: EvaluationContext, task: LabelTask, fraction: float, plan: _Plan, is_largest: bool
) -> None:
    prefix = f"{task.name}/{100 * fraction:g}%"
    seeds, num_records = plan.seeds_of(fraction), len(task.splits["train"])
    try:
        shares = {seed: share_of(num_records, fraction, seed) for seed in seeds}
    except ValueError as error:
        result.left_out[prefix] = f"too few training records ({num_records}): {error}"
        return
    scores, thresholds = {}, {}
    for role in context.models():
        embeds = {split: rows.embeds(context, role, plan.layer) for split, rows in task.splits.items()}
        targets = {split: rows.targets for split, rows in task.splits.items() if split != "test"}
        known = {split: of_split for split, of_split in embeds.items() if split != "test"}
        plan.bar.set_postfix_str(f"{prefix} {role}")
        probe = fit_probe(known, targets, shares[seeds[0]], plan.fit, seeds[0])
        plan.bar.update()
        scores[role], thresholds[role] = probe.model.scores(embeds["test"]), probe.thresholds
        result.settings["chosen"][f"{prefix}/{role}"] = probe.chosen
        if role == "trained":
            kept, others = probe.model, []
            for seed in seeds[1:]:
                others.append(fit_probe(known, targets, shares[seed], plan.fit, seed).model.scores(embeds["test"]))
                plan.bar.update()
    add_task(
        result, context, task, scores, thresholds, prefix, plan.subgroups and is_largest,
        expit(scores["trained"].astype(np.float64)), is_largest,
    )  # fmt: skip
    if is_largest and context.output is not None:
        save_probe(context.output / f"probe_{task.name}.npz", kept, task.label_names, plan.layer)
    _add_seeds(result, prefix, task, [scores["trained"], *others], len(shares[seeds[0]]))
    note_unlearnable(result, prefix, task, shares[seeds[0]])


def _add_seeds(result: Result, prefix: str, task: LabelTask, scores: list[np.ndarray], num_train: int) -> None:
    areas = [_macro_auroc(of_seed, task.splits["test"].targets) for of_seed in scores]
    result.trained[f"{prefix}/num_train_records"] = num_train
    result.trained[f"{prefix}/macro_auroc_mean_of_seeds"] = float(np.mean(areas))
    result.trained[f"{prefix}/macro_auroc_std_of_seeds"] = float(np.std(areas))


def _merl_fit(epochs: int) -> Fit:
    def fit(
        features: np.ndarray, targets: np.ndarray, validation_features: np.ndarray, validation_targets: np.ndarray,
        seed: int = 0,
    ) -> tuple[LinearModel, dict[str, Any]]:  # fmt: skip
        def judge(model: LinearModel) -> float:
            return _macro_auroc(model.scores(validation_features), validation_targets)

        model, epoch, area = train_linear(features, targets, judge, epochs=epochs, seed=seed)
        return model, {"epoch": epoch, "validation_macro_auroc": area}

    return fit


def _macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """The mean over classes with both labels; one half where there is none."""
    area = macro(value for value in auroc(scores, targets) if np.isfinite(value))
    return 0.5 if area is None else area


def _check_arguments(method: str, fractions: Sequence[float], seeds: Sequence[int]) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions) or not seeds:
        raise ValueError(f"expected shares above 0 and at most 1, and at least one seed, got {fractions}, {seeds}.")
