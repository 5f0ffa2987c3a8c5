"""Structs of MATLAB 5.0 files: what SciPy writes is read alike; sizes that lie are refused before SciPy sees them."""

import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from datasets_scripts.readers.matlab_structs import MAX_DATA_BYTES, read_matlab_struct

RNG = np.random.default_rng(0)
ECG = {"sex": "Male", "age": 74.0, "data": RNG.normal(size=(12, 7))}

# ----- files written byte by byte ------------------------------------------------------------------------------------


def element(kind, data, order="<"):
    return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)


def small(kind, data, order="<"):
    return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")


def matrix(matrix_class, shape, name, content, order="<", flags=0):
    head = element(6, struct.pack(order + "II", flags | matrix_class, 0), order)
    head += element(5, struct.pack(order + "2i", *shape), order) + element(1, name, order)
    return element(14, head + content, order)


def number(values, order="<", kind=9, code="d", shape=None):
    values = np.atleast_2d(values)
    data = struct.pack(f"{order}{values.size}{code}", *values.T.reshape(-1).tolist())  # column by column
    return matrix(6, values.shape if shape is None else shape, b"", element(kind, data, order), order)


def word(text, order="<"):
    return matrix(
        4, (1, len(text)), b"", element(4, text.encode("utf-16-le" if order == "<" else "utf-16-be"), order), order
    )


def fields(order="<", width=8, **values):
    names = b"".join(name.encode().ljust(width, b"\0") for name in values)
    head = small(5, struct.pack(order + "i", width), order) + element(1, names, order)
    return head + b"".join(values.values())


def ecg(order="<", shape=(1, 1), name=b"ECG", content=None, **values):
    values = values or {"sex": word("Male", order), "age": number(74, order), "data": number(ECG["data"], order)}
    return matrix(2, shape, name, fields(order, **values) if content is None else content, order)


def header(order="<", text=b"MATLAB 5.0 MAT-file", version=0x0100):
    return text.ljust(124) + struct.pack(order + "HH", version, 0x4D49)


def compressed(data, order="<"):
    packed = zlib.compress(data)
    return struct.pack(order + "II", 15, len(packed)) + packed


def write(tmp_path, *parts, name="A0001.mat"):
    (tmp_path / name).write_bytes(b"".join(parts))
    return tmp_path / name


# ----- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do_compression", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path, do_compression):
    path = tmp_path / "A0001.mat"
    scipy.io.savemat(path, {"other": np.arange(3), "ECG": ECG}, do_compression=do_compression)
    expected = scipy.io.loadmat(path)["ECG"]
    found = read_matlab_struct(path, "ECG")
    assert list(found) == ["sex", "age", "data"]
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name][0, 0])
    assert (found["sex"].item(), found["age"].item()) == ("Male", 74) and found["data"].shape == (12, 7)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_both_byte_orders_are_read(tmp_path, order, packed):
    data = compressed(ecg(order), order) if packed else ecg(order)
    found = read_matlab_struct(write(tmp_path, header(order), data), "ECG")
    np.testing.assert_array_equal(found["data"], ECG["data"])
    assert (found["sex"].item(), found["age"].item()) == ("Male", 74)


def test_whole_numbers_may_be_stored_in_fewer_bytes(tmp_path):
    age = matrix(6, (1, 1), b"", small(2, b"\x4a"))  # MATLAB stores the double 74 as one byte
    found = read_matlab_struct(write(tmp_path, header(), ecg(age=age, data=number([[1, -2]], kind=3, code="h"))), "ECG")
    assert found["age"].item() == 74 and found["data"].tolist() == [[1, -2]]


def test_an_empty_field_is_empty(tmp_path):
    found = read_matlab_struct(
        write(tmp_path, header(), ecg(age=number(np.zeros((0, 0))), data=number([[1.0]]))), "ECG"
    )
    assert found["age"].size == 0


# ----- what is refused -----------------------------------------------------------------------------------------------

HUGE = 2**31 - 1
REFUSED = {
    "HDF5": ([b"\x89HDF\r\n\x1a\n" + bytes(200)], r"got MATLAB 7.3 \(HDF5\); save it again with save"),
    "MATLAB 7.3": ([header(text=b"MATLAB 7.3 MAT-file")], "got MATLAB 7.3"),
    "MATLAB 4": ([struct.pack("<5i4s", 30, 12, 5, 0, 4, b"val\0"), bytes(120)], "expected a MATLAB 5.0 file"),
    "text": ([b"I,II,III\n1,2,3\n"], "expected a MATLAB 5.0 file, got something else"),
    "nothing": ([b""], "expected a MATLAB 5.0 file"),
    "header only": ([header()], "expected the variable ECG, got none"),
    "version": ([header(version=0x0200), ecg()], "expected version 1 and byte order"),
    "another name": ([header(), ecg(name=b"EEG")], "expected the variable ECG, got EEG"),
    "a number": (
        [header(), matrix(6, (1, 1), b"ECG", element(9, bytes(8)))],
        "expected a 1 x 1 struct, got 1 x 1 values",
    ),
    "many structs": ([header(), ecg(shape=(HUGE, HUGE))], "expected a 1 x 1 struct, got 2147483647 x 2147483647"),
    "no struct": ([header(), ecg(shape=(0, 0))], "expected a 1 x 1 struct, got 0 x 0"),
    "cells": ([header(), ecg(data=matrix(1, (HUGE, HUGE), b"", b""))], "the file is cut short"),
    "cells with content": ([header(), ecg(data=matrix(1, (1, 1), b"", number(1)))], "got class 1 stored as type 14"),
    "an object": ([header(), ecg(data=matrix(3, (1, 1), b"", element(9, bytes(8))))], "got class 3"),
    "a struct within": ([header(), ecg(data=ecg(name=b""))], "got class 2 stored as type 5"),
    "complex": ([header(), ecg(data=matrix(6, (1, 1), b"", element(9, bytes(8)), flags=0x0800))], "got complex ones"),
    "10^12 samples": ([header(), ecg(data=number(1, shape=(12, HUGE)))], "announces 206158430112 bytes, but holds 8"),
    "a long word": ([header(), ecg(sex=matrix(4, (1, HUGE), b"", element(4, b"ab")))], "but holds 2"),
    "negative size": (
        [header(), ecg(data=number(1, shape=(-1, -1)))],
        "expected dimensions of at least 0, got -1 x -1",
    ),
    "three dimensions": ([header(), element(14, element(6, bytes(8)) + element(5, bytes(12)))], "two dimensions"),
    "element too long": (
        [header(), struct.pack("<II", 14, 2**32 - 1)],
        "announces 4294967295 bytes, but only 0 follow",
    ),
    "small element": (
        [header(), struct.pack("<I", 7 << 16 | 14), bytes(4)],
        "at most 4 bytes in a small element, got 7",
    ),
    "not a variable": ([header(), element(9, bytes(8))], "expected variables, got an element of type 9"),
    "packed twice": ([header(), compressed(compressed(ecg()))], "expected variables, got an element of type 15"),
    "cut stream": ([header(), compressed(ecg())[:-9]], "announces"),
    "broken stream": ([header(), struct.pack("<II", 15, 8), bytes(8)], "Error -3 while decompressing"),
    "long name": ([header(), ecg(name=b"E" * 65)], "expected a name of at most 64 bytes, got 65"),
    "no field names": (
        [header(), ecg(content=small(5, bytes(4)) + element(1, b""))],
        "expected 1 to 16 names of fields",
    ),
    "many fields": ([header(), ecg(**{f"f{n}": number(1) for n in range(17)})], "expected 1 to 16 names of fields"),
    "odd name": ([header(), ecg(name=b"E\nG")], "expected a name of letters, digits and '_', got 'E..G'"),
    "equal names": (
        [header(), ecg(content=small(5, b"\2\0\0\0") + element(1, b"a\0a\0"))],
        "expected 2 different names of fields, got a",
    ),
    "missing field": ([header(), ecg(content=fields(a=number(1), b=b""))], "the file is cut short"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_lies_is_refused_in_one_sentence(tmp_path, name):
    parts, told = REFUSED[name]
    path = write(tmp_path, *parts)
    with pytest.raises(ValueError, match=told) as error:
        read_matlab_struct(path, "ECG")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = header() + ecg()
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            read_matlab_struct(write(tmp_path, whole[:length]), "ECG")
    assert read_matlab_struct(write(tmp_path, whole), "ECG")


def test_a_bomb_is_refused_quickly_in_little_memory(tmp_path):
    zeros = element(9, bytes(4 * MAX_DATA_BYTES))
    bombs = [compressed(matrix(2, (1, 1), name, zeros)) for name in (b"ECG", b"x")]
    for parts in ([bombs[0]], [compressed(matrix(6, (1, 1), b"x", element(9, bytes(MAX_DATA_BYTES - 100))))] * 8):
        path = write(tmp_path, header(), *parts)
        tracemalloc.start()
        start = time.process_time()
        with pytest.raises(
            ValueError, match="expected at most 16777216 bytes in a compressed|expected the variable ECG"
        ):
            read_matlab_struct(path, "ECG")
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
        tracemalloc.stop()


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "A0001.mat"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: no bytes on disk
    with pytest.raises(ValueError, match="expected at most 16777216 bytes, got 1099511627776"):
        read_matlab_struct(path, "ECG")


def test_no_file_outside_its_folder_is_opened(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path, header(), ecg())
    (tmp_path / "data" / "A0001.mat").symlink_to(tmp_path / "A0001.mat")
    with pytest.raises(ValueError, match="is a link that leads outside"):
        read_matlab_struct(tmp_path / "data" / "A0001.mat", "ECG")
    with pytest.raises(FileNotFoundError):
        read_matlab_struct(tmp_path / "A0002.mat", "ECG")


@pytest.mark.parametrize("packed", [False, True])
def test_mutated_files_are_read_or_refused(tmp_path, packed):
    rng = np.random.default_rng(7)
    whole = ecg(sex=word("Male"), age=number(74), data=number([[1.0, 2.0]]))
    read = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.choice([0, 1, 255, rng.integers(256)])
        path = write(tmp_path, header(), compressed(bytes(data)) if packed else bytes(data))
        try:
            read += bool(read_matlab_struct(path, "ECG"))
        except ValueError as error:
            assert str(error).startswith(str(path))
    assert 0 < read < 1500
