"""A data set by its name: `datasets.Dataset` with the same columns for every source, on disk and memory-mapped.

A source is a module of this package that offers

- `iter_records(data_dir, split, *, report, **options)`: yields `ECGRecord`s with `report`, `statements`, `labels` set;
  `text` is chosen here. `split` is "train", "validation", "test" or None for all. A source that reads files tells
  `report.look_at(path)` before each record and `report.reject(record_id, reason)` for what it cannot read; one that
  makes its records does without the argument `report`.
- `source_files(data_dir, split, **options)`: the files on which the records depend. A source without it makes its
  records: they depend on this package's code, and their reports are made from their labels.
  Asked for all splits, it is called for each.
- `label_names(**options)` and `label_prompts(**options)`: the labels, and English texts for each.

Each result is cached under a key of everything it depends on: options, the size and time of every source file, the row
format. It is built in a folder of its own, which gets its name when the last file, the load report, is written: what a
killed process leaves is never taken for a data set.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from filelock import FileLock

from datasets_scripts.load_report import LoadReport
from datasets_scripts.records import ROW_FORMAT_VERSION, ECGRecord, record_to_row, row_features
from datasets_scripts.report_text import check_text_choice, choose_text

logger = logging.getLogger(__name__)

SOURCES = ("ptb_xl", "esi_csv", "synthetic")
SPLITS = ("train", "validation", "test")
ROWS_FILE, REPORT_FILE = "records.arrow", "load_report.json"
ROWS_PER_BATCH = 64  # 12 leads of 10 s at 500 Hz: 8 MB of int16 held while building


class NoRecordsError(ValueError):
    """No record of a split could be kept."""


def load_ecg_dataset(
    name: str,
    data_dir: str | PathLike[str] | None = None,
    split: str | None = "train",
    text: str = "report_else_statements",
    cache_dir: str | PathLike[str] | None = None,
    limit: int | None = None,
    **source_options: Any,
) -> datasets.Dataset:
    """The data set `name` as rows (see `records.row_features`); what was not kept is told in a logged warning.

    The arguments and errors are those of `load_ecg_dataset_with_report`.
    """
    dataset, report = load_ecg_dataset_with_report(name, data_dir, split, text, cache_dir, limit, **source_options)
    level = logging.WARNING if report.rejected or report.text_is_label_supervised else logging.INFO
    logger.log(level, "%s", "; ".join(report.summary()))
    return dataset


def load_ecg_dataset_with_report(
    name: str,
    data_dir: str | PathLike[str] | None = None,
    split: str | None = "train",
    text: str = "report_else_statements",
    cache_dir: str | PathLike[str] | None = None,
    limit: int | None = None,
    **source_options: Any,
) -> tuple[datasets.Dataset, LoadReport]:
    """The data set `name` and what became of each of its records.

    Args:
        name: `"ptb_xl"`, `"esi_csv"` or `"synthetic"`.
        data_dir: the source's folder, as it is published.
        split: `"train"`, `"validation"`, `"test"`, or None for all records.
        text: what the column `text` holds: `"report"` (as it is), `"statements"` (the paper's template over the label
            statements) or `"report_else_statements"`. A record without any is rejected, and counted.
        cache_dir: where the rows are kept (default: the Hugging Face data sets cache).
        limit: keep at most so many records, the first ones.
        source_options: the options of the source's `iter_records`.

    Raises:
        FileNotFoundError, ValueError: for a name, split, text, option or folder that makes no sense, and if no record
            could be kept (with the first reasons).
    """
    source = _source(name)
    _check_choices(split, text, limit)
    _check_options(source, source_options)
    asked = {"name": name, "split": split, "text": text, "limit": limit, "options": source_options}
    key = _fingerprint(source, data_dir, asked)
    root = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "esi_ecg_records"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{name}-{split or 'all'}-{key}"
    if not _is_complete(folder):
        with FileLock(f"{folder}.lock"):  # several processes of one training ask at once; one builds
            if not _is_complete(folder):
                _build(folder, source, data_dir, asked)
    return _open(folder)


def label_names(name: str, **options: Any) -> list[str]:
    """The labels of a data set, in the order of its task; options as for the source (`data_dir`, `task`)."""
    return _source(name).label_names(**options)


def label_prompts(name: str, **options: Any) -> dict[str, list[str]]:
    """English phrases for every label of a data set, in the order of `label_names`."""
    return _source(name).label_prompts(**options)


def _source(name: str) -> ModuleType:
    if name not in SOURCES:
        raise ValueError(f"name: expected one of {', '.join(SOURCES)}, got {name!r}")
    return importlib.import_module(f"datasets_scripts.{name}")


def _check_choices(split: str | None, text: str, limit: int | None) -> None:
    check_text_choice(text)
    if split is not None and split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)} or None for all records, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 record or None, got {limit}")


def _fingerprint(source: ModuleType, data_dir: str | PathLike[str] | None, asked: dict[str, Any]) -> str:
    """A hash of all that decides the rows: options, row format, and path, size and time of every source file."""
    digest = hashlib.sha256(json.dumps([ROW_FORMAT_VERSION, asked], sort_keys=True, default=str).encode())
    if _reads_files(source):
        for path in source.source_files(data_dir, asked["split"], **asked["options"]):
            digest.update(f"{os.path.abspath(path)}|{_size_and_time(path)}\n".encode())
    else:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _size_and_time(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"  # it is rejected with its reason when the rows are built; here its absence is part of the key
    return f"{status.st_size}|{status.st_mtime_ns}"


def _reads_files(source: ModuleType) -> bool:
    return hasattr(source, "source_files")


def _check_options(source: ModuleType, options: dict[str, Any]) -> None:
    """ValueError for an option that the source does not know, with those that it knows."""
    parameters = inspect.signature(source.iter_records).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    known = [name for name in known if name != "report"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{source.__name__}: expected options among {', '.join(known)}, got {', '.join(unknown)}")


def _is_complete(folder: Path) -> bool:
    return (folder / REPORT_FILE).is_file()


def _build(folder: Path, source: ModuleType, data_dir: str | PathLike[str] | None, asked: dict[str, Any]) -> None:
    """Write rows, then the report, in a folder beside; the final name is given last. The caller holds the lock."""
    for left_over in folder.parent.glob(f"{folder.name}.building-*"):
        shutil.rmtree(left_over)  # of a killed process: nobody else builds under this lock
    building = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    building.mkdir()
    try:
        report = _write_in_best_dtype(building / ROWS_FILE, source, data_dir, asked)
        with (building / REPORT_FILE).open("w", encoding="utf-8") as file:
            json.dump(report.to_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)  # without its report: not a data set
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_in_best_dtype(
    path: Path, source: ModuleType, data_dir: str | PathLike[str] | None, asked: dict[str, Any]
) -> LoadReport:
    """Rows as int16; from the start as float32 mV if some record has no integers (a column has one dtype)."""
    made = not _reads_files(source)
    for signal_dtype in ("int16", "float32"):
        report = LoadReport(asked["name"], asked["split"], asked["text"], reports_are_labels=made)
        options = asked["options"] if made else asked["options"] | {"report": report}
        splits = SPLITS if made and asked["split"] is None else (asked["split"],)
        records = chain.from_iterable(source.iter_records(data_dir, split, **options) for split in splits)
        if _write_rows(path, _kept(records, report, asked["limit"]), signal_dtype):
            break
    if not report.num_kept:
        reasons = "; ".join(f"{r.record_id}: {r.reason}" for r in report.rejected[:3]) or "there is none in this split"
        raise NoRecordsError(
            f"{asked['name']}/{asked['split'] or 'all'}: expected at least one record, got none of "
            f"{report.num_read}; first reasons: {reasons}"
        )
    return report


def _kept(records: Iterable[ECGRecord], report: LoadReport, limit: int | None) -> Iterator[ECGRecord]:
    """The records that are kept, with their text chosen; the others are noted."""
    for record in records:
        report.num_read = max(report.num_read, report.num_kept + len(report.rejected) + 1)
        reason = _no_signal(record)
        chosen = choose_text(vars(record), report.text)
        if reason is None and not chosen:
            reason = {"report": "no report", "statements": "no statements"}.get(report.text, "no report, no statements")
            report.num_empty_text += 1
        if reason is not None:
            report.reject(record.record_id, reason)
            continue
        report.num_kept += 1
        report.num_statement_texts += report.text == "statements" or not record.report.strip()
        yield replace(record, text=chosen)
        if limit is not None and report.num_kept >= limit:
            return


def _no_signal(record: ECGRecord) -> str | None:
    """Why a record has nothing to learn from: infinite values, or no lead that moves."""
    if np.isinf(record.signal).any():
        return "infinite values in the signal"
    absent = np.isnan(record.signal)
    highest = np.where(absent, -np.inf, record.signal).max(axis=1)
    lowest = np.where(absent, np.inf, record.signal).min(axis=1)
    return None if (highest > lowest).any() else "every lead is flat or missing (NaN)"


def _write_rows(path: Path, records: Iterable[ECGRecord], signal_dtype: str) -> bool:
    """Write the records' rows as an Arrow stream; False if a record cannot be stored in this dtype."""
    schema = row_features(signal_dtype).arrow_schema
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as stream:
        rows: list[dict[str, Any]] = []
        for record in records:
            if signal_dtype == "int16" and record.digital is None:
                return False
            rows.append(record_to_row(record, signal_dtype))
            if len(rows) == ROWS_PER_BATCH:
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
                rows.clear()
        if rows:
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return True


def _open(folder: Path) -> tuple[datasets.Dataset, LoadReport]:
    report = LoadReport.from_dict(json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")))
    info = datasets.DatasetInfo(description="\n".join(report.summary()))
    split = datasets.Split(report.split) if report.split else None
    return datasets.Dataset.from_file(str(folder / ROWS_FILE), info=info, split=split), report
