"""Which texts are true of which ECGs: by hand, and for every text that augmentation makes."""

import hashlib

import numpy as np
import pytest
import torch

from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import augment_text, choose_text, findings_text, split_waveforms, told_waveforms
from modeling_esi.losses import entailed_pairs
from modeling_esi.training.entailment import found_in, said_in, statement_numbers


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
    pairs = entailed_pairs(statement_numbers(said), statement_numbers(found))
    assert pairs.tolist() == [[True, True, False], [True, False, False], [False, False, False]]


def test_numbers_of_statements_are_stable_and_of_one_width():
    numbers = statement_numbers([["sinus rhythm", "normal ECG"], []])
    assert numbers.shape == (2, 2) and numbers.dtype == torch.int64
    assert numbers[1].tolist() == [-1, -1] and (numbers[0] >= 0).all()
    assert numbers[0, 0] == int(hashlib.sha256(b"sinus rhythm").hexdigest()[:16], 16) // 2
    assert statement_numbers([[], []]).shape == (2, 0)


# ----- descriptions of waveforms behind the template -----------------------------------------------------------------

WAVEFORMS = {"sinus rhythm": "P before each QRS", "lbbb": "QRS of 120 ms or more", "left axis": "I up, aVF down"}
RECORDS = [
    {"statements": statements, "age": 60.0, "sex": "male"}
    for statements in [
        ("Sinus rhythm", "LBBB", "Abnormal ECG"),  # no description for the last: two lines for three statements
        ("Sinus rhythm", "Left axis", "Borderline ECG"),
        ("LBBB", "Left axis", "Abnormal ECG"),
        ("Normal ECG",),
        ("Left axis", "Abnormal ECG"),
    ]
]


def described(number):
    fields = RECORDS[number]
    return record(text=choose_text(fields, "statements", WAVEFORMS), **fields)


def test_which_description_belongs_to_which_statement_is_read_from_the_texts():
    records = [described(number) for number in range(len(RECORDS))]
    texts = [one.text for one in records] + ["Sinusrhythmus."]
    statements = [one.statements for one in records] + [("sinus rhythm",)]  # of a report, which tells no description
    told = told_waveforms(texts, statements)
    assert told == WAVEFORMS
    assert told_waveforms([texts[3]], [statements[3]]) == {}


def test_a_description_that_several_share_or_nobody_else_tells_is_kept():
    shared = {"a": "one line", "b": "one line", "c": "another"}
    names = [("a", "b"), ("a", "c"), ("b",)]
    texts = [choose_text({"statements": some}, "statements", shared) for some in names]
    assert told_waveforms(texts, names) == shared
    alone = choose_text({"statements": ("x", "y")}, "statements", {"x": "of x", "y": "of y"})
    assert told_waveforms([alone], [("x", "y")]) == dict.fromkeys("xy", "of x\nof y")  # they never stand apart


def test_augmentation_keeps_the_descriptions_of_the_statements_that_it_keeps():
    rng, one = np.random.default_rng(0), described(0)
    texts = [augment_text(one, rng, waveforms=WAVEFORMS) for _ in range(400)]
    for text in texts:
        told, descriptions = split_waveforms(text)
        statements = told.partition("ECG Findings: ")[2].rstrip(".").split(", ")
        own = [WAVEFORMS[name.lower()] for name in statements if name.lower() in WAVEFORMS]
        assert descriptions in ([], own)
    assert 0.4 < np.mean(["Potential" in text for text in texts]) < 0.5  # half; less where "Abnormal ECG" stands alone
    assert "ECG Findings: LBBB.\nPotential ECG waveforms:\nQRS of 120 ms or more" in texts
    assert all("Potential" not in augment_text(one, rng) for _ in range(20))  # without a dictionary: statements alone


def test_descriptions_count_as_said():
    one, other, plain = described(0), described(2), record(RECORDS[2]["statements"])
    text = "ECG Findings: LBBB.\nPotential ECG waveforms:\nQRS of 120 ms or more"
    assert said_in(one, text) == ["lbbb", "qrs of 120 ms or more"]
    assert found_in(one) == ["sinus rhythm", "lbbb", "abnormal ecg", "p before each qrs", "qrs of 120 ms or more"]
    found = statement_numbers([found_in(some) for some in (one, other, plain, described(1))])
    assert entailed_pairs(statement_numbers([said_in(one, text)]), found).tolist() == [[True, True, False, False]]
    rng = np.random.default_rng(1)
    for _ in range(50):
        assert set(said_in(one, augment_text(one, rng, waveforms=WAVEFORMS))) <= set(found_in(one))
