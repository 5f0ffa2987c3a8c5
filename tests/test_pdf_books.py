"""PDF: pages, chapters of the outline, divided words, running heads; damaged, locked and scanned files are told."""

import pytest
from tiny_books import words, write_pdf

from datasets_scripts.cqa.books import BookError
from datasets_scripts.cqa.pdf_books import read_pdf, without_running_heads

pypdf = pytest.importorskip("pypdf", reason="needs esi-ecg[cqa]")


def test_pages_chapters_and_title(tmp_path):
    pages = [["The P wave comes first."], ["The QRS is next."], ["Flutter waves are", "like a saw."]]
    path = write_pdf(tmp_path / "b.pdf", pages, "A short ECG", {"Waves": 0, "Flutter": 2})
    book = read_pdf(path)
    assert book.title == "A short ECG" and book.problems == ()
    assert [(block.text, block.headings, block.page) for block in book.blocks] == [
        ("The P wave comes first.", ("Waves",), 1),
        ("The QRS is next.", ("Waves",), 2),
        ("Flutter waves are like a saw.", ("Flutter",), 3),
    ]


def test_a_book_without_title_and_outline_has_the_files_name(tmp_path):
    book = read_pdf(write_pdf(tmp_path / "rhythms.pdf", [["Sinus rhythm."]]))
    assert (book.title, book.blocks[0].headings) == ("rhythms", ())


def test_words_divided_at_the_end_of_a_line_are_whole(tmp_path):
    book = read_pdf(write_pdf(tmp_path / "b.pdf", [["The ven-", "tricular rate in V1-", "V3 is 60 bpm."]]))
    assert book.blocks[0].text == "The ventricular rate in V1- V3 is 60 bpm."


def test_running_heads_and_page_numbers_go_but_text_stays(tmp_path):
    letters = "abcdefghi"
    pages = [[f"{at} ECG HANDBOOK", f"Wave {x} is", f"here as {x}.", f"Page {at}"] for at, x in enumerate(letters)]
    book = read_pdf(write_pdf(tmp_path / "b.pdf", pages))
    assert [block.text for block in book.blocks] == [f"Wave {letter} is here as {letter}." for letter in letters]


def test_few_pages_keep_all_their_lines():
    pages = ["Chapter 1\nText one", "Chapter 2\nText two"]
    assert without_running_heads(pages) == pages


def test_pages_without_text_are_told(tmp_path):
    book = read_pdf(write_pdf(tmp_path / "b.pdf", [["Sinus rhythm."], [], []]))
    assert book.problems == ("2 of 3 pages hold no text",)


def test_a_page_that_cannot_be_read_does_not_cost_the_book(tmp_path, monkeypatch):
    path = write_pdf(tmp_path / "b.pdf", [["One."], ["Two."]])
    real = pypdf.PageObject.extract_text

    def broken(page, *args, **kwargs):
        text = real(page, *args, **kwargs)
        if "One" in text:
            raise KeyError("/Font")
        return text

    monkeypatch.setattr(pypdf.PageObject, "extract_text", broken)
    book = read_pdf(path)
    assert [block.page for block in book.blocks] == [2]
    assert book.problems[0] == "page 1 cannot be read (KeyError)"


@pytest.mark.parametrize("content", [b"", b"no PDF at all", b"%PDF-1.7\n1 0 obj\n<< /Type", b"%PDF-1.4\n" + bytes(999)])
def test_what_is_no_pdf_is_one_sentence(tmp_path, content):
    path = tmp_path / "b.pdf"
    path.write_bytes(content)
    with pytest.raises(BookError, match=r"b\.pdf: (cannot be read as PDF|none of 0 pages)"):
        read_pdf(path)


def test_damaged_files_are_read_or_told(tmp_path):
    """Every mutation gives a book or a BookError, never another error."""
    whole = write_pdf(tmp_path / "w.pdf", [[line] for line in words(90).split(". ")], "T", {"A": 1}).read_bytes()
    path = tmp_path / "b.pdf"
    for at in range(40):
        cut = bytearray(whole[: len(whole) - at * 37])
        cut[(at * 7919) % len(cut)] ^= 0xFF
        path.write_bytes(bytes(cut))
        try:
            assert read_pdf(path).blocks
        except BookError as error:
            assert str(error).startswith("b.pdf: ")


def test_a_scan_asks_for_a_text_layer(tmp_path):
    with pytest.raises(BookError, match="none of 2 pages holds text.*OCR"):
        read_pdf(write_pdf(tmp_path / "b.pdf", [[], []]))


def test_a_locked_file_is_told(tmp_path):
    writer = pypdf.PdfWriter(clone_from=write_pdf(tmp_path / "open.pdf", [["Sinus rhythm."]]))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    with pytest.raises(BookError, match="locked by a password"):
        read_pdf(tmp_path / "b.pdf")
