"""PTB-XL: the six label tasks, folds, demographics and rejects, on a tiny folder in its layout."""

import pickle

import numpy as np
import pytest
import wfdb

from datasets_scripts import ptb_xl
from datasets_scripts.load_report import LoadReport
from datasets_scripts.ptb_xl import label_names, list_entries, tables
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import iter_records, list_split

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
11,9.0,40.0,0,x,"{'NORM': 100.0}",0,records100/1_lr,
12,9.0,40.0,0,x,"{'NORM': 100.0}",2.5,records100/1_lr,
13,9.0,old,0,x,"{'NORM': 100.0}",8,records100/1_lr,
14,9.0,40.0,0,x, with a comma,"{'NORM': 100.0}",10,records100/1_lr,
15,9.0,40.0
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
    return list(iter_records(ptb_xl, folder, split, report=report, sampling_rate=100, **options)), report


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
    assert report.num_read == 15 and len(reasons) == len(report.rejected) == 11
    for record_id, words in {
        "5": "inside the data set's folder",
        "6": "expected a mapping",
        "7": "['XYZ'] are not in",
        "8": "no such file",
        "9": "expected 100 Hz, got a header that says 250 Hz",
        "10": "names no file at 100 Hz",
        "11": "strat_fold: expected a number from 1 to 10, got '0'",
        "12": "strat_fold: expected a number from 1 to 10, got '2.5'",
        "13": "age: expected a number of years",
        "14": "row 14 of ptbxl_database.csv: expected 9 values, got 10",
        "15": "expected 9 values, got 3; put values that hold commas in quotes",
    }.items():
        assert words in reasons[record_id]
    assert {path.name for path in tables(folder)} == {"ptbxl_database.csv", "scp_statements.csv"}


def test_a_broken_row_depends_on_its_table_and_what_it_names_is_not_looked_at(folder):
    entries = {entry.record_id: entry for entry in list_entries(folder, sampling_rate=100)}
    assert entries["1"].files == (f"{folder}/records100/1_lr.hea", f"{folder}/records100/1_lr.dat")
    assert entries["5"].path == f"{folder}/../outside"  # as the report tells it
    for record_id in ("5", "6", "7", "10", "11"):
        assert entries[record_id].files == (f"{folder}/ptbxl_database.csv",) and entries[record_id].problem
    assert entries["8"].problem is None  # only reading tells


def test_an_entry_is_read_by_any_process_from_itself_alone(folder):
    entries = list(list_entries(folder, sampling_rate=100))
    assert all(isinstance(entry.path, str) and entry.index is None for entry in entries)
    again = ptb_xl.read_entry(pickle.loads(pickle.dumps(entries[0])), sampling_rate=100, task="all", folds=None)
    assert again.statements[0] == "left ventricular hypertrophy" and again.record_id == "1"


def test_splits_and_folds(folder):
    ids = {split: [record.record_id for record in read(folder, split)[0]] for split in ptb_xl.FOLDS}
    assert ids == {"train": ["1", "4"], "validation": ["2"], "test": ["3"]}
    assert [record.record_id for record in read(folder)[0]] == ["1", "2", "3", "4"]
    for bad in ([], [11], ["9"]):
        with pytest.raises(ValueError, match="numbers from 1 to 10"):
            read(folder, folds=bad)
    with pytest.raises(ValueError, match="train, validation, test"):
        read(folder, "dev")


def test_of_folds_only_their_records_are_listed_each_in_its_own_split(folder):
    def listed(**options):
        entries = list_split(ptb_xl, folder, sampling_rate=100, **options)
        return [(entry.record_id, entry.split) for entry in entries if entry.problem is None]

    assert listed(folds=[9, 10]) == [("2", "validation"), ("3", "test")]
    assert listed(folds=[9, 10], split="train") == [] and listed(folds=[1, 9], split="train") == [("1", "train")]
    assert [record.record_id for record in read(folder, folds=[1, 10])[0]] == ["1", "3"]
    # nobody knows the fold of these: they are told whatever is asked for
    assert [r.record_id for r in read(folder, folds=[10])[1].rejected] == ["11", "12", "14", "15"]


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
    assert [record.record_id for record in kept] == ["1", "2"] and report.filtered == {"labelled_only": 8}
    with pytest.raises(ValueError, match="superdiagnostic"):
        read(folder, task="super")


def test_fact_13_sex_codes_age_300_and_likelihood_0(folder):
    first, second, third, _ = read(folder, task="all")[0]
    assert (first.sex, second.sex, third.sex) == ("female", "male", None)  # 1, 0, nothing
    assert second.age == 90 and findings_text(second.statements, second.age, second.sex).startswith(
        "This patient is an over 89 year-old Male."
    )
    assert first.labels == ("LVH", "NDT", "SR")  # NDT and SR have a likelihood of 0
    assert read(folder)[0][0].labels == ("HYP", "STTC")  # STTC by NDT alone


def test_missing_files_and_options(folder, tmp_path):
    with pytest.raises(ValueError, match="filename_hr, got none; try sampling_rate=100"):
        list_entries(folder)
    with pytest.raises(ValueError, match="100 and 500 Hz, got 250"):
        list_entries(folder, sampling_rate=250)
    with pytest.raises(ValueError, match="data_dir"):
        label_names("all")
    with pytest.raises(FileNotFoundError, match="as published on PhysioNet"):
        label_names("all", tmp_path / "gone")
    (folder / "ptbxl_database.csv").write_text("ecg_id,report\n1,x\n")
    with pytest.raises(ValueError, match="scp_codes"):
        read(folder)
