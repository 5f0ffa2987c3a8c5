"""The authors' layout: a CSV with prompts and one .npy per record; nothing that could run code is loaded."""

import pickle

import numpy as np
import pytest

from datasets_scripts import esi_csv
from datasets_scripts.esi_csv import MIMIC_LEADS, label_names, label_prompts, list_entries, read_array, tables
from datasets_scripts.load_report import LoadReport
from datasets_scripts.sources import iter_records, list_split, split_of

PROMPT = "This patient is a 61 year-old Male. ECG Findings: sinus rhythm."


def make(folder, rows="save_index,prompt\n0,{0}\n1,{0}\n", arrays=(0, 1)):
    (folder / "meta.csv").write_text(rows.replace("{0}", PROMPT))
    for index in arrays:
        np.save(folder / f"ecg_{index}.npy", np.random.default_rng(index).normal(size=(37, 12)))
    return folder


def read(folder, split=None, **options):
    report = LoadReport("esi_csv", split)
    return list(iter_records(esi_csv, folder, split, report=report, **options)), report


def test_records_of_the_layout(tmp_path):
    make(tmp_path)
    (first, second), report = read(tmp_path)
    assert (first.record_id, first.report, first.sampling_rate, first.leads) == ("0", PROMPT, 500.0, MIMIC_LEADS)
    np.testing.assert_array_equal(first.signal, np.load(tmp_path / "ecg_0.npy").T.astype(np.float32))
    assert first.leads[4:6] == ("aVF", "aVL") and first.digital is None and not report.rejected
    assert report.num_read == 2 and second.record_id == "1"
    assert [entry.files for entry in list_entries(tmp_path)] == [(f"{tmp_path}/ecg_{i}.npy",) for i in (0, 1)]
    assert tables(tmp_path) == (tmp_path / "meta.csv",)


def test_other_folders_leads_rates_and_columns(tmp_path):
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    make(arrays, arrays=(7,))
    meta = tmp_path / "table.csv"
    meta.write_text(f"save_index,prompt,subject_id,age,sex\n7.0,{PROMPT},33.0,61,M\n")
    leads = tuple("I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split())
    (record,), _ = read(None, meta_path=meta, file_path=arrays, leads=leads, sampling_rate=250)
    assert (record.leads, record.sampling_rate, record.patient_id) == (leads, 250.0, "33")
    assert (record.age, record.sex) == (61.0, "male")


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_pickles_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    np.save(tmp_path / "ecg_0.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "ecg_1.npy").write_bytes(pickle.dumps(Bomb()))
    records, report = read(tmp_path)
    assert not records and not (tmp_path / "exploded").exists()
    assert "Python objects are pickles and are refused" in report.rejected[0].reason
    assert "expected a .npy file" in report.rejected[1].reason
    assert all("\n" not in rejection.reason for rejection in report.rejected)


def test_arrays_that_do_not_fit(tmp_path):
    for name, array, message in (
        ("transposed", np.zeros((12, 37)), r"expected float \(num_samples, 12\), got float64 \(12, 37\)"),
        ("empty", np.zeros((0, 12)), r"\(0, 12\)|cannot be read"),
        ("counts", np.zeros((37, 12), np.int16), "got int16"),
        ("flat", np.zeros(37), r"got float64 \(37,\)"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=message):
            read_array(tmp_path / f"{name}.npy", 12)
    np.savez(tmp_path / "several.npz", np.zeros((37, 12)))
    with pytest.raises(ValueError, match=r"expected a \.npy file"):
        read_array(tmp_path / "several.npz", 12)
    with pytest.raises(FileNotFoundError, match="file_path"):
        read_array(tmp_path / "gone.npy", 12)


def test_header_that_announces_too_much_allocates_nothing(tmp_path):
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 12)})
    with pytest.raises(ValueError, match="cannot be read safely"):
        read_array(path, 12)


def test_save_index_never_leaves_the_folder(tmp_path):
    (tmp_path / "ecg_").mkdir()
    np.save(tmp_path / "secret.npy", np.zeros((37, 12)))
    inner = tmp_path / "inner"
    inner.mkdir()
    make(inner, f"save_index,prompt\n/../../secret,{PROMPT}\n", arrays=())
    _, report = read(inner)
    assert "not opened" in report.rejected[0].reason
    (entry,) = list_entries(inner)
    assert entry.files == (f"{inner}/meta.csv",)  # nor is it looked at


def test_rows_that_make_no_sense_are_told(tmp_path):
    make(tmp_path, "save_index,prompt,age\n0,{0},old\n1,a, comma,61\n2\n3,{0},61\n", arrays=(0, 1, 2, 3))
    records, report = read(tmp_path)
    assert [record.record_id for record in records] == ["3"] and report.num_read == 4
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert "expected a number of years or nothing, got 'old'" in reasons["0"]
    assert "expected 3 values, got 4" in reasons["1"] and "expected 3 values, got 1" in reasons["2"]


def test_split_is_by_patient_and_never_changes(tmp_path):
    rows = "".join(f"{index},p{index // 4},{PROMPT}\n" for index in range(400))
    make(tmp_path, "save_index,patient_id,prompt\n" + rows, arrays=range(400))
    splits = {split: read(tmp_path, split)[0] for split in ("train", "validation", "test")}
    patients = {split: {record.patient_id for record in records} for split, records in splits.items()}
    assert sum(map(len, splits.values())) == 400 == len(read(tmp_path)[0])
    assert not (patients["train"] & patients["validation"] or patients["train"] & patients["test"])
    assert all(split_of(patient) == split for split in patients for patient in patients[split])
    entries = list_split(esi_csv, tmp_path, "test")
    assert [entry.record_id for entry in entries] == [record.record_id for record in splits["test"]]
    counts = np.unique([split_of(str(index)) for index in range(20000)], return_counts=True)
    shares = dict(zip(counts[0], counts[1] / 20000, strict=True))
    assert abs(shares["train"] - 0.9) < 0.01 and abs(shares["validation"] - 0.05) < 0.01
    assert [split_of(str(index)) for index in (0, 2, 34)] == ["train", split_of("2"), split_of("34")]


def test_tables_that_do_not_fit(tmp_path):
    make(tmp_path, "index,text\n0,x\n")
    with pytest.raises(ValueError, match="expected the columns save_index, prompt, got index, text"):
        read(tmp_path)
    (tmp_path / "second.csv").write_text("a\n")
    with pytest.raises(ValueError, match="one CSV in this folder, got 2; pass meta_path"):
        read(tmp_path)
    with pytest.raises(ValueError, match="got neither"):
        read(None)
    with pytest.raises(FileNotFoundError, match="check meta_path"):
        read(None, meta_path=tmp_path / "gone.csv")
    for labels in (label_names, label_prompts):
        with pytest.raises(ValueError, match="prompts only"):
            labels(data_dir=tmp_path)
