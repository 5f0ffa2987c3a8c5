"""The ECG page measured with a ruler: 25 mm are a second, 10 mm a millivolt, in the figure, in pixels and in SVG."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_scripts.records import ECGRecord
from datasets_scripts.synthetic import generate_record
from modeling_esi import LEADS
from modeling_esi.attribution import Attribution
from modeling_esi.plotting import LAYOUTS, main, plot_ecg, save_page

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SVG = "{http://www.w3.org/2000/svg}"
PAPER = pytest.mark.parametrize(("paper_speed", "gain"), [(25.0, 10.0), (50.0, 20.0), (12.5, 5.0)])


def pulses(sampling_rate: float = 200, duration: float = 10.0, num_leads: int = 12) -> np.ndarray:
    """Zero, but for 1 mV from 1 to 1.1 s of every second, so that its rise is a clock; -0.5 mV on the last lead."""
    time = np.arange(round(sampling_rate * duration)) / sampling_rate
    signal = np.tile((time % 1 < 0.1) & (time >= 1), (num_leads, 1)).astype(np.float32)
    signal[-1] *= -0.5
    return signal


def in_millimetres(figure, artist) -> np.ndarray:
    """`(points, 2)` of an artist on the page, as it will be printed."""
    vertices = artist.get_transform().transform(artist.get_path().vertices)
    return vertices / figure.dpi * 25.4


def artists(figure, name: str) -> list:
    axes = figure.axes[0]
    return [artist for artist in [*axes.lines, *axes.patches] if artist.get_gid() == name]


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def page_size(figure) -> list[float]:
    return (figure.get_size_inches() * 25.4).round(6).tolist()


# ----- scale ---------------------------------------------------------------------------------------------------------


@PAPER
def test_a_second_and_a_millivolt_have_their_length(paper_speed, gain):
    figure = plot_ecg(pulses(), 200, LEADS, layout="12x1", paper_speed=paper_speed, gain=gain)
    x, y = in_millimetres(figure, artists(figure, "trace-V1")[0]).T
    assert np.ptp(y) == pytest.approx(gain)
    rises = x[1:][np.diff(y) > gain / 2]
    np.testing.assert_allclose(np.diff(rises), paper_speed, rtol=1e-9)
    assert np.ptp(in_millimetres(figure, artists(figure, "trace-V6")[0])[:, 1]) == pytest.approx(gain / 2)


@PAPER
def test_the_calibration_mark_is_a_millivolt_for_200_ms(paper_speed, gain):
    figure = plot_ecg(pulses(), 200, LEADS, paper_speed=paper_speed, gain=gain)
    marks = [in_millimetres(figure, mark) for mark in artists(figure, "calibration")]
    assert len(marks) == 4
    for mark in marks:
        top = mark[mark[:, 1] > mark[0, 1] + 1e-6]
        assert np.ptp(mark[:, 1]) == pytest.approx(gain) and np.ptp(top[:, 0]) == pytest.approx(0.2 * paper_speed)
    assert marks[0][:, 0].max() < in_millimetres(figure, artists(figure, "trace-I")[0])[0, 0]


def test_the_grid_has_lines_each_1_and_5_mm_and_rows_and_seconds_start_on_a_5_mm_line():
    figure = plot_ecg(pulses(), 200, LEADS)
    for step in (1, 5):
        (grid,) = artists(figure, f"grid-{step}mm")
        points = in_millimetres(figure, grid)
        for axis in (0, 1):
            places = np.unique(points[:, axis].round(6))
            np.testing.assert_allclose(np.diff(places), step, atol=1e-5)
    bold = in_millimetres(figure, artists(figure, "grid-5mm")[0])
    x, y = in_millimetres(figure, artists(figure, "trace-I")[0])[0]
    assert np.abs(bold[:, 0] - x).min() < 1e-6 and np.abs(bold[:, 1] - y).min() < 1e-6


def test_pixels_of_a_png_at_254_dpi_are_tenths_of_a_millimetre(tmp_path):
    path = save_page(plot_ecg(pulses(), 200, LEADS), tmp_path / "page.png", dpi=254)
    with Image.open(path) as image:
        assert image.size == (2970, 2100)
        assert image.info["dpi"] == pytest.approx((254, 254), abs=0.02)
        dark = np.asarray(image.convert("L")) < 60
    strip = dark[-700:, 300:]  # the rhythm strip, right of the calibration mark and the lead's name
    high = np.flatnonzero(strip.sum(axis=0) > 90)  # columns where the trace rises or falls by a millivolt
    rises = high[np.diff(high, prepend=-9) > 1]
    assert len(rises) == 18
    np.testing.assert_allclose(np.diff(rises[::2]), 250, atol=1)
    rows = np.flatnonzero(strip[:, rises[0] - 5 : rises[1] + 5].any(axis=1))
    assert rows.max() - rows.min() == pytest.approx(100, abs=4)  # the line itself is 0.25 mm wide


def test_an_svg_says_its_millimetres_and_is_the_same_twice(tmp_path):
    paths = [save_page(plot_ecg(pulses(), 200, LEADS), tmp_path / f"{i}.svg") for i in range(2)]
    first, second = (path.read_bytes() for path in paths)
    assert first == second and b"<dc:date>" not in first
    root = ElementTree.fromstring(first)
    sizes = [float(root.get(name).removesuffix("pt")) / 72 * 25.4 for name in ("width", "height")]
    assert sizes == pytest.approx([297, 210], abs=1e-3)
    assert [float(value) for value in root.get("viewBox").split()][2:] == pytest.approx(
        [float(root.get(name).removesuffix("pt")) for name in ("width", "height")]
    )
    (mark, *_) = [group for group in root.iter(f"{SVG}g") if group.get("id") == "calibration"]
    numbers = np.array(re.findall(r"-?[\d.]+", mark.find(f"{SVG}path").get("d")), dtype=float).reshape(-1, 2)
    height = np.ptp(numbers[:, 1]) / 72 * 25.4
    assert height == pytest.approx(10, abs=1e-3)
    assert sum(group.get("id") == "trace-II" for group in root.iter(f"{SVG}g")) == 2
    written = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert "aVR" in written and "25 mm/s" in written


def test_png_and_pdf_are_the_same_twice_and_other_endings_are_refused(tmp_path):
    figure = plot_ecg(pulses(), 200, LEADS)
    for ending, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        once, again = (save_page(figure, tmp_path / f"{i}{ending}", dpi=50).read_bytes() for i in range(2))
        assert once == again and once.startswith(magic)
    with pytest.raises(ValueError, match=r"expected an ending of .png, .svg, .pdf, got 'page.gif'"):
        save_page(figure, tmp_path / "page.gif")


# ----- layout --------------------------------------------------------------------------------------------------------


def names_by_place(figure) -> list[list[str]]:
    """Lead names as they stand on the page: rows from top to bottom, each from left to right."""
    names = [text for text in figure.axes[0].texts if text.get_text() in LEADS]
    heights = sorted({text.get_position()[1] for text in names}, reverse=True)
    rows = [[text for text in names if text.get_position()[1] == height] for height in heights]
    return [[text.get_text() for text in sorted(row, key=lambda text: text.get_position()[0])] for row in rows]


@pytest.mark.parametrize(
    ("layout", "rhythm", "expected"),
    [
        (None, None, ["I aVR V1 V4", "II aVL V2 V5", "III aVF V3 V6", "II"]),
        ("3x4", ["v1", "lead II", "V5"], ["I aVR V1 V4", "II aVL V2 V5", "III aVF V3 V6", "V1", "II", "V5"]),
        ("3x4", [], ["I aVR V1 V4", "II aVL V2 V5", "III aVF V3 V6"]),
        ("6x2", None, ["I V1", "II V2", "III V3", "aVR V4", "aVL V5", "aVF V6"]),
        ("12x1", None, list(LEADS)),
    ],
)
def test_leads_stand_where_readers_look_for_them(layout, rhythm, expected):
    shuffled = [7, 0, 11, 3, 1, 2, 10, 9, 8, 4, 5, 6]
    record = ECGRecord(pulses()[shuffled], tuple(LEADS[i].upper() for i in shuffled), 200)
    figure = plot_ecg(record, layout=layout, rhythm_leads=rhythm)
    assert names_by_place(figure) == [row.split() for row in expected]


def test_a_name_stands_above_a_trace_that_begins_high():
    signal = pulses()
    signal[10, 1510:1520] = 1.4  # V5, just behind the start of the fourth column
    figure = plot_ecg(signal, 200, LEADS)
    feet = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert feet["V5"] > in_millimetres(figure, artists(figure, "trace-V5")[0])[:, 1].max()
    assert feet["V5"] == pytest.approx(feet["V2"] + 4)


def test_every_panel_shows_its_own_lead_and_its_own_seconds():
    time = np.arange(2000) / 200
    signal = np.stack([0.05 * (i + 1) * time for i in range(12)])  # slope says the lead, height the second
    figure = plot_ecg(signal, 200, LEADS, baseline="zero", rhythm_leads="V3")
    width = 0.0
    for row in LAYOUTS["3x4"]:
        for column, lead in enumerate(row):
            x, y = in_millimetres(figure, artists(figure, f"trace-{lead}")[0]).T
            slope = 0.05 * (LEADS.index(lead) + 1) * 10 / 25
            np.testing.assert_allclose(np.diff(y) / np.diff(x), slope, rtol=1e-6)
            (foot, *_), left = [m for m in (in_millimetres(figure, a) for a in artists(figure, "calibration"))
                                if m[0, 1] < y[0] + 1e-6][0], 28.5 + 62.5 * column  # fmt: skip
            assert x[0] == pytest.approx(left) and y[0] - foot[1] == pytest.approx(slope * 62.5 * column, abs=1e-6)
            width = max(width, x[-1])
    strip = in_millimetres(figure, artists(figure, "trace-V3")[1])
    assert len(strip) == 2000 and strip[-1, 0] == pytest.approx(width)
    assert len(artists(figure, "separator")) == 9


def test_a_page_of_a_longer_record_says_which_part_it_is():
    signal = pulses(duration=31.0)
    signal[:, 4000:4010] += 1.0  # at 20 s
    figure = plot_ecg(signal, 200, LEADS, layout="12x1", start=15.0, duration=8.0)
    x, y = in_millimetres(figure, artists(figure, "trace-I")[0]).T
    assert (x[np.argmax(y)] - x[0]) / 25 == pytest.approx(5.0)
    assert any("15 to 23 s of 31 s" in text for text in texts(figure))


def test_another_sampling_rate_and_a_shorter_record():
    figure = plot_ecg(pulses(sampling_rate=77.5, duration=6.2), 77.5, LEADS)
    (strip,) = artists(figure, "trace-II")[1:]
    assert np.ptp(in_millimetres(figure, strip)[:, 0]) == pytest.approx((6.2 - 1 / 77.5) * 25, abs=0.3)
    assert not artists(figure, "trace-V5") and texts(figure).count("no samples here") == 3
    assert any("0 to 6.19355 s of 6.19355 s" in text for text in texts(figure))


def test_missing_leads_and_samples_are_gaps():
    signal = pulses()
    signal[1, 300:500] = np.nan
    signal[4, 5] = np.inf
    signal[8] = np.nan
    kept = [i for i in range(12) if i != 3]
    figure = plot_ecg(signal[kept], 200, [LEADS[i] for i in kept], layout="12x1")
    assert texts(figure).count("not recorded") == 2
    assert not artists(figure, "trace-aVR") and not artists(figure, "trace-V3")
    assert texts(plot_ecg(np.full((12, 2000), np.nan), 200, LEADS)).count("not recorded") == 12
    y = in_millimetres(figure, artists(figure, "trace-II")[0])[:, 1]
    assert np.flatnonzero(np.isnan(y)).tolist() == list(range(300, 500))
    assert np.isnan(in_millimetres(figure, artists(figure, "trace-aVL")[0])[5, 1])


def test_a_few_leads_are_drawn_as_recorded_and_channels_left_out_are_named():
    figure = plot_ecg(pulses(num_leads=2), 200, ["MLII", "V5"])
    assert [text for text in texts(figure) if text in ("MLII", "V5")] == ["MLII", "V5"]
    assert page_size(figure)[1] < 100
    figure = plot_ecg(pulses(num_leads=15), 200, [*LEADS, "vx", "vy", "vz"])
    assert any("not on this page: vx, vy, vz" in text for text in texts(figure))


# ----- amplitude -----------------------------------------------------------------------------------------------------


def test_rows_grow_for_high_traces_so_that_none_reaches_into_the_next():
    signal = pulses()
    signal[5] *= 3.7  # aVF
    signal[6] *= -4.2  # V1
    for layout in ("3x4", "6x2", "12x1"):
        figure = plot_ecg(signal, 200, LEADS, layout=layout)
        assert not artists(figure, "cut")
        heights = {lead: in_millimetres(figure, artists(figure, f"trace-{lead}")[0])[:, 1] for lead in LEADS}
        assert np.ptp(heights["aVF"]) == pytest.approx(37) and np.ptp(heights["V1"]) == pytest.approx(42)
        rows = LAYOUTS[layout]
        for above, below in zip(rows, rows[1:], strict=False):
            lowest = min(heights[lead].min() for lead in above)
            assert lowest > max(heights[lead].max() for lead in below)
    assert page_size(figure)[1] > 210


def test_what_does_not_fit_any_row_is_cut_marked_and_said():
    signal = pulses()
    signal[0, 50:53] = 9.5
    signal[0, 300:310] = -7.0
    figure = plot_ecg(signal, 200, LEADS)
    assert len(artists(figure, "cut")) == 2
    assert any("I cut where marked, goes from -7.0 to 9.5 mV" in text for text in texts(figure))
    y = in_millimetres(figure, artists(figure, "trace-I")[0])[:, 1]
    assert np.ptp(y) == pytest.approx(120)


def test_the_baseline_is_the_median_or_zero():
    signal = pulses() + 2.0
    feet = []
    for baseline in ("median", "zero"):
        figure = plot_ecg(signal, 200, LEADS, baseline=baseline)
        foot = in_millimetres(figure, artists(figure, "calibration")[0])[0, 1]
        feet.append(in_millimetres(figure, artists(figure, "trace-I")[0])[0, 1] - foot)
    assert feet == pytest.approx([0, 20])


# ----- words ---------------------------------------------------------------------------------------------------------


def test_nothing_says_whose_record_it_is_unless_told_to(tmp_path):
    record = generate_record(3).with_metadata(record_id="R-4711", patient_id="P-0815", report="A report.")
    written = save_page(plot_ecg(record), tmp_path / "page.svg").read_text(encoding="utf-8")
    assert not re.search("R-4711|P-0815|A report", written)
    figure = plot_ecg(record, title="cost: $4 to $5")
    assert "cost: $4 to $5" in texts(figure)
    figure.savefig(tmp_path / "page.png", dpi=30)  # the dollars are no formula


def test_pyplot_is_not_touched():
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    plot_ecg(pulses(), 200, LEADS)
    assert matplotlib.pyplot.get_fignums() == before


def test_a_record_is_left_as_it_was():
    signal = pulses() + 1
    kept = signal.copy()
    plot_ecg({"signal": signal, "leads": LEADS, "sampling_rate": 200})
    np.testing.assert_array_equal(signal, kept)


# ----- attribution ---------------------------------------------------------------------------------------------------


def attribution(values: np.ndarray, **fields) -> Attribution:
    known = {"leads": LEADS, "window": 1.0, "duration": 10.0, "target": "Pacing.", "score": 4.2, "method": "occlusion"}
    return Attribution(values, **known | fields)


def test_colours_lie_behind_their_second_of_their_lead():
    values = np.zeros((12, 10))
    values[7, 6], values[1, 2] = 2.0, -1.0
    values[3] = np.nan
    figure = plot_ecg(pulses(), 200, LEADS, attribution=attribution(values))
    coloured = {}
    for lead in LEADS:
        boxes = artists(figure, f"attribution-{lead}")
        assert len(boxes) == (0 if lead == "aVR" else 10)
        coloured |= {(lead, i): box for i, box in enumerate(boxes) if box.get_facecolor()[3] > 0}
    assert set(coloured) == {("V2", 6), ("II", 2)}
    raised, lowered = coloured["V2", 6], coloured["II", 2]
    assert raised.get_facecolor()[0] > raised.get_facecolor()[2] and lowered.get_facecolor()[2] > 0.6
    assert raised.get_facecolor()[3] == pytest.approx(2 * lowered.get_facecolor()[3], rel=0.02)
    (trace,) = artists(figure, "trace-V2")
    points, (x, y) = in_millimetres(figure, trace), in_millimetres(figure, raised).T
    assert (x.min(), x.max()) == pytest.approx((points[0, 0] + 150, points[0, 0] + 175))
    assert y.min() <= points[:, 1].min() and y.max() >= points[:, 1].max() - 1e-9
    assert raised.get_zorder() < trace.get_zorder()
    assert len(figure.axes) == 2 and figure.axes[1].get_xlim() == (-2, 2)
    assert any("score 4.2 of: Pacing." in text for text in texts(figure))


def test_in_columns_each_shows_its_part_and_what_is_missed_is_said():
    values = np.ones((12, 4))
    given = attribution(values, window=3.0)
    figure = plot_ecg(pulses(), 200, LEADS, layout="3x4", attribution=given)
    widths = [np.ptp(in_millimetres(figure, box)[:, 0]) for box in artists(figure, "attribution-V1")]
    assert widths == pytest.approx([25, 37.5])  # 5 to 6 and 6 to 7.5 s
    widths = [np.ptp(in_millimetres(figure, box)[:, 0]) for box in artists(figure, "attribution-V4")]
    assert widths == pytest.approx([37.5, 25])  # 7.5 to 9 and 9 to 10 s
    assert not any("largest" in text for text in texts(figure))
    values[6, 0] = -5.0
    figure = plot_ecg(pulses(), 200, LEADS, layout="3x4", attribution=given)
    assert any("largest value not on this page: V1 at 0 s" in text for text in texts(figure))


def test_nothing_but_zeros_and_nothing_seen_can_be_drawn():
    for values in (np.zeros((12, 10)), np.full((12, 10), np.nan)):
        figure = plot_ecg(pulses(), 200, LEADS, attribution=attribution(values))
        assert figure.axes[1].get_xlim() == (-1, 1)


# ----- refusals and the command --------------------------------------------------------------------------------------


def test_refusals_say_what_was_expected():
    for options, message in (
        ({"layout": "4x3"}, "expected one of 3x4, 6x2, 12x1 or rows, got '4x3'"),
        ({"paper_speed": 30}, "paper_speed: expected one of 12.5, 25.0, 50.0, got 30"),
        ({"gain": 1}, "gain: expected one of 5.0, 10.0, 20.0, got 1"),
        ({"baseline": "mean"}, "baseline: expected one of median, zero"),
        ({"duration": 0}, "duration: expected up to 60 s"),
        ({"start": 10.0}, "start: expected 0 to 10 s"),
        ({"rhythm_leads": ["V9"]}, "rhythm_leads: expected some of I, II"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_ecg(pulses(), 200, LEADS, **options)
    for arguments, message in (
        ((pulses().T, 200, LEADS), r"got shape \(2000, 12\)"),
        ((pulses(), 200, None), "leads None"),
        ((pulses(), None, LEADS), "sampling_rate: expected Hz, got none"),
        ((pulses(), 200, [*LEADS[:11], "v1"]), "V1 twice"),
        (({"signal": pulses(), "leads": LEADS, "sampling_rate": 200}, 200), "got both"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_ecg(*arguments)


def test_the_command_draws_a_file(tmp_path, capsys):
    np.save(tmp_path / "record.npy", pulses())
    described = ["--sampling_rate", "200", "--unit", "mV", "--leads", *LEADS]
    output = tmp_path / "page.svg"
    assert main([str(tmp_path / "record.npy"), "--output", str(output), "--title", "one", *described]) == 0
    assert capsys.readouterr().out == f"Wrote {output}\n" and ">one</text>" in output.read_text(encoding="utf-8")
    assert main([str(tmp_path / "absent.npy"), "--output", str(output), *described]) == 1
    assert "absent.npy" in capsys.readouterr().err
    assert main([str(tmp_path / "record.npy"), "--output", str(output), "--model", "esi-ecg", *described]) == 1
    assert "--target" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ptbxl/records100/00000/00003_lr.hea", "formats/wfdb/100.hea"])
def test_real_files(name, tmp_path):
    if not DATA.is_dir():
        pytest.skip("needs the data folder beside the checkout")
    output = tmp_path / "page.png"
    assert main([str(DATA / name), "--output", str(output), "--dpi", "50"]) == 0
    with Image.open(output) as image:
        assert np.asarray(image.convert("L")).min() < 80
