"""Zero-shot classification: each class is described in words, and an ECG is scored by how near its embedding is."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from .embedding import embed_ecgs, embed_texts, unit_length
from .metrics import RareClassError, auroc_per_class, bootstrap_interval, macro, macro_auroc
from .prompts import prompts_name, task_prompts
from .results import Result
from .task_results import add_task, empty_result, leave_out_empty
from .task_sources import load_tasks
from .thresholds import best_f1_thresholds, probabilities_of

if TYPE_CHECKING:
    import datasets

    from .context import EvaluationContext
    from .label_tasks import LabelTask

logger = logging.getLogger(__name__)

Prompts = Mapping[str, str | Sequence[str]]
PROTOCOL = (
    "Zero-shot: each class is the mean of the embeddings of its texts ({prompts}), an ECG is scored by {score}. "
    "No label is used for the scores; the thresholds of F1, and the logistic curves that make probabilities of scores "
    "for the picture of calibration, are chosen on validation records."
)


def run(
    context: EvaluationContext,
    *,
    tasks: Sequence[str] | None = None,
    prompts: str | None = None,
    softmax: bool = False,
    split_dir: str | None = None,
    split_labels: str = "columns",
    subgroups: bool = True,
) -> Result:
    """Score every ECG against texts of every class: macro AUROC, AUPRC and F1 of each task of the data set.

    Args:
        tasks: which of the data set's tasks (PTB-XL: all, diagnostic, subdiagnostic, superdiagnostic, form, rhythm);
            default: every one.
        prompts: "shipped" (default); "statements", the names of all the data set's statements that stand for a class;
            "short", the phrases of its source; or a JSON file {class: [texts]}.
        softmax: score by the softmax over the classes, which makes them exclude each other; default: the cosine.
        split_dir: folder of MERL's split files (*_train.csv, *_val.csv, *_test.csv), which name records and labels.
        split_labels: of these files, "columns" as published, or "diagnoses".
        subgroups: also judge by sex, age band and device.

    Raises:
        ValueError: for tasks, prompts or split files that do not fit.
    """
    score = "the softmax over the classes" if softmax else "the cosine, one class apart from the others"
    chosen = prompts_name(prompts)
    how = PROTOCOL.format(prompts=chosen if chosen == "own file" else f"{chosen} set", score=score)
    result = empty_result(context, "zero_shot", how, prompts=chosen, softmax=softmax, split_labels=split_labels)
    found = load_tasks(context, tasks, split_dir, split_labels, splits=("validation", "test"))
    for task in leave_out_empty(result, found, ("test",), are_named=tasks is not None):
        texts = task_prompts(context, task, prompts)
        of_roles = {role: _task_scores(context, task, texts, role, softmax) for role in context.models()}
        scores = {role: of_split["test"] for role, of_split in of_roles.items()}
        thresholds, probabilities = {}, None
        if "validation" in task.splits:
            known = {role: of_split["validation"] for role, of_split in of_roles.items()}
            targets = task.splits["validation"].targets
            thresholds = {role: best_f1_thresholds(of_role, targets) for role, of_role in known.items()}
            probabilities = probabilities_of(scores["trained"], known["trained"], targets)
        add_task(result, context, task, scores, thresholds, subgroups=subgroups, probabilities=probabilities)
        if task.description and task.description not in result.protocol:
            result.protocol += f" {task.description}."
    return result


def _task_scores(
    context: EvaluationContext, task: LabelTask, texts: Prompts, role: str, softmax: bool
) -> dict[str, np.ndarray]:
    """`(n, C)` scores of the records of each split of a task."""
    listed = _check_prompts(texts)
    embeds = context.text_embeds([text for of_class in listed.values() for text in of_class], role)
    classes = _mean_of_each(embeds, [len(of_class) for of_class in listed.values()])
    model = context.models()[role][0]
    scale = model.get_logit_scale().item() if softmax else 1.0
    scores = {}
    for split, rows in task.splits.items():
        cosines = unit_length("ecg_embeds", rows.embeds(context, role)) @ classes.T
        scores[split] = _softmax(scale * cosines) if softmax else cosines
    return scores


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def zero_shot(
    model: nn.Module,
    processor: Any,
    dataset: datasets.Dataset,
    prompts: Prompts,
    batch_size: int = 64,
    ecg_embeds: np.ndarray | None = None,
    num_resamples: int = 200,
    prefix: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Score every record against the prompts of every class, one class apart from the others, and judge the ranking.

    A class is the mean of its prompts' embeddings, made unit length again; the score is the cosine. An ECG may have
    several labels, so there is no softmax over classes.

    Args:
        model: an `ESIModel`.
        processor: its `ESIProcessor`.
        dataset: rows of `load_ecg_dataset`; a record has a class where its `labels` hold the class's name.
        prompts: class name to one English text or several.
        batch_size: ECGs at a time.
        ecg_embeds: `(N, P)` of the data set, where they were computed before.
        num_resamples: bootstrap resamples of patients (of records, where no patient is known).
        prefix: put before each key of the result.
        progress: show a progress bar.

    Returns:
        For each label in the order of `prompts`: `auroc/{label}` (None where the records do not have both labels) and
        `num_positives/{label}`. Then `macro_auroc`, its 95 % interval `macro_auroc_low` and `macro_auroc_high`,
        `labels_left_out` (those that are None and not in the mean), `num_records`; and `macro_auroc_note` where no
        interval could be computed, with the reason.

    Raises:
        ValueError: for no prompts, embeddings that do not fit the data set, and as in `embed_ecgs`.
    """
    prompts = _check_prompts(prompts)
    if ecg_embeds is None:
        ecg_embeds = embed_ecgs(model, processor.feature_extractor, dataset, batch_size, progress=progress)
    if len(ecg_embeds) != len(dataset):
        raise ValueError(f"ecg_embeds: expected one for each of {len(dataset)} records, got {len(ecg_embeds)}.")
    scores = unit_length("ecg_embeds", ecg_embeds) @ class_embeddings(model, processor, prompts).T  # (N, C)
    targets = label_matrix(dataset["labels"], list(prompts))
    return _judge(scores, targets, list(prompts), patients(dataset), num_resamples, prefix)


def class_embeddings(model: nn.Module, processor: Any, prompts: Prompts) -> np.ndarray:
    """`(C, P)` float32, one unit vector per class: the mean of its prompts' unit vectors, made unit length.

    Raises ValueError for no prompts, or prompts that cancel each other.
    """
    prompts = _check_prompts(prompts)
    embeds = embed_texts(model, processor, [text for texts in prompts.values() for text in texts])
    return _mean_of_each(embeds, [len(texts) for texts in prompts.values()])


def _mean_of_each(embeds: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """`(C, P)`: the mean direction of the first `counts[0]` texts, of the next `counts[1]`, ..."""
    parts = np.split(unit_length("text_embeds", embeds), np.cumsum(counts)[:-1])
    return unit_length("class embeddings", np.stack([part.mean(axis=0) for part in parts]))


def label_matrix(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """`(N, C)` bool: whether record n has label c. Labels that are not among `names` are no part of the task."""
    held = [set(of_record) for of_record in labels]
    return np.array([[name in of_record for name in names] for of_record in held], dtype=bool)


def patients(dataset: datasets.Dataset) -> list[Hashable]:
    """The patient of each record; where none is known, the record stands for one of its own."""
    pairs = zip(dataset["patient_id"], dataset["record_id"], strict=True)
    return [("record", record) if patient is None else ("patient", patient) for patient, record in pairs]


def _judge(
    scores: np.ndarray,
    targets: np.ndarray,
    names: list[str],
    groups: list[Hashable],
    num_resamples: int,
    prefix: str,
) -> dict[str, Any]:
    areas = auroc_per_class(scores, targets, names)
    interval: dict[str, Any] = {"macro_auroc_low": None, "macro_auroc_high": None}
    if macro(areas) is None:
        interval["macro_auroc_note"] = "no class has both labels"
    else:
        interval |= _interval(scores, targets, groups, num_resamples)
    result = {f"auroc/{name}": area for name, area in areas.items()}
    result |= {"macro_auroc": macro(areas)} | interval
    result |= {f"num_positives/{name}": int(n) for name, n in zip(names, targets.sum(axis=0), strict=True)}
    result |= {"num_records": len(targets), "labels_left_out": [name for name, area in areas.items() if area is None]}
    return {f"{prefix}{key}": value for key, value in result.items()}


def _interval(
    scores: np.ndarray, targets: np.ndarray, groups: list[Hashable], num_resamples: int
) -> dict[str, float | str]:
    statistic = macro_auroc(scores, targets)
    try:
        low, high = bootstrap_interval(statistic, groups, targets, num_resamples=num_resamples)
    except RareClassError as error:  # the areas stand without it: a validation set may be small
        logger.warning("zero-shot: no interval of the macro AUROC. %s", error)
        return {"macro_auroc_note": str(error)}
    return {"macro_auroc_low": low, "macro_auroc_high": high}


def _check_prompts(prompts: Prompts) -> dict[str, list[str]]:
    listed = {label: [texts] if isinstance(texts, str) else list(texts) for label, texts in prompts.items()}
    empty = [label for label, texts in listed.items() if not texts]
    if not listed or empty:
        got = f"none for {', '.join(empty)}" if empty else "no class"
        raise ValueError(f"prompts: expected at least one text for each class, got {got}.")
    return listed
