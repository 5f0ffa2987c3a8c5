"""The 12-lead page on ECG paper, in true size: 25 mm/s and 10 mm/mV on a grid of 1 and 5 mm.

    python -m modeling_esi.plotting record.hea --output page.png
    python -m modeling_esi.plotting record.dcm --output page.svg --layout 6x2 --paper_speed 50 --gain 20
    python -m modeling_esi.plotting record.hea --output page.png --model esi-ecg --target "Atrial fibrillation."

The page is one matplotlib axes whose unit is the millimetre, so a printed SVG or PDF, or a PNG at its own resolution,
can be measured with a ruler. Standards of the paper: AHA/ACC/HRS 2007, https://doi.org/10.1161/CIRCULATIONAHA.106.180200.
matplotlib's objects are used directly, not `pyplot`, which would keep figures and settings for the whole program.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .configuration_esi import LEADS
from .ecg_page import (
    CALIBRATION_MV,
    CALIBRATION_S,
    LAYOUTS,
    Page,
    Panel,
    Recording,
    Row,
    Scale,
    read_signal,
    rows_of_leads,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .attribution import Attribution

__all__ = ["BASELINES", "GAINS", "LAYOUTS", "PAPER_SPEEDS", "plot_ecg", "save_page"]

PAPER_SPEEDS = (12.5, 25.0, 50.0)  # mm/s
GAINS = (5.0, 10.0, 20.0)  # mm/mV
BASELINES = ("median", "zero")
DPI = 254  # ten pixels to the millimetre
MM_PER_INCH = 25.4
NAME_ABOVE, NAME_WIDTH, NAME_HEIGHT = 11.0, 9.0, 3.5  # a lead's name must be nearer to its own line than to others
_FONT = "DejaVu Sans"  # comes with matplotlib: the same page everywhere
_PINK = {"fine": "#f7d4d4", "bold": "#e8a0a0"}
_GREY = {"fine": "#e4e4e4", "bold": "#c2c2c2"}
_BLUE, _RED, _DENSEST = (0.13, 0.40, 0.67), (0.84, 0.15, 0.12), 0.65  # attribution: lowered, raised, opacity


def plot_ecg(
    signal: Any,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    *,
    layout: str | None = None,
    rhythm_leads: Sequence[str] | None = None,
    paper_speed: float = 25.0,
    gain: float = 10.0,
    start: float = 0.0,
    duration: float = 10.0,
    baseline: str = "median",
    title: str = "",
    attribution: Attribution | None = None,
) -> Figure:
    """Draw a record on ECG paper, in true size; nothing is filtered, and nothing says whose record it is.

    A row is as high as its leads need. Where a trace goes further than 60 mm from its baseline, it is cut there,
    marked, and the foot of the page says how far it goes. Samples that are missing (NaN) are gaps; a lead that is
    missing is named and left empty; other channels are named at the foot.

    Args:
        signal: a record (an object or a mapping with `signal`, `sampling_rate`, `leads`), or `(num_leads,
            num_samples)` in mV.
        sampling_rate: in Hz, where the record does not say it.
        leads: one name per row, where the record does not say them.
        layout: "3x4", "6x2", "12x1", or "rows" for each channel as recorded. By default "rows" where fewer than six
            of the twelve leads are there, else "3x4"; with an attribution "12x1", since the other two show only a
            part of each lead.
        rhythm_leads: drawn below over the whole time; by default II (or else the first lead) in "3x4", none in others.
        paper_speed: 12.5, 25 or 50 mm/s.
        gain: 5, 10 or 20 mm/mV.
        start, duration: which seconds are drawn; the columns of a layout share them.
        baseline: what lies on a row's line: "median" of each lead over the record, or "zero".
        title: a line above the page, such as a record's number. Empty: none.
        attribution: of `modeling_esi.attribution.attribute`, drawn as colours behind the traces, on grey paper.

    Returns:
        A figure whose size is the page's: A4 across, or what is needed; less high where there are few rows.

    Raises:
        ValueError: for options out of these, a signal that does not fit its leads, a lead that is there twice,
            a start behind the end, and a rhythm lead that was not recorded.

    >>> figure = plot_ecg(np.zeros((12, 5000)), 500, LEADS)
    >>> (figure.get_size_inches() * 25.4).round(3).tolist()
    [297.0, 210.0]
    """
    _check_options(paper_speed, gain, duration, baseline)
    recording = read_signal(signal, sampling_rate, leads, baseline)
    if not 0 <= start < recording.duration:
        raise ValueError(f"start: expected 0 to {recording.duration:g} s, where the record ends, got {start!r}.")
    scale = Scale(paper_speed, gain, start, duration)
    rows = rows_of_leads(recording, layout or _usual_layout(recording, attribution), rhythm_leads)
    page = Page.for_rows(recording, scale, rows, has_colour_bar=attribution is not None)
    axes = _blank_page(page)
    _draw_grid(axes, page, _PINK if attribution is None else _GREY)
    remarks = _remarks(page)
    if attribution is not None:
        remarks += _draw_attribution(axes, page, attribution)
    for row in page.rows:
        _draw_calibration(axes, page, row)
        for panel in row.panels:
            _draw_panel(axes, page, row, panel)
    _write_around(axes, page, title, remarks)
    return axes.figure


def _usual_layout(recording: Recording, attribution: Attribution | None) -> str:
    if sum(lead in recording.channels for lead in LEADS) < 6:
        return "rows"
    return "3x4" if attribution is None else "12x1"


def save_page(figure: Figure, path: str | PathLike[str], dpi: float = DPI) -> Path:
    """Write a page as PNG, SVG or PDF, by the path's ending; the same figure gives the same bytes.

    `dpi`, pixels per inch of a PNG, is written into it, so that it prints in true size. Raises ValueError for another
    ending. Returns the path.
    """
    import matplotlib

    metadata: dict[str, dict[str, None]] = {
        ".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None},
    }  # fmt: skip
    path = Path(path)
    if path.suffix.lower() not in metadata:
        raise ValueError(f"path: expected an ending of {', '.join(metadata)}, got {path.name!r}.")
    with matplotlib.rc_context({"svg.hashsalt": "esi-ecg", "svg.fonttype": "none", "savefig.bbox": None}):
        figure.savefig(path, dpi=dpi, metadata=metadata[path.suffix.lower()])
    return path


# ----- drawing -------------------------------------------------------------------------------------------------------


def _blank_page(page: Page) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(page.width / MM_PER_INCH, page.height / MM_PER_INCH), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(0, page.height))
    axes.set_axis_off()
    return axes


def _width_in_points(millimetres: float) -> float:
    return millimetres / MM_PER_INCH * 72


def _draw_grid(axes: Axes, page: Page, colours: Mapping[str, str]) -> None:
    left, bottom, right, top = page.grid
    for step, kind, width in ((1, "fine", 0.1), (5, "bold", 0.2)):
        lines = [((x, bottom), (x, top)) for x in np.arange(left, right + 0.5, step)]
        lines += [((left, y), (right, y)) for y in np.arange(bottom, top + 0.5, step)]
        _draw_lines(axes, lines, f"grid-{step}mm", colours[kind], width, step / 10)


def _draw_lines(
    axes: Axes, lines: Sequence[Sequence[tuple[float, float]]], name: str, colour: str, width: float, zorder: float
) -> None:
    """Polylines as one path, which an SVG holds as one element with this name; `width` in mm."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    codes = [code for line in lines for code in (Outline.MOVETO, *[Outline.LINETO] * (len(line) - 1))]
    outline = Outline([point for line in lines for point in line], codes)
    axes.add_patch(
        PathPatch(outline, fill=False, edgecolor=colour, linewidth=_width_in_points(width), gid=name, zorder=zorder)
    )


def _draw_calibration(axes: Axes, page: Page, row: Row) -> None:
    """1 mV for 200 ms, as this page draws it."""
    left, foot = row.panels[0].left - 12.5, row.baseline
    head, wide = foot + CALIBRATION_MV * page.scale.gain, CALIBRATION_S * page.scale.paper_speed
    flat = min(2.5, (12.0 - wide) / 2)
    x = np.cumsum([left, flat, 0, wide, 0, flat])
    points = list(zip(x, (foot, foot, head, head, foot, foot), strict=True))
    _draw_lines(axes, [points], "calibration", "black", 0.25, 3)


def _draw_panel(axes: Axes, page: Page, row: Row, panel: Panel) -> None:
    if panel is not row.panels[0]:
        ticks = [((panel.left, row.baseline + a), (panel.left, row.baseline + b)) for a, b in ((3, 7), (-7, -3))]
        _draw_lines(axes, ticks, "separator", "0.5", 0.25, 3)  # not black, like the trace: it would be a spike of it
    x, y = page.trace(panel)
    _write(axes, panel.left + 1, row.baseline + _foot_of_name(row, panel, x, y), panel.lead, 9, weight="bold")
    if not np.isfinite(y).any():
        ended = page.recording.has(panel.lead)
        reason = "no samples here" if ended else "not recorded"
        _write(axes, panel.left + 4, row.baseline + 1, reason, 7, colour="0.45")
        return
    axes.plot(
        x, row.baseline + np.clip(y, -row.below, row.above), color="black", linewidth=_width_in_points(0.25),
        gid=f"trace-{panel.lead}", zorder=4, solid_joinstyle="round",
    )  # fmt: skip
    for beyond, edge, points_to in ((y > row.above, row.above, 1), (y < -row.below, -row.below, -1)):
        for middle in _middles_of_runs(beyond, x):
            _mark_cut(axes, middle, row.baseline + edge, points_to)


def _foot_of_name(row: Row, panel: Panel, x: np.ndarray, y: np.ndarray) -> float:
    """How far above the baseline a lead's name stands: above the trace there, as far as the row reaches."""
    beside = y[(x < panel.left + NAME_WIDTH) & np.isfinite(y)]
    return min(max(NAME_ABOVE, beside.max(initial=0) + 1), row.above - NAME_HEIGHT)


def _middles_of_runs(holds: np.ndarray, x: np.ndarray) -> list[float]:
    ends = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(int)))
    return [(x[first] + x[behind - 1]) / 2 for first, behind in ends.reshape(-1, 2)]


def _mark_cut(axes: Axes, x: float, edge: float, points_to: int) -> None:
    """A triangle at the edge of the row, pointing to where the trace went."""
    from matplotlib.patches import Polygon

    corners = [(x - 1, edge - 2 * points_to), (x + 1, edge - 2 * points_to), (x, edge)]
    axes.add_patch(Polygon(corners, closed=True, facecolor="red", edgecolor="none", gid="cut", zorder=5))


# ----- attribution ---------------------------------------------------------------------------------------------------


def _draw_attribution(axes: Axes, page: Page, attribution: Attribution) -> list[str]:
    """Colour the windows behind the traces; returns a remark where the largest value is not on the page."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    sizes = np.nan_to_num(np.abs(attribution.values))
    ramp = [(*_BLUE, _DENSEST), (*_BLUE, 0.0), (*_RED, 0.0), (*_RED, _DENSEST)]  # clear where nothing was added
    stops = list(zip((0, 0.5, 0.5, 1), ramp, strict=True))
    colours = LinearSegmentedColormap.from_list("attribution", stops, N=257)  # odd: one of them is 0
    largest = sizes.max() or 1.0
    mappable = ScalarMappable(Normalize(-largest, largest), colours)
    drawn = np.zeros(sizes.shape, dtype=bool)
    for row in page.rows:
        for panel in row.panels:
            for channel, number, left, wide in _windows_of(panel, attribution, page.scale.paper_speed):
                drawn[channel, number] = True
                axes.add_patch(
                    Rectangle((left, row.baseline - row.below), wide, row.above + row.below, linewidth=0,
                              facecolor=mappable.to_rgba(attribution.values[channel, number]),
                              gid=f"attribution-{panel.lead}", zorder=2)
                )  # fmt: skip
    _draw_colour_bar(axes, page, mappable, attribution)
    if sizes.max() <= np.max(sizes, where=drawn, initial=0.0):
        return []
    channel, number = np.unravel_index(sizes.argmax(), sizes.shape)
    return [f"largest value not on this page: {attribution.leads[channel]} at {number * attribution.window:g} s"]


def _windows_of(panel: Panel, attribution: Attribution, paper_speed: float) -> list[tuple[int, int, float, float]]:
    """The windows on a panel: row and column in `values`, left end and width in mm."""
    if panel.lead not in attribution.leads:
        return []
    channel, found = attribution.leads.index(panel.lead), []
    for number in np.flatnonzero(np.isfinite(attribution.values[channel])):
        begins = max(number * attribution.window, panel.start)
        ends = min((number + 1) * attribution.window, attribution.duration, panel.start + panel.duration)
        if ends - begins > 1e-9:
            left = panel.left + (begins - panel.start) * paper_speed
            found.append((channel, number, left, (ends - begins) * paper_speed))
    return found


def _draw_colour_bar(axes: Axes, page: Page, mappable: Any, attribution: Attribution) -> None:
    left, bottom, right, _ = page.grid
    rectangle = ((right - 70) / page.width, (bottom - 7) / page.height, 70 / page.width, 3 / page.height)
    bar = axes.figure.colorbar(mappable, cax=axes.figure.add_axes(rectangle), orientation="horizontal")
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label("added to the score (blue lowered it, red raised it)", fontsize=6.5, fontfamily=_FONT, labelpad=1)
    how = f"{attribution.method.replace('_', ' ')}, windows of {attribution.window:g} s"
    _write(axes, left, bottom - 11, f"score {attribution.score:.3g} of: {attribution.target}   ({how})", 8)


# ----- what is written -----------------------------------------------------------------------------------------------


def _write(axes: Axes, x: float, y: float, text: str, size: float, colour: str = "black", **style: Any) -> None:
    # without parse_math a name with two dollar signs would become a formula
    axes.text(x, y, text, fontsize=size, color=colour, family=_FONT, zorder=6, parse_math=False, **style)


def _write_around(axes: Axes, page: Page, title: str, remarks: Sequence[str]) -> None:
    left, bottom, _, top = page.grid
    scale, recording = page.scale, page.recording
    ends = min(scale.start + scale.duration, recording.duration)
    facts = [
        f"{scale.paper_speed:g} mm/s", f"{scale.gain:g} mm/mV", "filter: none",
        f"{recording.sampling_rate:g} Hz", f"{scale.start:g} to {ends:g} s of {recording.duration:g} s",
    ]  # fmt: skip
    _write(axes, left, top + 2, "    ".join(facts), 8)
    _write(axes, left, top + 7, title, 10, weight="bold")
    _write(axes, left, bottom - 5, "    ".join(remarks), 7, colour="0.25")


def _remarks(page: Page) -> list[str]:
    """What a reader must know of what is not on the page."""
    drawn = {panel.lead for row in page.rows for panel in row.panels}
    others = [lead for lead in page.recording.channels if lead not in drawn]
    line = "0 mV" if page.recording.baseline == "zero" else "each lead's median over the record"
    remarks = [f"level with the foot of the calibration mark: {line}"]
    remarks += [f"not on this page: {', '.join(others)}"] if others else []
    for row in page.rows:
        for panel in row.panels:
            y = page.trace(panel)[1]
            if (y > row.above).any() or (y < -row.below).any():
                low, high = np.nanmin(y) / page.scale.gain, np.nanmax(y) / page.scale.gain
                remarks.append(f"{panel.lead} cut where marked, goes from {low:.1f} to {high:.1f} mV")
    return list(dict.fromkeys(remarks))


# ----- options and command line --------------------------------------------------------------------------------------


def _check_options(paper_speed: float, gain: float, duration: float, baseline: str) -> None:
    given = {"paper_speed": (paper_speed, PAPER_SPEEDS), "gain": (gain, GAINS), "baseline": (baseline, BASELINES)}
    for name, (value, choices) in given.items():
        if value not in choices:
            listed = ", ".join(str(choice) for choice in choices)
            raise ValueError(f"{name}: expected one of {listed}, got {value!r}.")
    if not 0 < duration <= 60:
        raise ValueError(f"duration: expected up to 60 s on one page, got {duration!r}: draw several pages.")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 if the page was written, 1 with one sentence on stderr if not."""
    arguments = _parse(argv)
    try:
        path = _draw_file(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Wrote {path}\n")
    return 0


def _draw_file(arguments: argparse.Namespace) -> Path:
    from datasets_scripts.records import read_record

    described = {"sampling_rate": arguments.sampling_rate, "leads": arguments.leads, "unit": arguments.unit}
    record = read_record(arguments.file, **described)
    figure = plot_ecg(
        record,
        layout=arguments.layout,
        rhythm_leads=arguments.rhythm_leads,
        paper_speed=arguments.paper_speed,
        gain=arguments.gain,
        start=arguments.start,
        duration=arguments.duration,
        baseline=arguments.baseline,
        title=arguments.title,
        attribution=_attribution(record, arguments) if arguments.model else None,
    )
    return save_page(figure, arguments.output, arguments.dpi)


def _attribution(record: Any, arguments: argparse.Namespace) -> Attribution:
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor

    from .attribution import attribute

    if arguments.target is None:
        raise ValueError("--target: expected a sentence or a label with --model, got none.")
    config = AutoConfig.from_pretrained(arguments.model)
    is_classifier = "ESIForECGClassification" in (config.architectures or [])
    model = (AutoModelForSequenceClassification if is_classifier else AutoModel).from_pretrained(arguments.model)
    processor = AutoProcessor.from_pretrained(arguments.model)
    return attribute(model, processor, record, arguments.target, arguments.method, window=arguments.window)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modeling_esi.plotting", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", help="WFDB, DICOM, HL7 aECG, MUSE XML, EDF, CSV or .npy")
    parser.add_argument("--output", required=True, help="page to write: .png, .svg or .pdf")
    parser.add_argument("--layout", choices=[*LAYOUTS, "rows"], help="default: 3x4; rows for fewer than six leads")
    parser.add_argument("--rhythm_leads", nargs="*", help="drawn below over the whole time; default: II in 3x4")
    parser.add_argument("--paper_speed", type=float, choices=PAPER_SPEEDS, default=25.0, help="mm/s")
    parser.add_argument("--gain", type=float, choices=GAINS, default=10.0, help="mm/mV")
    parser.add_argument("--start", type=float, default=0.0, help="first second that is drawn")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds that are drawn")
    parser.add_argument("--baseline", choices=BASELINES, default="median", help="what lies on the line of a row")
    parser.add_argument("--title", default="", help="line above the page; default: none")
    parser.add_argument("--dpi", type=float, default=DPI, help="pixels per inch of a PNG")
    parser.add_argument("--sampling_rate", type=float, help="Hz, for files that do not say it")
    parser.add_argument("--leads", nargs="+", help="names, for files that do not say them")
    parser.add_argument("--unit", help="mV, uV, ..., for files that do not say it")
    parser.add_argument("--model", help="folder or name on the Hub: draw what raised its score of --target")
    parser.add_argument("--target", help="sentence, or label of a classifier")
    parser.add_argument("--method", default="occlusion", help="occlusion, gradient or integrated_gradients")
    parser.add_argument("--window", type=float, default=1.0, help="seconds of a window of the attribution")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
