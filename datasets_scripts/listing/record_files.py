"""The folders of a data set, in an order that is the same on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from datasets_scripts.sources import Entry


@dataclass(frozen=True)
class Folder:
    """One folder: the sorted names of its files, and of the links to folders that it holds."""

    path: Path
    file_names: tuple[str, ...]
    link_names: tuple[str, ...]

    def link_entries(self) -> Iterator[Entry]:
        """An entry for every link to a folder, with its problem: what lies there is not read."""
        for name in self.link_names:
            problem = f"{name}: is a link to a folder, which is not followed; copy the folder, or give it as data_dir"
            yield Entry(name, str(self.path / name), "train", problem=problem)


def walk_folders(data_dir: str | PathLike[str] | None, expected: str) -> Iterator[Folder]:
    """Every folder from `data_dir` downwards; hidden files and folders (`.name`) are passed over, nothing is opened.

    `expected` says in errors what the folder should hold. Raises ValueError or FileNotFoundError at once where
    `data_dir` is no folder; OSError while walking for one that cannot be listed, so that no record is missed silently.
    """
    if data_dir is None:
        raise ValueError(f"data_dir: expected the folder of {expected}, got None")
    if not Path(data_dir).is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder; data_dir must be the folder of {expected}")
    return _walk(data_dir)


def _walk(data_dir: str | PathLike[str]) -> Iterator[Folder]:
    for path, folder_names, file_names in os.walk(data_dir, onerror=_raise, followlinks=False):
        folder_names[:] = sorted(name for name in folder_names if not name.startswith("."))
        links = tuple(name for name in folder_names if os.path.islink(os.path.join(path, name)))
        yield Folder(Path(path), tuple(sorted(name for name in file_names if not name.startswith("."))), links)


def _raise(error: OSError) -> None:
    raise error
