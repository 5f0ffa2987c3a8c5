"""What a WFDB header says: its text, read strictly; nothing that it names is opened here.

A header is text from outside that names files to open and sizes to allocate. It is parsed by the grammar of header(5)
(https://physionet.org/physiotools/wag/header-5.htm), narrowed to what the `wfdb` package reads the same way, so that
the two can never disagree about a name or a size.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

MAX_HEADER_BYTES = 2**20
MAX_LEADS = 256
MAX_SEGMENTS = 10_000
DEFAULT_GAIN = 200.0  # header(5): a gain of zero or none means 200 units per physical unit

_FLAGS = re.ASCII
_RECORD_NAME = re.compile(r"([-\w]+)(?:/(\d{1,18}))?", _FLAGS)
_RATE = re.compile(r"(\d+\.?\d*|\.\d+)(?:/-?\d+\.?\d*(?:\(-?\d+\.?\d*\))?)?", _FLAGS)
_COUNT = re.compile(r"\d{1,18}", _FLAGS)
_INTEGER = re.compile(r"-?\d{1,18}", _FLAGS)
_FORMAT = re.compile(r"(\d{1,4})(?:x(\d{1,9}))?(?::(\d{1,18}))?(?:\+(\d{1,18}))?", _FLAGS)
_GAIN = re.compile(r"(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)(?:\((-?\d{1,12})\))?(?:/(\S+))?", _FLAGS)
_FILE_NAME = re.compile(r"[-\w]+(?:\.\w+)?", _FLAGS)


@dataclass(frozen=True)
class SignalLine:
    """One signal line: where the samples are; `physical = (digital - baseline) / gain` in `unit` (None: not said)."""

    file_name: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str | None
    name: str


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
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; copy it into this folder, or give another path")
    if path.resolve().parent != path.parent.resolve():
        raise ValueError(f"{path}: is a link that leads outside its own folder and is not followed; copy the file here")
    status = path.stat()
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
        got = fields[2] if len(fields) > 2 else "none"
        raise ValueError(f"{path}: expected a positive sampling rate in Hz, got {got}; correct the header's first line")
    if len(fields) > 3 and not _COUNT.fullmatch(fields[3]):
        raise ValueError(f"{path}: expected a number of samples, got {fields[3][:40]!r}")
    num_segments = None if name[2] is None else int(name[2])
    return num_segments, num_leads, float(rate[1]), int(fields[3]) if len(fields) > 3 else None


def _signal_line(path: Path, number: int, line: str) -> SignalLine:
    fields = line.split(maxsplit=2)
    file_name = fields[0]
    if file_name != "~" and not _FILE_NAME.fullmatch(file_name):
        raise ValueError(
            f"{path}: expected the plain name of a signals file in the header's own folder, got {file_name[:80]!r}; "
            f"nothing outside that folder is opened"
        )
    layout = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
    if layout is None or int(layout[2] or 1) < 1:
        raise ValueError(
            f"{path}: expected a signal format such as 16 or 212 in signal line {number}, got {line[:80]!r}"
        )
    gain, baseline, unit, name = _calibration(path, number, fields[2] if len(fields) > 2 else "")
    return SignalLine(
        file_name=file_name,
        fmt=layout[1],
        samples_per_frame=int(layout[2] or 1),
        skew=int(layout[3] or 0),
        byte_offset=int(layout[4] or 0),
        gain=gain,
        baseline=baseline,
        unit=unit,
        name=name or f"signal {number}",
    )


def _calibration(path: Path, number: int, rest: str) -> tuple[float, int, str | None, str]:
    """(gain, baseline, unit, name) of what follows the format: gain, five optional integers, free text."""
    fields = rest.split(maxsplit=1)
    if not fields:
        return DEFAULT_GAIN, 0, None, ""
    match = _GAIN.fullmatch(fields[0])
    if match is None or not isfinite(float(match[1])):
        raise ValueError(f"{path}: expected gain(baseline)/unit in signal line {number}, got {fields[0][:40]!r}")
    rest, integers = (fields[1] if len(fields) > 1 else ""), []
    while len(integers) < 5 and rest and _INTEGER.fullmatch(rest.split(maxsplit=1)[0]):
        integer, *remainder = rest.split(maxsplit=1)
        integers.append(int(integer))
        rest = remainder[0] if remainder else ""
    if integers and integers[0] < 0:
        raise ValueError(f"{path}: expected an ADC resolution in bits in signal line {number}, got {integers[0]}")
    adc_zero = integers[1] if len(integers) > 1 else 0
    baseline = adc_zero if match[2] is None else int(match[2])  # header(5): the baseline defaults to the ADC zero
    return float(match[1]) or DEFAULT_GAIN, baseline, match[3], rest.strip()


def _segment_lines(path: Path, lines: list[str], num_segments: int) -> tuple[tuple[str, int], ...]:
    if not 0 < num_segments <= MAX_SEGMENTS or len(lines) != num_segments:
        raise ValueError(
            f"{path}: expected 1 to {MAX_SEGMENTS} segments, one line each, got {num_segments} announced, "
            f"{len(lines)} lines"
        )
    segments = []
    for line in lines:
        fields = line.split()
        plain = len(fields) == 2 and (fields[0] == "~" or re.fullmatch(r"[-\w]+", fields[0], _FLAGS))
        if not plain or not _COUNT.fullmatch(fields[1]):
            raise ValueError(
                f"{path}: expected the plain name of a record in the header's own folder and its number of samples, "
                f"got {line[:80]!r}; nothing outside that folder is opened"
            )
        segments.append((fields[0], int(fields[1])))
    return tuple(segments)
