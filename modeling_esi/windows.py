# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""A recording longer than a model's input, as windows of that length."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from .recordings import Recording


class Window(NamedTuple):
    """A part of a recording: what `ESIFeatureExtractor` reads, and where it begins and ends, in seconds."""

    record: dict[str, Any]
    start: float
    end: float


def cut_windows(
    recording: Recording, duration: float, overlap: float = 0.0, shortest_rest: float = 1.0
) -> Iterator[Window]:
    """Windows of `duration` over the whole recording, in order; one that is no longer comes back whole.

    The last window ends where the recording ends, so that every window is full: it overlaps the one before it by what
    is needed. A rest that is shorter than `shortest_rest` gets no window of its own.

    Args:
        recording: a checked record.
        duration: of a window, in seconds.
        overlap: share of a window that the next one repeats, from 0 to below 1; 0.5 is half.
        shortest_rest: in seconds.

    Raises:
        ValueError: for an overlap that is none.
    """
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share of the window from 0 to below 1, got {overlap!r}.")
    rate, num_samples = recording.sampling_rate, recording.signal.shape[-1]
    length = math.ceil(duration * rate - 1e-6)
    for start in window_starts(num_samples, length, round(length * (1 - overlap)), math.ceil(shortest_rest * rate)):
        stop = min(start + length, num_samples)
        yield Window(_part(recording, start, stop), start / rate, stop / rate)


def window_starts(num_samples: int, length: int, step: int, shortest_rest: int) -> list[int]:
    """Where windows of `length` begin, all numbers in samples.

    >>> window_starts(num_samples=26, length=10, step=10, shortest_rest=3)
    [0, 10, 16]
    """
    starts = list(range(0, max(num_samples - length, 0) + 1, max(step, 1)))
    rest = num_samples - (starts[-1] + length)
    return [*starts, num_samples - length] if rest >= max(shortest_rest, 1) else starts


def _part(recording: Recording, start: int, stop: int) -> dict[str, Any]:
    """The samples from `start` to `stop` as a record with fields: a view, nothing is copied."""
    signal = recording.signal[:, start:stop]
    described = {"sampling_rate": recording.sampling_rate, "leads": recording.leads}
    if recording.gain is None:
        return {"signal": signal, **described}
    return {"digital": signal, "gain": recording.gain, "offset": recording.offset, **described}
