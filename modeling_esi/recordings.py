# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""What people pass in, and what must be true of it: any array, list or object becomes checked millivolts.

Integers with a gain stay int16 until their batch is on its device: half the bytes to copy and to move.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .lead_names import match_leads

UNITS_PER_MV = {"V": 1e-3, "mV": 1.0, "uV": 1e3, "\u00b5V": 1e3, "\u03bcV": 1e3, "nV": 1e6}
LOWEST_RATE, HIGHEST_RATE = 20.0, 20_000.0  # Hz; outside, it is not the sampling rate of a diagnostic ECG
DIGITAL_NAN = -32768  # the least int16; in a stored record it stands for "no sample"


class Recording(NamedTuple):
    """One record, read and checked: `signal (leads, samples)`, Hz, one name per lead.

    `signal` is float32 millivolts; or, where `gain` and `offset (leads,)` are there, int16 as stored (see
    `SignalBatch.millivolts`).
    """

    signal: Tensor | np.ndarray
    sampling_rate: float
    leads: tuple[str, ...]
    gain: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def device(self) -> torch.device:
        """Where the signal is."""
        return self.signal.device if isinstance(self.signal, Tensor) else torch.device("cpu")

    @property
    def kind(self) -> tuple[Any, ...]:
        """What records must share to be stacked: rate, leads, length, and how their samples are held."""
        held = (self.gain is not None, isinstance(self.signal, Tensor))
        return (self.sampling_rate, self.leads, self.signal.shape[-1], *held)


class SignalBatch(NamedTuple):
    """Signals `(B, leads, samples)` on one device: millivolts, or int16 with `gain` and `offset (B, leads)`."""

    signal: Tensor
    gain: Tensor | None = None
    offset: Tensor | None = None

    def millivolts(self) -> Tensor:
        """`(B, leads, samples)` in mV: `(signal - offset) / gain` in float32, NaN where int16 is -32768."""
        if self.gain is None:
            return self.signal
        millivolt = self.signal.float().sub_(self.offset[..., None]).div_(self.gain[..., None])
        # the least int16 is quickly looked for; a GPU masks as fast as it could answer
        if self.signal.device.type == "cpu" and self.signal.amin() != DIGITAL_NAN:
            return millivolt
        return millivolt.masked_fill_(self.signal == DIGITAL_NAN, float("nan"))

    def split(self, num_records: int) -> list["SignalBatch"]:
        """The batch in parts of at most so many records."""
        parts = [values.split(num_records) for values in self if values is not None]
        return [SignalBatch(*part) for part in zip(*parts, strict=True)]


def read_recordings(
    signal: Any, sampling_rate: Any, leads: Any, unit: Any, ignore_unknown_leads: bool = False
) -> list[Recording]:
    """One record or a list of them, in any of the forms `ESIFeatureExtractor` takes.

    Raises:
        ValueError: for what cannot be understood, with the record's number in the list.
    """
    items = _split_records(signal)
    rates = _per_record("sampling_rate", sampling_rate, len(items), _is_one_number)
    names = _per_record("leads", leads, len(items), _is_one_list_of_names)
    units = _per_record("unit", unit, len(items), lambda value: isinstance(value, str))
    recordings = []
    for i, arguments in enumerate(zip(items, rates, names, units, strict=True)):
        try:
            recording = _read_recording(*arguments)
            match_leads(recording.leads, ignore_unknown_leads)
        except ValueError as error:
            raise ValueError(f"record {i}: {error}") from error
        recordings.append(recording)
    return recordings


def stack_recordings(recordings: Sequence[Recording], device: torch.device) -> SignalBatch:
    """Recordings of one `kind` as a batch on `device`."""
    signal = _stack([recording.signal for recording in recordings], device)
    if recordings[0].gain is None:
        return SignalBatch(signal)
    gain, offset = ([getattr(recording, name) for recording in recordings] for name in ("gain", "offset"))
    return SignalBatch(signal, _stack(gain, device), _stack(offset, device))


def _stack(values: list[Tensor] | list[np.ndarray], device: torch.device) -> Tensor:
    if isinstance(values[0], Tensor):
        return torch.stack([value.to(device) for value in values])
    if device.type != "cuda":
        return torch.from_numpy(np.stack(values)).to(device)
    # a GPU fetches from pinned memory by itself, while Python goes on
    dtype = torch.int16 if values[0].dtype == np.int16 else torch.float32
    pinned = torch.empty((len(values), *values[0].shape), dtype=dtype, pin_memory=True)
    np.stack(values, out=pinned.numpy())
    return pinned.to(device, non_blocking=True)


# ----- one or many ---------------------------------------------------------------------------------------------------


def _split_records(signal: Any) -> list[Any]:
    """A list of records, each an object with fields or something that looks like an array."""
    if isinstance(signal, str | bytes) or signal is None:
        raise ValueError(f"signal: expected (leads, samples) numbers or a record, got {signal!r}: read the file first.")
    if isinstance(signal, Tensor | np.ndarray):
        is_batch = signal.ndim == 3 or (signal.ndim == 1 and signal.dtype == object)
        return list(signal) if is_batch and len(signal) else [signal]
    if isinstance(signal, list | tuple) and not _has_fields(signal):
        if not signal:
            raise ValueError("signal: expected at least one record, got an empty list.")
        return list(signal) if _is_record(signal[0]) else [signal]
    return [signal]


def _is_record(value: Any) -> bool:
    """Whether the first item of a list is a record; if not, the list itself is one, of leads."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim != 1
    if _has_fields(value) or isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], int | float | np.number)


def _per_record(name: str, value: Any, num_records: int, is_one: Callable[[Any], bool]) -> list[Any]:
    if value is None or is_one(value):
        return [value] * num_records
    if isinstance(value, list | tuple | np.ndarray | Tensor) and len(value) == num_records:
        return list(value)
    raise ValueError(f"{name}: expected one for all or one for each of the {num_records} records, got {value!r}.")


def _is_one_number(value: Any) -> bool:
    return not isinstance(value, list | tuple) and (not isinstance(value, np.ndarray | Tensor) or value.ndim == 0)


def _is_one_list_of_names(value: Any) -> bool:
    is_list = isinstance(value, list | tuple | np.ndarray)
    return isinstance(value, str) or (is_list and all(isinstance(name, str) for name in value))


# ----- one record ----------------------------------------------------------------------------------------------------


def _has_fields(value: Any) -> bool:
    # `digital` first: a record with integers computes its millivolts as soon as `signal` is asked for
    return isinstance(value, Mapping) or hasattr(value, "digital") or hasattr(value, "signal")


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)


def _read_recording(item: Any, sampling_rate: Any, leads: Any, unit: str) -> Recording:
    if not _has_fields(item):
        names = _lead_names(leads)
        return Recording(_to_millivolts(item, unit, names), check_rate(sampling_rate), names)
    names = _lead_names(_agree("leads", _field(item, "leads"), leads))
    rate = check_rate(_agree("sampling_rate", _field(item, "sampling_rate"), sampling_rate))
    unit = _field(item, "unit") or unit
    if isinstance(item, Mapping) and item.get("num_samples") is not None:
        item = _record_of_row(item, names)
    stored = tuple(_field(item, name) for name in ("digital", "gain", "offset"))
    if all(values is not None for values in stored):
        return Recording(_to_int16(stored[0], unit, names), rate, names, *_check_calibration(*stored[1:], names))
    signal = _field(item, "signal")
    if signal is None:
        raise ValueError(f"signal: expected a record with such a field, got a {type(item).__name__} without.")
    if stored[1] is not None and not _is_floating(signal):
        raise ValueError(
            "signal: expected millivolts, got counts with a gain: pass (signal - offset) / gain, or the counts as "
            "digital, with gain and offset."
        )
    return Recording(_to_millivolts(signal, unit, names), rate, names)


def _lead_names(leads: Any) -> tuple[str, ...]:
    if leads is None:
        raise ValueError("leads: expected one name per channel, got none: pass leads=['I', 'II', ...], as recorded.")
    return (leads,) if isinstance(leads, str) else tuple(leads)


def _record_of_row(row: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """A stored row as a record: its flat `signal` as `(leads, samples)`, and as `digital` where it holds integers."""
    flat, shape = np.asarray(row.get("signal")), (len(names), as_number("num_samples", row["num_samples"]))
    if flat.ndim != 1:
        return row  # a record that also tells its length
    if flat.size != math.prod(shape):
        raise ValueError(f"signal: expected {shape[0]} leads * {shape[1]} samples in a row, got {flat.size} values.")
    is_floating = flat.dtype.kind == "f"
    if is_floating and (np.any(np.asarray(row.get("gain", 1)) != 1) or np.any(np.asarray(row.get("offset", 0)))):
        raise ValueError("signal: expected a row of millivolts (gain 1, offset 0) or of int16, got floats with a gain.")
    return {**row, "signal" if is_floating else "digital": flat.reshape(shape)}


def _to_int16(digital: Any, unit: str, names: tuple[str, ...]) -> Tensor | np.ndarray:
    """Checked `(leads, samples)` int16; an array is not copied where it is int16 already."""
    if unit != "mV":
        raise ValueError(f"unit: expected 'mV' for digital, whose gain is per mV, got {unit!r}: leave it out.")
    if isinstance(digital, Tensor) and digital.device.type == "cpu":
        digital = digital.detach().numpy()
    values = digital if isinstance(digital, Tensor) else np.asarray(digital)
    if values.dtype != (torch.int16 if isinstance(values, Tensor) else np.int16):
        values = _narrowed(values)
    _check_shape(tuple(values.shape), names)
    return values


def _narrowed(values: Tensor | np.ndarray) -> np.ndarray:
    """Whole numbers of another dtype as int16, where they fit: stored rows come as Python's."""
    fits = isinstance(values, np.ndarray) and values.dtype.kind in "iu"
    if not fits or (values.size and not (DIGITAL_NAN <= values.min() and values.max() < -DIGITAL_NAN)):
        raise ValueError(f"digital: expected int16 numbers, got {values.dtype}: pass the signal in mV instead.")
    return values.astype(np.int16)


def _check_calibration(gain: Any, offset: Any, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`gain` and `offset (leads,)` in float32, finite, no gain 0."""
    checked = []
    for name, values in (("gain", gain), ("offset", offset)):
        values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float32)
        fits = values.shape == (len(names),) and np.isfinite(values).all()
        if not fits or (name == "gain" and not values.all()):
            other_than_0 = " other than 0" if name == "gain" else ""
            raise ValueError(
                f"{name}: expected {len(names)} finite numbers{other_than_0}, one per lead, got {values.tolist()}."
            )
        checked.append(values)
    return tuple(checked)


def _agree(name: str, of_record: Any, of_call: Any) -> Any:
    if of_record is None or of_call is None:
        return of_call if of_record is None else of_record
    same = list(of_record) == list(of_call) if name == "leads" else of_record == of_call
    if not same:
        raise ValueError(f"{name}: the record says {of_record!r}, the call {of_call!r}: pass it once.")
    return of_record


def _is_floating(signal: Any) -> bool:
    return signal.dtype.is_floating_point if isinstance(signal, Tensor) else np.asarray(signal).dtype.kind == "f"


def _to_millivolts(signal: Any, unit: str, names: tuple[str, ...]) -> Tensor:
    """Checked `(leads, samples)` float32 in mV."""
    if unit not in UNITS_PER_MV:
        raise ValueError(
            f"unit: expected one of {', '.join(UNITS_PER_MV)} (case counts), got {unit!r}. Digital values (ADC counts) "
            "become millivolts by the record's own gain: (value - baseline) / gain."
        )
    tensor = signal.detach() if isinstance(signal, Tensor) else torch.from_numpy(_to_array(signal))
    _check_real(tensor)
    _check_shape(tuple(tensor.shape), names)
    if UNITS_PER_MV[unit] != 1.0:
        tensor = tensor.double() / UNITS_PER_MV[unit]
    return tensor.float()


def _to_array(signal: Any) -> np.ndarray:
    if np.ma.isMaskedArray(signal):
        signal = np.ma.filled(signal.astype(np.float64), np.nan)
    try:
        array = np.asarray(signal)
    except ValueError as error:
        raise ValueError(f"signal: expected leads of one length, got a ragged list ({error}).") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"signal: expected real numbers, got dtype {array.dtype}: convert it to float32 first.")
    exact_in_float32 = array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2)
    return np.require(array, np.float32 if exact_in_float32 else np.float64, ["C", "W"])


# ----- checks --------------------------------------------------------------------------------------------------------


def check_batch(signal: Tensor, leads: Sequence[str]) -> tuple[str, ...]:
    """The channels' names of a batch `(B, leads, samples)`.

    Raises:
        ValueError: where the shape does not fit the names, or the numbers are not real.
    """
    names = (leads,) if isinstance(leads, str) else tuple(leads)
    if not isinstance(signal, Tensor) or signal.ndim != 3 or len(signal) == 0:
        got = tuple(signal.shape) if isinstance(signal, Tensor) else type(signal).__name__
        raise ValueError(f"signal: expected a tensor (B, leads, samples), got {got}: one record is signal[None].")
    _check_real(signal)
    _check_shape(tuple(signal.shape[1:]), names)
    return names


def check_rate(sampling_rate: Any) -> float:
    """The sampling rate in Hz.

    Raises:
        ValueError: where it is missing, not a number, or not between 20 and 20,000.
    """
    if sampling_rate is None:
        raise ValueError("sampling_rate: expected Hz, got none: pass sampling_rate=..., as the record's header says.")
    rate = as_number("sampling_rate", sampling_rate)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:  # NaN fails too
        raise ValueError(
            f"sampling_rate: expected {LOWEST_RATE:g} to {HIGHEST_RATE:g} Hz, got {rate:g}: look it up in the "
            "record's header, and give it in Hz."
        )
    return rate


def as_number(name: str, value: Any) -> float:
    """A Python float, or int where it was one: what JSON gives back unchanged."""
    if isinstance(value, np.ndarray | np.generic | Tensor) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number, got {value!r}.")
    return value


def _check_real(signal: Tensor) -> None:
    if signal.dtype.is_complex or signal.dtype == torch.bool:
        raise ValueError(f"signal: expected real numbers, got {signal.dtype}: convert it to float32 first.")


def _check_shape(shape: tuple[int, ...], names: tuple[str, ...]) -> None:
    if len(shape) != 2:
        hint = "for one lead, pass signal[None]" if len(shape) == 1 else "pass each record as two axes"
        raise ValueError(f"signal: expected (leads, samples), got {len(shape)} axes {shape}: {hint}.")
    if shape[0] != len(names) and shape[1] == len(names):
        raise ValueError(
            f"signal: expected (leads, samples), got {shape} with {len(names)} lead names, which is (samples, leads): "
            "transpose it."
        )
    if shape[0] != len(names):
        raise ValueError(
            f"leads: expected one name for each of the {shape[0]} channels of {shape}, got {len(names)}: {list(names)}."
        )
    if shape[1] == 0:
        raise ValueError(f"signal: expected at least one sample, got {shape}.")
