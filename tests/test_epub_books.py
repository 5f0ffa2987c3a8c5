"""EPUB: the spine's order, chapters; archives that are damaged or hostile are refused before they hurt."""

import zipfile

import pytest
from tiny_books import CONTAINER, write_epub

from datasets_scripts.cqa import epub_books
from datasets_scripts.cqa.books import BookError
from datasets_scripts.cqa.epub_books import read_epub

pytest.importorskip("defusedxml", reason="needs esi-ecg[cqa]")


def test_documents_come_in_the_order_of_the_spine(tmp_path):
    documents = {"z.xhtml": "<h1>First</h1><p>P wave.</p>", "a.xhtml": "<h1>Second</h1><p>QRS.</p>"}
    book = read_epub(write_epub(tmp_path / "b.epub", documents, title="Waves &amp; lines"))
    assert book.title == "Waves & lines"
    assert [(block.text, block.headings) for block in book.blocks] == [("P wave.", ("First",)), ("QRS.", ("Second",))]


def test_a_document_without_heading_is_under_its_title(tmp_path):
    path = write_epub(tmp_path / "b.epub", {"a.xhtml": "<head><title>Flutter</title></head><p>Saw.</p>"})
    assert read_epub(path).blocks[0].headings == ("Flutter",)


def test_names_with_escapes_and_folders_are_found(tmp_path):
    extra = {"OPS/text/my chapter.xhtml": "<p>A.</p>"}
    path = write_epub(tmp_path / "b.epub", {"text/my%20chapter.xhtml": ""}, extra=extra)
    assert read_epub(path).blocks[0].text == "A."


def test_a_missing_document_is_a_problem_of_the_book(tmp_path):
    path = write_epub(tmp_path / "b.epub", {"a.xhtml": "<p>Here.</p>"})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["OPS/package.opf"] = members["OPS/package.opf"].replace(
        b"</manifest><spine>",
        b'<item id="x" href="../../etc/passwd" media-type="application/xhtml+xml"/></manifest><spine>'
        b'<itemref idref="x"/>',
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    book = read_epub(path)
    assert [block.text for block in book.blocks] == ["Here."]
    assert len(book.problems) == 1 and "expected the member '../etc/passwd'" in book.problems[0]


def test_a_member_that_inflates_too_far_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(epub_books, "MAX_MEMBER_BYTES", 2_000)
    bomb = "<p>" + "x" * 100_000 + "</p>"
    book = read_epub(write_epub(tmp_path / "b.epub", {"bomb.xhtml": bomb, "a.xhtml": "<p>Here.</p>"}))
    assert [block.text for block in book.blocks] == ["Here."]
    assert "inflates to more than 2000 bytes" in book.problems[0]


def test_all_members_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(epub_books, "MAX_INFLATED_BYTES", 5_000)
    documents = {f"d{at}.xhtml": f"<p>{'rhythm ' * 200}</p>" for at in range(9)}
    book = read_epub(write_epub(tmp_path / "b.epub", documents))
    assert 0 < len(book.blocks) < 5 and book.problems


def test_too_many_members_are_counted_before_the_archive_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(epub_books, "MAX_MEMBERS", 5)
    path = write_epub(tmp_path / "b.epub", {f"d{at}.xhtml": "<p>A.</p>" for at in range(9)})
    monkeypatch.setattr(epub_books.zipfile, "ZipFile", None)
    with pytest.raises(BookError, match="expected at most 5 members, got 11"):
        read_epub(path)


@pytest.mark.parametrize(
    "container",
    [
        '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>' + CONTAINER.partition("?>")[2],
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + CONTAINER.partition("?>")[2],
        "<container",
        "<container/>",
    ],
)
def test_package_files_with_entities_or_damage_are_refused(tmp_path, container):
    path = write_epub(tmp_path / "b.epub", {"a.xhtml": "<p>A.</p>"}, extra={"META-INF/container.xml": container})
    with pytest.raises(BookError, match=r"b\.epub: META-INF/container\.xml"):
        read_epub(path)


def test_damaged_archives_are_read_or_told(tmp_path):
    documents = {f"d{at}.xhtml": f"<h1>Chapter {at}</h1><p>{'beat ' * 99}.</p>" for at in range(3)}
    whole, path = write_epub(tmp_path / "w.epub", documents).read_bytes(), tmp_path / "b.epub"
    for at in range(60):
        cut = bytearray(whole[: len(whole) - (at % 3) * 29])
        cut[(at * 6421) % len(cut)] ^= 0xFF
        path.write_bytes(bytes(cut))
        try:
            read_epub(path)
        except BookError as error:
            assert str(error).startswith("b.epub: ")


def test_what_is_no_zip_is_one_sentence(tmp_path):
    (tmp_path / "b.epub").write_bytes(b"no zip")
    with pytest.raises(BookError, match="b.epub: is no readable zip archive"):
        read_epub(tmp_path / "b.epub")
