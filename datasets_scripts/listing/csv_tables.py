"""Tables in CSV, row by row: what is broken is told with the row, never mended or guessed."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
UNKNOWN_SEXES = ("", "u", "unknown", "o", "other", "nan", "none")


@dataclass(frozen=True)
class TableRow:
    """One row: its number in the table (the first below the header is 1), its values, and what is wrong with it."""

    number: int
    values: dict[str, str]
    problem: str | None = None

    def get(self, column: str) -> str:
        """The value without spaces around it; empty where the table has no such column."""
        return self.values.get(column, "").strip()


def read_header(path: Path) -> list[str]:
    """The names of the columns. Raises ValueError for a table without any, OSError where it cannot be opened."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(_checked_lines(path, csv.reader(file)), None)
    if not header:
        raise ValueError(f"{path}: expected a CSV whose first line names the columns, got no such line")
    return header


def require_columns(path: Path, needed: tuple[str, ...]) -> list[str]:
    """The names of the columns. ValueError unless all the needed ones are among them."""
    header = read_header(path)
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path}: expected the columns {', '.join(needed)}, got {', '.join(header)}")
    return header


def read_rows(path: Path, needed: tuple[str, ...]) -> Iterator[TableRow]:
    """The rows of a CSV (UTF-8, comma), read one by one; blank lines are passed over.

    A row of another length than the header has a `problem` and only those values that its length leaves in no doubt:
    none but the first column's. Raises ValueError for a missing column or text that is not UTF-8 or CSV.
    """
    header = require_columns(path, needed)
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = _checked_lines(path, csv.reader(file))
        next(lines)
        for number, line in enumerate(filter(None, lines), start=1):
            if len(line) == len(header):
                yield TableRow(number, dict(zip(header, line, strict=True)))
                continue
            problem = (
                f"row {number} of {path.name}: expected {len(header)} values, got {len(line)}; put values that hold "
                f"commas in quotes, and check that the table is complete"
            )
            yield TableRow(number, {header[0]: line[0]}, problem)


def _checked_lines(path: Path, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from reader
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected a CSV in UTF-8, got other bytes ({error.reason}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path}: expected a CSV, got what cannot be read as one ({error})") from error


def whole_number(text: str) -> str:
    """An identifier without the `.0` that pandas writes where a column has gaps.

    >>> whole_number("15709.0"), whole_number(" p-7.0 ")
    ('15709', 'p-7.0')
    """
    text = text.strip()
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text


def parse_age(text: str) -> float | None:
    """Years from 0 to 150; None where nothing stands. ValueError for anything else."""
    if not text:
        return None
    try:
        age = float(text)
    except ValueError as error:
        raise ValueError(f"age: expected a number of years or nothing, got {text[:40]!r}") from error
    if math.isnan(age):
        return None
    if not 0 <= age <= 150:
        raise ValueError(f"age: expected years between 0 and 150 or nothing, got {text[:40]!r}")
    return age


def parse_sex(text: str) -> str | None:
    """`"male"`, `"female"` or, for nothing and for "unknown" or "other", None. ValueError for any other word."""
    word = text.strip().lower()
    if word in SEXES or word in UNKNOWN_SEXES:
        return SEXES.get(word)
    raise ValueError(f"sex: expected m, male, f, female, unknown or nothing, got {text[:40]!r}")
