"""MIMIC-IV-ECG in its published layout, made small: statements, ages, splits, and every row that cannot be kept."""

import csv
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import mimic_iv_ecg
from datasets_scripts.load_report import LoadReport
from datasets_scripts.mimic_iv_ecg import (
    REPORT_COLUMNS,
    Patient,
    age_of,
    count_words,
    join_statements,
    list_entries,
    machine_report,
)
from datasets_scripts.sources import SPLITS, check_options, iter_records, list_split, split_of

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
STATEMENTS = SHARED / "mimic_statements.txt"

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # as MIMIC orders them
RECORD_COLUMNS = ["subject_id", "study_id", "file_name", "ecg_time", "path"]
OTHER_COLUMNS = ["bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"]
OTHER_COLUMNS += ["p_axis", "qrs_axis", "t_axis"]
STATEMENT_COLUMNS = ["subject_id", "study_id", "cart_id", "ecg_time", *REPORT_COLUMNS, *OTHER_COLUMNS]
OTHER_VALUES = ["0.005-150 Hz", "60 Hz notch, Baseline filter", 659, 40, 128, 170, 258, 518, 81, 77, 75]
TIME = "2180-07-23 08:44:00"


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def place(subject, study):
    return f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"


def record_row(subject, study, time=TIME, path=None):
    return [subject, study, study, time, place(subject, study) if path is None else path]


def statement_row(subject, study, *statements):
    return [subject, study, 6848296, TIME, *statements, *[""] * (18 - len(statements)), *OTHER_VALUES]


def write_recording(folder, subject, study, num_samples=37, rate=500):
    """A valid record with limb leads that keep Einthoven's law, the leads in MIMIC's order."""
    rng = np.random.default_rng(study)
    one, two = rng.integers(-800, 800, size=(2, num_samples)) * 2
    limb = [one, two, two - one, -(one + two) // 2, two - one // 2, one - two // 2]  # I II III aVR aVF aVL
    chest = rng.integers(-900, 900, size=(6, num_samples))
    target = folder / Path(place(subject, study)).parent
    target.mkdir(parents=True)
    wfdb.wrsamp(
        str(study),
        fs=rate,
        units=["mV"] * 12,
        sig_name=LEADS,
        d_signal=np.stack([*limb, *chest]).T,
        fmt=["16"] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        comments=[f"<subject_id>: {subject}"],
        write_dir=str(target),
    )


@pytest.fixture
def folder(tmp_path):
    """Four recordings of three patients, one of them without statements."""
    rows = [(10000032, 40689238), (10000032, 44458630), (10000117, 49036311), (10009999, 45000007)]
    write_csv(tmp_path / "record_list.csv", RECORD_COLUMNS, [record_row(*row) for row in rows])
    said = [
        statement_row(*rows[2], "Sinus rhythm", " Possible  anterior infarct - age undetermined ", "", "Abnormal ECG"),
        statement_row(*rows[0], "Sinus bradycardia", "nan", "A-V dissociation.", "Borderline ECG"),
        statement_row(*rows[1], "Atrial fibrillation"),
    ]
    write_csv(tmp_path / "machine_measurements.csv", STATEMENT_COLUMNS, said)
    for row in rows:
        write_recording(tmp_path, *row)
    return tmp_path


def write_patients(folder, rows, header=("subject_id", "gender", "anchor_age", "anchor_year", "dod")):
    write_csv(folder / "patients.csv", header, rows)
    return folder / "patients.csv"


def read(folder, **options):
    report = LoadReport("mimic_iv_ecg")
    return {record.record_id: record for record in iter_records(mimic_iv_ecg, folder, report=report, **options)}, report


def problems(folder, **options):
    return {entry.record_id: entry.problem for entry in list_entries(folder, **options) if entry.problem}


# ----- records -------------------------------------------------------------------------------------------------------


def test_records_of_the_published_layout(folder):
    records, report = read(folder)
    assert list(records) == ["40689238", "44458630", "49036311", "45000007"] and not report.rejected
    record = records["40689238"]
    assert (record.patient_id, record.age, record.sex, record.labels) == ("10000032", None, None, ())
    assert record.statements == ("Sinus bradycardia", "A-V dissociation.", "Borderline ECG")
    assert record.report == "Sinus bradycardia. A-V dissociation. Borderline ECG."
    assert records["49036311"].statements[1] == "Possible  anterior infarct - age undetermined"
    assert record.digital.dtype == np.int16 and record.sampling_rate == 500
    expected = wfdb.rdrecord(str(folder / place(10000032, 40689238))).p_signal.T
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)


def test_leads_are_known_by_name_where_mimic_swaps_avf_and_avl(folder):
    record = read(folder)[0]["44458630"]
    lead = dict(zip(record.leads, record.signal, strict=True))
    assert list(record.leads[3:6]) == ["aVR", "aVF", "aVL"]
    np.testing.assert_allclose(lead["aVF"], lead["II"] - lead["I"] / 2, atol=1e-6)
    np.testing.assert_allclose(lead["aVL"], lead["I"] - lead["II"] / 2, atol=1e-6)


def test_a_recording_without_statements_says_so(folder):
    records, _ = read(folder)
    assert records["45000007"].repairs == ("no_machine_measurements",)
    assert (records["45000007"].report, records["45000007"].statements) == ("", ())
    assert records["40689238"].repairs == ()


def test_entries_are_small_and_name_their_files(folder):
    entries = list(list_entries(folder))
    assert pickle.loads(pickle.dumps(entries)) == entries
    assert entries[0].path == str(folder / place(10000032, 40689238))
    assert entries[0].files == (f"{entries[0].path}.hea", f"{entries[0].path}.dat")
    assert mimic_iv_ecg.tables(folder) == (folder / "record_list.csv", folder / "machine_measurements.csv")
    assert mimic_iv_ecg.tables(folder, patients="p.csv", min_words=4)[2] == Path("p.csv")
    check_options(mimic_iv_ecg, {"patients": None, "min_words": 4, "age": "anchor"})


def test_patients_stay_in_one_split(folder):
    found = {split: {e.fields["patient_id"] for e in list_split(mimic_iv_ecg, folder, split)} for split in SPLITS}
    assert sum(map(len, found.values())) == 3 and set().union(*found.values()) == {"10000032", "10000117", "10009999"}
    assert all(entry.split == split_of(entry.fields["patient_id"]) for entry in list_entries(folder))


def test_there_are_no_labels():
    for ask in (mimic_iv_ecg.label_names, mimic_iv_ecg.label_prompts):
        with pytest.raises(ValueError, match="machine reports only"):
            ask(patients=None)
    assert mimic_iv_ecg.FACTS.license == "odbl" and not mimic_iv_ecg.FACTS.statements_are_labels
    assert mimic_iv_ecg.FACTS.credentialed_fields == {"patients": ("age", "sex")}


# ----- statements and words ------------------------------------------------------------------------------------------


def test_statements_are_cleaned_and_joined():
    report = machine_report(["  Sinus rhythm ", "", "   ", "nan", "*** CONSIDER ACUTE ST ELEVATION MI ***", "Why?"])
    assert report.statements == ("Sinus rhythm", "*** CONSIDER ACUTE ST ELEVATION MI ***", "Why?")
    assert report.text == "Sinus rhythm. *** CONSIDER ACUTE ST ELEVATION MI ***. Why?"
    assert join_statements(()) == machine_report([""] * 18).text == ""


@pytest.mark.parametrize(
    ("cells", "num_words"),
    [
        ([], 0),
        (["Sinus rhythm"], 2),
        (["Sinus rhythm", "Normal ECG"], 4),
        (["*** Atrial fibrillation ***"], 2),  # asterisks at both ends are taken off
        (["Sinus rhythm", "** Borderline ECG **"], 5),  # the inner ones stand alone between spaces: a word
        (["=== Atrial flutter ==="], 2),
        (["Pacemaker rhythm -"], 2),
        (["Sinus rhythm", " ", "Normal ECG"], 5),  # a cell of one space is not empty to pandas: its ". " is a word
    ],
)
def test_words_are_counted_as_merl_counts_them(cells, num_words):
    assert count_words(cells) == num_words


def test_min_words_leaves_out_short_reports_and_tells(folder):
    assert {e.record_id: e.left_out_by for e in list_entries(folder, min_words=4)} == {
        "40689238": None,
        "44458630": "min_words",
        "49036311": None,
        "45000007": "min_words",
    }
    records, report = read(folder, min_words=4)
    assert list(records) == ["40689238", "49036311"] and report.filtered == {"min_words": 2} and report.num_read == 4
    assert len(read(folder, min_words=7)[0]) == 1 and len(read(folder, min_words=2)[0]) == 3
    with pytest.raises(ValueError, match="min_words: expected a number of words from 0 on, got -1"):
        list_entries(folder, min_words=-1)


@pytest.mark.skipif(not STATEMENTS.is_file(), reason="the file ../shared/data/mimic_statements.txt is absent")
def test_real_statements_survive_as_they_are(tmp_path):
    """Every real statement comes back word for word, and counts as pandas and MERL's definition count it."""
    import pandas as pd

    statements = STATEMENTS.read_text(encoding="utf-8").splitlines()
    groups = [statements[start : start + 1 + start % 7] for start in range(0, len(statements), 3)]
    rows = [(1000 + index // 5, 5000 + index) for index in range(len(groups))]
    write_csv(tmp_path / "record_list.csv", RECORD_COLUMNS, [record_row(*row) for row in rows])
    said = [statement_row(*row, *group) for row, group in zip(rows, groups, strict=True)]
    write_csv(tmp_path / "machine_measurements.csv", STATEMENT_COLUMNS, said)
    entries = list(list_entries(tmp_path, min_words=4))
    assert [list(entry.fields["statements"]) for entry in entries] == [[s.strip() for s in g] for g in groups]
    table = pd.read_csv(tmp_path / "machine_measurements.csv")[list(REPORT_COLUMNS)]
    joined = [". ".join(row.dropna()).strip(" *").strip("=-").lower() for _, row in table.iterrows()]
    kept = [entry.left_out_by is None for entry in entries]
    assert kept == [len(text.split()) >= 4 for text in joined] and 0 < sum(kept) < len(kept)


# ----- age and sex ---------------------------------------------------------------------------------------------------


def test_fact_14_age_at_the_recording_is_anchor_age_plus_the_years_between(folder):
    patients = write_patients(folder, [[10000032, "F", 52, 2178, ""], [10000117, "M", 48, 2183, ""]])
    records, _ = read(folder, patients=patients)
    assert (records["40689238"].age, records["40689238"].sex) == (54.0, "female")  # 52 + 2180 - 2178
    assert (records["49036311"].age, records["49036311"].sex) == (45.0, "male")  # 48 + 2180 - 2183
    anchor, _ = read(folder, patients=patients, age="anchor")  # as the paper's template took it
    assert (anchor["40689238"].age, anchor["49036311"].age) == (52.0, 48.0)


@pytest.mark.parametrize(
    ("patient", "time", "age", "unknown"),
    [
        (Patient("male", 91.0, 2150), None, 90.0, ""),  # 91 stands for over 89
        (Patient("male", 91.0, 2150), "2160-01-01 00:00:00", 90.0, ""),
        (Patient("male", 85.0, 2150), "2160-01-01", 90.0, ""),
        (Patient("male", 85.0, 2150), "2154-12-31", 89.0, ""),
        (Patient("male", 91.0, 2150), "2147-01-01", None, "over 89 in 2150, recorded 3 years before"),
        (Patient("male", 2.0, 2150), "2140-01-01", None, "-8 years"),
        (Patient("male", None, 2150), "2140-01-01", None, "no anchor_age"),
        (Patient("male", 30.0, None), "2140-01-01", None, "no anchor_year"),
        (Patient("male", 30.0, 2150), "soon", None, "ecg_time 'soon'"),
    ],
)
def test_ages_over_89_and_ages_that_cannot_be_known(patient, time, age, unknown):
    assert age_of(patient, time) == (age, unknown)


def test_a_patient_who_is_not_in_the_table_is_kept_and_told(folder):
    patients = write_patients(folder, [[10000032, "F", 91, 2183, ""]])
    records, report = read(folder, patients=patients)
    assert not report.rejected and records["49036311"].repairs == ("patient_not_in_table",)
    assert (records["49036311"].age, records["49036311"].sex) == (None, None)
    assert records["40689238"].repairs == ("age_not_known: over 89 in 2183, recorded 3 years before",)
    assert records["40689238"].sex == "female"


def test_a_table_of_patients_without_anchor_year_gives_the_anchor_age_only(folder):
    patients = write_patients(folder, [[10000032, "F", 52]], header=("subject_id", "gender", "anchor_age"))
    with pytest.raises(ValueError, match="got no anchor_year, without which .* pass .* age='anchor'"):
        list_entries(folder, patients=patients)
    assert read(folder, patients=patients, age="anchor")[0]["40689238"].age == 52.0
    with pytest.raises(ValueError, match="age: expected one of recording, anchor, got 'birth'"):
        list_entries(folder, age="birth")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, "F", "old", 2150, ""]], "row 1: age: expected a number of years"),
        ([[1, "X", 30, 2150, ""]], "row 1: sex: expected m, male"),
        ([[1, "F", 30, "21", ""]], "row 1: anchor_year: expected a year of four digits, got '21'"),
        ([[1, "F", 30, 2150, ""], [1, "M", 30, 2150, ""]], "row 2: expected one row for each patient"),
        ([[1, "F", 30]], "expected 5 values, got 3"),
    ],
)
def test_a_table_of_patients_that_makes_no_sense_is_refused(folder, rows, words):
    with pytest.raises(ValueError, match=words):
        list_entries(folder, patients=write_patients(folder, rows))


def test_a_table_of_patients_that_is_missing_or_packed(folder):
    with pytest.raises(FileNotFoundError, match="patients must be MIMIC-IV's patients.csv"):
        list_entries(folder, patients=folder / "gone.csv")
    with pytest.raises(ValueError, match="unpack it with gunzip"):
        list_entries(folder, patients=folder / "patients.csv.gz")


# ----- what cannot be kept -------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_kept_are_named(folder):
    rows = [
        record_row(10000032, 40689238),
        record_row(10000032, 40689238),
        record_row(10000117, 3, path=""),
        record_row(10000117, 4, path="../outside/4"),
        record_row(10000117, 5, path="/etc/passwd"),
        record_row(10000117, 6, path="https://example.org/6"),
        record_row("", 7, path="files/7"),
        record_row(10000117, "", path="files/8"),
        [10000117, 9],
    ]
    write_csv(folder / "record_list.csv", RECORD_COLUMNS, rows)
    entries = list(list_entries(folder))
    found = [(entry.record_id, entry.problem) for entry in entries if entry.problem]
    assert len(entries) == 9 and len(found) == 8 and entries[0].problem is None
    expected = {
        "40689238": "expected each study once, got 40689238 again",
        "3": "expected a path, got none",
        "4": "inside the data set's folder, got '../outside/4'; it is not opened",
        "5": "it is not opened",
        "6": "it is not opened",
        "7": "row 7 of record_list.csv: expected a subject_id, got none",
        "row 8": "expected a study_id, got none",
        "row 9": "expected 5 values, got 2",
    }
    assert [name for name, _ in found] == list(expected)
    assert all(words in problem for (_, problem), words in zip(found, expected.values(), strict=True))
    assert all(entry.files == (str(folder / "record_list.csv"),) for entry in entries if entry.problem)


def test_a_missing_recording_and_one_cut_short_are_rejected_with_their_path(folder):
    path = folder / place(10000032, 40689238)
    path.with_suffix(".hea").unlink()
    cut = folder / f"{place(10000117, 49036311)}.dat"
    cut.write_bytes(cut.read_bytes()[:100])
    records, report = read(folder)
    assert list(records) == ["44458630", "45000007"]
    reasons = {rejection.record_id: rejection for rejection in report.rejected}
    assert "no such file" in reasons["40689238"].reason and reasons["40689238"].path == str(path)
    assert "37 samples" in reasons["49036311"].reason


def test_statements_told_twice(folder):
    """The same again is nothing new; something else makes the study a problem."""
    table = folder / "machine_measurements.csv"
    rows = list(csv.reader(table.open(newline="")))
    again, other = rows[1], [*rows[2][:4], "Normal ECG", *rows[2][5:]]
    write_csv(table, rows[0], [*rows[1:], again, other])
    assert problems(folder) == {
        "40689238": "machine_measurements.csv: expected one report of study 40689238, got different ones"
    }


def test_rows_of_statements_that_belong_to_no_study_are_told(folder):
    with (folder / "machine_measurements.csv").open("a", newline="") as file:
        csv.writer(file).writerows([[10009999, 45000007, "cut"], statement_row(10009999, "", "Normal ECG")])
    found = problems(folder)
    assert list(found) == ["machine_measurements.csv row 4", "machine_measurements.csv row 5"]
    assert "expected 33 values, got 3" in found["machine_measurements.csv row 4"]
    assert "expected a study_id, got none" in found["machine_measurements.csv row 5"]
    assert len(read(folder)[0]) == 4


def test_tables_without_their_columns(folder):
    rows = list(csv.reader((folder / "machine_measurements.csv").open(newline="")))
    write_csv(folder / "machine_measurements.csv", rows[0][:20], [row[:20] for row in rows[1:]])  # to report_15
    records, _ = read(folder)
    assert records["40689238"].repairs == ("missing_columns: report_16, report_17",)
    write_csv(folder / "machine_measurements.csv", rows[0][:4], [row[:4] for row in rows[1:]])
    with pytest.raises(ValueError, match="expected the columns report_0 to report_17, got subject_id, study_id"):
        list_entries(folder)
    write_csv(folder / "machine_measurements.csv", rows[0], rows[1:])
    write_csv(folder / "record_list.csv", ["subject_id", "study_id"], [[1, 2]])
    with pytest.raises(ValueError, match="expected the columns subject_id, study_id, path, got subject_id, study_id"):
        list(list_entries(folder))


def test_missing_tables(folder):
    with pytest.raises(ValueError, match="data_dir: expected MIMIC-IV-ECG's folder"):
        list_entries(None)
    (folder / "machine_measurements.csv").unlink()
    with pytest.raises(FileNotFoundError, match="machine_measurements.csv: no such file; data_dir must be"):
        list_entries(folder)
    (folder / "record_list.csv").unlink()
    with pytest.raises(FileNotFoundError, match="record_list.csv: no such file"):
        list(list_entries(folder))


def test_identifiers_written_as_decimals_are_the_same(folder):
    rows = list(csv.reader((folder / "record_list.csv").open(newline="")))
    write_csv(folder / "record_list.csv", rows[0], [[f"{row[0]}.0", f"{row[1]}.0", *row[2:]] for row in rows[1:]])
    assert list(read(folder)[0]) == ["40689238", "44458630", "49036311", "45000007"]


# ----- size ----------------------------------------------------------------------------------------------------------

LISTING = """
    import resource, sys
    from datasets_scripts.mimic_iv_ecg import list_entries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    entries = list_entries(sys.argv[1], patients=sys.argv[2], min_words=4)
    kept = sum(entry.left_out_by is None for entry in entries)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sys.stdout.write(f"{kept} {grown / 1024:.0f}")
"""


def list_many(folder, num_studies):
    """How many of `num_studies` rows are kept, and by how many MB a fresh process grows over them."""
    rng = np.random.default_rng(0)
    words = np.array(["Sinus rhythm", "Normal ECG", "Possible anterior infarct", "Left axis deviation", "PACs"])
    reports = [list(rng.choice(words, size=rng.integers(1, 9))) for _ in range(num_studies * 9 // 40)]
    ids = [(10_000_000 + index // 5, 40_000_000 + index) for index in range(num_studies)]
    write_csv(folder / "record_list.csv", RECORD_COLUMNS, (record_row(*row) for row in ids))
    said = (statement_row(*row, *reports[index % len(reports)]) for index, row in enumerate(ids))
    write_csv(folder / "machine_measurements.csv", STATEMENT_COLUMNS, said)
    patients = write_patients(folder, [[subject, "F", 40, 2170, ""] for subject in {subject for subject, _ in ids}])
    command = [sys.executable, "-c", textwrap.dedent(LISTING), str(folder), str(patients)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    kept, grown = done.stdout.split()
    return int(kept), int(grown)


def test_listing_holds_little_of_its_tables(tmp_path):
    kept, grown = list_many(tmp_path, 20_000)
    assert 15_000 < kept < 20_000 and grown < 40


@pytest.mark.slow
def test_listing_the_whole_set_holds_less_than_half_a_gigabyte(tmp_path):
    kept, grown = list_many(tmp_path, 800_035)
    assert 600_000 < kept < 800_035 and grown < 512
