"""A data set by its name or its folder: a memory-mapped `datasets.Dataset` with the same columns for every source.

`load_ecg_dataset` opens what `prepare_dataset` made. Given the name of a source, it prepares the split first, in a
cache, under a key of everything the rows depend on: the settings, the row format, and the size and time of every source
file. What has changed is prepared again, and what a killed process leaves is never taken for a data set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
from datasets.table import MemoryMappedTable, concat_tables

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.described_rows import TEXT, with_waveforms
from datasets_scripts.preparation.hub_repository import DatasetRepository, is_repository, open_repository
from datasets_scripts.preparation.prepare import (
    MANIFEST_FILE,
    Settings,
    is_prepared,
    prepare_dataset,
    read_manifest,
    read_report,
)
from datasets_scripts.report_text import normalise_statement, read_waveforms
from datasets_scripts.sources import SPLITS, check_split, find_source, list_split

logger = logging.getLogger(__name__)
Waveforms = str | PathLike[str] | Mapping[str, str] | None


class NoRecordsError(ValueError):
    """No record of a split could be kept."""


def load_ecg_dataset(
    name: str | PathLike[str],
    data_dir: str | PathLike[str] | None = None,
    split: str | None = "train",
    text: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    limit: int | None = None,
    num_workers: int = 1,
    waveforms: Waveforms = None,
    **source_options: Any,
) -> datasets.Dataset:
    """The data set `name` as rows (see `records.row_features`); what was not kept is told in a logged warning.

    The arguments and errors are those of `load_ecg_dataset_with_report`.
    """
    dataset, report = load_ecg_dataset_with_report(
        name, data_dir, split, text, cache_dir, limit, num_workers, waveforms, **source_options
    )
    level = logging.WARNING if report.rejected or report.text_is_label_supervised else logging.INFO
    logger.log(level, "%s", "; ".join(report.summary()))
    return dataset


def load_ecg_dataset_with_report(
    name: str | PathLike[str],
    data_dir: str | PathLike[str] | None = None,
    split: str | None = "train",
    text: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    limit: int | None = None,
    num_workers: int = 1,
    waveforms: Waveforms = None,
    **source_options: Any,
) -> tuple[datasets.Dataset, LoadReport]:
    """The data set `name` and what became of each of its records.

    The rows lie in Arrow files and are mapped into memory, not read; picking some, in any order, copies nothing.

    Args:
        name: the folder of a prepared data set, a repository of the Hub to which one was pushed ("name/repository",
            downloaded once), or the name of a source (`sources.SOURCES`), which is then prepared.
        data_dir: the source's folder, as it is published. Not for a prepared folder.
        split: `"train"`, `"validation"`, `"test"`, or None for all records, one split after the other.
        text: what the column `text` holds: `"report"` (as it is), `"statements"` (the paper's template over the label
            statements) or `"report_else_statements"` (default). A record without any is rejected, and counted;
            `"none"` leaves the column empty and rejects none. A prepared folder keeps the text that it was prepared
            with: here it is only checked.
        cache_dir: where a source's rows are kept (default: the Hugging Face data sets cache).
        limit: keep at most so many records, the first ones (of each split).
        num_workers: processes that read a source's files.
        waveforms: descriptions that are told behind the statements (`text="statements"`, then the default): a JSON file
            from statements to descriptions, or such a mapping. Also for a prepared folder, whatever its text was.
        source_options: the options of the source.

    Raises:
        FileNotFoundError, ValueError: for a name, split, text, option or folder that makes no sense.
        ConnectionError, PermissionError: for a repository that cannot be read.
        NoRecordsError: if no record could be kept, with the first reasons.
    """
    check_split(split)
    told = _read_waveforms(waveforms, text)
    if is_folder(name) or is_repository(name):
        _check_prepared(name, data_dir, None if told is not None else text, source_options)
        if told is not None:
            return _open_described(name, split, limit, told, cache_dir)
        return open_repository(str(name), split, limit) if is_repository(name) else open_prepared(name, split, limit)
    settings = Settings(
        str(name),
        None if data_dir is None else os.fspath(data_dir),
        source_options,
        text or ("report_else_statements" if told is None else TEXT),
        told,
        splits=SPLITS if split is None else (split,),
        limit=limit,
    )
    root = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "esi_ecg_records"
    folder = root / f"{name}-{split or 'all'}-{_fingerprint(settings)}"
    if not is_prepared(folder):
        prepare_dataset(settings, folder, num_workers=num_workers)
    try:
        return open_prepared(folder, split)
    except NoRecordsError:
        shutil.rmtree(folder)  # what went wrong may be mended without a trace in the key
        raise


def open_prepared(
    folder: str | PathLike[str], split: str | None = "train", limit: int | None = None
) -> tuple[datasets.Dataset, LoadReport]:
    """A split of a prepared folder, memory-mapped, and what became of its records.

    Raises FileNotFoundError where the folder is not a finished preparation, ValueError where it has no such split, and
    NoRecordsError where the split is empty.
    """
    folder = Path(folder)
    wanted = _shards(folder, split)  # first: without a manifest nothing else is worth a look
    report = read_report(folder).of_split(split)
    if not report.num_kept:
        _raise_no_records(report)
    info = datasets.DatasetInfo(description="\n".join(report.summary()))
    tables = [MemoryMappedTable.from_file(str(folder / part["file"])) for part in wanted if part["num_rows"]]
    dataset = datasets.Dataset(concat_tables(tables), info=info, split=datasets.Split(split) if split else None)
    if limit is None or limit >= len(dataset):
        return dataset, report
    kept = [number for _, numbers in _numbers_by_split(wanted) for number in numbers[:limit]]
    return dataset.select(kept), report


def _open_described(
    folder: str | PathLike[str],
    split: str | None,
    limit: int | None,
    waveforms: Mapping[str, str],
    cache_dir: str | PathLike[str] | None,
) -> tuple[datasets.Dataset, LoadReport]:
    """A split of a prepared folder whose texts tell descriptions; of those that tell any, the first `limit`."""
    if is_repository(folder):
        raise ValueError(f"{folder}: expected a prepared folder for waveforms, got a repository; download it first")
    if split is None and limit is not None:
        raise ValueError("limit: expected one split with waveforms, got all of them; load them one by one")
    dataset, report = open_prepared(folder, split)
    key = "".join(part["sha256"] for part in _shards(folder, split))
    dataset, report = with_waveforms(dataset, report, waveforms, key, cache_dir)
    if not len(dataset):
        _raise_no_records(report)
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset)))), report


def label_names(name: str | PathLike[str], **options: Any) -> list[str]:
    """The labels of a data set, in the order of its task; options as for the source (`data_dir`, `task`)."""
    if is_folder(name) or is_repository(name):
        return list(_manifest_of(name)["label_names"])
    return find_source(str(name)).label_names(**options)


def label_prompts(name: str | PathLike[str], **options: Any) -> dict[str, list[str]]:
    """English phrases for every label of a data set, in the order of `label_names`."""
    if is_folder(name) or is_repository(name):
        return dict(_manifest_of(name)["label_prompts"])
    return find_source(str(name)).label_prompts(**options)


def is_folder(name: str | PathLike[str]) -> bool:
    """Whether a data set's name means a folder: it is not a word, or such a folder is prepared."""
    return (not str(name).isidentifier() or is_prepared(name)) and not is_repository(name)


# ----- the cache -----------------------------------------------------------------------------------------------------


def _fingerprint(settings: Settings) -> str:
    """A hash of all that decides the rows: settings, row format, and path, size and time of every source file."""
    digest = hashlib.sha256(json.dumps(settings.to_dict(), sort_keys=True).encode())
    for path in _files(settings):
        digest.update(f"{os.path.abspath(path)}|{_size_and_time(path)}\n".encode())
    return digest.hexdigest()[:24]


def _files(settings: Settings) -> Iterator[str | PathLike[str]]:
    """The source's tables and the files of every record; without any, the code that makes the records."""
    source = find_source(settings.name)
    tables = list(source.tables(settings.data_dir, **settings.options))
    yield from tables or sorted(Path(__file__).parent.rglob("*.py"))
    for split in settings.splits:
        for entry in list_split(source, settings.data_dir, split, **settings.options):
            yield from entry.files if entry.files or not tables else (entry.path,)


def _size_and_time(path: str | PathLike[str]) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "missing"  # it is rejected with its reason when the rows are built; here its absence is part of the key
    return f"{status.st_size}|{status.st_mtime_ns}"


# ----- a prepared folder ---------------------------------------------------------------------------------------------


def _manifest_of(name: str | PathLike[str]) -> dict[str, Any]:
    """The manifest of a prepared folder, or of a repository."""
    return DatasetRepository.find(str(name)).read_json(MANIFEST_FILE) if is_repository(name) else read_manifest(name)


def _check_prepared(
    name: str | PathLike[str], data_dir: str | PathLike[str] | None, text: str | None, options: dict[str, Any]
) -> None:
    settings = _manifest_of(name)["settings"]
    if data_dir is not None or options:
        told = ", ".join([*(["data_dir"] if data_dir is not None else []), *options])
        raise ValueError(f"{name}: is prepared already, so {told} cannot change it; prepare another folder")
    if text not in (None, settings["text"]):
        raise ValueError(
            f"{name}: was prepared with text={settings['text']!r}, got text={text!r}; prepare it again with that text"
        )


def _read_waveforms(waveforms: Waveforms, text: str | None) -> dict[str, str] | None:
    """The dictionary of descriptions. ValueError where the texts have no place for them."""
    if waveforms is None:
        return None
    if text not in (None, TEXT):
        raise ValueError(f"waveforms: are told behind statements: expected text={TEXT!r} (--text {TEXT}), got {text!r}")
    if isinstance(waveforms, Mapping):
        return {normalise_statement(name): " ".join(told.split()) for name, told in waveforms.items()}
    return read_waveforms(waveforms)


def _shards(folder: str | PathLike[str], split: str | None) -> list[dict[str, Any]]:
    """The shards of a split, of all of them for None."""
    return [part for part in read_manifest(folder)["shards"] if split in (None, part["split"])]


def _numbers_by_split(parts: list[dict[str, Any]]) -> Iterator[tuple[str, range]]:
    start = 0
    for split in SPLITS:
        size = sum(part["num_rows"] for part in parts if part["split"] == split)
        yield split, range(start, start + size)
        start += size


def _raise_no_records(report: LoadReport) -> None:
    reasons = "; ".join(f"{r.record_id}: {r.reason}" for r in report.rejected[:3]) or "there is none in this split"
    hint = "; text='none' keeps records without any" if report.num_empty_text else ""
    raise NoRecordsError(
        f"{report.name}/{report.split or 'all'}: expected at least one record, got none of {report.num_read}; "
        f"first reasons: {reasons}{hint}"
    )
