"""Records, stored rows, and WFDB files: read as `wfdb` reads them, or refused before anything is opened."""

import doctest
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import records
from datasets_scripts.records import ECGRecord, read_record, record_to_row, row_features, row_to_record

SHARED = Path(__file__).resolve().parent.parent / "shared" / "data"
if not SHARED.is_dir():
    SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/data with real records is absent")
LEADS = ["I", "II", "V5"]


def digital_signal(num_samples=37, num_leads=3, seed=0):
    return np.random.default_rng(seed).integers(-900, 900, size=(num_samples, num_leads))


def write(folder, name="rec", num_samples=37, fmt="16", leads=LEADS, units="mV", rate=250, **options):
    """A WFDB record of random integers: gain 200 and baseline 5 unless said otherwise."""
    num_leads = len(leads)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=[units] * num_leads,
        sig_name=list(leads),
        d_signal=digital_signal(num_samples, num_leads),
        fmt=[fmt] * num_leads,
        adc_gain=[200.0] * num_leads,
        baseline=[5] * num_leads,
        write_dir=str(folder),
        **options,
    )
    return folder / f"{name}.hea"


def change_header(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def same(first, second):
    return first.dtype == second.dtype == np.float32 and first.tobytes() == second.tobytes()


# ---------------------------------------------------------------- the record


def test_examples_in_docstrings():
    assert doctest.testmod(records).failed == 0


def test_from_digital_by_hand():
    digital = np.array([[10, -10, -32768], [0, 1, 2]], np.int16)
    record = ECGRecord.from_digital(digital, [200, 10], [10, 1], ("I", "II"), 100, record_id="x", age=7)
    np.testing.assert_array_equal(record.signal, np.float32([[0, -0.1, np.nan], [-0.1, 0, 0.1]]))
    assert (record.num_leads, record.num_samples, record.duration, record.age) == (2, 3, 0.03, 7.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": np.zeros((5, 2))}, r"\(num_leads=2.*transposed"),
        ({"signal": np.zeros(5)}, "num_leads=2"),
        ({"signal": np.zeros((2, 0))}, "num_samples > 0"),
        ({"leads": "II"}, "sequence of strings"),
        ({"leads": (1, 2)}, "expected strings"),
        ({"sampling_rate": 0}, "positive"),
        ({"sampling_rate": float("nan")}, "positive"),
        ({"age": 300}, "90 for 'over 89'"),
        ({"sex": "M"}, "'male', 'female'"),
        ({"digital": np.zeros((2, 5), np.int16)}, "belong together"),
        ({"digital": np.zeros((2, 5), np.int32), "gain": [1, 1], "offset": [0, 0]}, "int16"),
        ({"digital": np.zeros((2, 5), np.int16), "gain": [1, 0], "offset": [0, 0]}, "other than 0"),
        ({"digital": np.zeros((2, 5), np.int16), "gain": [1], "offset": [0, 0]}, "one per lead"),
    ],
)
def test_record_refuses_what_makes_no_sense(changes, message):
    fields = {"signal": np.zeros((2, 5)), "leads": ("I", "II"), "sampling_rate": 500} | changes
    with pytest.raises(ValueError, match=message):
        ECGRecord(**fields)


def test_row_gives_the_same_bits_back():
    import datasets

    rng = np.random.default_rng(3)
    digital = rng.integers(-32768, 32767, size=(3, 41)).astype(np.int16)
    digital[1, 7] = -32768
    metadata = {"text": "t", "report": "r", "statements": ("b", "a"), "labels": ("L",), "record_id": "7", "sex": "male"}
    whole = ECGRecord.from_digital(digital, [1000, 333.3, 0.7], [0, -5, 1e4], ("I", "aVF", "V1"), 333.25, **metadata)
    float_only = ECGRecord(whole.signal, whole.leads, whole.sampling_rate, **metadata)
    for record, dtype in ((whole, "int16"), (float_only, "float32"), (whole, "float32")):
        row = record_to_row(record, dtype)
        stored = datasets.Dataset.from_list([row], features=row_features(dtype))
        assert stored.features["signal"].feature.dtype == dtype
        assert same(row_to_record(stored.with_format("numpy")[0]).signal, record.signal)
        back = row_to_record(stored[0])
        assert same(back.signal, record.signal)
        assert (back.leads, back.sampling_rate, back.statements, back.labels) == (
            record.leads,
            record.sampling_rate,
            record.statements,
            record.labels,
        )
        assert (back.text, back.report, back.sex, back.age, back.patient_id) == ("t", "r", "male", None, None)
        assert (back.digital is None) == (dtype == "float32")
    assert record_to_row(whole)["signal"].dtype == np.int16 and set(record_to_row(whole)) == set(row_features())
    with pytest.raises(ValueError, match="int16 was asked for"):
        record_to_row(float_only, "int16")
    with pytest.raises(ValueError, match="3 leads"):
        row_to_record(record_to_row(whole) | {"num_samples": 40})


# ---------------------------------------------------------------- reading WFDB


@pytest.mark.parametrize("fmt", ["16", "212", "61", "160", "24", "32", "310", "311"])
@pytest.mark.parametrize("num_samples", [36, 37])
def test_formats_equal_wfdb(tmp_path, fmt, num_samples):
    if fmt in ("61", "160", "310", "311"):  # wfdb reads them, but does not write them
        path = write(tmp_path, num_samples=num_samples)
        change_header(path, "rec.dat 16 ", f"rec.dat {fmt} ")
        raw = np.random.default_rng(1).integers(0, 256, size=num_samples * 6, dtype=np.uint8)
        (tmp_path / "rec.dat").write_bytes(raw.tobytes())
    else:
        path = write(tmp_path, fmt=fmt, num_samples=num_samples)
    record = read_record(path)
    expected = wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)
    assert record.digital is not None and record.leads == tuple(LEADS) and record.record_id == "rec"


def test_paths_with_and_without_extension(tmp_path):
    path = write(tmp_path)
    signals = [read_record(tmp_path / name).signal for name in ("rec", "rec.hea", "rec.dat")]
    assert same(signals[0], signals[1]) and same(signals[0], signals[2])
    assert same(signals[0], read_record(str(path)).signal)


def test_missing_samples_are_nan_in_every_format(tmp_path):
    for fmt, absent in (("16", -32768), ("212", -2048), ("24", -(2**23))):
        signal = digital_signal()
        signal[5, 1] = absent
        wfdb.wrsamp(
            f"nan{fmt}", 250, ["mV"] * 3, LEADS, d_signal=signal, fmt=[fmt] * 3, adc_gain=[200.0] * 3,
            baseline=[0] * 3, write_dir=str(tmp_path),
        )  # fmt: skip
        record = read_record(tmp_path / f"nan{fmt}")
        assert np.argwhere(np.isnan(record.signal)).tolist() == [[1, 5]] and record.digital[1, 5] == -32768


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_compressed_formats(tmp_path, fmt):
    samples = digital_signal() // 8
    wfdb.wrsamp(
        "flac", 250, ["mV"] * 3, LEADS, d_signal=samples, fmt=[fmt] * 3, adc_gain=[200.0] * 3, baseline=[0] * 3,
        write_dir=str(tmp_path),
    )  # fmt: skip
    assert read_record(tmp_path / "flac").digital.tolist() == samples.T.tolist()
    change_header(tmp_path / "flac.hea", "3 250 37", "3 250 38")
    with pytest.raises(ValueError, match="cannot be read"):
        read_record(tmp_path / "flac")


def test_wide_integers_become_float_only(tmp_path):
    signal = digital_signal() * 1000
    wfdb.wrsamp(
        "wide", 250, ["mV"] * 3, LEADS, d_signal=signal, fmt=["32"] * 3, adc_gain=[1e5] * 3, baseline=[7] * 3,
        write_dir=str(tmp_path),
    )  # fmt: skip
    record = read_record(tmp_path / "wide")
    assert record.digital is None
    np.testing.assert_allclose(record.signal, (signal.T - 7) / 1e5, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "factor"), [("mV", 1), ("mv", 1), ("uV", 1e-3), ("V", 1e3), ("\N{MICRO SIGN}V", 1e-3), ("", 1)]
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_units_become_millivolt(tmp_path, unit, factor, encoding):
    path = write(tmp_path)
    text = path.read_text().replace("/mV", f"/{unit}" if unit else "")
    path.write_bytes(text.encode(encoding))
    np.testing.assert_allclose(read_record(path).signal, (digital_signal().T - 5) / 200 * factor, rtol=1e-6)


def test_unknown_unit_is_refused_and_other_channels_are_left_out(tmp_path, caplog):
    path = write(tmp_path)
    good = path.read_text()
    path.write_text(good.replace("/mV", "/furlong"))
    with pytest.raises(ValueError, match="'furlong'"):
        read_record(path)
    path.write_text(good.replace("/mV", "/mmHg", 1))
    assert read_record(path).leads == ("II", "V5") and "left out I (mmHg)" in caplog.text
    path.write_text(good.replace(" V5", " RESP"))
    assert read_record(path).leads == ("I", "II")
    path.write_text(good.replace("/mV", "/NU"))
    with pytest.raises(ValueError, match="at least one lead in mV"):
        read_record(path)


def test_challenge_comments_and_matlab_offset(tmp_path):
    path = write(tmp_path, num_samples=20)
    samples = (tmp_path / "rec.dat").read_bytes()
    # a MATLAB v4 matrix: five numbers and the name come before the samples, 24 bytes
    (tmp_path / "rec.mat").write_bytes(struct.pack("<5i4s", 30, 3, 20, 0, 4, b"val\0") + samples)
    (tmp_path / "rec.dat").unlink()
    change_header(path, "rec.dat 16", "rec.mat 16+24")
    path.write_text(path.read_text() + "#Age: 300\n# Sex: F\n#Dx: 426783006, 164889003,426783006\n#Rx: Unknown\n")
    record = read_record(tmp_path / "rec.mat")
    assert (record.age, record.sex, record.labels) == (90.0, "female", ("426783006", "164889003"))
    np.testing.assert_array_equal(record.digital, digital_signal(20).T)


def test_comments_that_say_nothing(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "#Age: NaN\n#Sex: Unknown\n#Dx: Unknown\n# <age>: x\n")
    record = read_record(path)
    assert (record.age, record.sex, record.labels) == (None, None, ())


def test_length_from_the_file_size(tmp_path):
    for name, fmt, num_samples in (("a", "16", 37), ("b", "212", 36)):
        path = write(tmp_path, name, fmt=fmt, num_samples=num_samples)
        change_header(path, f"{name} 3 250 {num_samples}", f"{name} 3 250")
        assert read_record(path).num_samples == num_samples
        np.testing.assert_array_equal(read_record(path).digital, digital_signal(num_samples).T)


def test_two_files_skew_and_frames(tmp_path):
    path = write(tmp_path)
    other = write(tmp_path, "other")
    lines = path.read_text().splitlines()
    extra = [line.replace("other.dat 16", "other.dat 16:4") for line in other.read_text().splitlines()[1:]]
    path.write_text("\n".join(["rec 6 250 37", *lines[1:], *extra]) + "\n")
    expected = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T
    np.testing.assert_allclose(read_record(path).signal, expected, atol=1e-6)
    assert np.isnan(expected[3:, -4:]).all() and np.isnan(read_record(path).signal[3:, -4:]).all()
    path.write_text("frames 3 125 18\n" + "\n".join(lines[1:]).replace("rec.dat 16", "rec.dat 16x2", 1))
    change_header(path, "frames 3 125 18", "frames 3 125 27")
    expected = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T
    np.testing.assert_allclose(read_record(path).signal, expected, atol=1e-6)


def test_several_segments(tmp_path):
    write(tmp_path, "s1", num_samples=30)
    write(tmp_path, "s2", num_samples=25)
    first, second = ((digital_signal(length).T - 5) / 200 for length in (30, 25))
    path = tmp_path / "multi.hea"
    path.write_text("multi/2 3 250 55\ns1 30\ns2 25\n")
    np.testing.assert_allclose(read_record(path).signal, np.hstack([first, second]), atol=1e-6)
    # a variable layout: the first segment only names the leads, "~" is a gap
    names = "".join(f"~ 0 200/mV 0 0 0 0 0 {lead}\n" for lead in LEADS)
    (tmp_path / "layout.hea").write_text("layout 3 250 0\n" + names)
    path.write_text("multi/4 3 250 65\nlayout 0\ns1 30\n~ 10\ns2 25\n")
    record = read_record(path)
    assert record.leads == tuple(LEADS) and np.isnan(record.signal[:, 30:40]).all()
    np.testing.assert_allclose(np.delete(record.signal, slice(30, 40), 1), np.hstack([first, second]), atol=1e-6)


def test_segments_that_do_not_fit(tmp_path):
    write(tmp_path, "s1", num_samples=30)
    write(tmp_path, "s2", num_samples=25)
    path = tmp_path / "multi.hea"
    for bad, message in (
        ("multi/3 3 250 66\ns1 30\n~ 10\ns2 25\n", "announces 66"),
        ("multi/2 3 250\ns1 30\ns2 26\n", "expected 26"),
        ("multi/2 3 250\ns1 30\n../s2 25\n", "plain name"),
        ("multi/2 3 250\ns1 30\ngone 25\n", "no such file"),
        ("multi/2 3 250\ns1 30\nmulti 30\n", "one segment"),
        ("multi/2 3 500\ns1 30\ns2 25\n", "one segment at 500"),
        ("multi/99 3 250\ns1 30\n", "99 announced"),
        ("multi/1 3 250\n~ 30\n", "only gaps"),
    ):
        path.write_text(bad)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_record(path)


# ---------------------------------------------------------------- what is refused, and when


@pytest.fixture
def opened(monkeypatch):
    """Every file that is opened while the test runs (an audit hook cannot be removed, so it looks at this list)."""
    import sys

    seen = []
    active = [True]

    def hook(event, arguments):
        if active[0] and event in ("open", "socket.connect", "socket.getaddrinfo"):
            seen.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield seen
    active[0] = False


SIGNAL = "rec.dat 16 200(5)/mV 16 0 0 0 0"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("rec 1 250 37\n../outside.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\n{outside} 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nhttp://127.0.0.1:9/x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nsub/x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\n..\\x.dat 16 200 16 0 0 0 0 I\n", "plain name"),
        ("rec 1 250 37\nlink.dat 16 200 16 0 0 0 0 I\n", "link that leads outside"),
        ("rec 1 250 37\npipe 16 200 16 0 0 0 0 I\n", "plain file"),
        ("rec 1 250 37\ngone.dat 16 200 16 0 0 0 0 I\n", "no such file"),
        (f"rec 1 250 1000000000000\n{SIGNAL} I\n", "at most"),
        (f"rec 1 250 99999999999999999999999\n{SIGNAL} I\n", "number of samples"),
        (f"rec 10000 250 37\n{SIGNAL} I\n", "1 to 256 leads"),
        (f"rec 1 250 38\n{SIGNAL} I\n", "38 samples per lead.*holds only 37.*cut short"),
        (f"rec 2 250 37\n{SIGNAL} I\n", "2 signal lines"),
        (f"rec 1 -250 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1 0 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1 nan 37\n{SIGNAL} I\n", "positive sampling rate"),
        (f"rec 1\n{SIGNAL} I\n", "positive sampling rate.*none"),
        ("rec 1 250 37\nrec.dat 16x100000000 200 16 0 0 0 0 I\n", "at most"),
        ("rec 1 250 37\nrec.dat 16:1000000000000 200 16 0 0 0 0 I\n", "skew"),
        ("rec 1 250 37\nrec.dat 16+100 200 16 0 0 0 0 I\n", "holds only 0"),
        ("rec 1 250 37\nrec.dat 99 200 16 0 0 0 0 I\n", "signal formats"),
        ("rec 1 250 37\nrec.dat sixteen 200 16 0 0 0 0 I\n", "signal format"),
        ("rec 1 250 37\nrec.dat 16 200/mV -7 3 I\n", "ADC resolution"),
        ("rec 1 250 37\nrec.dat 16 nan/mV 16 0 0 0 0 I\n", "gain"),
        ("rec 1 250 37\nrec.dat 16 1e999/mV 16 0 0 0 0 I\n", "gain"),
        ("\x00\x01", "first line"),
        ("# only a comment\n", "record line"),
        ("", "record line"),
    ],
)
def test_hostile_headers_are_refused_fast_and_open_nothing(tmp_path, opened, header, message):
    folder = tmp_path / "records"
    folder.mkdir()
    outside = tmp_path / "outside.dat"
    outside.write_bytes(b"\0" * 1000)
    (folder / "rec.dat").write_bytes(np.zeros(37, "<i2").tobytes())
    (folder / "link.dat").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    (folder / "rec.hea").write_text(header.replace("{outside}", str(outside)))
    opened.clear()
    start = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_record(folder / "rec")
    assert time.monotonic() - start < 1
    assert [path for path in opened if str(tmp_path) in path] == [str(folder / "rec.hea")]
    assert not [path for path in opened if "127.0.0.1" in path] and "\n" not in str(caught.value)


def test_a_link_inside_its_folder_is_followed_and_a_linked_header_is_not(tmp_path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    folder.mkdir(), elsewhere.mkdir()
    path = write(folder)
    (folder / "rec.dat").rename(folder / "real.dat")
    (folder / "rec.dat").symlink_to("real.dat")
    assert read_record(path).num_samples == 37
    (elsewhere / "rec.hea").symlink_to(path)
    with pytest.raises(ValueError, match="link that leads outside"):
        read_record(elsewhere / "rec")
    (tmp_path / "c").symlink_to(folder)  # the folder itself may be a link: the user gave it
    assert read_record(tmp_path / "c" / "rec").num_samples == 37


def test_other_files_and_missing_ones(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"DICM")
    with pytest.raises(ValueError, match=r"WFDB.*got \.dcm"):
        read_record(tmp_path / "x.dcm")
    for name in ("gone", "gone.hea", "gone.dat", "s3://bucket/rec"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_record(tmp_path / name)
    with pytest.raises(ValueError, match="'::'"):
        read_record("simplecache::http://127.0.0.1/rec")
    with pytest.raises(ValueError, match="plain file"):
        (tmp_path / "folder.hea").mkdir()
        read_record(tmp_path / "folder.hea")


# ---------------------------------------------------------------- real records


@needs_shared
@pytest.mark.parametrize(
    "folder", ["ptbxl/records100", "ptbxl/records500", "ptbxl_filtered", "physionet2021", "formats"]
)
def test_real_records_equal_wfdb(folder):
    paths = sorted((SHARED / folder).rglob("*.hea"))
    assert paths
    for path in paths[:: 1 + len(paths) // 40]:
        record = read_record(path)
        expected = wfdb.rdrecord(str(path.with_suffix("")))
        names = [name.strip() for name in expected.sig_name]
        columns = expected.p_signal[:, [names.index(lead) for lead in record.leads]].T
        np.testing.assert_allclose(record.signal, columns, rtol=0, atol=1e-6, err_msg=str(path))
        assert record.sampling_rate == expected.fs


@needs_shared
def test_real_headers_tell_what_they_should():
    record = read_record(SHARED / "physionet2021" / "HR" / "HR00008.mat")
    assert (record.age, record.sex, record.sampling_rate) == (48.0, "male", 500.0)
    assert record.labels == ("164865005", "164951009", "39732003", "426783006")
    left_out = read_record(SHARED / "formats" / "wfdb" / "a103l")
    assert left_out.leads == ("II", "V")
    record = read_record(SHARED / "ptbxl" / "records500" / "00000" / "00001_hr")
    one, two, three = record.signal[:3]
    assert np.abs(two - one - three).max() < 0.0021  # II = I + III, but for the rounding to 1 uV of each lead
