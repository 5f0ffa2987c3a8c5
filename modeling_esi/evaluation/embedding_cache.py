"""Embeddings on disk: computed once for the same weights, records and door, whichever protocol asks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

if TYPE_CHECKING:
    import datasets

RECORD_COLUMNS = ("record_id", "signal", "gain", "offset", "leads", "sampling_rate", "num_samples")
_ROWS_AT_ONCE = 256


def default_cache_dir() -> Path:
    """Beside the caches of Hugging Face (`HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "esi_ecg_embeddings"


def cached_array(cache_dir: str | os.PathLike[str], key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array kept under `key`, computed and kept where there is none yet. A half-written file is never taken."""
    path = Path(cache_dir) / f"{key}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    array = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{key}.{os.getpid()}.npy")
    np.save(unfinished, array, allow_pickle=False)
    os.replace(unfinished, path)
    return array


def key_of(*parts: Any) -> str:
    """A short hash of values that JSON knows."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def weights_digest(model: nn.Module) -> str:
    """A hash of every parameter and buffer, by name, type, shape and bits; and of the class and its settings."""
    digest = hashlib.blake2b(digest_size=16)
    config = getattr(model, "config", None)
    digest.update(f"{type(model).__name__}\n{config.to_json_string() if config is not None else ''}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def records_digest(dataset: datasets.Dataset) -> str:
    """A hash of the records themselves, in their order: two copies of one data set share their embeddings."""
    columns = [name for name in RECORD_COLUMNS if name in dataset.column_names]
    digest = hashlib.blake2b(digest_size=16)
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        for column in batch.columns:
            for values in _values(column):
                digest.update(values)
    return digest.hexdigest()


def _values(column: pa.ChunkedArray) -> Iterator[np.ndarray | bytes]:
    """What a column says, whatever chunks and buffers it lies in: lengths and values of lists, numbers, words."""
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        yield pc.list_value_length(column).to_numpy().astype(np.int64)
        column = pc.list_flatten(column)
    if pa.types.is_string(column.type):
        yield json.dumps(column.to_pylist()).encode()
    else:
        yield np.ascontiguousarray(column.to_numpy())
