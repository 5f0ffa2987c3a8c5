"""What `transformers.Trainer` needs to fine-tune on a prepared data set: its records, its batches, its figures.

    Trainer(model, arguments, data_collator=ECGCollator(processor, model.config), train_dataset=ECGRecords(rows),
            eval_dataset=ECGRecords(others), compute_metrics=ECGMetrics(model.config))

docs/finetuning.md shows the whole, also with LoRA. Figures to be published come from the protocol `fine_tune`
(`python -m modeling_esi.evaluation fine_tune`), with intervals and the floor of random weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import log_softmax
from torch.utils.data import Dataset

from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord
from modeling_esi.configuration_esi import ESIConfig
from modeling_esi.evaluation.held_out_losses import key_numbers
from modeling_esi.evaluation.label_tasks import target_matrix
from modeling_esi.evaluation.metrics import auroc_per_class, macro

if TYPE_CHECKING:
    import datasets
    from transformers import EvalPrediction

SINGLE_LABEL = "single_label_classification"
PROBLEM_TYPES = (None, "multi_label_classification", SINGLE_LABEL)


class ECGRecords(Dataset[ECGRecord]):
    """The records of a data set as torch's loaders take them: views of mapped files, nothing is copied.

    `Trainer` removes columns that a model's `forward` does not name from a `datasets.Dataset`, the signal among them;
    from these it removes nothing.

    Args:
        rows: stored rows, from `datasets_scripts.load_ecg_dataset`; also after `select` or `shuffle`.

    Raises:
        ValueError: where columns of a stored row are missing.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.reader = RecordReader(rows)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, row: int) -> ECGRecord:
        return self.reader.records([row])[0]

    def __getitems__(self, rows: list[int]) -> list[ECGRecord]:
        return self.reader.records(rows)


class ECGCollator:
    """Records to what `ESIForECGClassification` reads: signals through the door, and labels by their names.

    Args:
        processor: the model's `ESIProcessor`, or its `ESIFeatureExtractor`. A record longer than its `duration` is cut
            at the end, in training and in evaluation.
        config: the classifier's. `id2label` names the labels, in the order of the logits; labels of a record that
            are not among them are no part of the task.

    Raises:
        ValueError: where the configuration names no labels, or is not one of classification.

    >>> from datasets_scripts.synthetic import generate_record
    >>> from modeling_esi import ESIConfig, ESIFeatureExtractor
    >>> config = ESIConfig(id2label={0: "low voltage", 1: "atrial fibrillation"})
    >>> collate = ECGCollator(ESIFeatureExtractor(duration=2.0), config)
    >>> inputs = collate([generate_record(1, ["atrial fibrillation"]), generate_record(2, ["low voltage"])])
    >>> inputs["input_values"].shape, inputs["labels"].tolist()
    (torch.Size([2, 12, 1000]), [[0.0, 1.0], [1.0, 0.0]])
    """

    def __init__(self, processor: Any, config: ESIConfig) -> None:
        self.feature_extractor = getattr(processor, "feature_extractor", processor)
        self.label_names, self.is_single = label_names_of(config), config.problem_type == SINGLE_LABEL

    def __call__(self, records: Sequence[ECGRecord]) -> dict[str, torch.Tensor]:
        """A batch.

        Args:
            records: of an `ECGRecords`.

        Returns:
            `input_values (B, 12, S)`, `lead_mask (B, 12)`, where padded `sample_mask (B, S)`, and `labels`:
            `(B, C)` float of 0 and 1; with `problem_type="single_label_classification"`, `(B,)` class numbers.

        Raises:
            ValueError: for what is no record, for a record that the door refuses, and, where there is one label to each
                record, for one with none or several.
        """
        _check_records(records)
        targets = target_matrix([record.labels for record in records], self.label_names)
        labels = self._class_numbers(records, targets) if self.is_single else targets.astype(np.float32)
        return {**self.feature_extractor(records), "labels": torch.from_numpy(labels)}

    def _class_numbers(self, records: Sequence[ECGRecord], targets: np.ndarray) -> np.ndarray:
        for record, count in zip(records, targets.sum(axis=1), strict=True):
            if count != 1:
                raise ValueError(
                    f"record {record.record_id!r}: expected one of the labels {', '.join(self.label_names)}, got "
                    f"{count} in {list(record.labels)}: select such records, or leave problem_type out (multi-label)."
                )
        return targets.argmax(axis=1)


class ECGTextCollator:
    """Records to what `ESIModel` is trained on: signals, texts, and which texts say the same; with both losses.

    Args:
        processor: the model's `ESIProcessor`.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, records: Sequence[ECGRecord]) -> dict[str, Any]:
        """A batch.

        Args:
            records: of an `ECGRecords`, each with a text.

        Returns:
            What the processor gives for signals and texts; `text_key (B,)`, equal where texts are; `return_loss`.

        Raises:
            ValueError: for what is no record, a record without text, or one that the door refuses.
        """
        _check_records(records)
        without = [record.record_id for record in records if not record.text]
        if without:
            raise ValueError(f"text: expected one in each record, got none in {', '.join(map(str, without))}.")
        texts = [record.text for record in records]
        keys = torch.from_numpy(key_numbers(texts))
        return {**self.processor(records, texts), "text_key": keys, "return_loss": True}


class ECGMetrics:
    """`compute_metrics` of `Trainer` for `ESIForECGClassification`: how well the logits order the records.

    Args:
        config: the classifier's; `id2label` names the classes.

    Raises:
        ValueError: as `ECGCollator`.
    """

    def __init__(self, config: ESIConfig) -> None:
        self.label_names, self.is_single = label_names_of(config), config.problem_type == SINGLE_LABEL

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """The figures of one evaluation.

        Args:
            prediction: logits `(N, C)`, and labels as `ECGCollator` makes them.

        Returns:
            `macro_auroc`, the mean over the classes with both labels, and `auroc/NAME` of each of them; none where no
            class has both. With one label to each record also `accuracy`.

        Raises:
            ValueError: for logits that are not finite.
        """
        outputs, labels = prediction.predictions, np.asarray(prediction.label_ids)
        logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs, dtype=np.float64)
        figures = {}
        if self.is_single:
            figures["accuracy"] = float((logits.argmax(axis=1) == labels).mean())
            logits, labels = log_softmax(logits, axis=1), np.eye(len(self.label_names))[labels]
        found = auroc_per_class(logits, labels, self.label_names)
        areas = {name: area for name, area in found.items() if area is not None}
        figures |= {f"auroc/{name}": area for name, area in areas.items()}
        return figures | ({"macro_auroc": macro(areas)} if areas else {})


def label_names_of(config: ESIConfig) -> list[str]:
    """The labels that a configuration names, in the order of the logits.

    Raises:
        ValueError: where they are transformers' placeholders, or the problem is not classification.
    """
    if config.problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type: expected one of {PROBLEM_TYPES}, got {config.problem_type!r}.")
    names = [config.id2label[number] for number in sorted(config.id2label)]
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        raise ValueError(
            f"id2label: expected the labels of the data set, got {names}: "
            "from_pretrained(..., id2label=dict(enumerate(label_names(data_set))))."
        )
    return names


def _check_records(records: Sequence[ECGRecord]) -> None:
    for record in records:
        if isinstance(record, Mapping):
            raise ValueError(f"expected records, got a row of {sorted(record)}: pass ECGRecords(rows) to the Trainer.")
