"""Run a benchmark and print its table.

    python -m modeling_esi.benchmarks preparing     # records/s from WFDB to shards, beside wfdb.rdrecord
    python -m modeling_esi.benchmarks loading       # random batches beside np.memmap and one .npy per record
    python -m modeling_esi.benchmarks scale         # cost of a record and memory from 1,000 to 100,000 records

Ratios are between figures of one run. Each figure comes from a process of its own, one thread, page cache warm; the
environment variable that decides when malloc gives memory back (`MALLOC_TRIM_THRESHOLD_`) is as the line above says.
"""

from __future__ import annotations

import argparse
import importlib
import sys

BENCHMARKS = ("preparing", "loading", "scale")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--num_records", type=int, help="how many synthetic records; default: the benchmark's own")
    parser.add_argument("--folder", help="where the records are written; default: a temporary folder")
    arguments = parser.parse_args()
    benchmark = importlib.import_module(f"modeling_esi.benchmarks.{arguments.name}")
    for line in benchmark.run(arguments.num_records, arguments.folder):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
