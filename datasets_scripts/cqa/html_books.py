"""HTML pages to books: paragraphs, list items and table rows under their headings. Nothing a page links to is opened.

Python's own `html.parser` reads any tag soup; it knows no entities but those of HTML and never recurses.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from datasets_scripts.cqa.books import Block, Book, one_line, read_text

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNREAD = frozenset("script style nav noscript template svg math form button select textarea iframe".split())
_BREAKS = frozenset(
    "address article aside blockquote body caption dd div dl dt figcaption figure footer header hr li main ol p pre"
    " section table tr ul".split()
)
_SPACES = frozenset("br td th".split())


class _Blocks(HTMLParser):
    """Collects the blocks of a page while its tags go by."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.blocks: list[Block] = []
        self._headings: dict[int, str] = {}  # level -> heading
        self._parts: list[str] = []
        self._heading = 0  # level of the heading that is open
        self._in_title = False
        self._unread: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNREAD:
            self._unread.append(tag)
        elif tag == "title" and not self.title:
            self.flush()
            self._in_title = True
        elif tag in _HEADINGS:
            self.flush()
            self._heading = _HEADINGS[tag]
        elif tag in _BREAKS:
            self.flush()
        elif tag in _SPACES:
            self._parts.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNREAD and tag != "title":  # <script/> and <title/> of XHTML hold nothing
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unread:
            del self._unread[self._unread.index(tag) :]
        elif tag == "title" and self._in_title:
            self.title = one_line("".join(self._parts))
            self._parts.clear()
            self._in_title = False
        elif tag in _HEADINGS or tag in _BREAKS:
            self.flush()

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._parts.append(data)

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


def parse_html(text: str) -> tuple[str, tuple[Block, ...]]:
    """The title and the blocks of a page.

    >>> parse_html("<title>ECG</title><h1>Rhythm</h1><p>P waves &gt; QRS")
    ('ECG', (Block(text='P waves > QRS', headings=('Rhythm',), page=None),))
    """
    parser = _Blocks()
    parser.feed(text)
    parser.close()
    parser.flush()
    return parser.title, tuple(parser.blocks)


def read_html(path: Path) -> Book:
    """An HTML file as a book. Raises BookError for what is no text or too large."""
    title, blocks = parse_html(read_text(path))
    return Book(title or path.stem, blocks)
