"""What became of every record of a data set: read, kept, or rejected with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rejection:
    """One record that was not kept: which, where it lies, and why."""

    record_id: str
    path: str
    reason: str


@dataclass
class LoadReport:
    """Counts and reasons of one load; no record disappears without a line here.

    Attributes:
        name, split, text: what was asked for.
        num_read: records looked at: the `num_kept` that are in the data set, the `rejected` and the `filtered`.
        rejected: every record that was not kept, with its path and the reason.
        num_empty_text: how many of the rejected had nothing to say under the chosen text.
        num_statement_texts: how many of the kept have a text made from label statements.
        filtered: records left out because an option asked for it (option -> how many).
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
    filtered: dict[str, int] = field(default_factory=dict)
    reports_are_labels: bool = False
    _path: str = field(default="", init=False, repr=False, compare=False)

    @property
    def text_is_label_supervised(self) -> bool:
        """Whether texts say the labels: zero-shot results of a model trained on them are label-supervised."""
        return self.num_statement_texts > 0 or (self.reports_are_labels and self.num_kept > 0)

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

    def summary(self, num_reasons: int = 5) -> list[str]:
        """The load in a few lines: the counts, then the most frequent reasons with their first record."""
        head = f"{self.name}/{self.split or 'all'}: {self.num_read} records read, {self.num_kept} kept, "
        lines = [head + f"{len(self.rejected)} rejected"]
        lines += [f"left out by {option}: {count} records" for option, count in self.filtered.items()]
        if self.num_empty_text:
            lines.append(f"without text under text={self.text!r}: {self.num_empty_text} records")
        if self.text_is_label_supervised:
            lines.append("label-supervised text: what the texts say comes from the labels")
        first = {}
        for rejection in self.rejected:
            first.setdefault(_kind(rejection), rejection)
        counts = Counter(map(_kind, self.rejected))
        for kind, count in counts.most_common(num_reasons):
            example = first[kind]
            lines.append(f"rejected {count}, such as {example.record_id} ({example.path}): {example.reason}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `from_dict` gives the report back."""
        fields = asdict(self) | {"text_is_label_supervised": self.text_is_label_supervised}
        del fields["_path"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LoadReport:
        """The report of `to_dict`'s fields."""
        fields = {name: value for name, value in fields.items() if name != "text_is_label_supervised"}
        return cls(**fields | {"rejected": [Rejection(**rejection) for rejection in fields["rejected"]]})


def _kind(rejection: Rejection) -> str:
    """The reason without the record's own path, so that equal reasons are counted together."""
    reason = rejection.reason.split(": ", 1)[-1] if rejection.path in rejection.reason else rejection.reason
    return "".join(character for character in reason if not character.isdigit())
