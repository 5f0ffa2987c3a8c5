"""Which stored rows the door would refuse: known before the first step, without reading every record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_scripts.preparation.record_reader import RecordReader

if TYPE_CHECKING:
    import datasets

    from modeling_esi.feature_extraction_esi import ESIFeatureExtractor


def refused_rows(dataset: datasets.Dataset, feature_extractor: ESIFeatureExtractor) -> dict[int, tuple[str, str]]:
    """`(record_id, reason)` of every row that `feature_extractor` would refuse, by row number.

    A prepared data set holds no record without a signal, so that names, rate and length decide, and those few shapes
    are tried on one record each. Only rows of a shape whose example is refused, and rows in which samples are missing,
    are read one by one.

    Args:
        dataset: stored rows, from `datasets_scripts.load_ecg_dataset`.
        feature_extractor: the model's.
    """
    reader = RecordReader(dataset)

    def reason_of(row: int) -> str | None:
        return feature_extractor.reject_reason(reader.records([row])[0])

    shapes = _shape_numbers(dataset)
    _, examples = np.unique(shapes, return_index=True)
    doubtful = [shapes[row] for row in examples.tolist() if reason_of(row) is not None]
    to_read = np.flatnonzero(np.isin(shapes, doubtful) | _has_gaps(dataset))
    reasons = {row: reason_of(row) for row in to_read.tolist()}
    return {row: (dataset[row]["record_id"], reason) for row, reason in reasons.items() if reason is not None}


def _shape_numbers(dataset: datasets.Dataset) -> np.ndarray:
    """`(N,)`: equal where leads, rate and number of samples are equal."""
    table = _columns(dataset, ["leads", "sampling_rate", "num_samples"])
    names = [pc.binary_join(chunk, "\x1f") for chunk in table["leads"].chunks]
    parts = [pa.chunked_array(names, pa.string())]
    parts += [pc.cast(table[name], pa.string()) for name in ("sampling_rate", "num_samples")]
    joined = pc.binary_join_element_wise(*parts, "\x1e")
    return joined.combine_chunks().dictionary_encode().indices.to_numpy()


def _has_gaps(dataset: datasets.Dataset) -> np.ndarray:
    """`(N,)`: whether reading found missing samples (NaN) in a record."""
    repairs: Any = _columns(dataset, ["repairs"])["repairs"]
    said = [pc.binary_join(chunk, "\x1f") for chunk in repairs.chunks]
    return pc.match_substring(pa.chunked_array(said, pa.string()), "nan_").to_numpy()


def _columns(dataset: datasets.Dataset, names: list[str]) -> pa.Table:
    """Some columns of all rows, in the data set's order, as plain Arrow."""
    return dataset.select_columns(names).with_format("arrow")[:]
