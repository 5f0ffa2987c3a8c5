"""PhysioNet/CinC Challenge 2021 and the Chapman-Shaoxing-Ningbo release: layouts, sets, splits, codes, odd headers."""

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import physionet2021, snomed
from datasets_scripts.load_report import LoadReport
from datasets_scripts.readers.wfdb_records import read_wfdb_record
from datasets_scripts.sources import iter_records, split_of

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not (SHARED / "physionet2021").is_dir(), reason="needs ../shared/data/physionet2021")


def write_record(
    folder: Path,
    name: str,
    codes: str = "426783006",
    *,
    age: str = "57",
    sex: str = "Female",
    sampling_rate: int = 500,
    digital: np.ndarray | None = None,
    gain: str = "1000/mV",
    signals: str | None = None,
) -> np.ndarray:
    """A record as the Challenge writes it: MATLAB v4 int16 `val (12, num_samples)` and its header."""
    if digital is None:
        rng = np.random.default_rng(sum(name.encode()))
        digital = rng.integers(-900, 900, (len(LEADS), 37), dtype=np.int16)
    signals = f"{name}.mat" if signals is None else signals
    folder.mkdir(parents=True, exist_ok=True)
    matlab_header = struct.pack("<5i4s", 30, *digital.shape, 0, 4, b"val\0")
    (folder / signals).write_bytes(matlab_header + digital.T.astype("<i2").tobytes())  # (12, n) column by column
    lines = [f"{name} 12 {sampling_rate} {digital.shape[1]} 12-May-2020 12:33:59"]
    for lead, row in zip(LEADS, digital, strict=True):
        checksum = int(row.sum(dtype=np.int64) + 2**15) % 2**16 - 2**15
        lines.append(f"{signals} 16+24 {gain} 16 0 {row[0]} {checksum} 0 {lead}")
    lines += [f"#Age: {age}", f"#Sex: {sex}", f"#Dx: {codes}", "#Rx: Unknown", "#Hx: Unknown", "#Sx: Unknown"]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return digital


def read_all(data_dir, **options):
    """Records by their name, and the report."""
    report = LoadReport("physionet2021")
    records = list(iter_records(physionet2021, data_dir, report=report, **options))
    return {record.record_id: record for record in records}, report


def reasons(report):
    return {rejection.record_id: rejection.reason for rejection in report.rejected}


# ----- layouts and sets ----------------------------------------------------------------------------------------------

OFFICIAL = {
    "cpsc_2018": "A0001",
    "cpsc_2018_extra": "Q0001",
    "st_petersburg_incart": "I0001",
    "ptb": "S0001",
    "ptb-xl": "HR00001",
    "georgia": "E00001",
    "chapman_shaoxing": "JS10646",
    "ningbo": "JS10647",
}


def test_the_official_tree_is_read_set_by_set(tmp_path):
    written = {name: write_record(tmp_path / "training" / key / "g1", name) for key, name in OFFICIAL.items()}
    records, report = read_all(tmp_path)
    assert not report.rejected and set(records) == set(OFFICIAL.values())
    for key, name in OFFICIAL.items():
        assert physionet2021.set_of_record(name) == key
        assert [entry.record_id for entry in physionet2021.list_entries(tmp_path, sets=[key])] == [name]
        assert np.array_equal(records[name].digital, written[name])
        np.testing.assert_allclose(records[name].signal, written[name] / 1000, rtol=1e-6)
    assert tuple(OFFICIAL) == physionet2021.SETS


@pytest.mark.parametrize("folder", ["WFDB_CPSC2018", "WFDBRecords/01/010", "."])
def test_folder_names_do_not_matter(tmp_path, folder):
    digital = write_record(tmp_path / folder, "JS00001")
    (tmp_path / "RECORDS").write_text("WFDBRecords/01/010/\n")
    (tmp_path / "ConditionNames_SNOMED-CT.csv").write_text(
        "Acronym Name,Full Name,Snomed_CT\nSR,Sinus Rhythm,426783006"
    )
    records, report = read_all(tmp_path)
    record = records["JS00001"]
    assert not report.rejected and (record.leads, record.sampling_rate) == (LEADS, 500)
    assert (record.age, record.sex, record.statements, record.labels) == (57, "female", ("sinus rhythm",), ("NSR",))
    expected = wfdb.rdrecord(str(tmp_path / folder / "JS00001")).p_signal.T
    np.testing.assert_allclose(record.signal, expected, rtol=1e-6)
    assert record.num_samples == digital.shape[1]


def test_an_entry_names_its_files(tmp_path):
    write_record(tmp_path, "E00001")
    (entry,) = physionet2021.list_entries(tmp_path)
    assert entry.path == str(tmp_path / "E00001.hea")
    assert entry.files == (str(tmp_path / "E00001.hea"), str(tmp_path / "E00001.mat"))


def test_listing_opens_no_file_and_its_order_is_fixed(tmp_path):
    names = [f"E{number:05d}" for number in range(1, 1001)]
    for name in reversed(names):
        (tmp_path / f"{name}.hea").touch()  # empty: opening one would be an error
    entries = list(physionet2021.list_entries(tmp_path))
    assert [entry.record_id for entry in entries] == names
    assert not any(entry.problem for entry in entries)
    share = Counter(entry.split for entry in entries)
    assert 870 < share["train"] < 930 and 30 < share["validation"] < 70 and 30 < share["test"] < 70


@pytest.mark.parametrize("sets, told", [(["ptbxl"], "ptbxl"), ([], "none"), ("georgia", None), (["ptb", "x"], "x")])
def test_sets_are_checked(tmp_path, sets, told):
    write_record(tmp_path, "E00001")
    if told is None:
        assert len(list(physionet2021.list_entries(tmp_path, sets=sets))) == 1
        return
    with pytest.raises(ValueError, match=f"sets: expected names among cpsc_2018, .*, got {told}$"):
        physionet2021.list_entries(tmp_path, sets=sets)


def test_what_is_not_a_record_of_the_challenge_is_told(tmp_path):
    write_record(tmp_path, "E00001")
    write_record(tmp_path, "my_ecg")
    (tmp_path / "E00002.mat").touch()
    (tmp_path / "._E00001.hea").touch()
    (tmp_path / "notes.txt").touch()
    write_record(tmp_path, "E00003")
    (tmp_path / "E00003.mat").unlink()
    records, report = read_all(tmp_path, sets=["georgia"])
    assert list(records) == ["E00001"] and report.num_read == 4
    told = reasons(report)
    assert "E00002.mat: has no header E00002.hea" in told["E00002"]
    assert "E00003.mat: no such file" in told["E00003"]
    assert "my_ecg: expected a record named as in the Challenge" in told["my_ecg"]


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir must be the folder of the Challenge's records"):
        physionet2021.list_entries(tmp_path / "nothing")
    with pytest.raises(ValueError, match="got None"):
        physionet2021.list_entries(None)


# ----- splits --------------------------------------------------------------------------------------------------------


def test_sets_with_several_records_of_a_patient_are_for_training_only(tmp_path):
    for number in range(1, 60):
        for prefix, digits in (("I", 4), ("S", 4), ("HR", 5), ("A", 4)):
            (tmp_path / f"{prefix}{number:0{digits}d}.hea").touch()
    splits = {}
    for entry in physionet2021.list_entries(tmp_path):
        splits.setdefault(entry.record_id.rstrip("0123456789"), set()).add(entry.split)
        if entry.record_id.startswith("A"):
            assert entry.split == split_of(entry.record_id)  # the same as in cpsc2018
    assert splits["I"] == splits["S"] == splits["HR"] == {"train"}
    assert splits["A"] == {"train", "validation", "test"}


def write_table(path, rows, columns="ecg_id,patient_id,age,strat_fold"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def test_the_table_of_ptb_xl_gives_patients_and_folds(tmp_path):
    for number in (1, 2, 9, 10, 11):
        write_record(tmp_path / "data", f"HR{number:05d}")
    write_record(tmp_path / "data", "E00001")
    rows = ["1,15709.0,56,3", "2,13243.0,19,9", "9,13243.0,19,9", "10,7.0,44,10"]
    table = write_table(tmp_path / "ptbxl_database.csv", rows)
    records, report = read_all(tmp_path / "data", ptb_xl_table=table)
    assert {name: record.patient_id for name, record in records.items()} == {
        "HR00001": "15709", "HR00002": "13243", "HR00009": "13243", "HR00010": "7", "E00001": None,
    }  # fmt: skip
    entries = {entry.record_id: entry for entry in physionet2021.list_entries(tmp_path / "data", ptb_xl_table=table)}
    splits = [entries[f"HR{number:05d}"].split for number in (1, 2, 9, 10)]
    assert splits == ["train", "validation", "validation", "test"]
    assert "PTB-XL's table does not hold this record" in reasons(report)["HR00011"]
    assert physionet2021.tables(tmp_path, ptb_xl_table=table) == (table,)
    assert physionet2021.tables(tmp_path) == ()


@pytest.mark.parametrize("row", ["1,15709.0,56,11", "1,,56,3", "one,7,56,3", "1,7,56", "1,7,56,"])
def test_a_table_that_leaves_a_patient_or_fold_open_is_refused(tmp_path, row):
    table = write_table(tmp_path / "ptbxl_database.csv", [row])
    with pytest.raises(ValueError, match="expected ecg_id, patient_id and a strat_fold from 1 to 10 in row 1"):
        physionet2021.list_entries(tmp_path, ptb_xl_table=table)
    with pytest.raises(ValueError, match="expected the columns ecg_id, patient_id, strat_fold"):
        physionet2021.list_entries(tmp_path, ptb_xl_table=write_table(table, [], columns="ecg_id,age"))


# ----- codes ---------------------------------------------------------------------------------------------------------


def test_labels_merge_equivalent_codes_and_statements_keep_the_order(tmp_path):
    write_record(tmp_path, "E00001", "63593006,59118001,284470004,55827005")
    record = read_all(tmp_path)[0]["E00001"]
    assert record.labels == ("PAC", "RBBB")
    assert record.statements == (
        "supraventricular premature beat",
        "right bundle branch block",
        "premature atrial contraction",
        "high left ventricular voltage",
    )
    assert read_all(tmp_path, task="csn")[0]["E00001"].labels == ("RBBB", "APB")


def test_unknown_codes_are_told_and_a_record_with_nothing_else_is_kept(tmp_path):
    write_record(tmp_path, "E00001", "426177001,123")
    write_record(tmp_path, "E00002", "123,99")
    write_record(tmp_path, "E00003", "Unknown")
    records, report = read_all(tmp_path)
    assert not report.rejected
    assert records["E00001"].statements == ("sinus bradycardia",)
    assert records["E00001"].repairs == ("unknown_snomed_code: 123",)
    assert records["E00002"].statements == records["E00002"].labels == ()
    assert records["E00002"].repairs == ("unknown_snomed_code: 123", "unknown_snomed_code: 99")
    assert (records["E00003"].statements, records["E00003"].repairs) == ((), ())


def test_scored_only_leaves_out_records_without_a_label_and_counts_them(tmp_path):
    write_record(tmp_path, "E00001", "164865005")  # not scored; MI in the other task
    write_record(tmp_path, "E00002", "426177001")
    write_record(tmp_path, "E00003")
    (tmp_path / "E00003.hea").write_text("E00003\n")
    records, report = read_all(tmp_path, scored_only=True)
    assert list(records) == ["E00002"] and report.filtered == {"scored_only": 1}
    assert list(reasons(report)) == ["E00003"] and report.num_read == 3
    assert list(read_all(tmp_path, scored_only=True, task="csn")[0]) == ["E00001", "E00002"]
    assert list(read_all(tmp_path)[0]) == ["E00001", "E00002"]


def test_label_names_are_the_classes_of_the_challenge_or_of_csn(tmp_path):
    assert physionet2021.label_names(sets=["ptb"]) == snomed.label_names()
    assert len(physionet2021.label_names()) == 26 and "AFIB" in physionet2021.label_names(task="csn")
    assert list(physionet2021.label_prompts(task="csn")) == physionet2021.label_names(task="csn")
    with pytest.raises(ValueError, match="task: expected one of challenge, csn"):
        physionet2021.list_entries(tmp_path, task="cpsc")


# ----- odd headers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "age, sex, expected",
    [
        ("NaN", "Unknown", (None, None)),
        ("-1", "male", (None, "male")),
        ("300", "Female", (90, "female")),
        ("4", "F", (4, "female")),
    ],
)
def test_ages_and_sexes_as_the_sets_write_them(tmp_path, age, sex, expected):
    write_record(tmp_path, "HR00001", age=age, sex=sex)
    record = read_all(tmp_path)[0]["HR00001"]
    assert (record.age, record.sex) == expected


@pytest.mark.parametrize("gain, per_millivolt", [("1000/mv", 1000), ("1000.0(0)/mV", 1000), ("306/mV", 306)])
def test_gains_of_every_set_become_millivolts(tmp_path, gain, per_millivolt):
    digital = write_record(tmp_path, "S0001", sampling_rate=1000, gain=gain)
    record = read_all(tmp_path)[0]["S0001"]
    assert record.sampling_rate == 1000
    np.testing.assert_allclose(record.signal, digital / per_millivolt, rtol=1e-6)


def test_half_an_hour_at_257_hz_is_one_record(tmp_path):
    digital = np.random.default_rng(0).integers(-2000, 2000, (12, 462_600), dtype=np.int16)
    write_record(tmp_path, "I0001", "425856008,164865005", sampling_rate=257, digital=digital)
    record = read_all(tmp_path)[0]["I0001"]
    assert record.duration == 1800 and np.array_equal(record.digital, digital)


def test_the_ningbo_record_that_is_named_like_one_of_ptb(tmp_path):
    """Published as S23074.hea beside JS23074.mat."""
    digital = write_record(tmp_path, "S23074", signals="JS23074.mat")
    write_record(tmp_path, "S0001")
    records, report = read_all(tmp_path, sets=["ningbo"])
    assert list(records) == ["JS23074"] and report.num_read == 1
    assert np.array_equal(records["JS23074"].digital, digital)
    assert records["JS23074"].repairs == ("record_name_corrected: S23074 to JS23074",)
    (entry,) = physionet2021.list_entries(tmp_path, sets=["ningbo"])
    assert entry.split == split_of("JS23074") and entry.files[1].endswith("JS23074.mat")


@pytest.mark.parametrize("between", ["00", " "])
def test_headers_whose_first_two_lines_stand_in_one_are_rejected(tmp_path, between):
    """JS01052 and JS23074 of the Chapman-Shaoxing-Ningbo release."""
    write_record(tmp_path, "JS01051")
    write_record(tmp_path, "JS01052")
    header = tmp_path / "JS01052.hea"
    first, second, *rest = header.read_text().splitlines()
    name, num_leads, rate, num_samples, *_ = first.split()
    tail = second.removeprefix("JS01052.mat 16+24 1000") if between == "00" else second
    merged = f"{name} {num_leads} {rate} {num_samples}{between}{tail}"
    header.write_text("\n".join([merged, *rest]))
    records, report = read_all(tmp_path)
    assert list(records) == ["JS01051"]
    assert "expected" in reasons(report)["JS01052"] and "JS01052.hea" in reasons(report)["JS01052"]


def test_a_header_that_points_outside_its_folder_is_rejected(tmp_path):
    write_record(tmp_path / "data", "JS00001")
    header = tmp_path / "data" / "JS00001.hea"
    header.write_text(header.read_text().replace("JS00001.mat", "../JS00001.mat"))
    (tmp_path / "data" / "JS00001.mat").rename(tmp_path / "JS00001.mat")
    records, report = read_all(tmp_path / "data")
    assert not records and "nothing outside that folder is opened" in reasons(report)["JS00001"]


# ----- real records --------------------------------------------------------------------------------------------------


@needs_shared
def test_all_real_records_are_read_with_known_names():
    records, report = read_all(SHARED / "physionet2021")
    assert not report.rejected and len(records) == 54
    sets = Counter(physionet2021.set_of_record(name) for name in records)
    assert sets == {
        "cpsc_2018": 6, "georgia": 10, "ptb-xl": 8, "chapman_shaoxing": 5, "ningbo": 15, "cpsc_2018_extra": 8, "ptb": 2,
    }  # fmt: skip
    for record in records.values():
        assert record.leads == LEADS and record.digital is not None and record.statements
        assert not [repair for repair in record.repairs if repair.startswith("unknown_snomed_code")]
    assert records["JS20007"].statements[:2] == ("premature atrial contraction", "sinus bradycardia")
    assert records["JS20007"].labels == ("PAC", "SB", "TInv", "TAb")
    assert (records["S0002"].sampling_rate, records["S0002"].num_samples) == (1000, 115_200)
    assert records["E00003"].age is None


@needs_shared
@pytest.mark.parametrize("name", ["HR00006", "HR00008"])
def test_the_number_of_an_hr_record_is_the_ecg_id_of_ptb_xl(name):
    table = SHARED / "ptbxl" / "ptbxl_database.csv"
    published = read_wfdb_record(SHARED / "ptbxl" / "records500" / "00000" / f"{name[2:]}_hr.hea")
    options = {"sets": ["ptb-xl"], "ptb_xl_table": table}
    records, report = read_all(SHARED / "physionet2021", **options)
    assert np.array_equal(records[name].signal, published.signal)
    rows = {line.split(",")[0]: line.split(",")[1] for line in table.read_text(encoding="utf-8").splitlines()}
    assert f"{records[name].patient_id}.0" == rows[str(int(name[2:]))]
    assert len(report.rejected) == 6  # this copy of the table holds 260 records only
