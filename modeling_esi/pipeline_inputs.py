# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""What people pass to a pipeline: one recording or several; a path, a record, an array. Errors say which it was."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .recordings import Recording, read_recordings

try:  # files are read where the package is installed; the weights bring no readers along
    from datasets_scripts.records import read_record
except ImportError:
    read_record = None

_HINT = ". Leave such records out: reject_reason tells them beforehand."  # the door's, for lists


@dataclass(frozen=True)
class PipelineInput:
    """One recording as it was passed, and its place in the list, if there was one."""

    value: Any
    number: int | None = None


def read_input(
    value: Any, sampling_rate: Any, leads: Any, unit: str | None, ignore_unknown_leads: bool = False
) -> Recording:
    """One recording: a path, a record with fields, a mapping or a `(leads, samples)` array.

    Raises:
        ValueError: for what cannot be understood; OSError for a file that is not there.
        ImportError: for a path where the package that reads files is not installed.
    """
    if isinstance(value, str | os.PathLike):
        value = _read_path(value, sampling_rate, leads, unit)
        sampling_rate = leads = unit = None
    if isinstance(value, Mapping) and "array" in value and "signal" not in value:
        value = {**value, "signal": value["array"]}  # the name under which data sets of audio hold it
    recordings = read_recordings(value, sampling_rate, leads, unit or "mV", ignore_unknown_leads)
    if len(recordings) != 1:
        raise ValueError(f"signal: expected one recording, got {len(recordings)}: pass them in one list.")
    return recordings[0]


def _read_path(
    path: str | os.PathLike[str], sampling_rate: float | None, leads: Sequence[str] | None, unit: str | None
) -> Any:
    if read_record is None:
        raise ImportError(
            f"{path}: files are read by the package, which is not installed: pip install esi-ecg; or pass the signal "
            "itself, with sampling_rate and leads."
        )
    return read_record(path, sampling_rate=sampling_rate, leads=leads, unit=unit)


def is_one(inputs: Any) -> bool:
    """Whether this is one recording, and not several."""
    if isinstance(inputs, str | os.PathLike | Mapping) or hasattr(inputs, "digital") or hasattr(inputs, "signal"):
        return True
    if isinstance(inputs, np.ndarray | Tensor):
        return inputs.ndim < 3 and inputs.dtype != object
    if isinstance(inputs, list | tuple):
        return bool(inputs) and _is_lead(inputs[0])
    return not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__")


def each(inputs: Any) -> Iterable[Any]:
    """Several recordings, one after the other; a data set of torch has lengths and numbers, but cannot be iterated."""
    return inputs if isinstance(inputs, Iterable) else (inputs[number] for number in range(len(inputs)))


def _is_lead(value: Any) -> bool:
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim < 2
    is_list = isinstance(value, list | tuple)
    return isinstance(value, int | float) or (is_list and bool(value) and isinstance(value[0], int | float | np.number))


def told(error: ValueError, inputs: PipelineInput) -> str:
    """The reason, with the recording's number in the list, and its path or identifier."""
    value, reason = inputs.value, str(error).removeprefix("record 0: ").removesuffix(_HINT)
    if isinstance(value, str | os.PathLike):
        name = os.fspath(value)
    else:
        name = value.get("record_id") if isinstance(value, Mapping) else getattr(value, "record_id", None)
    place = [] if inputs.number is None else [f"recording {inputs.number}"]
    named = [str(name)] if name and not reason.startswith(str(name)) else []
    return ": ".join([*place, *named, reason])
