"""Find recordings in an archive by a sentence or by another ECG.

    python -m modeling_esi.search build --model esi-ecg --dataset ptb_xl --data_dir ptb-xl --output index
    python -m modeling_esi.search query --index index "left bundle branch block with old inferior infarct"
    python -m modeling_esi.search query --index index --ecg record.dcm --where "age >= 65 and sex == 'female'"

`build` goes on where it was stopped. `query` is exact; it answers each sentence and each ECG with a list of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from modeling_esi.evaluation.context import SPLIT_NAMES, EvaluationContext, parse_options

from .building import build_index
from .index import ECGIndex, Hit
from .index_folder import DTYPES


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked, 1 with one sentence on stderr if not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = parser_of().parse_args(argv)
    try:
        return {"build": _build, "query": _query}[arguments.command](arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def parser_of() -> argparse.ArgumentParser:
    """The commands and their flags."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m modeling_esi.search", description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_build_flags(commands.add_parser("build", help="embed a data set"))
    _add_query_flags(commands.add_parser("query", help="find recordings"))
    return parser


# ----- commands ------------------------------------------------------------------------------------------------------


def _build(arguments: argparse.Namespace) -> int:
    context = EvaluationContext.load(
        arguments.model,
        arguments.dataset,
        data_dir=arguments.data_dir,
        dataset_options=dict(parse_options(arguments.dataset_options)),
        split=arguments.split,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        device=arguments.device,
        num_workers=arguments.num_workers,
        cache_dir=None,  # the index is where they are kept
        progress=not arguments.quiet,
    )
    manifest = build_index(
        context,
        arguments.output,
        model_name=arguments.model,
        dtype=arguments.dtype,
        with_patient_id=arguments.with_patient_id,
        with_text=arguments.with_text,
        faiss=arguments.faiss,
    )
    size = sum(file["size"] for file in manifest["files"].values()) / 1e6
    refused = len(manifest["refused"])
    sys.stdout.write(
        f"{arguments.output}: {manifest['num_records']:,} recordings x {manifest['width']} {manifest['dtype']}, "
        f"{size:,.1f} MB" + (f"; {refused:,} refused at the model's door and left out\n" if refused else "\n")
    )
    return 0


def _query(arguments: argparse.Namespace) -> int:
    if not arguments.texts and not arguments.ecg:
        raise ValueError("query: expected a sentence or --ecg FILE, got neither.")
    index = ECGIndex.load(arguments.index, arguments.model, arguments.device, arguments.verify)
    how = {"k": arguments.top, "where": arguments.where, "approximate": arguments.approximate}
    answers: list[tuple[str, list[Hit]]] = []
    if arguments.texts:
        answers += zip(arguments.texts, index.nearest(index.embed_texts(arguments.texts), **how), strict=True)
    if arguments.ecg:
        answers += zip(arguments.ecg, index.nearest(index.embed_ecgs(arguments.ecg), **how), strict=True)
    for line in _as_json(answers) if arguments.json else _as_table(answers):
        sys.stdout.write(f"{line}\n")
    return 0


def _as_json(answers: list[tuple[str, list[Hit]]]) -> Iterator[str]:
    """One line for each query."""
    for query, hits in answers:
        told = [{"record_id": hit.record_id, "score": hit.score} | hit.metadata for hit in hits]
        yield json.dumps({"query": query, "hits": told}, ensure_ascii=False)


def _as_table(answers: list[tuple[str, list[Hit]]]) -> Iterator[str]:
    for query, hits in answers:
        yield f"\n{query}"
        if not hits:
            yield "  no recording meets the condition"
        wide = max((len(hit.record_id) for hit in hits), default=0)
        for place, hit in enumerate(hits, 1):
            yield f"{place:4}  {hit.score:7.4f}  {hit.record_id:{wide}}  {_told(hit.metadata)}".rstrip()


def _told(metadata: dict[str, Any]) -> str:
    age = "" if metadata["age"] is None else f"{metadata['age']:.0f}"
    extra = [metadata[name] or "" for name in ("patient_id", "text") if name in metadata]
    labels = ", ".join(metadata["labels"] or ())
    return "  ".join([f"{age:>3}", f"{metadata['sex'] or '':6}", labels, *(" ".join(part.split()) for part in extra)])


# ----- flags ---------------------------------------------------------------------------------------------------------


def _add_build_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="folder or Hub name of an ESI model")
    parser.add_argument("--dataset", required=True, help="source, prepared folder, or repository of the Hub")
    parser.add_argument("--data_dir", help="the source's folder, as it is published")
    parser.add_argument("--dataset_options", help="the source's own options, as JSON")
    parser.add_argument("--output", required=True, help="folder of the index")
    parser.add_argument("--split", default="all", choices=[*SPLIT_NAMES, "all"], help="default: all")
    parser.add_argument("--limit", type=int, help="at most so many records of each split")
    parser.add_argument("--batch_size", type=int, default=64, help="records at a time")
    parser.add_argument("--dtype", default="float16", choices=DTYPES, help="of the stored embeddings")
    parser.add_argument("--with_patient_id", action="store_true", help="also store patient_id")
    parser.add_argument("--with_text", action="store_true", help="also store the text or report")
    parser.add_argument("--faiss", metavar="FACTORY", help="a FAISS index too, such as HNSW32")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read a source's files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_query_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="SENTENCE", help="what to look for; several are answered each")
    parser.add_argument("--index", required=True, help="folder of the index")
    parser.add_argument("--ecg", action="append", metavar="FILE", help="find recordings like this one; may be repeated")
    parser.add_argument("--top", type=int, default=10, help="how many recordings")
    parser.add_argument("--where", help="condition, such as \"age >= 65 and sex == 'female' and 'NORM' in labels\"")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each query")
    parser.add_argument("--approximate", action="store_true", help="by FAISS, where the index was built with it")
    parser.add_argument("--model", help="where the model is now; default: where the index says")
    parser.add_argument("--device", default="cpu", help="where queries are embedded")
    parser.add_argument("--verify", action="store_true", help="also hold all embeddings against their hash")


if __name__ == "__main__":
    sys.exit(main())
