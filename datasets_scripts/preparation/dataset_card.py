"""The card of a prepared data set, from its manifest and report alone; also what tells `load_dataset` its splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from datasets_scripts.preparation.preparation_report import PreparationReport

_COLUMNS = """| column | meaning |
|---|---|
| `signal` | flat and lead-major, `num_leads * num_samples` integers as read (-32768: no sample), or float32 mV |
| `gain`, `offset` | for each lead: `mV = (signal - offset) / gain` |
| `leads`, `sampling_rate`, `num_samples` | lead names as the source spells them; Hz; samples of each lead |
| `text` | the text chosen for training |
| `report`, `statements`, `labels` | as the source gives them |
| `record_id`, `patient_id`, `age`, `sex` | as far as the source tells; age 90 stands for over 89 |
| `text_key` | equal where two records say the same, whoever the patient is |
| `repairs` | what reading had to mend or leave out |
"""


def dataset_card(
    manifest: Mapping[str, Any], report: PreparationReport, suffix: str = "arrow", repository: str | None = None
) -> str:
    """The README of a prepared folder: metadata of the Hub, then what is in it and how it came about.

    `suffix` is that of its shards; `repository` where it is pushed to, None for a folder.
    """
    facts, settings = manifest["facts"], manifest["settings"]
    sections = [
        f"---\n{yaml.safe_dump(_metadata(manifest, report, suffix), sort_keys=False)}---",
        f"# {facts['title']}, prepared with esi-ecg",
        _origin(facts),
        "## Records\n\n" + _counts(report),
        "## Columns\n\n" + _COLUMNS,
        "## Persons\n\n" + _persons(manifest["credentialed_columns"]),
        "## How it was prepared\n\n" + _settings(settings),
        "## Use\n\n" + _use(_first_split(report), repository),
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(manifest: Mapping[str, Any], report: PreparationReport, suffix: str) -> dict[str, Any]:
    files = [{"split": split, "path": f"{split}-*.{suffix}"} for split, load in report.splits.items() if load.num_kept]
    return {
        "license": manifest["facts"]["license"],
        "pretty_name": manifest["facts"]["title"],
        "tags": ["ecg", "electrocardiogram", "medical"],
        "size_categories": [_size_category(report.num_kept)],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _first_split(report: PreparationReport) -> str:
    return next((split for split, load in report.splits.items() if load.num_kept), "train")


def _origin(facts: Mapping[str, Any]) -> str:
    lines = [f"Source: {facts['homepage']}" if facts["homepage"] else "Source: not stated."]
    if facts["citation"]:
        lines.append(f"Please cite: {facts['citation']}")
    return "\n\n".join(lines)


def _counts(report: PreparationReport) -> str:
    rows = ["| split | kept | read | rejected | left out by options | patients |", "|---|---|---|---|---|---|"]
    for split, load in report.splits.items():
        cells = (split, load.num_kept, load.num_read, len(load.rejected), sum(load.filtered.values()))
        rows.append("| " + " | ".join(map(str, (*cells, report.num_patients.get(split, 0)))) + " |")
    across = len(report.duplicates_across_splits())
    rows += ["", f"Groups of equal signals: {len(report.duplicates)}, over several splits: {across}. `report.json` "
                 "names every rejected record with its reason."]  # fmt: skip
    if any(load.text_is_label_supervised for load in report.splits.values()):
        rows += ["", "Texts tell the labels: zero-shot results of a model trained on them are label-supervised."]
    return "\n".join(rows)


def _persons(credentialed_columns: list[str]) -> str:
    """What the rows tell about persons, and who may read it."""
    told = ("`record_id` and `patient_id` are the identifiers that the source gives; records of one person share a "
            "`patient_id`, by which splits keep persons apart. Do not try to find out who they are.")  # fmt: skip
    if not credentialed_columns:
        return told
    columns = ", ".join(f"`{name}`" for name in credentialed_columns)
    return f"{told}\n\n**Under a data use agreement:** {columns}. Only who has signed it may read this data set."


def _use(split: str, repository: str | None) -> str:
    code = f'from datasets import load_dataset\n\nrows = load_dataset("{repository or "FOLDER"}", split="{split}")'
    if repository is not None:
        code += (
            "\n\n# without room for a copy: row groups are fetched as they are needed (pip install esi-ecg)\n"
            "from datasets_scripts.preparation.streaming import stream_ecg_dataset\n\n"
            f'stream = stream_ecg_dataset("{repository}", split="{split}", seed=0)'
        )
    return f"```python\n{code}\n```"


def _size_category(num_records: int) -> str:
    """The Hub's word for a size."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((word for bound, word in bounds.items() if num_records < bound), "1M<n<10M")


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if name != "data_dir"}  # a path of somebody's machine
    return "\n".join(f"- `{name}`: {value}" for name, value in shown.items())
