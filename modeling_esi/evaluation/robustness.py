"""Robustness: the same task on recordings with fewer leads, with noise, at other rates, of less time.

One change at a time, on the judged records only: whatever was trained or chosen stays as it is. Each figure stands
beside that of the unchanged records, with the paired interval of the change.
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
from .label_tasks import check_no_leak
from .linear_probe import fit_logistic
from .logistic import LinearModel
from .multilabel import Judgement, difference, judge
from .plots import robustness_figure, save_figure
from .probe_file import read_probe
from .prompts import prompts_name, task_prompts
from .results import Result
from .subgroups import attributes, subgroup_rows
from .task_results import empty_result
from .task_sources import load_tasks
from .zero_shot import class_embeddings

if TYPE_CHECKING:
    import datasets

    from .context import EvaluationContext
    from .label_tasks import LabelTask

NUM_RESAMPLES = 200  # for each of some thirty conditions
PLOT_NAME = "robustness"
FIT = "fit"

Scorer = Callable[[np.ndarray], np.ndarray]


def run(
    context: EvaluationContext,
    *,
    changes: tuple[str, ...] = GROUPS,
    task: str | None = None,
    prompts: str | None = None,
    probe: str | None = None,
    floor: bool = True,
    subgroups: bool = False,
) -> Result:
    """Judge a task on changed records; the curves go to robustness.png and robustness.svg in the output folder.

    Args:
        changes: some of leads, noise, sampling_rate, duration.
        task: which labels (PTB-XL: superdiagnostic, where none is named).
        prompts: as in zero_shot: shipped, statements, short or a JSON file.
        probe: judge a linear probe on the encoder's vectors instead of zero-shot scores: "fit" fits one for each model
            on the unchanged training records, or a file of one, probe_TASK.npz, as linear_probe writes it.
        floor: judge a model with random weights on each change too, which takes as long again; not with a probe's file.
        subgroups: also judge each change by sex, age band and device.

    Raises:
        ValueError: for names that are none, and a probe that does not fit the task or the model.
    """
    chosen = list(conditions(changes, context.seed))
    judged = _load_task(context, task, ("train", "validation", "test") if probe == FIT else ("test",))
    scored_by = {"prompts": prompts_name(prompts)} if probe is None else {"probe": FIT if probe == FIT else "own file"}
    result = empty_result(context, "robustness", _said(judged, probe), changes=changes, task=judged.name, **scored_by)
    result.notes += [*judged.notes, *(check_no_leak(context, judged) if probe == FIT else [])]
    records = context.rows(judged.splits["test"].source_split).select(judged.splits["test"].rows)
    judgements = _judge_models(context, judged, records, chosen, *_scorers(context, judged, prompts, probe, floor))
    floors = judgements.get("random_weights", [None] * len(chosen))
    rows = [_row(*parts) for parts in zip(chosen, judgements["trained"], floors, strict=True)]
    result.trained = _figures(judged.name, chosen, judgements["trained"])
    result.random_weights = _figures(judged.name, chosen, floors)
    if "compared" in judgements:
        result.compared = _differences(judged.name, chosen, judgements["trained"], judgements["compared"])
    result.tables["Robustness"] = rows
    if subgroups:
        result.tables["Subgroups"] = list(_subgroups(context, judged, chosen, judgements["trained"]))
    result.left_out = _left_out(chosen, judgements["trained"], records, context.processor.feature_extractor)
    result.notes.append(f"{judged.name}: {len(records)} judged records")
    _plot(result, context, rows, f"{judged.name}, {result.dataset}")
    return result


# ----- steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Embedder:
    """Embeddings of changed records by one model, kept on disk as those of unchanged ones are."""

    context: EvaluationContext
    model: nn.Module
    door: Any
    records: datasets.Dataset
    layer: str
    key: str

    @classmethod
    def of(
        cls, context: EvaluationContext, model: nn.Module, door: Any, records: datasets.Dataset, layer: str
    ) -> _Embedder:
        how = (door.to_dict(), context.seed, layer, context.window)
        key = key_of("changed", weights_digest(model), records_digest(records), *how)
        return cls(context, model, door, records, layer, key)

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
            self.layer,
            context.window,
        )
        key = key_of(self.key, condition.key)
        return compute() if context.cache_dir is None else cached_array(context.cache_dir, key, compute)


@dataclass(frozen=True)
class _Pair:
    """A condition judged, and the change of its means from the unchanged records, on the records that both have."""

    judgement: Judgement
    change: dict[str, Any]
    is_kept: np.ndarray
    scores: np.ndarray


def _said(task: LabelTask, probe: str | None) -> str:
    what = "a linear probe that was trained on unchanged records" if probe else "zero-shot scores"
    return (
        f"{task.description}: macro AUROC of {what} on the judged records, each changed in one way; noise at a "
        f"signal-to-noise ratio of powers, lead by lead; of shorter records the first seconds. Intervals from at most "
        f"{NUM_RESAMPLES} resamples of patients; the change from the unchanged records is paired."
    )


def _load_task(context: EvaluationContext, task: str | None, splits: Sequence[str]) -> LabelTask:
    if task is None and context.source == "ptb_xl":
        task = "superdiagnostic"
    return load_tasks(context, None if task is None else [task], splits=splits)[0]


def _scorers(
    context: EvaluationContext, task: LabelTask, prompts: str | None, probe: str | None, floor: bool
) -> tuple[str, dict[str, Scorer]]:
    """The layer, and what makes scores `(n, C)` of its embeddings `(n, P)` for each model that is judged."""
    roles = [role for role in context.models() if floor or role != "random_weights"]
    if probe == FIT:
        return "pooled", {role: _probe_scorer(_fit(context, task, role)) for role in roles}
    if probe is not None:
        if context.compare is not None:
            raise ValueError(f"probe: expected {FIT!r} with --compare, since a file fits one model, got {probe}.")
        saved = read_probe(probe, task.label_names)
        return saved.layer, {"trained": _probe_scorer(saved.model)}
    texts = task_prompts(context, task, prompts)
    return "projected", {role: _zero_shot_scorer(class_embeddings(*context.models()[role], texts)) for role in roles}


def _fit(context: EvaluationContext, task: LabelTask, role: str) -> LinearModel:
    arrays: list[np.ndarray] = []
    for split in ("train", "validation"):
        arrays += [task.splits[split].embeds(context, role, "pooled"), task.splits[split].targets]
    return fit_logistic(*arrays)[0]


def _probe_scorer(model: LinearModel) -> Scorer:
    def scores(embeds: np.ndarray) -> np.ndarray:
        if embeds.shape[1] != len(model.weight):
            raise ValueError(
                f"probe: expected one for embeddings {embeds.shape[1]} wide, got one for {len(model.weight)}: it was "
                "trained on another model's, or on another layer."
            )
        return model.scores(embeds)

    return scores


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


def _judge_models(
    context: EvaluationContext, task: LabelTask, records: datasets.Dataset, chosen: list[Condition], layer: str,
    scorers: dict[str, Scorer],
) -> dict[str, list[_Pair | None]]:  # fmt: skip
    """Every condition, for each model by its role."""
    test, judgements = task.splits["test"], {}
    for role, scorer in scorers.items():
        model, processor = context.models()[role]
        embed = _Embedder.of(context, model, processor.feature_extractor, records, layer)
        samples = 0 if role == "random_weights" else min(context.num_resamples, NUM_RESAMPLES)
        judge_scores = partial(_judge, test.targets, task.label_names, test.patients(context), samples, context.seed)
        judgements[role] = list(_judge_all(chosen, embed, scorer, judge_scores))
    return judgements


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
        scores = scorer(embeds[is_kept])
        judgement = judge_scores(scores, is_kept)
        same = whole if (is_kept == all_kept).all() else judge_scores(scorer(clean[is_kept]), is_kept)
        yield _Pair(judgement, difference(judgement, same), is_kept, scores)


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


def _differences(
    task: str, chosen: list[Condition], ours: list[_Pair | None], theirs: list[_Pair | None]
) -> dict[str, Any]:
    """`{task}/{condition}/macro_auroc/difference` with its paired bounds, where both models read the same records."""
    figures: dict[str, Any] = {}
    for condition, one, other in zip(chosen, ours, theirs, strict=True):
        if one is not None and other is not None and np.array_equal(one.is_kept, other.is_kept):
            found = difference(one.judgement, other.judgement, f"{task}/{condition.key}/")
            figures |= {key: value for key, value in found.items() if "/macro_auroc/" in key}
    return figures


def _subgroups(
    context: EvaluationContext, task: LabelTask, chosen: list[Condition], pairs: list[_Pair | None]
) -> Iterator[dict[str, Any]]:
    test = task.splits["test"]
    of_split, people = attributes(context, test.source_split), test.patients(context)
    for condition, pair in zip(chosen, pairs, strict=True):
        if pair is None:
            continue
        kept = np.flatnonzero(pair.is_kept)
        of_records = {name: [groups[row] for row in test.rows[kept]] for name, groups in of_split.items()}
        rows = subgroup_rows(
            pair.scores, test.targets[kept], task.label_names, [people[row] for row in kept], of_records,
            num_resamples=context.num_resamples, seed=context.seed,
        )  # fmt: skip
        names = ("num_records", "num_patients", "num_classes", "macro_auroc", "macro_auroc_low", "macro_auroc_high")
        for row in rows:
            yield {"change": condition.key} | {key: row[key] for key in ("attribute", "group", *names, "note")}


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


def _plot(result: Result, context: EvaluationContext, rows: list[dict[str, Any]], title: str) -> None:
    drawn = [row for row in rows if row["macro_auroc"] is not None]
    if context.output is not None and len(drawn) > 1:
        png, _ = save_figure(robustness_figure(drawn, title), Path(context.output) / PLOT_NAME)
        result.pictures[f"Robustness: {title}"] = png.name
