"""Which files below a folder are recordings, and which paths really lie inside it."""

import os

import pytest

from datasets_scripts.listing import file_listing
from datasets_scripts.listing.file_listing import Fence, list_files, record_name, wfdb_files


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_recordings_in_order_and_headers_with_their_signals(tmp_path):
    make(tmp_path, "b/2.DCM", "b/10.hea", "b/10.dat", "b/10.atr", "a.xml", "c.npy", "B/1.HEA", "B/1.MAT", "notes.txt")
    make(tmp_path, ".hidden.hea", ".git/x.hea", "e.edf", "f.csv", "g.scp")
    found = list(list_files(tmp_path))
    assert [(file.name, file.files) for file in found] == [
        ("B/1.HEA", ("B/1.HEA", "B/1.MAT")),
        ("a.xml", ("a.xml",)),
        ("b/10.hea", ("b/10.hea", "b/10.dat")),
        ("b/2.DCM", ("b/2.DCM",)),
        ("c.npy", ("c.npy",)),
        ("e.edf", ("e.edf",)),
        ("f.csv", ("f.csv",)),
        ("g.scp", ("g.scp",)),
    ]
    assert not any(file.problem for file in found)


def test_what_is_not_to_be_read_is_told(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    make(root, "alone.dat", "good.hea", "far/x.npy")
    make(outside, "secret.npy")
    (root / "link.npy").symlink_to(outside / "secret.npy")
    (root / "inner.npy").symlink_to(root / "far" / "x.npy")
    (root / "folder").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    (root / os.fsdecode(b"\xe4.npy")).touch()
    problems = {file.name: (file.problem or "")[:32] for file in list_files(root)}
    assert problems == {
        "alone.dat": "expected a WFDB header (.hea) of",
        "far/x.npy": "",
        "folder": "is a link to a folder, which is ",
        "good.hea": "",
        "inner.npy": "",
        "link.npy": "is a link that leads outside the",
        "\\xe4.npy": "expected a file name in UTF-8; r",
    }
    assert not [file for file in list_files(root) if file.problem and file.files]


def test_a_folder_that_may_not_be_listed_is_told(tmp_path, monkeypatch):
    make(tmp_path, "closed/x.npy", "open.npy")
    scandir = os.scandir

    def refuse(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    closed, other = list_files(tmp_path)
    assert closed.problem == "this folder cannot be listed (Permission denied)" and other.name == "open.npy"
    with pytest.raises(PermissionError):
        list(list_files(tmp_path / "closed"))


def test_names_of_records_and_their_files():
    assert [record_name(name) for name in ("a/1.hea", "a/1.dat", "a/1", "a/1.2.84", "a/1.npy")] == [
        "a/1",
        "a/1",
        "a/1",
        "a/1.2.84",
        "a/1.npy",
    ]
    assert wfdb_files("a/1.npy") == ("a/1.npy",)
    assert wfdb_files("a/1.hea") == ("a/1.hea", "a/1.dat", "a/1.mat")
    assert wfdb_files("a/1") == ("a/1", "a/1.hea", "a/1.dat", "a/1.mat")


def test_a_fence_lets_nothing_out(tmp_path, monkeypatch):
    root = tmp_path / "root"
    make(root, "a/x.npy", "tables/t.csv")
    make(tmp_path, "root2/x.npy")
    (root / "way_out").symlink_to(tmp_path)
    (root / "way_in").symlink_to(root / "a")
    fence = Fence(root)
    assert fence.name_inside(root / "tables", "../a/x.npy") == "a/x.npy"
    assert fence.name_inside(root, "./a//x.npy") == "a/x.npy" and fence.name_inside(root, "way_in/x.npy")
    assert fence.name_inside(root, "12:30.npy") == "12:30.npy"
    for name in ("../root2/x.npy", "a/../../root2/x.npy", "..", ".", "way_out/root2/x.npy", "way_out"):
        with pytest.raises(ValueError, match="inside the data set's folder"):
            fence.name_inside(root, name)
    for name in ("", "/etc/passwd", f"{root}/a/x.npy", "a\\x.npy", "a\0x"):
        with pytest.raises(ValueError, match="expected a relative path with '/'"):
            fence.name_inside(root, name)
    monkeypatch.setattr(file_listing, "MAX_FOLDERS_KNOWN", 2)
    assert fence.holds(root / "a" / "x.npy") and not fence.holds(tmp_path / "root2" / "x.npy")
