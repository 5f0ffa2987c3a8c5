"""Run a benchmark and print its table.

    python -m modeling_esi.benchmarks preparing     # records/s from WFDB to shards, beside wfdb.rdrecord
    python -m modeling_esi.benchmarks loading       # random batches beside np.memmap and one .npy per record
    python -m modeling_esi.benchmarks scale         # cost of a record and memory from 1,000 to 100,000 records
    python -m modeling_esi.benchmarks encoder       # ECG encoders, inference and training, beside a plain one
    python -m modeling_esi.benchmarks step          # the whole training step, beside a plain implementation
    python -m modeling_esi.benchmarks probe         # a linear probe as large as PTB-XL
    python -m modeling_esi.benchmarks search        # the nearest of 800,000 embeddings
    python -m modeling_esi.benchmarks pipeline      # a folder of files through the pipeline, beside the bare encoder
    python -m modeling_esi.benchmarks export        # exported towers beside the model, float32 and 8-bit
    python -m modeling_esi.benchmarks scaling       # the paper's size, by arithmetic: nothing is measured

Ratios are between figures of one run. `encoder` and `step` call all implementations in turn in one process, with as
many threads as told. Each other figure comes from a process of its own, one thread, page cache warm; the environment
variable that decides when malloc gives memory back (`MALLOC_TRIM_THRESHOLD_`) is as the table says. `--json FILE`
keeps the figures and what the machine is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from modeling_esi.benchmarks import encoder, export, scaling, step
from modeling_esi.benchmarks.comparison import DTYPES, Settings
from modeling_esi.benchmarks.machine import describe, num_cores

#: Modules with `run(num_records, folder)`, which yields lines and may return figures.
RECORDS = {
    "preparing": "records/s from WFDB to shards, beside wfdb.rdrecord",
    "loading": "random batches beside np.memmap and one .npy per record",
    "scale": "cost of a record and memory from 1,000 to 100,000 records",
    "probe": "seconds of a linear probe as large as PTB-XL",
    "search": "seconds of a search among 800,000 embeddings",
    "pipeline": "a folder of files embedded by the pipeline, beside the bare encoder",
}
Lines = Generator[str, None, dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        lines = arguments.start(arguments)
    except ValueError as error:
        parser.error(str(error))
    figures = printed(lines)
    if getattr(arguments, "json", None):
        told = {"benchmark": arguments.name} | figures
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def printed(lines: Iterator[str]) -> Any:
    """What the generator returns, its lines written as they come."""
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            return end.value
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


# ----- benchmarks ----------------------------------------------------------------------------------------------------


def start_records(arguments: argparse.Namespace) -> Lines:
    benchmark = importlib.import_module(f"modeling_esi.benchmarks.{arguments.name}")
    figures = yield from benchmark.run(arguments.num_records, arguments.folder)
    return {"machine": describe("cpu", num_threads=1)} | (figures or {})


def start_encoder(arguments: argparse.Namespace) -> Lines:
    device = torch.device(arguments.device)
    arguments.batch_sizes = arguments.batch_sizes or [encoder.BATCH_SIZE[device.type]]
    if arguments.dtypes is None and device.type == "cuda":
        arguments.dtypes = list(DTYPES)
    return encoder.run(settings_from(encoder.EncoderSettings, arguments), arguments.presets)


def start_step(arguments: argparse.Namespace) -> Lines:
    return step.run(settings_from(step.StepSettings, arguments))


def start_export(arguments: argparse.Namespace) -> Lines:
    return export.run(settings_from(export.ExportSettings, arguments), arguments.models)


def start_scaling(arguments: argparse.Namespace) -> Iterator[str]:
    return scaling.run()


def settings_from(kind: type[Settings] | type[export.ExportSettings], arguments: argparse.Namespace) -> Any:
    """The settings' fields as the command line gave them; ValueError as theirs."""
    names = {one.name for one in fields(kind)}
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    return kind(**given)


# ----- flags ---------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(dest="name", required=True)

    def add(name: str, start: Callable[[argparse.Namespace], Iterator[str]], about: str) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        benchmark = benchmarks.add_parser(name, description=about, formatter_class=formatter)
        benchmark.set_defaults(start=start)
        return benchmark

    for name, about in RECORDS.items():
        add_record_flags(add(name, start_records, about))
    add_encoder_flags(add("encoder", start_encoder, encoder.__doc__))
    add_step_flags(add("step", start_step, step.__doc__))
    add_export_flags(add("export", start_export, export.__doc__))
    add("scaling", start_scaling, scaling.__doc__)
    return parser


def add_record_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_records", type=int, help="how many synthetic records; default: the benchmark's own")
    parser.add_argument("--folder", help="where the records are written; default: a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine there")


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--presets", nargs="+", choices=encoder.PRESETS, default=encoder.PRESETS, metavar="PRESET")
    parser.add_argument("--modes", nargs="+", choices=encoder.MODES, default=encoder.MODES)
    parser.add_argument("--batch_sizes", nargs="+", type=int, help="default: 4 on a CPU, 64 on a GPU")
    add_comparison_flags(parser, "default: float32 bf16, on a GPU also fp16")


def add_step_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=step.SIZES, default="base", help="of the model; default: base, as published")
    parser.add_argument("--batch_size", type=int, default=4, help="pairs in a step")
    parser.add_argument("--min_tokens", type=int, default=100, help="of the shortest text")
    parser.add_argument("--max_tokens", type=int, default=500, help="of the longest text")
    parser.add_argument("--seed", type=int, default=0, help="of lengths, tokens and signals")
    add_comparison_flags(parser, "default: float32 bf16")


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    about = f"folders of saved models, or presets with random weights; default: {' '.join(export.PRESETS)}"
    parser.add_argument("--models", nargs="+", default=export.PRESETS, metavar="MODEL", help=about)
    parser.add_argument("--records", metavar="FOLDER", help="of WFDB files to measure on; default: synthetic ones")
    parser.add_argument("--num_records", type=int, default=32, help="how many of them")
    parser.add_argument("--batch_size", type=int, default=8, help="records in a call")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each; the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine there")


def add_comparison_flags(parser: argparse.ArgumentParser, dtypes_help: str) -> None:
    parser.add_argument("--variant", choices=("released", "esi"), default="released", help="default: released")
    parser.add_argument("--num_samples", type=int, default=5000, help="of each lead")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help=dtypes_help)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--num_threads", type=int, default=num_cores(), help="on the CPU; default: all cores")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each; the median counts")
    parser.add_argument("--compile", action="store_true", help="also measure under torch.compile")
    parser.add_argument("--matrix_size", type=int, default=4096, help="of the products that give the machine's rate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine there")


if __name__ == "__main__":
    sys.exit(main())
