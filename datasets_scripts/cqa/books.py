"""A book or guideline as read from a file: its title, and its text in blocks that know their chapter and page.

The readers of each format (`pdf_books`, `epub_books`, `html_books`, `text_books`) give a `Book`; what cannot be read at
all is a `BookError`, which names the file and says what to do; what is lost within a book stands in its `problems`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_BOOK_BYTES = 2**29  # PDF and EPUB, with their pictures
MAX_TEXT_BYTES = 2**26  # HTML, Markdown, text: about ten million words
EXTRA = "pip install 'esi-ecg[cqa]'"


class BookError(ValueError):
    """A file that cannot be read as a book; the message names it, the reason and what to do."""


@dataclass(frozen=True)
class Block:
    """A piece of running text: a paragraph, a list item, or the text of a PDF page.

    `headings` are the headings above it, outermost first. `page` counts from 1; None where the format has no pages.
    """

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True)
class Book:
    """What a file holds: `problems` tell what in it could not be read ("2 of 9 pages hold no text")."""

    title: str
    blocks: tuple[Block, ...]
    problems: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def check_size(path: Path, limit: int) -> None:
    """Raises BookError for a file of more than `limit` bytes, before any of it is read."""
    size = path.stat().st_size
    if size > limit:
        raise BookError(f"{path.name}: expected at most {limit} bytes, got {size}; split the file")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 with its mark, or else Windows-1252. Raises BookError for what is no text."""
    check_size(path, MAX_TEXT_BYTES)
    return decode(path.read_bytes(), path.name)


def decode(data: bytes, name: str) -> str:
    """Bytes as text, see `read_text`; `name` is for the message.

    >>> decode("Rhythmus: 60 Schläge".encode("cp1252"), "notes.txt")
    'Rhythmus: 60 Schläge'
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise BookError(f"{name}: expected text, got bytes of another kind; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
