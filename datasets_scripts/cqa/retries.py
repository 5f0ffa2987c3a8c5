"""Asking again: exponential back-off with jitter, and the wait that a server asks for.

The wait doubles from try to try and is drawn from its upper half, so that many requests that failed together do not
come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A server's own
Retry-After goes before it where it is longer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from datasets_scripts.cqa.generator import TemporaryFailure

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Backoff:
    """How often and after how long a request is made again; times in seconds."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: float = 600.0  # of what a server asks for

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: expected at least 1, got {self.attempts}")

    def wait(self, failures: int, asked: float | None, chance: float) -> float:
        """The seconds after so many failures; `chance` is a number from 0 to 1.

        >>> Backoff().wait(3, None, 1.0), Backoff().wait(3, None, 0.0), Backoff().wait(1, 30.0, 0.5)
        (4.0, 2.0, 30.0)
        """
        longest = min(self.first_wait * 2 ** (failures - 1), self.longest_wait)
        own = longest * (0.5 + 0.5 * chance)
        return max(own, min(asked or 0.0, self.longest_asked))


def call_patiently(
    call: Callable[[], Answer],
    backoff: Backoff,
    sleep: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> Answer:
    """The result of `call`, which is made again after every `TemporaryFailure`; the last one is raised."""
    rng = rng or random.Random()
    for failures in range(1, backoff.attempts):
        try:
            return call()
        except TemporaryFailure as failure:
            sleep(backoff.wait(failures, failure.wait, rng.random()))
    return call()
