"""Evaluation results in a model card: the table with floor and interval, the Hub's metadata, the leakage line."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

Results = Mapping[str, Any]

NOT_STATED = "not stated"
NO_RESULTS = "No evaluation results are stated."
LOCAL_PATH = "(a local path)"
#: Figures of a result that describe the task, not the model.
_REFERENCES = ("ln_batch", "contrastive_target_entropy")
LABEL_SUPERVISED = (
    "The training texts were made from the data set's labels. Zero-shot results on these labels are therefore "
    "label-supervised, and not comparable with those of models trained on reports."
)


def result_list(results: Results | Sequence[Results] | None) -> list[Results]:
    """One result, several or none, as a list. Raises ValueError for one without the mapping `trained`."""
    listed = [results] if isinstance(results, Mapping) else list(results or [])
    for result in listed:
        if not isinstance(result, Mapping) or not isinstance(result.get("trained"), Mapping):
            got = list(result) if isinstance(result, Mapping) else type(result).__name__
            raise ValueError(f"results: expected a mapping with 'trained', the figures of an evaluator, got {got}.")
    return listed


def _figures(result: Results) -> Iterator[tuple[str, float]]:
    """The figures of the model: no bounds of intervals, no counts, no texts, nothing that could not be computed."""
    trained = result["trained"]
    for key, value in trained.items():
        is_bound = key.endswith(("_low", "_high")) and key.rpartition("_")[0] in trained
        is_count = key.split("/")[-1].startswith("num_") or "num_positives/" in key
        if _is_number(value) and not is_bound and not is_count:
            yield key, float(value)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def eval_results(result: Results) -> Iterator[EvalResult]:
    """A result's summary figures as entries of the Hub's `model-index`, with protocol, interval and floor."""
    dataset = without_paths(result.get("dataset") or NOT_STATED)
    for key, value in _figures(result):
        first, _, name = key.partition("/")
        if "auroc/" in key or key.split("/")[-1] in _REFERENCES:
            continue  # classes stand in the table; references are no results
        low, high, floor = _beside(result, key)
        facts = {
            "evaluation": result.get("name") or None, "interval_95_low": low, "interval_95_high": high,
            "random_weights": floor,
        }  # fmt: skip
        yield EvalResult(
            task_type=result.get("task_type") or "feature-extraction",
            dataset_type=re.sub(r"[^a-z0-9_.-]+", "_", dataset.lower()).strip("_"),
            dataset_name=dataset,
            dataset_split=first if first in ("train", "validation", "test") else None,
            metric_type=_metric_type(name or first),
            metric_name=key,
            metric_value=value,
            metric_args={"protocol": _protocol(result)} | {k: v for k, v in facts.items() if v is not None},
        )


def _metric_type(name: str) -> str:
    if name.endswith("auroc"):
        return "roc_auc"
    return "recall" if "recall@" in name else name.rpartition("/")[2]


def _protocol(result: Results) -> str:
    return without_paths(result.get("protocol") or NOT_STATED).rstrip(".")


def _beside(result: Results, key: str) -> tuple[float | None, float | None, float | None]:
    """Both bounds of a figure's interval and its floor; None where unknown."""
    trained, floor = result["trained"], result.get("random_weights") or {}
    found = (trained.get(f"{key}_low"), trained.get(f"{key}_high"), floor.get(key))
    return tuple(float(value) if _is_number(value) else None for value in found)


def results_text(results: list[Results], training_data: str, text_is_label_supervised: bool) -> str:
    """The section on results: what the model was trained on, then a block for each result."""
    parts = [] if results else [NO_RESULTS]
    parts.append(f"Trained on: {training_data.strip() or NOT_STATED}")
    if text_is_label_supervised:
        parts.append(f"**Label-supervised text.** {LABEL_SUPERVISED}")
    blocks = {result_title(result): result_block(result) for result in results}
    return "\n\n".join([*parts, *(f"### {title}\n\n{block}" for title, block in blocks.items())])


def result_title(result: Results) -> str:
    """What a result is of: its protocol, if it has a name, and its data."""
    dataset = without_paths(result.get("dataset") or f"data {NOT_STATED}")
    return f"{result['name']} on {dataset}" if result.get("name") else dataset


def result_block(result: Results) -> str:
    """A result in words: tables, what they do not say, and the leakage line."""
    columns = ["figure", "this model", "95 % interval", "random weights"]
    main, classes = [], []
    for key, value in _figures(result):
        low, high, floor = _beside(result, key)
        interval = NOT_STATED if low is None or high is None else f"{low:.4f} to {high:.4f}"
        row = [key, f"{value:.4f}", interval, NOT_STATED if floor is None else f"{floor:.4f}"]
        if "auroc/" in key:
            positives = result["trained"].get(key.replace("auroc/", "num_positives/"), NOT_STATED)
            classes.append([row[0], row[1], row[3], str(positives)])
        else:
            main.append(row)
    parts = [f"Data: {without_paths(result.get('dataset') or NOT_STATED)}. Protocol: {_protocol(result)}."]
    parts += [table(columns, main)] if main else []
    parts += [table(["class", "this model", "random weights", "positives"], classes)] if classes else []
    return "\n\n".join([*parts, *_remarks(result["trained"]), *_notes(result), _leakage(result)])


def _remarks(trained: Mapping[str, Any]) -> Iterator[str]:
    """What the figures do not say: how many records, which classes are missing, why there is no interval."""
    for key, value in trained.items():
        name = key.split("/")[-1]
        if name in ("num_records", "num_candidates"):
            yield f"`{key}`: {value:,}."
        elif name == "labels_left_out" and value:
            yield f"`{key}` (without positives or without negatives, not in the mean): {', '.join(value)}."
        elif name.endswith("_note"):
            yield f"`{key}`: {without_paths(value)}."


def _notes(result: Results) -> Iterator[str]:
    """What an evaluation tells beside its figures: what it left out and why, and its remarks."""
    left_out = result.get("left_out") or {}
    for reason in dict.fromkeys(left_out.values()):
        names = (name for name, why in left_out.items() if why == reason)
        yield f"Left out, {without_paths(reason)}: {', '.join(names)}."
    yield from (without_paths(note) for note in result.get("notes") or ())


def _leakage(result: Results) -> str:
    answer = {True: "Yes", False: "No", None: "Not stated"}[result.get("seen_in_training")]
    reason = without_paths(result.get("leakage") or "")
    return f"**Leakage.** Were the records of the evaluation in training? {answer}{f': {reason}' if reason else '.'}"


# ----- results in files ----------------------------------------------------------------------------------------------

#: What is kept of an evaluation's `results.json` beside the weights; its settings name folders of the machine.
_KEPT = (
    "name", "protocol", "dataset", "task_type", "trained", "random_weights", "left_out", "seen_in_training", "leakage",
    "notes",
)  # fmt: skip


def results_files(folder: Path) -> list[Path]:
    """The files of figures in a model folder: `results.json` of the training, `results_*.json` of evaluations."""
    return [*folder.glob("results.json"), *sorted(folder.glob("results_*.json"))]


def read_results(path: Path) -> dict[str, Any]:
    """A file of results. Raises ValueError where it is not what an evaluation writes, FileNotFoundError without one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result_list([result])
    except ValueError as error:
        raise ValueError(f"{path.name}: expected results of an evaluation, got {error}") from error
    return result


def public_results(path: Path) -> bytes:
    """A file of results without the settings of its run and without paths: what may leave this machine."""
    result = {name: _public(value) for name, value in read_results(path).items() if name != "settings"}
    return json.dumps(result, indent=2, ensure_ascii=False).encode()


def keep_results(folder: Path, result: Results, weights: Mapping[str, str]) -> str:
    """Write a result, with the hashes of the weights it is of, into a model folder; gives the file's name."""
    kept = {name: _public(result[name]) for name in _KEPT if name in result}
    place = re.sub(r"[^a-z0-9]+", "_", result_title(result).lower()).strip("_")
    unfinished, name = folder / ".results.unfinished", f"results_{place}.json"
    unfinished.write_text(json.dumps(kept | {"weights": dict(weights)}, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(unfinished, folder / name)
    return name


def _public(value: Any) -> Any:
    """A value of JSON, no path of this machine in its texts."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return without_paths(value) if isinstance(value, str) else value


# ----- facts as text -------------------------------------------------------------------------------------------------

_PATH = re.compile(
    r"""file://\S+
    | (?<![\w/:.~)])~?/[\w.~-]+/[^\s,;:'")\]}]*  # /home/..., ~/data/...: at least two parts, and no URL
    | (?<![\w/.])(?:~|\.{1,2})/[^\s,;:'")\]}]+   # ~/here, ./here, ../there
    | \b[A-Za-z]:\\[^\s,;'")\]}]+                # C:\...
    | \\\\[\w.-]+\\[^\s,;'")\]}]+                # \\server\...""",
    re.VERBOSE,
)


def without_paths(value: Any) -> str:
    """A fact as text, with what looks like a path of this machine taken out, also from inside lists and mappings."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {without_paths(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(without_paths(item) for item in value)
    text = str(value)
    if isinstance(value, os.PathLike) or os.path.isabs(text) or (os.sep in text and os.path.exists(text)):
        return LOCAL_PATH
    return _PATH.sub(LOCAL_PATH, text)


def as_list(values: str | os.PathLike | Sequence[str] | None) -> list[str]:
    """One value or several, as a list."""
    return [values] if isinstance(values, str | os.PathLike) else list(values or [])


def table(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = (columns, ["---"] * len(columns), *rows)
    cells = ([str(cell).replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
