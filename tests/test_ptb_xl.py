"""PTB-XL: the six label tasks, folds, demographics and rejects, on a tiny folder in its layout and on real records."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from datasets_scripts import ptb_xl
from datasets_scripts.load_report import LoadReport
from datasets_scripts.ptb_xl import iter_records, label_names, label_prompts, source_files
from datasets_scripts.ptb_xl_labels import TASKS, read_scp_statements

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
needs_shared = pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="the folder ../shared/data/ptbxl is absent")

SCP = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
LVH,left ventricular hypertrophy,1.0,,,HYP,LVH
NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC
PVC,ventricular premature complex,,1.0,,,
SR,sinus rhythm,,,1.0,,
"""
TABLE = """ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr
1,15709.0,56.0,1,sinusrhythmus,"{'SR': 0.0, 'NDT': 0.0, 'LVH': 50.0}",1,records100/1_lr,
2,7.0,300.0,0,,"{'SR': 0.0, 'PVC': 100.0}",9,records100/2_lr,
3,8,,,  ,"{'NORM': 100.0}",10,records100/3_lr,
4,9.0,40.0,0,kein befund,{},8,records100/1_lr,
5,9.0,40.0,0,x,"{'NORM': 100.0}",8,../outside,
6,9.0,40.0,0,x,"__import__('os').abort()",8,records100/1_lr,
7,9.0,40.0,0,x,"{'XYZ': 100.0}",8,records100/1_lr,
8,9.0,40.0,0,x,"{'NORM': 100.0}",8,records100/gone,
9,9.0,40.0,0,x,"{'NORM': 100.0}",8,records100/rate,
10,9.0,40.0,0,x,"{'NORM': 100.0}",8,,
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scp_statements.csv").write_text(SCP)
    (tmp_path / "ptbxl_database.csv").write_text(TABLE)
    (tmp_path / "records100").mkdir()
    rng = np.random.default_rng(0)
    for name, rate in (("1_lr", 100), ("2_lr", 100), ("3_lr", 100), ("rate", 250)):
        wfdb.wrsamp(
            name,
            fs=rate,
            units=["mV"] * 3,
            sig_name=["I", "II", "AVR"],
            d_signal=rng.integers(-900, 900, size=(41, 3)),
            fmt=["16"] * 3,
            adc_gain=[1000.0] * 3,
            baseline=[0] * 3,
            write_dir=str(tmp_path / "records100"),
        )
    return tmp_path


def read(folder, split=None, **options):
    report = LoadReport("ptb_xl", split)
    return list(iter_records(folder, split, report=report, sampling_rate=100, **options)), report


def test_metadata_of_the_records(folder):
    (first, second, third, fourth), _ = read(folder)
    assert (first.record_id, first.patient_id, first.age, first.sex) == ("1", "15709", 56.0, "female")
    assert (second.patient_id, second.age, second.sex, second.report) == ("7", 90.0, "male", "")
    assert (third.patient_id, third.age, third.sex, third.report) == ("8", None, None, "")
    # the most likely first, then by code; a likelihood of 0 counts
    assert first.statements == (
        "left ventricular hypertrophy",
        "non-diagnostic T abnormalities",
        "sinus rhythm",
    )
    assert first.labels == ("HYP", "STTC") and first.leads == ("I", "II", "AVR") and first.digital.dtype == np.int16
    assert fourth.labels == fourth.statements == ()


def test_every_record_that_is_not_kept_is_named(folder):
    _, report = read(folder)
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert report.num_read == 10 and len(reasons) == len(report.rejected) == 6
    for record_id, words in {
        "5": "inside the data set's folder",
        "6": "expected a mapping",
        "7": "['XYZ'] are not in",
        "8": "no such file",
        "9": "expected 100 Hz, got a header that says 250 Hz",
        "10": "names no file at 100 Hz",
    }.items():
        assert words in reasons[record_id]
    assert not [path for path in source_files(folder, sampling_rate=100) if "outside" in str(path)]


def test_splits_and_folds(folder):
    ids = {split: [record.record_id for record in read(folder, split)[0]] for split in ptb_xl.FOLDS}
    assert ids == {"train": ["1", "4"], "validation": ["2"], "test": ["3"]}
    assert [record.record_id for record in read(folder, "train", folds=[9, 10])[0]] == ["2", "3"]
    for bad in ([], [11], ["9"]):
        with pytest.raises(ValueError, match="numbers from 1 to 10"):
            read(folder, folds=bad)
    with pytest.raises(ValueError, match="train, validation, test"):
        read(folder, "dev")


def test_tasks_of_the_tiny_table(folder):
    names = {task: label_names(task, folder) for task in ("all", "diagnostic", "subdiagnostic", "form", "rhythm")}
    assert names == {
        "all": ["LVH", "NDT", "NORM", "PVC", "SR"],
        "diagnostic": ["LVH", "NDT", "NORM"],
        "subdiagnostic": ["LVH", "NORM", "STTC"],
        "form": ["NDT", "PVC"],
        "rhythm": ["SR"],
    }
    labels = {task: [record.labels for record in read(folder, task=task)[0]] for task in names}
    assert labels["all"][0] == ("LVH", "NDT", "SR") and labels["form"] == [("NDT",), ("PVC",), (), ()]
    kept, report = read(folder, task="rhythm", labelled_only=True)
    assert [record.record_id for record in kept] == ["1", "2"] and report.filtered == {"labelled_only": 6}
    with pytest.raises(ValueError, match="superdiagnostic"):
        read(folder, task="super")


def test_missing_files_and_options(folder, tmp_path):
    with pytest.raises(ValueError, match="filename_hr, got none; try sampling_rate=100"):
        list(iter_records(folder, report=LoadReport("ptb_xl")))
    with pytest.raises(ValueError, match="100 and 500 Hz, got 250"):
        list(iter_records(folder, report=LoadReport("ptb_xl"), sampling_rate=250))
    with pytest.raises(ValueError, match="data_dir"):
        label_names("all")
    with pytest.raises(FileNotFoundError, match="as published on PhysioNet"):
        label_names("all", tmp_path / "gone")
    (folder / "ptbxl_database.csv").write_text("ecg_id,report\n1,x\n")
    with pytest.raises(ValueError, match="scp_codes"):
        read(folder)


# ---------------------------------------------------------------- the real set


@needs_shared
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
        prompts = label_prompts(task, SHARED / "ptbxl")
        assert list(prompts) == label_names(task, SHARED / "ptbxl")
        assert all(phrases and all(p.startswith("ECG Findings: ") for p in phrases) for phrases in prompts.values())
    assert label_prompts("rhythm", SHARED / "ptbxl")["AFIB"] == ["ECG Findings: atrial fibrillation."]


def labels_from_the_tables(folder, task):
    """The benchmark's rule once more, in pandas: record -> its set of labels."""
    scp = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    column = {"subdiagnostic": "diagnostic_subclass", "superdiagnostic": "diagnostic_class"}.get(task)
    chosen = scp if task == "all" else scp[scp["diagnostic" if task.endswith("diagnostic") else task] == 1]
    table = pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")
    codes = table.scp_codes.apply(ast.literal_eval)
    return {
        str(ecg_id): {chosen[column][code] if column else code for code in of_record if code in chosen.index}
        for ecg_id, of_record in codes.items()
    }


@needs_shared
@pytest.mark.parametrize("task", ["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm"])
def test_labels_of_the_real_records(task):
    for folder, step in (("ptbxl", 1), ("ptbxl_filtered", 20)):
        expected = labels_from_the_tables(SHARED / folder, task)
        statements = read_scp_statements(SHARED / folder)
        rows = ptb_xl._rows(SHARED / folder, None, None, "filename_lr")[::step]
        for row in rows:
            metadata = ptb_xl._metadata(row, statements, task)
            assert list(metadata["labels"]) == sorted(expected[row["ecg_id"]])


@needs_shared
def test_folds_patients_and_rates_of_the_real_records():
    splits = {split: read(SHARED / "ptbxl", split) for split in ptb_xl.FOLDS}
    assert {split: len(records) for split, (records, _) in splits.items()} == {
        "train": 169,
        "validation": 52,
        "test": 39,
    }
    patients = [{record.patient_id for record in records} for records, _ in splits.values()]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert not any("." in patient for patient in set.union(*patients))
    assert not any(report.rejected for _, report in splits.values())
    first = next(iter_records(SHARED / "ptbxl", report=LoadReport("ptb_xl")))
    assert first.signal.shape == (12, 5000) and first.sampling_rate == 500
    assert first.report == "sinusrhythmus periphere niederspannung" and first.sex == "female"
    assert first.statements[0] == "normal ECG"  # NORM 100; LVOLT and SR 0
