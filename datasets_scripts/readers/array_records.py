"""Tables of numbers become records: CSV files and NumPy arrays, which say little of what they hold.

What a file does not say, the caller must: `sampling_rate` where a CSV has no time column, `leads` where it has no
header row, both for `.npy`. Where file and caller say different things, ValueError tells both. Voltages without a unit
are mV; whole numbers without a unit, or numbers too large for mV, are refused, since they are the counts of a recorder.
"""

from __future__ import annotations

import csv
import re
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets_scripts.readers.calibration import (
    MAX_LEADS,
    check_size,
    checked_rate,
    millivolt_per_unit,
    record_of_integers,
    record_of_millivolts,
    voltage_unit,
)
from datasets_scripts.records import ECGRecord

MAX_CSV_BYTES = 2**28
MAX_MILLIVOLT = 50.0  # of the 99th percentile: an ECG stays below 10 mV
_MAX_LINE = 2**14
_SECONDS = {"time": 1.0, "t": 1.0, "seconds": 1.0, "sec": 1.0, "s": 1.0, "ms": 1e-3, "milliseconds": 1e-3, "msec": 1e-3}
_INDEX = ("", "index", "sample", "samples", "n", "unnamed: 0")
_NPY_MAGIC = b"\x93NUMPY"
_BROKEN_ARRAY = (ValueError, TypeError, OSError, EOFError, OverflowError, SyntaxError, MemoryError, RecursionError)


@dataclass(frozen=True)
class _Table:
    """The columns of a CSV: `names` None where there is no header row."""

    names: tuple[str, ...] | None
    values: np.ndarray  # (rows, columns) float64
    repairs: tuple[str, ...] = ()


def read_csv_record(
    path: Path, sampling_rate: float | None = None, leads: Sequence[str] | None = None, unit: str | None = None
) -> ECGRecord:
    """The record of a CSV: one column per lead, one row per sample; `,`, `;` or tab between them.

    The first row names the leads, with a unit if you like: `I (uV)`. A column `time`, `t`, `seconds` or `ms` gives the
    sampling rate, in seconds or milliseconds (`time (ms)` too); it must be uniform. A column that counts the rows is
    left out and told. Empty cells are "no sample". Raises FileNotFoundError or ValueError with one sentence.
    """
    table = _read_table(path)
    names = table.names or tuple(leads or ())
    if table.names is None and leads is None:
        raise ValueError(f"{path}: has no header row that names the leads; pass leads=('I', 'II', ...)")
    if len(names) != table.values.shape[1]:
        raise ValueError(f"{path}: expected {len(names)} columns, one per lead, got {table.values.shape[1]}")
    rate, columns, repairs = _sampling_rate(path, names, table.values, sampling_rate, table.names is not None)
    plain, units = zip(*(_name_and_unit(names[column]) for column in columns), strict=True)
    if leads is not None and tuple(leads) != plain:
        raise ValueError(f"{path}: names the leads {list(plain)}, but leads={list(leads)} was given; leave it out")
    signal = table.values[:, columns].T  # (samples, leads) -> (leads, samples)
    scale = _scales(path, signal, plain, units, unit)
    with np.errstate(over="ignore"):
        signal = signal * scale[:, None]
    return record_of_millivolts(path, signal, plain, rate, repairs=(*table.repairs, *repairs))


def read_npy_record(
    path: Path, sampling_rate: float | None = None, leads: Sequence[str] | None = None, unit: str | None = None
) -> ECGRecord:
    """The record of a `.npy` array, `(num_samples, num_leads)` or `(num_leads, num_samples)` by the number of `leads`.

    Mapped, not read: a header that announces more than the file holds allocates nothing, and pickled objects are
    refused unread. Integers need `unit` (of one step) and are kept. Raises FileNotFoundError or ValueError.
    """
    if sampling_rate is None or not leads:
        raise ValueError(f"{path}: an array says neither its sampling rate nor its leads; pass sampling_rate and leads")
    array = _map_array(path)
    rows = _lead_major(path, array, len(leads))
    check_size(path, *rows.shape)
    rate = checked_rate(path, sampling_rate)
    if array.dtype.kind == "f":
        signal = np.array(rows, np.float32 if array.dtype.itemsize <= 4 else np.float64)
        scale = _scales(path, signal, leads, (None,) * len(leads), unit)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values are refused with a sentence
            signal = signal * scale[:, None]
        return record_of_millivolts(path, signal, leads, rate)
    if unit is None:
        raise ValueError(f"{path}: holds integers ({array.dtype}), which say no unit; pass unit, such as 'uV'")
    if array.dtype.itemsize > 4 and rows.size and max(abs(int(rows.min())), abs(int(rows.max()))) >= 2**31:
        raise ValueError(f"{path}: expected integers of at most 32 bits, got larger ones")
    gain = np.full(len(leads), 1.0 / millivolt_per_unit(path, unit))
    return record_of_integers(path, rows.astype(np.int64), gain, np.zeros(len(leads)), leads, rate)


def _map_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            raise ValueError(f"{path}: expected a .npy file, got something else; save it with numpy.save")
    try:
        with np.errstate(all="ignore"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*_BROKEN_ARRAY, tokenize.TokenError) as error:
        raise ValueError(
            f"{path}: expected plain numbers, got an array that cannot be read safely ({type(error).__name__}); arrays "
            f"of Python objects are pickles and are refused: save float32 with numpy.save(..., allow_pickle=False)"
        ) from error
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{path}: expected numbers (num_samples, num_leads), got {array.dtype} {array.shape}")
    return array[:, None] if array.ndim == 1 else array


def _lead_major(path: Path, array: np.ndarray, num_leads: int) -> np.ndarray:
    """The array as `(num_leads, num_samples)`; which axis is which follows from the number of leads only."""
    axes = [axis for axis, size in enumerate(array.shape) if size == num_leads]
    if len(axes) != 1:
        raise ValueError(
            f"{path}: expected {num_leads} leads along exactly one axis, got shape {array.shape}; which axis holds the "
            f"leads is not guessed"
        )
    return array if axes[0] == 0 else array.T


def _read_table(path: Path) -> _Table:
    import pandas as pd

    size = path.stat().st_size
    if size > MAX_CSV_BYTES:
        raise ValueError(f"{path}: expected a CSV of at most {MAX_CSV_BYTES} bytes, got {size}; cut the recording")
    first, delimiter, decimal = _first_line(path)
    cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])]
    if not 1 <= len(cells) <= MAX_LEADS + 2:
        raise ValueError(f"{path}: expected 1 to {MAX_LEADS} columns, got {len(cells)}")
    numbered = len(cells) > 1 and cells == [str(index) for index in range(len(cells))]
    has_header = numbered or not all(_is_number(cell.replace(decimal, ".")) for cell in cells)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a longer row must not lose its end
            values = pd.read_csv(
                path,
                sep=delimiter,
                decimal=decimal,
                header=None,
                names=list(range(len(cells))),
                index_col=False,
                skiprows=int(has_header),
                dtype=np.float64,
                encoding="utf-8-sig",
                on_bad_lines="error",
            ).to_numpy()
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"{path}: expected rows of {len(cells)} numbers, got others ({type(error).__name__}); correct the file"
        ) from error
    if not len(values):
        raise ValueError(f"{path}: expected at least one row of numbers, got none")
    repairs = ("left_out_row: numbers of the columns",) if numbered else ()
    return _Table(tuple(cells) if has_header and not numbered else None, values, repairs)


def _first_line(path: Path) -> tuple[str, str, str]:
    """The first line, the delimiter and the decimal sign."""
    with path.open("rb") as file:
        begin = file.read(_MAX_LINE * 2)
    lines = begin.removeprefix(b"\xef\xbb\xbf").splitlines()
    if not lines or len(lines[0]) > _MAX_LINE or b"\0" in begin:
        raise ValueError(f"{path}: expected a CSV with lines of at most {_MAX_LINE} characters, got something else")
    try:
        first, second = (line.decode("utf-8") for line in (lines[0], lines[1] if len(lines) > 1 else b""))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a CSV in UTF-8, got other bytes; save it as UTF-8") from error
    delimiter = max(",;\t", key=first.count)
    return first, delimiter, "," if delimiter == ";" and "," in second else "."


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|", cell, re.IGNORECASE) is not None


def _name_and_unit(cell: str) -> tuple[str, str | None]:
    """`"I (uV)"` -> `("I", "uV")`; the unit is None where none is told."""
    match = re.fullmatch(r"(.*?)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]", cell)
    if match and (voltage_unit(match[2]) is not None or match[1].lower() in _SECONDS):
        return match[1], match[2]
    return cell, None


def _sampling_rate(
    path: Path, names: Sequence[str], values: np.ndarray, given: float | None, has_header: bool
) -> tuple[float, list[int], tuple[str, ...]]:
    """The rate in Hz, the columns of the leads, and what was left out."""
    columns, times, repairs = [], [], []
    for column, name in enumerate(names):
        seconds = _seconds_per_unit(name) if has_header else None
        if seconds is not None:
            times.append(values[:, column] * seconds)
        elif has_header and name.lower() in _INDEX and (np.diff(values[:, column]) == 1).all():
            repairs.append("left_out_channel: number of the row")
        else:
            columns.append(column)
    if len(times) > 1 or not columns:
        raise ValueError(f"{path}: expected at most one column of times and at least one lead, got {len(times)} times")
    if not times and given is None:
        raise ValueError(f"{path}: has no column of times; pass sampling_rate in Hz")
    if not times:
        return checked_rate(path, given), columns, tuple(repairs)
    rate, rounded = _rate_of_times(path, times[0])
    if given is not None and abs(rate - given) > 1e-3 * given:
        raise ValueError(f"{path}: its times give {rate:g} Hz, but sampling_rate={given:g} was given; leave it out")
    return rate, columns, (*repairs, *rounded)


def _seconds_per_unit(name: str) -> float | None:
    word, unit = _name_and_unit(name.lower())
    return _SECONDS.get(word) if unit is None else _SECONDS.get(unit)


def _rate_of_times(path: Path, times: np.ndarray) -> tuple[float, tuple[str, ...]]:
    """The rate of uniform times; a whole number where the times, as finely as they are written, allow one."""
    span = times[-1] - times[0]
    if not (len(times) > 1 and np.isfinite(times).all() and span > 0):
        raise ValueError(f"{path}: expected increasing times, got others; pass sampling_rate and leave the column out")
    rate = (len(times) - 1) / span
    steps = np.arange(len(times))
    if np.abs((times - times[0]) * rate - steps).max() > 0.25:
        raise ValueError(f"{path}: expected times at a uniform distance, got gaps or jumps; cut the recording there")
    if rate < 10:
        raise ValueError(f"{path}: its times give {rate:g} Hz; if they are milliseconds, name the column 'ms'")
    whole = float(round(rate))
    if abs(rate - whole) < 1e-6 * rate:
        return whole, ()
    if abs(rate - whole) < 1e-4 * rate and np.abs((times - times[0]) * whole - steps).max() <= 0.25:
        return whole, (f"sampling_rate_rounded: {rate:.4f} to {whole:g} Hz",)
    return checked_rate(path, rate), ()


def _scales(
    path: Path, signal: np.ndarray, leads: Sequence[str], told: Sequence[str | None], given: str | None
) -> np.ndarray:
    """Millivolts of one unit for each lead."""
    for lead, unit in zip(leads, told, strict=True):
        if unit and given and millivolt_per_unit(path, unit) != millivolt_per_unit(path, given):
            raise ValueError(f"{path}: says {unit} for lead {lead}, but unit={given!r} was given; leave it out")
    if given is None and not any(told):
        _check_millivolt(path, signal)
    return np.array([millivolt_per_unit(path, unit or given or "mV") for unit in told])


def _check_millivolt(path: Path, signal: np.ndarray) -> None:
    """Numbers without a unit are taken for mV only where they can be."""
    present = signal[np.isfinite(signal)]
    if not present.size or not present.any():
        return
    if (present == np.rint(present)).all():
        raise ValueError(f"{path}: holds whole numbers without a unit, which may be counts of a recorder; pass unit")
    high = float(np.percentile(np.abs(present), 99))
    if high > MAX_MILLIVOLT:
        raise ValueError(f"{path}: holds numbers up to {high:g}, which are no mV; pass unit, such as 'uV'")
