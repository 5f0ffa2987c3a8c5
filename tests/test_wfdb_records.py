"""WFDB records: units, channels that are no leads, comments, segments, and what `repairs` says."""

from pathlib import Path

import numpy as np
import pytest
import wfdb
from tiny_wfdb import LEADS, change_header, random_integers, write_record

from datasets_scripts.readers.wfdb_records import missing_and_flat, read_wfdb_record
from datasets_scripts.records import read_record

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((folder for folder in (ROOT / "shared/data", ROOT.parent / "shared/data") if folder.is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder ../shared/data with real records is absent")


def test_the_record_by_hand(tmp_path):
    integers = np.array([[5, 205], [105, -195], [-95, 5]])
    record = read_wfdb_record(write_record(tmp_path, "x", integers, leads=("I", "II"), rate=500))
    np.testing.assert_array_equal(record.signal, np.float32([[0, 0.5, -0.5], [1, -1, 0]]))
    assert (record.leads, record.sampling_rate, record.record_id) == (("I", "II"), 500.0, "x")
    assert (record.gain.tolist(), record.offset.tolist(), record.repairs) == ([200, 200], [5, 5], ())


def test_paths_with_and_without_extension(tmp_path):
    path = write_record(tmp_path)
    for name in ("rec", "rec.hea", "rec.dat"):
        np.testing.assert_array_equal(read_wfdb_record(tmp_path / name).digital, random_integers().T)
    np.testing.assert_array_equal(read_record(str(path)).digital, random_integers().T)


def test_other_files_and_missing_ones(tmp_path):
    (tmp_path / "x.xyz").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"WFDB.*got \.xyz"):
        read_wfdb_record(tmp_path / "x.xyz")
    for name in ("gone", "gone.hea", "gone.dat", "s3://bucket/rec"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_wfdb_record(tmp_path / name)
    with pytest.raises(ValueError, match="'::'"):
        read_wfdb_record(Path("simplecache::http://127.0.0.1/rec"))
    (tmp_path / "folder.hea").mkdir()
    with pytest.raises(ValueError, match="plain file"):
        read_wfdb_record(tmp_path / "folder.hea")


# ---------------------------------------------------------------- units and channels


@pytest.mark.parametrize(
    ("unit", "factor"), [("/mV", 1), ("/mv", 1), ("/uV", 1e-3), ("/V", 1e3), ("/\N{MICRO SIGN}V", 1e-3), ("", 1)]
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_units_become_millivolt(tmp_path, unit, factor, encoding):
    path = write_record(tmp_path)
    path.write_bytes(path.read_text().replace("/mV", unit).encode(encoding))
    np.testing.assert_allclose(read_wfdb_record(path).signal, (random_integers().T - 5) / 200 * factor, rtol=1e-6)


def test_unknown_units_are_refused_and_other_channels_are_left_out(tmp_path):
    path = write_record(tmp_path)
    good = path.read_text()
    path.write_text(good.replace("/mV", "/furlong"))
    with pytest.raises(ValueError, match="'furlong'"):
        read_wfdb_record(path)
    path.write_text(good.replace("/mV", "/mmHg", 1))
    record = read_wfdb_record(path)
    assert (record.leads, record.repairs) == (("II", "V5"), ("left_out_channel: I",))
    np.testing.assert_array_equal(record.digital, random_integers().T[1:])
    path.write_text(good.replace(" V5", " RESP"))
    assert read_wfdb_record(path).repairs == ("left_out_channel: RESP",)
    path.write_text(good.replace("/mV", "/NU"))
    with pytest.raises(ValueError, match="at least one lead in mV"):
        read_wfdb_record(path)


# ---------------------------------------------------------------- missing samples and flat leads


def test_repairs_name_what_is_missing_and_what_never_changes(tmp_path):
    integers = random_integers(37, 5)
    integers[3:10, 0] = -32768
    integers[:, 1] = -32768
    integers[:, 2] = 0
    integers[:, 3] = 7
    integers[30:, 3] = -32768
    record = read_wfdb_record(write_record(tmp_path, integers=integers, leads=("I", "II", "V1", "V2", "V3")))
    assert record.repairs == ("nan_samples: 51", "nan_lead: II", "flat_lead: V1", "flat_lead: V2")
    assert np.isnan(record.signal).sum() == 51 == 7 + 37 + 7
    assert np.isnan(record.signal[1]).all()  # nothing is filled in


def test_missing_and_flat_of_floats_and_of_nothing_to_tell():
    signal = np.float32([[0, 1, 2], [3, 3, 3], [np.nan, 4, 4], [np.nan] * 3, [np.nan, np.nan, 1], [-32768, 0, 0]])
    leads = ("a", "b", "c", "d", "e", "f")
    assert missing_and_flat(signal, leads) == ["nan_samples: 6", "flat_lead: b", "flat_lead: c", "nan_lead: d"]
    assert missing_and_flat(signal[:1], leads[:1]) == []
    assert missing_and_flat(signal[:, 1:2], leads)[:1] == ["nan_samples: 2"]  # one sample is not called flat
    assert missing_and_flat(np.int16([[1, 2], [-32767, 32767]]), ("I", "II")) == []


# ---------------------------------------------------------------- comments


def test_comments_of_the_challenge(tmp_path):
    path = write_record(tmp_path, comments="#Age: 300\n# Sex: F\n#Dx: 426783006, 164889003,426783006\n#Rx: Unknown\n")
    record = read_wfdb_record(path)
    assert (record.age, record.sex, record.labels) == (90.0, "female", ("426783006", "164889003"))


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ("#Age: NaN\n#Sex: Unknown\n#Dx: Unknown\n# <age>: x\n", (None, None, ())),
        ("#Age:\n#Sex: Male\n#Dx:\n#Rx: 1\n", (None, "male", ())),  # nothing said in one line is not said in the next
        ("# <age>: 25  <sex>: M  <diagnoses>: (none)\n", (25.0, "male", ())),
        ("#Age: 151\n", (None, None, ())),
        ("#Stage: 7\n#Dx: 1\n", (None, None, ("1",))),
        ("", (None, None, ())),
    ],
)
def test_comments_that_say_less(tmp_path, comments, expected):
    record = read_wfdb_record(write_record(tmp_path, comments=comments))
    assert (record.age, record.sex, record.labels) == expected


# ---------------------------------------------------------------- several segments


def test_several_segments(tmp_path):
    write_record(tmp_path, "s1", random_integers(30))
    write_record(tmp_path, "s2", random_integers(25, seed=1), fmt="212")
    first, second = (random_integers(30).T - 5) / 200, (random_integers(25, seed=1).T - 5) / 200
    path = tmp_path / "multi.hea"
    path.write_text("multi/2 3 250 55\ns1 30\ns2 25\n")
    np.testing.assert_allclose(read_wfdb_record(path).signal, np.hstack([first, second]), atol=1e-6)
    # a variable layout: the first segment only names the leads, "~" is a gap
    names = "".join(f"~ 0 200/mV 0 0 0 0 0 {lead}\n" for lead in LEADS)
    (tmp_path / "layout.hea").write_text("layout 3 250 0\n" + names)
    path.write_text("multi/4 3 250 65\nlayout 0\ns1 30\n~ 10\ns2 25\n")
    record = read_wfdb_record(path)
    assert record.leads == LEADS and np.isnan(record.signal[:, 30:40]).all()
    assert record.repairs == ("nan_samples: 30",)
    np.testing.assert_allclose(np.delete(record.signal, slice(30, 40), 1), np.hstack([first, second]), atol=1e-6)
    expected = wfdb.rdrecord(str(tmp_path / "multi")).p_signal.T
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)


def test_segments_with_some_of_the_leads(tmp_path):
    """A monitor's leads come off and on: each segment holds those that were there, by name."""
    (tmp_path / "layout.hea").write_text(
        "layout 3 250 0\n" + "".join(f"~ 0 200/mV 0 0 0 0 0 {lead}\n" for lead in LEADS)
    )
    one, two = random_integers(20, 1), random_integers(30, 2, seed=1)
    write_record(tmp_path, "one", one, leads=("V5",))
    write_record(tmp_path, "two", two, leads=("V5", "I"), unit="/uV")
    path = tmp_path / "multi.hea"
    path.write_text("multi/3 3 250 50\nlayout 0\none 20\ntwo 30\n")
    record = read_wfdb_record(path)
    expected = np.full((3, 50), np.nan)
    expected[2, :20] = (one[:, 0] - 5) / 200
    expected[2, 20:], expected[0, 20:] = (two.T - 5) / 200 / 1000
    np.testing.assert_allclose(record.signal, expected, rtol=1e-5, atol=1e-9)
    assert record.repairs == ("nan_samples: 70", "nan_lead: II")
    change_header(tmp_path / "two.hea", " 0 I\n", " 0 V1\n")
    with pytest.raises(ValueError, match=r"two\.hea: expected leads among .* I, II, V5, each once, got V5, V1"):
        read_wfdb_record(path)


def test_gaps_between_segments_of_the_same_leads(tmp_path):
    write_record(tmp_path, "s1", random_integers(30))
    (tmp_path / "multi.hea").write_text("multi/3 3 250\n~ 4\ns1 30\n~ 5\n")
    record = read_wfdb_record(tmp_path / "multi")
    np.testing.assert_allclose(record.signal[:, 4:-5], (random_integers(30).T - 5) / 200, atol=1e-6)
    assert record.repairs == ("nan_samples: 27",) and record.num_samples == 39


# ---------------------------------------------------------------- real records


@needs_shared
def test_real_headers_tell_what_they_should():
    record = read_wfdb_record(SHARED / "physionet2021" / "HR" / "HR00008.mat")
    assert (record.age, record.sex, record.sampling_rate) == (48.0, "male", 500.0)
    assert record.labels == ("164865005", "164951009", "39732003", "426783006")
    alarm = read_wfdb_record(SHARED / "formats" / "wfdb" / "a103l")
    assert (alarm.leads, alarm.repairs) == (("II", "V"), ("left_out_channel: PLETH",))
    monitor = read_wfdb_record(SHARED / "formats" / "wfdb" / "03700181")
    assert (monitor.leads, monitor.repairs) == (("MCL1",), ("left_out_channel: ABP", "left_out_channel: RESP"))
    flat = read_wfdb_record(SHARED / "physionet2021" / "JS" / "JS11438")
    assert flat.repairs == tuple(f"flat_lead: V{number}" for number in range(1, 7))
    assert read_wfdb_record(SHARED / "formats" / "wfdb" / "100").leads == ("MLII", "V5")
    assert read_wfdb_record(SHARED / "formats" / "wfdb" / "s0010_re").num_leads == 15
    record = read_wfdb_record(SHARED / "ptbxl" / "records500" / "00000" / "00001_hr")
    one, two, three = record.signal[:3]
    assert np.abs(two - one - three).max() < 0.0021  # II = I + III, but for the rounding to 1 uV of each lead


def test_units_that_differ_between_leads(tmp_path):
    path = change_header(write_record(tmp_path), "/mV 16 0 " + str(random_integers()[0, 1]), "/uV 16 0 0")
    expected = (random_integers().T - 5) / 200 * np.array([[1], [1e-3], [1]])
    np.testing.assert_allclose(read_wfdb_record(path).signal, expected, rtol=1e-6)
