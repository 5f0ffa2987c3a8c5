"""What a protocol found: figures with interval and floor, tables, and what they do not say; on a terminal and in files.

`results.json` is what `model_card` takes over: `trained` and `random_weights` are flat mappings of the same keys.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..card_results import table

JSON_FILE, MARKDOWN_FILE = "results.json", "results.md"
BOUNDS = ("_low", "_high")
PER_CLASS = ("auroc", "auprc", "f1", "label_f1")  # the part of a key before the name of a class


@dataclass
class Result:
    """What one run of a protocol found.

    A figure is an entry of `trained` with a flat key such as `superdiagnostic/macro_auroc`. Beside it may stand the
    bounds of its 95 % interval, `..._low` and `..._high`, and `..._note`, why there is none. `auroc/NORM` is of one
    class, `num_positives/NORM` how many records of the test have it. A figure that cannot be computed is None.

    Attributes:
        name: the protocol's, as in `protocols.PROTOCOLS`.
        protocol: in a few sentences, what was done: data, splits, what was chosen on what.
        dataset: name and split of what was judged on.
        model: name of the model.
        trained: figures of the model, by flat key.
        random_weights: the same figures of a model of the same configuration with random weights: the floor.
        tables: further tables by title (subgroups, lead sets, examples), each a list of rows, column to cell.
        left_out: what is not in the figures (a class, records), and why.
        seen_in_training: whether records of the test were in the training, None where nobody says.
        leakage: the sentence on that.
        compared: figures of a second model (`--compare`), and `.../difference` with its paired interval.
        compared_model, compared_leakage: its name, and the sentence on its training data.
        notes: what else a reader must know.
        task_type: the Hub's name of the task.
        settings: what decides the figures, to run it again.
        pictures: title to file name (PNG, an SVG of the same name beside it), in the folder of the results.
    """

    name: str
    protocol: str
    dataset: str
    model: str = ""
    trained: dict[str, Any] = field(default_factory=dict)
    random_weights: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seen_in_training: bool | None = None
    leakage: str = ""
    compared: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    task_type: str = "feature-extraction"
    settings: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    compared_model: str = ""
    compared_leakage: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """The figures as rows: `figure`, `value`, `low`, `high`, `floor`, `num_positives`, `note`; None if unknown."""
        return [
            {
                "figure": key,
                "value": value,
                "low": self.trained.get(f"{key}_low"),
                "high": self.trained.get(f"{key}_high"),
                "floor": self.random_weights.get(key),
                "num_positives": self.trained.get(_positives_key(key)),
                "note": self.trained.get(f"{key}_note"),
            }
            for key, value in self.trained.items()
            if _is_figure(key, value, self.trained)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return plain(asdict(self))

    def to_text(self) -> str:
        """The figures as lines of equal columns, the second model's, then what they do not say.

        Classes that could not be judged have no line: they are named below, with the reason.
        """
        rows = [_cells(row) for row in self.rows() if row["value"] is not None or row["num_positives"] is None]
        lines = _aligned([["", "this model", "95 % interval", "random weights", "positives"], *rows])
        if compared := list(self._compared_cells()):
            lines = [*lines, *_aligned([["", "other model", "this less other", "95 % interval"], *compared])]
        return "\n".join([f"{self.name} on {self.dataset}", *lines, *self._remarks()])

    def to_markdown(self) -> str:
        """The whole result as a page."""
        rows = [_cells(row) for row in self.rows()]
        columns = ["figure", "this model", "95 % interval", "random weights", "positives"]
        parts = [f"# {self.name} on {self.dataset}", f"Model: {self.model}. {self.protocol}", table(columns, rows)]
        if self.compared:
            columns = ["figure", "other model", "this less other", "95 % interval"]
            parts += ["## Compared", table(columns, self._compared_cells())]
        for title, lines in self.tables.items():
            parts += [f"## {title}", _table_of_rows(lines)]
        if self.pictures:
            parts += ["## Pictures", *(_picture(title, name) for title, name in self.pictures.items())]
        return "\n\n".join([*parts, "\n".join(f"- {remark}" for remark in self._remarks())]) + "\n"

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `results.md` and, last and whole, `results.json` into `folder`, which is made if it is not there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / MARKDOWN_FILE, self.to_markdown())
        _write_whole(folder / JSON_FILE, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))

    def _compared_cells(self) -> Iterator[list[str]]:
        for key, value in self.compared.items():
            name, _, last = key.rpartition("/")
            if last == "other":
                bounds = (self.compared.get(f"{name}/difference_{end}") for end in ("low", "high"))
                yield [name, _cell(value), _cell(self.compared.get(f"{name}/difference")), _interval(*bounds)]

    def _remarks(self) -> Iterator[str]:
        for row in self.rows():
            if row["note"]:
                yield f"{row['figure']}: {row['note']}"
        for reason in dict.fromkeys(self.left_out.values()):
            named = ", ".join(what for what, why in self.left_out.items() if why == reason)
            yield f"left out, {reason.removesuffix('.')}: {named}"
        yield from self.notes
        if self.pictures:
            yield f"pictures: {', '.join(self.pictures.values())}"
        if self.leakage:
            yield f"leakage: {self.leakage}"
        if self.compared_model:
            yield f"other model: {self.compared_model}; leakage: {self.compared_leakage}"


def plain(value: Any) -> Any:
    """Arrays, numpy numbers, paths and tuples as what JSON knows; a number that is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


# ----- steps ---------------------------------------------------------------------------------------------------------


def _is_figure(key: str, value: Any, figures: Mapping[str, Any]) -> bool:
    is_bound = key.endswith(BOUNDS) and key.rpartition("_")[0] in figures
    is_count = key.split("/")[-1].startswith("num_") or "num_positives/" in key
    is_number = value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))
    return is_number and not is_bound and not is_count


def _positives_key(key: str) -> str:
    """`form/auroc/NORM` -> `form/num_positives/NORM`; a label may hold slashes itself (`LAFB/LPFB`)."""
    parts = key.split("/")
    metric = next((number for number, part in enumerate(parts) if part in PER_CLASS), len(parts))
    return "/".join([*parts[:metric], "num_positives", *parts[metric + 1 :]])


def _cells(row: Mapping[str, Any]) -> list[str]:
    positives = "" if row["num_positives"] is None else str(row["num_positives"])
    return [
        row["figure"],
        _cell(row["value"]),
        _interval(row["low"], row["high"]),
        "" if row["floor"] is None else _cell(row["floor"]),
        positives,
    ]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_cell(low)} to {_cell(high)}"


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    is_fraction = isinstance(value, float | np.floating) and not float(value).is_integer()
    return f"{value:.4f}" if is_fraction or isinstance(value, float) else str(value)


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _table_of_rows(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return table(columns, ([_cell(row[c]) if c in row else "" for c in columns] for row in rows))


def _picture(title: str, name: str) -> str:
    return f"![{title}]({name})\n\n{title} ([{Path(name).stem}.svg]({Path(name).stem}.svg))"


def _write_whole(path: Path, text: str) -> None:
    """Write to a name of its own first, so that half a file is never taken for a whole one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
