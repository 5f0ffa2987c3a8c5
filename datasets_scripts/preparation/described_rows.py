"""Stored rows with descriptions in their texts, without preparing them again: only the column `text` is new.

The texts are written once, beside the Hugging Face data sets cache, and mapped into memory like the rows themselves;
the samples are neither read nor copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.prepare import digest_of
from datasets_scripts.report_text import WAVEFORMS, choose_text

TEXT = "statements"  # descriptions stand behind the statements that they describe
TEXTS_FOLDER = "esi_ecg_texts"
_NEEDED = ("statements", "age", "sex")
_SCHEMA = pa.schema({"text": pa.string()})


def with_waveforms(
    dataset: datasets.Dataset,
    report: LoadReport,
    waveforms: Mapping[str, str],
    key: str,
    cache_dir: str | PathLike[str] | None = None,
) -> tuple[datasets.Dataset, LoadReport]:
    """The rows with the paper's template as text: statements, and behind them their descriptions.

    A row without statements has nothing to say, and is left out and told in the report.

    Args:
        dataset: rows of a prepared folder, in their order; not selected or shuffled.
        report: what became of its records.
        waveforms: statement -> description (`report_text.read_waveforms`).
        key: tells the rows apart from all others: a hash of their files.
        cache_dir: where the texts are kept; default: the Hugging Face data sets cache.
    """
    folder = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / TEXTS_FOLDER
    path = folder / f"texts-{digest_of([key, digest_of(waveforms)])}.arrow"
    if not path.is_file():
        _write_texts(dataset, waveforms, path)
    columns = dataset.column_names
    texts = datasets.Dataset.from_file(str(path))
    told = datasets.concatenate_datasets([dataset.remove_columns("text"), texts], axis=1).select_columns(columns)
    told.info.description = dataset.info.description
    return _without_silent_rows(told, report)


def _write_texts(dataset: datasets.Dataset, waveforms: Mapping[str, str], path: Path) -> None:
    """One text for each row, in batches like those of the rows; the file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f"{path.name}.building-{os.getpid()}")
    with pa.OSFile(str(building), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        for batch in _batches(dataset):
            texts = [choose_text(row, TEXT, waveforms) for row in batch.to_pylist()]
            writer.write_batch(pa.record_batch([pa.array(texts, pa.string())], schema=_SCHEMA))
    building.replace(path)


def _batches(dataset: datasets.Dataset) -> Iterator[pa.RecordBatch]:
    """The columns that a text is made of, in the chunks of the stored rows."""
    for batch in dataset.data.table.select(list(_NEEDED)).to_batches():
        if batch.num_rows:
            yield batch


def _without_silent_rows(dataset: datasets.Dataset, report: LoadReport) -> tuple[datasets.Dataset, LoadReport]:
    """Rows with a text, and the report that counts those that have none."""
    texts = dataset.data.column("text")
    silent = pc.equal(texts, "").to_numpy()
    num_told = int((~silent).sum())
    num_described = pc.sum(pc.match_substring(texts, f"\n{WAVEFORMS}\n")).as_py() or 0
    report = replace(
        LoadReport.from_dict(report.to_dict()), text=TEXT, num_kept=num_told, num_statement_texts=num_told,
        num_described=num_described,
    )  # fmt: skip
    if num_told == len(silent):
        return dataset, report
    for record_id in dataset.data.column("record_id").filter(silent).to_pylist():
        report.reject(record_id, "no statements")
    report.num_empty_text += len(silent) - num_told
    return dataset.select(np.flatnonzero(~silent)), report
