"""What a question asks: the sections that answer it, and the words that are left over."""

import pytest

from datasets_scripts.cqa.questions import read_question


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("How is LBBB seen on the ECG?", ("Waveform",)),
        ("What does LBBB look like?", ("Waveform",)),
        ("LBBB", ("Definition", "Waveform")),
        ("What is LBBB?", ("Definition", "Waveform")),
        ("What are the diagnostic criteria of LBBB?", ("Criteria",)),
        ("How wide is LBBB?", ("Criteria",)),
        ("What is the differential of LBBB?", ("Mimics",)),
        ("What mimics LBBB?", ("Mimics",)),
        ("How urgent is LBBB?", ("Urgency",)),
        ("Is LBBB dangerous?", ("Urgency",)),
        ("LBBB vs RBBB", ("Waveform", "Mimics")),
    ],
)
def test_sections(text, sections):
    question = read_question(text)
    assert question.findings[0] == "left bundle branch block"
    assert question.sections == sections and question.rest == ()


def test_the_rest_is_what_no_finding_and_no_section_says():
    question = read_question("What is the dose of adenosine in SVT?")
    assert question.findings == ("supraventricular tachycardia",)
    assert question.rest == ("dose", "adenosine") and not question.is_explicit


def test_signs_with_other_words_describe_something_else():
    assert not read_question("diffuse ST elevation with PR depression").is_about_findings
    assert read_question("What is ST elevation?").is_about_findings
    assert read_question("LBBB with notched R waves").is_about_findings
    assert not read_question("capital of France").is_about_findings
