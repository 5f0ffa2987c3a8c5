"""Which texts of a batch are true of which ECGs: an ECG entails a text when it has everything that the text says.

Where texts are shortened in training, "sinus rhythm." is true of most of a batch, and to count those ECGs as negatives
teaches what is false. Semantic matching as in MedCLIP, https://arxiv.org/abs/2210.10163, made exact. Here stands what a
text says and what is known of an ECG, in words and as numbers; the losses compare the numbers (`entailed_pairs`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from datasets_scripts.report_text import (
    FINDINGS,
    is_template,
    normalise_statement,
    split_sentences,
    split_waveforms,
)


def said_in(record: Any, text: str) -> list[str]:
    """What a text of a record says, after augmentation; normalised.

    Of a template its statements and its descriptions of waveforms, of a report its sentences. `record` has the fields
    of `ECGRecord`; `text` is its own or `augment_text`'s.
    """
    if not is_template(record):
        return sentences(text)
    told, descriptions = split_waveforms(text)
    said = f", {told.partition(FINDINGS)[2].removesuffix('.')},"
    statements = [statement for statement in record.statements if f", {statement}," in said]
    return [normalise_statement(words) for words in statements + descriptions]


def found_in(record: Any) -> list[str]:
    """All that is known of a record: its statements, and what its text says; normalised, each once."""
    known = [normalise_statement(statement) for statement in record.statements]
    return list(dict.fromkeys(known + said_in(record, record.text)))


def sentences(text: str) -> list[str]:
    """The sentences of a report as `augment_text` cuts them, normalised; none of an empty one.

    >>> sentences("Sinusrhythmus. Normales EKG.")
    ['sinusrhythmus', 'normales ekg']
    """
    return [normalise_statement(sentence) for sentence in split_sentences(text) if sentence]


def statement_numbers(statements: Sequence[Collection[str]]) -> Tensor:
    """Statements as numbers that are the same in every process: `(B, most statements of a row)` int64, -1 for none."""
    longest = max((len(row) for row in statements), default=0)
    numbers = [[_number(statement) for statement in row] + [-1] * (longest - len(row)) for row in statements]
    return torch.tensor(numbers, dtype=torch.int64).view(len(statements), longest)


def _number(statement: str) -> int:
    return int.from_bytes(hashlib.sha256(statement.encode()).digest()[:8], "big") >> 1
