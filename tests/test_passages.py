"""Passages: about 80 to 200 words in whole sentences, with the chapter and page where they begin; keys tell content."""

from collections import Counter
from dataclasses import replace

import pytest
from tiny_books import words

from datasets_scripts.cqa.books import Block, Book
from datasets_scripts.cqa.passages import MAX_SENTENCE_WORDS, Passage, corpus_hash, passages_of


def cut(*blocks, title="T"):
    return passages_of(Book(title, blocks), "b.pdf")


def sizes(passages):
    return [len(passage.text.split()) for passage in passages]


@pytest.mark.parametrize("count", [80, 150, 190, 210, 330, 500, 1230, 4010])
def test_every_length_is_shared_out_evenly(count):
    passages = cut(Block(words(count), ("A",), 1))
    assert sum(sizes(passages)) == count
    assert 80 <= min(sizes(passages)) and max(sizes(passages)) <= 200
    assert max(sizes(passages)) - min(sizes(passages)) <= 20


def test_no_word_is_lost_or_doubled():
    text = " ".join(f"Word{at} runs." if at % 7 else f"word{at}," for at in range(999))
    passages = cut(Block(text, (), None))
    assert Counter(word for passage in passages for word in passage.text.split()) == Counter(text.split())


def test_a_passage_has_the_page_where_it_begins():
    passages = cut(*(Block(words(100, word), ("A",), page) for page, word in [(7, "p"), (8, "qrs"), (9, "t")]))
    assert [passage.page for passage in passages] == [7, 8]
    assert passages[1].text.startswith("Qrs") and passages[0].chapter == "A"


def test_a_sentence_goes_on_over_the_end_of_a_page():
    first, second = Block(words(100) + " The T wave", (), 1), Block("is upright. " + words(100, "beat"), (), 2)
    whole = " ".join(passage.text for passage in cut(first, second))
    assert "The T wave is upright. Beat" in whole


def test_text_without_points_is_cut():
    passages = cut(Block("lead " * 1000))
    assert sum(sizes(passages)) == 1000
    assert max(sizes(passages)) <= 130 + MAX_SENTENCE_WORDS


def test_a_word_without_end_is_cut():
    passages = cut(Block("x" * 100_000))
    assert max(len(passage.text) for passage in passages) < 20_000
    assert "".join(passage.text for passage in passages).replace(" ", "") == "x" * 100_000


def test_short_sections_of_a_chapter_stand_together_under_their_headings():
    passages = cut(
        Block(words(50, "saw"), ("Flutter", "Criteria")),
        Block(words(50, "block"), ("Flutter", "Mimics")),
        Block(words(50, "chaos"), ("Fibrillation", "Criteria")),
    )
    assert [passage.chapter for passage in passages] == ["Flutter", "Fibrillation > Criteria"]
    assert passages[0].text.startswith("Criteria:\nSaw") and "\nMimics:\nBlock" in passages[0].text


def test_long_sections_stand_alone():
    passages = cut(Block(words(120), ("A", "B")), Block(words(120), ("A", "C")))
    assert [passage.chapter for passage in passages] == ["A > B", "A > C"]


def test_a_book_without_text_has_no_passages():
    assert cut() == []


def test_the_key_tells_all_that_a_passage_says():
    passage = Passage("text", "title", "chapter", 3, "source", "finding")
    changed = [replace(passage, **{name: "x"}) for name in ("text", "title", "chapter", "source", "finding")]
    keys = {passage.key, replace(passage, page=4).key, *(other.key for other in changed)}
    assert len(keys) == 7 and all(len(key) == 16 for key in keys)


def test_the_corpus_hash_knows_order_and_content():
    one, two = Passage("a", "t"), Passage("b", "t")
    hashes = {corpus_hash(passages) for passages in ([one, two], [two, one], [one], [])}
    assert len(hashes) == 4
    assert corpus_hash([one, two]) == corpus_hash(iter([Passage("a", "t"), two]))
