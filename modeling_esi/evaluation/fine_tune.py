"""Fine-tuning: the whole ECG encoder with a linear head, trained with 1 %, 10 % and 100 % of the labels.

AdamW, a learning rate for each layer (see `layer_decay`), warm-up and half a cosine. The epoch and the thresholds of F1
are chosen on validation records; the test records are scored at the end, and their labels are looked at after that. The
floor is a model of the same configuration that starts from random weights and is trained on the same records: what the
pretraining adds is the distance to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from ..modeling_esi import ESIForECGClassification
from .classifier_training import (
    Choice,
    LabelledRecords,
    TrainingSettings,
    class_scores,
    mean_auroc,
    new_classifier,
    precision_on,
    train_classifier,
)
from .context import SPLIT_NAMES
from .label_tasks import LabelTask, TaskRows, check_no_leak
from .linear_probe import share_of
from .results import Result
from .saved_classifier import add_results, card_facts, check_new, chosen_license, label_thresholds, save_classifier
from .task_results import add_task, empty_result, leave_out_empty, note_unlearnable
from .task_sources import load_tasks
from .thresholds import best_f1_thresholds

if TYPE_CHECKING:
    import datasets

    from .context import EvaluationContext

PROTOCOL = (
    "Fine-tuning of the whole ECG encoder with a linear head: AdamW, {epochs} epochs, batches of {batch_size}, "
    "learning rate {lr:g} ({head_lr:g} in the head), times {layer_decay:g} for each layer further down (a layer is up "
    "to three blocks), weight decay {weight_decay:g}, warm-up and half a cosine; the epoch by the macro AUROC on "
    "validation records. Shares of the training labels by scikit-learn's train_test_split(train_size=share, "
    "random_state=seed), seeds {seeds}; figures with intervals are of the first seed. The floor is {floor}."
)
FLOOR = "the same fine-tuning of a model of the same configuration that starts from random weights"


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned classifier, the thresholds `(C,)` of F1 from validation records, and what else was chosen there."""

    classifier: ESIForECGClassification
    thresholds: np.ndarray
    choice: Choice


@dataclass(frozen=True)
class _Plan:
    """What all fine-tunings of a run share: how a model is trained, the seeds, where one is saved, its licence."""

    settings: TrainingSettings
    seeds: Sequence[int]
    save: Path | None
    license: str | None


def run(
    context: EvaluationContext,
    *,
    tasks: Sequence[str] | None = None,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: Sequence[int] = (42,),
    epochs: int = 30,
    train_batch_size: int = 32,
    lr: float = 5e-4,
    head_lr: float = 5e-3,
    layer_decay: float = 0.75,
    weight_decay: float = 0.05,
    warmup_ratio: float = 0.1,
    drop_path_rate: float = 0.1,
    crop: str = "random",
    precision: str | None = None,
    save: str | None = None,
    license: str | None = None,
    split_dir: str | None = None,
    split_labels: str = "columns",
    subgroups: bool = True,
) -> Result:
    """Train the whole encoder with a linear head, and judge it on the test records of each task.

    At the largest share ROC curves and calibration are drawn, where there is an output folder.

    Args:
        tasks: which of the data set's tasks; default: every one.
        fractions: shares of the training labels.
        seeds: of the shares, the head and the order of records; the first one's figures get intervals.
        epochs: passes over the training records.
        train_batch_size: records of a training step, at most.
        lr: learning rate of the encoder's last layer.
        head_lr: learning rate of the linear head, which starts from nothing: ten times that of the layer below it.
        layer_decay: share of the rate that each layer has of the layer above it (0.6 to 0.9 in the literature).
        weight_decay: of matrices; norms and biases have none.
        warmup_ratio: share of the steps in which the learning rate rises.
        drop_path_rate: of the last block in training (ConvNeXt V2; XResNet has none).
        crop: of records longer than the model's input, in training: "random", or "start" as everywhere else.
        precision: of training, "no" (float32), "bf16" or "fp16"; default: what a GPU has, float32 elsewhere.
        save: new folder for the fine-tuned model of the largest share, with its processor, thresholds and card; needs a
            single task.
        license: of the saved weights, for their card, as the Hub spells it; default: that of the model's card.
        split_dir: folder of MERL's split files (*_train.csv, *_val.csv, *_test.csv), which name records and labels.
        split_labels: of these files, "columns" as published, or "diagnoses".
        subgroups: also judge by sex, age band and device, at the largest share.

    Raises:
        ValueError: for arguments that make no sense, data without training or validation records, or a training that
            diverges.
    """
    context.refuse_window("fine_tune")
    _check_arguments(fractions, seeds)
    if license is not None and save is None:
        raise ValueError(f"license: expected with save, the folder whose card states it, got {license!r} alone.")
    settings = TrainingSettings(
        epochs, train_batch_size, lr, head_lr, layer_decay, weight_decay, warmup_ratio, drop_path_rate, crop,
        precision or precision_on(context.device),
    )  # fmt: skip
    found = load_tasks(context, tasks, split_dir, split_labels)
    how = asdict(settings) | {"seeds": list(seeds), "floor": FLOOR}
    protocol = PROTOCOL.format(**how | {"seeds": ", ".join(map(str, seeds))})
    result = empty_result(context, "fine_tune", protocol, **how, chosen={})
    found = leave_out_empty(result, found, SPLIT_NAMES, are_named=tasks is not None)
    plan = _Plan(settings, seeds, _check_save(save, found), chosen_license(license, context.card) if save else None)
    for task in found:
        result.notes += check_no_leak(context, task)
        for fraction in fractions:
            _add_fraction(result, context, task, fraction, plan, fraction == max(fractions), subgroups)
    return result


def fine_tune(
    context: EvaluationContext,
    task: LabelTask,
    rows: np.ndarray,
    settings: TrainingSettings,
    seed: int,
    role: str = "trained",
    progress: str | None = None,
) -> FineTuned:
    """A model fine-tuned on training records, chosen on validation records; no other record is read.

    Args:
        context: models and data.
        task: labels and records.
        rows: which of the task's training records.
        settings: how it is trained.
        seed: of the head, the order of records, crops and dropped paths.
        role: which model of `context.models()`.
        progress: name of the progress bar; None: no bar.
    """
    model, processor = context.models()[role]
    train, validation = task.splits["train"].take(rows), task.splits["validation"]
    chosen_on = LabelledRecords(_records(context, validation), validation.targets)
    classifier = new_classifier(model, task.label_names, settings.drop_path_rate, seed)
    choice = train_classifier(
        classifier, processor.feature_extractor, LabelledRecords(_records(context, train), train.targets), chosen_on,
        settings, seed, progress,
    )  # fmt: skip
    return FineTuned(classifier, best_f1_thresholds(choice.scores, chosen_on.targets), choice)


# ----- steps ---------------------------------------------------------------------------------------------------------


def _add_fraction(
    result: Result, context: EvaluationContext, task: LabelTask, fraction: float, plan: _Plan, is_largest: bool,
    subgroups: bool,
) -> None:  # fmt: skip
    prefix, num_records = f"{task.name}/{100 * fraction:g}%", len(task.splits["train"])
    try:
        shares = {seed: share_of(num_records, fraction, seed) for seed in plan.seeds}
    except ValueError as error:
        result.left_out[prefix] = f"too few training records ({num_records}): {error}"
        return
    first, scores, thresholds, saved = plan.seeds[0], {}, {}, None
    for role in context.models():
        tuned = _tuned(context, task, shares[first], plan, first, role, prefix)
        scores[role], thresholds[role] = _test_scores(context, task, tuned, role), tuned.thresholds
        result.settings["chosen"][f"{prefix}/{role}"] = _told(tuned, task)
        if role == "trained" and is_largest and plan.save is not None:
            saved = tuned.classifier, _save(context, task, plan, prefix, tuned)
    others = [
        _test_scores(context, task, _tuned(context, task, shares[seed], plan, seed, "trained", prefix), "trained")
        for seed in plan.seeds[1:]
    ]
    probabilities = expit(scores["trained"].astype(np.float64))
    add_task(
        result, context, task, scores, thresholds, prefix, subgroups and is_largest, probabilities, is_largest
    )  # fmt: skip
    result.trained[f"{prefix}/num_train_records"] = len(shares[first])
    _add_seeds(result, prefix, task, [scores["trained"], *others])
    note_unlearnable(result, prefix, task, shares[first])
    if saved is not None:
        add_results(*saved, plan.save, _part(result, prefix))


def _save(context: EvaluationContext, task: LabelTask, plan: _Plan, prefix: str, tuned: FineTuned) -> dict[str, Any]:
    """Save the classifier, before others are trained and it is judged; returns the facts of its card."""
    thresholds = label_thresholds(task.label_names, tuned.thresholds)
    told = {label: round(probability, 4) for label, probability in thresholds.items()}
    how = asdict(plan.settings) | {
        "share of the training labels": prefix.rpartition("/")[2], "seed": plan.seeds[0], "epoch": tuned.choice.epoch,
        "label_thresholds (of probabilities, by F1 on validation records)": told,
    }  # fmt: skip
    facts = card_facts(context, task, plan.license, how, is_by_patient=not check_no_leak(context, task))
    save_classifier(tuned.classifier, context.processor, plan.save, thresholds, facts)
    return facts


def _part(result: Result, prefix: str) -> Result:
    """The result with the figures of one share alone."""
    return replace(
        result, tables={}, pictures={}, notes=[],
        trained={key: value for key, value in result.trained.items() if key.startswith(f"{prefix}/")},
        random_weights={key: value for key, value in result.random_weights.items() if key.startswith(f"{prefix}/")},
    )  # fmt: skip


def _tuned(
    context: EvaluationContext, task: LabelTask, rows: np.ndarray, plan: _Plan, seed: int, role: str, prefix: str
) -> FineTuned:
    progress = f"fine-tuning {prefix} {role} seed {seed}" if context.progress else None
    return fine_tune(context, task, rows, plan.settings, seed, role, progress)


def _test_scores(context: EvaluationContext, task: LabelTask, tuned: FineTuned, role: str) -> np.ndarray:
    door = context.models()[role][1].feature_extractor
    return class_scores(tuned.classifier, door, _records(context, task.splits["test"]), context.batch_size)


def _records(context: EvaluationContext, rows: TaskRows) -> datasets.Dataset:
    return context.rows(rows.source_split).select(rows.rows)


def _told(tuned: FineTuned, task: LabelTask) -> dict[str, Any]:
    thresholds = dict(zip(task.label_names, tuned.thresholds.tolist(), strict=True))
    choice = tuned.choice
    return {
        "epoch": choice.epoch, "validation_macro_auroc": choice.macro_auroc, "training_losses": choice.losses,
        "thresholds_of_logits": thresholds,
    }  # fmt: skip


def _add_seeds(result: Result, prefix: str, task: LabelTask, scores: list[np.ndarray]) -> None:
    if len(scores) > 1:
        areas = [mean_auroc(of_seed, task.splits["test"].targets) for of_seed in scores]
        result.trained[f"{prefix}/macro_auroc_mean_of_seeds"] = float(np.mean(areas))
        result.trained[f"{prefix}/macro_auroc_std_of_seeds"] = float(np.std(areas))


def _check_arguments(fractions: Sequence[float], seeds: Sequence[int]) -> None:
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions) or not seeds:
        raise ValueError(f"expected shares above 0 and at most 1, and at least one seed, got {fractions}, {seeds}.")


def _check_save(save: str | None, tasks: Sequence[LabelTask]) -> Path | None:
    if save is None:
        return None
    if len(tasks) != 1:
        names = ", ".join(task.name for task in tasks)
        raise ValueError(f"save: expected a single task, got {len(tasks)}: {names}. Choose one with --tasks.")
    return check_new(Path(save))
