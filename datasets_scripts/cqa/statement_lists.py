"""Where statements come from: a file with one on each line, or the rows of a prepared data set."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datasets_scripts.loading import open_prepared
from datasets_scripts.preparation.prepare import read_manifest


def read_statements(path: str | PathLike[str]) -> list[str]:
    """The lines of a text file that hold something.

    Raises FileNotFoundError, or ValueError for a file that is no UTF-8 text or has no statement.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a text file with one statement on each line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes at position {error.start}") from error
    statements = [line.strip() for line in lines if line.strip()]
    if not statements:
        raise ValueError(f"{path}: expected one statement on each line, got none")
    return statements


def statements_of_dataset(folder: str | PathLike[str]) -> list[str]:
    """The distinct statements of a prepared data set, in the order in which its rows first say them.

    Raises FileNotFoundError where the folder is not a finished preparation, ValueError where no row has statements.
    """
    dataset, _ = open_prepared(folder, split=None)
    column = pa.chunked_array(
        [pc.list_flatten(chunk) for chunk in dataset.data.column("statements").chunks], pa.string()
    )
    statements = [statement for statement in pc.unique(column).to_pylist() if statement]
    if not statements:
        raise ValueError(f"{folder}: expected rows with statements, got none; this data set has reports only")
    return statements


def credentialed_columns(folder: str | PathLike[str]) -> list[str]:
    """The columns of a prepared data set that come from tables under a data use agreement."""
    return list(read_manifest(folder)["credentialed_columns"])
