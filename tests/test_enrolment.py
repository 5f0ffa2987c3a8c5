"""Who is enrolled: the rule by hand, split files as they come, and training patients named where they appear."""

import numpy as np
import pytest
from tiny_prepared import numbered, write_prepared

from modeling_esi.evaluation.enrolment import check_disjoint, choose_recordings, read_patients, read_split


def test_the_first_recording_is_enrolled_and_the_others_are_probes():
    people = ["b", "a", None, "b", "c", "a", "b", None]
    everyone = choose_recordings(people)
    assert (everyone.gallery.tolist(), everyone.probes.tolist()) == ([0, 1], [3, 6, 5])
    one = choose_recordings(people, probes="one")
    assert (one.gallery.tolist(), one.probes.tolist()) == ([0, 1], [3, 5])


@pytest.mark.parametrize(
    ("people", "probes", "match"),
    [(["a", "a", "b"], "all", "two persons with two recordings, got 1 among 2"), (["a", "b"], "two", "of all, one")],
)
def test_too_few_persons_or_another_word_are_refused(people, probes, match):
    with pytest.raises(ValueError, match=match):
        choose_recordings(people, probes)


def test_shared_patients_are_named():
    assert check_disjoint(["a", "b", None, "a"], ["c", None]) == 2
    with pytest.raises(ValueError, match="got 2 of 3 that are among the training's: a, c"):
        check_disjoint(["c", "b", "a"], ["a", "x", "c"])
    with pytest.raises(ValueError, match="p00, .*p09 and 15 more"):
        check_disjoint([f"p{i:02}" for i in range(25)], [f"p{i:02}" for i in range(40)])
    with pytest.raises(ValueError, match="got none"):
        check_disjoint(["a"], [None])


RECORDS, PEOPLE = ["1", "2", "3", "4", "5"], ["a", "a", "b", "b", "c"]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_ptb_xls_own_columns_and_points_in_numbers(tmp_path):
    folder = write(tmp_path, gallery="ecg_id,patient_id\n2,1.0\n3.0,2.0\n", ptbxl_Probe="ecg_id,patient_id\n1,1\n4,2\n")
    enrolment, left_out, people = read_split(folder, RECORDS, [None] * 5)
    assert (enrolment.gallery.tolist(), enrolment.probes.tolist()) == ([1, 2], [0, 3])
    assert people == ["1", "1", "2", "2", None] and not left_out
    assert read_split(folder, RECORDS, PEOPLE)[2] == PEOPLE  # what the data set knows comes first


def test_what_is_left_out_is_told(tmp_path):
    folder = write(tmp_path, gallery="record_id\n1\n8\n", probe="record_id\n2\n4\n9\n")
    enrolment, left_out, _ = read_split(folder, RECORDS, PEOPLE)
    assert (enrolment.gallery.tolist(), enrolment.probes.tolist()) == ([0], [1])
    assert left_out == {
        "2 recordings (8, 9)": "in the split files, not among the records at hand",
        "1 recordings (4)": "probes of persons who are not enrolled",
    }


def test_the_files_training_part_is_checked_too(tmp_path):
    folder = write(tmp_path, gallery="record_id\n1\n", probe="record_id\n2\n", train="record_id\n5\n")
    assert np.array_equal(read_split(folder, RECORDS, PEOPLE)[0].gallery, [0])
    write(tmp_path, train="record_id\n5\n1\n")
    with pytest.raises(ValueError, match="among the training's: a"):
        read_split(folder, RECORDS, PEOPLE)


@pytest.mark.parametrize(
    ("files", "error", "match"),
    [
        ({"gallery": "record_id\n1\n"}, FileNotFoundError, "no probe.csv"),
        ({"gallery": "name\n1\n", "probe": "name\n2\n"}, ValueError, "column record_id or ecg_id, got name"),
        ({"gallery": "ecg_id\n1\n", "probe": "ecg_id\n4\n"}, ValueError, "among the 5 records, got none"),
        ({"gallery": "ecg_id\n1\n", "a_gallery": "ecg_id\n1\n", "probe": "ecg_id\n4\n"}, ValueError, "one file"),
        ({"gallery": "ecg_id,patient_id\n1\n", "probe": "ecg_id\n2\n"}, ValueError, "row 1"),
    ],
)
def test_files_that_make_no_sense_are_refused(files, error, match, tmp_path):
    with pytest.raises(error, match=match):
        read_split(write(tmp_path, **files), RECORDS, PEOPLE)


def test_training_patients_are_read_from_a_folder_a_table_or_a_list(tmp_path):
    prepared = write_prepared(tmp_path / "set", {"train-0": numbered(0, 4), "test-0": numbered(6, 2)})
    assert read_patients(prepared) == ["p0", "p1"]
    (tmp_path / "list.txt").write_text("p7\n\np3 \np7\n")
    assert read_patients(tmp_path / "list.txt") == ["p3", "p7"]
    (tmp_path / "table.csv").write_text("ecg_id,patient_id\n1,15709.0\n2,\n")
    assert read_patients(tmp_path / "table.csv") == ["15709"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="got none"):
        read_patients(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_patients(tmp_path / "nothing.txt")
