"""LUDB in its published layout, made small: findings of the table and of the headers say the same."""

import csv

import numpy as np
import pytest
import wfdb

from datasets_scripts import ludb
from datasets_scripts.load_report import LoadReport
from datasets_scripts.ludb import FINDING_COLUMNS, label_names, label_prompts, list_entries, plain_statement
from datasets_scripts.sources import SPLITS, check_options, iter_records, list_split, split_of

LEADS = ["i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6"]
COLUMNS = ["ID", "Sex", "Age", *FINDING_COLUMNS]
# the findings of each record by column, as the table holds them: a finding a line, and a line break at the end
FINDINGS = {
    "1": {
        "Rhythms": ["Sinus bradycardia"],
        "Electric axis of the heart": ["Electric axis of the heart: left axis deviation"],
        "Hypertrophies": ["Left ventricular hypertrophy", "Left atrial hypertrophy"],
        "Non-specific repolarization abnormalities": ["Non-specific repolarization abnormalities: posterior wall"],
    },
    "2": {
        "Rhythms": ["Atrial fibrillation"],
        "Electric axis of the heart": ["Electric axis of the heart: vertical"],
        "Conduction abnormalities": ["III degree AV-block", "Non-specific intravintricular conduction delay"],
        "Cardiac pacing": ["UNIpolar ventricular pacing"],
        "Ischemia": ["STEMI: anterior wall", "Undefined ischemia/scar/supp.NSTEMI: lateral wall"],
    },
    "11": {"Rhythms": ["Sinus rhythm"], "Conduction abnormalities": ["I degree AV block"]},
}
AGES, SEXES = {"1": "51", "2": ">89", "11": "64"}, {"1": "F", "2": "M", "11": "M"}
STATEMENTS = {
    "1": (
        "sinus bradycardia",
        "left axis deviation",
        "left ventricular hypertrophy",
        "left atrial hypertrophy",
        "non-specific repolarization abnormalities: posterior wall",
    ),
    "2": (
        "atrial fibrillation",
        "vertical electrical axis",
        "third degree AV block",
        "non-specific intraventricular conduction delay",
        "unipolar ventricular pacing",
        "STEMI: anterior wall",
        "undefined ischemia/scar/supposed NSTEMI: lateral wall",
    ),
    "11": ("sinus rhythm", "first degree AV block"),
}


def write_recording(folder, number, comments=None):
    """As published: `<age>`, `<sex>` and `<diagnoses>` in comments, then one finding a line with a full stop."""
    rng = np.random.default_rng(int(number))
    one, two = rng.integers(-400, 400, size=(2, 43)) * 2
    limb = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    said = [finding for findings in FINDINGS[number].values() for finding in findings]
    said = [f"Rhythm: {said[0]}.", *(f"{finding}." for finding in said[1:])]
    if comments is None:
        comments = [f"<age>: {AGES[number]}", f"<sex>: {SEXES[number]}", "<diagnoses>:", *said]
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        number,
        fs=500,
        units=["mV"] * 12,
        sig_name=LEADS,
        d_signal=np.stack([*limb, *rng.integers(-900, 900, size=(6, 43))]).T,
        fmt=["16"] * 12,
        adc_gain=[1322.0] * 12,
        baseline=[0] * 12,
        comments=comments,
        write_dir=str(folder),
    )
    wfdb.wrann(number, "ii", np.array([7]), symbol=["N"], write_dir=str(folder))  # beside the header, as published


def table_row(number):
    cells = ["".join(f"{finding}\n" for finding in FINDINGS[number].get(column, ())) for column in FINDING_COLUMNS]
    return [number, f"{SEXES[number]}\n", f"{AGES[number]}\n", *cells]


def write_table(folder, rows, columns=COLUMNS):
    with (folder / "ludb.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def folder(tmp_path):
    for number in FINDINGS:
        write_recording(tmp_path / "data", number)
    write_table(tmp_path, [table_row(number) for number in FINDINGS])
    return tmp_path


def read(folder, **options):
    report = LoadReport("ludb")
    return {record.record_id: record for record in iter_records(ludb, folder, report=report, **options)}, report


def told(record):
    return record.patient_id, record.age, record.sex, record.statements, record.labels


def test_records_of_the_published_layout(folder):
    records, report = read(folder)
    assert list(records) == ["1", "2", "11"] and not report.rejected
    assert {number: record.statements for number, record in records.items()} == STATEMENTS
    assert (records["1"].patient_id, records["1"].age, records["1"].sex) == ("1", 51.0, "female")
    assert (records["2"].age, records["2"].sex) == (90.0, "male")  # >89
    record = records["1"]
    assert list(record.leads) == LEADS and record.sampling_rate == 500 and record.repairs == ()
    expected = wfdb.rdrecord(str(folder / "data" / "1")).p_signal.T
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)
    np.testing.assert_allclose(record.signal[1], record.signal[0] + record.signal[2], atol=1e-6)  # II = I + III


def test_table_and_comments_tell_the_same(folder):
    by_table, _ = read(folder)
    by_comments, report = read(folder / "data")  # the folder of the headers itself: no table there
    assert not report.rejected and ludb.tables(folder / "data") == () and ludb.tables(folder) == (folder / "ludb.csv",)
    for number, record in by_table.items():
        assert told(by_comments[number]) == told(record)
        np.testing.assert_array_equal(by_comments[number].digital, record.digital)


def test_a_record_that_the_table_does_not_know_is_told(folder):
    write_table(folder, [table_row("2")])
    records, _ = read(folder)
    assert records["1"].repairs == ("not_in_table: findings are those of the header's comments",)
    assert records["1"].statements == STATEMENTS["1"] and records["2"].repairs == ()


@pytest.mark.parametrize(
    ("finding", "statement"),
    [
        ("Rhythm: Sinus rhythm.", "sinus rhythm"),
        ("Electric axis of the heart: normal.", "normal electrical axis"),
        ("Electric axis of the heart: right axis deviation", "right axis deviation"),
        ("Electric axis of the heart:", ""),
        ("I degree AV block", "first degree AV block"),
        ("Iii degree av-block", "third degree AV block"),
        ("Non- specific  repolarization abnormalities: septal", "non-specific repolarization abnormalities: septal"),
        ("Stemi: apical", "STEMI: apical"),
        ("BIpolar ventricular pacing", "bipolar ventricular pacing"),
        ("P-synchrony", "P-synchrony"),
        ("Atrial extrasystole, type: single PAC", "atrial extrasystole, type: single PAC"),
        ("   ", ""),
    ],
)
def test_findings_in_plain_words(finding, statement):
    assert plain_statement(finding) == statement


def test_labels_of_each_task(folder):
    labels = {task: [record.labels for record in read(folder, task=task)[0].values()] for task in ludb.TASKS}
    assert labels["rhythm"] == [("sinus bradycardia",), ("atrial fibrillation",), ("sinus rhythm",)]
    assert labels["axis"] == [("left axis deviation",), ("vertical electrical axis",), ()]
    assert labels["conduction"][1] == ("third degree AV block", "non-specific intraventricular conduction delay")
    assert labels["hypertrophy"] == [("left ventricular hypertrophy", "left atrial hypertrophy"), (), ()]
    assert labels["all"][0] == labels["rhythm"][0] + labels["axis"][0] + labels["hypertrophy"][0]
    by_comments = read(folder / "data", task="rhythm")[0]
    assert [record.labels for record in by_comments.values()] == labels["rhythm"]


def test_label_names_and_prompts():
    sizes = {task: len(label_names(task=task)) for task in ludb.TASKS}
    assert sizes == {"all": 28, "rhythm": 7, "axis": 5, "conduction": 9, "hypertrophy": 7}
    prompts = label_prompts(task="conduction")
    assert list(prompts) == label_names(task="conduction")
    assert prompts["left anterior hemiblock"] == [
        "ECG Findings: left anterior hemiblock.",
        "ECG Findings: left anterior fascicular block.",
    ]
    for ask in (label_names, label_prompts, lambda task: list_entries(None, task=task)):
        with pytest.raises(ValueError, match="task: expected one of all, rhythm, axis, conduction, hypertrophy"):
            ask(task="waves")
    check_options(ludb, {"task": "all"})


def test_every_record_is_a_subject_in_one_split(folder):
    assert [(e.record_id, e.split) for e in list_entries(folder)] == [(n, split_of(n)) for n in ("1", "2", "11")]
    assert sum(len(list(list_split(ludb, folder, split))) for split in SPLITS) == 3


def test_rows_that_cannot_be_kept_are_named(folder):
    bad_age, bad_sex = table_row("2"), table_row("11")
    bad_age[2], bad_sex[1] = "old", "?"
    rows = [table_row("1"), table_row("1"), bad_age, bad_sex, ["../1", *table_row("1")[1:]], ["3", "F"]]
    write_table(folder, rows)
    records, report = read(folder)
    assert list(records) == ["1"]
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    expected = {
        "1": "expected one row for each record, got 1 again",
        "2": "age: expected a number of years or nothing, got 'old'",
        "11": "sex: expected m, male",
        "../1": "ID: expected a number such as 1, got '../1'",
        "3": "expected 12 values, got 2",
    }
    assert set(reasons) == set(expected) and all(words in reasons[name] for name, words in expected.items())


def test_missing_files_and_strange_headers(folder):
    (folder / "data" / "2.dat").unlink()
    (folder / "data" / "11.hea").unlink()
    (folder / "data" / "copy.hea").write_text("copy 1 500 10\n")
    records, report = read(folder)
    assert list(records) == ["1"]
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert "2.dat: no such file" in reasons["2"] and "11.hea: no such file" in reasons["11"]
    assert "expected a header named by a number, such as 1.hea, got 'copy'" in reasons["copy"]


def test_comments_that_make_no_sense_are_refused(folder):
    write_recording(folder / "data", "1", comments=["<age>: old", "<sex>: F", "<diagnoses>:"])
    records, report = read(folder / "data")
    assert list(records) == ["2", "11"] and "age: expected a number of years" in report.rejected[0].reason
    write_recording(folder / "data", "1", comments=["recorded in 2017"])
    record = read(folder / "data")[0]["1"]
    assert told(record) == ("1", None, None, (), ())


def test_an_axis_without_its_name_is_told_the_same(folder):
    row = table_row("1")
    row[COLUMNS.index("Electric axis of the heart")] = "Left axis deviation\r\n"
    write_table(folder, [row])
    assert read(folder)[0]["1"].statements == STATEMENTS["1"]


def test_tables_and_folders_that_are_none(folder, tmp_path_factory):
    write_table(folder, [["1", "F", "51"]], ["ID", "Sex", "Age"])
    with pytest.raises(ValueError, match="expected the columns ID, Rhythms, .*, got ID, Sex, Age"):
        list_entries(folder)
    with pytest.raises(FileNotFoundError, match="data_dir must be LUDB's folder"):
        list_entries(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ValueError, match="data_dir: expected LUDB's folder"):
        list_entries(None)
