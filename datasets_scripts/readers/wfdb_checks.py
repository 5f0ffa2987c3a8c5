"""What a WFDB header names is checked before any of it is opened: files, sizes, segments.

Nothing outside the header's own folder is ever touched, and nothing is allocated for a size that the files do not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from datasets_scripts.readers.wfdb_header import SignalLine, WFDBHeader, check_own_file, parse_header

MAX_VALUES = 2**27  # leads times samples: 3 leads over 4 days at 128 Hz, 1 GB while reading
MAX_GAP_FACTOR = 100  # samples announced for each one that a file holds: gaps take memory, but no bytes in a file

# (samples, bytes) of one block of every format whose file size follows from its length; signal(5)
BLOCK_OF_FORMAT = {
    "8": (1, 1),
    "80": (1, 1),
    "16": (1, 2),
    "61": (1, 2),
    "160": (1, 2),
    "24": (1, 3),
    "32": (1, 4),
    "212": (2, 3),
    "310": (3, 4),
    "311": (3, 4),
}
COMPRESSED_FORMATS = ("508", "516", "524")  # FLAC: the size says nothing about the length


def frames_of(header: WFDBHeader) -> int:
    """Check the files of a single-segment header and return the number of samples per lead (frames).

    Raises FileNotFoundError or ValueError: a file that is not there, that is shorter than announced, or sizes that no
    recording has.
    """
    _check_count(header.path, header.num_leads, header.num_samples or 0)
    num_samples = header.num_samples or None  # header(5): zero means not said
    for file_name, group in groupby(header.signals, key=lambda line: line.file_name):
        lines = list(group)
        size = check_own_file(header.path.parent / file_name)
        _check_one_file(header, lines)
        held = _frames_held(lines, size)
        if num_samples is None:
            num_samples = _inferred_length(header, lines[0], held)
        _check_count(header.path, sum(line.samples_per_frame for line in header.signals), num_samples)
        if held is not None and held < num_samples:
            raise ValueError(
                f"{header.path}: announces {num_samples} samples per lead, but {file_name} ({size} bytes) holds only "
                f"{max(held, 0)}; the file is cut short, copy it again"
            )
        skew = max(line.skew for line in lines)
        if skew > num_samples:
            raise ValueError(f"{header.path}: expected a skew of at most {num_samples} samples, got {skew}")
    return num_samples


def wrong_checksums(header: WFDBHeader, rows: Sequence[np.ndarray]) -> dict[int, str]:
    """The signals whose samples are not those that were written: signal -> one sentence that says so.

    `rows` are the integers of every signal as they stand in the file, all samples of all frames, before any is shifted
    or averaged. The checksum is their sum modulo 65536, with or without sign (header(5)). None is compared where the
    header does not say the number of samples (header(5)), and none where all are 0, which writers put who compute none.
    """
    if not header.num_samples or not any(line.checksum for line in header.signals):
        return {}
    wrong = {}
    for index, (line, row) in enumerate(zip(header.signals, rows, strict=True)):
        got = int(row.sum(dtype=np.int16))  # wraps around at 16 bits, as the checksum does
        if line.checksum is not None and (got - line.checksum) % 2**16:
            got = got if line.checksum < 0 else got % 2**16
            wrong[index] = (
                f"{header.path}: expected checksum {line.checksum} of lead {line.name}, got {got}: these samples are "
                f"not those that were written; copy the record again"
            )
    return wrong


def check_segments(header: WFDBHeader) -> list[WFDBHeader]:
    """Check every segment of a record in several, and return the headers of those that hold samples.

    Their headers, files and lengths are checked; no signals file is opened.
    Raises FileNotFoundError or ValueError with one sentence.
    """
    lengths = [num_samples for _, num_samples in header.segments]
    if header.num_samples is not None and sum(lengths) != header.num_samples:
        raise ValueError(f"{header.path}: announces {header.num_samples} samples, its segments {sum(lengths)}")
    _check_count(header.path, header.num_leads, sum(lengths))
    segments = [segment for segment in header.segments if segment[0] != "~"]
    held = sum(num_samples for _, num_samples in segments)
    if len({name for name, _ in segments}) < len(segments) or sum(lengths) > MAX_GAP_FACTOR * max(held, 1):
        raise ValueError(
            f"{header.path}: expected every segment once, and gaps ('~') of at most {MAX_GAP_FACTOR} times the "
            f"{held} samples that there are, got {len(segments)} segments and {sum(lengths)} samples"
        )
    headers = []
    for name, announced in segments:
        segment = parse_header(header.path.parent / f"{name}.hea")
        if segment.segments or segment.sampling_rate != header.sampling_rate:
            raise ValueError(
                f"{segment.path}: expected one segment at {header.sampling_rate} Hz, as {header.path.name} "
                f"says, got {len(segment.segments)} segments at {segment.sampling_rate} Hz"
            )
        held = 0 if segment.is_layout else frames_of(segment)
        if held != announced:
            raise ValueError(f"{segment.path}: expected {announced} samples, as {header.path.name} says, got {held}")
        headers += [] if segment.is_layout else [segment]
    return headers


def _check_count(path: Path, num_leads: int, num_samples: int) -> None:
    if num_leads * num_samples > MAX_VALUES:
        raise ValueError(
            f"{path}: announces {num_samples} samples of {num_leads} leads; expected at most {MAX_VALUES} values in "
            f"one record: correct the header, or cut the recording into shorter records"
        )


def _check_one_file(header: WFDBHeader, lines: list[SignalLine]) -> None:
    """Signals of one file stand together in the header and share format and offset (header(5))."""
    first = lines[0]
    if first.fmt not in BLOCK_OF_FORMAT and first.fmt not in COMPRESSED_FORMATS:
        known = ", ".join([*BLOCK_OF_FORMAT, *COMPRESSED_FORMATS])
        raise ValueError(f"{header.path}: expected one of the signal formats {known}, got {first.fmt}")
    together = sum(line.file_name == first.file_name for line in header.signals) == len(lines)
    if not together or {(line.fmt, line.byte_offset) for line in lines} != {(first.fmt, first.byte_offset)}:
        raise ValueError(
            f"{header.path}: expected the signals of {first.file_name} on consecutive lines with one format and offset"
        )


def _frames_held(lines: list[SignalLine], size: int) -> int | None:
    """How many samples per lead the file holds by its size; None for compressed formats."""
    if lines[0].fmt not in BLOCK_OF_FORMAT:
        return None
    samples, num_bytes = BLOCK_OF_FORMAT[lines[0].fmt]
    return (size - lines[0].byte_offset) * samples // (num_bytes * sum(line.samples_per_frame for line in lines))


def _inferred_length(header: WFDBHeader, line: SignalLine, held: int | None) -> int:
    if held is None or held < 1:
        raise ValueError(
            f"{header.path}: does not say its number of samples, and the size of {line.file_name} does not tell it "
            f"either; add the number to the header's first line"
        )
    return held
