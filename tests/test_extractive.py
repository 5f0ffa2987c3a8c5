"""Descriptions without a model: from the pages of what a statement names, with its doubts, denials, leads and ages."""

import doctest
import re
import time
from pathlib import Path

import pytest

from datasets_scripts.cqa import extractive, headline
from datasets_scripts.cqa.extractive import STATEMENT, describe, pages_of
from datasets_scripts.cqa.headline import display_name, leads_of_territory
from datasets_scripts.cqa.knowledge import leads_in, load_knowledge
from datasets_scripts.cqa.statements import parse_statement

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def pages():
    return load_knowledge()


@pytest.fixture
def said(pages):
    """The description of a statement, as text."""
    return lambda text: " ".join(sentence.text for sentence in describe(parse_statement(text), pages))


def headlines(text, pages):
    return [sentence.text for sentence in describe(parse_statement(text), pages) if sentence.source == STATEMENT]


@pytest.mark.parametrize("module", [extractive, headline])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_a_finding_alone_is_its_page_word_for_word(pages):
    sentences = describe(parse_statement("Sinus bradycardia."), pages)
    assert {sentence.source for sentence in sentences} == {"sinus bradycardia"}
    assert [sentence.text for sentence in sentences] == list(pages["sinus bradycardia"].waveform)


def test_every_sentence_is_of_the_page_that_it_names_or_of_the_statement(pages):
    for text in ("LVH with IVCD, LAD and secondary repol abnrm", "Atrial fibrillation with rapid ventricular response"):
        sentences = describe(parse_statement(text), pages)
        assert len(sentences) >= 4
        for sentence in sentences:
            assert sentence.source == STATEMENT or sentence.text in pages[sentence.source].waveform


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Possible anterior infarct - age undetermined", "Possible anterior myocardial infarction, age undetermined."),
        ("Probable old inferior infarct", "Probable old inferior myocardial infarction."),
        ("Cannot rule out septal infarct", "Septal myocardial infarction cannot be ruled out."),
        ("Consider left ventricular hypertrophy", "Left ventricular hypertrophy is to be considered."),
        ("ST changes suggest myocardial ischemia", "Myocardial ischemia is suggested."),
        ("Borderline first degree AV block", "Borderline first degree AV block."),
        ("ANTERIOR INFARCTION - POSSIBLY ACUTE", "Anterior myocardial infarction, possibly acute."),
        ("Atrial fibrillation with RVR", "Atrial fibrillation with a rapid ventricular response."),
        ("Atrial flutter with uncontrolled v-rate", "Atrial flutter with an uncontrolled ventricular response."),
        ("frequent multifocal PVCs", "Frequent multifocal ventricular premature complexes."),
        ("occasional PACs", "Occasional atrial premature complexes."),
        ("T wave inversion in V2-V4", "T wave inversion in V2, V3 and V4."),
        ("Inferior ST elevation", "ST elevation in the inferior leads (II, III and aVF)."),
        ("Inferior and septal ST changes", "ST changes in the inferior and septal leads (II, III, aVF, V1 and V2)."),
        ("Low voltage, extremity leads", "Low QRS voltage in the limb leads."),
        ("Tall T waves, may be normal variant", "Tall T wave, which can be a normal variant."),
        ("PVCs or aberrant conduction", "Ventricular premature complex or aberrant ventricular conduction."),
    ],
)  # fmt: skip
def test_what_a_statement_says_beside_the_name_is_kept(pages, statement, expected):
    assert headlines(statement, pages) == [expected]


def test_a_cause_is_named_as_one_and_told_in_short(pages):
    text = "Lateral T wave changes may be due to myocardial ischemia"
    assert headlines(text, pages) == [
        "T wave abnormality in the lateral leads (I, aVL, V5 and V6).", "Myocardial ischemia as a possible cause.",
    ]  # fmt: skip
    of_cause = [sentence for sentence in describe(parse_statement(text), pages) if "ischemia" in sentence.source]
    assert len(of_cause) == 1


def test_what_is_denied_is_said_to_be_absent_and_not_described(pages, said):
    assert headlines("Sinus rhythm without PVCs", pages) == ["No evidence of ventricular premature complexes."]
    sources = {sentence.source for sentence in describe(parse_statement("Sinus rhythm without PVCs"), pages)}
    assert sources == {STATEMENT, "sinus rhythm"}
    assert said("No evidence of acute ischemia") == ""
    assert "120 ms or more" not in said("Sinus bradycardia, no PVCs")


@pytest.mark.parametrize("statement", ["Lead(s) unsuitable for analysis: V1", "Abnormal ECG", "unconfirmed", "xyzzy"])
def test_what_names_no_finding_is_not_described(said, statement):
    assert said(statement) == ""


def test_the_age_of_an_infarct_chooses_its_sentences(said):
    old, acute, unknown = (said(f"{age} inferior infarct") for age in ("Old", "Acute", "Possible"))
    assert "Q waves" in old and "acute phase" not in old and "reciprocal" not in old
    assert "acute phase" in acute and "subacute" not in acute
    assert "acute phase" in unknown and "subacute" in unknown


def test_leads_that_the_statement_names_choose_sentences(pages, said):
    text = said("Abnormal Q waves in V1-V3")
    assert text.startswith("Abnormal Q wave in V1, V2 and V3.")
    for sentence in describe(parse_statement("Abnormal Q waves in V1-V3"), pages)[2:]:
        assert not leads_in(sentence.text) or set(leads_in(sentence.text)) & {"V1", "V2", "V3"}
    ischemia = {
        sentence.source
        for sentence in describe(parse_statement("Abnormal T, consider ischemia, inferior leads"), pages)
    }
    assert "inferior myocardial ischemia" in ischemia and "myocardial ischemia" not in ischemia


def test_a_rhythm_does_not_tell_normal_values_that_another_finding_changes(said):
    assert "PR interval of 120 to 200 ms" in said("Sinus rhythm")
    assert "PR interval of 120 to 200 ms" not in said("Sinus rhythm with 1st degree A-V block")
    assert "QRS is narrow" in said("Atrial fibrillation")
    assert "QRS is narrow" not in said("Atrial fibrillation with left bundle branch block")


def test_a_rapid_response_is_explained_by_its_own_page(pages):
    sentences = describe(parse_statement("Atrial fibrillation with rapid ventricular response"), pages)
    assert sentences[-1].source == "rapid ventricular response" and "100 bpm" in sentences[-1].text


def test_pages_of_a_statement_are_those_of_findings_territories_and_rate(pages):
    parsed = parse_statement("Atrial fibrillation with slow ventricular response. Inferior ST elevation")
    names = pages_of(parsed, pages)
    assert set(names) == {
        "atrial fibrillation", "slow ventricular response", "st elevation", "inferior myocardial ischemia",
    }  # fmt: skip


def test_territories_have_the_leads_of_their_pages(pages):
    assert leads_of_territory("inferior", pages) == ("II", "III", "aVF")
    assert set(leads_of_territory("lateral", pages)) == {"I", "aVL", "V5", "V6"}
    assert leads_of_territory("diffuse", pages) == leads_of_territory("extensive", pages) == ()


def test_names_are_written_as_in_texts():
    assert display_name("wolff-parkinson-white pattern") == "Wolff-Parkinson-White pattern"
    assert display_name("negative p terminal force in v1") == "negative P terminal force in V1"
    assert display_name("rsr pattern") == "RSR' pattern" and display_name("long qt interval") == "long QT interval"


def test_the_same_statement_gives_the_same_description(said):
    assert said("Sinus rhythm with frequent PVCs") == said("Sinus rhythm with frequent PVCs")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of data beside the checkout is not here")
def test_real_statements_get_descriptions_of_a_fair_length_in_little_time(pages):
    statements = (SHARED / "mimic_statements.txt").read_text().splitlines()
    start = time.process_time()
    described = [describe(parsed, pages) for parsed in map(parse_statement, statements) if parsed.needs_waveform]
    assert time.process_time() - start < 90 and len(described) > 1500
    words = [len(" ".join(sentence.text for sentence in one).split()) for one in described]
    assert 60 < sum(words) / len(words) < 110 and max(words) < 260 and min(words) >= 15
    for one in described:
        texts = [sentence.text for sentence in one]
        assert len(set(texts)) == len(texts) and all(re.fullmatch(r"[A-Z].*\.", text) for text in texts), texts
        assert len({sentence.source for sentence in one} - {STATEMENT}) >= 1
