"""ECG-ID in its published layout, made small: one lead, stored twice, of persons who are told apart."""

import numpy as np
import pytest
import wfdb

from datasets_scripts import ecg_id
from datasets_scripts.ecg_id import list_entries, read_entry
from datasets_scripts.load_report import LoadReport
from datasets_scripts.sources import SPLITS, check_options, iter_records, list_split, split_of

NUM_SAMPLES = 41
RECORDS = ["Person_01/rec_1", "Person_01/rec_2", "Person_01/rec_10", "Person_02/rec_1", "Person_11/rec_1"]


def write_recording(folder, name, names=("ECG I", "ECG I filtered"), comments=None):
    """As published: format 16, gain 200, both channels in one file, age and sex in comments, ten beats in `.atr`."""
    rng = np.random.default_rng(sum(name.encode()))
    person, record = name.split("/")
    (folder / person).mkdir(exist_ok=True)
    wfdb.wrsamp(
        record,
        fs=500,
        units=["mV"] * len(names),
        sig_name=list(names),
        d_signal=rng.integers(-900, 900, size=(NUM_SAMPLES, len(names))),
        fmt=["16"] * len(names),
        adc_gain=[200.0] * len(names),
        baseline=[0] * len(names),
        comments=["Age: 25", "Sex: male", "ECG date: 07.12.2004"] if comments is None else comments,
        write_dir=str(folder / person),
    )
    wfdb.wrann(record, "atr", np.array([7, 11]), symbol=["N", "t"], write_dir=str(folder / person))


@pytest.fixture
def folder(tmp_path):
    for name in RECORDS:
        write_recording(tmp_path, name)
    (tmp_path / "RECORDS").write_text("".join(f"{name}\n" for name in RECORDS))
    return tmp_path


def read(folder, **options):
    report = LoadReport("ecg_id")
    return {record.record_id: record for record in iter_records(ecg_id, folder, report=report, **options)}, report


def channels(folder, name):
    return wfdb.rdrecord(str(folder / name)).p_signal.T


def test_records_of_the_published_layout(folder):
    records, report = read(folder)
    assert list(records) == RECORDS and not report.rejected  # by number: rec_10 after rec_2
    record = records["Person_01/rec_1"]
    assert (record.patient_id, record.age, record.sex) == ("Person_01", 25.0, "male")
    assert (record.report, record.statements, record.labels) == ("", (), ())
    assert record.sampling_rate == 500 and record.num_samples == NUM_SAMPLES and record.digital.dtype == np.int16


@pytest.mark.parametrize(("channel", "row", "other"), [("raw", 0, "ECG I filtered"), ("filtered", 1, "ECG I")])
def test_fact_15_one_lead_is_stored_twice_and_one_of_the_two_is_read(folder, channel, row, other):
    records, _ = read(folder, channel=channel)
    for name, record in records.items():
        assert record.leads == ("I",) and record.signal.shape == (1, NUM_SAMPLES)
        np.testing.assert_allclose(record.signal[0], channels(folder, name)[row], atol=1e-6)
        assert f"left_out_channel: {other}" in record.repairs


def test_fact_15_raw_is_the_default_and_any_other_word_is_refused(folder):
    plain, raw = read(folder)[0]["Person_02/rec_1"], read(folder, channel="raw")[0]["Person_02/rec_1"]
    np.testing.assert_array_equal(plain.digital, raw.digital)
    check_options(ecg_id, {"channel": "raw"})
    entry = next(list_entries(folder))
    for ask in (lambda: list_entries(folder, channel="both"), lambda: read_entry(entry, channel="both")):
        with pytest.raises(ValueError, match="channel: expected one of raw, filtered, got 'both'"):
            ask()


def test_order_of_channels_does_not_matter(folder):
    write_recording(folder, "Person_02/rec_1", names=("ECG I filtered", "ECG I"))
    record = read(folder)[0]["Person_02/rec_1"]
    np.testing.assert_allclose(record.signal[0], channels(folder, "Person_02/rec_1")[1], atol=1e-6)


@pytest.mark.parametrize("names", [("ECG I filtered",), ("ECG I", "ECG I"), ("ECG II", "ECG I filtered")])
def test_a_recording_without_the_one_channel_is_rejected(folder, names):
    placeholders = tuple(f"channel{number}" for number in range(len(names)))  # wfdb writes no name twice
    write_recording(folder, "Person_02/rec_1", names=placeholders)
    header = folder / "Person_02" / "rec_1.hea"
    for placeholder, name in zip(placeholders, names, strict=True):
        header.write_text(header.read_text().replace(placeholder, name))
    records, report = read(folder)
    assert "Person_02/rec_1" not in records and len(records) == 4
    assert "expected one channel 'ECG I', got " + ", ".join(names) in report.rejected[0].reason


def test_other_channels_are_told(folder):
    write_recording(folder, "Person_02/rec_1", names=("ECG I", "ECG II", "ECG I filtered"))
    record = read(folder)[0]["Person_02/rec_1"]
    told = [repair for repair in record.repairs if repair.startswith("left_out_channel")]
    assert told == ["left_out_channel: ECG II", "left_out_channel: ECG I filtered"]


def test_a_recording_that_keeps_no_integers_is_read_too(folder, monkeypatch):
    """Some are read as millivolts only (other formats, several segments)."""
    entry = next(list_entries(folder))
    whole = ecg_id.read_wfdb_record(folder / entry.record_id)
    plain = whole.with_metadata(signal=whole.signal, digital=None, gain=None, offset=None)
    monkeypatch.setattr(ecg_id, "read_wfdb_record", lambda path: plain)
    record = read_entry(entry, channel="filtered")
    assert record.digital is None
    np.testing.assert_array_equal(record.signal, whole.signal[1:])


def test_persons_stay_in_one_split(folder):
    found = {split: {e.fields["patient_id"] for e in list_split(ecg_id, folder, split)} for split in SPLITS}
    assert sum(map(len, found.values())) == 3
    assert all(entry.split == split_of(entry.fields["patient_id"]) for entry in list_entries(folder))


def test_without_the_list_the_headers_are_the_list(folder):
    assert ecg_id.tables(folder) == (folder / "RECORDS",)
    (folder / "RECORDS").unlink()
    assert [entry.record_id for entry in list_entries(folder)] == RECORDS and ecg_id.tables(folder) == ()


def test_what_is_listed_and_missing_and_what_is_there_and_not_listed(folder):
    lines = ["Person_01/rec_1", "Person_90/rec_2", "../Person_01/rec_1", "/etc/passwd", "Person_01/notes"]
    (folder / "RECORDS").write_text("\n".join(lines))
    records, report = read(folder)
    assert list(records) == RECORDS
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert set(reasons) == set(lines[1:]) and "no such file" in reasons["Person_90/rec_2"]
    for name in lines[2:]:
        assert f"expected names such as Person_01/rec_1, got {name!r}; it is not opened" in reasons[name]


def test_a_header_of_another_name_is_told(folder):
    (folder / "Person_01" / "rec_1 (copy).hea").write_text((folder / "Person_01" / "rec_1.hea").read_text())
    _, report = read(folder)
    assert [rejection.record_id for rejection in report.rejected] == ["Person_01/rec_1 (copy)"]


def test_age_and_sex_that_are_not_told(folder):
    write_recording(folder, "Person_02/rec_1", comments=["ECG date: 07.12.2004"])
    record = read(folder)[0]["Person_02/rec_1"]
    assert (record.age, record.sex) == (None, None)


def test_a_truncated_recording_is_rejected(folder):
    data = folder / "Person_11" / "rec_1.dat"
    data.write_bytes(data.read_bytes()[:-10])
    records, report = read(folder)
    assert "Person_11/rec_1" not in records and report.rejected[0].path == str(folder / "Person_11/rec_1")


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir must be ECG-ID's folder"):
        list_entries(tmp_path)
    with pytest.raises(ValueError, match="data_dir: expected ECG-ID's folder"):
        list_entries(None)


def test_there_are_no_labels():
    for ask in (ecg_id.label_names, ecg_id.label_prompts):
        with pytest.raises(ValueError, match="who is who"):
            ask(channel="raw")
    assert not ecg_id.FACTS.statements_are_labels
