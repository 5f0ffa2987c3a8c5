"""From scores to a result: figures of each model, differences, tables of classes and subgroups, what was left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .label_tasks import judged_split
from .multilabel import Judgement, difference, judge
from .plots import calibration_figure, roc_figure, save_figure
from .results import Result
from .subgroups import task_subgroups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .context import EvaluationContext
    from .label_tasks import LabelTask

FEWEST_IN_BIN = 20  # records of a point in the picture of calibration


def empty_result(context: EvaluationContext, name: str, protocol: str, **settings: object) -> Result:
    """A result without figures: what is judged, by what, and what is known of leakage."""
    if context.window is not None:
        protocol += f" Each ECG is the mean of half-overlapping windows of {context.window:g} s."
    result = Result(
        name,
        protocol,
        f"{context.source}/{context.split}",
        context.name,
        task_type="zero-shot-classification" if name == "zero_shot" else "other",
        settings=context.settings() | settings,
    )
    tell_leakage(result, context, context.split)
    return result


def tell_leakage(result: Result, context: EvaluationContext, split: str) -> None:
    """What the cards of the models say of records of a split."""
    leakage = context.leakage(split)
    result.seen_in_training, result.leakage = leakage.seen, leakage.line
    if context.compare is not None:
        result.compared_model, result.compared_leakage = context.compare_name, context.compared_leakage(split).line


def leave_out_empty(
    result: Result, tasks: Sequence[LabelTask], splits: Sequence[str], are_named: bool
) -> Sequence[LabelTask]:
    """The tasks that have records in each of `splits`; the others are told in `result`.

    All tasks where the user named them, and where none has records: the protocol then says what it lacks.
    """
    lacking = {task.name: [split for split in splits if not len(task.splits.get(split, ()))] for task in tasks}
    kept = [task for task in tasks if not lacking[task.name]]
    if are_named or not kept:
        return tasks
    result.left_out |= {
        name: f"no labelled record in {' and '.join(missing)}" for name, missing in lacking.items() if missing
    }
    return kept


def add_task(
    result: Result,
    context: EvaluationContext,
    task: LabelTask,
    scores: Mapping[str, np.ndarray],
    thresholds: Mapping[str, np.ndarray] | None = None,
    prefix: str | None = None,
    subgroups: bool = True,
    probabilities: np.ndarray | None = None,
    pictures: bool = True,
) -> dict[str, Judgement]:
    """Judge the scores of each model on the judged records of a task, and put the figures into `result`.

    Args:
        result: gets figures, tables and notes.
        context: model and data.
        task: labels and records.
        scores: `(n, C)` for the records of `task.splits["test"]`, by role (`trained`, `random_weights`, `compared`).
        thresholds: `(C,)` by role, chosen on validation records; None: no F1.
        prefix: of the keys; default: the task's name.
        subgroups: add the table of subgroups.
        probabilities: `(n, C)` of the trained model, for a picture of its calibration; None: none is drawn.
        pictures: draw what can be drawn, where the context has an output folder.

    Returns:
        The judgement of each model.
    """
    prefix = task.name if prefix is None else prefix
    thresholds, test = thresholds or {}, task.splits["test"]
    groups = test.patients(context)
    judged = {
        role: judge(
            of_role, test.targets, task.label_names, groups, thresholds.get(role),
            0 if role == "random_weights" else context.num_resamples, context.seed,
        )
        for role, of_role in scores.items()
    }  # fmt: skip
    model, floor = judged["trained"], judged.get("random_weights")
    result.trained |= model.figures(f"{prefix}/")
    result.random_weights |= floor.figures(f"{prefix}/") if floor is not None else {}
    if "compared" in judged:
        result.compared |= difference(model, judged["compared"], f"{prefix}/")
    result.tables[f"{prefix}: classes"] = model.rows(floor)
    if subgroups:
        rows = task_subgroups(context, task, scores["trained"], thresholds.get("trained"))
        result.tables[f"{prefix}: subgroups"] = rows
    if pictures:
        add_pictures(result, context, task, prefix, scores["trained"], probabilities)
    add_notes(result, task, model)
    _add_leakage(result, context, task)
    return judged


def add_pictures(
    result: Result,
    context: EvaluationContext,
    task: LabelTask,
    prefix: str,
    scores: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> None:
    """Draw the ROC curves of a task and, of probabilities, the calibration; nothing without an output folder.

    The arguments are those of `add_task`; the files are called `roc_PREFIX.png`, `calibration_PREFIX.png`, and `.svg`.
    """
    targets, names = task.splits["test"].targets, task.label_names
    if context.output is None or not (targets.any(axis=0) & ~targets.all(axis=0)).any():
        return
    where = f"{prefix}, {result.dataset}"
    _draw(result, context.output, f"ROC curves of {where}", f"roc_{prefix}", roc_figure(scores, targets, names, where))
    if probabilities is not None:
        bins = min(10, max(2, len(targets) // FEWEST_IN_BIN))
        figure = calibration_figure(probabilities, targets, names, where, bins)
        _draw(result, context.output, f"Calibration of {where}", f"calibration_{prefix}", figure)


def _draw(result: Result, folder: Path, title: str, name: str, figure: Figure) -> None:
    png, _ = save_figure(figure, folder / re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_"))
    result.pictures[title] = png.name


def _add_leakage(result: Result, context: EvaluationContext, task: LabelTask) -> None:
    """Split files may choose records of any split: then the context's split does not say what was seen."""
    if (split := judged_split(context, task)) != context.split:
        tell_leakage(result, context, split)


def add_notes(result: Result, task: LabelTask, judged: Judgement) -> None:
    """What was left out, the task's own notes and its sizes, each once."""
    result.left_out |= {f"{task.name}/{label}": reason for label, reason in judged.left_out.items()}
    for note in (*task.notes, f"{task.name}: {task.sizes} records; {len(task.label_names)} classes"):
        if note not in result.notes:
            result.notes.append(note)


def note_unlearnable(result: Result, prefix: str, task: LabelTask, rows: np.ndarray) -> None:
    """Name the classes that no training record of a share, by their numbers, has."""
    held = task.splits["train"].targets[rows].any(axis=0)
    without = [name for name, is_held in zip(task.label_names, held, strict=True) if not is_held]
    if without:
        result.notes.append(
            f"{prefix}: none of {len(rows):,} training records has {', '.join(without)}: nothing to learn them from"
        )
