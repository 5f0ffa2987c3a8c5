"""CPSC2018: the original structs with REFERENCE.csv and the WFDB form say the same; what is odd is told."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from test_physionet2021 import write_record

from datasets_scripts import cpsc2018, physionet2021
from datasets_scripts.load_report import LoadReport
from datasets_scripts.sources import iter_records, split_of

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "physionet2021" / "A"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/physionet2021")
HEAD = "Recording,First_label,Second_label,Third_label"
NAMES = ["Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"]
CODES = "426783006 164889003 270492004 164909002 59118001 284470004 164884008 429622005 164931005".split()


def write_struct(folder, name, data=None, sex="Male", age=74.0, do_compression=False, **others):
    """A record as the original release has it."""
    if data is None:
        data = np.random.default_rng(sum(name.encode())).normal(size=(12, 41))
    folder.mkdir(parents=True, exist_ok=True)
    ecg = {"sex": sex, "age": age, "data": data} | others
    ecg = {key: value for key, value in ecg.items() if value is not None}
    scipy.io.savemat(folder / f"{name}.mat", {"ECG": ecg}, do_compression=do_compression)
    return data


def write_reference(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "REFERENCE.csv").write_text("\n".join([HEAD, *rows]) + "\n")


def read_all(data_dir):
    """Records by their name, and the reasons of those that are not kept."""
    report = LoadReport("cpsc2018")
    records = {record.record_id: record for record in iter_records(cpsc2018, data_dir, report=report)}
    assert len(records) + len(report.rejected) == report.num_read
    return records, {rejection.record_id: rejection.reason for rejection in report.rejected}


# ----- the original release ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do_compression", [False, True])
def test_a_struct_is_read_to_the_bit_of_float32(tmp_path, do_compression):
    data = write_struct(tmp_path, "A0001", sex="Female", age=57.0, do_compression=do_compression)
    write_reference(tmp_path, "A0001,5,1,8")
    record = read_all(tmp_path)[0]["A0001"]
    assert np.array_equal(record.signal, data.astype(np.float32)) and record.digital is None
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert (record.sampling_rate, record.age, record.sex, record.repairs) == (500, 57, "female", ())
    assert record.labels == ("RBBB", "Normal", "STD")  # in the order given
    assert record.statements == ("right bundle branch block", "normal ECG", "ST depression")
    assert (record.record_id, record.patient_id) == ("A0001", None)


def test_every_layout_is_found_and_lengths_may_differ(tmp_path):
    lengths = {"TrainingSet1/A0001": 3000, "TrainingSet2/A2001": 4999, "TrainingSet3/A4471": 30_000, "A6877": 3001}
    for number, (name, num_samples) in enumerate(lengths.items(), start=1):
        path = tmp_path / name
        write_struct(path.parent, path.name, np.full((12, num_samples), number / 8))
    write_reference(tmp_path / "TrainingSet1", "A0001,1,,", "A2001,2,,", "A4471,3,9,", "A6877,7,,")
    records, rejected = read_all(tmp_path)
    assert not rejected
    assert {name: record.num_samples for name, record in records.items()} == {
        path.rpartition("/")[2]: num_samples for path, num_samples in lengths.items()
    }
    assert [record.labels for _, record in sorted(records.items())] == [
        ("Normal",),
        ("AF",),
        ("I-AVB", "STE"),
        ("PVC",),
    ]
    assert cpsc2018.tables(tmp_path) == (tmp_path / "TrainingSet1" / "REFERENCE.csv",)
    for entry in cpsc2018.list_entries(tmp_path):
        assert entry.split == split_of(entry.record_id) and entry.files == (entry.path,)


def test_the_nearest_table_tells_the_labels(tmp_path):
    for name in ("one/A0001", "two/A0002"):
        write_struct((tmp_path / name).parent, name[-5:])
    write_reference(tmp_path, "A0001,1,,", "A0002,2,,")
    write_reference(tmp_path / "two", "A0002,3,,")
    records = read_all(tmp_path)[0]
    assert (records["A0001"].labels, records["A0002"].labels) == (("Normal",), ("I-AVB",))


def test_tables_as_pandas_writes_them_are_read(tmp_path):
    write_struct(tmp_path, "A0001")
    write_reference(tmp_path, "A0001,5.0,5.0,")
    assert read_all(tmp_path)[0]["A0001"].labels == ("RBBB",)


@pytest.mark.parametrize(
    "row, told",
    [
        ("A0001,10,,", "expected labels from 1 to 9, got 10"),
        ("A0001,1,x,", "expected labels from 1 to 9, got 1, x"),
        ("A0001,,,", "expected labels from 1 to 9, got none"),
        ("A0001,1", "row 1 of REFERENCE.csv: expected 4 values, got 2"),
    ],
)
def test_a_row_that_makes_no_sense_is_told(tmp_path, row, told):
    write_struct(tmp_path, "A0001")
    write_struct(tmp_path, "A0002")
    write_reference(tmp_path, row, "A0002,1,,")
    records, rejected = read_all(tmp_path)
    assert list(records) == ["A0002"] and told in rejected["A0001"]


def test_what_is_missing_twice_or_of_another_name_is_told(tmp_path):
    for name in ("A0001", "A0003", "B0001"):
        write_struct(tmp_path / "TrainingSet1", name)
    write_struct(tmp_path / "validation_set", "A0001")
    write_reference(tmp_path, "A0001,1,,", "A0002,2,,")
    records, rejected = read_all(tmp_path)
    assert list(records) == ["A0001"]
    assert "A0001: the same name as" in rejected["A0001"] and "TrainingSet1" in rejected["A0001"]
    assert "REFERENCE.csv names it, but there is no A0002.mat" in rejected["A0002"]
    assert "A0003: no REFERENCE.csv names it" in rejected["A0003"]
    assert "B0001.mat: expected A0001 to A6877" in rejected["B0001"]


def test_a_table_without_its_columns_and_a_missing_folder_are_errors(tmp_path):
    (tmp_path / "REFERENCE.csv").write_text("name,label\nA0001,1\n")
    with pytest.raises(ValueError, match="expected the columns Recording, First_label"):
        cpsc2018.list_entries(tmp_path)
    with pytest.raises(FileNotFoundError, match="data_dir must be the folder of CPSC2018"):
        cpsc2018.list_entries(tmp_path / "nothing")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"data": np.ones((41, 12))}, r"expected data of \(12, num_samples\) numbers in mV, got float64 \(41, 12\)"),
        ({"data": np.ones((12, 0))}, r"got float64 \(12, 0\)"),
        ({"data": "ones"}, "expected data of"),
        ({"data": np.full((12, 3), 1e300)}, "got infinite values"),
        ({"age": None}, "expected ECG with sex, age and data, got sex, data"),
        ({"data": np.full((12, 3), 1 + 1j)}, "got complex ones"),
        ({"sex": np.array([["Male"], [2.0]], dtype=object)}, "got class 1"),
    ],
)
def test_structs_of_another_content_are_rejected(tmp_path, fields, told):
    write_struct(tmp_path, "A0001", **fields)
    write_struct(tmp_path, "A0002")
    write_reference(tmp_path, "A0001,1,,", "A0002,1,,")
    records, rejected = read_all(tmp_path)
    assert list(records) == ["A0002"]
    assert re.search(told, rejected["A0001"])


@pytest.mark.parametrize(
    "age, sex, expected, repairs",
    [
        (np.nan, "Unknown", (None, None), ()),
        (-1.0, "male", (None, "male"), ("implausible_age: -1",)),
        (np.array([4, 5]), "F", (None, "female"), ("unreadable_age: 2 values",)),
        (93, "X", (93, None), ("unknown_sex: X",)),
    ],
)
def test_ages_and_sexes_that_make_no_sense_are_told(tmp_path, age, sex, expected, repairs):
    write_struct(tmp_path, "A0001", age=age, sex=sex)
    write_reference(tmp_path, "A0001,1,,")
    record = read_all(tmp_path)[0]["A0001"]
    assert (record.age, record.sex) == expected and record.repairs == repairs


def test_samples_that_are_missing_are_told_and_kept(tmp_path):
    data = np.random.default_rng(0).normal(size=(12, 41))
    data[3, 5:9], data[7] = np.nan, 0.25
    write_struct(tmp_path, "A0001", data)
    write_reference(tmp_path, "A0001,1,,")
    record = read_all(tmp_path)[0]["A0001"]
    assert record.repairs == ("nan_samples: 4", "flat_lead: V2")
    assert np.isnan(record.signal[3, 5:9]).all()


# ----- the WFDB form -------------------------------------------------------------------------------------------------


def test_labels_of_the_wfdb_form_come_from_snomed_codes(tmp_path):
    for number, code in enumerate(CODES, start=1):
        write_record(tmp_path / "g1", f"A{number:04d}", code)
    write_record(tmp_path, "A0010", "59118001,164889003,426177001")
    records, rejected = read_all(tmp_path)
    assert not rejected and cpsc2018.label_names() == NAMES
    assert [records[f"A{number:04d}"].labels for number in range(1, 10)] == [(name,) for name in NAMES]
    assert records["A0010"].labels == ("RBBB", "AF")
    assert records["A0010"].repairs == ("code_of_no_class: 426177001",)
    assert records["A0001"].statements == ("normal ECG",) and records["A0001"].digital is not None


def test_a_table_goes_before_the_codes_and_codes_before_nothing(tmp_path):
    for name in ("A0001", "A0002"):
        write_record(tmp_path, name, "59118001")
    write_reference(tmp_path, "A0001,2,3,")
    records = read_all(tmp_path)[0]
    assert (records["A0001"].labels, records["A0002"].labels) == (("AF", "I-AVB"), ("RBBB",))


def test_reference_and_snomed_say_the_same_of_the_same_records(tmp_path):
    rows = [(1,), (2, 5), (3,), (4, 6), (7, 8), (9, 2, 5), (6,), (8,)]
    for number, labels in enumerate(rows, start=1):
        name = f"A{number:04d}"
        digital = write_record(tmp_path / "wfdb", name, ",".join(CODES[label - 1] for label in labels))
        write_struct(tmp_path / "original", name, digital / 1000, sex="Female", age=57.0)
    padded = [[str(label) for label in labels] + [""] * (3 - len(labels)) for labels in rows]
    names = [f"A{number:04d}" for number in range(1, len(rows) + 1)]
    write_reference(tmp_path / "original", *(",".join([name, *row]) for name, row in zip(names, padded, strict=True)))
    assert_same(read_all(tmp_path / "original")[0], read_all(tmp_path / "wfdb")[0], len(rows))


def assert_same(original, wfdb_form, num_records):
    assert list(original) == list(wfdb_form) and len(original) == num_records
    for name, record in original.items():
        other = wfdb_form[name]
        for field in ("labels", "statements", "age", "sex", "leads", "sampling_rate"):
            assert getattr(record, field) == getattr(other, field), (name, field)
        assert np.array_equal(record.signal, other.signal), name


@needs_shared
def test_real_records_are_the_same_in_both_forms(tmp_path):
    """The structs are made of the WFDB files here; their labels by hand from the published #Dx."""
    labels = {"A0001": 5, "A0003": 2, "A0004": 2, "A0005": 7, "A0006": 5, "A0008": 8}
    wfdb_form, rejected = read_all(SHARED)
    assert not rejected
    for name, record in wfdb_form.items():
        millivolt = record.digital / 1000.0  # float64, as the original release stores
        write_struct(tmp_path, name, millivolt, sex=record.sex.capitalize(), age=record.age)
    write_reference(tmp_path, *(f"{name},{label},," for name, label in labels.items()))
    original, rejected = read_all(tmp_path)
    assert not rejected
    assert_same(original, wfdb_form, 6)
    assert {record.duration for record in original.values()} == {15, 10, 11.948, 25, 14, 15.176}
    splits = {entry.record_id: entry.split for entry in physionet2021.list_entries(SHARED)}
    assert splits == {entry.record_id: entry.split for entry in cpsc2018.list_entries(tmp_path)}


@needs_shared
def test_a_record_that_is_cut_short_is_rejected_and_the_others_are_read(tmp_path):
    shutil.copytree(SHARED, tmp_path / "A")
    path = tmp_path / "A" / "A0003.mat"
    path.write_bytes(path.read_bytes()[:-1000])
    records, rejected = read_all(tmp_path)
    assert len(records) == 5 and "A0003" in rejected["A0003"]


# ----- labels --------------------------------------------------------------------------------------------------------


def test_prompts_are_in_the_order_of_the_labels_and_begin_with_the_statement():
    prompts = cpsc2018.label_prompts()
    assert list(prompts) == cpsc2018.label_names() == NAMES
    assert prompts["AF"] == ["ECG Findings: atrial fibrillation."]
    assert prompts["PVC"][0] == "ECG Findings: premature ventricular contraction."
