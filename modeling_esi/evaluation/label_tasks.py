"""Which labels are judged on which records: the tasks of a data set, with their splits.

A task names records by their places in `context.rows(split)`, so that embeddings of a whole split are computed once
and serve every task.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .context import EvaluationContext


@dataclass(frozen=True)
class TaskRows:
    """The records of one split of a task.

    Attributes:
        source_split: the split of the context in which they lie (`"all"`: all splits).
        rows: `(n,)` their numbers in `context.rows(source_split)`.
        targets: `(n, C)` bool, whether a record has a label.
    """

    source_split: str
    rows: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> TaskRows:
        """Some of them."""
        return TaskRows(self.source_split, self.rows[places], self.targets[places])

    def embeds(self, context: EvaluationContext, role: str = "trained", layer: str = "projected") -> np.ndarray:
        """`(n, P)`: their embeddings, see `EvaluationContext.ecg_embeds`."""
        return context.ecg_embeds(self.source_split, role, layer)[self.rows]

    def patients(self, context: EvaluationContext) -> list[Hashable]:
        """The patient of each; where none is known, the record stands for one of its own."""
        dataset = context.rows(self.source_split).select_columns(["patient_id", "record_id"])
        columns = dataset.select(self.rows)[:]
        pairs = zip(columns["patient_id"], columns["record_id"], strict=True)
        return [("record", record) if patient is None else ("patient", patient) for patient, record in pairs]


@dataclass(frozen=True)
class LabelTask:
    """Labels, and the records on which they are learned, chosen and judged.

    Attributes:
        name: such as `"superdiagnostic"`: the first part of the keys of its figures.
        label_names: the C classes in their order.
        splits: `train`, `validation`, `test`, those that there are. The judged one is called `test` whatever its name.
        prompt_set: which shipped prompts describe the classes, see `prompts`.
        description: of the protocol: who made the splits, which records are left out.
        notes: what a reader must know of the labels or of records that are not at hand.
    """

    name: str
    label_names: tuple[str, ...]
    splits: Mapping[str, TaskRows]
    prompt_set: str = ""
    description: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def sizes(self) -> str:
        """`train/validation/test`: how many records each split holds."""
        return ", ".join(f"{name} {len(rows):,}" for name, rows in self.splits.items())


def target_matrix(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """`(n, C)` bool: whether a record has a label. Labels that are not among `names` are no part of the task."""
    column = {name: number for number, name in enumerate(names)}
    targets = np.zeros((len(labels), len(names)), dtype=bool)
    for row, held in enumerate(labels):
        targets[row, [column[label] for label in held if label in column]] = True
    return targets


def needed_splits(context: EvaluationContext, splits: Sequence[str]) -> dict[str, str]:
    """The splits of a task and where they lie in the context: the judged one, and others that have records.

    A split that is judged is never one to learn or choose on.
    """
    others = {name: name for name in splits if name != "test" and name != context.split}
    found = {name: where for name, where in others.items() if context.split != "all" and context.has_split(where)}
    return found | ({"test": context.split} if "test" in splits else {})


def check_no_leak(context: EvaluationContext, task: LabelTask) -> list[str]:
    """What a protocol that learns must have, and no test record among what it learns or chooses on.

    Returns:
        A note where patients of the test are also in training or validation: figures are then too high.

    Raises:
        ValueError: without training or validation records, or where a test record is among them.
    """
    missing = [split for split in ("train", "validation", "test") if not len(task.splits.get(split, ()))]
    if missing:
        raise ValueError(
            f"{task.name}: expected training, validation and test records, got none to {', '.join(missing)}: nothing "
            "is chosen on test records."
        )
    test = record_names(context, task.splits["test"])
    for split in ("train", "validation"):
        shared = sorted(test & record_names(context, task.splits[split]))
        if shared:
            raise ValueError(
                f"{task.name}: expected no test record in {split}, got {len(shared)}: {', '.join(shared[:5])}. Split "
                "the data set again, by patient."
            )
    learned = {person for split in ("train", "validation") for person in task.splits[split].patients(context)}
    people = set(task.splits["test"].patients(context))
    both = len(people & learned)
    return (
        [f"{task.name}: {both:,} of {len(people):,} test patients are also in training or validation"] if both else []
    )


def judged_split(context: EvaluationContext, task: LabelTask) -> str:
    """The context's split in which the judged records of a task lie; `"all"` where they lie in several."""
    test = task.splits["test"]
    return test.source_split if test.source_split != "all" else context.split_of(record_names(context, test))


def record_names(context: EvaluationContext, rows: TaskRows) -> set[str]:
    """The names of the records."""
    dataset = context.rows(rows.source_split).select_columns(["record_id"])
    return set(dataset.select(rows.rows)["record_id"])
