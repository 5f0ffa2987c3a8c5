"""What happens when something is uploaded, chosen, typed or pressed. An error becomes one sentence on the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_scripts.checks.signal_checks import notices
from datasets_scripts.records import ECGRecord

from . import page_parts
from .answers import ECGAnswers, part_of
from .examples import example
from .uploads import forget, read_upload

_REFUSALS = (ValueError, OSError, ImportError)


@dataclass(frozen=True, eq=False)
class Shown:
    """The recording of a session: kept in memory, for as long as the session, half an hour at most."""

    record: ECGRecord
    name: str


@dataclass(frozen=True)
class Handlers:
    """The app without its looks: recordings and words in, HTML out."""

    answers: ECGAnswers

    def read_files(
        self, paths: Sequence[str] | None, sampling_rate: float | None, leads: str | None, unit: str | None
    ) -> tuple[Shown | None, str]:
        """The uploaded recording, and what is told of it; or None, and why not. The files are deleted either way."""
        paths = list(paths or ())
        try:
            upload = read_upload(paths, sampling_rate or None, lead_list(leads or ""), unit or None)
        except _REFUSALS as error:
            return None, page_parts.problem(str(error))
        finally:
            forget(paths)
        name = ", ".join(sorted(Path(path).name for path in paths))
        return Shown(upload.record, name), page_parts.facts(upload.record, name, upload.notices)

    def choose_example(self, name: str | None) -> tuple[Shown | None, str]:
        """A synthetic recording, and what is told of it."""
        try:
            record = example(name or "")
        except ValueError as error:
            return None, page_parts.problem(str(error))
        told = f"{name} (synthetic)"
        return Shown(record, told), page_parts.facts(record, told, notices(record))

    def last_start(self, shown: Shown | None) -> float:
        """The last second from which a whole window can be shown; 0 for a recording that fits."""
        return 0.0 if shown is None else max(0.0, shown.record.duration - self.answers.duration)

    def page(self, shown: Shown | None, start: float) -> str:
        """The ECG page."""

        def drawn(part: ECGRecord) -> str:
            return page_parts.page(self.answers.page(shown.record, start), f"ECG page of {shown.name}")

        return self._told(shown, start, drawn, nothing=page_parts.EMPTY)

    def scores(self, shown: Shown | None, start: float, labels: str | None, template: str | None, how: str) -> str:
        """The table of scores."""

        def table(part: ECGRecord) -> str:
            found = self.answers.scores(part, (labels or "").splitlines(), template or "", one_is_true=how == ONE)
            return page_parts.scores(found, self.answers.archive.name)

        return self._told(shown, start, table)

    def report(self, shown: Shown | None, start: float) -> str:
        """The report."""
        return self._told(shown, start, lambda part: page_parts.report(self.answers.report(part)))

    def nearest(self, shown: Shown | None, start: float) -> str:
        """The table of recordings that are near."""

        def table(part: ECGRecord) -> str:
            return page_parts.neighbours(self.answers.nearest(part), self.answers.archive.name)

        return self._told(shown, start, table)

    def attribution(self, shown: Shown | None, start: float, label: str | None, template: str | None) -> str:
        """The page with what raised a label's score."""

        def drawn(part: ECGRecord) -> str:
            png = self.answers.attribution_page(part, label or "", template or "")
            return page_parts.page(png, f"What raised the score of {label}")

        nothing = page_parts.problem("Expected a recording, got none: upload one, or choose an example.")
        return self._told(shown, start, drawn, nothing=nothing)

    def _told(self, shown: Shown | None, start: float, tell: Callable[[ECGRecord], str], nothing: str = "") -> str:
        """What `tell` makes of the seconds that are shown, or one sentence on why it does not."""
        if shown is None:
            return nothing
        try:
            return tell(part_of(shown.record, start, self.answers.duration))
        except _REFUSALS as error:
            return page_parts.problem(re.sub(r"^record 0: ", "", str(error)))


EACH, ONE = "each by itself", "exactly one is true"


def lead_list(leads: str) -> list[str] | None:
    """Names with commas or spaces between; None for no name.

    >>> lead_list("I, II,V1"), lead_list("I II"), lead_list(" ")
    (['I', 'II', 'V1'], ['I', 'II'], None)
    """
    return [name for name in re.split(r"[,;\s]+", leads) if name] or None


def label_choices(labels: str | None) -> dict[str, Any]:
    """What a list to choose from becomes when the labels are others: those, and the first one chosen."""
    choices = list(dict.fromkeys(line.strip() for line in (labels or "").splitlines() if line.strip()))
    return {"choices": choices, "value": choices[0] if choices else None}
