"""Samples of every WFDB format are the integers that `wfdb` reads, and the common formats are read without it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wfdb
from tiny_wfdb import LEADS, change_header, checksum, matlab_header, random_integers, signal_bytes, write_record

from datasets_scripts.readers.wfdb_records import read_wfdb_record
from datasets_scripts.readers.wfdb_signals import decode_212

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((folder for folder in (ROOT / "shared/data", ROOT.parent / "shared/data") if folder.is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder ../shared/data with real records is absent")
WITHOUT_WFDB = """
import sys
from pathlib import Path
from datasets_scripts.readers.wfdb_records import read_wfdb_record
for path in sys.argv[1:]:
    read_wfdb_record(Path(path))
print("wfdb" in sys.modules)
"""


def assert_equals_wfdb(path):
    """Integers and millivolts (gains here are per mV) of the leads that were kept, and the sampling rate."""
    record = read_wfdb_record(path)
    name = str(path.with_suffix(""))
    digital, physical = wfdb.rdrecord(name, physical=False), wfdb.rdrecord(name)
    names = [name.strip() for name in physical.sig_name]
    columns = [names.index(lead) for lead in record.leads]
    expected = physical.p_signal[:, columns].T
    np.testing.assert_array_equal(np.isnan(record.signal), np.isnan(expected), err_msg=str(path))
    np.testing.assert_allclose(record.signal, expected, rtol=2e-6, atol=1e-6, err_msg=str(path))
    if record.digital is not None:
        present = ~np.isnan(expected)
        np.testing.assert_array_equal(record.digital[present], digital.d_signal[:, columns].T[present])
    else:
        assert physical.fmt[0] != "16" or max(map(abs, physical.baseline)) > 2**24
    assert record.sampling_rate == physical.fs and record.num_samples == physical.sig_len
    return record


def write_with_wfdb(folder, integers, fmt, gain=200.0, baseline=5, name="rec"):
    count = integers.shape[1]
    wfdb.wrsamp(
        name, 250, ["mV"] * count, list(LEADS[:count]), d_signal=integers, fmt=[fmt] * count, adc_gain=[gain] * count,
        baseline=[baseline] * count, write_dir=str(folder),
    )  # fmt: skip
    return folder / f"{name}.hea"


# ---------------------------------------------------------------- formats 16 and 212


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("num_leads", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [1, 2, 36, 37])
def test_shapes_equal_wfdb(tmp_path, fmt, num_leads, num_samples):
    low, high, nan = (-32767, 32768, -32768) if fmt == "16" else (-2047, 2048, -2048)
    integers = random_integers(num_samples, num_leads, low, high)
    integers[0, 0], integers[-1, -1] = low, high - 1
    if num_samples > 2:
        integers[2, 0] = integers[-1, 0] = nan
    record = assert_equals_wfdb(write_with_wfdb(tmp_path, integers, fmt))
    assert record.digital.dtype == np.int16 and record.digital.flags.c_contiguous and record.digital.flags.writeable
    np.testing.assert_array_equal(record.digital, np.where(integers == nan, -32768, integers).T)
    assert record.repairs[:1] == (("nan_samples: 2",) if num_samples > 2 else ())
    # the bytes are those that these tests write, and stand anywhere in the file
    assert (tmp_path / "rec.dat").read_bytes() == signal_bytes(integers, fmt)
    for before in (b"\1", b"\1\2", b"\0" * 97):
        path = write_record(tmp_path, "off", integers, fmt, LEADS[:num_leads], before=before)
        np.testing.assert_array_equal(assert_equals_wfdb(path).digital, record.digital)


def test_212_by_hand():
    # signal(5): the low 8 bits of the first sample, 4 + 4 high bits, the low 8 bits of the second
    assert decode_212(np.uint8([0xFF, 0x87, 0x00]), 2).tolist() == [2047, -2048]
    assert decode_212(np.uint8([0xFF, 0xFF, 0xFF, 0x64, 0x00]), 3).tolist() == [-1, -1, 100]
    every = np.arange(-2048, 2048)
    assert decode_212(np.frombuffer(signal_bytes(every, "212"), np.uint8), 4096).tolist() == every.tolist()


def test_length_from_the_file_size(tmp_path):
    for fmt, num_samples in (("16", 37), ("212", 36)):
        integers = random_integers(num_samples)
        path = write_record(tmp_path, f"f{fmt}", integers, fmt)
        change_header(path, f"250 {num_samples}", "250")
        np.testing.assert_array_equal(assert_equals_wfdb(path).digital, integers.T)
        change_header(path, "3 250", "3 250 0")  # header(5): zero says nothing; wfdb refuses it
        np.testing.assert_array_equal(read_wfdb_record(path).digital, integers.T)


def test_several_files_formats_and_skew(tmp_path):
    """As PTB's `.dat` and `.xyz`: one record, a file of its own format for some leads."""
    first, second = random_integers(seed=1), random_integers(seed=2)
    lines = write_record(tmp_path, "rec", first).read_text().splitlines()
    other = write_record(tmp_path, "other", second, "212", ("vx", "vy", "vz")).read_text().splitlines()[1:]
    (tmp_path / "other.dat").rename(tmp_path / "rec.xyz")
    path = tmp_path / "rec.hea"
    for layout in ("212", "212:4", "212:37"):
        extra = [line.replace("other.dat 212", f"rec.xyz {layout}") for line in other]
        path.write_text("\n".join(["rec 6 250 37", *lines[1:], *extra]) + "\n")
        late = int(layout[4:] or 0)
        record = assert_equals_wfdb(path)
        np.testing.assert_array_equal(record.digital[:3], first.T)
        np.testing.assert_array_equal(record.digital[3:, : 37 - late], second.T[:, late:])
        assert (record.digital[3:, 37 - late :] == -32768).all()


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_frames_of_several_samples_are_averaged_as_wfdb_does(tmp_path, fmt):
    integers = random_integers(40, 3)
    lines = write_record(tmp_path, "rec", integers, fmt).read_text().splitlines()
    per_frame = integers.reshape(24, 5)  # 120 samples: 24 frames of 2 + 1 + 2
    sums = [checksum(part) for part in (per_frame[:, :2], per_frame[:, 2], per_frame[:, 3:])]
    fields = [line.split() for line in lines[1:]]
    for field, layout, total in zip(fields, ("x2", "", "x2"), sums, strict=True):
        field[1], field[6] = fmt + layout, str(total)
    (tmp_path / "rec.hea").write_text("\n".join(["rec 3 125 24", *(" ".join(field) for field in fields)]) + "\n")
    record = assert_equals_wfdb(tmp_path / "rec.hea")
    np.testing.assert_array_equal(record.digital[0], np.trunc(per_frame[:, :2].mean(axis=1)))
    # a frame with a missing sample is missing; wfdb averages the number that stands for it
    per_frame[3, 0] = -32768 if fmt == "16" else -2048
    (tmp_path / "rec.dat").write_bytes(signal_bytes(per_frame, fmt))
    change_header(tmp_path / "rec.hea", f" {sums[0]} 0 I\n", f" {checksum(per_frame[:, :2])} 0 I\n")
    assert np.argwhere(np.isnan(read_wfdb_record(tmp_path / "rec.hea").signal)).tolist() == [[0, 3]]


# ---------------------------------------------------------------- MATLAB v4


def test_matlab_files_of_the_challenge(tmp_path):
    integers = random_integers(20)
    path = write_record(tmp_path, "rec", integers, before=matlab_header(3, 20))
    assert "rec.mat 16+24 " in path.read_text()
    np.testing.assert_array_equal(assert_equals_wfdb(path).digital, integers.T)
    change_header(path, "rec 3", "rec.mat 3")  # so some headers of the Challenge of 2021 begin
    np.testing.assert_array_equal(read_wfdb_record(tmp_path / "rec.mat").digital, integers.T)
    longer = write_record(tmp_path, "longer", integers, before=matlab_header(3, 20, name=b"samples\0"))
    np.testing.assert_array_equal(assert_equals_wfdb(longer).digital, integers.T)


@pytest.mark.parametrize(
    "head",
    [
        matlab_header(4, 20),
        matlab_header(3, 19),
        matlab_header(20, 3),
        matlab_header(3, 20, number=1030),  # big-endian
        matlab_header(3, 20, number=40),  # uint16
        matlab_header(3, 20, imaginary=1),
        matlab_header(3, 20)[:-5] + b"\5val\0",
        b"MATLAB 5.0 MAT-file....",
        matlab_header(3, -20),
    ],
)
def test_matlab_files_that_contradict_their_header(tmp_path, head):
    path = write_record(tmp_path, "rec", random_integers(20), before=matlab_header(3, 20))
    samples = (tmp_path / "rec.mat").read_bytes()[24:]
    (tmp_path / "rec.mat").write_bytes(head.ljust(24, b"\0") + samples)
    with pytest.raises(ValueError, match=r"rec\.mat: expected a MATLAB v4 matrix of int16 .*3 x 20.*byte 24") as caught:
        read_wfdb_record(path)
    assert "\n" not in str(caught.value)


def test_matlab_files_cannot_hold_every_format(tmp_path):
    path = write_record(tmp_path, "rec", random_integers(20), before=matlab_header(3, 20))
    good = path.read_text()
    path.write_text(good.replace(" 16+24 ", " 212+24 "))
    with pytest.raises(ValueError, match="expected a MATLAB file in format 16, 32, 80, got format 212"):
        read_wfdb_record(path)
    path.write_text(good.replace(" 16+24 ", " 16+0 "))
    with pytest.raises(ValueError, match="samples from byte 0, as the header says"):
        read_wfdb_record(path)
    (tmp_path / "rec.mat").write_bytes(b"\x1e\0\0")
    path.write_text("rec 1 250 1\nrec.mat 16 200 16 0 0 0 0 I\n")
    with pytest.raises(ValueError, match="expected the 20 bytes of a MATLAB v4 header, got 3"):
        read_wfdb_record(path)


# ---------------------------------------------------------------- all other formats, through wfdb


@pytest.mark.parametrize("fmt", ["24", "32", "80", "508", "516", "524"])
@pytest.mark.parametrize("num_samples", [36, 37])
def test_formats_that_wfdb_writes(tmp_path, fmt, num_samples):
    record = assert_equals_wfdb(write_with_wfdb(tmp_path, random_integers(num_samples, 3, -90, 90), fmt))
    assert record.digital is not None and record.repairs == ()


@pytest.mark.parametrize("fmt", ["8", "61", "160", "310", "311"])
@pytest.mark.parametrize("num_samples", [36, 37])
def test_formats_that_wfdb_reads(tmp_path, fmt, num_samples):
    path = write_record(tmp_path, "rec", random_integers(num_samples))
    raw = np.random.default_rng(1).integers(0, 256, size=num_samples * 6, dtype=np.uint8)
    (tmp_path / "rec.dat").write_bytes(raw.tobytes())
    lines = path.read_text().splitlines()
    start = "rec.dat " + fmt + " 200(5)/mV 16 0 3 0 0 "  # no checksum
    path.write_text("\n".join([lines[0], *(start + lead for lead in LEADS)]) + "\n")
    assert assert_equals_wfdb(path).digital is not None


def test_frames_skew_and_missing_samples_in_other_formats(tmp_path):
    integers = random_integers(40, 3, -100, 100)
    integers[7, 1] = -(2**23)
    path = write_with_wfdb(tmp_path, integers, "24")
    assert np.argwhere(np.isnan(assert_equals_wfdb(path).signal)).tolist() == [[1, 7]]
    good = path.read_text()
    path.write_text(good.replace("rec.dat 24 ", "rec.dat 24:3 ", 1))
    assert np.isnan(assert_equals_wfdb(path).signal[0, -3:]).all()
    sums = [line.split()[6] for line in good.splitlines()[1:]]
    text = good.replace("3 250 40", "3 125 30").replace("rec.dat 24 ", "rec.dat 24x2 ", 1)
    for total in sums:
        text = text.replace(f" {total} 0", " 0 0")
    path.write_text(text)
    change = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T
    record = read_wfdb_record(path)
    present = ~np.isnan(record.signal)
    np.testing.assert_allclose(record.signal[present], change[present], rtol=2e-6)


def test_a_format_without_missing_samples_is_skewed(tmp_path):
    (tmp_path / "rec.dat").write_bytes(bytes([1, 2, 3, 4]))
    (tmp_path / "rec.hea").write_text("rec 1 250 4\nrec.dat 8:1 1/mV 16 0 10 0 0 I\n")
    record = read_wfdb_record(tmp_path / "rec")
    np.testing.assert_array_equal(record.signal, np.float32([[13, 16, 20, np.nan]]))  # 10 and the sum of differences


def test_wide_integers_and_offsets_become_float_only(tmp_path):
    integers = random_integers() * 1000
    record = assert_equals_wfdb(write_with_wfdb(tmp_path, integers, "32", gain=1e5, baseline=7))
    assert record.digital is None
    np.testing.assert_allclose(record.signal, (integers.T - 7) / 1e5, atol=1e-6)
    # an offset that float32 cannot hold: (37 - 100000003) / 200 must not become a multiple of 8 / 200
    path = change_header(write_record(tmp_path, "far"), "(5)", "(100000003)")
    record = assert_equals_wfdb(path)
    assert record.digital is None
    np.testing.assert_allclose(record.signal, (random_integers().T - 100000003) / 200, rtol=1e-7)


def test_compressed_files_that_hold_less(tmp_path):
    path = write_with_wfdb(tmp_path, random_integers(37, 3, -90, 90), "516")
    for announced in (38, 40_000_000):
        path.write_text(path.read_text().replace("3 250 37", f"3 250 {announced}"))
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"rec\.hea.*cannot be read"):
            read_wfdb_record(path)
        assert time.monotonic() - start < 1
        path.write_text(path.read_text().replace(f"3 250 {announced}", "3 250 37"))


# ---------------------------------------------------------------- the hot path


def test_common_formats_are_read_without_wfdb(tmp_path):
    two = write_record(tmp_path, "two", fmt="212", comments="#Age: 50\n")
    mat = write_record(tmp_path, "mat", random_integers(20), before=matlab_header(3, 20))
    skewed = change_header(write_record(tmp_path, "skew"), "skew.dat 16 ", "skew.dat 16:2 ")
    wide = write_with_wfdb(tmp_path, random_integers(), "24", name="wide")
    # the package's own file is not run: what else it imports is not asked here
    stub = "import sys, types; p = sys.modules['datasets_scripts'] = types.ModuleType('p'); "
    stub += "p.__path__ = ['datasets_scripts']\n"
    for paths, imported in (([two, mat, skewed], "False"), ([wide], "True")):
        command = [sys.executable, "-c", stub + WITHOUT_WFDB, *map(str, paths)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == imported


def test_a_usual_record_takes_a_fraction_of_a_millisecond(tmp_path):
    integers = random_integers(5000, 12)
    path = write_record(tmp_path, "rec", integers, leads=[f"L{i}" for i in range(12)], rate=500)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        record = read_wfdb_record(path)
        times.append(time.perf_counter() - start)
    np.testing.assert_array_equal(record.digital, integers.T)
    assert "signal" not in record.__dict__  # no millivolts were computed
    assert min(times) < 0.002, f"{min(times) * 1e3:.2f} ms; about 0.3 ms are usual"


# ---------------------------------------------------------------- real records


@needs_shared
@pytest.mark.parametrize(
    ("folder", "step"),
    [("ptbxl/records100", 10), ("ptbxl/records500", 10), ("ptbxl_filtered", 50), ("physionet2021", 1), ("formats", 1)],
)
def test_real_records_equal_wfdb(folder, step):
    paths = sorted((SHARED / folder).rglob("*.hea"))
    assert paths
    for path in paths[::step]:
        assert assert_equals_wfdb(path).digital is not None
