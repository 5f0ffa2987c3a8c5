"""Files, sizes, segments and checksums: what does not hold together is refused, early and cheaply."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_wfdb import LEADS, change_header, checksum, random_integers, signal_bytes, write_record

from datasets_scripts.readers.wfdb_records import read_wfdb_record

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((folder for folder in (ROOT / "shared/data", ROOT.parent / "shared/data") if folder.is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder ../shared/data with real records is absent")

# ---------------------------------------------------------------- checksums


def test_a_changed_byte_is_found(tmp_path):
    for fmt in ("16", "212"):
        path = write_record(tmp_path, f"f{fmt}", fmt=fmt)
        assert read_wfdb_record(path).repairs == ()
        raw = bytearray(path.with_suffix(".dat").read_bytes())
        raw[0] ^= 1  # the first sample of lead I is now one more, or one less
        path.with_suffix(".dat").write_bytes(raw)
        with pytest.raises(ValueError, match=r"expected checksum -?\d+ of lead I, got -?\d+: .* copy the record again"):
            read_wfdb_record(path)
        record = read_wfdb_record(path, on_wrong_checksum="keep")
        assert record.repairs == ("wrong_checksum: I",) and record.leads == LEADS
    with pytest.raises(ValueError, match="on_wrong_checksum: expected one of reject, keep, got 'ignore'"):
        read_wfdb_record(path, on_wrong_checksum="ignore")


def test_checksums_by_hand(tmp_path):
    """header(5): the sum of all samples in 16 bits; the WFDB library writes it with sign, wfdb for Python without."""
    integers = np.array([[20000, -1], [20001, -2], [-32768, -3]])
    for first, second in ((7233, -6), (7233, 65530), (7233 - 65536, -6)):
        path = write_record(tmp_path, integers=integers, leads=("I", "II"))
        lines = path.read_text().splitlines()
        lines[1] = lines[1].replace(f" {checksum(integers[:, 0])} 0 I", f" {first} 0 I")
        lines[2] = lines[2].replace(" -6 0 II", f" {second} 0 II")
        path.write_text("\n".join(lines) + "\n")
        assert read_wfdb_record(path).repairs == ("nan_samples: 1",)
    change_header(path, " -6 0 II", " 65529 0 II")
    with pytest.raises(ValueError, match="expected checksum 65529 of lead II, got 65530"):
        read_wfdb_record(path)
    change_header(path, " 65529 0 II", " -7 0 II")
    with pytest.raises(ValueError, match="expected checksum -7 of lead II, got -6"):
        read_wfdb_record(path)


def test_where_no_checksum_is_said_none_is_compared(tmp_path):
    path = write_record(tmp_path)
    good = path.read_text()
    sums = [checksum(samples) for samples in random_integers().T]
    path.write_text(good.replace("3 250 37", "3 250"))  # header(5): not compared without the number of samples
    change_header(path, f" {sums[0]} 0 I\n", f" {sums[0] + 1} 0 I\n")
    assert read_wfdb_record(path).repairs == ()
    zeros = good
    for total, lead in zip(sums, LEADS, strict=True):
        zeros = zeros.replace(f" {total} 0 {lead}\n", f" 0 0 {lead}\n")
    path.write_text(zeros)  # all are 0: the writer computed none
    assert read_wfdb_record(path).repairs == ()
    path.write_text(good.replace(f" {sums[0]} 0 I\n", " 0 0 I\n"))  # one is 0 among others that hold: it is meant
    with pytest.raises(ValueError, match="expected checksum 0 of lead I"):
        read_wfdb_record(path)
    path.write_text(good.replace(f" {sums[0]} 0 I\n", "\n"))  # a line may end before the checksum
    assert read_wfdb_record(path).leads == ("signal 1", "II", "V5")


def test_a_wrong_checksum_of_a_channel_that_is_left_out_says_nothing(tmp_path):
    path = write_record(tmp_path, leads=("I", "II", "PLETH"))
    total = checksum(random_integers()[:, 2])
    change_header(path, f" {total} 0 PLETH", f" {total + 1} 0 PLETH")
    assert read_wfdb_record(path).repairs == ("left_out_channel: PLETH",)


def test_checksums_count_every_sample_of_a_frame_and_before_skew(tmp_path):
    integers = random_integers(40, 1)
    path = write_record(tmp_path, integers=integers, leads=("I",))
    good = path.read_text()
    path.write_text(good.replace("1 250 40", "1 125 20").replace("rec.dat 16 ", "rec.dat 16x2 "))
    assert read_wfdb_record(path).num_samples == 20
    path.write_text(good.replace("rec.dat 16 ", "rec.dat 16:7 "))
    assert read_wfdb_record(path).repairs == ("nan_samples: 7",)
    (tmp_path / "rec.dat").write_bytes(signal_bytes(integers + 1))
    with pytest.raises(ValueError, match="expected checksum"):
        read_wfdb_record(path)


def test_segments_are_compared_too(tmp_path):
    write_record(tmp_path, "s1", random_integers(30))
    second = write_record(tmp_path, "s2", random_integers(25))
    (tmp_path / "multi.hea").write_text("multi/2 3 250 55\ns1 30\ns2 25\n")
    assert read_wfdb_record(tmp_path / "multi").num_samples == 55
    total = checksum(random_integers(25)[:, 1])
    change_header(second, f" {total} 0 II\n", f" {total + 1} 0 II\n")
    with pytest.raises(ValueError, match=r"s2\.hea: expected checksum .* of lead II"):
        read_wfdb_record(tmp_path / "multi")
    assert read_wfdb_record(tmp_path / "multi", on_wrong_checksum="keep").repairs == ("wrong_checksum: II",)


@needs_shared
def test_the_checksums_of_published_records_hold():
    """All of PTB-XL, the Challenge sets and the oddities at hand; read_wfdb_record raises where one does not."""
    paths = sorted(SHARED.rglob("*.hea"))
    assert len(paths) > 2000
    for path in paths:
        assert not [repair for repair in read_wfdb_record(path).repairs if repair.startswith("wrong_checksum")]


# ---------------------------------------------------------------- lengths and segments


def test_a_file_that_is_cut_short(tmp_path):
    for fmt, num_bytes in (("16", 37 * 3 * 2), ("212", (37 * 9 + 1) // 2)):
        path = write_record(tmp_path, fmt=fmt)
        raw = (tmp_path / "rec.dat").read_bytes()
        assert len(raw) == num_bytes
        (tmp_path / "rec.dat").write_bytes(raw[:-1])
        message = (
            rf"announces 37 samples per lead, but rec\.dat \({num_bytes - 1} bytes\) holds only 36; .* copy it again"
        )
        with pytest.raises(ValueError, match=message):
            read_wfdb_record(path)


def test_segments_that_do_not_fit(tmp_path):
    write_record(tmp_path, "s1", random_integers(30))
    write_record(tmp_path, "s2", random_integers(25))
    path = tmp_path / "multi.hea"
    for bad, message in (
        ("multi/3 3 250 66\ns1 30\n~ 10\ns2 25\n", "announces 66"),
        ("multi/2 3 250\ns1 30\ns2 26\n", "expected 26"),
        ("multi/2 3 250\ns1 30\n../s2 25\n", "plain name"),
        ("multi/2 3 250\ns1 30\ngone 25\n", "no such file"),
        ("multi/2 3 250\ns1 30\nmulti 30\n", "one segment"),
        ("multi/2 3 500\ns1 30\ns2 25\n", "one segment at 500"),
        ("multi/99 3 250\ns1 30\n", "99 announced"),
        ("multi/1 3 250\n~ 30\n", "only gaps"),
        ("multi/2 3 250\ns1 30\ns1 30\n", "every segment once"),
        ("multi/2 3 250\ns1 30\n~ 40000000\n", "gaps"),
        ("multi/2 3 250\ns1 30\n~ 999999999999\n", "at most"),
        ("multi/9999 3 250\n" + "s1 30\n" * 9999, "every segment once"),
    ):
        path.write_text(bad)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_wfdb_record(path)


# ---------------------------------------------------------------- what hostile sizes cost

MEASURE = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
import json, resource, time
import numpy, wfdb, soundfile
from datasets_scripts.records import read_record
rows = []
for path in sys.argv[1:]:
    opened.clear()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        read_record(path)
        message = ""
    except (ValueError, OSError) as error:
        message = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    rows.append([path, message, time.monotonic() - start, grown / 1024, list(opened)])
print(json.dumps(rows))
"""


def test_hostile_sizes_cost_neither_time_nor_memory_and_open_nothing_outside(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    outside = tmp_path / "outside.dat"
    outside.write_bytes(b"\0" * 10_000)
    (folder / "link.dat").symlink_to(outside)
    (folder / "a.dat").write_bytes(b"\0" * 1000)
    with (folder / "sparse.dat").open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    line = " 16 200(0)/mV 16 0 0 0 0 I\n"
    headers = {
        "samples": "samples 1 250 1000000000000\na.dat" + line,
        "sparse": "sparse 12 250 1000000000000\n" + ("sparse.dat" + line) * 12,
        "unsaid": "unsaid 1 250\nsparse.dat" + line,
        "leads": "leads 10000 250 1\n" + ("a.dat" + line) * 10_000,
        "frames": "frames 1 250 10\na.dat 16x999999999 200 16 0 0 0 0 I\n",
        "late": "late 1 250 10\na.dat 16:999999999999 200 16 0 0 0 0 I\n",
        "flac": "flac 1 250 130000000\na.dat 516 200 16 0 0 0 0 I\n",
        "absolute": f"absolute 1 250 10\n{outside}" + line,
        "up": "up 1 250 10\n../outside.dat" + line,
        "address": "address 1 250 10\nhttp://127.0.0.1:9/a.dat" + line,
        "link": "link 1 250 10\nlink.dat" + line,
        "gaps": "gaps/2 1 250\nok 10\n~ 100000000\n",
        "ok": "ok 1 250 10\na.dat" + line,
        "many": "many/9999 1 250\n" + "ok 10\n" * 9999,
        "outside_segment": "outside_segment/1 1 250\n../ok 10\n",
    }
    for name, text in headers.items():
        (folder / f"{name}.hea").write_text(text)
    paths = [str(folder / name) for name in headers]
    result = subprocess.run([sys.executable, "-c", MEASURE, *paths], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for path, message, seconds, megabytes, opened in json.loads(result.stdout):
        name = Path(path).name
        assert ("" if name == "ok" else "records/") in message and (message == "") == (name == "ok"), (name, message)
        assert "\n" not in message and seconds < 1 and megabytes < 200, (name, message, seconds, megabytes)
        touched = {Path(file).resolve() for file in opened if str(tmp_path) in file}
        assert all(file.parent == folder for file in touched), (name, touched)
        if name not in ("ok", "flac"):
            assert all(file.suffix == ".hea" for file in touched), (name, touched)
