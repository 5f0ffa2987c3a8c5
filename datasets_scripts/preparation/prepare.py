"""A source becomes a folder of Arrow shards, in parallel, and safe against a kill at any moment.

    train-00000.arrow ...   stored rows, `records_per_shard` entries of the source each
    report.json             what became of every record
    README.md               data set card
    manifest.json           written last: a folder without it is not a data set

While the preparation runs, every shard has a part file (`parts/train-00000.json`: its report, digest and hashes), which
is written after the shard. A restart with the same settings skips shards whose part is there and whose entries are the
same, and does the others again: nothing is lost, and nothing finished is done twice.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from os import PathLike
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.preparation_report import PreparationReport
from datasets_scripts.preparation.prepare_shard import ShardJob, build_shard, read_part, write_json
from datasets_scripts.preparation.shards import Layout, convert_shard
from datasets_scripts.records import ROW_FORMAT_VERSION
from datasets_scripts.report_text import check_text_choice
from datasets_scripts.sources import SPLITS, Entry, check_options, check_split, find_source

MANIFEST_FILE, REPORT_FILE, PARTS_FOLDER, SETTINGS_FILE = "manifest.json", "report.json", "parts", "preparing.json"
RECORDS_PER_SHARD = 2000  # 12 leads of 10 s at 500 Hz: 240 MB


@dataclass(frozen=True)
class Settings:
    """All that decides the rows of a preparation, apart from the files themselves.

    Attributes:
        name, data_dir, options: the source, its folder and its options.
        text: which text a record gets (`report_text.choose_text`).
        waveforms: a description for each statement, to be told behind the findings; None for none.
        splits: which splits are prepared.
        limit: at most so many records of each split, the first ones.
        records_per_shard: entries of the source that go into one shard.
    """

    name: str
    data_dir: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    text: str = "report_else_statements"
    waveforms: Mapping[str, str] | None = None
    splits: tuple[str, ...] = SPLITS
    limit: int | None = None
    records_per_shard: int = RECORDS_PER_SHARD

    def __post_init__(self) -> None:
        check_text_choice(self.text)
        check_options(find_source(self.name), self.options)
        for split in self.splits:
            check_split(split)
        for name in ("limit", "records_per_shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if self.waveforms is not None and self.text in ("report", "none"):
            raise ValueError(f"waveforms: are told behind statements: expected text='statements', got {self.text!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values; the dictionary of waveforms is told by its digest."""
        values = asdict(self) | {"row_format": ROW_FORMAT_VERSION, "splits": list(self.splits)}
        values["options"] = {name: _told(name, value) for name, value in self.options.items()}
        if self.waveforms is not None:
            values["waveforms"] = f"{len(self.waveforms)} statements, sha256 {digest_of(self.waveforms)}"
        return json.loads(json.dumps(values, default=str))


def prepare_dataset(
    settings: Settings, output: str | PathLike[str], *, num_workers: int = 1, progress: bool = False
) -> PreparationReport:
    """Prepare a data set in the folder `output`, or go on where a killed preparation stopped.

    Args:
        settings: what to prepare.
        output: a new folder, one that an earlier call with the same settings began, or its finished result, which is
            then left as it is.
        num_workers: processes that read records; 1 reads in this one.
        progress: show a bar.

    Returns:
        What became of every record; also in `report.json`.

    Raises:
        FileNotFoundError, ValueError: for tables or options that make no sense, or if `output` holds something else.
    """
    output = Path(output).absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{output}.lock"):  # the system frees it when its holder dies
        if (output / MANIFEST_FILE).is_file():
            _check_same_settings(output / MANIFEST_FILE, settings)
            return read_report(output)
        _check_place_for_waveforms(settings)
        _begin(output, settings)
        started = time.time()
        with tqdm(total=_num_entries(settings) if progress else None, unit=" records", disable=not progress) as bar:
            shards = _build_all(settings, output, num_workers, bar)
        return _finish(settings, output, shards, started)


def is_prepared(folder: str | PathLike[str]) -> bool:
    """Whether a folder holds a finished preparation."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def read_manifest(folder: str | PathLike[str]) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises FileNotFoundError where it is not finished."""
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        begun = (Path(folder) / SETTINGS_FILE).is_file()
        hint = "its preparation was not finished: run it again" if begun else "prepare it first"
        raise FileNotFoundError(f"{path}: no such file; {hint} (python -m datasets_scripts prepare --help)")
    return json.loads(path.read_text(encoding="utf-8"))


def read_report(folder: str | PathLike[str]) -> PreparationReport:
    """The report of a prepared folder."""
    return PreparationReport.from_dict(json.loads((Path(folder) / REPORT_FILE).read_text(encoding="utf-8")))


def digest_of(values: Any) -> str:
    """A short hash of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _told(name: str, value: Any) -> Any:
    """An option as files and cards may show it: a salt is a secret, and only known again by its digest."""
    return f"sha256 {digest_of(value)[:8]}..." if name == "salt" else value


# ----- beginning -----------------------------------------------------------------------------------------------------


def _check_place_for_waveforms(settings: Settings) -> None:
    """ValueError where every text would be a report, behind which no description is told.

    Most sources know reports from their tables: then this is found before anything is read.
    """
    if settings.waveforms is None or settings.text == "statements":
        return
    entries = find_source(settings.name).list_entries(settings.data_dir, **settings.options)
    reports = ((entry.fields.get("report") or "").strip() for entry in entries)
    if next(reports, "") and all(reports):
        raise ValueError(
            f"waveforms: are told behind statements, and every record of {settings.name} has a report, which goes"
            f" before them with text={settings.text!r}; give text='statements' (--text statements), or no waveforms"
        )


def _begin(output: Path, settings: Settings) -> None:
    """Make the folder, or take over what a killed preparation left in it. The caller holds the lock."""
    begun = (output / SETTINGS_FILE).is_file()
    if begun:
        _check_same_settings(output / SETTINGS_FILE, settings)
    elif output.exists() and not all(path.name.startswith(f"{SETTINGS_FILE}.building-") for path in output.iterdir()):
        raise ValueError(f"{output}: expected a new or empty folder, or a preparation to go on with, got other files")
    output.mkdir(exist_ok=True)
    _remove_left_over(output)
    if not begun:
        write_json(output / SETTINGS_FILE, {"settings": settings.to_dict()})
    (output / PARTS_FOLDER).mkdir(exist_ok=True)


def _remove_left_over(output: Path) -> None:
    """Files that a killed run did not finish; a worker that is about to end with it may finish one at this moment."""
    for left_over in [*output.glob("*.building-*"), *output.glob(f"{PARTS_FOLDER}/*.building-*")]:
        left_over.unlink(missing_ok=True)


def _check_same_settings(path: Path, settings: Settings) -> None:
    there, wanted = json.loads(path.read_text(encoding="utf-8"))["settings"], settings.to_dict()
    changed = [name for name in wanted if there.get(name) != wanted[name]]
    if changed:
        told = "; ".join(f"{name}: {there.get(name)!r} there, {wanted[name]!r} now" for name in changed)
        raise ValueError(f"{path.parent}: was prepared with other settings ({told}); choose another folder")


def _num_entries(settings: Settings) -> int:
    entries = find_source(settings.name).list_entries(settings.data_dir, **settings.options)
    return sum(entry.split in settings.splits for entry in entries)


# ----- shards --------------------------------------------------------------------------------------------------------


def _build_all(settings: Settings, output: Path, num_workers: int, bar: tqdm) -> list[Path]:
    """Build every shard that is not there yet; returns all part files in the order of their rows."""
    done: list[Path] = []
    if settings.limit is not None:
        _build_limited(settings, output, bar, done)
    elif num_workers == 1:
        for job in _jobs(settings, output):
            done.append(_build_if_needed(job, bar))
    else:
        _build_in_parallel(settings, output, num_workers, bar, done)
    order = {split: number for number, split in enumerate(SPLITS)}
    return sorted(done, key=lambda part: (order[part.stem.rpartition("-")[0]], part.stem))


def _build_if_needed(job: ShardJob, bar: tqdm) -> Path:
    if not job.is_done():
        build_shard(job)
    bar.update(len(job.entries))
    return job.part_path


def _build_in_parallel(settings: Settings, output: Path, num_workers: int, bar: tqdm, done: list[Path]) -> None:
    running: dict[Future, ShardJob] = {}

    def collect(at_most: int) -> None:
        while len(running) > at_most:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                future.result()
                bar.update(len(job.entries))
                done.append(job.part_path)

    with ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            for job in _jobs(settings, output):
                if job.is_done():
                    done.append(_build_if_needed(job, bar))
                    continue
                running[pool.submit(build_shard, job)] = job
                collect(at_most=2 * num_workers)
            collect(at_most=0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _build_limited(settings: Settings, output: Path, bar: tqdm, done: list[Path]) -> None:
    """Shard after shard, each with what is still wanted of its split, until there is enough."""
    missing = dict.fromkeys(settings.splits, settings.limit)
    for job in _jobs(settings, output):
        if missing[job.split] > 0:
            part = _build_if_needed(job.limited(missing[job.split]), bar)
            missing[job.split] -= read_part(part)["num_rows"]
            done.append(part)
        if not any(missing.values()):
            return


def _jobs(settings: Settings, output: Path) -> Iterator[ShardJob]:
    """The shards of all splits, listed lazily in the source's order; every split has at least one."""
    waiting: dict[str, list[Entry]] = {split: [] for split in settings.splits}
    numbers = dict.fromkeys(settings.splits, 0)

    def job(split: str) -> ShardJob:
        made = ShardJob(
            output, split, numbers[split], settings.name, dict(settings.options), settings.text, settings.waveforms,
            tuple(waiting[split]),
        )  # fmt: skip
        waiting[split], numbers[split] = [], numbers[split] + 1
        return made

    for entry in find_source(settings.name).list_entries(settings.data_dir, **settings.options):
        if entry.split in waiting:
            waiting[entry.split].append(entry)
            if len(waiting[entry.split]) == settings.records_per_shard:
                yield job(entry.split)
    for split in settings.splits:
        if waiting[split] or not numbers[split]:
            yield job(split)


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed: it would write into the next run's folder."""

    def watch() -> None:
        wait_for([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ----- finishing -----------------------------------------------------------------------------------------------------


def _finish(settings: Settings, output: Path, part_paths: Sequence[Path], started: float) -> PreparationReport:
    """Report, card, and last the manifest. Repeated after a kill, it gives the same."""
    parts = _of_one_layout(output, [read_part(path) for path in part_paths])
    _remove_others(output, parts)
    facts = find_source(settings.name).FACTS
    report = PreparationReport.of_parts(
        settings.name, {split: _empty_report(settings, split) for split in settings.splits}, parts
    )
    write_json(output / REPORT_FILE, report.to_dict())
    labels, prompts = _labels_of(settings)
    credentialed = [name for option, names in facts.credentialed_fields.items() if settings.options.get(option)
                    for name in names]  # fmt: skip
    if credentialed and any(split.num_statement_texts for split in report.splits.values()):
        credentialed.append("text")  # the template tells age and sex
    now = time.time()
    manifest = {
        "settings": settings.to_dict(),
        "facts": asdict(facts) | {"credentialed_fields": dict(facts.credentialed_fields)},
        "credentialed_columns": credentialed,
        "label_names": labels,
        "label_prompts": prompts,
        "shards": [{name: part[name] for name in ("file", "split", "num_rows", "layout", "sha256")} for part in parts],
        "seconds": round(now - started, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }
    from datasets_scripts.preparation.dataset_card import dataset_card

    (output / "README.md").write_text(dataset_card(manifest, report), encoding="utf-8")
    write_json(output / MANIFEST_FILE, manifest)
    shutil.rmtree(output / PARTS_FOLDER)
    (output / SETTINGS_FILE).unlink()
    return report


def _of_one_layout(output: Path, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All shards in the narrowest layout that holds every record: `load_dataset` wants one schema."""
    layouts = [Layout(*part["layout"]) for part in parts if part["num_rows"]]
    common = functools.reduce(operator.or_, layouts) if layouts else Layout("int16", None)
    for part in parts:
        if Layout(*part["layout"]) != common:
            convert_shard(output / part["file"], common)
            with (output / part["file"]).open("rb") as file:
                part["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            part["layout"] = [common.dtype, common.num_values]
    return parts


def _remove_others(output: Path, parts: list[dict[str, Any]]) -> None:
    """Shards of an earlier run whose tables listed more records, and what its workers left behind when they ended."""
    _remove_left_over(output)
    for path in output.glob("*.arrow"):
        if path.name not in {part["file"] for part in parts}:
            path.unlink()


def _empty_report(settings: Settings, split: str) -> LoadReport:
    facts = find_source(settings.name).FACTS
    return LoadReport(
        settings.name, split, settings.text,
        statements_are_labels=facts.statements_are_labels, reports_are_labels=facts.reports_are_labels,
    )  # fmt: skip


def _labels_of(settings: Settings) -> tuple[list[str], dict[str, list[str]]]:
    """The labels of the task and their texts; empty where the source has none."""
    source, options = find_source(settings.name), {"data_dir": settings.data_dir, **settings.options}
    try:
        return list(source.label_names(**options)), dict(source.label_prompts(**options))
    except ValueError:  # this is how a source says that it has no labels
        return [], {}
