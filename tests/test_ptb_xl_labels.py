"""PTB-XL on real records: label tasks equal the published tables class by class; facts 17 and 18 of the set."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal

from datasets_scripts import ptb_xl
from datasets_scripts.load_report import LoadReport
from datasets_scripts.ptb_xl_labels import TASKS, label_names, label_prompts
from datasets_scripts.sources import iter_records, list_split

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
pytestmark = pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="the folder ../shared/data/ptbxl is absent")

SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "validation", 10: "test"}
COPIES = (("137", "138"), ("143", "144"), ("456", "457"), ("459", "460"))  # one recording under two numbers


@pytest.fixture(scope="module")
def with_reports(tmp_path_factory):
    """The 9,748 rows of text as a folder in PTB-XL's layout: its signals are not there, only its tables are read."""
    folder = tmp_path_factory.mktemp("ptbxl_reports")
    table = pd.read_csv(SHARED / "ptbxl_reports" / "reports_folds_1_8.csv", dtype=str, keep_default_na=False)
    table["filename_lr"] = "records100/" + table.ecg_id
    table.to_csv(folder / "ptbxl_database.csv", index=False)
    (folder / "scp_statements.csv").write_bytes((SHARED / "ptbxl" / "scp_statements.csv").read_bytes())
    return folder


def folder_of(name, with_reports):
    return with_reports if name == "ptbxl_reports" else SHARED / name


def records_of(name, sampling_rate=100):
    report = LoadReport("ptb_xl")
    records = list(iter_records(ptb_xl, SHARED / name, report=report, sampling_rate=sampling_rate))
    assert not report.rejected and report.num_read == len(records)
    return {record.record_id: record for record in records}


@pytest.fixture(scope="module")
def raw():
    return records_of("ptbxl", 500)


@pytest.fixture(scope="module")
def filtered():
    return records_of("ptbxl_filtered")


# ---------------------------------------------------------------- labels


def test_class_lists_of_the_benchmark():
    sizes = {task: len(label_names(task, SHARED / "ptbxl")) for task in TASKS}
    assert sizes == {
        "all": 71,
        "diagnostic": 44,
        "subdiagnostic": 23,
        "superdiagnostic": 5,
        "form": 19,
        "rhythm": 12,
    }
    assert label_names("superdiagnostic", SHARED / "ptbxl") == ["CD", "HYP", "MI", "NORM", "STTC"]
    for task in sizes:
        prompts = label_prompts(task, SHARED / "ptbxl", labelled_only=True)
        assert list(prompts) == label_names(task, SHARED / "ptbxl")
        assert all(phrases and all(p.startswith("ECG Findings: ") for p in phrases) for phrases in prompts.values())
    assert label_prompts("rhythm", SHARED / "ptbxl")["AFIB"] == ["ECG Findings: atrial fibrillation."]


def counts_of_the_tables(folder, task):
    """The benchmark's definition straight over the published tables: (split, class) -> records, record -> set."""
    scp = pd.read_csv(SHARED / "ptbxl" / "scp_statements.csv", index_col=0)
    column = {"subdiagnostic": "diagnostic_subclass", "superdiagnostic": "diagnostic_class"}.get(task)
    chosen = scp if task == "all" else scp[scp["diagnostic" if task.endswith("diagnostic") else task] == 1]
    table = pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")
    codes = table.scp_codes.apply(ast.literal_eval).apply(lambda of_record: [c for c in of_record if c in chosen.index])
    labels = codes.apply(lambda kept: {chosen[column][code] for code in kept} if column else set(kept))
    pairs = pd.DataFrame({"split": table.strat_fold.astype(int).map(SPLIT_OF_FOLD), "label": labels.apply(sorted)})
    counts = pairs.explode("label").dropna().value_counts(["split", "label"])
    return counts.to_dict(), {str(ecg_id): of_record for ecg_id, of_record in labels.items()}


@pytest.mark.parametrize("name", ["ptbxl", "ptbxl_filtered", "ptbxl_reports"])
@pytest.mark.parametrize("task", TASKS)
def test_labels_equal_the_published_tables_class_by_class(name, task, with_reports):
    folder = folder_of(name, with_reports)
    expected, of_record = counts_of_the_tables(folder, task)
    entries = list(list_split(ptb_xl, folder, sampling_rate=100, task=task))
    assert len(entries) == {"ptbxl": 260, "ptbxl_filtered": 1442, "ptbxl_reports": 9748}[name]
    assert not [entry for entry in entries if entry.problem]
    counts = Counter((entry.split, label) for entry in entries for label in entry.fields["labels"])
    assert counts == expected and sum(expected.values()) > 0
    assert {entry.record_id: set(entry.fields["labels"]) for entry in entries} == of_record
    assert {label for _, label in counts} <= set(label_names(task, folder))
    kept = list_split(ptb_xl, folder, sampling_rate=100, task=task, labelled_only=True)
    assert sum(entry.left_out_by is None for entry in kept) == sum(map(bool, of_record.values()))


def test_fact_13_in_the_published_tables(with_reports):
    rows_over_89 = likelihoods_of_0 = 0
    for name in ("ptbxl", "ptbxl_filtered", "ptbxl_reports"):
        folder = folder_of(name, with_reports)
        table = pd.read_csv(folder / "ptbxl_database.csv", dtype=str, index_col="ecg_id").to_dict("index")
        for entry in list_split(ptb_xl, folder, sampling_rate=100, task="all"):
            age, sex, codes = (table[entry.record_id][column] for column in ("age", "sex", "scp_codes"))
            assert entry.fields["sex"] == ("male" if sex == "0" else "female")
            expected = None if pd.isna(age) else 90.0 if age == "300.0" else float(age)
            assert entry.fields["age"] == expected
            likelihoods = ast.literal_eval(codes)
            assert len(entry.fields["labels"]) == len(entry.fields["statements"]) == len(likelihoods)
            rows_over_89 += age == "300.0"
            likelihoods_of_0 += 0 in likelihoods.values()
    assert rows_over_89 >= 5 and likelihoods_of_0 > 5000


# ---------------------------------------------------------------- fact 17


def test_fact_17_folds_and_patients():
    splits = {split: list(list_split(ptb_xl, SHARED / "ptbxl", split)) for split in ptb_xl.FOLDS}
    assert {split: len(entries) for split, entries in splits.items()} == {"train": 169, "validation": 52, "test": 39}
    patients = [{entry.fields["patient_id"] for entry in entries} for entries in splits.values()]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert not any("." in patient for patient in set.union(*patients))


def test_fact_17_twelve_records_are_raw_and_filtered(raw, filtered):
    both = sorted(set(raw) & set(filtered), key=int)
    assert both == ["24", "43", "55", "85", "103", "149", "158", "163", "183", "221", "237", "242"]
    for record_id in both:
        one, other = raw[record_id], filtered[record_id]
        assert (one.patient_id, one.age, one.sex, one.labels) == (other.patient_id, other.age, other.sex, other.labels)


def test_fact_17_copies_have_one_signal_and_stand_in_one_split(raw, with_reports):
    entries = {entry.record_id: entry for entry in list_split(ptb_xl, with_reports, sampling_rate=100)}
    entries |= {entry.record_id: entry for entry in list_split(ptb_xl, SHARED / "ptbxl")}
    for pair in COPIES:
        one, other = (entries[record_id] for record_id in pair)
        assert one.split == other.split
        assert one.fields | {"record_id": ""} == other.fields | {"record_id": ""}
    same: dict[bytes, list[str]] = {}
    for record in raw.values():
        same.setdefault(record.digital.tobytes(), []).append(record.record_id)
    held = [list(pair) for pair in COPIES if set(pair) <= set(raw)]
    assert [ids for ids in same.values() if len(ids) > 1] == held and held  # 456 to 460 only in the whole set


# ---------------------------------------------------------------- fact 18


def z_scored(signal):
    return (signal - signal.mean(axis=1, keepdims=True)) / signal.std(axis=1, keepdims=True)


def stated_filter(signal, order=4):
    band = scipy.signal.butter(order, [0.5, 40], btype="bandpass", fs=500, output="sos")
    return scipy.signal.sosfiltfilt(band, signal, axis=1)


def correlations(one, other):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])


def test_fact_18_the_stated_filter_makes_the_filtered_records(raw, filtered):
    for record_id in set(raw) & set(filtered):
        assert raw[record_id].leads == filtered[record_id].leads
        signal = z_scored(stated_filter(raw[record_id].signal.astype(np.float64)))
        made = scipy.signal.resample_poly(signal, 1, 5, axis=1)  # 500 -> 100 Hz
        np.testing.assert_allclose(made, filtered[record_id].signal, atol=1.1e-3)  # stored in steps of 1e-3
        assert correlations(made, filtered[record_id].signal).min() > 0.9999


def test_fact_18_without_the_filter_they_are_other_signals(raw, filtered):
    for record_id in set(raw) & set(filtered):
        signal, there = raw[record_id].signal.astype(np.float64), filtered[record_id].signal
        unfiltered = z_scored(scipy.signal.resample_poly(signal, 1, 5, axis=1))
        assert correlations(unfiltered, there).min() < 0.99
        assert np.sqrt(np.mean((unfiltered - there) ** 2)) > 0.1
        assert np.sqrt(np.mean((signal[:, ::5] - there) ** 2)) > 0.5  # millivolts are no z-scores
    worst = min(
        correlations(
            scipy.signal.resample_poly(stated_filter(raw[i].signal, 2), 1, 5, axis=1), filtered[i].signal
        ).min()
        for i in set(raw) & set(filtered)
    )
    assert worst < 0.95  # it is the fourth order, not the second


def test_fact_18_filtered_records_are_z_scored_and_raw_ones_are_not(raw, filtered):
    for record in filtered.values():
        assert record.repairs == ("z_scored: amplitudes are not millivolts",)
        assert np.abs(record.signal.mean(axis=1)).max() < 1e-3 and np.abs(record.signal.std(axis=1) - 1).max() < 3e-3
    assert min(np.abs(record.signal.std(axis=1) - 1).max() for record in raw.values()) > 0.2
    assert not [record.record_id for record in raw.values() if record.repairs]
