"""What a WFDB header says: its text, read strictly; nothing that it names is opened here.

A header is text from outside that names files to open and sizes to allocate. It is parsed by the grammar of header(5)
(https://physionet.org/physiotools/wag/header-5.htm), narrowed to what the `wfdb` package reads the same way, so that
the two can never disagree about a name or a size.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

MAX_HEADER_BYTES = 2**20
MAX_LEADS = 256
MAX_SEGMENTS = 10_000
LONGEST_NAME = 200
DEFAULT_GAIN = 200.0  # header(5): a gain of zero or none means 200 units per physical unit

SMALLEST_GAIN, LARGEST_GAIN = 1e-20, 1e20  # in units per physical unit; float32 holds every millivolt in between

# every repetition is bounded or followed by what it cannot match itself: no text makes them slow
_RECORD_NAME = re.compile(r"[-\w]+(?:\.mat|/(\d{1,18}))?", re.ASCII)  # some Challenge sets write the name with .mat
_NUMBER = r"(?:\d{1,18}(?:\.\d{0,30})?|\.\d{1,30})"
_RATE = re.compile(rf"({_NUMBER})(?:/-?{_NUMBER}(?:\(-?{_NUMBER}\))?)?", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_SEGMENT_NAME = re.compile(r"~|[-\w]+", re.ASCII)
_FILE_NAME = r"~|[-\w]+(?:\.\w+)?"
_FORMAT = r"(\d{1,4})(?:x(\d{1,9}))?(?::(\d{1,18}))?(?:\+(\d{1,18}))?"
_GAIN = rf"(-?{_NUMBER}(?:e[+-]?\d{{1,3}})?)(?:\((-?\d{{1,12}})\))?(?:/(\S{{1,40}}))?"
# ADC resolution, ADC zero, initial value, checksum, block size: each only after the one before
_INTEGERS = "".join(r"(?:\s+(-?\d{1,18})(?!\S)" for _ in range(5)) + ")?" * 5
_SIGNAL_LINE = re.compile(
    rf"({_FILE_NAME})\s+{_FORMAT}(?:\s+{_GAIN}(?!\S){_INTEGERS}(?:\s+(.*))?)?", re.ASCII | re.DOTALL
)
_LONG_INTEGER = re.compile(r"-?\d{19,}(?!\S)", re.ASCII)


class SignalLine(NamedTuple):
    """One signal line: where the samples are; `physical = (digital - baseline) / gain` in `unit` (None: not said).

    `checksum` is the sum of all its samples modulo 65536, with or without sign; None where the header does not say it.
    """

    file_name: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str | None
    name: str
    initial_value: int | None = None
    checksum: int | None = None


@dataclass(frozen=True)
class WFDBHeader:
    """One header file. `num_samples` is None where the header leaves the length to the file's size.

    `segments` are (record name, number of samples) of a record in several segments, which then has no signal lines.
    """

    path: Path
    sampling_rate: float
    num_leads: int
    num_samples: int | None
    signals: tuple[SignalLine, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()
    comments: tuple[str, ...] = ()

    @property
    def is_layout(self) -> bool:
        """Whether it only names the leads of a variable-layout record (no samples)."""
        return self.num_samples == 0 and all(line.file_name == "~" for line in self.signals)


def parse_header(path: Path) -> WFDBHeader:
    """The fields of one header file. Raises ValueError where the text is not a header that can be read safely."""
    check_own_file(path)
    text = _header_text(path)
    # the line ends of str.splitlines on ASCII, as wfdb splits
    stripped = [line.strip() for line in re.split(r"\r\n|[\n\r\v\f\x1c-\x1e]", text)]
    lines = [line for line in stripped if line and not line.startswith("#")]
    comments = tuple(line.strip(" \t#") for line in stripped if line.startswith("#"))
    if not lines:
        raise ValueError(f"{path}: expected a WFDB header, got a file without a record line")
    num_segments, num_leads, rate, num_samples = _record_line(path, lines[0])
    if num_segments is not None:
        segments = _segment_lines(path, lines[1:], num_segments)
        return WFDBHeader(path, rate, num_leads, num_samples, segments=segments, comments=comments)
    if len(lines) - 1 != num_leads:
        raise ValueError(f"{path}: expected {num_leads} signal lines, as its first line says, got {len(lines) - 1}")
    signals = tuple(_signal_line(path, number, line) for number, line in enumerate(lines[1:], start=1))
    return WFDBHeader(path, rate, num_leads, num_samples, signals=signals, comments=comments)


def check_own_file(path: Path) -> int:
    """The size in bytes of a plain file that really lies in its own folder; nothing is opened.

    Raises FileNotFoundError if it is missing; ValueError for a link that leads outside, a folder, a pipe or a device.
    """
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
                raise ValueError(
                    f"{path}: is a link that leads outside its own folder and is not followed; copy the file here"
                )
            status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path}: no such file; copy it into this folder, or give another path") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: expected a plain file, got a folder, pipe or device")
    return status.st_size


def _header_text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_HEADER_BYTES + 1)
    if len(raw) > MAX_HEADER_BYTES:
        raise ValueError(f"{path}: expected a header of at most {MAX_HEADER_BYTES} bytes, got a larger file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # never fails; old headers write the micro sign so


def _record_line(path: Path, line: str) -> tuple[int | None, int, float, int | None]:
    """(number of segments, number of leads, sampling rate, number of samples) of the first line."""
    fields = line.split()
    name = _RECORD_NAME.fullmatch(fields[0])
    if name is None or len(fields) < 2 or not _COUNT.fullmatch(fields[1]):
        raise ValueError(
            f"{path}: expected 'name number_of_leads sampling_rate ...' in its first line, got {line[:80]!r}"
        )
    num_leads = int(fields[1])
    if not 0 < num_leads <= MAX_LEADS:
        raise ValueError(f"{path}: expected 1 to {MAX_LEADS} leads, got {num_leads}")
    rate = _RATE.fullmatch(fields[2]) if len(fields) > 2 else None
    if rate is None or not 0 < float(rate[1]) < 1e6:
        got = fields[2][:40] if len(fields) > 2 else "none"
        raise ValueError(f"{path}: expected a positive sampling rate in Hz, got {got}; correct the header's first line")
    if len(fields) > 3 and not _COUNT.fullmatch(fields[3]):
        raise ValueError(f"{path}: expected a number of samples, got {fields[3][:40]!r}")
    num_segments = None if name[1] is None else int(name[1])
    return num_segments, num_leads, float(rate[1]), int(fields[3]) if len(fields) > 3 else None


def _signal_line(path: Path, number: int, line: str) -> SignalLine:
    match = _SIGNAL_LINE.fullmatch(line)
    if match is None:
        _explain(path, number, line)
    file_name, fmt, per_frame, skew, byte_offset, gain_text, baseline, unit, *rest = match.groups()
    resolution, adc_zero, initial_value, checksum, _, name = rest
    gain = float(gain_text or 0) or DEFAULT_GAIN
    if not SMALLEST_GAIN <= abs(gain) <= LARGEST_GAIN:
        raise ValueError(
            f"{path}: expected a gain between {SMALLEST_GAIN:g} and {LARGEST_GAIN:g} in signal line {number}, "
            f"got {gain_text[:40]}"
        )
    if per_frame is not None and int(per_frame) < 1:
        raise ValueError(
            f"{path}: expected a signal format such as 16 or 212 in signal line {number}, got {line[:80]!r}"
        )
    if resolution is not None and int(resolution) < 0:
        raise ValueError(f"{path}: expected an ADC resolution in bits in signal line {number}, got {resolution}")
    if name and rest[4] is None and _LONG_INTEGER.match(name):
        raise ValueError(f"{path}: expected integers of at most 18 digits in signal line {number}, got {name[:40]!r}")
    if name and (len(name) > LONGEST_NAME or not name.replace("\t", " ").isprintable()):
        raise ValueError(
            f"{path}: expected a lead's name of at most {LONGEST_NAME} printable characters in signal line {number}, "
            f"got {name[:40]!r}"
        )
    return SignalLine(
        file_name=file_name,
        fmt=fmt,
        samples_per_frame=int(per_frame or 1),
        skew=int(skew or 0),
        byte_offset=int(byte_offset or 0),
        gain=gain,
        baseline=int(baseline or adc_zero or 0),  # header(5): the baseline defaults to the ADC zero
        unit=unit,
        name=name or f"signal {number}",
        initial_value=None if initial_value is None else int(initial_value),
        checksum=None if checksum is None else int(checksum),
    )


def _explain(path: Path, number: int, line: str) -> NoReturn:
    """Raise the ValueError that says which part of a signal line is not what it should be."""
    file_name, *fields = line.split(maxsplit=2)
    if not re.fullmatch(_FILE_NAME, file_name, re.ASCII):
        raise ValueError(
            f"{path}: expected the plain name of a signals file in the header's own folder, got {file_name[:80]!r}; "
            f"nothing outside that folder is opened"
        )
    if not fields or not re.fullmatch(_FORMAT, fields[0], re.ASCII):
        raise ValueError(
            f"{path}: expected a signal format such as 16 or 212 in signal line {number}, got {line[:80]!r}"
        )
    got = fields[1].split(maxsplit=1)[0][:40] if len(fields) > 1 else line[:80]
    raise ValueError(f"{path}: expected gain(baseline)/unit in signal line {number}, got {got!r}")


def _segment_lines(path: Path, lines: list[str], num_segments: int) -> tuple[tuple[str, int], ...]:
    if not 0 < num_segments <= MAX_SEGMENTS or len(lines) != num_segments:
        raise ValueError(
            f"{path}: expected 1 to {MAX_SEGMENTS} segments, one line each, got {num_segments} announced, "
            f"{len(lines)} lines"
        )
    segments = []
    for line in lines:
        fields = line.split()
        plain = len(fields) == 2 and _SEGMENT_NAME.fullmatch(fields[0])
        if not plain or not _COUNT.fullmatch(fields[1]):
            raise ValueError(
                f"{path}: expected the plain name of a record in the header's own folder and its number of samples, "
                f"got {line[:80]!r}; nothing outside that folder is opened"
            )
        segments.append((fields[0], int(fields[1])))
    return tuple(segments)
