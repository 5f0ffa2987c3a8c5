"""Random access to the stored rows of a data set: its records as views of Arrow's memory, at the speed of that memory.

`dataset[indices]` gathers whole rows into a new table before anything is done with them. Here only the samples' place
is looked up: chunk by binary search, row by offset. What a batch needs (integers, gain, offset, leads, rate) is at hand
at once; texts and other metadata are decoded when they are asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from datasets_scripts.records import ECGRecord, row_to_record

if TYPE_CHECKING:
    import datasets

_TUPLES = ("statements", "labels", "repairs")  # lists in Arrow, tuples in a record
_LISTS = {"gain": "float", "offset": "float", "leads": "string", **dict.fromkeys(_TUPLES, "string")}
_SCALARS = {"sampling_rate": "double", "num_samples": "int32"}
_SEXES = (None, "male", "female")
_METADATA = ("record_id", "patient_id", "text", "report", "sex", "age")


class RecordReader:
    """Records of a data set by their numbers, for loops that read many batches.

    Args:
        dataset: stored rows (`records.row_features`), from `load_ecg_dataset`; also after `select`, `shuffle` or
            `datasets.concatenate_datasets`. Its format plays no part.

    Raises:
        ValueError: where columns of a stored row are missing.

    >>> from datasets import Dataset
    >>> from datasets_scripts.records import record_to_row, row_features
    >>> digital = np.array([[0, 100, -100]], np.int16)
    >>> record = ECGRecord.from_digital(digital, gain=[200], offset=[0], leads=("II",), sampling_rate=250)
    >>> dataset = Dataset.from_list([record_to_row(record)], features=row_features())
    >>> RecordReader(dataset).records([0])[0].signal.tolist()
    [[0.0, 0.5, -0.5]]
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        wanted = [*_METADATA, *_SCALARS, *_LISTS, "signal"]
        if missing := [name for name in wanted if name not in dataset.column_names]:
            raise ValueError(f"dataset: expected the columns of stored rows, got none named {', '.join(missing)}")
        self._dataset = dataset
        self._batches = [batch for batch in dataset.data.to_batches() if batch.num_rows]
        schema = dataset.data.schema
        self._numbers = {name: number for number, name in enumerate(schema.names)}
        self._has_usual_types = _has_usual_types(schema)
        self._bounds = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        mapping = dataset._indices  # where rows were selected or shuffled: their places in the table
        self._places = None if mapping is None else mapping.column(0).to_numpy()
        self._chunks: dict[int, _Chunk] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordReader, (self._dataset,)  # to another process go file names, not samples

    def records(self, indices: Iterable[int]) -> list[ECGRecord]:
        """The records of these rows, in this order.

        `digital` is a read-only view of the stored integers, not a copy. Rows of float32 mV are copied.

        Raises:
            IndexError: for a number that is not one of 0 .. len - 1.
            ValueError: for a row that is not a record, as `row_to_record` says.
        """
        return [chunk.record(row) for chunk, row in self._find(indices)]

    def digital(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The stored integers of these rows and nothing else: int16 `(num_leads, num_samples)`, read-only views.

        Raises:
            IndexError, ValueError: as `records`; ValueError also for a row that holds float32 mV.
        """
        return [chunk.digital(row) for chunk, row in self._find(indices)]

    def _find(self, indices: Iterable[int]) -> Iterator[tuple[_Chunk, int]]:
        places = self._places_of(indices)
        numbers = np.searchsorted(self._bounds, places, side="right") - 1
        rows = (places - self._bounds[numbers]).tolist()
        numbers = numbers.tolist()
        for number in set(numbers) - self._chunks.keys():
            self._chunks[number] = _Chunk(self._batches[number], self._numbers, self._has_usual_types)
        return zip(map(self._chunks.__getitem__, numbers), rows, strict=True)

    def _places_of(self, indices: Iterable[int]) -> np.ndarray:
        rows = np.asarray(indices if isinstance(indices, np.ndarray | range) else list(indices), dtype=np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"indices: expected numbers from 0 to {len(self) - 1}, got {rows.min()} .. {rows.max()}")
        return rows if self._places is None else self._places[rows].astype(np.int64)


class _Field:
    """A field of a record that is decoded when it is first asked for; from then on the record has it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, record: StoredRecord | None, owner: type) -> Any:
        if record is None:
            return self
        chunk, row = record.__dict__["_place"]
        value = record.__dict__[self.name] = chunk.metadata(self.name, row)
        return value


class StoredRecord(ECGRecord):
    """An `ECGRecord` that lies in Arrow's memory: equal in everything, but its metadata wait there until asked for."""

    text, report, statements, labels = _Field(), _Field(), _Field(), _Field()
    record_id, patient_id, age, sex, repairs = _Field(), _Field(), _Field(), _Field(), _Field()

    def in_memory(self) -> ECGRecord:
        """The same record with all its metadata, and no tie to the data set but its view of the samples."""
        fields = (field.name for field in dataclasses.fields(ECGRecord) if field.name != "signal")
        return ECGRecord(None, **{name: getattr(self, name) for name in fields})

    def with_metadata(self, **fields: Any) -> ECGRecord:
        """As `ECGRecord.with_metadata`."""
        return self.in_memory().with_metadata(**fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return ECGRecord.with_metadata, (self.in_memory(),)


class _Chunk:
    """One record batch, its rows checked once, all together, and the views that every record of it needs."""

    __slots__ = ("_batch", "_numbers", "_is_whole", "_digital", "_gain", "_offset", "_leads", "_rates")

    def __init__(self, batch: pa.RecordBatch, numbers: dict[str, int], has_usual_types: bool) -> None:
        self._batch, self._numbers = batch, numbers  # of the columns, by name: the same for all batches
        if has_usual_types and not any(map(self._has_nulls, (*_SCALARS, *_LISTS, "signal"))):
            self._is_whole = self._look()
        else:
            self._is_whole = np.zeros(batch.num_rows, dtype=bool)

    def record(self, row: int) -> ECGRecord:
        if not self._is_whole[row]:
            return row_to_record(self._row(row))  # millivolts, or an error that says what is wrong
        record = StoredRecord.__new__(StoredRecord)
        fields = record.__dict__  # what ECGRecord would check has been checked for the whole batch
        fields["digital"], fields["gain"], fields["offset"] = self._digital[row], self._gain[row], self._offset[row]
        fields["leads"], fields["sampling_rate"] = self._leads[row], self._rates.item(row)
        fields["_place"] = (self, row)
        return record

    def digital(self, row: int) -> np.ndarray:
        if self._is_whole[row]:
            return self._digital[row]
        record = row_to_record(self._row(row))
        if record.digital is None:
            raise ValueError(f"row {record.record_id!r}: expected int16 samples, got float32 mV: read its record")
        return record.digital

    def metadata(self, name: str, row: int) -> Any:
        value = self._column(name)[row].as_py()
        if name in _TUPLES:
            return tuple(value)
        if (name == "age" and value is not None and not 0 <= value <= 150) or (name == "sex" and value not in _SEXES):
            return getattr(row_to_record(self._row(row)), name)  # None where it is NaN, or an error
        return value

    def _column(self, name: str) -> pa.Array:
        return self._batch.column(self._numbers[name])

    def _row(self, row: int) -> dict[str, Any]:
        stored = {name: self._column(name)[row] for name in self._numbers}
        signal = stored.pop("signal").values.to_numpy(zero_copy_only=False)
        return {**{name: value.as_py() for name, value in stored.items()}, "signal": signal}

    def _has_nulls(self, name: str) -> bool:
        column = self._column(name)
        return column.null_count > 0 or (name not in _SCALARS and column.values.null_count > 0)

    def _look(self) -> np.ndarray:
        """Prepare the views; for each row, whether it is as a record must be."""
        rates, num_samples = self._column("sampling_rate").to_numpy(), self._column("num_samples").to_numpy()
        signal, gain, offset, leads = (_Lists(self._column(name)) for name in ("signal", "gain", "offset", "leads"))
        self._digital, self._gain, self._offset = signal.by_row(leads.lengths), gain.by_row(), offset.by_row()
        self._leads, self._rates = _lead_names(leads.column), rates
        is_whole = (leads.lengths > 0) & (num_samples > 0) & (signal.lengths == leads.lengths * num_samples)
        is_whole &= (gain.lengths == leads.lengths) & gain.all(np.isfinite(gain.values) & (gain.values != 0))
        is_whole &= (offset.lengths == leads.lengths) & offset.all(np.isfinite(offset.values))
        return is_whole & np.isfinite(rates) & (rates > 0)


class _Lists:
    """A column of lists without nulls: all values, and where each row's begin and end. Views of Arrow's memory."""

    def __init__(self, column: pa.Array) -> None:
        self.column = column
        if pa.types.is_fixed_size_list(column.type):
            self.bounds = (column.offset + np.arange(len(column) + 1)) * column.type.list_size
        else:
            self.bounds = column.offsets.to_numpy()
        self.lengths = self.bounds[1:] - self.bounds[:-1]
        self.length = int(self.lengths[0]) if (self.lengths == self.lengths[0]).all() else None

    @cached_property
    def values(self) -> np.ndarray:
        return self.column.values.to_numpy()

    def all(self, fine: np.ndarray) -> np.ndarray | bool:
        """Whether all values of a row are fine, `(rows,)`, or True for all rows."""
        if fine.all():
            return True
        num_wrong = np.concatenate([[0], np.cumsum(~fine)])
        return num_wrong[self.bounds[1:]] == num_wrong[self.bounds[:-1]]

    def by_row(self, num_leads: np.ndarray | None = None) -> np.ndarray | _Ragged:
        """What gives a row's values by its number: `(values,)`, or `(num_leads, values / num_leads)`."""
        shape: tuple[int, ...] = (-1, self.length or 0)
        if num_leads is not None:
            shape = (-1, int(num_leads[0]), (self.length or 0) // max(1, int(num_leads[0])))
        alike = num_leads is None or (num_leads == num_leads[0]).all()
        if alike and self.length and self.length == math.prod(shape[1:]):
            return self.values[self.bounds[0] : self.bounds[-1]].reshape(shape)
        return _Ragged(self.values, self.bounds, num_leads)


@dataclasses.dataclass(frozen=True, slots=True)
class _Ragged:
    """Rows of different lengths in one array."""

    values: np.ndarray
    bounds: np.ndarray
    num_leads: np.ndarray | None

    def __getitem__(self, row: int) -> np.ndarray:
        part = self.values[self.bounds[row] : self.bounds[row + 1]]
        return part if self.num_leads is None else part.reshape(self.num_leads[row], -1)


def _lead_names(column: pa.Array) -> list[tuple[str, ...]]:
    """The lead names of each row; rows of the same names share one tuple."""
    if column[1:].equals(column[:-1]):  # each is as the next
        return [tuple(column[0].as_py())] * len(column)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    return [known.setdefault(names, names) for names in map(tuple, column.to_pylist())]


def _has_usual_types(schema: pa.Schema) -> bool:
    """Whether the columns are as `row_features("int16")` says, signals of fixed length or not."""
    inner = {name: getattr(schema.field(name).type, "value_type", None) for name in (*_LISTS, "signal")}
    outer = {name: schema.field(name).type for name in _SCALARS}
    return {name: str(kind) for name, kind in {**inner, **outer}.items()} == {**_LISTS, **_SCALARS, "signal": "int16"}
