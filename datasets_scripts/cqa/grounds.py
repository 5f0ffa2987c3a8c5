"""What a description may rest on: the shipped pages of its findings, and passages of the user's own books."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from datasets_scripts.cqa.corpus import Passage, corpus_hash, knowledge_passages
from datasets_scripts.cqa.extractive import STATEMENT, SourcedSentence, describe, pages_of
from datasets_scripts.cqa.headline import groups_of, headline
from datasets_scripts.cqa.knowledge import KnowledgePage, leads_in, load_knowledge, numbers_in, sentences_of
from datasets_scripts.cqa.statements import ParsedStatement, parse_statement

if TYPE_CHECKING:
    from datasets_scripts.cqa.retriever import Retriever

PROMPT_SECTIONS = ("Waveform", "Criteria")  # of a page, in a prompt; the checker has all of them
WAVEFORM = "Waveform"
SEARCHED = 20  # passages among which those of the books are looked for


@lru_cache(maxsize=1)
def _shipped() -> tuple[Mapping[str, KnowledgePage], tuple[Passage, ...]]:
    """The shipped base as pages and as passages; read once."""
    return MappingProxyType(load_knowledge()), tuple(knowledge_passages())


class Grounds:
    """The shipped base, and an index of books where there is one.

    Args:
        retriever: an index of the user's books; None for the shipped base alone. Pages of the shipped base in the index
            are passed over: a finding's own page is known without a search.
        num_hits: how many passages of the books a finding brings along.

    Attributes:
        pages: the shipped base.
        corpus_hash: tells the passages apart that descriptions rest on.
    """

    def __init__(self, retriever: Retriever | None = None, num_hits: int = 2) -> None:
        self.pages, shipped = _shipped()
        books = [] if retriever is None else [passage for passage in retriever.passages if not passage.finding]
        self.corpus_hash = corpus_hash([*shipped, *books])[:16]
        self._sections: dict[str, list[Passage]] = {}
        for passage in shipped:
            self._sections.setdefault(passage.finding, []).append(passage)
        self._books = {passage.key: passage for passage in books}
        self._retriever, self._num_hits = retriever, num_hits
        self._hits: dict[str, list[Passage]] = {}

    def headlines(self, parsed: ParsedStatement) -> list[str]:
        """What the statement says, finding by finding."""
        return [headline(group, self.pages) for group in groups_of(parsed.findings)]

    def passages(self, parsed: ParsedStatement) -> list[Passage]:
        """All sections of the pages of a statement's findings, then what the books say of them."""
        shipped = [passage for name in pages_of(parsed, self.pages) for passage in self._sections[name]]
        found = [passage for name in parsed.names for passage in self._of_books(name)]
        return [*shipped, *dict.fromkeys(found)]

    def prompt_passages(self, parsed: ParsedStatement) -> list[Passage]:
        """Those of `passages` that say what a finding looks like."""
        return [
            passage for passage in self.passages(parsed) if not passage.finding or passage.chapter in PROMPT_SECTIONS
        ]

    def extracted(self, parsed: ParsedStatement) -> tuple[SourcedSentence, ...]:
        """The description without a model; a sentence of the books for each finding stands at its end."""
        sentences = describe(parsed, self.pages)
        if not sentences or not self._books:
            return sentences
        told = [finding.name for finding in parsed.findings if not finding.negated and not finding.relation]
        found = [sentence for name in dict.fromkeys(told) if (sentence := self._sentence_of_books(name))]
        return tuple({sentence.text: sentence for sentence in (*sentences, *found)}.values())

    def passage_of(self, sentence: SourcedSentence) -> Passage | None:
        """The passage that a sentence is taken from; None for what the statement itself says."""
        if sentence.source == STATEMENT:
            return None
        if sentence.source in self._books:
            return self._books[sentence.source]
        return next(passage for passage in self._sections[sentence.source] if passage.chapter == WAVEFORM)

    def _of_books(self, name: str) -> list[Passage]:
        """The passages of the books that are best for a finding."""
        if not self._books or self._retriever is None:
            return []
        if name not in self._hits:
            wanted = f"{name} ECG waveform criteria"
            hits = self._retriever.search(wanted, k=SEARCHED)
            books = [hit.passage for hit in hits if not hit.passage.finding]
            self._hits[name] = books[: self._num_hits]
        return self._hits[name]

    def _sentence_of_books(self, name: str) -> SourcedSentence | None:
        """The first sentence found that names the finding, and a lead or a number with it."""
        for passage in self._of_books(name):
            for text in sentences_of(passage.text):
                if (leads_in(text) or numbers_in(text)) and name in parse_statement(text).names:
                    return SourcedSentence(text if text.endswith((".", "!", "?")) else f"{text}.", passage.key)
        return None
