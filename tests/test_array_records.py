"""CSV files and NumPy arrays, values compared by hand."""

import numpy as np
import pytest

from datasets_scripts.readers import array_records
from datasets_scripts.readers.formats import read_file

LEADS = ("I", "II", "V1")
ROWS = "0.1,0.2,-0.3\n0.4,,0.6\n0.7,0.8,0.9\n"


@pytest.fixture
def read_csv(tmp_path):
    def write_and_read(text, name="table.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_file(path, **options)

    return write_and_read


@pytest.fixture
def read_npy(tmp_path):
    def write_and_read(array, sampling_rate=500, leads=LEADS, **options):
        path = tmp_path / "array.npy"
        if isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array, allow_pickle=True)
        return read_file(path, sampling_rate=sampling_rate, leads=leads, **options)

    return write_and_read


@pytest.mark.parametrize("header", ["I,II,V1\n", "\ufeffI,II,V1\r\n", '"I"; "II" ;V1\n', "I\tII\tV1\n"])
def test_csv_values(read_csv, header):
    rows = ROWS.replace(",", ";" if ";" in header else "\t" if "\t" in header else ",")
    record = read_csv(header + rows, sampling_rate=250)
    assert (record.leads, record.sampling_rate, record.record_id, record.digital) == (LEADS, 250.0, "table", None)
    np.testing.assert_allclose(record.signal, [[0.1, 0.4, 0.7], [0.2, np.nan, 0.8], [-0.3, 0.6, 0.9]], rtol=1e-6)


def test_csv_without_header_needs_leads(read_csv):
    with pytest.raises(ValueError, match=r"no header row.*pass leads"):
        read_csv(ROWS, sampling_rate=250)
    assert read_csv(ROWS, sampling_rate=250, leads=LEADS).num_samples == 3


def test_csv_with_numbered_columns_has_no_names(read_csv):
    record = read_csv("0,1,2\n" + ROWS, sampling_rate=250, leads=LEADS)
    assert (record.num_samples, record.repairs) == (3, ("left_out_row: numbers of the columns",))


def test_csv_decimal_comma(read_csv):
    record = read_csv("I;II\n0,25;-1,5\n0,5;2,5\n", sampling_rate=250)
    assert record.signal.tolist() == [[0.25, 0.5], [-1.5, 2.5]]


@pytest.mark.parametrize(("header", "unit"), [("I (uV),II [mV]", None), ("I,II [mV]", "mV")])
def test_csv_units(read_csv, header, unit):
    record = read_csv(f"{header}\n1500,0.5\n-2,0.25\n", sampling_rate=250, unit=unit)
    scale = 1e-3 if unit is None else 1
    np.testing.assert_allclose(record.signal[0], np.array([1500, -2]) * scale, rtol=1e-6)
    assert record.signal[1].tolist() == [0.5, 0.25] and record.leads == ("I", "II")


def test_csv_unit_from_the_caller(read_csv):
    assert read_csv("I\n1500\n-500\n", sampling_rate=250, unit="uV").signal.tolist() == [[1.5, -0.5]]


@pytest.mark.parametrize(
    ("name", "step", "rate"), [("time", 0.002, 500), ("t", 1 / 128, 128), ("ms", 4, 250), ("Time (ms)", 1, 1000)]
)
def test_csv_times_give_the_rate(read_csv, name, step, rate):
    rows = "".join(f"{row * step:.6f},0.5\n" for row in range(400))
    record = read_csv(f"{name},II\n{rows}")
    assert (record.leads, record.sampling_rate) == (("II",), rate)


def test_csv_times_rounded_to_milliseconds(read_csv):
    rows = "".join(f"{row / 360:.3f},0.5\n" for row in range(3600))
    record = read_csv(f"seconds,II\n{rows}")
    assert record.sampling_rate == 360.0
    assert record.repairs[0].startswith("sampling_rate_rounded: 360.008")


def test_csv_column_of_row_numbers_is_told(read_csv):
    record = read_csv(",II\n0,0.5\n1,0.25\n", sampling_rate=250)
    assert (record.leads, record.repairs) == (("II",), ("left_out_channel: number of the row",))


GAP = "time,I\n" + "".join(f"{t},0.5\n" for t in (0, 0.01, 0.02, 0.04, 0.05))


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("I,II\n0.1,0.2\n", {}, "pass sampling_rate"),
        ("time,I\n0,0.5\n0.01,0.2\n", {"sampling_rate": 500}, r"100 Hz, but sampling_rate=500"),
        ("I,II\n0.1,0.2\n", {"sampling_rate": 500, "leads": ("I", "V1")}, r"\['I', 'II'\], but leads=\['I', 'V1'\]"),
        ("I (uV)\n0.1\n", {"sampling_rate": 500, "unit": "mV"}, "says uV for lead I, but unit='mV'"),
        ("I\n100\n200\n", {"sampling_rate": 500}, "whole numbers without a unit"),
        ("I\n312.5\n200.25\n", {"sampling_rate": 500}, "which are no mV"),
        ("I\n0.1\n", {"sampling_rate": 500, "unit": "furlong"}, "such as mV, uV or V"),
        (GAP, {}, "gaps or jumps"),
        ("time,I\n0,0.5\n2,0.5\n4,0.5\n", {}, "name the column 'ms'"),
        ("time,I\n3,0.5\n2,0.5\n1,0.5\n", {}, "increasing times"),
        ("time,t,I\n0,0,0.5\n1,1,0.5\n", {}, "at most one column of times"),
        ("time\n0\n1\n", {}, "at least one lead"),
        ("I,II\n0.1\n0.2,0.3,0.4\n", {"sampling_rate": 500}, "rows of 2 numbers"),
        ("I,II\n0.1,0.2,0.3\n", {"sampling_rate": 500}, "rows of 2 numbers"),
        ("I\nabc\n", {"sampling_rate": 500}, "rows of 1 numbers"),
        ("I,I\n0.1,0.2\n", {"sampling_rate": 500}, "each lead once"),
        ("I\n", {"sampling_rate": 500}, "at least one row|rows of 1"),
        ("I\ninf\n", {"sampling_rate": 500}, "finite"),
        ("", {"sampling_rate": 500}, "expected a CSV"),
        ("I,II\n0.1,\0\n", {"sampling_rate": 500}, "expected a CSV"),
        (b"I,\xff\xfe\n0.1,0.2\n", {"sampling_rate": 500}, "UTF-8"),
        ("," * 5000, {"sampling_rate": 500}, "columns, got 5001"),
        ("1" * 100_000, {"sampling_rate": 500}, "lines of at most"),
    ],
)
def test_csv_that_makes_no_sense_is_refused(read_csv, text, options, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read_csv(text, **options)
    assert "table.csv: " in str(caught.value) and "\n" not in str(caught.value)


def test_large_csv_is_refused_unread(read_csv, monkeypatch):
    monkeypatch.setattr(array_records, "MAX_CSV_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        read_csv("I,II\n" + ROWS, sampling_rate=500)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_either_way_round(read_npy, dtype, order):
    array = np.array(np.arange(21).reshape(7, 3) / 8, dtype, order=order)
    for stored in (array, array.T):
        record = read_npy(stored)
        assert (record.leads, record.num_samples, record.sampling_rate) == (LEADS, 7, 500.0)
        np.testing.assert_array_equal(record.signal, array.T)
    assert read_npy(array, unit="V").signal[0, 1] == 375.0


def test_npy_integers_need_a_unit_and_are_kept(read_npy):
    array = np.array([[1, -2, 3], [4, 5, 6]], ">i2")
    with pytest.raises(ValueError, match=r"integers \(>i2\).*pass unit"):
        read_npy(array)
    record = read_npy(array, unit="uV")
    assert record.digital.tolist() == array.T.tolist()
    np.testing.assert_allclose(record.signal[:, 0], [1e-3, -2e-3, 3e-3], rtol=1e-6)


def test_npy_of_one_lead(read_npy):
    assert read_npy(np.array([0.5, 0.25]), leads=("II",)).signal.tolist() == [[0.5, 0.25]]


def npy_header(text):
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("array", "options", "reason"),
    [
        (np.zeros((3, 3)), {}, "exactly one axis"),
        (np.zeros((5, 4)), {}, "exactly one axis"),
        (np.zeros((2, 3, 4)), {}, r"got float64 \(2, 3, 4\)"),
        (np.zeros((0, 3)), {}, "expected numbers"),
        (np.zeros((5, 3), complex), {}, "expected numbers"),
        (np.full((5, 3), np.inf), {}, "finite"),
        (np.full((5, 3), 700.5), {}, "no mV"),
        (np.full((5, 3), 2**40), {"unit": "uV"}, "32 bits"),
        (np.array([{"a": 1}] * 3), {}, "pickles"),
        (
            npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}"),
            {},
            "cannot be read safely",
        ),
        (
            npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -5)}"),
            {},
            "cannot be read safely|expected",
        ),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 40 + ", 3)}"), {}, "cannot be read"),
        (npy_header("__import__('os').system('false')"), {}, "cannot be read safely"),
        (b"\x93NUMPY", {}, "cannot be read safely"),
        (np.zeros((5, 3)), {"sampling_rate": None}, "pass sampling_rate and leads"),
        (np.zeros((5, 3)), {"leads": None}, "pass sampling_rate and leads"),
    ],
)
def test_npy_that_makes_no_sense_is_refused(read_npy, array, options, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read_npy(array, **options)
    assert "array.npy: " in str(caught.value) and "\n" not in str(caught.value)
