"""The PTB-XL benchmark: six label tasks, folds 1-8 to train, 9 to choose, 10 to judge, never a patient in two of them.

Strodthoff et al., "Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL", IEEE JBHI 2021,
https://doi.org/10.1109/JBHI.2020.3022989: a code counts whatever its likelihood; a record without a label of the task
is left out; the figure is the macro AUROC, its interval a bootstrap whose draws show every class. MERL's tasks Super,
Sub, Form and Rhythm are the same records: 17,084/2,146/2,158 of version 1.0.3, Form 7,197/901/880, Rhythm
16,832/2,100/2,098.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets_scripts.ptb_xl_labels import (
    STATEMENTS_FILE,
    TASKS,
    SCPStatement,
    check_task,
    label_of_code,
    read_scp_statements,
)

from .label_tasks import LabelTask, TaskRows, needed_splits, target_matrix

if TYPE_CHECKING:
    from .context import EvaluationContext

DESCRIPTION = (
    "PTB-XL benchmark (Strodthoff et al. 2021): folds 1-8 to train, 9 to choose, 10 to judge; codes count whatever "
    "their likelihood; records without a label of the task are left out"
)


def benchmark_tasks(
    context: EvaluationContext, names: Sequence[str] | None = None, splits: Sequence[str] = ("train", "test")
) -> list[LabelTask]:
    """The six tasks, or those of `names`, from the codes of each record.

    The records must carry all their codes (`task="all"`, which the context asks of the source); a folder prepared for
    one task serves that one alone. Raises ValueError for a task that is none or cannot be had.
    """
    for name in names or ():
        check_task(name)
    prepared_for = _task_of_rows(context)
    wanted = list(names or (TASKS if prepared_for == "all" else [prepared_for]))
    if prepared_for != "all" and wanted != [prepared_for]:
        raise ValueError(
            f"tasks: the records were prepared with the labels of {prepared_for}, got {', '.join(wanted)}: prepare "
            "them with task=all, from which every task follows."
        )
    statements = _statements(context)
    return [_task(context, name, prepared_for, statements, splits) for name in wanted]


def labels_of_codes(codes: Sequence[str], task: str, statements: dict[str, SCPStatement]) -> tuple[str, ...]:
    """The labels of a task for which a record's codes stand, each once, sorted. Unknown codes stand for none."""
    found = (label_of_code(statements[code], task) for code in codes if code in statements)
    return tuple(sorted({label for label in found if label is not None}))


def _task(
    context: EvaluationContext, name: str, prepared_for: str, statements: dict[str, SCPStatement], splits: Sequence[str]
) -> LabelTask:
    names = sorted({label for code in statements.values() if (label := label_of_code(code, name)) is not None})
    found, notes = {}, []
    for split, where in needed_splits(context, splits).items():
        labels = context.rows(where)["labels"]
        if prepared_for == "all":
            labels = [labels_of_codes(codes, name, statements) for codes in labels]
        targets = target_matrix(labels, names)
        rows = np.flatnonzero(targets.any(axis=1))
        found[split] = TaskRows(where, rows, targets[rows])
        if len(rows) < len(targets):
            notes.append(f"{name}: {len(targets) - len(rows):,} {split} records without a label are left out")
    return LabelTask(name, tuple(names), found, "ptb_xl", DESCRIPTION, tuple(notes))


def _task_of_rows(context: EvaluationContext) -> str:
    """The task whose labels the stored rows carry."""
    options = context.manifest.get("settings", {}).get("options", {}) if context.manifest else context.dataset_options
    return options.get("task", "superdiagnostic")


def _statements(context: EvaluationContext) -> dict[str, SCPStatement]:
    folder = context.data_dir or context.manifest.get("settings", {}).get("data_dir")
    if folder is None:
        raise ValueError(f"data_dir: expected PTB-XL's folder, whose {STATEMENTS_FILE} says what the codes stand for.")
    return read_scp_statements(folder)
