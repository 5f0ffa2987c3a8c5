"""Prepared folders of a few short records, written as `prepare_dataset` ends: shards, report, card, manifest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.dataset_card import dataset_card
from datasets_scripts.preparation.preparation_report import PreparationReport
from datasets_scripts.preparation.shards import Layout, ShardWriter, convert_shard
from datasets_scripts.records import ECGRecord

FACTS = {
    "title": "Tiny ECGs", "homepage": "https://example.org/content/tiny/1.0/", "license": "cc-by-4.0",
    "citation": "Nobody 2020, https://example.org/a/b", "statements_are_labels": True, "reports_are_labels": False,
    "credentialed_fields": {"patients": ["age", "sex"]},
}  # fmt: skip


def tiny_record(number: int, num_samples: int = 7, plain: bool = False) -> ECGRecord:
    """Record `number`: three leads, integers that tell them apart; `plain`: float32 mV instead."""
    rng = np.random.default_rng(number)
    fields: dict[str, Any] = {
        "text": f"record {number}", "report": "sinus rhythm", "labels": ("NORM",) * (number % 2),
        "record_id": str(number), "patient_id": f"p{number // 2}", "age": 50.0 if number % 3 else None,
        "sex": ("male", "female", None)[number % 3],
    }  # fmt: skip
    leads = ("I", "aVF", "V1")
    if plain:
        return ECGRecord(rng.normal(size=(3, num_samples)).astype(np.float32), leads, 250.0, **fields)
    digital = rng.integers(-999, 999, (3, num_samples)).astype(np.int16)
    digital[2, 0] = -32768  # a sample that is not there
    return ECGRecord.from_digital(digital, np.full(3, 200.0), np.array([0.0, 5.0, 0.0]), leads, 250.0, **fields)


def write_prepared(
    folder: Path, shards: Mapping[str, Sequence[ECGRecord]], layout: Layout | None = None, **manifest: Any
) -> Path:
    """A prepared folder; `shards` by file name without ending, `layout` one for all instead of each its own."""
    folder.mkdir(parents=True)
    parts, splits = [], {split: LoadReport("tiny", split) for split in ("train", "validation", "test")}
    for name, records in shards.items():
        path, split = folder / f"{name}.arrow", name.rpartition("-")[0]
        with ShardWriter(path) as writer:
            for record in records:
                writer.write(record)
        own = writer.layout
        if layout is not None and own != layout:
            convert_shard(path, layout)
            own = layout
        splits[split].num_read += len(records)
        splits[split].num_kept += len(records)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append({"file": path.name, "split": split, "num_rows": len(records),
                      "layout": [own.dtype, own.num_values], "sha256": digest})  # fmt: skip
    report = PreparationReport("tiny", splits, num_patients=dict.fromkeys(splits, 1))
    settings = {"name": "tiny", "data_dir": None, "options": {}, "text": "report"}
    values = {
        "settings": settings, "facts": FACTS, "credentialed_columns": [], "label_names": ["NORM"],
        "label_prompts": {"NORM": ["normal ECG"]}, "shards": parts, "seconds": 1.0, "finished": "2026-01-01T00:00:00Z",
    } | manifest  # fmt: skip
    (folder / "README.md").write_text(dataset_card(values, report))
    (folder / "report.json").write_text(json.dumps(report.to_dict()))
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def numbered(first: int, count: int, num_samples: int = 7) -> list[ECGRecord]:
    """Records `first`, `first + 1`, ..."""
    return [tiny_record(number, num_samples) for number in range(first, first + count)]
