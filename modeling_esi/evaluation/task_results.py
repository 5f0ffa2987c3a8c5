"""From scores to a result: figures of each model, differences, tables of classes and subgroups, what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .multilabel import Judgement, difference, judge
from .results import Result
from .subgroups import task_subgroups

if TYPE_CHECKING:
    from .context import EvaluationContext
    from .label_tasks import LabelTask


def empty_result(context: EvaluationContext, name: str, protocol: str, **settings: object) -> Result:
    """A result without figures: what is judged, by what, and what is known of leakage."""
    leakage = context.leakage()
    return Result(
        name,
        protocol,
        f"{context.source}/{context.split}",
        context.name,
        seen_in_training=leakage.seen,
        leakage=leakage.line,
        task_type="zero-shot-classification" if name == "zero_shot" else "other",
        settings=context.settings() | settings,
    )


def add_task(
    result: Result,
    context: EvaluationContext,
    task: LabelTask,
    scores: Mapping[str, np.ndarray],
    thresholds: Mapping[str, np.ndarray] | None = None,
    prefix: str | None = None,
    subgroups: bool = True,
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
    add_notes(result, task, model, prefix)
    return judged


def add_notes(result: Result, task: LabelTask, judged: Judgement, prefix: str) -> None:
    """What was left out, the task's own notes and its sizes, each once."""
    result.left_out |= {f"{prefix}/{label}": reason for label, reason in judged.left_out.items()}
    for note in (*task.notes, f"{task.name}: {task.sizes} records; {len(task.label_names)} classes"):
        if note not in result.notes:
            result.notes.append(note)
