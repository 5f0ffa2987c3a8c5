"""One's own recordings: a folder, or a table with text, labels and patients; nothing outside the folder is opened."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import files
from datasets_scripts.files import label_names, label_prompts, list_entries, parse_list, read_entry, tables
from datasets_scripts.load_report import LoadReport
from datasets_scripts.sources import iter_records, split_of

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/data is absent")

TABLE = """path,text,labels,statements,patient_id,age,sex,record_id,colour
waves/a,Sinus rhythm.,AFIB; LBBB,"[""sinus rhythm"", ""long QT; long""]",77.0,61,F,first,red
waves/b.hea,,,,88,97,m,,blue
waves/a.hea,again,AFIB,,77,,unknown,third,
"""


def write_wfdb(folder, name, seed=0, comments=()):
    folder.mkdir(exist_ok=True)
    samples = np.random.default_rng(seed).integers(-900, 900, size=(37, 2))
    wfdb.wrsamp(
        name,
        fs=50,
        units=["mV"] * 2,
        sig_name=["II", "v5"],
        d_signal=samples,
        fmt=["16"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0] * 2,
        write_dir=str(folder),
        comments=list(comments),
    )
    return samples


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    write_wfdb(tmp_path / "waves", "a", 1, ["Age: 33", "Sex: M", "Dx: 426783006"])
    write_wfdb(tmp_path / "waves", "b", 2, ["Age: 33", "Dx: 426783006"])
    return tmp_path


def write_table(folder, *rows):
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


def problems(folder, **options):
    return [entry.problem for entry in list_entries(folder, table="table.csv", **options)]


def read(folder, **options):
    report = LoadReport("files")
    return list(iter_records(files, folder, report=report, **options)), report


# ---------------------------------------------------------------- a folder


def test_a_folder_without_a_table(folder):
    (folder / "waves" / "alone.dat").touch()
    (folder / "table.csv").unlink()
    first, alone, last = list_entries(folder)
    assert (first.record_id, first.path) == ("waves/a", str(folder / "waves" / "a.hea"))
    assert first.files == (str(folder / "waves" / "a.hea"), str(folder / "waves" / "a.dat"))
    assert first.fields == {"record_id": "waves/a"} and last.record_id == "waves/b"
    assert first.split == split_of("waves/a") and alone.problem.startswith("expected a WFDB header")
    assert tables(folder) == ()
    with pytest.raises(ValueError, match="expected a table with a column labels"):
        label_names(data_dir=folder)


def test_the_records_of_a_folder(folder):
    (folder / "table.csv").unlink()
    (folder / "waves" / "alone.dat").touch()
    records, report = read(folder)
    assert [(record.record_id, record.patient_id, record.leads) for record in records] == [
        ("waves/a", None, ("II", "v5")),
        ("waves/b", None, ("II", "v5")),
    ]
    assert records[0].sampling_rate == 50 and records[0].age == 33 and records[0].labels == ("426783006",)
    assert [(r.record_id, report.num_read) for r in report.rejected] == [("waves/alone", 3)]


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "IM0001").touch()
    with pytest.raises(ValueError, match="expected files ending in .csv, .dcm.*name files without such an ending"):
        list_entries(tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder that holds your recordings"):
        list_entries(tmp_path / "gone")
    with pytest.raises(ValueError, match="got neither"):
        list_entries(None)


# ---------------------------------------------------------------- a table


def test_what_the_table_says(folder):
    first, second, third = list_entries(folder, table="table.csv")
    assert first.record_id == "first" and first.path == str(folder / "waves" / "a")
    assert first.fields == {
        "report": "Sinus rhythm.",
        "patient_id": "p000001",
        "age": 61.0,
        "sex": "female",
        "labels": ("AFIB", "LBBB"),
        "statements": ("sinus rhythm", "long QT; long"),
        "record_id": "first",
    }
    # empty cells say nothing, except that no label holds; ages above 89 are stored as 90
    assert second.fields == {
        "patient_id": "p000002",
        "age": 90.0,
        "sex": "male",
        "labels": (),
        "statements": (),
        "record_id": "waves/b",
    }
    assert third.fields["patient_id"] == "p000001" and "age" not in third.fields and "sex" not in third.fields
    assert first.split == third.split == split_of("77") and second.split == split_of("88")
    assert set(first.files) >= {f"{folder}/waves/a.hea", f"{folder}/waves/a.dat"}
    assert tables(folder, table="table.csv") == (folder / "table.csv",)


def test_the_records_of_a_table(folder):
    (first, second, third), report = read(folder, table="table.csv")
    assert not report.rejected and report.num_read == 3
    assert (first.record_id, first.report, first.sex, first.age) == ("first", "Sinus rhythm.", "female", 61)
    assert (second.record_id, second.labels, second.age) == ("waves/b", (), 90)
    assert third.age == 33  # the header's, since the table does not say
    np.testing.assert_array_equal(first.signal, third.signal)
    assert first.num_samples == 37 and first.sampling_rate == 50


def test_labels_and_their_texts(folder):
    assert label_names(data_dir=folder, table="table.csv", salt=None) == ["AFIB", "LBBB"]
    assert label_prompts(data_dir=folder, table="table.csv") == {
        "AFIB": ["ECG Findings: AFIB."],
        "LBBB": ["ECG Findings: LBBB."],
    }
    write_table(folder, "path,labels", 'a,"[1"', "b,x")
    assert label_names(data_dir=folder, table="table.csv") == ["x"]  # the broken row is told as a problem
    write_table(folder, "path,text", "a,b")
    with pytest.raises(ValueError, match="expected labels in a column of this name"):
        label_names(data_dir=folder, table="table.csv")


def test_identifiers_of_patients(folder):
    def stored(**options):
        return [entry.fields["patient_id"] for entry in list_entries(folder, table="table.csv", **options)]

    assert stored() == ["p000001", "p000002", "p000001"]
    assert stored(patient_id="keep") == ["77", "88", "77"]
    one, other, again = stored(patient_id="hash", salt="secret")
    assert one == again != other and len(one) == 16 and one != stored(patient_id="hash", salt="another")[0]
    splits = [[entry.split for entry in list_entries(folder, table="table.csv", **options)]
              for options in ({}, {"patient_id": "keep"}, {"patient_id": "hash", "salt": "x"})]  # fmt: skip
    assert splits[0] == splits[1] == splits[2]
    for options in ({"patient_id": "hash"}, {"salt": "unused"}):
        with pytest.raises(ValueError, match="salt: expected"):
            stored(**options)
    with pytest.raises(ValueError, match="drop, keep, hash"):
        stored(patient_id="show")


def test_how_to_read_arrays(tmp_path):
    signal = np.random.default_rng(0).normal(size=(41, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", signal)
    write_table(
        tmp_path, "path,sampling_rate,leads,unit", 'x.npy,250,"[""I"", ""V1""]",uV', "x.npy,,II;V2,", "x.npy,,,"
    )
    first, second, third = list_entries(tmp_path, table="table.csv")
    assert first.read_as == {"sampling_rate": 250.0, "leads": ("I", "V1"), "unit": "uV"} and third.read_as == {}
    options = {"table": "table.csv", "sampling_rate": 100, "leads": ["III", "V3"], "unit": "mV"}
    first, second, third = read(tmp_path, **options)[0]
    assert (first.sampling_rate, first.leads) == (250, ("I", "V1"))
    assert (second.sampling_rate, second.leads, third.leads) == (100, ("II", "V2"), ("III", "V3"))
    np.testing.assert_array_equal(third.signal, signal.T)  # (samples, leads) -> (leads, samples)
    np.testing.assert_allclose(first.signal, signal.T / 1000, rtol=1e-6)


def test_options_for_arrays_leave_other_formats_alone_and_columns_are_held_against_them(folder):
    np.save(folder / "waves" / "c.npy", np.ones((41, 1), np.float32))
    (folder / "table.csv").unlink()
    records, report = read(folder, sampling_rate=100, leads=["I"], unit="mV")
    assert [(record.sampling_rate, record.leads) for record in records] == [(50, ("II", "v5"))] * 2 + [(100, ("I",))]
    write_table(folder, "path,sampling_rate", "waves/a.hea,50", "waves/b.hea,100")
    records, report = read(folder, table="table.csv")
    assert [record.record_id for record in records] == ["waves/a"]
    assert "sampled at 50 Hz, but sampling_rate=100" in report.rejected[0].reason


def test_a_package_that_is_missing_is_the_reason(folder, monkeypatch):
    def without_package(path, **_):
        raise ImportError("reading DICOM needs pydicom: pip install 'esi-ecg[formats]'")

    monkeypatch.setattr(files, "read_file", without_package)
    _, report = read(folder, table="table.csv")
    assert len(report.rejected) == 3 and report.rejected[0].reason.endswith("pip install 'esi-ecg[formats]'")


# ---------------------------------------------------------------- splits


def test_a_split_of_ones_own(folder):
    write_table(folder, "path,split,patient_id", "a,train,1", "b,VAL,2", "c,test,3", "d,valid,2", "e,,4", "f,dev,5")
    entries = list(list_entries(folder, table="table.csv"))
    assert [entry.split for entry in entries][:4] == ["train", "validation", "test", "validation"]
    assert [entry.problem is None for entry in entries] == [True] * 4 + [False] * 2
    assert "split: expected one of train, validation, test, val, valid, got 'dev'" in entries[5].problem


def test_one_patient_in_two_splits_is_refused_at_once(folder):
    write_table(folder, "path,split,patient_id", "a,train,1", "b,test,2", "c,test,", "d,train,", "e,test,1.0")
    with pytest.raises(
        ValueError, match="row 5: expected every patient in one split, got patient '1' in train and in test"
    ):
        list_entries(folder, table="table.csv")


def test_shares_of_the_splits(tmp_path):
    write_table(tmp_path, "path,patient_id", *(f"{i},p{i // 3}" for i in range(3000)))
    ends = {"train": 60, "test": 100}
    entries = list(list_entries(tmp_path, table="table.csv", split_ends=ends))
    assert {entry.split for entry in entries} == {"train", "test"}
    assert abs(sum(entry.split == "train" for entry in entries) / 3000 - 0.6) < 0.05
    by_patient = {}
    for number, entry in enumerate(entries):
        assert by_patient.setdefault(number // 3, entry.split) == entry.split == split_of(f"p{number // 3}", ends)
    for bad in ({}, {"train": 90}, {"dev": 100}, {"train": 90, "test": 80}, {"train": 120, "test": 100}):
        with pytest.raises(ValueError, match="split_ends: expected rising percents up to 100"):
            list_entries(tmp_path, table="table.csv", split_ends=bad)


# ---------------------------------------------------------------- what does not fit


def test_rows_that_make_no_sense_are_problems(folder):
    write_table(
        folder,
        "path,labels,age,sex,sampling_rate,text",
        "a,,,,,ok",
        ",,,,,x",
        'a,"[1, 2]",,,,x',
        "a,,old,,,x",
        "a,,300,,,x",
        "a,,,1,,x",
        "a,,,,-5,x",
        "a,,,,fast,x",
        "a,,,,,x, y",
        "a",
    )
    told = problems(folder)
    assert told[0] is None
    for problem, words in zip(
        told[1:],
        ["path: expected a relative path", "labels: expected a JSON list of strings", "got 'old'", "got '300'"]
        + ["sex: expected m, male", "got '-5'", "got 'fast'", "expected 6 values, got 7", "expected 6 values, got 1"],
        strict=True,
    ):
        assert words in problem
    entries = list(list_entries(folder, table="table.csv"))
    assert [entry.record_id for entry in entries][:3] == ["a", "row 2", "a"]
    assert {entry.files for entry in entries[1:]} == {(str(folder / "table.csv"),)}


def test_nothing_outside_the_folder_is_ever_opened(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    write_wfdb(tmp_path / "outside", "secret")
    (root / "link.hea").symlink_to(tmp_path / "outside" / "secret.hea")
    (root / "way").symlink_to(tmp_path / "outside")
    names = ["../outside/secret.hea", str(tmp_path / "outside" / "secret"), "link.hea", "way/secret.hea", "a\\..\\b"]
    write_table(root, "path", *names)
    entries = list(list_entries(root, table="table.csv"))
    assert all("it is not opened" in entry.problem for entry in entries) and len(entries) == 5
    assert all(entry.files == (str(root / "table.csv"),) for entry in entries)
    found = {entry.record_id: entry.problem for entry in list_entries(root)}
    assert "not opened" in found["link"] and "not followed" in found["way"]
    records, report = read(root, table="table.csv")
    assert not records and len(report.rejected) == 5


def test_where_the_table_may_be(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "t.csv"
    elsewhere.write_text("path\nwaves/a.hea\n")
    (entry,) = list_entries(folder, table=elsewhere)  # its paths are relative to data_dir
    assert entry.path == str(folder / "waves" / "a.hea") and entry.problem is None
    (folder / "tables").mkdir()
    (folder / "tables" / "t.csv").write_text("path\n../waves/a.hea\nwaves/a.hea\n")
    first, second = list_entries(folder, table="tables/t.csv")  # relative to the table's own folder
    assert first.path == str(folder / "waves" / "a.hea") and second.path == str(folder / "tables" / "waves" / "a.hea")
    assert first.record_id == "waves/a" and first.split == split_of("waves/a")
    assert len(list(list_entries(None, table=folder / "table.csv"))) == 3  # data_dir is then the table's folder
    with pytest.raises(FileNotFoundError, match="no such table"):
        list_entries(folder, table="gone.csv")
    write_table(folder, "file,text", "a,b")
    with pytest.raises(ValueError, match="expected the columns path, got file, text"):
        list_entries(folder, table="table.csv")


def test_an_entry_is_read_from_itself_alone(folder):
    entry = next(iter(list_entries(folder, table="table.csv")))
    again = read_entry(pickle.loads(pickle.dumps(entry)), table="table.csv", split_ends=None)
    assert again.record_id == "first" and again.num_samples == 37


def test_lists_in_cells():
    assert parse_list("labels", "") == parse_list("labels", " ; ") == parse_list("labels", "[]") == ()
    assert parse_list("labels", " a ;b; a") == ("a", "b")
    assert parse_list("labels", json.dumps(["a;b", " c "])) == ("a;b", "c")
    for text in ("[a]", "[1]", '["a"', "[" * 100_000, '[["a"]]'):
        with pytest.raises(ValueError, match="labels: expected a JSON list of strings, or words separated by ';'"):
            parse_list("labels", text)


# ---------------------------------------------------------------- real files


@needs_shared
@pytest.mark.filterwarnings("ignore")
def test_every_real_file_is_read_or_refused_with_its_reason():
    for package in ("pydicom", "defusedxml"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'esi-ecg[formats]'")
    records, report = read(SHARED / "formats")
    assert report.num_read == len(records) + len(report.rejected) >= 15
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert set(reasons) == {"dicom/test_ecg.dcm", "scp/Example.scp"}
    assert "it is no ECG" in reasons["dicom/test_ecg.dcm"] and "SCP-ECG is not read" in reasons["scp/Example.scp"]
    assert {record.record_id: record.num_leads for record in records}["wfdb/100"] == 2
    assert not any(record.patient_id for record in records)


@needs_shared
def test_challenge_records_as_a_plain_folder():
    records, report = read(SHARED / "physionet2021")
    assert len(records) == 54 and not report.rejected
    assert all(record.num_leads == 12 and record.labels for record in records)
