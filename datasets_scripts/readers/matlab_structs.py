"""One struct of numbers and words from a MATLAB 5.0 file, read through SciPy after every size in it has been checked.

A `.mat` file is bytes from outside that announce sizes and types: compressed elements can hold gigabytes of zeros, cell
and object arrays make SciPy allocate what they announce. So the variable asked for is unpacked within a bound and
walked first (https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf); only a 1 x 1 struct of plain numbers
and characters, whose announced sizes equal the bytes that are there, is handed to `scipy.io.loadmat`. MATLAB 7.3 files
are HDF5 and are refused.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from datasets_scripts.readers.wfdb_header import check_own_file

MAX_FILE_BYTES = MAX_DATA_BYTES = 2**24  # 12 leads of doubles at 500 Hz: 349 s
MAX_VARIABLES, MAX_FIELDS, MAX_NAME_BYTES = 16, 16, 64
HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
INT8, INT32, UINT32 = 1, 5, 6
STRUCT_CLASS, CHAR_CLASS, NUMBER_CLASSES = 2, 4, range(6, 16)
BYTES_OF_NUMBER = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
CHARACTER_TYPES = (1, 2, 4, 16, 17)
IS_COMPLEX = 0x0800
_PLAIN_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)

Element = tuple[int, int, int, int]  # type, first byte and end of its data, start of the next element


def read_matlab_struct(path: Path, variable: str) -> dict[str, np.ndarray]:
    """The fields of the struct `variable` as SciPy gives them: numbers as 2-D arrays, words as arrays of strings.

    Raises FileNotFoundError or ValueError with one sentence, and allocates only what the file really holds.
    """
    size = check_own_file(path)
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}; save each recording by itself")
    data = path.read_bytes()
    try:
        order = _byte_order(data)
        matrix = _find_variable(data, order, variable)
        return _load(matrix, order, variable)
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from error


def _byte_order(data: bytes) -> str:
    """`"<"` or `">"` by the header. ValueError for another format."""
    if data[:10] == b"MATLAB 7.3" or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise ValueError("expected a MATLAB 5.0 file, got MATLAB 7.3 (HDF5); save it again with save(..., '-v7')")
    if data[:10] != b"MATLAB 5.0" or len(data) < HEADER_BYTES:
        raise ValueError("expected a MATLAB 5.0 file, got something else; copy it again, or convert it to WFDB")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(order + "H", data, 124)[0] != 0x0100:
        raise ValueError(f"expected version 1 and byte order at the end of the header, got {data[124:128]!r}")
    return order


def _find_variable(data: bytes, order: str, variable: str) -> bytes:
    """The bytes of the matrix element with this name, unpacked and checked."""
    position, found = HEADER_BYTES, []
    while position < len(data) and len(found) < MAX_VARIABLES:
        kind, begin, end, position = _element(data, position, len(data), order)
        if kind == COMPRESSED:
            unpacked, position = _unpack(data[begin:end]), end  # such an element is not padded
            kind, begin, end, _ = _element(unpacked, 0, len(unpacked), order)
            matrix = unpacked[begin:end]
        else:
            matrix = data[begin:end]
        if kind != MATRIX:
            raise ValueError(f"expected variables, got an element of type {kind}")
        name = _head(matrix, order)[2]
        if name == variable:
            _check_matrix(matrix, order, in_struct=False)
            return matrix
        found.append(name)
    raise ValueError(f"expected the variable {variable}, got {', '.join(found) or 'none'}")


def _unpack(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(packed, MAX_DATA_BYTES + 1)
    if len(unpacked) > MAX_DATA_BYTES:
        raise ValueError(f"expected at most {MAX_DATA_BYTES} bytes in a compressed variable, got more")
    if not unpacker.eof:
        raise ValueError("a compressed variable is cut short; copy the file again")
    return unpacked


def _element(data: bytes, position: int, limit: int, order: str) -> Element:
    """The element at `position`, which must end before `limit`."""
    if position + 8 > limit:
        raise ValueError("the file is cut short; copy it again")
    kind, size = struct.unpack_from(order + "II", data, position)
    if kind >> 16:  # up to 4 bytes are packed into the tag
        kind, size, begin, following = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        if size > 4:
            raise ValueError(f"expected at most 4 bytes in a small element, got {size}")
    else:
        begin, following = position + 8, position + 8 + size + -size % 8
    if begin + size > limit:
        raise ValueError(f"an element announces {size} bytes, but only {limit - begin} follow; copy the file again")
    return kind, begin, begin + size, following


def _head(matrix: bytes, order: str) -> tuple[int, tuple[int, int], str, int]:
    """Class, shape and name of a matrix, and where its content starts."""
    kind, begin, end, position = _element(matrix, 0, len(matrix), order)
    if (kind, end - begin) != (UINT32, 8):
        raise ValueError("expected the flags of a variable first, got something else")
    flags = struct.unpack_from(order + "I", matrix, begin)[0]
    if flags & IS_COMPLEX:
        raise ValueError("expected real numbers, got complex ones")
    kind, begin, end, position = _element(matrix, position, len(matrix), order)
    if (kind, end - begin) != (INT32, 8):
        raise ValueError("expected arrays of two dimensions, got another number of them")
    rows, columns = struct.unpack_from(order + "ii", matrix, begin)
    if rows < 0 or columns < 0:
        raise ValueError(f"expected dimensions of at least 0, got {rows} x {columns}")
    kind, begin, end, position = _element(matrix, position, len(matrix), order)
    if kind != INT8 or end - begin > MAX_NAME_BYTES:
        raise ValueError(f"expected a name of at most {MAX_NAME_BYTES} bytes, got {end - begin} of type {kind}")
    return flags & 0xFF, (rows, columns), _name(matrix[begin:end]), position


def _name(data: bytes) -> str:
    name = data.rstrip(b"\0").decode("ascii")
    if name and not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits and '_', got {name!r}")
    return name


def _check_matrix(matrix: bytes, order: str, in_struct: bool) -> None:
    """ValueError unless it is a struct of numbers and words (or, `in_struct`, one of these)."""
    matrix_class, (rows, columns), _, position = _head(matrix, order)
    if not in_struct:
        if matrix_class != STRUCT_CLASS or (rows, columns) != (1, 1):
            raise ValueError(f"expected a 1 x 1 struct, got {rows} x {columns} values of class {matrix_class}")
        _check_fields(matrix, order, position)
        return
    kind, begin, end, _ = _element(matrix, position, len(matrix), order)
    size = end - begin
    if matrix_class in NUMBER_CLASSES and kind in BYTES_OF_NUMBER:
        announced, fits = rows * columns * BYTES_OF_NUMBER[kind], rows * columns * BYTES_OF_NUMBER[kind] == size
    elif matrix_class == CHAR_CLASS and kind in CHARACTER_TYPES:
        announced, fits = rows * columns, rows * columns <= size
    else:
        raise ValueError(f"expected fields of numbers or words, got class {matrix_class} stored as type {kind}")
    if not fits:
        raise ValueError(f"a field of {rows} x {columns} values announces {announced} bytes, but holds {size}")


def _check_fields(matrix: bytes, order: str, position: int) -> None:
    kind, begin, end, position = _element(matrix, position, len(matrix), order)
    width = struct.unpack_from(order + "i", matrix, begin)[0] if (kind, end - begin) == (INT32, 4) else 0
    kind, begin, end, position = _element(matrix, position, len(matrix), order)
    count, rest = divmod(end - begin, width) if 0 < width <= MAX_NAME_BYTES else (0, 1)
    if kind != INT8 or rest or not 0 < count <= MAX_FIELDS:
        raise ValueError(f"expected 1 to {MAX_FIELDS} names of fields, got {end - begin} bytes of names")
    names = {_name(matrix[first : first + width]) for first in range(begin, end, width)}
    if "" in names or len(names) < count:
        raise ValueError(f"expected {count} different names of fields, got {', '.join(sorted(names))}")
    for _ in range(count):
        kind, begin, end, position = _element(matrix, position, len(matrix), order)
        if kind != MATRIX:
            raise ValueError(f"expected a field's value, got an element of type {kind}")
        _check_matrix(matrix[begin:end], order, in_struct=True)


def _load(matrix: bytes, order: str, variable: str) -> dict[str, np.ndarray]:
    """SciPy's reading of one checked matrix, in a file of its own."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    header = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8)
    header += struct.pack(order + "HH", 0x0100, 0x4D49)
    file = io.BytesIO(header + struct.pack(order + "II", MATRIX, len(matrix)) + matrix)
    try:
        loaded = loadmat(file, variable_names=[variable])[variable]
        return {name: loaded[name][0, 0] for name in loaded.dtype.names}
    except (MatReadError, TypeError, KeyError, IndexError, OverflowError, NotImplementedError, OSError) as error:
        raise ValueError(f"its struct {variable} cannot be read ({error}); copy the file again") from error
