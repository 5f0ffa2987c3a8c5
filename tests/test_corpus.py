"""The corpus: every format below a folder, nothing outside it, every file told; and the shipped base."""

import builtins
import os

import pytest
from tiny_books import words, write_epub, write_pdf

from datasets_scripts.cqa.corpus import CorpusReport, knowledge_passages, read_corpus
from datasets_scripts.cqa.knowledge import SECTIONS, load_knowledge

pytest.importorskip("pypdf", reason="needs esi-ecg[cqa]")


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "books"
    (folder / "guides").mkdir(parents=True)
    write_pdf(folder / "a.pdf", [[line] for line in words(300, "flutter").split(". ")], "Flutter book", {"One": 0})
    write_epub(folder / "b.epub", {"c.xhtml": f"<h1>Pauses</h1><p>{words(120, 'pause')}</p>"})
    (folder / "guides" / "c.html").write_text(f"<title>Web</title><p>{words(90, 'web')}</p>")
    (folder / "guides" / "d.md").write_text(f"# Notes\n\n{words(90, 'note')}")
    (folder / "E.TXT").write_text(words(90, "plain"))
    return folder


def test_all_formats_become_passages_in_the_order_of_names(books):
    report = CorpusReport()
    passages = read_corpus(books, report)
    names = list(dict.fromkeys(passage.source for passage in passages))
    assert names == ["E.TXT", "a.pdf", "b.epub", "guides/c.html", "guides/d.md"]
    assert (report.num_files, report.num_read, report.num_passages) == (5, 5, len(passages))
    assert report.problems == [] and report.summary() == [f"{len(passages)} passages from 5 of 5 files"]
    flutter = next(passage for passage in passages if passage.source == "a.pdf")
    assert (flutter.title, flutter.chapter, flutter.page, flutter.finding) == ("Flutter book", "One", 1, "")
    assert read_corpus(books, CorpusReport()) == passages


def test_broken_files_are_named_and_explained_and_stop_nothing(books):
    (books / "broken.pdf").write_bytes(b"%PDF-1.4 cut")
    (books / "broken.epub").write_bytes(b"PK")
    (books / "broken.txt").write_bytes(bytes(99))
    (books / "empty.md").write_text("")
    (books / "picture.png").write_bytes(b"png")
    (books / ".hidden.txt").write_text("hidden")
    report = CorpusReport()
    read_corpus(books, report)
    assert (report.num_files, report.num_read) == (9, 5)
    reasons = dict(report.problems)
    assert set(reasons) == {"broken.pdf", "broken.epub", "broken.txt", "empty.md"}
    assert reasons["broken.txt"].startswith("expected text") and reasons["empty.md"] == "holds no text"
    assert report.other_files == ["picture.png"]
    assert "1 of other kinds passed over" in report.summary()[0] and len(report.summary()) == 5


def test_problems_are_logged_where_nobody_takes_the_report(books, caplog):
    (books / "broken.txt").write_bytes(bytes(99))
    read_corpus(books)
    assert "broken.txt: expected text" in caplog.text


def test_nothing_outside_the_folder_is_opened(books, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(words(90, "secret"))
    os.symlink(tmp_path / "outside" / "secret.txt", books / "link.txt")
    os.symlink(tmp_path / "outside", books / "folder")
    os.symlink(books / "E.TXT", books / "inside.txt")
    os.symlink(books / "nowhere", books / "dangling.md")
    os.mkfifo(books / "pipe.txt")
    report = CorpusReport()
    passages = read_corpus(books, report)
    assert not [passage for passage in passages if "secret" in passage.text]
    assert {"inside.txt", "E.TXT"} <= {passage.source for passage in passages}
    reasons = dict(report.problems)
    assert "leads outside the folder" in reasons["link.txt"] and "not followed" in reasons["folder"]
    assert "no regular file" in reasons["pipe.txt"] and "dangling.md" in reasons


def test_a_folder_without_books_or_no_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of books"):
        read_corpus(tmp_path / "none")
    (tmp_path / "x.pdf").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"expected at least one readable file.*got none of 1\nx\.pdf:"):
        read_corpus(tmp_path)


def test_without_pypdf_the_other_formats_are_read(books, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pypdf":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    report = CorpusReport()
    read_corpus(books, report)
    assert dict(report.problems) == {"a.pdf": "reading PDF needs pypdf: pip install 'esi-ecg[cqa]'"}
    assert report.num_read == 4


def test_the_shipped_base_has_each_section_of_each_page_with_its_sources():
    passages, pages = knowledge_passages(), load_knowledge()
    assert len(passages) == len(SECTIONS) * len(pages) == len({passage.key for passage in passages})
    for passage in passages:
        page = pages[passage.finding]
        assert passage.text == page.sections[passage.chapter]
        assert all(source.title in passage.source and source.link in passage.source for source in page.sources)
