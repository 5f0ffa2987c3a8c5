"""The command line of the data room.

    python -m datasets_scripts prepare --source ptb_xl --data_dir physionet.org/files/ptb-xl/1.0.3 --output ptb_xl_arrow
    python -m datasets_scripts prepare --source mimic_iv_ecg --help     # with this source's own options
    python -m datasets_scripts report ptb_xl_arrow                      # what became of every record, in short
    python -m datasets_scripts push ptb_xl_arrow name/repository

A preparation that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from datasets_scripts.preparation.prepare import RECORDS_PER_SHARD, Settings, prepare_dataset, read_report
from datasets_scripts.report_text import TEXT_CHOICES, read_waveforms
from datasets_scripts.sources import SOURCES, SPLITS, find_source, known_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked, 1 with one sentence on stderr if not."""
    argv = sys.argv[1:] if argv is None else list(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = _parse(argv)
    try:
        return {"prepare": _prepare, "report": _report, "push": _push}[arguments.command](arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


# ----- commands ------------------------------------------------------------------------------------------------------


def _prepare(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in known_options(find_source(arguments.source))}
    options = {name: value for name, value in options.items() if value is not None}
    waveforms = None if arguments.waveforms is None else read_waveforms(arguments.waveforms)
    settings = Settings(
        arguments.source,
        arguments.data_dir,
        options,
        arguments.text,
        waveforms,
        tuple(arguments.splits),
        arguments.limit,
        arguments.records_per_shard,
    )
    report = prepare_dataset(settings, arguments.output, num_workers=arguments.num_workers, progress=True)
    _tell(report.summary())
    if waveforms is not None and not report.num_described:
        logging.warning("--waveforms: none of the texts tells a description; the file has none of their statements, "
                        "or the texts are reports (then give --text statements)")  # fmt: skip
    _tell([f"Wrote {arguments.output}. Load it: load_ecg_dataset({arguments.output!r}, split='train')"])
    if arguments.push_to_hub:
        arguments.folder, arguments.repository = arguments.output, arguments.push_to_hub
        return _push(arguments)
    return 0 if report.num_kept else 1


def _report(arguments: argparse.Namespace) -> int:
    _tell(read_report(arguments.folder).summary())
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from datasets_scripts.preparation.push import push_dataset

    url = push_dataset(
        arguments.folder,
        arguments.repository,
        private=not arguments.public,
        allow_credentialed=arguments.allow_credentialed,
        license=arguments.license,
    )
    _tell([f"Pushed to {url}"])
    return 0


def _tell(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


# ----- flags ---------------------------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m datasets_scripts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="a source's files become a data set that training can load")
    _add_prepare_flags(prepare)
    source = _named_source(argv)
    if source is not None:
        _add_source_flags(prepare, source)
    report = commands.add_parser("report", help="what became of every record of a prepared data set")
    report.add_argument("folder")
    push = commands.add_parser("push", help="upload a prepared data set to the Hub, as Parquet with a card")
    push.add_argument("folder")
    push.add_argument("repository", help="name/repository")
    _add_push_flags(push)
    return parser.parse_args(argv)


def _add_prepare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, choices=SOURCES)
    parser.add_argument("--data_dir", help="the source's folder, as it is published")
    parser.add_argument("--output", required=True, help="a new folder, or one that this command began")
    parser.add_argument("--text", default="report_else_statements", choices=TEXT_CHOICES)
    parser.add_argument("--waveforms", help="JSON file: statement -> what it looks like; told behind the findings")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--limit", type=int, help="keep at most so many records of each split, the first ones")
    parser.add_argument("--records_per_shard", type=int, default=RECORDS_PER_SHARD)
    parser.add_argument("--num_workers", type=int, default=_cores(), help="processes; default: every core")
    parser.add_argument("--push_to_hub", metavar="name/repository", help="upload the result")
    _add_push_flags(parser)


def _add_push_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--public", action="store_true", help="a repository that everybody sees; default: private")
    parser.add_argument("--license", help="of the data, for the card; default: what is known of the source")
    parser.add_argument(
        "--allow_credentialed", action="store_true", help="also columns from tables under a data use agreement"
    )


def _add_source_flags(parser: argparse.ArgumentParser, source: ModuleType) -> None:
    """The source's own options as flags; lists and the like are written as JSON."""
    group = parser.add_argument_group(f"options of {source.__name__.rpartition('.')[2]}")
    parameters = inspect.signature(source.list_entries).parameters
    for name in known_options(source):
        group.add_argument(f"--{name}", type=_json_or_text, help=f"default: {parameters[name].default!r}")


def _named_source(argv: list[str]) -> ModuleType | None:
    names = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    names.add_argument("--source")
    name = names.parse_known_args(argv)[0].source
    return find_source(name) if name in SOURCES else None


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
