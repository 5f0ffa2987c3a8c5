"""The text of a record: the paper's template, the choice by name, augmentation, and what makes two texts equal."""

import doctest

import numpy as np
import pytest

from datasets_scripts import report_text
from datasets_scripts.report_text import augment_statements_text, choose_text, findings_text, text_key


def test_examples_in_docstrings():
    assert doctest.testmod(report_text).failed == 0


def test_template_word_for_word():
    text = findings_text(["atrial fibrillation", "LBBB"], 71.0, "male", waveforms=["no P waves", "broad QRS"])
    assert text == (
        "This patient is a 71 year-old Male. ECG Findings: atrial fibrillation, LBBB.\n"
        "Potential ECG waveforms:\nno P waves\nbroad QRS"
    )


@pytest.mark.parametrize(
    ("age", "sex", "opening"),
    [
        (None, None, "ECG"),
        (40, None, "This patient is 40 years old. ECG"),
        (None, "female", "This patient is female. ECG"),
        (89, "male", "This patient is a 89 year-old Male. ECG"),
        (90, "female", "This patient is an over 89 year-old Female. ECG"),
        (90, None, "This patient is over 89 years old. ECG"),
        (float("nan"), None, "ECG"),
    ],
)
def test_missing_demographics_and_hidden_ages(age, sex, opening):
    assert findings_text(["normal ECG"], age, sex) == f"{opening} Findings: normal ECG."


@pytest.mark.parametrize(("statements", "sex"), [([], None), ("normal ECG", None), (["normal ECG"], "Male")])
def test_template_refuses(statements, sex):
    with pytest.raises(ValueError, match="expected"):
        findings_text(statements, sex=sex)


def test_choice_of_text():
    both = {"report": " sinusrhythmus ", "statements": ("sinus rhythm",), "age": 50.0, "sex": "male"}
    told = "This patient is a 50 year-old Male. ECG Findings: sinus rhythm."
    assert choose_text(both, "report") == choose_text(both) == "sinusrhythmus"
    assert choose_text(both, "statements") == told
    assert choose_text(both | {"report": ""}) == told
    assert choose_text(both | {"report": ""}, "report") == ""
    assert choose_text({"report": None, "statements": []}) == ""
    with pytest.raises(ValueError, match="report_else_statements"):
        choose_text(both, "labels")


def test_augmentation_halves_demographics_and_varies_statements():
    statements = ["a", "b", "c"]
    rng = np.random.default_rng(0)
    texts = [augment_statements_text(statements, 60, "female", rng) for _ in range(4000)]
    said = [text.split("ECG Findings: ")[1].rstrip(".").split(", ") for text in texts]
    with_patient = np.mean([text.startswith("This patient") for text in texts])
    whole = np.mean([words == statements for words in said])
    assert 0.47 < with_patient < 0.53
    # unchanged half of the time, and by chance: all three drawn (1/3) in the right order (1/6), half of the time
    assert abs(whole - (0.5 + 0.5 / 18)) < 0.03
    assert all(words and set(words) <= set(statements) and len(set(words)) == len(words) for words in said)
    assert {len(words) for words in said} == {1, 2, 3} and ["c", "a"] in said


def test_augmentation_is_reproducible_and_can_be_switched_off():
    one, two = (augment_statements_text(list("abcde"), 60, None, np.random.default_rng(7)) for _ in range(2))
    assert one == two
    plain = augment_statements_text(["a", "b"], 60, "male", np.random.default_rng(1), 0.0, 0.0)
    assert plain == findings_text(["a", "b"], 60, "male")
    with pytest.raises(ValueError, match="drop_demographics"):
        augment_statements_text(["a"], 60, "male", np.random.default_rng(1), 1.5)


def test_text_key_ignores_order_case_and_demographics():
    assert text_key(["a", "B"]) == text_key(["b", "A", "a "], "whatever") != text_key(["a"])
    first = findings_text(["normal ECG"], 50, "male")
    second = findings_text(["normal ECG"], 90, "female")
    assert text_key([], first) == text_key([], second) == text_key([], "ecg  findings: NORMAL ECG")
    assert text_key([], "normal ecg") != text_key(["normal ecg"])
    assert text_key([], "") == text_key([], " ") == ""
