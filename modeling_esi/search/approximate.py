"""FAISS as an option, through `datasets`: faster than exact where queries are many, and it may miss some.

What it finds is scored again exactly (`nearest.best_rows`), so that scores mean the same either way.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

_TRAINED_ON = 100_000  # rows, where the kind of index is trained at all


def import_faiss() -> Any:
    """The module `faiss`. Raises ImportError, with what to install, where it is missing."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "approximate search needs FAISS: pip install faiss-cpu (or faiss-gpu). Exact search needs nothing."
        ) from error
    return faiss


def build_faiss(matrix: np.ndarray, factory: str, path: Path) -> None:
    """Writes a FAISS index of rows by inner product, made by its factory string such as `"HNSW32"` or `"IVF256,Flat"`.

    Raises ValueError for a string that FAISS does not understand or that needs more rows, ImportError without FAISS.
    """
    faiss = import_faiss()
    from datasets.search import FaissIndex

    index = FaissIndex(string_factory=factory, metric_type=faiss.METRIC_INNER_PRODUCT)
    unfinished = path.with_name(f"{path.name}.building")
    try:
        index.add_vectors(_Float32Rows(matrix), batch_size=8192, train_size=min(len(matrix), _TRAINED_ON))
        index.save(unfinished)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"faiss: expected a factory string such as 'HNSW32', got {factory!r}: {reason}.") from error
    os.replace(unfinished, path)


class FaissSearch:
    """A FAISS index that is read once and searched often.

    Args:
        path: what `build_faiss` wrote. FAISS reads it with its own code: take it from people you trust.

    Raises:
        ImportError: without FAISS.
        ValueError: where FAISS cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        import_faiss()
        from datasets.search import FaissIndex

        try:
            self._index = FaissIndex.load(path)
        except RuntimeError as error:
            raise ValueError(f"{path}: FAISS cannot read it ({str(error).strip()}); build the index anew.") from error

    def candidates(self, queries: np.ndarray, k: int) -> list[np.ndarray]:
        """For each query the numbers of about the `k` nearest rows, ascending; fewer where FAISS found fewer."""
        found = self._index.search_batch(np.ascontiguousarray(queries, dtype=np.float32), k).total_indices
        return [np.unique(rows[rows >= 0]).astype(np.int64) for rows in found]


class _Float32Rows:
    """Rows of a memory map as float32, a few at a time, as FAISS takes them."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._matrix)

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        return np.ascontiguousarray(self._matrix[rows], dtype=np.float32)
