"""Whether a record costs the same in a small and in a large data set, and how much memory reading takes."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.preparation_report import PreparationReport
from datasets_scripts.preparation.shards import ShardWriter
from datasets_scripts.records import ECGRecord
from modeling_esi.benchmarks.measured import anonymous_memory, malloc_setting, measured, working_folder

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SHAPE = (12, 5000)
BATCH = 64
RECORDS_PER_SHARD = 2000
MODULE = "modeling_esi.benchmarks.scale"


def run(num_records: int | None, folder: str | None) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table; returns the figures."""
    most, rows = num_records or 100_000, []
    with working_folder(folder) as room:
        yield f"records of {SHAPE[0]} x {SHAPE[1]} int16, every one once, batches of {BATCH} in random order"
        yield f"one thread, fresh processes; {malloc_setting()}"
        yield f"{'records':>10}{'writing, s':>12}{'opening, s':>12}{'records/s':>12}{'RssAnon grows, MB':>20}{'GB':>8}"
        size = 1000
        while size <= most:
            place = room / str(size)
            started = time.perf_counter()
            write_prepared(place, size)
            writing = time.perf_counter() - started
            measured(MODULE, "time_epoch", str(place), size)  # warms the page cache
            runs = [measured(MODULE, "time_epoch", str(place), size) for _ in range(3)]
            best = max(runs, key=lambda values: values["records_per_second"])
            gigabytes = sum(path.stat().st_size for path in place.iterdir()) / 1e9
            yield f"{size:>10}{writing:>12.1f}{best['opening']:>12.3f}{best['records_per_second']:>12.0f}" \
                  f"{max(values['grown'] for values in runs):>20.1f}{gigabytes:>8.2f}"  # fmt: skip
            rows.append({"num_records": size, "writing": writing, "gigabytes": gigabytes} | best)
            if folder is None:
                for path in place.iterdir():
                    path.unlink()
            size *= 10
    return {"rows": rows}


def time_epoch(folder: str, num_records: int) -> dict[str, float]:
    """Open, then read every record once as int16 batches in random order."""
    from datasets_scripts.loading import open_prepared
    from datasets_scripts.preparation.record_reader import RecordReader

    started = time.perf_counter()
    reader = RecordReader(open_prepared(folder)[0])
    opening = time.perf_counter() - started
    order = np.random.default_rng(0).permutation(num_records)
    before, started = anonymous_memory(), time.perf_counter()
    for start in range(0, num_records, BATCH):
        np.stack([record.digital for record in reader.records(order[start : start + BATCH])])
    seconds = time.perf_counter() - started
    return {"opening": opening, "records_per_second": num_records / seconds, "grown": anonymous_memory() - before}


def write_prepared(folder: Path, num_records: int) -> None:
    """A prepared folder of random integers, with manifest and report, as `prepare_dataset` leaves one."""
    if (folder / "manifest.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(-900, 900, size=SHAPE, dtype=np.int16)
    shards = []
    for number, start in enumerate(range(0, num_records, RECORDS_PER_SHARD)):
        size = min(RECORDS_PER_SHARD, num_records - start)
        file = f"train-{number:05d}.arrow"
        with ShardWriter(folder / file) as writer:
            for i in range(start, start + size):
                writer.write(_record(i, np.roll(noise, i)))
        shards.append({"file": file, "split": "train", "num_rows": size, "layout": ["int16", noise.size]})
    report = PreparationReport("benchmark", {"train": LoadReport("benchmark", "train", num_kept=num_records)})
    (folder / "report.json").write_text(json.dumps(report.to_dict()))
    manifest = {"settings": {"name": "benchmark", "text": "report"}, "shards": shards}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _record(i: int, digital: np.ndarray) -> ECGRecord:
    return ECGRecord.from_digital(
        digital, np.full(12, 1000.0), np.zeros(12), LEADS, 500, record_id=str(i), patient_id=str(i // 2),
        report=f"Sinus rhythm. Statement {i % 97}.", text=f"Sinus rhythm. Statement {i % 97}.", age=60, sex="male",
    )  # fmt: skip
