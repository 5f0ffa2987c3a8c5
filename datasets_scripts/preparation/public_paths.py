"""Texts and JSON values as they may leave this machine: paths relative to the data, all others by their last name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_START = r"(?:file:/+|~[\w-]*/|(?:\.\./)+|/(?=[^\s/]+/)|[A-Za-z]:[\\/])"
_QUOTED = re.compile(rf"(?P<quote>['\"])(?P<path>{_START}[^'\"\n]*)(?P=quote)")
_BARE = re.compile(rf"(?<![\w.:/~-])(?P<path>{_START}[^\s'\",;:|<>()]*)")


def without_private_paths(values: Any, data_dir: str | PathLike[str] | None = None) -> Any:
    """JSON values whose strings name no folder of this machine, keys included.

    A path in `data_dir` becomes relative to it; of any other absolute path, and of one that starts with `~` or `..`,
    the last name stays. Web addresses, and relative paths, are left as they are.

    >>> without_private_paths({"reason": "/data/ptbxl/r/1.dat: too short", "patients": "/data/p.csv"}, "/data/ptbxl")
    {'reason': 'r/1.dat: too short', 'patients': 'p.csv'}
    """
    if isinstance(values, Mapping):
        return {_clean(str(key), data_dir): without_private_paths(value, data_dir) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_private_paths(value, data_dir) for value in values]
    return _clean(values, data_dir) if isinstance(values, str) else values


def _clean(text: str, data_dir: str | PathLike[str] | None) -> str:
    for spelling in _spellings(data_dir):
        text = re.sub(rf"(?<![\w./~-]){re.escape(spelling)}[/\\]+", "", text)
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute():
        return _last_name(text) if "\n" not in text and ": " not in text else _clean_inside(text)
    return _clean_inside(text)


def _clean_inside(text: str) -> str:
    text = _QUOTED.sub(lambda found: found["quote"] + _last_name(found["path"]) + found["quote"], text)
    return _BARE.sub(lambda found: _last_name(found["path"]), text)


def _spellings(data_dir: str | PathLike[str] | None) -> list[str]:
    """The ways in which messages may write the folder, the longest first."""
    if data_dir is None:
        return []
    given = os.path.normpath(os.fspath(data_dir))
    ways = {os.fspath(data_dir).rstrip("/\\"), given, os.path.abspath(given), os.path.realpath(given)}
    return sorted(ways - {"", ".", "..", os.sep}, key=len, reverse=True)


def _last_name(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
