"""Which texts are true of which ECGs: by hand, and for every text that augmentation makes."""

import hashlib

import numpy as np
import pytest
import torch

from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import augment_text, findings_text
from modeling_esi.training.entailment import entailed_pairs, found_in, said_in, statement_numbers


def record(statements=(), text=None, **fields):
    text = findings_text(statements, fields.get("age"), fields.get("sex")) if text is None else text
    return ECGRecord(np.zeros((1, 10)), ("I",), 100, text=text, statements=statements, **fields)


def test_what_a_template_says():
    one = record(("inferior myocardial infarction", "myocardial infarction", "A (b, c)"), age=60, sex="male")
    assert said_in(one, "ECG Findings: inferior myocardial infarction.") == ["inferior myocardial infarction"]
    assert said_in(one, "This patient is male. ECG Findings: A (b, c), myocardial infarction.") == [
        "myocardial infarction", "a (b, c)",
    ]  # fmt: skip
    assert found_in(one) == ["inferior myocardial infarction", "myocardial infarction", "a (b, c)"]


def test_what_a_report_says_beside_its_statements():
    one = record(("normal ECG",), text="Sinusrhythmus. Normales EKG.")
    assert said_in(one, "Normales EKG.") == ["normales ekg"]
    assert found_in(one) == ["normal ecg", "sinusrhythmus", "normales ekg"]
    assert found_in(record(text="")) == []


@pytest.mark.parametrize("text", [None, "Sinus rhythm. Left axis! Otherwise normal."])
def test_every_augmented_text_is_true_of_its_own_record(text):
    rng = np.random.default_rng(0)
    one = record(("sinus rhythm", "AV block", "a (b, c)"), text=text, age=40, sex="female")
    other = record(("normal ECG",))
    for _ in range(50):
        said = said_in(one, augment_text(one, rng))
        assert said and set(said) <= set(found_in(one))
        pairs = entailed_pairs(statement_numbers([said]), statement_numbers([found_in(one), found_in(other)]))
        assert pairs.tolist() == [[True, False]]


def test_a_text_is_true_of_an_ecg_that_has_all_it_says():
    said = [["normal ECG"], ["normal ECG", "sinus rhythm"], []]
    found = [("sinus rhythm", "normal ECG"), ("normal ECG",), ("atrial fibrillation",)]
    pairs = entailed_pairs(statement_numbers(said), statement_numbers(found, 5))
    assert pairs.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_numbers_of_statements_are_stable_and_of_one_width():
    numbers = statement_numbers([["sinus rhythm", "normal ECG"], []], 3)
    assert numbers.shape == (2, 3) and numbers.dtype == torch.int64
    assert numbers[1].tolist() == [-1, -1, -1] and numbers[0, 2] == -1 and (numbers[0, :2] >= 0).all()
    assert numbers[0, 0] == int(hashlib.sha256(b"sinus rhythm").hexdigest()[:16], 16) // 2
    with pytest.raises(ValueError, match="expected at least 2, the statements of the longest row, got 1"):
        statement_numbers([["a", "b"]], 1)
