"""What a source of ECGs is, and the list of them.

A source is a module of this package, one for each public corpus or layout. It offers

- `FACTS`: a `SourceFacts`, what its data set card says;
- `list_entries(data_dir, **options)`: an `Entry` for every record, all splits, in an order that never changes. It reads
  tables only, lazily; a row that makes no sense becomes an entry with its `problem`, so that nothing is lost silently;
- `read_entry(entry, **options)`: the `ECGRecord` of an entry, with the entry's `fields` in it. It depends on nothing
  else, so that any process may read any entry. Raises ValueError, OSError or ImportError with one sentence;
- `tables(data_dir, **options)`: the files on which the entries depend;
- `label_names(**options)` and `label_prompts(**options)`: the labels in the order of the task, and English texts for
  each. ValueError where the source has none.

Options are keyword-only arguments of `list_entries`; `read_entry` and the others get the same ones and ignore what they
do not need (`**_`).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import ModuleType
from typing import Any

from datasets_scripts.load_report import LoadReport
from datasets_scripts.records import ECGRecord

SOURCES = (
    "code15",
    "cpsc2018",
    "ecg_id",
    "esi_csv",
    "files",
    "ludb",
    "mimic_iv_ecg",
    "physionet2021",
    "ptb_xl",
    "synthetic",
)
SPLITS = ("train", "validation", "test")
SPLIT_ENDS = {"train": 90, "validation": 95, "test": 100}  # in percent of the hashes


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a corpus as a whole; empty where it is not stated.

    Attributes:
        title, homepage, citation: for the data set card; the citation is one line.
        license: the identifier of the Hub (`cc-by-4.0`), or `"other"`.
        statements_are_labels: whether statements and labels say the same, so that texts made of statements tell the
            labels (then zero-shot results are label-supervised).
        reports_are_labels: whether reports, too, are made from the labels (a synthetic corpus).
        credentialed_fields: fields of `ECGRecord` that come from tables under a data use agreement, by the option that
            names the table: `{"patients": ("age", "sex")}`.
    """

    title: str
    homepage: str = ""
    license: str = "other"
    citation: str = ""
    statements_are_labels: bool = True
    reports_are_labels: bool = False
    credentialed_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One record that a source lists before it is read: small, picklable.

    Attributes:
        record_id: the source's identifier.
        path: where the recording lies, as reports name it.
        split: `"train"`, `"validation"` or `"test"`.
        fields: fields of `ECGRecord` that the tables know (`report`, `statements`, `labels`, `patient_id`, ...).
        files: the files on which the recording depends; `(path,)` where none are named.
        index: which recording, in a file of many.
        problem: why it cannot be kept, where that is known without reading it.
        left_out_by: the option that leaves it out.
    """

    record_id: str
    path: str
    split: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    index: int | None = None
    problem: str | None = None
    left_out_by: str | None = None


def find_source(name: str) -> ModuleType:
    """The module of a source. Raises ValueError for a name that is none."""
    if name not in SOURCES:
        raise ValueError(f"name: expected one of {', '.join(SOURCES)}, got {name!r}")
    return importlib.import_module(f"datasets_scripts.{name}")


def known_options(source: ModuleType) -> list[str]:
    """The names of a source's options."""
    parameters = inspect.signature(source.list_entries).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def check_options(source: ModuleType, options: Mapping[str, Any]) -> None:
    """ValueError for an option that the source does not know, with those that it knows."""
    known = known_options(source)
    unknown = sorted(set(options) - set(known))
    if unknown:
        name = source.__name__.rpartition(".")[2]
        raise ValueError(f"{name}: expected options among {', '.join(known)}, got {', '.join(unknown)}")


def check_split(split: str | None) -> None:
    """ValueError unless `split` is one of `SPLITS`, or None for all."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)} or None for all records, got {split!r}")


def list_split(
    source: ModuleType, data_dir: str | PathLike[str] | None, split: str | None = None, **options: Any
) -> Iterator[Entry]:
    """The entries of a split (None: of all), in the source's order. ValueError for a split or option that is none."""
    check_split(split)
    check_options(source, options)
    return (entry for entry in source.list_entries(data_dir, **options) if split in (None, entry.split))


def read_or_reject(source: ModuleType, entry: Entry, report: LoadReport, **options: Any) -> ECGRecord | None:
    """The record of an entry; None where it is left out or cannot be read, which `report` then tells."""
    report.look_at(entry.path)
    if entry.left_out_by is not None:
        report.filter(entry.left_out_by)
        return None
    if entry.problem is not None:
        report.reject(entry.record_id, entry.problem)
        return None
    try:
        return source.read_entry(entry, **options)
    except (ValueError, OSError, ImportError) as error:
        report.reject(entry.record_id, error)
        return None


def iter_records(
    source: ModuleType,
    data_dir: str | PathLike[str] | None = None,
    split: str | None = None,
    *,
    report: LoadReport | None = None,
    **options: Any,
) -> Iterator[ECGRecord]:
    """The records of a split, one after the other; what is not kept is told in `report`."""
    report = LoadReport(source.__name__.rpartition(".")[2], split) if report is None else report
    for entry in list_split(source, data_dir, split, **options):
        record = read_or_reject(source, entry, report, **options)
        if record is not None:
            yield record


def split_of(group: str, ends: Mapping[str, int] = SPLIT_ENDS) -> str:
    """The split of a patient (or record) by its hash: the same on every machine, in every process.

    `ends` are the upper ends of the splits in percent; default 90, 95, 100.

    >>> split_of("10000032"), split_of("10000032", {"test": 100})
    ('train', 'test')
    """
    percent = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 100
    return next(split for split, end in ends.items() if percent < end)
