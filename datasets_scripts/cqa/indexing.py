"""`python -m datasets_scripts.cqa index`: the shipped knowledge base and a folder of books, as an index on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from datasets_scripts.cqa.corpus import CorpusReport, knowledge_passages, read_corpus
from datasets_scripts.cqa.retriever import Retriever


@dataclass(frozen=True)
class IndexReport:
    """What was indexed: all passages, those of the shipped base among them, and what became of the folder's files."""

    num_passages: int
    num_shipped: int
    corpus_hash: str
    encoder: str | None = None
    corpus: CorpusReport = field(default_factory=CorpusReport)

    def summary(self) -> list[str]:
        """Lines to show: what is in the index, then the files, then a line for each problem."""
        kind = f"BM25 and embeddings by {self.encoder}" if self.encoder else "BM25"
        first = f"{self.num_passages} passages indexed by {kind}; {self.num_shipped} of them from the shipped base"
        return [first, *(self.corpus.summary() if self.corpus.num_files or self.corpus.problems else ())]


def build_index(
    corpus: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    encoder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> IndexReport:
    """Writes the index of the shipped base and, if `corpus` is given, of the books below this folder.

    Args:
        corpus: a folder of PDF, EPUB, HTML, Markdown and text files, or None for the shipped base alone.
        output: the folder of the index; one that is there is replaced.
        encoder: a text encoder on the Hub or a folder, for dense embeddings beside BM25.
        progress: bars on standard error.

    Raises FileNotFoundError or ValueError for a folder without readable books, and for an `output` with other files.
    """
    report = CorpusReport()
    shipped = knowledge_passages()
    read = read_corpus(corpus, report) if corpus is not None else []
    retriever = Retriever.build([*shipped, *read], encoder, progress)
    retriever.save(output)
    name = os.fspath(encoder) if encoder is not None else None
    return IndexReport(len(retriever.passages), len(shipped), retriever.corpus_hash, name, report)
