"""Retrieval: find the report of an ECG among all reports, and the ECG of a report among all ECGs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .embedding import unit_length
from .metrics import hits_at_k, number_answers

DEPTHS = (1, 5, 10)
_ROWS_AT_ONCE = 1024  # 20,000 candidates: 80 MB of similarities instead of 1.6 GB


def retrieval(
    ecg_embeds: np.ndarray, text_embeds: np.ndarray, keys: Sequence[Hashable] | None = None, prefix: str = ""
) -> dict[str, Any]:
    """Recall at 1, 5 and 10, both ways, by cosine similarity.

    Args:
        ecg_embeds, text_embeds: `(N, P)`, row i of both from record i.
        keys: `text_key` of each record: every record with the same statements is a right answer; None: only the
            record itself is.
        prefix: put before each key of the result.

    Returns:
        `ecg_to_text/recall@1` (5, 10), `text_to_ecg/recall@1` (5, 10), and `num_candidates`, on which they depend.

    Raises:
        ValueError: where the shapes or the number of keys do not fit, or an embedding is zero or not finite.
    """
    ecg_embeds, text_embeds = unit_length("ecg_embeds", ecg_embeds), unit_length("text_embeds", text_embeds)
    if ecg_embeds.shape != text_embeds.shape:
        raise ValueError(f"expected as many texts as ECGs, of one width, got {ecg_embeds.shape}, {text_embeds.shape}.")
    answers = number_answers(keys, len(ecg_embeds))
    ways = {"ecg_to_text": (ecg_embeds, text_embeds), "text_to_ecg": (text_embeds, ecg_embeds)}
    result: dict[str, Any] = {}
    for way, (queries, candidates) in ways.items():
        recalls = _recalls(queries, candidates, answers)
        result |= {f"{prefix}{way}/recall@{k}": recall for k, recall in zip(DEPTHS, recalls, strict=True)}
    return result | {f"{prefix}num_candidates": len(ecg_embeds)}


def _recalls(queries: np.ndarray, candidates: np.ndarray, answers: np.ndarray) -> list[float]:
    hits = [
        hits_at_k(queries[rows] @ candidates.T, answers[rows], answers, DEPTHS)
        for rows in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(queries), _ROWS_AT_ONCE))
    ]
    return np.concatenate(hits).mean(axis=0).tolist()
