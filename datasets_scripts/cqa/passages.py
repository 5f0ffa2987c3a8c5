"""Books cut into passages: about 80 to 200 words of one chapter, in whole sentences, with title, chapter and page.

The text of a chapter is shared out evenly, so that no short rest is left over. Sections shorter than that stand
together in one passage while they are of one chapter; their headings then stand in the text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from datasets_scripts.cqa.books import Block, Book
from datasets_scripts.cqa.knowledge import sentences_of

MIN_WORDS = 80
MAX_WORDS = 200
AIM_WORDS = 130
MAX_SENTENCE_WORDS = 60  # longer ones are tables or lists without points
MAX_WORD = 100  # characters; longer ones are no words, and are cut
CHAPTER_SIGN = " > "
KEY_LENGTH = 16  # hexadecimal digits: among 10^6 passages two agree by chance in 1 of 10^7 corpora


@dataclass(frozen=True)
class Passage:
    """A piece of a book or of a knowledge page.

    `source` is the file's name in its folder, or the citations of a knowledge page; `page` counts from 1; `finding` is
    the canonical name where the passage is of the shipped base.

    >>> Passage("Short PR interval.", "ECG").key
    'b9d5296c68b10df6'
    """

    text: str
    title: str
    chapter: str = ""
    page: int | None = None
    source: str = ""
    finding: str = ""

    @property
    def key(self) -> str:
        """The first digits of the SHA-256 of all that the passage says."""
        content = json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]


def corpus_hash(passages: Iterable[Passage]) -> str:
    """The SHA-256 of the passages' keys in their order: what an index and a cache are valid for."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(passage.key.encode())
    return digest.hexdigest()


def passages_of(book: Book, source: str) -> list[Passage]:
    """The passages of a book that was read from the file `source`."""
    sections = [
        _Section(headings, _sentences(list(blocks)))
        for headings, blocks in groupby(book.blocks, key=lambda block: block.headings)
    ]
    return [
        Passage(_text(part), book.title, CHAPTER_SIGN.join(section.headings), part[0].page, source)
        for section in _joined(sections)
        for part in _parts(section.sentences)
    ]


@dataclass(frozen=True)
class _Sentence:
    text: str
    page: int | None = None
    begins: bool = False  # a block

    @property
    def num_words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class _Section:
    headings: tuple[str, ...]
    sentences: list[_Sentence]

    @property
    def num_words(self) -> int:
        return sum(sentence.num_words for sentence in self.sentences)


def _sentences(blocks: Sequence[Block]) -> list[_Sentence]:
    """The sentences of blocks; one that a page's end divides is whole, and of the page where it begins."""
    found: list[_Sentence] = []
    open_text, open_page = "", None
    for at, block in enumerate(blocks):
        sentences = sentences_of(f"{open_text} {block.text}")
        pages = [open_page if open_text else block.page] + [block.page] * (len(sentences) - 1)
        open_text = ""
        if at + 1 < len(blocks) and block.page is not None and _goes_on(sentences[-1]):
            open_text, open_page = sentences[-1], pages[-1]
            sentences = sentences[:-1]
        for number, (text, page) in enumerate(zip(sentences, pages, strict=False)):
            begins = number == 0 and block.page is None
            found += [_Sentence(piece, page, begins and first) for first, piece in _pieces(text)]
    return found


def _goes_on(sentence: str) -> bool:
    """Whether the last sentence of a page looks as if its end stood on the next page."""
    return not sentence.endswith((".", "!", "?", ":")) and len(sentence.split()) <= MAX_SENTENCE_WORDS


def _pieces(sentence: str) -> list[tuple[bool, str]]:
    """A sentence, cut where it is too long to be one; the first piece is marked."""
    words = [word[at : at + MAX_WORD] for word in sentence.split() for at in range(0, len(word), MAX_WORD)]
    count = math.ceil(len(words) / MAX_SENTENCE_WORDS)
    size = math.ceil(len(words) / count)
    return [(start == 0, " ".join(words[start : start + size])) for start in range(0, len(words), size)]


def _joined(sections: Iterable[_Section]) -> list[_Section]:
    """Neighbours of one chapter together, while one of them is too short to stand alone."""
    groups: list[list[_Section]] = []
    for section in sections:
        group = groups[-1] if groups else []
        num_words = sum(member.num_words for member in group)
        short = min(num_words, section.num_words) < MIN_WORDS and num_words + section.num_words <= MAX_WORDS
        if group and short and group[0].headings[:1] == section.headings[:1]:
            group.append(section)
        else:
            groups.append([section])
    return [group[0] if len(group) == 1 else _merged(group) for group in groups]


def _merged(group: list[_Section]) -> _Section:
    """One section under the headings that all share; the other headings become sentences."""
    shared = 0
    for names in zip(*(section.headings for section in group), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    sentences: list[_Sentence] = []
    for section in group:
        if heading := CHAPTER_SIGN.join(section.headings[shared:]):
            page = section.sentences[0].page
            sentences.append(_Sentence(f"{heading}:", page, begins=True))
        sentences += section.sentences
    return _Section(group[0].headings[:shared], sentences)


def _parts(sentences: Sequence[_Sentence]) -> list[list[_Sentence]]:
    """Sentences shared out evenly among as many passages as the text needs."""
    total = sum(sentence.num_words for sentence in sentences)
    count = max(1, round(total / AIM_WORDS))
    parts: list[list[_Sentence]] = [[] for _ in range(count)]
    before = 0
    for sentence in sentences:
        middle = before + sentence.num_words / 2
        parts[min(count - 1, int(middle * count / total))].append(sentence)
        before += sentence.num_words
    return [part for part in parts if part]


def _text(sentences: Sequence[_Sentence]) -> str:
    """Sentences as text, each block on a line of its own."""
    return "".join(("\n" if sentence.begins else " ") + sentence.text for sentence in sentences).strip()
