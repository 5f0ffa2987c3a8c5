"""Cardio Query Assistant: what ECG statements look like, with sources; questions to the books behind it.

    python -m datasets_scripts.cqa describe --statements statements.txt --output waveforms.json
    python -m datasets_scripts.cqa describe --dataset mimic_iv_ecg_arrow --output waveforms.json
    python -m datasets_scripts.cqa describe --statements statements.txt --output waveforms.json \\
        --generator http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B
    python -m datasets_scripts.cqa ask "How is Wenckebach seen on the ECG?"
    python -m datasets_scripts.cqa index --corpus books --output books_index

`waveforms.json` goes into `python -m datasets_scripts prepare --text statements --waveforms waveforms.json`. Without a
model (`--generator none`, the default) nothing leaves this machine. The same command again goes on where a run stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from datasets_scripts.cqa.assistant import FALLBACKS, Options, describe_statements, distinct_statements
from datasets_scripts.cqa.generator import (
    AnnouncedGenerator,
    Generator,
    InferenceGenerator,
    check_may_send,
)
from datasets_scripts.cqa.grounds import Grounds
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.prompts import prompt_hash
from datasets_scripts.cqa.provenance import answers_path, not_understood_path, provenance_path, summary, write_results
from datasets_scripts.cqa.retries import Backoff, call_patiently
from datasets_scripts.cqa.retriever import Retriever
from datasets_scripts.cqa.statement_lists import credentialed_columns, read_statements, statements_of_dataset


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked, 1 with one sentence on stderr if not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = _parse(argv)
    try:
        return {"describe": _describe, "ask": _ask, "index": _index}[arguments.command](arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


# ----- commands ------------------------------------------------------------------------------------------------------


def _describe(arguments: argparse.Namespace) -> int:
    output = Path(arguments.output)
    if output.is_dir():
        raise ValueError(f"--output: expected a file such as {output / 'waveforms.json'}, got a folder")
    statements, credentialed = _statements(arguments)
    generator = _allowed_generator(arguments, credentialed)
    options = Options(
        arguments.num_workers,
        arguments.attempts,
        arguments.min_support,
        arguments.drop_flagged,
        arguments.fallback,
        Backoff(attempts=arguments.retries),
    )
    grounds = Grounds(_retriever(arguments))
    cache = arguments.cache or answers_path(output)
    start = time.monotonic()
    results = describe_statements(statements, generator, grounds, cache, options, progress=True)
    settings = {"corpus_hash": grounds.corpus_hash} | ({"prompt_hash": prompt_hash()} if generator else {})
    write_results(results, output, settings)
    _tell(*summary(results, time.monotonic() - start, arguments.prices))
    _tell(f"Wrote {output} and {provenance_path(output).name}")
    if any(result.not_understood for result in results):
        _tell(f"Not understood: listed in {not_understood_path(output)}")
    return 0


def _statements(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The statements, and what of them is under a data use agreement."""
    if arguments.dataset is None:
        statements, columns = read_statements(arguments.statements), []
    else:
        statements, columns = statements_of_dataset(arguments.dataset), credentialed_columns(arguments.dataset)
    if arguments.credentialed is not None:
        columns = ["the statements"] if arguments.credentialed else []
    return distinct_statements(statements)[: arguments.limit], columns


def _ask(arguments: argparse.Namespace) -> int:
    from datasets_scripts.cqa.ask import answer

    generator = _allowed_generator(arguments, [])
    retriever = _retriever(arguments) or Retriever.build(_shipped())
    answered = call_patiently(lambda: answer(arguments.question, retriever, generator), Backoff())
    _tell(answered.text)
    for number, passage in enumerate(answered.passages, start=1):
        page = f"page {passage.page}" if passage.page is not None else ""
        _tell(f"[{number}] {', '.join(filter(None, (passage.title, passage.chapter, page, passage.source)))}")
    if answered.not_covered:
        _tell(f"Nothing was found on: {', '.join(answered.not_covered)}")
    if answered.dropped:
        _tell("Left out, since no passage supports it:")
        _tell(*(f"- {sentence} ({reason})" for sentence, reason in answered.dropped))
    return 0 if answered.passages else 1


def _index(arguments: argparse.Namespace) -> int:
    from datasets_scripts.cqa.indexing import build_index

    report = build_index(arguments.corpus, arguments.output, arguments.encoder, progress=True)
    _tell(*report.summary(), f"Wrote {arguments.output}")
    return 0


# ----- what the commands share ---------------------------------------------------------------------------------------


def _allowed_generator(arguments: argparse.Namespace, credentialed: Sequence[str]) -> Generator | None:
    """The model that was asked for, once it is sure that it may be sent what it will be sent."""
    generator = _generator(arguments)
    check_may_send(
        generator,
        allow_remote=arguments.allow_remote,
        credentialed=credentialed,
        allow_credentialed=arguments.allow_credentialed,
    )
    return AnnouncedGenerator(generator, _tell) if generator is not None and generator.is_remote else generator


def _generator(arguments: argparse.Namespace) -> Generator | None:
    chosen = arguments.generator
    if chosen == "none":
        return None
    if chosen in ("local", "hub") and not arguments.model:
        raise ValueError(f"--generator {chosen}: expected --model with a model's name or folder, got none")
    if chosen == "local":
        from datasets_scripts.cqa.local_generator import LocalGenerator

        return LocalGenerator(arguments.model, max_tokens=arguments.max_tokens)
    base_url = None if chosen == "hub" else chosen
    return InferenceGenerator(
        arguments.model,
        base_url,
        api_key=_api_key(arguments.api_key_env),
        max_tokens=arguments.max_tokens,
        timeout=arguments.timeout,
    )


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ValueError(f"--api_key_env: expected the key in the environment variable {variable}, got none")
    return os.environ[variable]


def _retriever(arguments: argparse.Namespace) -> Retriever | None:
    """The index that was named, or one of the books that were named; None for the shipped base alone."""
    from datasets_scripts.cqa.corpus import read_corpus

    if arguments.index is not None:
        return Retriever.load(arguments.index)
    if arguments.corpus is None:
        return None
    return Retriever.build([*_shipped(), *read_corpus(arguments.corpus)], arguments.encoder, progress=True)


def _shipped() -> list[Passage]:
    from datasets_scripts.cqa.corpus import knowledge_passages

    return knowledge_passages()


def _tell(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


# ----- flags ---------------------------------------------------------------------------------------------------------


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m datasets_scripts.cqa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_describe_flags(commands.add_parser("describe", help="statements become descriptions with sources"))
    ask = commands.add_parser("ask", help="a question is answered from the corpus")
    ask.add_argument("question")
    index = commands.add_parser("index", help="books become an index that describe and ask can use")
    index.add_argument("--output", required=True, help="folder of the index")
    _add_corpus_flags(ask)
    _add_generator_flags(ask)
    index.add_argument("--corpus", help="folder of books: PDF, EPUB, HTML, Markdown, text")
    index.add_argument(
        "--encoder", help="text encoder on the Hub or in a folder, for dense search; default: BM25 alone"
    )
    return parser.parse_args(argv)


def _add_describe_flags(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--statements", help="text file with one statement on each line")
    source.add_argument("--dataset", help="prepared data set: the distinct statements of its rows")
    parser.add_argument("--output", required=True, help="JSON file: statement -> description; provenance beside it")
    parser.add_argument("--limit", type=_at_least_one, help="describe the first so many statements only")
    parser.add_argument("--drop_flagged", action="store_true", help="leave out sentences that the checker flags")
    _add_corpus_flags(parser)
    _add_generator_flags(parser)
    model = parser.add_argument_group("with a model")
    model.add_argument("--num_workers", type=_at_least_one, default=8, help="requests at once (8)")
    model.add_argument(
        "--attempts", type=_at_least_one, default=1, help="answers asked for, if the first is no use (1)"
    )
    model.add_argument("--retries", type=_at_least_one, default=6, help="tries of a request that fails for now (6)")
    model.add_argument("--min_support", type=float, default=0.5, help="support below which an answer is no use (0.5)")
    model.add_argument(
        "--fallback", choices=FALLBACKS, default="extractive", help="without a usable answer (extractive)"
    )
    model.add_argument("--cache", help="file of the answers; default: beside the output")
    model.add_argument(
        "--prices", type=float, nargs=2, metavar=("SENT", "RECEIVED"), help="dollars for a million tokens"
    )
    model.add_argument(
        "--credentialed",
        action=argparse.BooleanOptionalAction,
        help="whether the statements are under a data use agreement; default: what the data set's manifest says",
    )


def _add_corpus_flags(parser: argparse.ArgumentParser) -> None:
    corpus = parser.add_mutually_exclusive_group()
    corpus.add_argument("--corpus", help="folder of books, beside the shipped knowledge base")
    corpus.add_argument("--index", help="folder that the command index wrote")
    parser.add_argument("--encoder", help="text encoder of --corpus, for dense search; default: BM25 alone")


def _add_generator_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generator",
        default="none",
        help="none (extraction, the default), local, hub, or a server's URL (OpenAI chat)",
    )
    parser.add_argument("--model", help="name of the model, or its folder for --generator local")
    parser.add_argument("--api_key_env", help="environment variable with the server's key")
    parser.add_argument("--max_tokens", type=_at_least_one, default=400, help="after how many an answer is cut (400)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for an answer (120)")
    parser.add_argument("--allow_remote", action="store_true", help="a model outside this machine may be asked")
    parser.add_argument(
        "--allow_credentialed", action="store_true", help="also with what is under a data use agreement"
    )


def _at_least_one(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
