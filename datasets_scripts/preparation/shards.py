"""One shard of a prepared data set: an Arrow stream of stored rows, written once, memory-mapped ever after.

All rows of a shard have one layout: the dtype of `signal`, and its length where every row has the same. Rows of a
fixed length need no offsets, which is the fastest to read. A shard starts with the layout of its first record, and is
rewritten in a wider one when a record does not fit: any length, or float32 mV where a record has no integers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from datasets_scripts.records import ECGRecord, record_to_row, row_features, row_to_record

ROWS_PER_BATCH = 256  # 12 leads of 10 s at 500 Hz: 31 MB of int16 held while writing
VALUES_PER_BATCH = 2**24  # fewer rows where records are long: 32 MB


@dataclass(frozen=True)
class Layout:
    """How a shard stores signals: `"int16"` or `"float32"`; values in each row, None where they differ."""

    dtype: str
    num_values: int | None

    @classmethod
    def of(cls, record: ECGRecord) -> Self:
        """The narrowest layout for one record."""
        return cls("float32" if record.digital is None else "int16", record.stored.size)

    def __or__(self, other: Layout) -> Layout:
        """The narrowest layout for the rows of both."""
        dtype = self.dtype if self.dtype == other.dtype else "float32"
        return Layout(dtype, self.num_values if self.num_values == other.num_values else None)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a shard, with what `datasets` needs to know of it."""
        return row_features(self.dtype, self.num_values).arrow_schema


class ShardWriter:
    """Writes records one by one; `layout` is what the file has at the end (int16 of any length without a record).

    Used as a context manager. The file at `path` is complete, and on the disk, when the block is left without an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: Layout | None = None
        self._rows: list[dict[str, Any]] = []
        self._file: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            self._close()
            return
        if self.layout is None:
            self._open(Layout("int16", None))
        self._flush()
        self._close()

    def write(self, record: ECGRecord) -> None:
        """Add one record."""
        needed = Layout.of(record) if self.layout is None else self.layout | Layout.of(record)
        if needed != self.layout:
            self._widen(needed)
        self._rows.append(record_to_row(record, needed.dtype))
        if len(self._rows) == ROWS_PER_BATCH or sum(row["signal"].size for row in self._rows) >= VALUES_PER_BATCH:
            self._flush()

    def _widen(self, layout: Layout) -> None:
        if self.layout is None:
            self._open(layout)
            return
        self._close()
        narrow = self.path.replace(self.path.with_name(f"{self.path.name}.narrow"))
        self._open(layout)
        _copy(narrow, self._stream, layout)
        narrow.unlink()
        self._rows = [_converted(row, layout) for row in self._rows]

    def _open(self, layout: Layout) -> None:
        self.layout = layout
        self._file = self.path.open("wb")
        self._stream = pa.ipc.new_stream(self._file, layout.schema)

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_batch(_record_batch(self._rows, self.layout))
            self._rows = []

    def _close(self) -> None:
        if self._file is None:
            return
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None


def convert_shard(path: Path, layout: Layout) -> None:
    """Rewrite a shard in a wider layout, batch by batch; the file is the old one or the new one, never half of it."""
    building = path.with_name(f"{path.name}.building-{os.getpid()}")
    with building.open("wb") as file:
        with pa.ipc.new_stream(file, layout.schema) as stream:
            _copy(path, stream, layout)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def _copy(path: Path, stream: pa.RecordBatchStreamWriter, layout: Layout) -> None:
    with pa.memory_map(str(path)) as source:
        for batch in pa.ipc.open_stream(source):
            rows = [_converted(row, layout) for row in _plain_rows(batch)]
            stream.write_batch(_record_batch(rows, layout))


def _plain_rows(batch: pa.RecordBatch) -> Iterable[dict[str, Any]]:
    """The rows of a batch as dictionaries; signals are views of Arrow's memory."""
    columns = {name: batch[name].to_pylist() for name in batch.schema.names if name != "signal"}
    columns["signal"] = [values.values.to_numpy() for values in batch["signal"]]
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _converted(row: dict[str, Any], layout: Layout) -> dict[str, Any]:
    if row["signal"].dtype == layout.dtype:
        return row
    return record_to_row(row_to_record(row), layout.dtype)


def _record_batch(rows: list[dict[str, Any]], layout: Layout) -> pa.RecordBatch:
    """Rows as Arrow columns; the signals are joined once and never become Python numbers."""
    schema = layout.schema
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names
               if name != "signal"}  # fmt: skip
    values = pa.array(np.concatenate([row["signal"] for row in rows]))
    if layout.num_values is None:
        ends = np.cumsum([0, *(row["signal"].size for row in rows)]).astype(np.int32)
        columns["signal"] = pa.ListArray.from_arrays(pa.array(ends), values)
    else:
        columns["signal"] = pa.FixedSizeListArray.from_arrays(values, layout.num_values)
    return pa.RecordBatch.from_arrays(
        [columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema
    )
