"""Files below a folder: which of them are recordings, and whether a path really lies inside.

Nothing is opened. Links to folders are not followed, hidden files (`.name`) are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets_scripts.readers.formats import SUFFIX_FORMATS

SIGNAL_SUFFIXES = (".dat", ".mat")  # a WFDB record's, beside its header
# `.txt` is nearly always a licence or a note; a table may name those that are recordings
READABLE_SUFFIXES = tuple(sorted(set(SUFFIX_FORMATS) - {*SIGNAL_SUFFIXES, ".txt"}))

MAX_FOLDERS_KNOWN = 10_000  # a corpus may have a folder for each of 800,000 recordings


@dataclass(frozen=True)
class FoundFile:
    """A recording: `name` and `files` are relative to the folder, with `/`; `problem` says why it is not to be read."""

    name: str
    files: tuple[str, ...]
    problem: str | None = None


def list_files(root: Path) -> Iterator[FoundFile]:
    """The recordings below a folder, sorted folder by folder. A header stands for its signals.

    Signals without their header, links that lead outside or to folders, and names that are not UTF-8 are problems.
    """
    yield from _list_folder(root, "", Fence(root))


def record_name(name: str) -> str:
    """A file's name as an identifier: without the suffixes of WFDB, which are one record together.

    >>> record_name("a/100.hea"), record_name("a/100.dcm")
    ('a/100', 'a/100.dcm')
    """
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in (".hea", *SIGNAL_SUFFIXES) else name


def wfdb_files(path: str) -> tuple[str, ...]:
    """The files on which the recording at `path` may depend: itself, or a WFDB record's header and signals."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() in READABLE_SUFFIXES and suffix.lower() != ".hea":
        return (path,)
    stem = record_name(path)
    parts = tuple(f"{stem}{ending}" for ending in (".hea", *SIGNAL_SUFFIXES))
    return parts if path in parts else (path, *parts)  # without an ending that is known, it may be either


class Fence:
    """What lies inside a folder, links resolved; every folder is resolved once."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(root)
        self._start = self._root.rstrip(os.sep) + os.sep
        self._real_folders: dict[str, str] = {}

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path really lies inside the folder, its own link and those of its folders followed."""
        folder, name = os.path.split(os.path.abspath(path))
        real = os.path.join(self._real(folder), name)
        return (os.path.realpath(real) if os.path.islink(real) else real).startswith(self._start)

    def _real(self, folder: str) -> str:
        """`os.path.realpath`, with one look at each folder however many files are in it."""
        if folder not in self._real_folders:
            parent, name = os.path.split(folder)
            real = os.path.join(self._real(parent), name) if name else folder
            if len(self._real_folders) >= MAX_FOLDERS_KNOWN:
                self._real_folders.clear()
            self._real_folders[folder] = os.path.realpath(real) if os.path.islink(real) else real
        return self._real_folders[folder]

    def name_inside(self, folder: str | os.PathLike[str], name: str) -> str:
        """The path `name`, relative to `folder`, as seen from the fence's own folder, with `/`.

        Raises ValueError for what is no plain relative path, and for one that leads outside. Nothing is opened.
        """
        if not name or os.path.isabs(name) or "\\" in name or "\0" in name:
            raise ValueError(f"path: expected a relative path with '/', got {name!r}; it is not opened")
        path = os.path.normpath(os.path.join(self._real(os.path.abspath(folder)), name))
        if not (path.startswith(self._start) and self.holds(path)):
            raise ValueError(f"path: expected a file inside the data set's folder, got {name!r}; it is not opened")
        return path.removeprefix(self._start).replace(os.sep, "/")


def _list_folder(folder: Path, prefix: str, fence: Fence) -> Iterator[FoundFile]:
    try:
        items = list(os.scandir(folder))
    except OSError as error:
        if not prefix:
            raise
        yield _refused(prefix, f"this folder cannot be listed ({error.strerror})")
        return
    found = sorted((item for item in items if not item.name.startswith(".")), key=lambda item: item.name)
    beside: dict[str, list[str]] = {}  # stem -> suffixes
    for item in found:
        stem, suffix = os.path.splitext(item.name)
        beside.setdefault(stem, []).append(suffix)
    for item in found:
        if item.is_dir(follow_symlinks=False):
            yield from _list_folder(folder / item.name, f"{prefix}{item.name}/", fence)
        elif os.path.isdir(item.path):  # unlike item.is_dir(), no error for links in a circle
            yield _refused(f"{prefix}{item.name}", "is a link to a folder, which is not followed; give its target")
        else:
            stem, suffix = os.path.splitext(item.name)
            yield from _found(item, prefix, beside[stem], suffix.lower(), fence)


def _found(item: os.DirEntry[str], prefix: str, beside: list[str], suffix: str, fence: Fence) -> Iterator[FoundFile]:
    """The file as a recording; nothing where it is another's part or of another kind."""
    name, stem = f"{prefix}{item.name}", prefix + os.path.splitext(item.name)[0]
    with_header = ".hea" in map(str.lower, beside)
    if suffix not in READABLE_SUFFIXES and (suffix not in SIGNAL_SUFFIXES or with_header):
        return
    if item.is_symlink() and not fence.holds(item.path):
        yield _refused(name, "is a link that leads outside the data set's folder; it is not opened")
    elif suffix in SIGNAL_SUFFIXES:
        yield _refused(name, "expected a WFDB header (.hea) of the same name beside it, got none; copy it here")
    elif not _is_utf8(name):
        yield _refused(name, "expected a file name in UTF-8; rename it")
    else:
        parts = [other for other in beside if other.lower() in SIGNAL_SUFFIXES] if suffix == ".hea" else []
        yield FoundFile(name, (name, *(stem + part for part in parts)))


def _refused(name: str, problem: str) -> FoundFile:
    return FoundFile(os.fsencode(name).decode("utf-8", "backslashreplace"), (), problem)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
