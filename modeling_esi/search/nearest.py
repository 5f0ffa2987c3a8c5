"""The rows of a large matrix with the largest dot products: exact, from a memory map, block by block.

Two steps. Float32 products of all rows say which rows can be among the `k` best, within the bound of their rounding
errors. Those few are computed again in float64, each row by the same sums whatever block it stood in: what comes out is
the order of the stored numbers, and rows that are equal have equal scores.

Rows stored as float16 are widened into one small buffer that stays in the processor's cache. That costs less than what
is gained by reading half the memory: the product is bound by memory, not by arithmetic.
"""

from __future__ import annotations

import numpy as np
import torch

BLOCK_ROWS = 1024  # float32 rows of width 768: 3 MB, which a processor's second or third cache holds
QUERIES_AT_ONCE = 16  # float32 scores of 800,000 rows: 51 MB
_ROUNDING = 2.0**-24  # relative error of one float32 operation (half a unit in the last place)


def nearest_rows(
    matrix: np.ndarray, queries: np.ndarray, k: int, among: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The `k` rows with the largest dot product, for each query.

    Args:
        matrix: `(N, P)` float16 or float32, rows of length 1 to rounding; may be a memory map (modes "c" and "r+").
        queries: `(Q, P)` float32, of length 1.
        k: how many rows, at least 1; fewer come back where there are fewer.
        among: `(M,)` int64, ascending: only these rows are candidates. None: all.

    Returns:
        For each query `(rows, scores)`: int64 and float64, best first, equal scores in the order of the rows. The order
        is that of the dot products of the stored numbers, computed in float64.

    Raises:
        ValueError: for widths that differ, or `k` below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}.")
    if queries.ndim != 2 or queries.shape[1] != matrix.shape[1]:
        raise ValueError(f"queries: expected (queries, {matrix.shape[1]}), as the index, got {queries.shape}.")
    candidates = np.arange(len(matrix)) if among is None else among
    found = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = queries[start : start + QUERIES_AT_ONCE]
        for query, scores in zip(part, _rounded_scores(matrix, part, candidates), strict=True):
            found.append(best_rows(matrix, query, k, candidates[_possible(scores, k, _error(query))]))
    return found


def best_rows(matrix: np.ndarray, query: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `k` best of `rows` by their float64 scores; equal scores in the order of the rows. See `nearest_rows`."""
    best, scores = np.empty(0, dtype=np.int64), np.empty(0)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        products = matrix[part].astype(np.float64) * query.astype(np.float64)
        best, scores = np.concatenate([best, part]), np.concatenate([scores, products.sum(axis=1)])
        order = np.lexsort((best, -scores))[:k]
        best, scores = best[order], scores[order]
    return best, scores


def _rounded_scores(matrix: np.ndarray, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """`(Q, M)` float32 dot products of the candidate rows, each with a rounding error of at most `_error`."""
    table, width = torch.from_numpy(matrix), matrix.shape[1]
    columns = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).T
    scores = torch.empty(len(candidates), len(queries))
    buffer = torch.empty(BLOCK_ROWS, width)
    for start in range(0, len(candidates), BLOCK_ROWS):
        rows = candidates[start : start + BLOCK_ROWS]
        block = table[rows[0] : rows[-1] + 1]
        if len(block) != len(rows):  # not one after the other
            block = table[torch.from_numpy(rows)]
        if block.dtype != torch.float32:
            block = buffer[: len(rows)].copy_(block)
        torch.matmul(block, columns, out=scores[start : start + len(rows)])
    return scores.T.numpy()


def _possible(scores: np.ndarray, k: int, error: float) -> np.ndarray:
    """Which of `scores` can be among the `k` largest, where each is wrong by at most `error`."""
    if len(scores) <= k:
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth - 2 * error)


def _error(query: np.ndarray) -> float:
    """Bound of a float32 dot product's rounding error: n u |a| |b| (Higham 2002, section 3.1), with |a| up to 1.01."""
    return 1.01 * len(query) * _ROUNDING * float(np.linalg.norm(query))
