"""Answers: sentences of the corpus with their sources, by the sections asked for; nothing where it says nothing."""

import re

import pytest

from datasets_scripts.cqa.ask import answer
from datasets_scripts.cqa.cited_answers import NOT_FOUND
from datasets_scripts.cqa.corpus import Passage, knowledge_passages
from datasets_scripts.cqa.generator import Generated
from datasets_scripts.cqa.retriever import Retriever

pytest.importorskip("bm25s", reason="needs esi-ecg[cqa]")

BOOKS = [
    Passage("In Wenckebach block beats come in groups. Tea is served at five.", "A handbook", "Blocks", 7, "b.pdf"),
    Passage("Adenosine ends many an SVT: the first dose is 6 mg.", "A handbook", "Drugs", 9, "b.pdf"),
]


@pytest.fixture(scope="module")
def shipped() -> Retriever:
    return Retriever.build(knowledge_passages())


@pytest.fixture(scope="module")
def with_books() -> Retriever:
    about = ("mobitz type i second degree av block", "supraventricular tachycardia", "left bundle branch block")
    return Retriever.build([*(passage for passage in knowledge_passages() if passage.finding in about), *BOOKS])


def where(answered):
    return [(passage.finding, passage.chapter) for passage in answered.passages]


def quoted(answered):
    """The sentences of an answer, each with the text of the passage that it cites."""
    found = re.findall(r"(?:^|(?<=\] ))(.+?) \[(\d+)\]", answered.text, re.MULTILINE)
    return [(sentence, answered.passages[int(number) - 1].text) for sentence, number in found]


def test_the_question_of_the_issue(shipped):
    answered = answer("How is Wenckebach seen on the ECG?", shipped)
    assert where(answered) == [("mobitz type i second degree av block", "Waveform")]
    assert "the PR interval grows from beat to beat" in answered.text and "[1]" in answered.text
    assert "10.1161/CIR.0000000000000628" in answered.passages[0].source


@pytest.mark.parametrize(
    ("question", "finding", "chapters"),
    [
        ("What are the criteria of LBBB?", "left bundle branch block", ["Criteria"]),
        ("What is the differential of pericarditis?", "pericarditis", ["Mimics"]),
        ("How urgent is complete heart block?", "third degree av block", ["Urgency"]),
        ("What is AFib?", "atrial fibrillation", ["Definition", "Waveform"]),
        ("WPW", "wolff-parkinson-white pattern", ["Definition", "Waveform"]),
    ],
)
def test_the_sections_that_are_asked_for(shipped, question, finding, chapters):
    assert where(answer(question, shipped)) == [(finding, chapter) for chapter in chapters]


def test_every_sentence_is_one_of_the_passage_it_cites(shipped):
    for question in ("What is LBBB?", "Criteria of LVH", "narrow QRS in Wenckebach", "RBBB vs LBBB", "sawtooth waves"):
        sentences = quoted(answer(question, shipped))
        assert sentences and all(sentence in text for sentence, text in sentences), question


def test_a_detail_is_answered_by_the_sentence_that_has_it(shipped):
    answered = answer("Is a narrow QRS typical of Wenckebach?", shipped)
    assert answered.text.startswith("The QRS is mostly narrow, under 120 ms")
    assert "120 to 200 ms" in answer("What is the normal PR interval?", shipped).text


def test_two_findings_are_answered_one_after_the_other(shipped):
    answered = answer("Mobitz I vs Mobitz II", shipped)
    assert {finding for finding, _ in where(answered)} == {
        "mobitz type i second degree av block", "mobitz type ii second degree av block",
    }  # fmt: skip
    assert answered.text.startswith("Mobitz type I second degree AV block:\n")


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "What is the dose of adenosine in SVT?",
        "How is LBBB treated with amiodarone?",
        "Who won the world cup?",
        "What is COVID-19?",
        "???",
    ],
)
def test_what_the_corpus_does_not_say_is_not_found(shipped, question):
    answered = answer(question, shipped)
    assert (answered.text, answered.passages) == (NOT_FOUND, ())


def test_words_on_which_nothing_is_found_are_told(shipped):
    answered = answer("How urgent is Wenckebach in athletes?", shipped)
    assert where(answered) == [("mobitz type i second degree av block", "Urgency")]
    assert answered.not_covered == ("athlete",) and answered.text.endswith("Nothing found on: athlete.")


def test_books_answer_too_with_their_page(with_books):
    answered = answer("How is Wenckebach seen?", with_books)
    assert answered.passages[-1] == BOOKS[0]
    assert "beats come in groups. [2]" in answered.text and "Tea" not in answered.text
    assert answer("What is the dose of adenosine in SVT?", with_books).passages == (BOOKS[1],)


def test_an_empty_question_is_told(shipped):
    with pytest.raises(ValueError, match="question: expected words, got none"):
        answer("  ", shipped)


# ----- with a model --------------------------------------------------------------------------------------------------


class Scripted:
    """A model that says what it was told to say, and keeps what it was asked."""

    name, is_remote = "scripted", False

    def __init__(self, text):
        self.text, self.asked = text, []

    def generate(self, messages):
        self.asked.append(messages)
        return Generated(self.text, 120, 7)


def test_a_model_is_shown_the_passages_and_its_citations_are_kept(shipped):
    model = Scripted("In Wenckebach block the PR interval grows until a P wave has no QRS [1].")
    answered = answer("How is Wenckebach seen?", shipped, model)
    assert answered.text == "In Wenckebach block the PR interval grows until a P wave has no QRS. [1]"
    assert where(answered) == [("mobitz type i second degree av block", "Waveform")]
    assert (answered.prompt_tokens, answered.completion_tokens) == (120, 7)
    shown = model.asked[0][1]["content"]
    assert "[1] Mobitz type I second degree AV block, Waveform" in shown and shown.endswith("How is Wenckebach seen?")


def test_what_a_model_invents_is_dropped(shipped):
    model = Scripted("The PR interval grows from beat to beat. [1] It is 900 ms in V4. [1] See also the liver. [77]")
    answered = answer("How is Wenckebach seen?", shipped, model)
    assert answered.text == "The PR interval grows from beat to beat. [1]"
    assert [sentence.split()[0] for sentence, _ in answered.dropped] == ["It", "See"]


def test_where_nothing_is_left_the_answer_is_by_extraction(shipped):
    answered = answer("How is Wenckebach seen?", shipped, Scripted("Bananas are yellow. [1] I cite nothing."))
    assert answered.text == answer("How is Wenckebach seen?", shipped).text and len(answered.dropped) == 2


def test_a_model_may_say_that_it_is_not_there(shipped):
    answered = answer("How is Wenckebach seen?", shipped, Scripted("Not found in the corpus."))
    assert (answered.text, answered.passages, answered.prompt_tokens) == (NOT_FOUND, (), 120)


def test_a_model_is_not_asked_what_the_corpus_does_not_say(shipped):
    model = Scripted("Paris [1].")
    assert answer("What is the capital of France?", shipped, model).text == NOT_FOUND and model.asked == []
