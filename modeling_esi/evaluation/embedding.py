"""A data set's ECGs and texts as embeddings: computed once, then judged by every protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord

from ..windows import window_starts

if TYPE_CHECKING:
    import datasets


def read_records(dataset: datasets.Dataset, indices: Iterable[int]) -> list[ECGRecord]:
    """Records of stored rows by their numbers, in that order; a loop over batches keeps one `RecordReader` instead.

    The samples never become Python numbers: they are views of Arrow's memory until the feature extractor makes a batch
    of them. Raises IndexError for a number outside the data set, ValueError for a row that is not a record.
    """
    return RecordReader(dataset).records(indices)


def embed_ecgs(
    model: nn.Module,
    feature_extractor: Any,
    dataset: datasets.Dataset,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = False,
    layer: str = "projected",
    window: float | None = None,
) -> np.ndarray:
    """The ECG embeddings of a data set, one row per record, in its order.

    Args:
        model: an `ESIModel`, not wrapped for distributed training. It computes in evaluation mode, without gradients;
            afterwards every module is in the mode it was in.
        feature_extractor: the model's `ESIFeatureExtractor` (`processor.feature_extractor`).
        dataset: stored rows, from `datasets_scripts.load_ecg_dataset`.
        batch_size: records at a time; it does not change the result.
        device: where to compute, which is where the model must be; by default where it is.
        progress: show a progress bar.
        layer: `"projected"`, what `get_ecg_features` gives; or `"pooled"`, the encoder's own vector, on which linear
            probes are trained.
        window: seconds; each ECG is the mean of half-overlapping windows of this length, which suits a model that was
            trained on crops of it. None: each ECG is seen at once.

    Returns:
        `(N, P)` float32, L2-normalised by the model where projected.

    Raises:
        ValueError: for another layer, an empty data set, a batch size below 1, a window that is no positive number of
            seconds, or records that the feature extractor rejects (all of the batch are named with their reasons).
    """
    _check_batch_size(batch_size)
    length = window_length(window, feature_extractor)
    if not len(dataset):
        raise ValueError("dataset: expected at least one record, got none: choose another split or more records.")
    device = device if device is not None else _device_of(model)
    reader = RecordReader(dataset)
    embeds = []
    with evaluation_mode(model), _progress_bar(progress, len(dataset), "ECGs") as bar:
        for start in range(0, len(dataset), batch_size):
            records = reader.records(range(start, min(start + batch_size, len(dataset))))
            inputs = _through_the_door(feature_extractor, records, device)
            embeds.append(_to_numpy(ecg_vectors(model, inputs, layer, length)))
            bar.update(len(records))
    return np.concatenate(embeds)


def window_length(window: float | None, feature_extractor: Any) -> int | None:
    """Samples of a window of so many seconds behind this door; None for None. ValueError where it holds no sample."""
    if window is None:
        return None
    rate = feature_extractor.sampling_rate
    if not (math.isfinite(window) and round(window * rate) >= 1):
        raise ValueError(f"window: expected seconds, at least one sample ({1 / rate:g} s), got {window!r}.")
    return round(window * rate)


def ecg_vectors(
    model: nn.Module, inputs: dict[str, torch.Tensor], layer: str = "projected", window: int | None = None
) -> torch.Tensor:
    """`(B, P)` of a batch that is through the door; layers as in `embed_ecgs`, `window` in samples.

    ValueError for another layer.
    """
    if layer not in ("projected", "pooled"):
        raise ValueError(f"layer: expected 'projected' or 'pooled', got {layer!r}.")
    if window is not None and window < inputs["input_values"].shape[-1]:
        return _mean_of_windows(model, inputs, layer, window)
    return model.get_ecg_features(**inputs) if layer == "projected" else model.ecg_model(**inputs).pooler_output


def embed_texts(
    model: nn.Module,
    processor: Any,
    texts: Sequence[str],
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> np.ndarray:
    """The text embeddings of a list of texts, in its order.

    Texts are cut to `processor.max_text_length` tokens. Each different text is embedded once, together with others of
    its length, so that little padding is computed; equal texts have equal embeddings, to the bit.

    Args:
        model, device, progress: as in `embed_ecgs`.
        processor: the model's `ESIProcessor`.
        texts: one string per row of the result.
        batch_size: texts at a time.

    Returns:
        `(N, P)` float32, L2-normalised by the model.

    Raises:
        ValueError: for no text, something that is not a string, or a batch size below 1.
    """
    _check_batch_size(batch_size)
    texts = _check_texts(texts)
    device = device if device is not None else _device_of(model)
    distinct = sorted(dict.fromkeys(texts), key=len)
    embeds = []
    with evaluation_mode(model), _progress_bar(progress, len(distinct), "texts") as bar:
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            inputs = processor(text=batch, return_tensors="pt").to(device)
            embeds.append(_to_numpy(model.get_text_features(inputs["input_ids"], inputs.get("attention_mask"))))
            bar.update(len(batch))
    position = {text: i for i, text in enumerate(distinct)}
    return np.concatenate(embeds)[[position[text] for text in texts]]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; on leaving, each module gets its own mode back."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in in_training:  # not model.train(): parts that were frozen in evaluation mode stay so
            module.training = True


def unit_length(name: str, embeds: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32. ValueError where the shape is not `(N, P)` or a row is zero or not finite."""
    embeds = np.asarray(embeds, dtype=np.float32)
    if embeds.ndim != 2 or 0 in embeds.shape:
        raise ValueError(f"{name}: expected (records, width), got {embeds.shape}.")
    lengths = np.linalg.norm(embeds, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0])
        raise ValueError(f"{name}: expected finite vectors other than zero, got length {lengths[row, 0]} in row {row}.")
    return embeds / lengths


# ----- steps ---------------------------------------------------------------------------------------------------------


def _through_the_door(feature_extractor: Any, records: list[ECGRecord], device: Any) -> dict[str, torch.Tensor]:
    try:
        return dict(feature_extractor(records, device=device, return_tensors="pt"))
    except ValueError as error:
        reasons = {record.record_id: feature_extractor.reject_reason(record) for record in records}
        listed = "; ".join(f"{record_id}: {reason}" for record_id, reason in reasons.items() if reason)
        raise ValueError(f"dataset: records that the model cannot read: {listed or error}. Leave them out.") from error


def _mean_of_windows(model: nn.Module, inputs: dict[str, torch.Tensor], layer: str, window: int) -> torch.Tensor:
    """The mean over half-overlapping windows, weighted by their recorded samples; padding alone is not seen."""
    values, sample_mask = inputs["input_values"], inputs.get("sample_mask")
    total, recorded = 0.0, 0.0
    for start in window_starts(values.shape[-1], window, max(window // 2, 1), 1):
        part = inputs | {"input_values": values[..., start : start + window]}
        share = values.new_ones(len(values))
        if sample_mask is not None:
            part["sample_mask"] = sample_mask[:, start : start + window]
            share = part["sample_mask"].float().mean(dim=1)
        seen = share > 0
        if not seen.any():
            continue
        vectors = ecg_vectors(model, {name: value[seen] for name, value in part.items()}, layer)
        total = total + vectors.new_zeros(len(values), vectors.shape[1]).index_put((seen,), share[seen, None] * vectors)
        recorded = recorded + share
    mean = total / recorded[:, None]
    return nn.functional.normalize(mean, dim=-1) if layer == "projected" else mean


def _to_numpy(embeds: torch.Tensor) -> np.ndarray:
    return embeds.float().cpu().numpy()


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _progress_bar(wanted: bool, total: int, unit: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=f" {unit}", desc=f"embedding {unit}", disable=not wanted)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}.")


def _check_texts(texts: Sequence[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    wrong = [text for text in listed if not isinstance(text, str)]
    if wrong or not listed:
        raise ValueError(f"texts: expected a list of at least one string, got {wrong[0]!r} in it." if wrong else
                         "texts: expected a list of at least one string, got an empty list.")  # fmt: skip
    return listed
