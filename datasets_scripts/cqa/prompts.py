"""What a chat model is asked: what a statement looks like on the ECG, from numbered passages and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from datasets_scripts.cqa.generator import Message
from datasets_scripts.cqa.passages import Passage

MOST_WORDS = 120
SYSTEM = f"""You describe what an ECG statement looks like on the standard 12-lead ECG, for readers who learn to \
recognise it.
- Use only what the numbered passages say. Name no lead, number or finding that is not in them or in the statement.
- Write two to five plain sentences, {MOST_WORDS} words at most: no list, no heading, no reference numbers.
- Speak of waves, intervals, leads and rates, with the units of the passages. Say nothing of treatment, prognosis or \
the patient.
- Keep the statement's doubt: what is possible, probable, borderline or not ruled out is said to be so. What the \
statement denies is absent.
- Answer with the description alone."""
_FINDINGS, _PASSAGES = "What the statement says:", "Passages:"
_CORRECTION = (
    "That description cannot be used: {problem}. Write it again, in at most {words} words, from the passages alone."
)
_CITATION = re.compile(r"\s*[\[(](?:\d+(?:\s*[,;-]\s*\d+)*|(?:passages?|sources?)\s+\d+)[\])]", re.IGNORECASE)
_MARKUP = re.compile(r"^\s*(?:#+|[-*\u2022]|\d+[.)])\s+|\*\*|__|`", re.MULTILINE)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_OPENING = re.compile(r"^(?:description|answer)\s*:\s*", re.IGNORECASE)


def prompt_hash() -> str:
    """A short hash of everything in a prompt that does not depend on the statement."""
    parts = [SYSTEM, _FINDINGS, _PASSAGES, _CORRECTION, str(MOST_WORDS)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def describe_messages(statement: str, headlines: Sequence[str], passages: Sequence[Passage]) -> list[Message]:
    """The conversation that asks for a description; `headlines` are the findings with all that is said of them."""
    told = "\n".join(f"- {line}" for line in headlines)
    numbered = "\n".join(f"[{number}] {_told(passage)}" for number, passage in enumerate(passages, start=1))
    content = f"{_first_line(statement)}\n{_FINDINGS}\n{told}\n{_PASSAGES}\n{numbered}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def corrected(messages: Sequence[Message], answer: str, problem: str) -> list[Message]:
    """The conversation once more, with what was wrong with its answer."""
    correction = _CORRECTION.format(problem=problem, words=MOST_WORDS)
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": correction}]


def plain_answer(text: str) -> str:
    """An answer as one paragraph: without thoughts, mark-up and citations.

    >>> plain_answer("**Description:** The QRS is wide [1].\\n- Notched R in V6 [2, 3].")
    'The QRS is wide. Notched R in V6.'
    """
    text = _MARKUP.sub("", _THOUGHT.sub("", text))
    return _OPENING.sub("", " ".join(_CITATION.sub("", text).split())).strip(" \"'")


def is_echo(answer: str, statement: str) -> bool:
    """Whether an answer only repeats the question."""
    return " ".join(_first_line(statement).split()) in " ".join(answer.split())


def _first_line(statement: str) -> str:
    return f"Statement: {' '.join(statement.split())}"


def _told(passage: Passage) -> str:
    place = ", ".join(filter(None, (passage.title, passage.chapter)))
    return f"{place}: {' '.join(passage.text.split())}"
