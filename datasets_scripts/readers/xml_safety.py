"""XML from outside, parsed so that a hostile file can neither name other files nor fill the memory.

defusedxml refuses entities and external references. On top of it: a limit on bytes, on elements and on depth, and no
document type declaration that says more than a name. GE MUSE begins its exports with
`<!DOCTYPE RestingECG SYSTEM "restecg.dtd">`: such a line is let pass, and the file it names is never looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

MAX_BYTES = 2**26  # 12 leads at 500 Hz for three quarters of an hour as text
MAX_ELEMENTS = 50_000
MAX_DEPTH = 100
_CHUNK = 2**16


class _BoundedTree(TreeBuilder):
    """A tree that stops growing before it hurts."""

    def __init__(self) -> None:
        super().__init__()
        self._count = self._depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        self._count += 1
        self._depth += 1
        if self._count > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_ELEMENTS} elements and {MAX_DEPTH} levels, got more")
        return super().start(tag, attributes)

    def end(self, tag: str) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises FileNotFoundError, or ValueError for a file that is too large, not well formed, or that declares entities.
    ImportError where defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import DefusedXMLParser
    except ImportError as error:
        raise ImportError("reading XML needs defusedxml: pip install 'esi-ecg[formats]'") from error

    class Parser(DefusedXMLParser):
        def defused_start_doctype_decl(self, name, sysid, pubid, has_internal_subset):  # noqa: ANN001, ANN202
            if has_internal_subset:
                super().defused_start_doctype_decl(name, sysid, pubid, has_internal_subset)

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: expected an XML file of at most {MAX_BYTES} bytes, got {size}; cut the recording")
    parser = Parser(target=_BoundedTree(), forbid_dtd=True)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                parser.feed(chunk)
        return parser.close()
    except DefusedXmlException as error:
        raise ValueError(
            f"{path}: declares entities or a document type ({type(error).__name__}), which are refused unread; "
            f"export the file without them"
        ) from error
    except ParseError as error:
        line, column = error.position
        raise ValueError(
            f"{path}: is not well-formed XML (line {line}, column {column}); the file is damaged, copy it again"
        ) from error
    except (ValueError, LookupError, AssertionError) as error:  # limits, and encodings that Python does not know
        raise ValueError(f"{path}: cannot be read as XML ({error})") from error


def local_name(element: Element) -> str:
    """The element's name without its namespace, in lower case."""
    return element.tag.rpartition("}")[2].lower()


def descendants(element: Element, *names: str) -> Iterator[Element]:
    """All elements below (and including) `element` with one of the local `names`, in the order of the file."""
    return (node for node in element.iter() if local_name(node) in names)


def children(element: Element, *names: str) -> list[Element]:
    """The element's own children with one of the local `names`."""
    return [child for child in element if local_name(child) in names]


def child(element: Element | None, *names: str) -> Element | None:
    """The first child by a path of local names, None where there is none."""
    for name in names:
        element = next(iter(children(element, name)), None) if element is not None else None
    return element


def text_of(element: Element | None, *names: str) -> str:
    """The text at a path of local names, without spaces around it; empty where there is none."""
    found = child(element, *names)
    return (found.text or "").strip() if found is not None else ""


def number_of(path: Path, text: str, what: str) -> float:
    """The finite number that a text says. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise ValueError(f"{path}: expected a number for {what}, got {text[:20]!r}; correct the file")
    return number
