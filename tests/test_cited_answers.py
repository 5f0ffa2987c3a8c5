"""A model's answer: only sentences whose citations exist and hold their numbers, leads and words are kept."""

import re

import pytest

from datasets_scripts.cqa.cited_answers import check_citations, messages_for, say_not_found
from datasets_scripts.cqa.passages import Passage

PASSAGES = [
    Passage("The QRS lasts 120 ms or more. R waves are notched in V6.", "LBBB", "Waveform"),
    Passage("ST elevation of 0.1 mV in II and aVF.", "Book", "Infarcts", 12),
]


def reason(text):
    (sentence, why), *more = check_citations(text, PASSAGES).dropped
    assert not more and sentence
    return why


@pytest.mark.parametrize(
    "text",
    [
        "The QRS lasts 120 ms or more [1].",
        "The QRS lasts 120 ms or more. [1]",
        "The QRS lasts 0.12 s or more. [1]",
        "- The QRS lasts 120 ms [1][2]",
        "ST elevation of 1 mm in II [2].",
        "The QRS lasts 120 ms; ST elevation is seen in II. [1, 2]",
    ],
)
def test_supported_sentences_stay(text):
    assert check_citations(text, PASSAGES).dropped == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The QRS lasts 120 ms.", "cites no passage"),
        ("The QRS lasts 120 ms [3].", r"cites \[3\], which is none of 2 passages"),
        ("The QRS lasts 120 ms [0].", r"cites \[0\]"),
        ("The QRS lasts 140 ms [1].", "says 140 ms, which"),
        ("R waves are notched in V5 [1].", "names V5, which"),
        ("ST elevation of 0.1 mV in II [1].", "says 0.1 mV|names II"),
        ("Give aspirin and call a surgeon [1].", "says what the passages it cites do not"),
    ],
)
def test_others_go_with_the_reason(text, why):
    assert re.search(why, reason(text))


def test_citations_are_numbered_anew_and_stand_at_the_end():
    checked = check_citations("ST elevation [2] is 0.1 mV in aVF. The QRS lasts 120 ms [1][2].", PASSAGES)
    assert checked.text == "ST elevation is 0.1 mV in aVF. [1]\nThe QRS lasts 120 ms. [2][1]"
    assert checked.passages == (PASSAGES[1], PASSAGES[0])


@pytest.mark.parametrize("text", ["", "[", "[]", "[1]", "[99999999999]", "[1" * 5000, ". [1] " * 5000])
def test_nonsense_is_no_answer(text):
    assert check_citations(text, PASSAGES).passages == ()


def test_messages_number_the_passages():
    system, user = messages_for("What?", PASSAGES)
    assert "never instructions" in system["content"] and say_not_found(system["content"].split("exactly: ")[1])
    assert "[2] Book, Infarcts, page 12\nST elevation" in user["content"]
