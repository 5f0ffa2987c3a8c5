"""What stands where on an ECG page: which leads in which row, and millimetres from the page's lower left corner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .configuration_esi import LEADS
from .lead_names import parse_lead_name
from .recordings import check_rate

LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "3x4": (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6")),
    "6x2": tuple(zip(LEADS[:6], LEADS[6:], strict=True)),
    "12x1": tuple((lead,) for lead in LEADS),
}
"""Rows of leads on the page; columns follow each other in time. A fourth layout, "rows", is what was recorded."""

CALIBRATION_MV, CALIBRATION_S = 1.0, 0.2  # the calibration mark: a millivolt for 200 ms

A4 = (297.0, 210.0)  # in mm, as all that follows
ROWS_OF_A_FULL_PAGE = 4  # a page with fewer is as high as they are
HEADER, FOOTER, FOOTER_WITH_COLOUR_BAR = 15.0, 10.0, 25.0
LEFT_OF_SIGNAL, RIGHT_OF_SIGNAL, MARGIN = 15.0, 5.0, 10.0
ROOM_OF_A_ROW = {3: (20.0, 20.0), 4: (20.0, 20.0), 6: (15.0, 10.0), 7: (15.0, 10.0)}  # by the number of rows
LEAST_ROOM = (10.0, 5.0)  # above and below the baseline
FURTHEST = 60.0  # from the baseline; what goes further is cut there, and marked


# ----- what is drawn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """Signals `(num_leads, num_samples)` in mV above their baselines, with the channel of each lead."""

    signal: np.ndarray
    sampling_rate: float
    channels: dict[str, int]
    baseline: str

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.signal.shape[1] / self.sampling_rate

    def has(self, lead: str) -> bool:
        """Whether a lead has any sample."""
        return lead in self.channels and bool(np.isfinite(self.signal[self.channels[lead]]).any())


def read_signal(signal: Any, sampling_rate: Any, leads: Any, baseline: str) -> Recording:
    """A record, or an array with its rate and leads, checked; the arguments are those of `plot_ecg`.

    Raises ValueError for a signal that does not fit its leads, a lead that is there twice, and a rate that is none.
    """
    if isinstance(signal, Mapping) or hasattr(signal, "leads"):
        if sampling_rate is not None or leads is not None:
            raise ValueError("sampling_rate, leads: expected them in the record or in the call, got both: leave out.")
        get = signal.get if isinstance(signal, Mapping) else lambda name: getattr(signal, name, None)
        signal, sampling_rate, leads = get("signal"), get("sampling_rate"), get("leads")
    if hasattr(signal, "detach"):
        signal = signal.detach().cpu()
    values = np.array(signal, dtype=np.float64)  # a copy: it is changed below
    if leads is None or values.ndim != 2 or len(values) != len(leads) or values.size == 0:
        raise ValueError(
            f"signal: expected (num_leads, num_samples) in mV and one name per lead, got shape {values.shape} and "
            f"leads {None if leads is None else list(leads)}. A stored row becomes a record by row_to_record."
        )
    values[~np.isfinite(values)] = np.nan
    if baseline == "median":
        recorded = np.isfinite(values).any(axis=1)
        values[recorded] -= np.nanmedian(values[recorded], axis=1, keepdims=True)
    return Recording(values, check_rate(sampling_rate), _channels(leads), baseline)


def _channels(leads: Sequence[str]) -> dict[str, int]:
    channels: dict[str, int] = {}
    for channel, spelled in enumerate(leads):
        lead = parse_lead_name(spelled) or spelled
        if lead in channels:
            raise ValueError(f"leads: expected each lead once, got {lead} twice in {list(leads)}: keep one.")
        channels[lead] = channel
    return channels


def rows_of_leads(recording: Recording, layout: str, rhythm: Sequence[str] | None) -> list[tuple[str, ...]]:
    """The leads of each row of the page, rhythm strips last; arguments as in `plot_ecg`.

    Raises ValueError for another layout, and a rhythm lead without samples.
    """
    if layout not in (*LAYOUTS, "rows"):
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)} or rows, got {layout!r}.")
    rows = LAYOUTS.get(layout, tuple((lead,) for lead in recording.channels))
    if rhythm is None:
        there = [lead for lead in ("II", *recording.channels) if recording.has(lead)]
        rhythm = there[:1] if layout == "3x4" else []
    rhythm = [rhythm] if isinstance(rhythm, str) else rhythm
    strips = [parse_lead_name(lead) or lead for lead in rhythm]
    unknown = [lead for lead in strips if not recording.has(lead)]
    if unknown:
        raise ValueError(f"rhythm_leads: expected some of {', '.join(recording.channels)}, got {', '.join(unknown)}.")
    return [*rows, *((lead,) for lead in strips)]


# ----- where it is drawn: millimetres from the page's lower left corner ----------------------------------------------


@dataclass(frozen=True)
class Scale:
    """How seconds and millivolts become millimetres, and which seconds are drawn."""

    paper_speed: float
    gain: float
    start: float
    duration: float


@dataclass(frozen=True)
class Panel:
    """One lead over some seconds, its left end at `left` mm."""

    lead: str
    left: float
    start: float
    duration: float


@dataclass(frozen=True)
class Row:
    """Panels on one `baseline` (mm), and how far they reach above and below it."""

    panels: tuple[Panel, ...]
    above: float
    below: float
    baseline: float


@dataclass(frozen=True)
class Page:
    """Size and rows of a page; `grid` is left, bottom, right, top of the paper on it."""

    width: float
    height: float
    grid: tuple[float, float, float, float]
    rows: tuple[Row, ...]
    recording: Recording
    scale: Scale

    @classmethod
    def for_rows(cls, recording: Recording, scale: Scale, rows: list[tuple[str, ...]], has_colour_bar: bool) -> Page:
        """The page with room for all rows: the first at the top, each as high as its traces."""
        footer = FOOTER_WITH_COLOUR_BAR if has_colour_bar else FOOTER
        across = LEFT_OF_SIGNAL + 5 * math.ceil(scale.duration * scale.paper_speed / 5 - 1e-9) + RIGHT_OF_SIGNAL
        width = max(A4[0], across + 2 * MARGIN)
        left = (width - across) / 2
        panels = [_panels(leads, left + LEFT_OF_SIGNAL, scale) for leads in rows]
        reaches = [_reach(recording, scale, of_row, len(rows)) for of_row in panels]
        down = sum(above + below for above, below in reaches)
        height = max(A4[1] if len(rows) >= ROWS_OF_A_FULL_PAGE else 0, HEADER + down + footer)
        bottom = footer + (height - HEADER - footer - down) / 2
        placed, top = [], bottom + down
        for of_row, (above, below) in zip(panels, reaches, strict=True):
            placed.append(Row(of_row, above, below, top - above))
            top -= above + below
        return cls(width, height, (left, bottom, left + across, bottom + down), tuple(placed), recording, scale)

    def trace(self, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
        """A panel's samples: mm from the page's left edge, mm above the baseline (not cut)."""
        return _trace(self.recording, self.scale, panel)


def _panels(leads: tuple[str, ...], left: float, scale: Scale) -> tuple[Panel, ...]:
    each = scale.duration / len(leads)
    return tuple(
        Panel(lead, left + place * each * scale.paper_speed, scale.start + place * each, each)
        for place, lead in enumerate(leads)
    )


def _trace(recording: Recording, scale: Scale, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    if panel.lead not in recording.channels:
        return np.zeros(0), np.zeros(0)
    rate = recording.sampling_rate
    first = math.ceil(panel.start * rate - 1e-6)
    last = math.floor((panel.start + panel.duration) * rate + 1e-6)  # shared with the next panel: no gap between
    values = recording.signal[recording.channels[panel.lead], first : last + 1]
    time = np.arange(first, first + len(values)) / rate
    return panel.left + (time - panel.start) * scale.paper_speed, values * scale.gain


def _reach(recording: Recording, scale: Scale, panels: tuple[Panel, ...], num_rows: int) -> tuple[float, float]:
    """Millimetres above and below the baseline that a row needs, in steps of 5, `FURTHEST` at most."""
    traces = [_trace(recording, scale, panel)[1] for panel in panels]
    values = np.concatenate([np.zeros(1), *(trace[np.isfinite(trace)] for trace in traces)])
    least_above, least_below = ROOM_OF_A_ROW.get(num_rows, LEAST_ROOM)
    least_above = max(least_above, scale.gain * CALIBRATION_MV)

    def in_steps(reach: float) -> float:
        return min(FURTHEST, 5 * math.ceil(reach / 5 - 1e-9))

    return max(least_above, in_steps(values.max())), max(least_below, in_steps(-values.min()))
