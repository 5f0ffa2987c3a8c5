"""What became of every record of a preparation, over all its splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from datasets_scripts.checks.lead_statistics import LeadStatistics
from datasets_scripts.load_report import LoadReport


@dataclass
class PreparationReport:
    """The splits' reports, and what only shows when all records are seen together.

    Attributes:
        name: the source.
        splits: the report of each split.
        lead_statistics: for each lead what `signal_checks.LeadStatistics` says, in mV.
        duplicates: groups of records with the same signal, each as `split/record_id`.
        num_patients: different patients in each split.
        num_without_patient: records of each split that name no patient.
        patients_in_several_splits: must be empty, or what is held out is not held out.
        repeated_record_ids: identifiers that more than one record has.
    """

    name: str
    splits: dict[str, LoadReport]
    lead_statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    num_patients: dict[str, int] = field(default_factory=dict)
    num_without_patient: dict[str, int] = field(default_factory=dict)
    patients_in_several_splits: list[str] = field(default_factory=list)
    repeated_record_ids: list[str] = field(default_factory=list)

    @classmethod
    def of_parts(cls, name: str, splits: dict[str, LoadReport], parts: Iterable[Mapping[str, Any]]) -> Self:
        """The report over the part files of all shards, in their order."""
        report = cls(name, splits)
        statistics = LeadStatistics()
        same: dict[str, list[str]] = {}
        splits_of: dict[str, set[str]] = {}
        seen: Counter[str] = Counter()
        without: Counter[str] = Counter()
        for part in parts:
            split = part["split"]
            splits[split].add(LoadReport.from_dict(part["report"]))
            statistics.merge(LeadStatistics.from_dict(part["statistics"]))
            for record_id, patient_id, signal_hash in part["rows"]:
                same.setdefault(signal_hash, []).append(f"{split}/{record_id}")
                seen[record_id] += 1
                if patient_id is None:
                    without[split] += 1
                else:
                    splits_of.setdefault(patient_id, set()).add(split)
        report.lead_statistics = statistics.summary()
        report.duplicates = [members for members in same.values() if len(members) > 1]
        report.num_patients = {split: sum(split in among for among in splits_of.values()) for split in splits}
        report.num_without_patient = {split: without[split] for split in splits}
        report.patients_in_several_splits = sorted(p for p, among in splits_of.items() if len(among) > 1)
        report.repeated_record_ids = sorted(record_id for record_id, count in seen.items() if count > 1)
        return report

    def of_split(self, split: str | None) -> LoadReport:
        """The report of one split, or of all of them together (None). ValueError for a split that is not here."""
        if split is not None and split not in self.splits:
            raise ValueError(f"{self.name}: expected one of the splits {', '.join(self.splits)}, got {split!r}")
        parts = list(self.splits.values()) if split is None else [self.splits[split]]
        report = replace(LoadReport.from_dict(parts[0].to_dict()), split=split)
        for part in parts[1:]:
            report.add(part)
        return report

    @property
    def num_kept(self) -> int:
        """Records of all splits that are in the data set."""
        return sum(split.num_kept for split in self.splits.values())

    @property
    def num_described(self) -> int:
        """Records of all splits whose texts tell a description."""
        return sum(split.num_described for split in self.splits.values())

    def duplicates_across_splits(self) -> list[list[str]]:
        """The groups of equal signals that are not all in one split."""
        return [group for group in self.duplicates if len({member.split("/")[0] for member in group}) > 1]

    def summary(self) -> list[str]:
        """The report in a few lines for the terminal."""
        lines = [line for split in self.splits.values() for line in split.summary()]
        patients = ", ".join(f"{count} {split}" for split, count in self.num_patients.items())
        lines.append(f"patients: {patients}")
        if any(self.num_without_patient.values()):
            lines.append(f"records that name no patient: {sum(self.num_without_patient.values())}")
        if self.patients_in_several_splits:
            lines.append(f"patients in more than one split: {', '.join(self.patients_in_several_splits[:5])} ...")
        if self.repeated_record_ids:
            lines.append(f"record_ids that more than one record has: {', '.join(self.repeated_record_ids[:5])} ...")
        if self.duplicates:
            across = len(self.duplicates_across_splits())
            lines.append(f"equal signals: {len(self.duplicates)} groups, {across} of them over several splits, such as "
                         f"{' = '.join(self.duplicates[0])}")  # fmt: skip
        return lines + self._lead_table()

    def _lead_table(self) -> list[str]:
        """A line for each lead, in mV; the columns are those of `LeadStatistics.summary`."""
        shown = ("records", "missing", "flat", "with_nan", "mean", "standard_deviation", "minimum", "maximum",
                 "median_peak_to_peak")  # fmt: skip
        head = ("lead", *(name.replace("standard_deviation", "deviation").replace("_", " ") for name in shown))
        rows = [head]
        for lead, values in self.lead_statistics.items():
            rows.append((lead, *(_short(values.get(name)) for name in shown)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `from_dict` gives the report back."""
        return vars(self) | {"splits": {split: report.to_dict() for split, report in self.splits.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report of `to_dict`'s values."""
        splits = {split: LoadReport.from_dict(report) for split, report in values["splits"].items()}
        return cls(**dict(values) | {"splits": splits})


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
