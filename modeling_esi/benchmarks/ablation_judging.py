"""What frozen embeddings are worth: zero-shot and a linear probe, macro AUROC of the five superclasses."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np

from datasets_scripts import ptb_xl_labels
from datasets_scripts.report_text import findings_text
from modeling_esi.benchmarks.ablation_data import SUPERCLASSES
from modeling_esi.evaluation.metrics import auroc
from modeling_esi.evaluation.zero_shot import class_embeddings

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # inverse regularisation of the probe


def macro(scores: np.ndarray, targets: np.ndarray) -> float:
    """Macro AUROC x 100 of `scores` and `targets (N, 5)`."""
    return float(100 * np.nanmean(auroc(scores, targets)))


def prompt_sets(data_dir: str | PathLike[str]) -> dict[str, dict[str, list[str]]]:
    """Ways to say the five superclasses: one prompt each, the project's several, and the descriptions of all codes."""
    several = ptb_xl_labels.label_prompts("superdiagnostic", data_dir)
    codes: dict[str, list[str]] = {}
    for statement in ptb_xl_labels.read_scp_statements(data_dir).values():
        if statement.superclass:
            codes.setdefault(statement.superclass, []).append(findings_text([statement.description]))
    return {
        "one": {name: several[name][:1] for name in SUPERCLASSES},
        "several": {name: several[name] for name in SUPERCLASSES},
        "codes": {name: codes[name] for name in SUPERCLASSES},
    }


def zero_shot_scores(model, processor, embeds: np.ndarray, prompts: dict[str, list[str]]) -> np.ndarray:
    """Cosine of each ECG `(N, P)` with the mean prompt of each class, `(N, 5)`."""
    lengths = np.linalg.norm(embeds, axis=1, keepdims=True)
    return embeds / lengths @ class_embeddings(model, processor, prompts).T


def probe_scores(
    features: np.ndarray, targets: np.ndarray, judged: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> dict[float, np.ndarray]:
    """Logistic regression on standardised embeddings, one class apart from the others.

    Args:
        features: `(N, H)` of the training records, `targets (N, 5)` bool.
        judged: `(M, H)`.
        strengths: scikit-learn's C, each tried.

    Returns:
        For each strength, log-odds `(M, 5)`.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    features, judged = (features - mean) / spread, (judged - mean) / spread
    scores = {}
    for strength in strengths:
        fitted = [LogisticRegression(C=strength, max_iter=1000).fit(features, column) for column in targets.T]
        scores[strength] = np.stack([one.decision_function(judged) for one in fitted], axis=1)
    return scores
