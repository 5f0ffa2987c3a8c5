"""A fine-tuned classifier as a folder: weights, code, processor, the thresholds of its labels, card and figures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard
from scipy.special import expit

from datasets_scripts.sources import SOURCES, find_source

from ..model_card import check_license, write_model_card
from .leakage import training_text
from .results import JSON_FILE

if TYPE_CHECKING:
    from ..modeling_esi import ESIForECGClassification
    from .context import EvaluationContext
    from .label_tasks import LabelTask
    from .results import Result

logger = logging.getLogger(__name__)


def check_new(folder: Path) -> Path:
    """The folder. Raises ValueError where it is there already."""
    if folder.exists():
        raise ValueError(f"save: expected a new folder, got {folder}, which is there already: name another one.")
    return folder


def save_classifier(
    classifier: ESIForECGClassification,
    processor: Any,
    folder: str | os.PathLike[str],
    thresholds: Mapping[str, float],
    facts: Mapping[str, Any],
) -> None:
    """Write classifier, its code, its processor and its card into a new folder, which is there whole or not at all.

    `AutoModelForSequenceClassification` and `AutoProcessor` load it. `config.label_thresholds` are the `thresholds`,
    label to the probability (the sigmoid of its logit) from which it is said.

    Args:
        classifier: with the names of its labels in `config.id2label`.
        processor: of the model that was fine-tuned.
        folder: to be made.
        thresholds: see `label_thresholds`.
        facts: of the card, see `card_facts`.

    Raises:
        ValueError: where the folder is there already, or the licence of the facts is none.
    """
    folder = check_new(Path(folder))
    outside = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished = outside / folder.name  # the card says the folder's name
    classifier.config.label_thresholds = dict(thresholds)
    classifier.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    write_model_card(unfinished, classifier, **facts)
    os.replace(unfinished, folder)
    outside.rmdir()


def add_results(classifier: ESIForECGClassification, facts: Mapping[str, Any], folder: Path, result: Result) -> None:
    """Put the figures of a result into the card of a saved classifier, and into `results.json` beside it."""
    found = result.to_dict()
    (folder / JSON_FILE).write_text(json.dumps(found, indent=2, ensure_ascii=False), encoding="utf-8")
    write_model_card(folder, classifier, **facts, results=found)


def label_thresholds(label_names: Sequence[str], thresholds: np.ndarray) -> dict[str, float]:
    """Label to a probability, from logits `(C,)`; a label that has none, NaN, is not among them.

    >>> label_thresholds(["NORM", "MI"], np.array([0.0, np.nan]))
    {'NORM': 0.5}
    """
    probabilities = expit(np.asarray(thresholds, np.float64))
    return {name: float(p) for name, p in zip(label_names, probabilities, strict=True) if np.isfinite(p)}


def card_facts(
    context: EvaluationContext, task: LabelTask, license: str | None, recipe: Mapping[str, Any], is_by_patient: bool
) -> dict[str, Any]:
    """What `write_model_card` is told of a fine-tuned classifier, but for its results.

    Args:
        context: the model that was fine-tuned, with its card, and the data.
        task: labels and records.
        license: of the new weights; None: that of the model's card, `"other"` where it has none.
        recipe: settings of the fine-tuning.
        is_by_patient: whether no patient is in two of the task's splits.
    """
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in task.splits.items())
    split_how = ", split by patient" if is_by_patient else ""
    before = training_text(context.card).partition("\n\n")[0] or "its training data are not stated."
    is_on_hub = "/" in context.name  # of a folder the context keeps the last part alone
    return {
        "license": chosen_license(license, context.card),
        "training_data": f"{context.source}: {counts} records{split_how}; labels: {task.name}.\n"
        f"The encoder before that ({context.name.rpartition('/')[2]}): {before}",
        "base_model": context.name if is_on_hub else f"./{context.name}",
        "recipe": dict(recipe),
        "data_licenses": _license_of_data(context.source),
    }


def chosen_license(license: str | None, card: str) -> str:
    """The licence of new weights: as it is given, else that of the card of the model that they started from.

    Raises ValueError for one that is no identifier of the Hub.
    """
    if license is not None:
        return check_license(license)
    found = ModelCard(card, ignore_metadata_errors=True).data.to_dict().get("license") if card else None
    if not found:
        logger.warning("save: no --license, and none in the model's card: the card says 'other'.")
    return check_license(found or "other")


def _license_of_data(source: str) -> dict[str, str] | None:
    found = find_source(source).FACTS.license if source in SOURCES else ""
    return {source: found} if found else None
