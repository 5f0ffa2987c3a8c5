# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""What the pipelines share: recordings in, windows in batches, each recording's windows put together again."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator, PipelineIterator, PipelinePackIterator
from transformers.utils import logging

from .pipeline_inputs import PipelineInput, each, is_one, read_input, told
from .windows import Window, cut_windows

logger = logging.get_logger(__name__)

AGGREGATIONS = ("mean", "max")


class ESIPipeline(ChunkPipeline):
    """What the four pipelines share: reading, windows, batches.

    Args (of every call, or of `pipeline(...)` for all calls):
        sampling_rate, leads, unit: for arrays, and for files that do not say them (CSV, `.npy`); one for all.
        overlap: of windows, as a share; 0.5 is half. See `cut_windows`.
        batch_size: windows in a batch.
    """

    _load_image_processor = False
    _load_video_processor = False
    _load_tokenizer = False
    #: Models that it takes, by name: a class has two identities where code comes from a folder.
    models: tuple[str, ...] = ()
    #: The Auto class that loads them.
    auto_class = "AutoModel"
    preprocess_names: tuple[str, ...] = ("sampling_rate", "leads", "unit", "overlap")
    forward_names: tuple[str, ...] = ()
    postprocess_names: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.door = self.feature_extractor or getattr(self.processor, "feature_extractor", None)
        if self.door is None:
            raise ValueError(
                f"{self.task}: expected the feature extractor beside the model, got none: pass "
                "feature_extractor=ESIFeatureExtractor(...), or a processor, or save it into the model's folder."
            )
        self._check_model()

    def _check_model(self) -> None:
        name, saved_as = type(self.model).__name__, self.model.config.architectures or []
        if name not in self.models:
            raise ValueError(f"{self.task}: expected {' or '.join(self.models)}, got {name}.")
        if name == "ESIModel" and self.model.name_or_path and saved_as == ["ESIForECGClassification"]:
            raise ValueError(
                f"{self.task}: expected a folder of ESIModel, got one of ESIForECGClassification, which holds no text "
                "encoder: use ecg-classification with it."
            )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Results of one recording, or of several.

        Args:
            inputs: a recording, or several: a list, a `(B, leads, samples)` array, a generator, a data set. A list
                or an array gives a list of results, anything else an iterator, which reads when asked.
            **kwargs: as the class says.

        Raises:
            ValueError: for what cannot be understood or used, in one sentence that names the recording.
            ImportError: for a path where the package that reads files is not installed.
        """
        if is_one(inputs):
            return super().__call__(PipelineInput(inputs), **kwargs)
        numbered = (PipelineInput(value, number) for number, value in enumerate(each(inputs)))
        if not isinstance(inputs, list | tuple | np.ndarray | Tensor):
            return super().__call__(numbered, **kwargs)
        return super().__call__(list(numbered), **kwargs) if len(inputs) else []

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Model, processor and code in one folder, from which `pipeline` loads."""
        self.model.save_pretrained(save_directory, **kwargs)
        (self.processor or self.door).save_pretrained(save_directory)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        kwargs.pop("local_files_only", None)  # which `pipeline` uses, and hands on
        known = (self.preprocess_names, self.forward_names, self.postprocess_names)
        unknown = [name for name in kwargs if not any(name in names for names in known)]
        if unknown:
            expected = ", ".join(dict.fromkeys(sum(known, ())))
            raise TypeError(f"{self.task}: expected {expected}, got {', '.join(unknown)}.")
        return tuple({name: kwargs[name] for name in names if name in kwargs} for names in known)

    def preprocess(
        self,
        inputs: PipelineInput,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        overlap: float = 0.0,
    ) -> Iterator[dict[str, Any]]:
        """The windows of one recording, each as the model's inputs for a batch of one, and when it begins and ends."""
        try:
            recording = read_input(inputs.value, sampling_rate, leads, unit, self.door.ignore_unknown_leads)
            windows = cut_windows(recording, self.door.duration, overlap, self.door.min_duration)
            previous = None
            for features in self._usable(windows, inputs):
                if previous is not None:
                    yield {**previous, "is_last": False}
                previous = features
        except ValueError as error:
            raise ValueError(told(error, inputs)) from error
        yield {**previous, "is_last": True}

    def _usable(self, windows: Iterable[Window], inputs: PipelineInput) -> Iterator[dict[str, Any]]:
        """What the door makes of the windows; one that it refuses is left out where others stand for the recording."""
        num_used, refused = 0, []
        for window in windows:
            try:
                features = self.door(window.record)
            except ValueError as error:
                refused.append((window, error))
                continue
            num_used += 1
            features.setdefault("sample_mask", torch.ones_like(features["input_values"][:, 0], dtype=torch.bool))
            yield {**features, "start": window.start, "end": window.end}
        if not num_used:
            raise refused[0][1]
        for window, error in refused:
            logger.warning(f"{told(error, inputs)}: left out {window.start:g} to {window.end:g} s.")

    def get_iterator(
        self,
        inputs: Iterable[PipelineInput],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """As of transformers, whose own way to pad a batch does not know signals."""
        windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        collate = _only_item if batch_size == 1 else _collate
        loader = DataLoader(windows, num_workers=min(num_workers, 1), batch_size=batch_size, collate_fn=collate)
        recordings = PipelinePackIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(recordings, self.postprocess, postprocess_params)

    def _forward(self, model_inputs: dict[str, Any], **forward_params: Any) -> dict[str, Any]:
        place = {name: model_inputs[name] for name in ("is_last", "start", "end")}
        inputs = {name: model_inputs[name] for name in ("input_values", "lead_mask")}
        if not bool(model_inputs["sample_mask"].all()):
            inputs["sample_mask"] = model_inputs["sample_mask"]
        return self._run(inputs, **forward_params) | place

    def _run(self, inputs: dict[str, Tensor], **forward_params: Any) -> dict[str, Any]:
        """What the model says of a batch of windows: tensors or lists, one entry for each window."""
        raise NotImplementedError


def _only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Windows as one batch: the door made them equally long."""
    values = {name: [item[name] for item in items] for name in items[0]}
    return {name: torch.cat(parts) if isinstance(parts[0], Tensor) else parts for name, parts in values.items()}


def aggregate(values: list[Tensor], aggregation: str) -> Tensor:
    """One tensor for all windows."""
    stacked = torch.stack(values)
    return stacked.amax(dim=0) if aggregation == "max" else stacked.mean(dim=0)


def check_aggregation(aggregation: str) -> None:
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation: expected {' or '.join(map(repr, AGGREGATIONS))}, got {aggregation!r}.")
