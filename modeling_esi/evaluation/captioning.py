"""Captioning: reports written for ECGs, held against the true ones word by word and finding by finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from datasets_scripts import label_prompts
from datasets_scripts.preparation.record_reader import RecordReader

from .embedding import evaluation_mode
from .label_matcher import LabelMatcher
from .label_tasks import target_matrix
from .results import Result
from .sampled import Sampled, add_sampled
from .subgroups import rows_attributes, sampled_subgroups
from .task_results import empty_result
from .text_scores import TextScores, label_f1, micro_f1
from .zero_shot import patients

if TYPE_CHECKING:
    import datasets

    from .context import EvaluationContext

TEXT = "report_else_statements"  # which text records carry, where nothing else is said
TEXTS_FILE = "captions.jsonl"
TRUSTED_MATCHER = 0.6  # micro F1 on the true reports, below which the F1 of written ones tells little
PROTOCOL = (
    "Reports of at most {max_new_tokens} tokens, beams: {num_beams}. BLEU is sacrebleu's (13a, lower case), ROUGE-L "
    "the mean F-measure of rouge-score. another_record: the true report of another record, as plausible reports "
    "at random do. true_report: the findings of the true reports by the same matcher, the best to be hoped for."
)


def run(
    context: EvaluationContext,
    *,
    max_new_tokens: int = 128,
    num_beams: int = 1,
    subgroups: bool = True,
) -> Result:
    """Write a report for each ECG of a split and judge it; the texts go to captions.jsonl in the output folder.

    Args:
        max_new_tokens: a report ends there, if it has not ended before.
        num_beams: 1: the likeliest token each time; more: beam search.
        subgroups: also judge by sex, age band and device.

    Raises:
        ValueError: for a model that cannot write, such as the released variant, and records without texts.
    """
    context.refuse_window("captioning")
    rows = context.rows()
    told = [number for number, text in enumerate(rows["text"]) if text.strip()]
    if not told:
        raise ValueError(
            f"captioning: expected records with texts, got none of {len(rows)}: choose which text they carry "
            "(--text report_else_statements)."
        )
    judged = rows.select(told) if len(told) < len(rows) else rows
    prompts = _prompts(context)
    written = {
        role: write_reports(
            model, processor, judged, context.batch_size, context.device, max_new_tokens, num_beams, context.progress
        )
        for role, (model, processor) in context.models().items()
    }
    if context.output is not None:
        _save_texts(Path(context.output) / TEXTS_FILE, judged, written["trained"])
    settings = {"text": context.text, "max_new_tokens": max_new_tokens, "num_beams": num_beams}
    result = empty_result(context, "captioning", PROTOCOL.format(**settings), **settings)
    judge = _judge(context, judged, prompts, written)
    add_sampled(result, judge, list(written), context.num_resamples)
    if subgroups:
        result.tables["Subgroups"] = sampled_subgroups(
            rows_attributes(context, told),
            patients(judged),
            lambda group, number: judge("trained", number, group),
            context.num_resamples,
        )
    result.tables["Examples"] = _examples(judged, written["trained"])
    result.task_type = "text-generation"
    if len(told) < len(rows):
        result.left_out[f"{len(rows) - len(told)} records"] = "without a text"
    result.notes += [*_notes(result), f"{len(judged):,} records of {len(set(patients(judged))):,} patients"]
    return result


def write_reports(
    model: nn.Module,
    processor: Any,
    dataset: datasets.Dataset,
    batch_size: int = 64,
    device: Any = None,
    max_new_tokens: int = 128,
    num_beams: int = 1,
    progress: bool = False,
) -> list[str]:
    """The report that a model writes for each record, without its start and end tokens.

    Raises ValueError for a model that cannot write (`ESIModel.generate` says why), and records that the door refuses.
    """
    from tqdm.auto import tqdm

    device = device if device is not None else next(model.parameters()).device
    reader, texts = RecordReader(dataset), []
    with evaluation_mode(model), tqdm(total=len(dataset), desc="writing", disable=not progress) as bar:
        for start in range(0, len(dataset), batch_size):
            records = reader.records(range(start, min(start + batch_size, len(dataset))))
            inputs = processor.feature_extractor(records, device=device)
            ids = model.generate(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)
            texts += processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
            bar.update(len(records))
    return [text.strip() for text in texts]


def captioning(
    written: Sequence[str],
    true: Sequence[str],
    groups: Sequence[Hashable],
    num_resamples: int = 1000,
    seed: int = 0,
    prefix: str = "",
) -> dict[str, Any]:
    """Written texts against the true ones, word by word.

    Args:
        written, true: one text each for every record.
        groups: the patient of each record.
        num_resamples, seed: of the bootstrap of patients; 0: no intervals.
        prefix: put before each key of the result.

    Returns:
        `bleu1`, `bleu4`, `rouge_l`, 0 to 1, each with `_low` and `_high` of its 95 % interval; the same of
        `another_record/...`: each record's text is another one's, in a random ring; `num_records`, and
        `num_different_texts`: a model that writes the same for everybody shows it here.

    Raises:
        ValueError: where the numbers of texts and groups differ. ImportError without the packages of the extra `eval`.
    """
    return _word_scores(written, true, groups, num_resamples, seed).figures(prefix)


def finding_scores(
    written: Sequence[str],
    true: Sequence[str],
    labels: Sequence[Sequence[str]],
    prompts: Mapping[str, str | Sequence[str]],
    groups: Sequence[Hashable],
    num_resamples: int = 1000,
    seed: int = 0,
    prefix: str = "",
) -> dict[str, Any]:
    """The findings that written texts name, against the records' labels.

    Args:
        written, true: texts of every record.
        labels: the labels that the data set gives each record.
        prompts: texts that describe each label; see `label_matcher` for what is found in a text.
        groups, num_resamples, seed, prefix: as in `captioning`.

    Returns:
        `label_f1_micro`, and `label_f1_macro` over the labels that a record has, with `_low` and `_high` of their 95 %
        intervals; `label_f1/{label}` of those, and `num_positives/{label}` of all; the same two means of
        `true_report/...`, which the true texts reach with this matcher; `labels_left_out`, those that no record has.
    """
    return _finding_scores(written, true, labels, prompts, groups, num_resamples, seed).figures(prefix)


# ----- steps ---------------------------------------------------------------------------------------------------------


def _prompts(context: EvaluationContext) -> dict[str, list[str]]:
    """Phrases of the data set's labels; none where its records have no labels."""
    if not any(context.rows()["labels"]):
        return {}
    if context.dataset_rows:
        return {label: [label] for label in sorted({name for held in context.rows()["labels"] for name in held})}
    options = {name: context.dataset_options[name] for name in ("task",) if name in context.dataset_options}
    if context.data_dir is not None:
        options["data_dir"] = context.data_dir
    return label_prompts(context.dataset, **options)


def _judge(
    context: EvaluationContext,
    judged: datasets.Dataset,
    prompts: dict[str, list[str]],
    written: dict[str, list[str]],
) -> Callable[..., Sampled]:
    """What judges the texts of one model, on all records or on those of some numbers."""
    true, labels, people = list(judged["text"]), list(judged["labels"]), patients(judged)

    def judge(role: str, num_resamples: int, numbers: np.ndarray | None = None) -> Sampled:
        chosen = range(len(true)) if numbers is None else numbers
        said, told, of, who = ([whole[number] for number in chosen] for whole in (written[role], true, labels, people))
        scores = _word_scores(said, told, who, num_resamples, context.seed)
        if not prompts:
            return scores
        return scores | _finding_scores(said, told, of, prompts, who, num_resamples, context.seed)

    return judge


def _word_scores(
    written: Sequence[str], true: Sequence[str], groups: Sequence[Hashable], num_resamples: int, seed: int
) -> Sampled:
    if len(groups) != len(true):
        raise ValueError(f"groups: expected one for each of the {len(true)} records, got {len(groups)}.")
    names = ["bleu1", "bleu4", "rouge_l"]
    ours, others = (TextScores.of(texts, true) for texts in (written, [true[i] for i in _ring(len(true), seed)]))
    facts = dict(zip((f"another_record/{name}" for name in names), others.all(np.arange(len(true))), strict=True))
    facts |= {"num_records": len(true), "num_different_texts": len(set(written))}
    return Sampled.of(names, ours.all, groups, num_resamples, seed) | Sampled({}, facts=facts)


def _finding_scores(
    written: Sequence[str],
    true: Sequence[str],
    labels: Sequence[Sequence[str]],
    prompts: Mapping[str, str | Sequence[str]],
    groups: Sequence[Hashable],
    num_resamples: int,
    seed: int,
) -> Sampled:
    names = list(prompts)
    matcher, targets = LabelMatcher.from_prompts(prompts), target_matrix(labels, names)
    found, told = (target_matrix([matcher.find(text) for text in texts], names) for texts in (written, true))
    each = [None if np.isnan(f1) else float(f1) for f1 in label_f1(found, targets)]
    facts = dict(zip(("true_report/label_f1_micro", "true_report/label_f1_macro"), _means(told, targets), strict=True))
    facts |= {f"label_f1/{name}": f1 for name, f1 in zip(names, each, strict=True) if f1 is not None}
    facts |= {f"num_positives/{name}": int(n) for name, n in zip(names, targets.sum(axis=0), strict=True)}
    facts["labels_left_out"] = [name for name, f1 in zip(names, each, strict=True) if f1 is None]
    means = Sampled.of(
        ["label_f1_micro", "label_f1_macro"],
        lambda records: _means(found[records], targets[records]),
        groups, num_resamples if targets.any() else 0, seed, targets,
    )  # fmt: skip
    return means | Sampled({}, facts=facts)


def _ring(num_records: int, seed: int) -> np.ndarray:
    """For each record another one (itself only where there is no other)."""
    order = np.random.default_rng(seed).permutation(num_records)
    other = np.empty(num_records, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def _means(found: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Micro F1, and macro F1 over the labels that a record has (0 where none has any)."""
    each = label_f1(found, targets)
    return np.array([micro_f1(found, targets), np.nanmean(each) if np.isfinite(each).any() else 0.0])


def _notes(result: Result) -> list[str]:
    """What the figures of the findings are worth."""
    best = result.trained.get("true_report/label_f1_micro")
    if best is None:
        return ["No F1 of findings: the data set has no labels."]
    if best >= TRUSTED_MATCHER:
        return []
    return [
        f"The matcher finds few of the labels in the true reports (micro F1 {best:.2f}): they are in another language, "
        "in other words, or do not say them. The F1 of written reports tells little here; --text statements makes "
        "texts that say every label."
    ]


def _examples(judged: datasets.Dataset, written: list[str], number: int = 5) -> list[dict[str, str]]:
    rows = judged.select_columns(["record_id", "text"])[:number]
    return [
        {"record": record, "true": text, "written": said}
        for record, text, said in zip(rows["record_id"], rows["text"], written[:number], strict=True)
    ]


def _save_texts(path: Path, judged: datasets.Dataset, written: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = zip(judged["record_id"], judged["text"], written, strict=True)
    path.write_text(
        "".join(json.dumps(dict(zip(("record_id", "true", "written"), line, strict=True)), ensure_ascii=False) + "\n"
                for line in lines),
        encoding="utf-8",
    )  # fmt: skip
