"""`python -m datasets_scripts.cqa ask`: a question answered from the corpus, each sentence with its passage.

Without a model the answer is made of the corpus's own sentences: of the finding's page those sections that the question
asks for (what it looks like, criteria, mimics, urgency), of books the sentences that name the finding. With a model, it
is shown numbered passages and must cite them; `cited_answers.py` drops what it says beyond them. Where no passage
supports an answer, the answer is `NOT_FOUND`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets_scripts.cqa.abbreviations import terms_of
from datasets_scripts.cqa.cited_answers import NOT_FOUND, check_citations, messages_for, say_not_found
from datasets_scripts.cqa.generator import Generator
from datasets_scripts.cqa.headline import display_name
from datasets_scripts.cqa.knowledge import SECTIONS, sentences_of
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.questions import Question, read_question
from datasets_scripts.cqa.retriever import Retriever

SEARCHED = 40  # passages looked at
SHOWN = 8  # passages that a model is shown
MIN_COVERAGE = 0.6  # of the weight of a question's terms, in a passage, for it to be an answer
MIN_REST = 0.5  # the same, of what the question says beyond the findings that it names
MAX_SENTENCES = 4  # of passages that are not about a named finding as a whole
BOOK_PASSAGES, BOOK_SENTENCES = 2, 2


@dataclass(frozen=True)
class Answer:
    """An answer: `[n]` in its text is the n-th of `passages`; without passages nothing was found.

    `not_covered` are words of the question on which the passages say nothing. `dropped` are sentences of a model that
    its passages do not support, each with the reason.
    """

    text: str
    passages: tuple[Passage, ...] = ()
    not_covered: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class _Paragraph:
    """Sentences of one passage."""

    passage: Passage
    sentences: tuple[str, ...]


def answer(question: str, retriever: Retriever, generator: Generator | None = None) -> Answer:
    """Answers a question from the passages of an index, by extraction or with a model.

    A model is not asked where no passage supports an answer; where nothing is left of what it says, the answer is by
    extraction. Raises ValueError for an empty question, and what the generator raises.
    """
    if not question.strip():
        raise ValueError("question: expected words, got none; ask for a finding, such as 'What is LBBB?'")
    asked = read_question(question)
    passages = [hit.passage for hit in retriever.search(question, k=SEARCHED)]
    extracted = _extracted(asked, passages, retriever)
    if generator is None or not extracted.passages:
        return extracted
    return _generated(question, extracted, passages, generator)


# ----- with a model --------------------------------------------------------------------------------------------------


def _generated(question: str, extracted: Answer, passages: Sequence[Passage], generator: Generator) -> Answer:
    shown = list(dict.fromkeys([*extracted.passages, *passages]))[:SHOWN]
    generated = generator.generate(messages_for(question, shown))
    tokens = {"prompt_tokens": generated.prompt_tokens, "completion_tokens": generated.completion_tokens}
    if say_not_found(generated.text):
        return Answer(NOT_FOUND, **tokens)
    checked = check_citations(generated.text, shown)
    if not checked.passages:
        return Answer(extracted.text, extracted.passages, extracted.not_covered, checked.dropped, **tokens)
    return Answer(checked.text, checked.passages, (), checked.dropped, **tokens)


# ----- without -------------------------------------------------------------------------------------------------------


def _extracted(asked: Question, passages: Sequence[Passage], retriever: Retriever) -> Answer:
    if asked.is_about_findings:
        paragraphs = _about_findings(asked, passages, retriever)
    else:
        paragraphs = _best_sentences(asked, asked.query.terms, passages, MIN_COVERAGE, retriever)
    if not paragraphs:
        return Answer(NOT_FOUND)
    said = {word for paragraph in paragraphs for word in terms_of(paragraph.passage.text).words}
    missing = tuple(word for word in asked.rest if word not in said)
    return _written(paragraphs, missing, with_titles=len({paragraph.passage.title for paragraph in paragraphs}) > 1)


def _about_findings(asked: Question, passages: Sequence[Passage], retriever: Retriever) -> list[_Paragraph]:
    """What the pages and books say of the findings that a question names."""
    pages = [passage for passage in retriever.passages if passage.finding in asked.findings]  # all of their sections
    books = [passage for passage in passages if not passage.finding and _names(passage.text, asked.findings)]
    if asked.rest and not asked.is_explicit:  # what is asked is in the other words
        return _best_sentences(asked, asked.rest, [*pages, *books], MIN_REST, retriever)
    chosen = sorted(
        (page for page in pages if page.chapter in asked.sections),
        key=lambda page: (asked.findings.index(page.finding), SECTIONS.index(page.chapter)),
    )
    paragraphs = [_Paragraph(page, _sentences(page)) for page in chosen]
    for passage in books[:BOOK_PASSAGES]:
        naming = [sentence for sentence in _sentences(passage) if _names(sentence, asked.findings)]
        paragraphs.append(_Paragraph(passage, tuple(naming[:BOOK_SENTENCES])))
    return [paragraph for paragraph in paragraphs if paragraph.sentences]


def _best_sentences(
    asked: Question, terms: Iterable[str], passages: Sequence[Passage], least: float, retriever: Retriever
) -> list[_Paragraph]:
    """The sentences that say most of `terms`, of passages that say at least the share `least` of their weight."""
    weights = {term: retriever.weight(term) for term in terms}
    total = sum(weights.values())
    scored: list[tuple[float, Passage, str]] = []
    for passage in passages:
        if total and _weight_of(_whole(passage), weights) / total >= least:
            scored += [(_weight_of(sentence, weights), passage, sentence) for sentence in _sentences(passage)]
    scored.sort(key=lambda entry: -entry[0])
    best = [entry for entry in scored[:MAX_SENTENCES] if entry[0] >= scored[0][0] / 2 and entry[0] > 0]
    order = dict.fromkeys(passage for _, passage, _ in best)
    chosen = {(passage, sentence) for _, passage, sentence in best}
    return [
        _Paragraph(passage, tuple(sentence for sentence in _sentences(passage) if (passage, sentence) in chosen))
        for passage in order
    ]


def _weight_of(text: str, weights: dict[str, float]) -> float:
    return sum(weights.get(term, 0.0) for term in set(terms_of(text).all))


def _whole(passage: Passage) -> str:
    return ". ".join((passage.title, passage.chapter, passage.text))


def _names(text: str, findings: Sequence[str]) -> bool:
    return any(name in findings for name in terms_of(text).findings)


def _sentences(passage: Passage) -> tuple[str, ...]:
    """The sentences of a passage; the items of a list are one each."""
    return tuple(sentence for line in passage.text.split("\n") for sentence in sentences_of(line))


def _written(paragraphs: Sequence[_Paragraph], missing: tuple[str, ...], with_titles: bool) -> Answer:
    passages = tuple(dict.fromkeys(paragraph.passage for paragraph in paragraphs))
    lines: list[str] = []
    title = ""
    for paragraph in paragraphs:
        if with_titles and paragraph.passage.title != title:
            title = paragraph.passage.title
            shown = display_name(title) if paragraph.passage.finding else title
            lines.append(f"{shown[:1].upper()}{shown[1:]}:")
        sign = f"[{passages.index(paragraph.passage) + 1}]"
        cited = [f"{sentence} {sign}" for sentence in paragraph.sentences]
        lines.append(("\n" if paragraph.sentences[0].startswith("- ") else " ").join(cited))
    if missing:
        lines.append(f"Nothing found on: {', '.join(missing)}.")
    return Answer("\n".join(lines), passages, missing)
