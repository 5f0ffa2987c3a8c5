"""HTML pages to books: paragraphs, list items and table rows under their headings. Nothing a page links to is opened.

Only the names of tags count here, so that a few lines find them, in time that grows with the length of a page whatever
it holds. Python's own `html.parser` needs minutes for 60 kB of `<a <a <a` (Python 3.11.7; CVE-2025-6069 is of this
kind), and these pages are strangers'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from datasets_scripts.cqa.books import Block, Book, one_line, read_text

MAX_TAG = 4096  # characters; a longer one is read as text
TEXT = ""  # the name of what is no tag

_NAME = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]{0,40})")
_RAW = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "textarea")}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNREAD = frozenset("script style nav noscript template svg math button select textarea iframe".split())
_BREAKS = frozenset(
    "address article aside blockquote body caption dd div dl dt figcaption figure footer header hr li main ol p pre"
    " section table tr ul".split()
)
_SPACES = frozenset("br td th".split())


def parse_html(text: str) -> tuple[str, tuple[Block, ...]]:
    """The title and the blocks of a page; any text is one.

    >>> parse_html("<title>ECG</title><h1>Rhythm</h1><p>P waves &gt; QRS")
    ('ECG', (Block(text='P waves > QRS', headings=('Rhythm',), page=None),))
    """
    page = _Page()
    for name, content in _tokens(text):
        if name == TEXT:
            page.add(content)
        elif content.startswith("</"):
            page.close(name)
        elif not (content.endswith("/>") and (name in _UNREAD or name == "title")):  # XHTML's <script/> holds nothing
            page.open(name)
    page.flush()
    return page.title, tuple(page.blocks)


def read_html(path: Path) -> Book:
    """An HTML file as a book. Raises BookError for what is no text or too large."""
    title, blocks = parse_html(read_text(path))
    return Book(title or path.stem, blocks)


def _tokens(html: str) -> Iterator[tuple[str, str]]:
    """`(name, tag)` in lower case for each tag, `(TEXT, text)` for what is between them; comments are left out."""
    at, raw = 0, None
    while at < len(html):
        if raw:  # the text of a script ends at its own tag only
            found = raw.search(html, at)
            at, raw = found.start() if found else len(html), None
            continue
        start = html.find("<", at)
        start = len(html) if start < 0 else start
        yield TEXT, unescape(html[at:start])
        end = _end_of_tag(html, start)
        name = _NAME.match(html, start)
        if end > start and name:
            tag = html[start:end].lower()
            yield name[1].lower(), tag
            raw = None if tag.startswith("</") or tag.endswith("/>") else _RAW.get(name[1].lower())
        elif end == start and start < len(html):
            yield TEXT, "<"
        at = max(end, start + 1)


def _end_of_tag(html: str, start: int) -> int:
    """Where the tag or comment that begins at `start` ends; `start` where none begins."""
    if html.startswith("<!--", start):
        end = html.find("-->", start + 4)
        return end + 3 if end >= 0 else len(html)
    if not html.startswith(("/", "!", "?"), start + 1) and not html[start + 1 : start + 2].isalpha():
        return start
    end = html.find(">", start, start + MAX_TAG)
    if end >= 0 and '"' not in html[start:end] and "<" in html[start + 1 : end]:  # "PR <a and QRS</p>"
        return start
    if end >= 0 and html.count('"', start, end) % 2:  # this one stands inside quotes
        quote = html.find('"', end, start + MAX_TAG)
        end = html.find(">", quote, start + MAX_TAG) if quote >= 0 else end
    return end + 1 if end >= 0 else start


class _Page:
    """Collects the blocks of a page while its tags go by."""

    def __init__(self) -> None:
        self.title = ""
        self.blocks: list[Block] = []
        self._headings: dict[int, str] = {}  # level -> heading
        self._parts: list[str] = []
        self._heading = 0  # level of the heading that is open
        self._in_title = False
        self._unread = ""  # the outermost element that is open and no text
        self._depth = 0  # how many of its name are open

    def open(self, name: str) -> None:
        if self._unread:
            self._depth += name == self._unread
        elif name in _UNREAD:
            self._unread, self._depth = name, 1
        elif name == "title" and not self.title:
            self.flush()
            self._in_title = True
        elif name in _HEADINGS or name in _BREAKS:
            self.flush()
            self._heading = _HEADINGS.get(name, 0)
        elif name in _SPACES:
            self._parts.append(" ")

    def close(self, name: str) -> None:
        if self._unread:
            self._depth -= name == self._unread
            self._unread = self._unread if self._depth else ""
        elif name == "title" and self._in_title:
            self.title = one_line("".join(self._parts))
            self._parts.clear()
            self._in_title = False
        elif name in _HEADINGS or name in _BREAKS:
            self.flush()

    def add(self, text: str) -> None:
        if not self._unread:
            self._parts.append(text)

    def flush(self) -> None:
        """The text since the last break becomes a block, or the heading that is open."""
        text = one_line("".join(self._parts))
        self._parts.clear()
        level, self._heading = self._heading, 0
        if not text or self._in_title:
            return
        if level:
            self._headings = {other: name for other, name in self._headings.items() if other < level} | {level: text}
        else:
            self.blocks.append(Block(text, tuple(self._headings.values())))
