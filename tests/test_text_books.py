"""Markdown and text: paragraphs without markup, under their headings."""

import pytest

from datasets_scripts.cqa.books import BookError
from datasets_scripts.cqa.text_books import parse_markdown, read_markdown, read_plain_text


def blocks(text):
    return [(block.text, block.headings) for block in parse_markdown(text)]


def test_both_kinds_of_headings():
    text = "Title\n=====\n\none\n\nPart\n----\ntwo\n\n### Deep ###\nthree\n\n# Next\nfour"
    assert blocks(text) == [
        ("one", ("Title",)),
        ("two", ("Title", "Part")),
        ("three", ("Title", "Part", "Deep")),
        ("four", ("Next",)),
    ]


def test_lists_lines_and_rules():
    assert blocks("one\nline\n\n---\n- a\n  b\n* c\n1. d\n> e") == [
        ("one line", ()), ("a b", ()), ("c", ()), ("d e", ()),
    ]  # fmt: skip


def test_code_is_no_heading():
    assert blocks("```\n# comment\n```\n\n# Real\ntext") == [("# comment", ()), ("text", ("Real",))]


def test_markup_goes_and_names_with_signs_stay():
    text = "A **bold** _word_, `code`, [link](http://a.b), ![pic](p.png), ISC_AL and 2*3*4"
    assert blocks(text) == [("A bold word, code, link, pic, ISC_AL and 2*3*4", ())]


def test_title_of_front_matter_heading_or_file(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text('---\ntitle: "ECG notes"\nyear: 2020\n---\n# Waves\ntext')
    assert (read_markdown(path).title, read_markdown(path).blocks[0].text) == ("ECG notes", "text")
    path.write_text("# Waves\r\ntext")
    assert read_markdown(path).title == "Waves"
    path.write_text("text")
    assert read_markdown(path).title == "notes"


def test_paragraphs_of_plain_text_in_any_encoding(tmp_path):
    path = tmp_path / "t.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        path.write_bytes("Schläge one\ntwo\n \n\nthree".encode(encoding))
        assert [block.text for block in read_plain_text(path).blocks] == ["Schläge one two", "three"]


def test_bytes_are_no_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(bytes(range(256)))
    with pytest.raises(BookError, match="t.txt: expected text"):
        read_plain_text(tmp_path / "t.txt")


@pytest.mark.parametrize("piece", ["_a ", "[", "[](", "# ", "<a ", "**", "- ", "`", "\n# "])
def test_long_rows_of_signs_are_read(piece):
    assert len(blocks("# " + " " * 9_999 + "x" + piece * 9_999)) <= 1
