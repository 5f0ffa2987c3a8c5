"""What became of every record of a split: read, kept, repaired, or rejected with its reason; and what was noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

LISTED_REPAIRS = 100  # records named for each rule; every row has its own in the column `repairs`


@dataclass(frozen=True)
class Rejection:
    """One record that was not kept: which, where it lies, and why."""

    record_id: str
    path: str
    reason: str


@dataclass
class LoadReport:
    """Counts and reasons of one split; no record disappears without a line here.

    Attributes:
        name, split, text: what was asked for.
        num_read: records looked at: the `num_kept` that are in the data set, the `rejected` and the `filtered`.
        rejected: every record that was not kept, with its path and the reason.
        num_empty_text: how many of the rejected had nothing to say under the chosen text.
        num_statement_texts: how many of the kept have a text made from label statements.
        num_described: how many of these tell a description behind a statement.
        filtered: records left out because an option asked for it (option -> how many).
        repaired: how often each rule mended a record, or left out a part of it, while reading (rule -> how often).
        repaired_records: the first records under each rule.
        noticed: what is only reported (kind -> record -> detail): limb leads that break Einthoven's law, ...
        statements_are_labels: whether statements are another way to say the labels.
        reports_are_labels: whether the source makes its reports from its labels (a synthetic corpus).

    >>> report = LoadReport("ptb_xl", "train", "report")
    >>> report.look_at("records100/00000/00007_lr")
    >>> report.reject("7", "no report")
    >>> report.summary()[0]
    'ptb_xl/train: 1 records read, 0 kept, 1 rejected'
    """

    name: str
    split: str | None = None
    text: str = "report_else_statements"
    num_read: int = 0
    num_kept: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    num_empty_text: int = 0
    num_statement_texts: int = 0
    num_described: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    repaired_records: dict[str, list[str]] = field(default_factory=dict)
    noticed: dict[str, dict[str, str]] = field(default_factory=dict)
    statements_are_labels: bool = True
    reports_are_labels: bool = False
    _path: str = field(default="", init=False, repr=False, compare=False)

    @property
    def text_is_label_supervised(self) -> bool:
        """Whether texts say the labels: zero-shot results of a model trained on them are label-supervised."""
        says_labels = self.statements_are_labels and self.num_statement_texts > 0
        return says_labels or (self.reports_are_labels and self.num_kept > 0)

    def look_at(self, path: object) -> None:
        """Count the next record, which lies at `path`; called before it is read."""
        self.num_read += 1
        self._path = str(path)

    def filter(self, option: str) -> None:
        """Note that an option leaves out the record looked at."""
        self.filtered[option] = self.filtered.get(option, 0) + 1

    def reject(self, record_id: str, reason: object) -> None:
        """Note that the record looked at is not kept."""
        self.rejected.append(Rejection(str(record_id), self._path, str(reason)))

    def repair(self, record_id: str, repairs: tuple[str, ...]) -> None:
        """Note what reading mended in a record that is kept; each rule counts once for a record."""
        for rule in dict.fromkeys(repair.split(":", 1)[0] for repair in repairs):
            self.repaired[rule] = self.repaired.get(rule, 0) + 1
            listed = self.repaired_records.setdefault(rule, [])
            if len(listed) < LISTED_REPAIRS:
                listed.append(record_id)

    def notice(self, kind: str, record_id: str, detail: object) -> None:
        """Note something about a record that is kept as it is."""
        self.noticed.setdefault(kind, {})[record_id] = str(detail)

    def add(self, other: LoadReport) -> None:
        """Take in the report of further records of the same split."""
        self.num_read += other.num_read
        self.num_kept += other.num_kept
        self.rejected += other.rejected
        self.num_empty_text += other.num_empty_text
        self.num_statement_texts += other.num_statement_texts
        self.num_described += other.num_described
        for counts, more in ((self.filtered, other.filtered), (self.repaired, other.repaired)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
        for rule, record_ids in other.repaired_records.items():
            listed = self.repaired_records.setdefault(rule, [])
            listed += record_ids[: LISTED_REPAIRS - len(listed)]
        for kind, records in other.noticed.items():
            self.noticed.setdefault(kind, {}).update(records)

    def summary(self, num_reasons: int = 5) -> list[str]:
        """The load in a few lines: the counts, then the most frequent reasons with their first record."""
        head = f"{self.name}/{self.split or 'all'}: {self.num_read} records read, {self.num_kept} kept, "
        lines = [head + f"{len(self.rejected)} rejected"]
        lines += [f"left out by {option}: {count} records" for option, count in self.filtered.items()]
        if self.num_empty_text:
            lines.append(f"without text under text={self.text!r}: {self.num_empty_text} records")
        if self.num_described:
            lines.append(f"with descriptions behind statements: {self.num_described} records")
        if self.text_is_label_supervised:
            lines.append("label-supervised text: what the texts say comes from the labels")
        lines += [f"repaired by {rule}: {count} records" for rule, count in sorted(self.repaired.items())]
        for kind, records in sorted(self.noticed.items()):
            record_id, detail = next(iter(records.items()))
            lines.append(f"{kind}: {len(records)} records, such as {record_id} ({detail})")
        return lines + self._reasons(num_reasons)

    def _reasons(self, num_reasons: int) -> list[str]:
        first: dict[str, Rejection] = {}
        for rejection in self.rejected:
            first.setdefault(_kind(rejection), rejection)
        counts = Counter(map(_kind, self.rejected))
        return [
            f"rejected {count}, such as {first[kind].record_id} ({first[kind].path}): {first[kind].reason}"
            for kind, count in counts.most_common(num_reasons)
        ]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `from_dict` gives the report back."""
        values = asdict(self) | {"text_is_label_supervised": self.text_is_label_supervised}
        del values["_path"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoadReport:
        """The report of `to_dict`'s values."""
        known = {item.name for item in fields(cls) if item.init}
        kept = {name: value for name, value in values.items() if name in known}
        return cls(**kept | {"rejected": [Rejection(**rejection) for rejection in values["rejected"]]})


def _kind(rejection: Rejection) -> str:
    """The reason without the record's own path, so that equal reasons are counted together."""
    reason = rejection.reason.split(": ", 1)[-1] if rejection.path in rejection.reason else rejection.reason
    return "".join(character for character in reason if not character.isdigit())
