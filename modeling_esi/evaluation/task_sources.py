"""The label tasks of a data set: PTB-XL's six, those of MERL's split files, or the labels of its own source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets_scripts import label_names

from .label_tasks import LabelTask, TaskRows, needed_splits, target_matrix
from .merl_splits import read_task
from .ptb_xl_benchmark import benchmark_tasks

if TYPE_CHECKING:
    from .context import EvaluationContext


def load_tasks(
    context: EvaluationContext,
    names: Sequence[str] | None = None,
    split_dir: str | None = None,
    split_labels: str = "columns",
    splits: Sequence[str] = ("train", "validation", "test"),
) -> list[LabelTask]:
    """The tasks of a context's data set.

    Args:
        context: model and data.
        names: of the tasks wanted; None: all (PTB-XL has six).
        split_dir: folder of MERL's split files, which then name records and labels.
        split_labels: see `merl_splits.read_task`.
        splits: which ones are needed; records of others are not read.

    Raises:
        ValueError: for a name that is none, a data set without labels, or split files that do not fit.
    """
    if split_dir is not None:
        tasks = [read_task(context, split_dir, split_labels, splits)]
    elif context.source == "ptb_xl":
        return benchmark_tasks(context, names, splits)
    else:
        tasks = [_own_task(context, splits)]
    known = [task.name for task in tasks]
    if names is not None and set(names) - set(known):
        raise ValueError(f"tasks: expected some of {', '.join(known)}, got {', '.join(names)}.")
    return tasks


def _own_task(context: EvaluationContext, splits: Sequence[str]) -> LabelTask:
    """The labels that the data set's own source gives its records."""
    names = _own_label_names(context)
    found = {}
    for name, where in needed_splits(context, splits).items():
        targets = target_matrix(context.rows(where)["labels"], names)
        found[name] = TaskRows(where, np.arange(len(targets)), targets)
    prompt_set = "csn" if context.dataset_options.get("task") == "csn" else context.source
    return LabelTask(
        context.dataset_options.get("task") or context.source, tuple(names), found, prompt_set,
        "splits and labels of the source",
    )  # fmt: skip


def _own_label_names(context: EvaluationContext) -> list[str]:
    if context.dataset_rows:
        held = (label for rows in context.dataset_rows.values() for labels in rows["labels"] for label in labels)
        return sorted(set(held))
    if context.manifest:
        return list(context.manifest["label_names"])
    options = {"task": context.dataset_options["task"]} if "task" in context.dataset_options else {}
    return label_names(context.dataset, data_dir=context.data_dir, **options)
