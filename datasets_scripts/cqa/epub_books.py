"""EPUB books: the documents of the spine, in reading order, read inside the archive; nothing is written to disk.

An EPUB is a zip file of strangers: the number of its members, what each inflates to and all of it together are bounded;
the package file is parsed by defusedxml without entities; a member is only ever found by its exact name in the archive.
Format: https://www.w3.org/TR/epub-33/.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError

from datasets_scripts.cqa.books import EXTRA, MAX_BOOK_BYTES, Block, Book, BookError, check_size, decode, one_line
from datasets_scripts.cqa.html_books import parse_html
from datasets_scripts.readers.xml_safety import descendants

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 2**24
MAX_INFLATED_BYTES = 2**27
_MEMBER_SIGNATURE = b"PK\x01\x02"
_CHUNK = 2**20
_DOCUMENTS = frozenset({"application/xhtml+xml", "text/html"})
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError, ValueError)


def read_epub(path: Path) -> Book:
    """An EPUB file as a book; a document that cannot be read is one of its problems.

    Raises BookError for what is no EPUB, too large or hostile; ImportError where defusedxml is not installed.
    """
    check_size(path, MAX_BOOK_BYTES)
    _check_members(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _book(_Archive(archive), path)
    except BookError as error:
        raise BookError(f"{path.name}: {error}") from error
    except _BROKEN_ZIP as error:
        raise BookError(f"{path.name}: is no readable zip archive ({error}); copy the file again") from error


def _check_members(path: Path) -> None:
    """Counts the records of the archive's directory before anything holds them all in memory."""
    count, tail = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            count += (tail + chunk).count(_MEMBER_SIGNATURE)
            tail = chunk[1 - len(_MEMBER_SIGNATURE) :]
    if count > MAX_MEMBERS:
        raise BookError(f"{path.name}: expected at most {MAX_MEMBERS} members, got {count}; it is not opened")


class _Archive:
    """Members by name, each bounded, and all of them together."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = MAX_INFLATED_BYTES

    def read(self, name: str) -> bytes:
        limit = min(MAX_MEMBER_BYTES, self._left)
        try:
            with self._archive.open(name) as member:
                data = member.read(limit + 1)
        except KeyError as error:
            raise BookError(f"expected the member {name!r}, got none of this name; the file is damaged") from error
        if len(data) > limit:
            raise BookError(f"{name} inflates to more than {limit} bytes, which is refused; unpack it and use its HTML")
        self._left -= len(data)
        return data

    def xml(self, name: str) -> Element:
        try:
            from defusedxml import DefusedXmlException
            from defusedxml.ElementTree import fromstring
        except ImportError as error:
            raise ImportError(f"reading EPUB needs defusedxml: {EXTRA}") from error
        try:
            return fromstring(self.read(name), forbid_dtd=True)
        except (DefusedXmlException, ParseError, LookupError) as error:
            raise BookError(f"{name} cannot be read as plain XML ({type(error).__name__})") from error


def _book(archive: _Archive, path: Path) -> Book:
    package_name = _attribute(archive.xml("META-INF/container.xml"), "rootfile", "full-path")
    package = archive.xml(package_name)
    title = next((one_line(node.text or "") for node in descendants(package, "title")), "")
    blocks: list[Block] = []
    problems: list[str] = []
    for name in _spine(package, posixpath.dirname(package_name)):
        try:
            blocks += _document(archive, name)
        except BookError as error:
            problems.append(str(error))
        except _BROKEN_ZIP as error:
            problems.append(f"{name} cannot be read ({error}); it may be protected")
    return Book(title or path.stem, tuple(blocks), tuple(problems))


def _document(archive: _Archive, name: str) -> list[Block]:
    """The blocks of a document; its title stands in where it has no heading of its own."""
    title, blocks = parse_html(decode(archive.read(name), name))
    return [block if block.headings or not title else Block(block.text, (title,)) for block in blocks]


def _spine(package: Element, folder: str) -> list[str]:
    """The names of the documents in reading order."""
    items = {item.get("id", ""): item for item in descendants(package, "item")}
    names = []
    for reference in descendants(package, "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is not None and item.get("media-type") in _DOCUMENTS:
            names.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    if not names:
        raise BookError("expected documents in the spine of the package, got none; the file is damaged")
    return list(dict.fromkeys(names))


def _attribute(root: Element, tag: str, name: str) -> str:
    found = next((node.get(name) for node in descendants(root, tag) if node.get(name)), None)
    if found is None:
        raise BookError(f"META-INF/container.xml: expected a {tag} with {name}, got none; the file is damaged")
    return found
