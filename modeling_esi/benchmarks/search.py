"""Seconds of a search in an archive as large as MIMIC-IV-ECG: 800,000 embeddings of width 768, mapped into memory.

Embeddings are synthetic: random directions, since the time of an exact search does not depend on what they say. The
question is a vector already; a model adds the time of its own forward pass, once for each sentence. One thread; the
page cache is warm. Processor seconds stand beside wall seconds: they are what remains on a machine that does other
things as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modeling_esi.benchmarks.measured import measured, working_folder
from modeling_esi.search.index import ECGIndex
from modeling_esi.search.index_folder import DTYPES, EMBEDDINGS_FILE, METADATA_FILE, write_manifest

NUM_RECORDS, WIDTH, ROUNDS = 800_000, 768, 5
WHERE = "age >= 65 and sex == 'female'"
_ROWS_AT_ONCE = 20_000


def run(num_records: int | None = None, folder: str | None = None) -> Iterator[str]:
    """The table of the measurement, line by line."""
    number = num_records or NUM_RECORDS
    yield f"search, {number:,} records x {WIDTH}, the 10 nearest, one thread; seconds, median of {ROUNDS}"
    yield f"{'':36}" + "".join(f"{dtype + kind:>18}" for dtype in DTYPES for kind in (" wall", " CPU"))
    with working_folder(folder) as root:
        found = {dtype: measured(__name__, "search_seconds", str(root), number, WIDTH, dtype) for dtype in DTYPES}
    for part in (name.removesuffix(", wall") for name in found[DTYPES[0]] if name.endswith(", wall")):
        seconds = [found[dtype][f"{part}, {kind}"] for dtype in DTYPES for kind in ("wall", "CPU")]
        yield f"{part:36}" + "".join(f"{value:18.3f}" for value in seconds)
    yield f"{'MB on disk':36}" + "".join(f"{found[dtype]['MB on disk']:18,.0f}{'':18}" for dtype in DTYPES)


def search_seconds(folder: str, num_records: int, width: int, dtype: str) -> dict[str, float]:
    """Wall and CPU seconds of opening an index and of searches in it."""
    root = Path(folder) / dtype
    queries = synthetic_index(root, num_records, width, dtype)
    found = {"MB on disk": sum(path.stat().st_size for path in root.iterdir()) / 1e6}
    found |= _timed("open the index", lambda: ECGIndex.load(root))
    index = ECGIndex.load(root)
    found |= _timed("first search", lambda: index.nearest(queries[:1]), rounds=1)
    found |= _timed("one question", lambda: index.nearest(queries[:1]))
    found |= _timed("one question, with a condition", lambda: index.nearest(queries[:1], where=WHERE))
    found |= _timed("16 questions", lambda: index.nearest(queries))
    return found


def synthetic_index(folder: Path, num_records: int, width: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Writes an index of random directions, with ages and sexes; returns 16 queries `(16, width)`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    matrix = np.lib.format.open_memmap(folder / EMBEDDINGS_FILE, "w+", dtype=dtype, shape=(num_records, width))
    drawn = _directions(rng, _ROWS_AT_ONCE, width)
    for number, start in enumerate(range(0, num_records, _ROWS_AT_ONCE)):
        block = matrix[start : start + _ROWS_AT_ONCE]
        block[:] = np.roll(drawn, number, axis=1)[: len(block)]  # other directions, much sooner than drawing all
    matrix.flush()
    metadata = pa.table({
        "record_id": [f"r{number}" for number in range(num_records)],
        "age": rng.integers(18, 95, num_records).astype(np.float32),
        "sex": rng.choice(["female", "male"], num_records),
        "labels": pa.array([["NORM"]] * num_records),
    })  # fmt: skip
    pq.write_table(metadata, folder / METADATA_FILE)
    manifest = {
        "num_records": num_records, "width": width, "dtype": dtype, "columns": metadata.column_names, "model": None,
        "identity": {}, "faiss": None, "refused": {},
    }  # fmt: skip
    write_manifest(folder, manifest, [EMBEDDINGS_FILE, METADATA_FILE])
    return _directions(rng, 16, width)


def _directions(rng: np.random.Generator, number: int, width: int) -> np.ndarray:
    rows = rng.standard_normal((number, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _timed(name: str, call: Callable[[], object], rounds: int = ROUNDS) -> dict[str, float]:
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {f"{name}, wall": statistics.median(walls), f"{name}, CPU": statistics.median(cpus)}
