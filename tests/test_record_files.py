"""Folders are walked in one order on every machine, and nothing is missed silently."""

import shutil

import pytest

from datasets_scripts.listing.record_files import walk_folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_order_is_by_name_and_hidden_names_are_passed_over(tmp_path):
    touch(tmp_path, "g2/b.hea", "g10/a.hea", "g2/a.hea", "z.hea", "g2/._a.hea", ".git/a.hea")
    found = [
        (folder.path.relative_to(tmp_path).as_posix(), folder.file_names) for folder in walk_folders(tmp_path, "x")
    ]
    assert found == [(".", ("z.hea",)), ("g10", ("a.hea",)), ("g2", ("a.hea", "b.hea"))]


def test_a_link_to_a_folder_is_told_and_not_followed(tmp_path):
    touch(tmp_path, "outside/A0001.hea", "data/A0002.hea")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "outside")
    folders = list(walk_folders(tmp_path / "data", "x"))
    assert [folder.file_names for folder in folders] == [("A0002.hea",)]
    (entry,) = folders[0].link_entries()
    assert entry.record_id == "linked" and "link to a folder, which is not followed" in entry.problem


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    touch(tmp_path, "g1/A0001.hea")
    walk = walk_folders(tmp_path, "x")
    next(walk)
    shutil.rmtree(tmp_path / "g1")
    with pytest.raises(OSError):
        next(walk)


def test_no_folder_is_an_error_at_once(tmp_path):
    with pytest.raises(ValueError, match="data_dir: expected the folder of apples, got None"):
        walk_folders(None, "apples")
    with pytest.raises(FileNotFoundError, match="no such folder; data_dir must be the folder of apples"):
        walk_folders(tmp_path / "nothing", "apples")
