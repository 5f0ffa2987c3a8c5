"""How fast random batches of 64 come back: prepared shards, one np.memmap, one .npy per record."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from modeling_esi.benchmarks.measured import malloc_setting, measured, working_folder
from modeling_esi.benchmarks.scale import SHAPE, write_prepared

BATCH, EPOCHS = 64, 3
MODULE = "modeling_esi.benchmarks.loading"


def run(num_records: int | None, folder: str | None) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table; returns the figures."""
    num_records = num_records or 4000
    with working_folder(folder) as room:
        write_prepared(room / "prepared", num_records)
        _write_memmap(room / "all.int16", num_records)
        _write_arrays(room / "arrays", num_records)
        yield f"{num_records} records of {SHAPE[0]} x {SHAPE[1]}, batches of {BATCH} in random order, page cache warm"
        yield f"one thread, fresh processes; {malloc_setting()}"
        yield f"{'':<52}{'records/s':>10}"
        speeds = {}
        for name, function, place in (
            ("one float64 .npy per record, np.load, float32", "time_arrays", "arrays"),
            ("np.memmap, int16 batch", "time_memmap", "all.int16"),
            ("prepared, int16 batch", "time_prepared", "prepared"),
            ("prepared, records, their int16, gain and offset", "time_records", "prepared"),
            ("np.memmap, float32 mV batch", "time_memmap_millivolts", "all.int16"),
            ("prepared, through the door to input_values", "time_door", "prepared"),
        ):
            runs = [measured(MODULE, function, str(room / place), num_records)["records_per_second"] for _ in range(6)]
            speeds[function] = statistics.median(runs[1:])  # the first one warms the page cache
            yield f"{name:<52}{speeds[function]:>10.0f}"
        prepared = speeds["time_prepared"]
        yield f"prepared / one .npy per record: {prepared / speeds['time_arrays']:.1f}"
        yield f"prepared / np.memmap, int16 batches: {prepared / speeds['time_memmap']:.2f}"
        yield f"records with gain and offset / np.memmap: {speeds['time_records'] / speeds['time_memmap']:.2f}"
    speeds = {function.removeprefix("time_"): speed for function, speed in speeds.items()}
    return {"num_records": num_records, "batch_size": BATCH, "records_per_second": speeds}


def time_arrays(folder: str, num_records: int) -> dict[str, float]:
    """What a loader of one float64 array per record does: read, convert, stack."""

    def batch(indices: np.ndarray) -> np.ndarray:
        return np.stack([np.load(f"{folder}/ecg_{i}.npy", allow_pickle=False).T.astype(np.float32) for i in indices])

    return _timed(batch, num_records)


def time_memmap(path: str, num_records: int) -> dict[str, float]:
    """A gather from one flat file: no loader of single records can do less."""
    samples = np.memmap(path, np.int16, "r", shape=(num_records, *SHAPE))
    return _timed(lambda indices: samples[indices], num_records)


def time_memmap_millivolts(path: str, num_records: int) -> dict[str, float]:
    """The same, converted to float32 mV."""
    samples = np.memmap(path, np.int16, "r", shape=(num_records, *SHAPE))
    return _timed(lambda indices: samples[indices].astype(np.float32) / np.float32(1000), num_records)


def time_prepared(folder: str, num_records: int) -> dict[str, float]:
    """The same from shards: the integers of the rows, stacked."""
    from datasets_scripts.loading import open_prepared
    from datasets_scripts.preparation.record_reader import RecordReader

    reader = RecordReader(open_prepared(folder)[0])
    return _timed(lambda indices: np.concatenate(reader.digital(indices)).reshape(-1, *SHAPE), num_records)


def time_records(folder: str, num_records: int) -> dict[str, float]:
    """Records by `RecordReader`, their integers stacked as the door stacks them, gain and offset beside."""
    from datasets_scripts.loading import open_prepared
    from datasets_scripts.preparation.record_reader import RecordReader

    reader = RecordReader(open_prepared(folder)[0])

    def batch(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        records = reader.records(indices)
        return tuple(np.stack([getattr(record, name) for record in records]) for name in ("digital", "gain", "offset"))

    return _timed(batch, num_records)


def time_door(folder: str, num_records: int) -> dict[str, float]:
    """The whole way: shards, int16 batch, millivolts, repair, scaling: the model's `input_values`."""
    import torch

    from datasets_scripts.loading import open_prepared
    from datasets_scripts.preparation.record_reader import RecordReader
    from modeling_esi import ESIFeatureExtractor

    torch.set_num_threads(1)
    reader, door = RecordReader(open_prepared(folder)[0]), ESIFeatureExtractor()
    return _timed(lambda indices: door(reader.records(indices)), min(num_records, 20 * BATCH))


def _timed(batch: Callable[[np.ndarray], object], num_records: int) -> dict[str, float]:
    """Records per second over epochs in random order, after a first one that maps the pages into this process."""
    order = np.random.default_rng(0).permutation(num_records)
    batches = [order[start : start + BATCH] for start in range(0, num_records - BATCH + 1, BATCH)]
    for indices in batches:
        batch(indices)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        for indices in batches:
            batch(indices)
    return {"records_per_second": EPOCHS * len(batches) * BATCH / (time.perf_counter() - started)}


def _write_memmap(path: Path, num_records: int) -> None:
    samples = np.memmap(path, np.int16, "w+", shape=(num_records, *SHAPE))
    rng = np.random.default_rng(0)
    for i in range(num_records):
        samples[i] = rng.integers(-900, 900, size=SHAPE, dtype=np.int16)
    samples.flush()


def _write_arrays(folder: Path, num_records: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(num_records):
        np.save(folder / f"ecg_{i}.npy", rng.integers(-900, 900, size=SHAPE[::-1]) / 1000)
