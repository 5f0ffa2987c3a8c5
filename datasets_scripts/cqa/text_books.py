"""Markdown and plain text to books: paragraphs and list items, in Markdown under their headings."""

from __future__ import annotations

import re
from pathlib import Path

from datasets_scripts.cqa.books import Block, Book, one_line, read_text

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_TITLE = re.compile(r"^(?:title|name):[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*)$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_RULE = re.compile(r"^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+")
_MARKUP = (
    (re.compile(r"!?\[([^\][]*)\]\([^()]*\)"), r"\1"),  # links and pictures
    (re.compile(r"(?<!\w)(\*\*|__|\*|_|`)(?=\S)([^*`]{1,400}?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"</?[a-zA-Z][^<>]*>"), " "),
)


def read_markdown(path: Path) -> Book:
    """A Markdown file as a book; its title is that of the front matter, the first heading, or the file's name."""
    text = read_text(path).replace("\r\n", "\n")
    title = ""
    if front := _FRONT_MATTER.match(text):
        named = _TITLE.search(front[1])
        title, text = named[1] if named else "", text[front.end() :]
    blocks = parse_markdown(text)
    first = next((block.headings[0] for block in blocks if block.headings), "")
    return Book(title or first or path.stem, blocks)


def read_plain_text(path: Path) -> Book:
    """A text file as a book: its paragraphs, which empty lines part."""
    paragraphs = re.split(r"\n[ \t]*\n|\f", read_text(path).replace("\r\n", "\n"))
    blocks = tuple(Block(one_line(paragraph)) for paragraph in paragraphs if paragraph.strip())
    return Book(path.stem, blocks)


def parse_markdown(text: str) -> tuple[Block, ...]:
    """The paragraphs and list items of a Markdown text without their markup.

    >>> parse_markdown("# Rhythm\\n\\nThe **P wave** is [upright](a.md).\\n\\n## Rate\\n- 60 bpm\\n")
    (Block(text='The P wave is upright.', headings=('Rhythm',), page=None),
     Block(text='60 bpm', headings=('Rhythm', 'Rate'), page=None))
    """
    reading = _Markdown()
    for line in text.split("\n"):
        reading.read(line)
    reading.flush()
    return tuple(reading.blocks)


class _Markdown:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._headings: dict[int, str] = {}  # level -> heading
        self._lines: list[str] = []
        self._fence = ""

    def read(self, line: str) -> None:
        fence = _FENCE.match(line)
        if fence and self._fence in ("", fence[1]):
            self.flush()
            self._fence = "" if self._fence else fence[1]
        elif self._fence:
            self._lines.append(line)
        elif heading := _ATX.match(line):
            self.flush()
            self._open(len(heading[1]), heading[2].rstrip().rstrip("#"))
        elif self._lines and (rule := _SETEXT.match(line)):
            name = " ".join(self._lines)
            self._lines.clear()
            self._open(1 if rule[1][0] == "=" else 2, name)
        else:
            self._read_text(line)

    def _read_text(self, line: str) -> None:
        item = _ITEM.match(line)
        ends = not line.strip() or _RULE.match(line)
        if item or ends:
            self.flush()
        if ends:
            return
        self._lines.append(line[item.end() :] if item else line.lstrip("> \t"))

    def _open(self, level: int, name: str) -> None:
        outer = {other: heading for other, heading in self._headings.items() if other < level}
        self._headings = outer | {level: _plain(name)}

    def flush(self) -> None:
        text = _plain("\n".join(self._lines))
        self._lines.clear()
        if text:
            self.blocks.append(Block(text, tuple(self._headings.values())))


def _plain(text: str) -> str:
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return one_line(text)
