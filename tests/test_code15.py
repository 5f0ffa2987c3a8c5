"""CODE-15 % in its published layout, made small: padding, units, labels, and HDF5 files that lead elsewhere."""

import csv
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts import code15
from datasets_scripts.code15 import (
    LEADS,
    label_names,
    label_prompts,
    list_entries,
    millivolt_per_unit,
    open_tracings,
    qrs_height,
    read_entry,
    trimmed,
)
from datasets_scripts.load_report import LoadReport
from datasets_scripts.sources import SPLITS, check_options, iter_records, list_split, split_of

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'esi-ecg[formats]'")

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
COLUMNS = "exam_id age is_male nn_predicted_age 1dAVb RBBB LBBB SB ST AF patient_id death timey normal_ecg trace_file"
COLUMNS = COLUMNS.split()
NO_LABELS = dict.fromkeys(code15.LABEL_PHRASES, "False")


def beats(num_samples=4000, height=1.2, seed=0):
    """`(num_samples, 12)`: a beat a second on a wandering baseline, QRS complexes `height` from peak to peak."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 400
    distance = (time + 0.3) % 1.0 - 0.5
    shape = np.exp(-((distance / 0.012) ** 2)) - 0.25 * np.exp(-(((distance - 0.04) / 0.012) ** 2))
    wander = 0.3 * height * np.sin(2 * np.pi * 0.15 * time)[:, None]
    noise = rng.normal(0, 0.005 * height, (num_samples, 12))
    return (height / np.ptp(shape) * shape[:, None] + wander + noise).astype(np.float32)


def padded(signal, num_samples=4096):
    """Zeros on both sides, as the set is published."""
    start = (num_samples - len(signal)) // 2
    tracing = np.zeros((num_samples, 12), np.float32)
    tracing[start : start + len(signal)] = signal
    return tracing


def write_file(path, exam_ids, tracings, extra_row=True, **storage):
    """One HDF5 file with the row of zeros for exam 0 at its end."""
    if extra_row:
        exam_ids, tracings = [*exam_ids, 0], [*tracings, np.zeros((4096, 12), np.float32)]
    with h5py.File(path, "w") as file:
        file.create_dataset("exam_id", data=np.array(exam_ids, np.int64))
        file.create_dataset("tracings", data=np.stack(tracings).astype(np.float32), **storage)


def exam_row(exam, patient, trace_file="exams_part0.hdf5", **values):
    row = {"exam_id": exam, "age": 56, "is_male": "True", "nn_predicted_age": 51.2, "patient_id": patient}
    row |= {**NO_LABELS, "death": "", "timey": "", "normal_ecg": "False", "trace_file": trace_file}
    return [{**row, **values}[name] for name in COLUMNS]


def write_table(folder, rows, columns=COLUMNS):
    with (folder / "exams.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def folder(tmp_path):
    """Four exams of three patients in two files, one of 7 s, and one file in 1e-4 V."""
    write_file(tmp_path / "exams_part0.hdf5", [1169160, 2873686], [padded(beats(4000)), padded(beats(2800, seed=1))])
    write_file(tmp_path / "exams_part1.hdf5", [271011, 384368], [padded(beats(4000, 12.0, seed)) for seed in (2, 3)])
    rows = [
        exam_row(1169160, 523632, AF="True", RBBB="True"),
        exam_row(384368, 1678687, "exams_part1.hdf5", normal_ecg="True", is_male="False", age=93),
        exam_row(2873686, 1724173),
        exam_row(271011, 523632, "exams_part1.hdf5", age="", is_male="", **{"1dAVb": "True", "normal_ecg": ""}),
    ]
    write_table(tmp_path, rows)
    return tmp_path


def read(folder, **options):
    report = LoadReport("code15")
    return {record.record_id: record for record in iter_records(code15, folder, report=report, **options)}, report


def problems(folder):
    return {entry.record_id: entry.problem for entry in list_entries(folder) if entry.problem}


# ----- records -------------------------------------------------------------------------------------------------------


def test_records_of_the_published_layout(folder):
    records, report = read(folder)
    assert list(records) == ["1169160", "384368", "2873686", "271011"] and not report.rejected
    first, normal, told_nothing, last = records.values()
    assert first.leads == LEADS == ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert first.sampling_rate == 400 and first.digital is None and first.signal.dtype == np.float32
    assert (first.patient_id, first.age, first.sex) == ("523632", 56.0, "male")
    assert first.labels == ("RBBB", "AF")
    assert first.statements == ("right bundle branch block", "atrial fibrillation")
    assert (normal.labels, normal.statements, normal.age, normal.sex) == ((), ("normal ECG",), 93.0, "female")
    assert (told_nothing.labels, told_nothing.statements) == ((), ())  # neither normal nor one of the six: not guessed
    assert (last.statements, last.age, last.sex) == (("first degree AV block",), None, None)


def test_the_zeros_around_a_recording_are_taken_off_and_no_others(folder):
    records, _ = read(folder)
    np.testing.assert_array_equal(records["1169160"].signal, beats(4000).T)
    np.testing.assert_array_equal(records["2873686"].signal, beats(2800, seed=1).T)
    assert "zero_padding_trimmed: 96 samples" in records["1169160"].repairs
    assert "zero_padding_trimmed: 1296 samples" in records["2873686"].repairs
    values = np.zeros((9, 12))
    values[2, 11] = values[6, 0] = 1e-7  # one lead is enough, and zeros between stay
    assert trimmed(values) == (2, 7) and trimmed(np.zeros((9, 12))) == (0, 0)
    assert trimmed(np.full((3, 12), np.nan)) == (0, 3)


def test_a_recording_that_fills_its_row_is_not_trimmed(tmp_path):
    write_file(tmp_path / "exams_part0.hdf5", [7], [beats(4096)])
    write_table(tmp_path, [exam_row(7, 8)])
    record = read(tmp_path)[0]["7"]
    assert record.num_samples == 4096 and not [rule for rule in record.repairs if rule.startswith("zero_padding")]


def test_the_row_of_zeros_at_the_end_is_no_exam(folder):
    assert [entry.index for entry in list_entries(folder)] == [0, 1, 1, 0]
    write_table(folder, [exam_row(0, 5)])
    assert "expected a number as exam_id" in problems(folder)["0"]


def test_an_exam_of_zeros_is_rejected(tmp_path):
    write_file(tmp_path / "exams_part0.hdf5", [7, 9], [padded(beats()), np.zeros((4096, 12))])
    write_table(tmp_path, [exam_row(7, 8), exam_row(9, 8)])
    records, report = read(tmp_path)
    assert list(records) == ["7"] and "exam 9 holds nothing but zeros" in report.rejected[0].reason


def test_patients_stay_in_one_split(folder):
    found = {split: {e.fields["patient_id"] for e in list_split(code15, folder, split)} for split in SPLITS}
    assert sum(map(len, found.values())) == 3
    assert {entry.split for entry in list_entries(folder) if entry.fields["patient_id"] == "523632"} == {
        split_of("523632")
    }


def test_labels_and_prompts():
    assert label_names(millivolt_per_unit=None) == ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]
    prompts = label_prompts()
    assert list(prompts) == label_names() and all(len(texts) > 1 for texts in prompts.values())
    assert prompts["AF"][0] == "ECG Findings: atrial fibrillation."
    assert code15.FACTS.license == "cc-by-4.0" and code15.FACTS.statements_are_labels


def test_tables_are_all_that_entries_depend_on(folder):
    names = [path.name for path in code15.tables(folder)]
    assert names == ["exams.csv", "exams_part0.hdf5", "exams_part1.hdf5"]
    check_options(code15, {"millivolt_per_unit": 1.0})


# ----- the unit ------------------------------------------------------------------------------------------------------


def test_fact_16_the_unit_is_decided_by_the_height_of_qrs_complexes_and_told(folder):
    """The first file is in mV, the second in 1e-4 V: both come out in mV, and say which it was."""
    records, _ = read(folder)
    in_mv, in_tenths = records["1169160"], records["384368"]
    assert "unit_decided: 1 mV, since QRS complexes are 1.33 high" in in_mv.repairs
    assert "unit_decided: 1e-4 V, since QRS complexes are 13.3 high" in in_tenths.repairs
    np.testing.assert_allclose(in_tenths.signal, beats(4000, 12.0, 3).T / 10, rtol=1e-6)
    for record in (in_mv, in_tenths):
        assert 1.1 < qrs_height(record.signal.T) < 1.4


@pytest.mark.parametrize("height", [0.02, 0.3, 3.6, 60.0, 1200.0])
def test_a_unit_that_is_plausible_in_neither_way_is_refused(tmp_path, height):
    write_file(tmp_path / "exams_part0.hdf5", [7, 9], [padded(beats(4000, height)), padded(beats(4000, height, 1))])
    write_table(tmp_path, [exam_row(7, 8), exam_row(9, 8)])
    found = problems(tmp_path)
    assert list(found) == ["7", "9"] and "plausible neither in mV nor in 1e-4 V; find out the unit" in found["7"]
    records, _ = read(tmp_path, millivolt_per_unit=1.2 / height)
    assert 1.1 < qrs_height(records["7"].signal.T) < 1.4
    assert f"unit_given: {1.2 / height:g} mV" in records["7"].repairs


def test_the_unit_follows_most_recordings_not_the_odd_one():
    assert millivolt_per_unit(np.array([1.0, 1.3, 1.2, 14.0, np.nan])) == 1.0
    assert millivolt_per_unit(np.array([11.0, 9.0, 0.8, 14.0, np.nan])) == 0.1
    for heights in ([], [np.nan], [0.0], [3.5]):
        with pytest.raises(ValueError, match="expected QRS complexes of 0.4 to 3.2 mV"):
            millivolt_per_unit(np.array(heights))
    for unit in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="millivolt_per_unit: expected a positive number"):
            list_entries(None, millivolt_per_unit=unit)


def test_the_height_of_qrs_complexes_is_hardly_changed_by_padding_and_baseline():
    assert qrs_height(padded(beats(2800))) == pytest.approx(1.2, rel=0.15)
    assert qrs_height(beats(4000) + 4.6) == pytest.approx(qrs_height(beats(4000)), rel=1e-4)
    assert np.isnan(qrs_height(beats(500))) and np.isnan(qrs_height(np.zeros((4096, 12))))


@pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="the folder ../shared/data/ptbxl is absent")
def test_real_recordings_lie_well_inside_the_band():
    from datasets_scripts.readers.wfdb_records import read_wfdb_record

    headers = sorted((SHARED / "ptbxl" / "records500").rglob("*.hea"))[:96]
    heights = np.array([qrs_height(read_wfdb_record(header).signal.T) for header in headers])
    for start in range(0, len(heights), 8):  # a file of eight recordings is enough
        assert millivolt_per_unit(heights[start : start + 8]) == 1.0
        assert millivolt_per_unit(heights[start : start + 8] * 10) == 0.1
    assert 0.9 < np.median(heights) < 1.4


# ----- what cannot be kept -------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_kept_are_named(folder):
    rows = [
        exam_row(1169160, 523632),
        exam_row(1169160, 523632),
        exam_row(2873686, ""),
        exam_row(12, 5),
        exam_row(13, 5, "../exams_part0.hdf5"),
        exam_row(14, 5, "https://example.org/x.hdf5"),
        exam_row(15, 5, AF="maybe"),
        exam_row(16, 5, age="old"),
        exam_row(17, 5)[:9],
        exam_row("x1", 5),
    ]
    write_table(folder, rows)
    entries = list(list_entries(folder))
    found = [(entry.record_id, entry.problem) for entry in entries if entry.problem]
    expected = [
        ("1169160", "expected each exam once, got 1169160 again"),
        ("2873686", "a patient_id, got '2873686' and ''"),
        ("12", "exams_part0.hdf5 does not hold exam 12, which exams.csv says it does"),
        ("13", "expected the plain name of an HDF5 file, got '../exams_part0.hdf5'; it is not opened"),
        ("14", "it is not opened"),
        ("15", "AF: expected True or False, got 'maybe'"),
        ("16", "age: expected a number of years"),
        ("17", "expected 15 values, got 9"),
        ("x1", "expected a number as exam_id"),
        ("2873686", "exams_part0.hdf5 holds exam 2873686, of which exams.csv says nothing"),
    ]
    assert [name for name, _ in found] == [name for name, _ in expected] and len(entries) == 11
    assert all(words in problem for (_, problem), (_, words) in zip(found, expected, strict=True))


def test_an_exam_that_a_file_holds_twice(tmp_path):
    write_file(tmp_path / "exams_part0.hdf5", [7, 9, 7], [padded(beats(seed=seed)) for seed in range(3)])
    write_table(tmp_path, [exam_row(7, 8), exam_row(9, 8)])
    assert problems(tmp_path) == {"7": "exams_part0.hdf5 holds exam 7 more than once"}


def test_missing_files_and_columns(folder):
    (folder / "exams_part1.hdf5").unlink()
    records, report = read(folder)
    assert list(records) == ["1169160", "2873686"]
    assert [rejection.record_id for rejection in report.rejected] == ["384368", "271011"]
    assert all("no such file" in rejection.reason for rejection in report.rejected)
    write_table(folder, [], [name for name in COLUMNS if name != "AF"])
    with pytest.raises(ValueError, match="expected the columns exam_id, patient_id, .*AF, got exam_id, age"):
        list(list_entries(folder))
    (folder / "exams.csv").unlink()
    with pytest.raises(FileNotFoundError, match="exams.csv: no such file; data_dir must be CODE-15 %'s folder"):
        list_entries(folder)
    with pytest.raises(ValueError, match="data_dir: expected CODE-15 %'s folder"):
        list_entries(None)


def test_a_file_changed_after_it_was_listed_gives_no_other_exam(folder):
    entry = next(iter(list_entries(folder)))
    write_file(folder / "exams_part0.hdf5", [2873686, 1169160], [padded(beats()), padded(beats())])
    with pytest.raises(ValueError, match="expected exam 1169160 in row 0; list the data set again"):
        read_entry(entry)


def test_without_h5py_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"reading CODE-15 % needs h5py: pip install 'esi-ecg\[formats\]'"):
        list_entries(folder)


# ----- files that are none, or lead elsewhere ------------------------------------------------------------------------


def refused(path, words):
    with pytest.raises(ValueError, match=words), open_tracings(path):
        pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("exam_ids", "tracings", "words"),
    [
        (np.zeros((2, 1), np.int64), np.zeros((2, 4096, 12), np.float32), r"exam_id as integers \(N,\)"),
        (np.array([1.5, 2]), np.zeros((2, 4096, 12), np.float32), "exam_id as integers"),
        (np.zeros(0, np.int64), np.zeros((0, 4096, 12), np.float32), "N from 1 to"),
        (np.arange(3), np.zeros((2, 4096, 12), np.float32), r"tracings as float32 \(3, 4096, 12\), got float32 \(2,"),
        (np.arange(2), np.zeros((2, 12, 4096), np.float32), r"got float32 \(2, 12, 4096\)"),
        (np.arange(2), np.zeros((2, 4096, 8), np.float32), r"got float32 \(2, 4096, 8\)"),
        (np.arange(2), np.zeros((2, 4096, 12), np.int16), "got int16"),
        (np.array([b"a", b"b"], "S3"), np.zeros((2, 4096, 12), np.float32), "exam_id as integers"),
    ],
)
def test_other_shapes_and_types_are_refused(tmp_path, exam_ids, tracings, words):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["exam_id"], file["tracings"] = exam_ids, tracings
    refused(tmp_path / "x.hdf5", words)


def test_files_that_are_no_hdf5_or_lack_a_data_set(tmp_path):
    path = tmp_path / "x.hdf5"
    path.write_bytes(b"PK\x03\x04 still packed")
    refused(path, "x.hdf5: cannot be read as HDF5 .* unpack or copy the file again")
    with h5py.File(path, "w") as file:
        file["exam_id"] = np.arange(3)
    refused(path, "expected a data set tracings, got none")
    with h5py.File(path, "w") as file:
        file.create_group("exam_id")
    refused(path, "expected a data set exam_id, got something else")
    with pytest.raises(FileNotFoundError, match="no such file"), open_tracings(tmp_path / "gone.hdf5"):
        pytest.fail("it was opened")


def test_a_file_cut_short_is_refused_and_its_exams_are_named(folder):
    path = folder / "exams_part0.hdf5"
    path.write_bytes(path.read_bytes()[:300_000])
    records, report = read(folder)
    assert list(records) == ["384368", "271011"] and len(report.rejected) == 2
    assert "cannot be read as HDF5" in report.rejected[0].reason and report.rejected[0].path == str(path)


def external_link(folder, outside):
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["exam_id"] = np.arange(1, 3)
        file["tracings"] = h5py.ExternalLink(str(outside), "tracings")


def soft_link(folder, outside):
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["exam_id"] = np.arange(1, 3)
        file["away"] = h5py.ExternalLink(str(outside), "/")
        file["tracings"] = h5py.SoftLink("/away/tracings")


def external_storage(folder, outside):
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["exam_id"] = np.arange(1, 3)
        size = 2 * 4096 * 12 * 4
        file.create_dataset("tracings", (2, 4096, 12), np.float32, external=[(str(outside), 0, size)])


def virtual(folder, outside):
    layout = h5py.VirtualLayout((2, 4096, 12), np.float32)
    layout[:] = h5py.VirtualSource(str(outside), "tracings", (2, 4096, 12))
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["exam_id"] = np.arange(1, 3)
        file.create_virtual_dataset("tracings", layout)


def virtual_without_end(folder, outside):
    """Asking for the shape of such a data set opens its sources."""
    source = h5py.VirtualSource(str(outside), "exam_id", (2,), maxshape=(None,))
    layout = h5py.VirtualLayout((2,), np.int64, maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(folder / "x.hdf5", "w") as file:
        file.create_virtual_dataset("exam_id", layout)
        file["tracings"] = np.zeros((2, 4096, 12), np.float32)


OPENING = """
    import sys
    from datasets_scripts.code15 import open_tracings
    from pathlib import Path
    try:
        with open_tracings(Path(sys.argv[1])) as (exam_ids, tracings):
            sys.stdout.write(f"read {tracings[0].sum()}")
    except ValueError as error:
        sys.stdout.write(f"refused: {error}")
"""


@pytest.mark.parametrize("lead_away", [external_link, soft_link, external_storage, virtual, virtual_without_end])
def test_no_other_file_is_opened(tmp_path, lead_away):
    """What is named outside is a pipe: whoever opened it would wait for ever, or let a writer in."""
    inside, pipe = tmp_path / "inside", tmp_path / "outside.hdf5"
    inside.mkdir()
    os.mkfifo(pipe)
    lead_away(inside, pipe)
    command = [sys.executable, "-c", textwrap.dedent(OPENING), str(inside / "x.hdf5")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused: ") and ("not followed" in done.stdout or "not opened" in done.stdout)


def test_a_link_of_the_file_system_that_leads_outside_is_not_followed(tmp_path, folder):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "exams_part0.hdf5").symlink_to(folder / "exams_part0.hdf5")
    write_table(inside, [exam_row(1169160, 523632)])
    assert "leads outside its own folder and is not followed" in problems(inside)["1169160"]


def test_chunks_that_unpack_to_much_more_than_a_recording_are_refused(tmp_path):
    """Zeros pack to nothing: 8,000 recordings in one chunk are 1.6 GB unpacked and some kB in the file."""
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["exam_id"] = np.arange(1, 8001)
        chunks = (8000, 4096, 12)
        file.create_dataset("tracings", chunks, np.float32, chunks=chunks, compression="gzip")
    refused(path, "expected chunks of at most 33554432 bytes in tracings, got 1572864000")


def test_a_file_that_announces_more_than_it_holds_allocates_nothing(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("exam_id", (10**12,), np.int64, chunks=(1024,))
        file.create_dataset("tracings", (10**12, 4096, 12), np.float32, chunks=(1, 4096, 12))
    refused(tmp_path / "x.hdf5", "with N from 1 to 1048576, got int64")


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 4096, 12), "compression": "gzip"}, {"chunks": True}])
def test_files_are_read_however_they_are_stored(tmp_path, storage):
    write_file(tmp_path / "exams_part0.hdf5", [7, 9], [padded(beats()), padded(beats(seed=1))], **storage)
    write_table(tmp_path, [exam_row(9, 8)])
    np.testing.assert_array_equal(read(tmp_path)[0]["9"].signal, beats(seed=1).T)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_read_or_refused(folder, seed):
    """Some bytes changed: a record, or a sentence; nothing else gets through."""
    rng = np.random.default_rng(seed)
    path = folder / "exams_part0.hdf5"
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, 3000, size=4):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    records, report = read(folder)
    assert {"384368", "271011"} <= set(records) and len(records) + len(report.rejected) >= 4
