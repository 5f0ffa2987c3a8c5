"""Retrieval: find the report of an ECG among all reports, and the ECG of a report among all ECGs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .embedding import unit_length
from .metrics import hits_at_k, number_answers
from .results import Result
from .sampled import Sampled, add_sampled
from .subgroups import rows_attributes, sampled_subgroups
from .task_results import empty_result
from .zero_shot import patients

if TYPE_CHECKING:
    from .context import EvaluationContext

TEXT = "report_else_statements"  # which text records carry, where nothing else is said
DEPTHS = (1, 5, 10)
_ROWS_AT_ONCE = 1024  # 20,000 candidates: 80 MB of similarities instead of 1.6 GB


def run(context: EvaluationContext, *, equal_texts: bool = True, subgroups: bool = True) -> Result:
    """Find the text of each ECG among all texts of a split, and the ECG of each text among all ECGs.

    Args:
        equal_texts: every record with the same statements (or the same report) is a right answer; with
            --no-equal_texts only the record itself is, which punishes a model for being right.
        subgroups: also judge by sex, age band and device of who asks; the candidates stay all.

    Raises:
        ValueError: where no two records have a text.
    """
    rows = context.rows()
    texts = list(rows["text"])
    told = [row for row, text in enumerate(texts) if text.strip()]
    if len(told) < 2:
        raise ValueError(
            f"retrieval: expected records with texts, got {len(told)} of {len(rows)}: choose which text they carry "
            "(--text report_else_statements)."
        )
    keys = [rows["text_key"][row] or f"record {row}" for row in told] if equal_texts else None
    everybody = patients(rows)
    people = [everybody[row] for row in told]

    def embeds(role: str) -> tuple[np.ndarray, np.ndarray]:
        return context.ecg_embeds(role=role)[told], context.text_embeds([texts[row] for row in told], role=role)

    def judge(role: str, num_resamples: int) -> Sampled:
        return sampled_recalls(*embeds(role), keys, people, num_resamples, context.seed)

    right = "A record with the same statements or report counts as right." if equal_texts else ""
    protocol = f"Recall among all {len(told)} candidates by cosine similarity, both ways. {right}".strip()
    result = empty_result(context, "retrieval", protocol, text=context.text, equal_texts=equal_texts)
    add_sampled(result, judge, list(context.models()), context.num_resamples)
    if subgroups:
        hits = recall_hits(*embeds("trained"), keys)
        result.tables["Subgroups"] = sampled_subgroups(
            rows_attributes(context, told), people,
            lambda group, number: _sampled(hits[group], [people[row] for row in group], number, context.seed),
            context.num_resamples,
        )  # fmt: skip
    result.notes.append(f"{len(told):,} candidates of {len(set(people)):,} patients: compare only equal numbers")
    if len(told) < len(rows):
        result.left_out[f"{len(rows) - len(told)} records"] = "without a text"
    return result


def retrieval(
    ecg_embeds: np.ndarray,
    text_embeds: np.ndarray,
    keys: Sequence[Hashable] | None = None,
    prefix: str = "",
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Recall at 1, 5 and 10, both ways, by cosine similarity.

    Args:
        ecg_embeds, text_embeds: `(N, P)`, row i of both from record i.
        keys: `text_key` of each record: every record with the same statements is a right answer; None: only the
            record itself is.
        prefix: put before each key of the result.
        groups: the patient of each record; None: no intervals.
        num_resamples, seed: of the bootstrap. Patients are drawn as those who ask; the candidates stay all, since
            fewer would be easier.

    Returns:
        `ecg_to_text/recall@1` (5, 10), `text_to_ecg/recall@1` (5, 10), with groups each with `_low` and `_high` of its
        95 % interval, and `num_candidates`, on which they depend.

    Raises:
        ValueError: where the shapes or the number of keys or groups do not fit, or an embedding is zero or not finite.
    """
    resamples = 0 if groups is None else num_resamples
    people = list(range(len(ecg_embeds))) if groups is None else groups
    return sampled_recalls(ecg_embeds, text_embeds, keys, people, resamples, seed).figures(prefix)


def sampled_recalls(
    ecg_embeds: np.ndarray,
    text_embeds: np.ndarray,
    keys: Sequence[Hashable] | None,
    groups: Sequence[Hashable],
    num_resamples: int,
    seed: int = 0,
) -> Sampled:
    """The figures of `retrieval` with their resamples, for paired differences. Arguments and errors as there."""
    hits = recall_hits(ecg_embeds, text_embeds, keys)
    if len(groups) != len(hits):
        raise ValueError(f"groups: expected one for each of the {len(hits)} records, got {len(groups)}.")
    return _sampled(hits, groups, num_resamples, seed) | Sampled({}, facts={"num_candidates": len(hits)})


def recall_hits(ecg_embeds: np.ndarray, text_embeds: np.ndarray, keys: Sequence[Hashable] | None) -> np.ndarray:
    """`(N, 6)`: whether a right answer is among the first 1, 5, 10 texts, then ECGs; arguments as in `retrieval`."""
    ecg_embeds, text_embeds = unit_length("ecg_embeds", ecg_embeds), unit_length("text_embeds", text_embeds)
    if ecg_embeds.shape != text_embeds.shape:
        raise ValueError(f"expected as many texts as ECGs, of one width, got {ecg_embeds.shape}, {text_embeds.shape}.")
    answers = number_answers(keys, len(ecg_embeds))
    both = _hits(ecg_embeds, text_embeds, answers), _hits(text_embeds, ecg_embeds, answers)
    return np.concatenate(both, axis=1)


def _sampled(hits: np.ndarray, groups: Sequence[Hashable], num_resamples: int, seed: int) -> Sampled:
    names = [f"{way}/recall@{k}" for way in ("ecg_to_text", "text_to_ecg") for k in DEPTHS]
    return Sampled.of(names, lambda drawn: hits[drawn].mean(axis=0), groups, num_resamples, seed)


def _hits(queries: np.ndarray, candidates: np.ndarray, answers: np.ndarray) -> np.ndarray:
    hits = [
        hits_at_k(queries[rows] @ candidates.T, answers[rows], answers, DEPTHS)
        for rows in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(queries), _ROWS_AT_ONCE))
    ]
    return np.concatenate(hits)
