"""What one worker of a preparation does: entries become records, records a shard, and what became of each its part."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets_scripts.checks.lead_statistics import LeadStatistics
from datasets_scripts.checks.signal_checks import no_signal, notices, signal_hash
from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.shards import ShardWriter
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import choose_text
from datasets_scripts.sources import Entry, find_source, read_or_reject

logger = logging.getLogger(__name__)

NO_TEXT = {"report": "no report", "statements": "no statements"}


@dataclass(frozen=True)
class ShardJob:
    """One shard to build: which, from what, and with which text. `limit`: at most so many rows, None for all."""

    output: Path
    split: str
    number: int
    source: str
    options: Mapping[str, Any]
    text: str
    waveforms: Mapping[str, str] | None
    entries: tuple[Entry, ...]
    limit: int | None = None

    @property
    def file(self) -> str:
        """The shard's file name."""
        return f"{self.split}-{self.number:05d}.arrow"

    @property
    def part_path(self) -> Path:
        """Where its part file is when it is done."""
        return self.output / "parts" / f"{self.split}-{self.number:05d}.json"

    def limited(self, limit: int) -> ShardJob:
        """The same job with at most `limit` rows."""
        return replace(self, limit=limit)

    def digest(self) -> str:
        """A hash of its entries and limit: a shard of other entries is built again."""
        content = json.dumps([[asdict(entry) for entry in self.entries], self.limit], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether this very shard is finished already."""
        if not (self.part_path.is_file() and (self.output / self.file).is_file()):
            return False
        return read_part(self.part_path)["entries"] == self.digest()


def build_shard(job: ShardJob) -> None:
    """Read the job's entries, write its shard, then its part. What cannot be kept is in the part's report."""
    building = job.output / f"{job.file}.building-{os.getpid()}"
    source = find_source(job.source)
    facts = source.FACTS
    report = LoadReport(
        job.source, job.split, job.text,
        statements_are_labels=facts.statements_are_labels, reports_are_labels=facts.reports_are_labels,
    )  # fmt: skip
    statistics, rows = LeadStatistics(), []
    job.part_path.unlink(missing_ok=True)  # of other entries
    with ShardWriter(building) as writer:
        for entry in job.entries:
            if job.limit is not None and report.num_kept == job.limit:
                break
            record = _read(source, entry, report, job)
            if record is None:
                continue
            statistics.add(record)
            for kind, detail in notices(record).items():
                report.notice(kind, record.record_id, detail)
            rows.append((record.record_id, record.patient_id, signal_hash(record)))
            writer.write(record)
    with building.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    building.replace(job.output / job.file)
    part = {
        "file": job.file,
        "split": job.split,
        "num_rows": len(rows),
        "layout": [writer.layout.dtype, writer.layout.num_values],
        "sha256": digest,
        "entries": job.digest(),
        "report": report.to_dict(),
        "statistics": statistics.to_dict(),
        "rows": rows,
    }
    write_json(job.part_path, part)


def read_part(path: Path) -> dict[str, Any]:
    """What `build_shard` wrote about its shard."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file that is there as a whole or not at all, also after a power cut."""
    building = path.with_name(f"{path.name}.building-{os.getpid()}")
    with building.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def _read(source: ModuleType, entry: Entry, report: LoadReport, job: ShardJob) -> ECGRecord | None:
    """The record of an entry with its text, or None, which the report explains."""
    try:
        record = read_or_reject(source, entry, report, **job.options)
    except Exception as error:  # one file must not end the work on 800,000 others: it is rejected, named and told
        logger.warning("%s: its reader failed", entry.path, exc_info=True)
        report.reject(entry.record_id, f"its reader failed with {type(error).__name__}: {error}; please report this")
        return None
    if record is None:
        return None
    fields = {name: getattr(record, name) for name in ("report", "statements", "age", "sex")}
    text = choose_text(fields, job.text, job.waveforms)
    reason = no_signal(record)
    if reason is None and not text and job.text != "none":
        reason = NO_TEXT.get(job.text, "no report, no statements")
        report.num_empty_text += 1
    if reason is not None:
        report.reject(record.record_id, reason)
        return None
    report.num_kept += 1
    report.num_statement_texts += bool(text) and (job.text == "statements" or not record.report.strip())
    report.num_described += bool(job.waveforms) and text != choose_text(fields, job.text)
    report.repair(record.record_id, record.repairs)
    return record.with_metadata(text=text)
