"""Judge a model by a protocol of the field: a table here, results.json and results.md in the output folder.

    python -m modeling_esi.evaluation zero_shot --model esi-ecg --dataset ptb_xl --data_dir ptb-xl --output results
    python -m modeling_esi.evaluation linear_probe --model esi-ecg --dataset ptb_xl --data_dir ptb-xl --output results
    python -m modeling_esi.evaluation PROTOCOL --help                # the protocol's own flags

Beside each figure stand its 95 % interval (bootstrap over patients) and the floor: the same figure of a model of the
same configuration with random weights. Embeddings are computed once and kept in the cache of Hugging Face.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from .context import SPLIT_NAMES, EvaluationContext, parse_options
from .protocols import PROTOCOLS, add_flags, find_protocol, options_of


def parser_of(protocol: str | None = None) -> argparse.ArgumentParser:
    """The flags that all protocols share, and those of one protocol."""
    listed = "\n".join(f"    {name:16}{what}" for name, what in PROTOCOLS.items())
    parser = argparse.ArgumentParser(
        prog="python -m modeling_esi.evaluation",
        description=__doc__,
        epilog=f"protocols:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("protocol", choices=list(PROTOCOLS), metavar="PROTOCOL", help="see below")
    parser.add_argument("--model", required=True, help="folder or Hub name of an ESI model")
    parser.add_argument("--dataset", required=True, help="source, prepared folder, or repository of the Hub")
    parser.add_argument("--data_dir", help="the source's folder, as it is published")
    parser.add_argument("--dataset_options", help="the source's own options, as JSON")
    parser.add_argument("--text", help="report, statements, report_else_statements or none; default: the protocol's")
    parser.add_argument("--split", default="test", choices=[*SPLIT_NAMES, "all"], help="what is judged")
    parser.add_argument("--limit", type=int, help="at most so many records of each split")
    parser.add_argument("--output", required=True, help="folder of results.json, results.md and plots")
    parser.add_argument("--compare", help="a second model, compared record by record (paired intervals)")
    parser.add_argument("--batch_size", type=int, default=64, help="records at a time")
    parser.add_argument("--window", type=float, help="seconds: each ECG is the mean of half-overlapping windows")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")
    parser.add_argument("--num_resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, draws and training")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read a source's files")
    parser.add_argument("--cache_dir", help="where embeddings are kept")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    if protocol is not None:
        add_flags(parser.add_argument_group(protocol), options_of(find_protocol(protocol)))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one protocol; returns 0, or 2 where the arguments make no sense."""
    argv = sys.argv[1:] if argv is None else argv
    protocol = next((word for word in argv if word in PROTOCOLS), None)
    flags = vars(parser_of(protocol).parse_args(argv))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if flags["quiet"]:
        disable_progress_bar()
    run = find_protocol(flags.pop("protocol"))
    options = {option.name: flags.pop(option.name) for option in options_of(run)}
    output = Path(flags.pop("output"))
    try:
        context = load_context(flags | {"output": output}, getattr(sys.modules[run.__module__], "TEXT", "none"))
        result = run(context, **options)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{protocol}: {error}\n")
        return 2
    result.save(output)
    sys.stdout.write(f"{result.to_text()}\n\nWrote {output / 'results.json'} and {output / 'results.md'}\n")
    return 0


def load_context(flags: dict[str, Any], text: str) -> EvaluationContext:
    """The context that the shared flags describe; `text` is the protocol's, where no flag names another."""
    settings = dict(flags) | {"text": flags["text"] or text}
    if settings["cache_dir"] is None:
        del settings["cache_dir"]
    settings["dataset_options"] = dict(parse_options(settings["dataset_options"]))
    settings["progress"] = not settings.pop("quiet")
    return EvaluationContext.load(settings.pop("model"), settings.pop("dataset"), **settings)


if __name__ == "__main__":
    sys.exit(main())
