"""Answers of chat models, kept as they come: what was asked once is never asked again, also after a kill.

One line of JSON for each answer, written through to the disk before it counts. A line that a kill cut short is passed
over, and the next one begins on a line of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from datasets_scripts.cqa.generator import Generated


@dataclass(frozen=True)
class Answer:
    """What a model said of a statement under a key, and to which of the attempts."""

    key: str
    attempt: int
    statement: str
    generated: Generated


def cache_key(**parts: str) -> str:
    """A short hash of all that decides an answer: statement, model, prompt and corpus.

    >>> cache_key(statement="a", model="b") != cache_key(statement="a", model="c")
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


class AnswerCache:
    """A file of answers; a context manager, since one process at a time may write it.

    `add` may be called from any thread.

    Raises:
        ValueError: where another process has the file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file_lock = FileLock(f"{self.path}.lock")
        try:
            self._file_lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"{self.path}: is in use by another run; wait for it, or choose another file") from error
        self._file = self.path.open("ab+")
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._file_lock.release()

    def answers(self, key: str) -> tuple[Answer, ...]:
        """All answers under a key, in the order of their attempts."""
        return tuple(self._answers.get(key, ()))

    def add(self, answer: Answer) -> None:
        """Keep an answer: on the disk when this returns."""
        line = json.dumps(asdict(answer)).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._answers.setdefault(answer.key, []).append(answer)

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        for line in content.split(b"\n"):
            answer = _answer(line)
            if answer is not None:
                self._answers.setdefault(answer.key, []).append(answer)
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")  # the file is open for appending: this ends a line that was cut short


def _answer(line: bytes) -> Answer | None:
    """The answer of a line; None for one that was not written whole."""
    try:
        values: Mapping[str, Any] = json.loads(line)
        return Answer(**values | {"generated": Generated(**values["generated"])})
    except (ValueError, TypeError, KeyError):
        return None
