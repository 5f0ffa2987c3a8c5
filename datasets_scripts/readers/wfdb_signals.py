"""The samples of a checked WFDB header as integers: formats 16, 61, 212 and MATLAB v4 here, all others by `wfdb`.

Sources: signal(5) (https://physionet.org/physiotools/wag/signal-5.htm) for the formats; "MAT-File Format", The
MathWorks, appendix "Level 4 MAT-File Format" for the 20 bytes that come before the samples of a `.mat` file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from datasets_scripts.readers.wfdb_header import SignalLine, WFDBHeader, check_own_file

PRIVATE_FORMATS = {"16": "<i2", "61": ">i2", "212": None}  # and the type of one sample, where it has whole bytes
# signal(5): the integer of each format that stands for "no sample"; for format 8, which has none, one out of reach
NAN_OF_FORMAT = {"80": -(2**7), "508": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11)}
NAN_OF_FORMAT |= {"16": -(2**15), "61": -(2**15), "160": -(2**15), "516": -(2**15)}
NAN_OF_FORMAT |= {"24": -(2**23), "524": -(2**23), "32": -(2**31), "8": -(2**31)}
MATLAB_HEADER = struct.Struct("<5i")  # type, rows, columns, imaginary part, length of the name
# MATLAB's type number of a little-endian full matrix, and what it holds, by the WFDB format of the same bytes
MATLAB_TYPES = {"16": (30, "int16"), "32": (20, "int32"), "80": (50, "uint8")}


def read_signals(header: WFDBHeader, num_samples: int) -> Sequence[np.ndarray]:
    """The integers of every signal as they stand in its file: `(num_samples * samples_per_frame,)` each.

    `header` is that of one segment, `num_samples` what `wfdb_checks.frames_of` found. Skew is not yet applied, frames
    are not yet averaged. Where all signals are alike, the rows are those of one int16 array `(leads, samples)`.
    Raises ValueError with one sentence, or OSError.
    """
    files = [(name, list(group)) for name, group in groupby(header.signals, key=lambda line: line.file_name)]
    for file_name, lines in files:
        if file_name.lower().endswith(".mat"):
            _check_matlab(header.path.parent / file_name, lines, num_samples)
    if any(line.fmt not in PRIVATE_FORMATS for line in header.signals):
        return _read_with_wfdb(header)
    parts = [_read_file(header.path.parent / file_name, lines, num_samples) for file_name, lines in files]
    return parts[0] if len(parts) == 1 else [row for rows in parts for row in rows]


def _read_with_wfdb(header: WFDBHeader) -> list[np.ndarray]:
    """The same by `wfdb.rdrecord`; its errors become one sentence. Never with `pn_dir`: nothing is fetched."""
    import wfdb  # takes a second, and the common formats do without

    check_own_file(header.path)
    name = str(header.path.with_suffix("").absolute())
    try:
        return wfdb.rdrecord(name, physical=False, smooth_frames=False, ignore_skew=True, pn_dir=None).e_d_signal
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{header.path}: its signals cannot be read ({reason}); correct the header, or copy the record again"
        ) from error


def _read_file(path: Path, lines: list[SignalLine], num_samples: int) -> Sequence[np.ndarray]:
    """The rows of the signals in one file of a private format."""
    per_frame = sum(line.samples_per_frame for line in lines)
    count = num_samples * per_frame
    dtype = PRIVATE_FORMATS[lines[0].fmt]
    num_bytes = 2 * count if dtype else (3 * count + 1) // 2
    raw = np.empty(num_bytes, np.uint8)
    with path.open("rb") as file:
        file.seek(lines[0].byte_offset)
        got = file.readinto(raw)
    if got < num_bytes:
        raise ValueError(
            f"{path}: expected {num_bytes} bytes of samples, got {got}; the file changed while it was read"
        )
    flat = raw.view(dtype) if dtype else decode_212(raw, count)
    frames = flat.astype(np.int16, copy=False).reshape(num_samples, per_frame)
    if per_frame == len(lines):
        return np.ascontiguousarray(frames.T)  # (samples, leads) -> (leads, samples)
    ends = np.cumsum([line.samples_per_frame for line in lines])[:-1]
    return [part.reshape(-1) for part in np.split(frames, ends, axis=1)]


def decode_212(raw: np.ndarray, count: int) -> np.ndarray:
    """The `count` int16 samples of format 212: two 12-bit integers in three bytes; `raw (num_bytes,)` uint8.

    >>> decode_212(np.array([0x01, 0xF0, 0xFF, 0x00, 0x08], np.uint8), 3).tolist()
    [1, -1, -2048]
    """
    if raw.size % 3:
        raw = np.append(raw, np.uint8(0))  # an odd number of samples ends after two bytes
    blocks = raw.reshape(-1, 3).astype(np.int16)  # (bytes,) -> (pairs, 3)
    pairs = np.empty((len(blocks), 2), np.int16)
    pairs[:, 0] = (blocks[:, 1] << 12) | (blocks[:, 0] << 4)  # the 12 bits on top, so that the sign is in its place
    pairs[:, 1] = ((blocks[:, 1] & 0xF0) << 8) | (blocks[:, 2] << 4)
    return (pairs >> 4).reshape(-1)[:count]


def _check_matlab(path: Path, lines: list[SignalLine], num_samples: int) -> None:
    """ValueError unless the file's own header says what the WFDB header says of it: type, size and offset."""
    fmt = lines[0].fmt
    if fmt not in MATLAB_TYPES:
        raise ValueError(f"{path}: expected a MATLAB file in format {', '.join(MATLAB_TYPES)}, got format {fmt}")
    with path.open("rb") as file:
        head = file.read(MATLAB_HEADER.size)
    if len(head) < MATLAB_HEADER.size:
        raise ValueError(
            f"{path}: expected the {MATLAB_HEADER.size} bytes of a MATLAB v4 header, got {len(head)} bytes"
        )
    number, name = MATLAB_TYPES[fmt]
    rows = sum(line.samples_per_frame for line in lines)
    expected = (number, rows, num_samples, 0, lines[0].byte_offset - MATLAB_HEADER.size)
    got = MATLAB_HEADER.unpack(head)
    if got != expected:
        raise ValueError(
            f"{path}: expected a MATLAB v4 matrix of {name} (type {number}), {rows} x {num_samples}, real, samples "
            f"from byte {lines[0].byte_offset}, as the header says, got type {got[0]}, {got[1]} x {got[2]}, imaginary "
            f"part {got[3]}, samples from byte {got[4] + MATLAB_HEADER.size}; copy both files again"
        )
