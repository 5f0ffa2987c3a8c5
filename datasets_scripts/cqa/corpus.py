"""The corpus of the Cardio Query Assistant: a folder of books and guidelines, and the shipped knowledge base.

`read_corpus` reads PDF, EPUB, HTML, Markdown and text below a folder into passages. A file that cannot be read is
counted, named and explained, and never stops the others. Nothing outside the folder is opened: links to folders are
not followed, links that lead outside are refused, hidden files are passed over.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets_scripts.cqa.books import Book, BookError
from datasets_scripts.cqa.epub_books import read_epub
from datasets_scripts.cqa.html_books import read_html
from datasets_scripts.cqa.knowledge import KnowledgePage, load_knowledge
from datasets_scripts.cqa.passages import Passage, corpus_hash, passages_of
from datasets_scripts.cqa.pdf_books import read_pdf
from datasets_scripts.cqa.text_books import read_markdown, read_plain_text
from datasets_scripts.listing.file_listing import Fence

__all__ = ["CorpusReport", "Passage", "corpus_hash", "knowledge_passages", "read_corpus"]

logger = logging.getLogger(__name__)

READERS: dict[str, Callable[[Path], Book]] = {
    ".pdf": read_pdf, ".epub": read_epub, ".html": read_html, ".htm": read_html, ".xhtml": read_html,
    ".md": read_markdown, ".markdown": read_markdown, ".txt": read_plain_text, ".text": read_plain_text,
}  # fmt: skip


@dataclass
class CorpusReport:
    """What became of the files of a folder: `num_read` of `num_files` gave passages.

    `problems` are `(file name, reason)`, also of books that were read but for a part; `other_files` are of no format
    that is read.
    """

    num_files: int = 0
    num_read: int = 0
    num_passages: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """The counts in one line, then a line for each problem."""
        other = f", {len(self.other_files)} of other kinds passed over" if self.other_files else ""
        first = f"{self.num_passages} passages from {self.num_read} of {self.num_files} files{other}"
        return [first, *(f"{name}: {reason}" for name, reason in self.problems)]


def read_corpus(folder: str | os.PathLike[str], report: CorpusReport | None = None) -> list[Passage]:
    """The passages of all books below a folder, files in the order of their names.

    `report`, if given, is filled in; without one, problems are logged as warnings.

    Raises FileNotFoundError where there is no such folder, ValueError where no file in it gives a passage.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of books (PDF, EPUB, HTML, Markdown, text), got none")
    told = CorpusReport() if report is None else report
    passages = [passage for name in _book_names(root, told) for passage in _read(root, name, told)]
    told.num_passages += len(passages)
    if not passages:
        reasons = "".join(f"\n{name}: {reason}" for name, reason in told.problems[:10])
        raise ValueError(
            f"{root}: expected at least one readable file ending in {', '.join(READERS)}, got none of "
            f"{told.num_files}{reasons}"
        )
    if report is None:
        for name, reason in told.problems:
            logger.warning("%s: %s", name, reason)
    return passages


def knowledge_passages() -> list[Passage]:
    """The shipped knowledge base: one passage for each section of each page, its sources as citations.

    >>> [passage.chapter for passage in knowledge_passages() if passage.finding == "atrial flutter"]
    ['Definition', 'Waveform', 'Criteria', 'Mimics', 'Urgency']
    """
    return [passage for page in load_knowledge().values() for passage in _page_passages(page)]


def _page_passages(page: KnowledgePage) -> Iterator[Passage]:
    source = "; ".join(f"{source.title} ({source.year}) {source.link}".strip() for source in page.sources)
    for section, text in page.sections.items():
        yield Passage(text, page.name, section, source=source, finding=page.name)


def _book_names(root: Path, report: CorpusReport) -> Iterator[str]:
    """The names of the books below a folder, relative to it, sorted; what is passed over goes into the report."""
    fence = Fence(root)
    for folder, folders, files in os.walk(root, onerror=lambda error: _note_folder(error, root, report)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            report.problems.append((_relative(root, folder, name), "is a link to a folder, which is not followed"))
        for name in sorted(name for name in files if not name.startswith(".")):
            relative = _relative(root, folder, name)
            if os.path.splitext(name)[1].lower() not in READERS:
                report.other_files.append(relative)
                continue
            report.num_files += 1
            if fence.holds(os.path.join(folder, name)):
                yield relative
            else:
                report.problems.append((relative, "is a link that leads outside the folder; it is not opened"))


def _relative(root: Path, folder: str, name: str) -> str:
    path = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _note_folder(error: OSError, root: Path, report: CorpusReport) -> None:
    name = os.path.relpath(error.filename, root)
    report.problems.append((name, f"this folder cannot be listed ({error.strerror})"))


def _read(root: Path, name: str, report: CorpusReport) -> list[Passage]:
    path = root / name
    try:
        if not path.is_file():
            raise BookError("is no regular file; it is not opened")
        book = READERS[path.suffix.lower()](path)
        passages = passages_of(book, name)
        if not passages:
            raise BookError("holds no text")
    except (BookError, ImportError, OSError) as error:
        report.problems.append((name, str(error).removeprefix(f"{path.name}: ")))
        return []
    report.num_read += 1
    report.problems += [(name, problem) for problem in book.problems]
    return passages
