"""Which texts of a batch are true of which ECGs: an ECG entails a text when it has everything that the text says.

Where texts are shortened in training, "sinus rhythm." is true of most of a batch, and to count those ECGs as negatives
teaches what is false. Semantic matching as in MedCLIP, https://arxiv.org/abs/2210.10163, made exact.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from datasets_scripts.report_text import findings_text, normalise_statement

FINDINGS = "ECG Findings: "


def said_in(record: Any, text: str) -> list[str]:
    """What a text of a record says, after augmentation: statements of the template, or else sentences; normalised.

    `record` has the fields of `ECGRecord`; `text` is its own or `augment_text`'s.
    """
    if is_template(record):
        said = f", {text.partition(FINDINGS)[2].rstrip('.')},"
        return [normalise_statement(statement) for statement in record.statements if f", {statement}," in said]
    return sentences(text)


def found_in(record: Any) -> list[str]:
    """All that is known of a record: its statements, and the sentences of its report; normalised, each once."""
    known = [normalise_statement(statement) for statement in record.statements]
    return list(dict.fromkeys(known if is_template(record) else known + sentences(record.text)))


def is_template(record: Any) -> bool:
    """Whether a record's text is the paper's template over its statements."""
    return bool(record.statements) and record.text == findings_text(record.statements, record.age, record.sex)


def sentences(text: str) -> list[str]:
    """The sentences of a report as `augment_text` cuts them, normalised; none of an empty one.

    >>> sentences("Sinusrhythmus. Normales EKG.")
    ['sinusrhythmus', 'normales ekg']
    """
    return [normalise_statement(sentence) for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]


def statement_numbers(statements: Sequence[Collection[str]], width: int | None = None) -> Tensor:
    """Statements as numbers that are the same in every process: `(B, width)` int64, -1 where there is none.

    `width` is the most statements a row may have (default: the longest row's); equal on all processes, it lets the
    numbers be gathered. ValueError for a longer row.
    """
    longest = max((len(row) for row in statements), default=0)
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"width: expected at least {longest}, the statements of the longest row, got {width}.")
    numbers = [[_number(statement) for statement in row] + [-1] * (width - len(row)) for row in statements]
    return torch.tensor(numbers, dtype=torch.int64).view(len(statements), width)


def _number(statement: str) -> int:
    return int.from_bytes(hashlib.sha256(statement.encode()).digest()[:8], "big") >> 1


def entailed_pairs(said: Tensor, found: Tensor) -> Tensor:
    """`(texts, ECGs)` bool: whether an ECG has everything that a text says.

    A text that says nothing known is true of every ECG: leave such texts out before.

    Args:
        said: `(texts, K)` of `statement_numbers`: the statements in each text.
        found: `(ECGs, L)`: all statements of each ECG.

    >>> entailed_pairs(statement_numbers([["a"], ["a", "b"]]), statement_numbers([["a"], ["b", "a"]])).tolist()
    [[True, True], [False, True]]
    """
    is_found = (said[:, None, :, None] == found[None, :, None, :]).any(dim=3)  # (texts, ECGs, K)
    return (is_found | (said == -1)[:, None, :]).all(dim=2)
