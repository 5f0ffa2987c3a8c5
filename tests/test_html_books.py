"""HTML: text under its headings, whatever the tags; scripts and menus are no text."""

import random

import pytest

from datasets_scripts.cqa.html_books import parse_html, read_html


def blocks(html):
    return [(block.text, block.headings) for block in parse_html(html)[1]]


def test_headings_nest():
    html = "<h1>A</h1><p>one</p><h2>B</h2><p>two</p><h3>C</h3><p>three</p><h2>D</h2><p>four</p>"
    assert blocks(html) == [("one", ("A",)), ("two", ("A", "B")), ("three", ("A", "B", "C")), ("four", ("A", "D"))]


def test_scripts_menus_and_styles_are_no_text():
    html = "<style>p {}</style><nav><ul><li>Home</nav><p>P wave<script>var x = '<p>no</p>';</script> and QRS</p>"
    assert blocks(html) == [("P wave and QRS", ())]


def test_an_empty_script_tag_hides_nothing():
    assert blocks('<script src="x"/><title/><p>P wave</p>') == [("P wave", ())]


def test_lists_tables_and_breaks_part_words():
    html = "<ul><li>one<li>two</ul><table><tr><td>a</td><td>b</td></tr></table>x<br>y"
    assert blocks(html) == [("one", ()), ("two", ()), ("a b", ()), ("x y", ())]


def test_entities_and_inline_tags():
    assert blocks("<p>QRS &gt; 120&nbsp;ms in <b>V</b>1</p>") == [("QRS > 120 ms in V1", ())]


def test_title_or_file_name(tmp_path):
    path = tmp_path / "waves.html"
    path.write_text("<html><head><title>All\n waves</title></head><body><p>P</p>", encoding="utf-8")
    assert read_html(path).title == "All waves"
    path.write_bytes("<p>Schläge</p>".encode("cp1252"))
    assert (read_html(path).title, read_html(path).blocks[0].text) == ("waves", "Schläge")


def test_deep_nesting_is_read():
    assert blocks("<div>" * 20_000 + "P wave" + "</div>" * 20_000) == [("P wave", ())]


def test_comments_declarations_and_quoted_signs_are_no_text():
    html = '<!DOCTYPE html><?xml version="1.0"?><!-- <p>no</p> --><p><img alt="a > b" src=x>P wave <![if !x]>here</p>'
    assert blocks(html) == [("P wave here", ())]


def test_signs_that_are_no_tags_stay():
    text = "PR < 120 ms, QRS <3 squares, a<b and c"
    assert blocks(f"<p>{text}") == blocks(f"<p>{text}</p>") == [(text, ())]


def test_what_stands_in_an_open_menu_is_passed_over():
    assert blocks("<p>one</p><nav><ul>a</nav><p>two</p><script>if (a < b) {'</p>'}</script>three") == [
        ("one", ()), ("two", ()), ("three", ()),
    ]  # fmt: skip


PIECES = ["<!--", "<a ", "</", "&", "<", "<!", "<?", "<a b='", '<a b="', "<script>", "<p>", "&#", "<nav>"]


@pytest.mark.parametrize("piece", PIECES)
def test_long_rows_of_signs_are_read(piece):
    """A parser that looks ahead from each sign would not end in the time of the test run."""
    title, found = parse_html(piece * (2**17 // len(piece)) + "<p>end")
    assert title == "" and len(found) <= 2


def test_any_mixture_of_signs_is_read():
    signs = ["<", "<!", "<![", "[", "]", ">", "-->", "<p>", "a", "&", "<h1>", "'", '"', "=", "/", "script", "<title>"]
    choose = random.Random(0)
    for _ in range(3000):
        parse_html("".join(choose.choices(signs, k=12)))
