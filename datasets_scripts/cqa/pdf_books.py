"""PDF books through pypdf: the text of each page, its chapter from the outline, without running heads and page numbers.

pypdf is plain Python, so that reading a stranger's file runs no native code; it bounds what a stream inflates to.
Scanned pages hold no text: they are told, and need a text layer (OCR) first.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

from datasets_scripts.cqa.books import EXTRA, MAX_BOOK_BYTES, Block, Book, BookError, check_size, one_line

MAX_PAGES = 20_000
MAX_PAGE_CHARACTERS = 200_000
CHAPTER_DEPTH = 2  # levels of the outline that make a chapter
HEAD_LINES = 2  # lines at the top and at the bottom of a page that may be running heads
HEAD_SHARE = 0.2  # of the pages that begin or end with a line, digits aside, which makes it a running head
MIN_PAGES_FOR_HEADS = 4


def read_pdf(path: Path) -> Book:
    """A PDF file as a book, one block for each page with text; pages that cannot be read are among its problems.

    Raises BookError for what is no PDF, locked, or without any text; ImportError where pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise ImportError(f"reading PDF needs pypdf: {EXTRA}") from error
    check_size(path, MAX_BOOK_BYTES)
    try:
        reader = PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise BookError("it is locked by a password; save it without one")
        num_pages = len(reader.pages)
        title, chapters = _title(reader), _chapters(reader)
    except BookError as error:
        raise BookError(f"{path.name}: {error}") from error
    except Exception as error:  # pypdf raises whatever a damaged file makes of its code
        reason = one_line(str(error))[:200]
        raise BookError(
            f"{path.name}: cannot be read as PDF ({type(error).__name__}: {reason}); save it anew"
        ) from error
    if num_pages > MAX_PAGES:
        raise BookError(f"{path.name}: expected at most {MAX_PAGES} pages, got {num_pages}; split the file")
    pages, problems = _pages(reader, num_pages)
    blocks = _blocks(pages, chapters)
    if not blocks:
        raise BookError(f"{path.name}: none of {num_pages} pages holds text; is it scanned? Add a text layer (OCR)")
    if empty := sum(not page.strip() for page in pages):
        problems.append(f"{empty} of {num_pages} pages hold no text")
    return Book(title or path.stem, blocks, tuple(problems))


def _title(reader: Any) -> str:
    title = reader.metadata.title if reader.metadata else None
    return one_line(title) if isinstance(title, str) else ""


def _pages(reader: Any, num_pages: int) -> tuple[list[str], list[str]]:
    pages, problems = [], []
    for at in range(num_pages):
        text = ""
        try:
            text = reader.pages[at].extract_text()
        except Exception as error:  # as above: one page must not cost the book
            problems.append(f"page {at + 1} cannot be read ({type(error).__name__})")
        if len(text) > MAX_PAGE_CHARACTERS:
            problems.append(f"page {at + 1} holds {len(text)} characters; the first {MAX_PAGE_CHARACTERS} are read")
        pages.append(text[:MAX_PAGE_CHARACTERS])
    return pages, problems


def _blocks(pages: list[str], chapters: list[tuple[int, tuple[str, ...]]]) -> tuple[Block, ...]:
    starts = [start for start, _ in chapters]
    blocks = []
    for at, text in enumerate(without_running_heads(pages)):
        chapter = bisect_right(starts, at)
        headings = chapters[chapter - 1][1] if chapter else ()
        if text := flowing(text):
            blocks.append(Block(text, headings, at + 1))
    return tuple(blocks)


def flowing(text: str) -> str:
    """Lines as running text; a word that a line's end divides is whole again.

    >>> flowing("the ven-\\ntricular rate\\nis 60 bpm")
    'the ventricular rate is 60 bpm'
    """
    return one_line(re.sub(r"(?<=[a-z])[-\u00ad]\n(?=[a-z])", "", text))


def without_running_heads(pages: list[str]) -> list[str]:
    """The pages without lines that stand, but for their digits, at the top or at the bottom of many of them."""
    lines = [[line for line in page.split("\n") if line.strip()] for page in pages]
    if len(pages) < MIN_PAGES_FOR_HEADS:
        return ["\n".join(page) for page in lines]
    ends = Counter(shape for page in lines for shape in {_shape(page[at]) for at in _ends(page)})
    limit = max(MIN_PAGES_FOR_HEADS - 1, HEAD_SHARE * len(pages))
    heads = {shape for shape, count in ends.items() if count >= limit}
    return ["\n".join(_without(page, heads)) for page in lines]


def _ends(page: list[str]) -> set[int]:
    return {*range(min(HEAD_LINES, len(page))), *range(max(len(page) - HEAD_LINES, 0), len(page))}


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", one_line(line)).casefold()


def _without(page: list[str], heads: set[str]) -> list[str]:
    ends = _ends(page)
    return [line for at, line in enumerate(page) if at not in ends or _shape(line) not in heads]


def _chapters(reader: Any) -> list[tuple[int, tuple[str, ...]]]:
    """Where each chapter of the outline begins (page from 0) and its headings, in the order of the pages."""
    found: list[tuple[int, tuple[str, ...]]] = []
    _walk(reader, reader.outline, (), found)
    return sorted(found, key=lambda chapter: chapter[0])


def _walk(reader: Any, items: list[Any], above: tuple[str, ...], found: list[tuple[int, tuple[str, ...]]]) -> None:
    heading = above
    for item in items:
        if isinstance(item, list):
            if len(heading) < CHAPTER_DEPTH:
                _walk(reader, item, heading, found)
            continue
        page = reader.get_destination_page_number(item)
        heading = (*above, one_line(str(item.title)))
        if page is not None and page >= 0:
            found.append((page, heading))
