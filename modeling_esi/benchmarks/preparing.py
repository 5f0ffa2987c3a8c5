"""How fast records become shards: 12 leads, 10 s at 500 Hz, WFDB format 16, in the layout of MIMIC-IV-ECG."""

from __future__ import annotations

import csv
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.preparation.prepare import Settings, prepare_dataset
from modeling_esi.benchmarks.measured import malloc_setting, measured, working_folder

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
NUM_SAMPLES, SAMPLING_RATE = 5000, 500
MODULE = "modeling_esi.benchmarks.preparing"


def run(num_records: int | None, folder: str | None) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table; returns the figures."""
    num_records = num_records or 3000
    figures: dict[str, Any] = {"num_records": num_records}
    with working_folder(folder) as room:
        data = room / "mimic"
        write_mimic(data, num_records)
        paths = sorted(map(str, data.rglob("*.hea")))[:1000]
        yield f"{num_records} records of 12 x {NUM_SAMPLES}, format 16; one process, one thread; {malloc_setting()}"
        measured(MODULE, "time_wfdb", paths)  # warms the page cache
        wfdb = measured(MODULE, "time_wfdb", paths)["records_per_second"]
        reading = measured(MODULE, "time_reading", paths)["records_per_second"]
        figures["records_per_second"] = speeds = {"wfdb": wfdb, "read_record": reading}
        yield f"wfdb.rdrecord                       {wfdb:9.0f} records/s"
        yield f"read_record (this package)          {reading:9.0f} records/s   {reading / wfdb:.1f} x wfdb.rdrecord"
        for num_workers in (1, 2):
            output = str(room / f"prepared-{num_workers}")
            prepared = measured(MODULE, "time_preparing", str(data), output, num_workers, num_records)
            speed = speeds[f"prepare_{num_workers}"] = prepared["records_per_second"]
            figures["megabytes_per_record"] = prepared["megabytes_per_record"]
            yield (
                f"prepare, {num_workers} at a time              {speed:9.0f} records/s   {speed / num_workers:.0f} for "
                f"each worker, {prepared['megabytes_per_record']:.3f} MB a record on disk"
            )
    return figures


def time_wfdb(paths: list[str]) -> dict[str, float]:
    """`wfdb.rdrecord` on every path."""
    import wfdb

    started = time.perf_counter()
    for path in paths:
        wfdb.rdrecord(path.removesuffix(".hea"))
    return {"records_per_second": len(paths) / (time.perf_counter() - started)}


def time_reading(paths: list[str]) -> dict[str, float]:
    """`read_record` on every path."""
    from datasets_scripts.records import read_record

    started = time.perf_counter()
    for path in paths:
        read_record(path)
    return {"records_per_second": len(paths) / (time.perf_counter() - started)}


def time_preparing(data: str, output: str, num_workers: int, num_records: int) -> dict[str, float]:
    """A whole preparation, from listing to manifest, without the start of Python."""
    started = time.perf_counter()
    report = prepare_dataset(Settings("mimic_iv_ecg", data, records_per_shard=500), output, num_workers=num_workers)
    seconds = time.perf_counter() - started
    if report.num_kept != num_records:
        raise RuntimeError(f"expected {num_records} records, kept {report.num_kept}: {report.summary()}")
    size = sum(path.stat().st_size for path in Path(output).glob("*.arrow"))
    return {"records_per_second": num_records / seconds, "megabytes_per_record": size / num_records / 1e6}


def write_mimic(data: Path, num_records: int, seed: int = 0) -> None:
    """Random walks in MIMIC-IV-ECG's layout: each record has its own folder, header and samples; and both tables.

    Limb leads follow from I and II, as a recorder makes them.
    """
    rng = np.random.default_rng(seed)
    data.mkdir(parents=True, exist_ok=True)
    base = np.cumsum(rng.integers(-4, 5, size=(NUM_SAMPLES, len(LEADS))), axis=0).astype(np.int16)
    first, second = base[:, 0], base[:, 1]
    base[:, 2:6] = np.stack([second - first, -(first + second) // 2, second - first // 2, first - second // 2], axis=1)
    with (
        (data / "record_list.csv").open("w", newline="") as records,
        (data / "machine_measurements.csv").open("w", newline="") as measurements,
    ):
        record_rows, statement_rows = csv.writer(records), csv.writer(measurements)
        record_rows.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        statement_rows.writerow(["subject_id", "study_id", *(f"report_{k}" for k in range(18))])
        for i in range(num_records):
            subject, study = 10_000_000 + i // 2, 40_000_000 + i
            path = f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"
            _write_record(data / path, str(study), np.roll(base, 37 * i, axis=0))
            record_rows.writerow([subject, study, study, "2180-07-23 08:44:00", path])
            statement_rows.writerow([subject, study, "Sinus rhythm", f"Statement {i % 97}", *[""] * 16])


def _write_record(path: Path, name: str, samples: np.ndarray) -> None:
    """`samples (num_samples, num_leads)` int16 with first values and checksums, as wfdb writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.astype("<i2").tofile(path.with_suffix(".dat"))
    sums = samples.sum(axis=0, dtype=np.int64).astype(np.int16)
    lines = [f"{name} {len(LEADS)} {SAMPLING_RATE} {NUM_SAMPLES} 08:44:00 23/07/2180"]
    lines += [f"{name}.dat 16 200.0(0)/mV 16 0 {samples[0, k]} {sums[k]} 0 {lead}" for k, lead in enumerate(LEADS)]
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
