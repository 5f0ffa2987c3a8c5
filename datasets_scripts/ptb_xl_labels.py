"""PTB-XL's SCP-ECG statements: what they mean, and the six label tasks of the PTB-XL benchmark.

The tasks follow Strodthoff et al., "Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL" (2020,
https://doi.org/10.1109/JBHI.2020.3022989): a code counts whatever its likelihood, 0 included; the diagnostic tasks
aggregate the diagnostic codes by `scp_statements.csv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from datasets_scripts.listing.csv_tables import TableRow, read_rows, require_columns
from datasets_scripts.report_text import findings_text

TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
STATEMENTS_FILE = "scp_statements.csv"
STATEMENTS_COLUMNS = ("description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")

# Several ways to say each superclass, in the words that findings use
SUPERCLASS_PROMPTS = {
    "NORM": ["normal ECG", "normal ECG, sinus rhythm"],
    "MI": [
        "myocardial infarction",
        "inferior myocardial infarction",
        "anterior myocardial infarction",
        "anteroseptal myocardial infarction",
        "lateral myocardial infarction",
    ],
    "STTC": [
        "ST-T changes",
        "non-specific ST changes",
        "non-diagnostic T abnormalities",
        "ischemic ST-T changes",
        "ST segment or T wave abnormality",
    ],
    "CD": [
        "conduction disturbance",
        "bundle branch block",
        "left anterior fascicular block",
        "first degree AV block",
        "intraventricular conduction delay",
    ],
    "HYP": [
        "hypertrophy",
        "left ventricular hypertrophy",
        "right ventricular hypertrophy",
        "left atrial overload/enlargement",
        "right atrial overload/enlargement",
    ],
}


@dataclass(frozen=True)
class SCPStatement:
    """One row of `scp_statements.csv`."""

    code: str
    description: str
    diagnostic: bool
    form: bool
    rhythm: bool
    superclass: str
    subclass: str


def published_folder(data_dir: str | PathLike[str] | None) -> Path:
    """The data set's folder as a path. Raises ValueError if none is given."""
    if data_dir is None:
        raise ValueError("data_dir: expected PTB-XL's folder, which holds scp_statements.csv, got None")
    return Path(data_dir)


def published_file(folder: Path, name: str) -> Path:
    """The path of one of the published tables. Raises FileNotFoundError if it is not there."""
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder / name}: no such file; data_dir must be PTB-XL's folder, as published on PhysioNet"
        )
    return folder / name


def read_scp_statements(data_dir: str | PathLike[str] | None) -> dict[str, SCPStatement]:
    """The statements by code. Raises FileNotFoundError or ValueError if the table is not there or not one."""
    path = published_file(published_folder(data_dir), STATEMENTS_FILE)
    code_column = require_columns(path, STATEMENTS_COLUMNS)[0]  # published without a name
    rows = list(read_rows(path, STATEMENTS_COLUMNS))
    for row in rows:
        if row.problem:
            raise ValueError(f"{path}: {row.problem}")
    if not rows:
        raise ValueError(f"{path}: expected a row for every SCP statement, got none; copy the published table again")
    return {row.get(code_column): _statement(row.get(code_column), row) for row in rows}


def _statement(code: str, row: TableRow) -> SCPStatement:
    flags = {name: row.get(name) != "" and float(row.get(name)) == 1 for name in ("diagnostic", "form", "rhythm")}
    return SCPStatement(
        code=code,
        description=row.get("description"),
        superclass=row.get("diagnostic_class"),
        subclass=row.get("diagnostic_subclass"),
        **flags,
    )


def label_of_code(statement: SCPStatement, task: str) -> str | None:
    """The task's label that a code stands for, or None if it has none in this task."""
    check_task(task)
    if task == "all":
        return statement.code
    if task in ("form", "rhythm"):
        return statement.code if getattr(statement, task) else None
    if not statement.diagnostic:
        return None
    aggregated = {
        "diagnostic": statement.code,
        "subdiagnostic": statement.subclass,
        "superdiagnostic": statement.superclass,
    }
    return aggregated[task] or None


def check_task(task: str) -> None:
    """ValueError unless `task` is one of the six."""
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")


def label_names(task: str = "superdiagnostic", data_dir: str | PathLike[str] | None = None, **_: Any) -> list[str]:
    """The task's labels, sorted as the benchmark's columns: 71, 44, 23, 5, 19 or 12 names.

    `data_dir` is PTB-XL's folder. Raises ValueError for another task or no folder, FileNotFoundError without its table.
    """
    return list(label_prompts(task, data_dir))


def label_prompts(
    task: str = "superdiagnostic", data_dir: str | PathLike[str] | None = None, **_: Any
) -> dict[str, list[str]]:
    """English texts for every label of the task, for zero-shot classification; in the order of `label_names`.

    Each is a whole text in the style of the training texts (`ECG Findings: normal ECG.`), to be embedded as it is. A
    code is said by its description, a subclass by the descriptions of its codes, a superclass in several own words.
    Raises as `label_names`.
    """
    check_task(task)
    prompts: dict[str, list[str]] = {}
    for statement in read_scp_statements(data_dir).values():
        label = label_of_code(statement, task)
        if label is not None and statement.description not in prompts.setdefault(label, []):
            prompts[label].append(statement.description)
    if task == "superdiagnostic":
        prompts = {label: SUPERCLASS_PROMPTS.get(label, phrases) for label, phrases in prompts.items()}
    return {label: [findings_text([phrase]) for phrase in prompts[label]] for label in sorted(prompts)}
