"""Robustness: the same task on recordings with fewer leads, with noise, at other rates, of less time.

One change at a time, on the test records only: whatever was trained or chosen stays as it is. Each figure stands beside
that of the unchanged records, with the paired interval of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from datasets_scripts.preparation.record_reader import RecordReader

from .changed_records import GROUPS, Condition, conditions, embed_changed, refusal
from .embedding import unit_length
from .embedding_cache import cached_array, key_of, records_digest, weights_digest
from .multilabel import Judgement, difference, judge
from .plots import robustness_figure, save_figure
from .prompts import task_prompts
from .results import Result
from .task_results import empty_result
from .task_sources import load_tasks
from .zero_shot import class_embeddings

if TYPE_CHECKING:
    import datasets

    from .context import EvaluationContext
    from .label_tasks import LabelTask

NUM_RESAMPLES = 200  # for each of some thirty conditions
PLOT_NAME = "robustness"

Scorer = Callable[[np.ndarray], np.ndarray]


def run(
    context: EvaluationContext,
    *,
    changes: tuple[str, ...] = GROUPS,
    task: str | None = None,
    prompts: str | None = None,
    probe: str | None = None,
    floor: bool = True,
) -> Result:
    """Judge a task on changed records; the curves go to robustness.png and robustness.svg in the output folder.

    Args:
        changes: some of leads, noise, sampling_rate, duration.
        task: which labels (PTB-XL: superdiagnostic, where none is named).
        prompts: as in zero_shot: a JSON file, shipped or short.
        probe: a file of a linear probe's weights (.npz with coef, intercept, label_names), whose scores are judged
            instead of the zero-shot ones.
        floor: judge a model with random weights on each change too, which takes as long again; without a probe only.

    Raises:
        ValueError: for names that are none, and a probe that does not fit the task.
    """
    chosen = list(conditions(changes, context.seed))
    judged = _load_task(context, task)
    records = context.rows(judged.splits["test"].source_split)
    records = records.select(judged.splits["test"].rows)
    people, targets = judged.splits["test"].patients(context), judged.splits["test"].targets
    scorers = _scorers(context, judged, prompts, probe, floor)
    judgements: dict[str, list[_Pair | None]] = {}
    for role, scorer in scorers.items():
        model, processor = context.models()[role]
        embed = _Embedder.of(context, model, processor.feature_extractor, records)
        samples = min(context.num_resamples, NUM_RESAMPLES if role == "trained" else 0)
        judge_scores = partial(_judge, targets, judged.label_names, people, samples, context.seed)
        judgements[role] = list(_judge_all(chosen, embed, scorer, judge_scores))
    floors = judgements.get("random_weights", [None] * len(chosen))
    rows = [_row(*parts) for parts in zip(chosen, judgements["trained"], floors, strict=True)]
    result = empty_result(context, "robustness", _said(judged, len(records), probe), changes=changes, task=judged.name)
    result.trained = _figures(judged.name, chosen, judgements["trained"])
    result.random_weights = _figures(judged.name, chosen, floors)
    result.tables["Robustness"] = rows
    result.left_out = _left_out(chosen, judgements["trained"], records, context.processor.feature_extractor)
    result.notes = [*judged.notes, *_plot(context, rows, f"{judged.name}, {context.source}")]
    return result


def read_probe(path: str | Path, label_names: Sequence[str]) -> Scorer:
    """The scores of a linear probe: `embeds @ coef.T + intercept`, columns in the order of `label_names`.

    The file is `.npz` with `coef (C, P)`, `intercept (C,)` and `label_names (C,)`; where it has `mean (P,)` and
    `scale (P,)`, embeddings are standardised by these first.

    Raises ValueError where something is missing or a label is not there.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if missing := {"coef", "intercept", "label_names"} - arrays.keys():
        raise ValueError(f"{path}: expected coef, intercept and label_names, got none of {', '.join(sorted(missing))}.")
    known = arrays["label_names"].astype(str).tolist()
    if absent := [name for name in label_names if name not in known]:
        raise ValueError(f"{path}: expected a probe of {', '.join(label_names)}, got none for {', '.join(absent)}.")
    columns = [known.index(name) for name in label_names]
    coef, intercept = arrays["coef"][columns], arrays["intercept"][columns]
    mean, scale = arrays.get("mean", 0.0), arrays.get("scale", 1.0)
    return lambda embeds: ((embeds - mean) / scale) @ coef.T + intercept


# ----- steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Embedder:
    """Embeddings of changed records by one model, kept on disk as those of unchanged ones are."""

    context: EvaluationContext
    model: nn.Module
    door: Any
    records: datasets.Dataset
    key: str

    @classmethod
    def of(cls, context: EvaluationContext, model: nn.Module, door: Any, records: datasets.Dataset) -> _Embedder:
        key = key_of("changed", weights_digest(model), records_digest(records), door.to_dict(), context.seed)
        return cls(context, model, door, records, key)

    def __call__(self, condition: Condition) -> np.ndarray:
        """`(N, P)`, a row of NaN for a record that cannot be changed so."""
        context = self.context
        bar = f"embedding {condition.key}" if context.progress else None
        compute = partial(
            embed_changed,
            self.model,
            self.door,
            self.records,
            condition.change,
            context.batch_size,
            context.device,
            bar,
        )
        key = key_of(self.key, condition.key)
        return compute() if context.cache_dir is None else cached_array(context.cache_dir, key, compute)


@dataclass(frozen=True)
class _Pair:
    """A condition judged, and the change of its means from the unchanged records, on the records that both have."""

    judgement: Judgement
    change: dict[str, Any]
    is_kept: np.ndarray


def _said(task: LabelTask, num_records: int, probe: str | None) -> str:
    what = "a linear probe that was trained on unchanged records" if probe else "zero-shot scores"
    return (
        f"{task.description}: macro AUROC of {what} on {num_records} records, each changed in one way; noise at a "
        f"signal-to-noise ratio of powers, lead by lead; of shorter records the first seconds. Intervals from at most "
        f"{NUM_RESAMPLES} resamples of patients; the change from the unchanged records is paired."
    )


def _load_task(context: EvaluationContext, task: str | None) -> LabelTask:
    if task is None and context.source == "ptb_xl":
        task = "superdiagnostic"
    return load_tasks(context, None if task is None else [task], splits=("test",))[0]


def _scorers(
    context: EvaluationContext, task: LabelTask, prompts: str | None, probe: str | None, floor: bool
) -> dict[str, Scorer]:
    """What makes scores `(n, C)` of embeddings `(n, P)`, for each model that is judged."""
    if probe is not None:
        return {"trained": read_probe(probe, task.label_names)}
    texts = task_prompts(context, task, prompts)
    roles = ["trained", "random_weights"] if floor else ["trained"]
    return {role: _zero_shot_scorer(class_embeddings(*context.models()[role], texts)) for role in roles}


def _zero_shot_scorer(classes: np.ndarray) -> Scorer:
    return lambda embeds: unit_length("ecg_embeds", embeds) @ classes.T


def _judge(
    targets: np.ndarray,
    label_names: Sequence[str],
    people: Sequence[Any],
    num_resamples: int,
    seed: int,
    scores: np.ndarray,
    is_kept: np.ndarray,
) -> Judgement:
    groups = [person for person, kept in zip(people, is_kept, strict=True) if kept]
    return judge(scores, targets[is_kept], label_names, groups, None, num_resamples, seed)


def _judge_all(
    chosen: list[Condition], embed: Callable[[Condition], np.ndarray], scorer: Scorer, judge_scores: Callable
) -> Iterator[_Pair | None]:
    """Each condition against the unchanged records, the first; None where no record could be changed so."""
    clean = embed(chosen[0])
    all_kept = np.isfinite(clean).all(axis=1)
    whole = judge_scores(scorer(clean[all_kept]), all_kept)
    for condition in chosen:
        embeds = clean if condition.group == "clean" else embed(condition)
        is_kept = np.isfinite(embeds).all(axis=1) & all_kept
        if not is_kept.any():
            yield None
            continue
        judgement = judge_scores(scorer(embeds[is_kept]), is_kept)
        same = whole if (is_kept == all_kept).all() else judge_scores(scorer(clean[is_kept]), is_kept)
        yield _Pair(judgement, difference(judgement, same), is_kept)


def _row(condition: Condition, pair: _Pair | None, floor: _Pair | None) -> dict[str, Any]:
    figures = {} if pair is None else pair.judgement.figures()
    change = {} if pair is None else pair.change
    return {
        "group": condition.group, "kind": condition.kind, "value": condition.value, "unit": condition.unit,
        "macro_auroc": figures.get("macro_auroc"),
        "low": figures.get("macro_auroc_low"), "high": figures.get("macro_auroc_high"),
        "change": change.get("macro_auroc/difference"),
        "change_low": change.get("macro_auroc/difference_low"),
        "change_high": change.get("macro_auroc/difference_high"),
        "random_weights": None if floor is None else floor.judgement.macro("auroc"),
        "num_records": 0 if pair is None else int(pair.is_kept.sum()),
        "detail": condition.detail,
    }  # fmt: skip


def _figures(task: str, chosen: list[Condition], pairs: list[_Pair | None]) -> dict[str, Any]:
    """`{task}/{condition}/macro_auroc` with its bounds."""
    figures: dict[str, Any] = {}
    for condition, pair in zip(chosen, pairs, strict=True):
        if pair is not None:
            found = pair.judgement.figures(f"{task}/{condition.key}/")
            figures |= {key: value for key, value in found.items() if key.rpartition("/")[2].startswith("macro_auroc")}
    return figures


def _left_out(
    chosen: list[Condition], pairs: list[_Pair | None], records: datasets.Dataset, door: Any
) -> dict[str, str]:
    """Records that are not in a condition's figure, and the reason of the first of them."""
    reader, found = RecordReader(records), {}
    for condition, pair in zip(chosen, pairs, strict=True):
        lost = np.arange(len(records)) if pair is None else np.flatnonzero(~pair.is_kept)
        if len(lost):
            reason = refusal(reader.records(lost[:1])[0], condition.change, door)
            found[f"{condition.key}, {len(lost)} of {len(records)} records"] = str(reason)
    return found


def _plot(context: EvaluationContext, rows: list[dict[str, Any]], title: str) -> list[str]:
    """The names of the pictures written."""
    drawn = [row for row in rows if row["macro_auroc"] is not None]
    if context.output is None or len(drawn) < 2:
        return []
    paths = save_figure(robustness_figure(drawn, title), Path(context.output) / PLOT_NAME)
    return [f"plot: {path.name}" for path in paths]
