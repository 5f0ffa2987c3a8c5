"""What each class is called, and what it looks like on an ECG: texts for zero-shot classification.

The shipped sets (`class_prompts/*.json`, own wording) say of every class its names and how it is seen, and templates
turn these into texts: the name alone, as training texts have it, and the appearance, as a cardiologist would describe
it (in the spirit of ESI's enriched texts, arXiv 2405.19366). All texts of a class are averaged.

Two more sets come from the data set itself: `short`, the phrases of its source, and `statements`, the names of all its
statements that stand for a class: of PTB-XL's MI fourteen kinds of infarction. For a model that was trained on texts
made of these statements the last are the words that it knows. For one that was trained on PTB-XL's reports these are
`reports`: phrases as its cardiologists and machines write them, German, English and Swedish, of the five superclasses,
chosen from the reports of training folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_scripts import label_prompts
from datasets_scripts.ptb_xl_labels import label_of_code, read_scp_statements
from datasets_scripts.report_text import findings_text

if TYPE_CHECKING:
    from .context import EvaluationContext
    from .label_tasks import LabelTask

PROMPT_SETS = ("ptb_xl", "cpsc2018", "csn", "ptb_xl_reports")
SHIPPED, SHORT, STATEMENTS, REPORTS = "shipped", "short", "statements", "reports"
NAMED = (SHIPPED, STATEMENTS, REPORTS, SHORT)
REPORTS_TASK = "superdiagnostic"


def shipped_prompts(prompt_set: str, task: str | None = None) -> dict[str, list[str]]:
    """The texts of every class of a shipped set; `task` chooses where one name stands for different classes.

    Raises ValueError for another set.

    >>> shipped_prompts("cpsc2018")["I-AVB"][0]
    'ECG Findings: first degree AV block.'
    """
    if prompt_set not in PROMPT_SETS:
        raise ValueError(f"prompts: expected one of {', '.join(PROMPT_SETS)}, got {prompt_set!r}.")
    resource = files("modeling_esi.evaluation").joinpath("class_prompts", f"{prompt_set}.json")
    content = json.loads(resource.read_text(encoding="utf-8"))
    classes = content["classes"] | content.get("of_task", {}).get(task, {})
    return {label: _texts(said, content["templates"]) for label, said in classes.items()}


def read_prompts(path: str | Path) -> dict[str, list[str]]:
    """Own texts from a JSON file: class to one text or several. Raises ValueError where it is not such a mapping."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}.") from error
    listed = {label: [texts] if isinstance(texts, str) else texts for label, texts in _mapping(content, path).items()}
    wrong = [
        label
        for label, texts in listed.items()
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts))
    ]
    if wrong:
        raise ValueError(f"{path}: expected one text or a list of texts for each class, got none for {wrong[0]!r}.")
    return listed


def statement_prompts(task: str, data_dir: str | Path | None) -> dict[str, list[str]]:
    """For each label of a PTB-XL task the descriptions of all SCP statements that stand for it, as texts.

    Args:
        task: one of `datasets_scripts.ptb_xl_labels.TASKS`.
        data_dir: PTB-XL's folder, whose scp_statements.csv is read.

    Raises:
        ValueError: for another task or no folder; FileNotFoundError without the table.
    """
    prompts: dict[str, list[str]] = {}
    for statement in read_scp_statements(data_dir).values():
        label, text = label_of_code(statement, task), findings_text([statement.description])
        if label is not None and text not in prompts.setdefault(label, []):
            prompts[label].append(text)
    return dict(sorted(prompts.items()))


def training_prompts(
    dataset: str, text: str | None, *, data_dir: str | Path | None = None, **options: Any
) -> dict[str, list[str]]:
    """The texts of every class in the words that training with `--text text` teaches, for validation on the way.

    Args:
        dataset: a source's name, a prepared folder or a repository.
        text: one of `datasets_scripts.report_text.TEXT_CHOICES`; None: reports, else statements.
        data_dir: the source's folder.
        options: the source's further options; `task` for PTB-XL.

    Raises:
        ValueError, FileNotFoundError: as the source does.
    """
    task = options.get("task", REPORTS_TASK)
    if dataset == "ptb_xl" and text == "statements":
        return statement_prompts(task, data_dir)
    if dataset == "ptb_xl" and text != "none" and task == REPORTS_TASK:
        return shipped_prompts("ptb_xl_reports", task)
    return label_prompts(dataset, **(options | ({"data_dir": data_dir} if data_dir else {})))


def prompts_name(prompts: str | None) -> str:
    """What a set of prompts is called in results: its name, or "own file"."""
    chosen = prompts or SHIPPED
    return chosen if chosen in NAMED else "own file"


def task_prompts(context: EvaluationContext, task: LabelTask, prompts: str | None = None) -> dict[str, list[str]]:
    """The texts of a task's classes, in its order.

    Args:
        context: model and data.
        task: whose classes are described.
        prompts: a JSON file; or `"shipped"` (default), `"statements"`, the names of the data set's own statements,
            `"reports"`, the words of PTB-XL's reports (five superclasses), or `"short"`, the phrases of the source.
            For other data sets than PTB-XL the last three are the same.

    Raises:
        ValueError: where a class has no text.
    """
    chosen = prompts or SHIPPED
    if chosen == SHIPPED and task.prompt_set in PROMPT_SETS:
        known: Mapping[str, Sequence[str]] = shipped_prompts(task.prompt_set, task.name)
    elif chosen == REPORTS and context.source == "ptb_xl":
        known = shipped_prompts("ptb_xl_reports", task.name)
    elif chosen == STATEMENTS and context.source == "ptb_xl":
        known = statement_prompts(task.name, _folder(context))
    elif chosen in NAMED:
        known = _phrases_of_source(context, task)
    else:
        known = read_prompts(chosen)
    missing = [name for name in task.label_names if name not in known]
    if missing:
        raise ValueError(
            f"prompts: expected a text for each class of {task.name}, got none for {', '.join(missing)}: give your own "
            "with --prompts file.json, {class: [texts]}."
        )
    return {name: list(known[name]) for name in task.label_names}


def _phrases_of_source(context: EvaluationContext, task: LabelTask) -> dict[str, list[str]]:
    if context.source == "ptb_xl":
        return label_prompts("ptb_xl", task=task.name, data_dir=_folder(context))
    if context.dataset_rows:
        return {}
    if context.manifest:
        return dict(context.manifest["label_prompts"])
    options = {"task": context.dataset_options["task"]} if "task" in context.dataset_options else {}
    return label_prompts(context.dataset, data_dir=context.data_dir, **options)


def _folder(context: EvaluationContext) -> str | None:
    """PTB-XL's own folder, also of a prepared copy."""
    return context.data_dir or context.manifest.get("settings", {}).get("data_dir")


def _texts(said: Mapping[str, Sequence[str]], templates: Mapping[str, Sequence[str]]) -> list[str]:
    texts = [template.format(name=name) for name in said["names"] for template in templates["name"]]
    first = said["names"][0]
    texts += [template.format(name=first, seen=seen) for seen in said["seen"] for template in templates["seen"]]
    return list(dict.fromkeys(texts))


def _mapping(content: Any, path: str | Path) -> Mapping[str, Any]:
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: expected a mapping of classes to texts, got {type(content).__name__}.")
    return content
