"""Descriptions checked: planted wrong sentences are flagged, right ones are not, doubts stay doubts."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_sentences import Sentence, pages_of_half, right_sentences, wrong_sentences

from datasets_scripts.cqa.corpus import knowledge_passages
from datasets_scripts.cqa.extractive import describe
from datasets_scripts.cqa.knowledge import load_knowledge
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.statements import ParsedFinding, parse_statement
from datasets_scripts.cqa.support import check_description

WRITTEN = Path(__file__).with_name("description_sentences.csv")
INFERIOR = "inferior myocardial infarction"
COMPOUNDS = (
    "Atrial fibrillation with rapid ventricular response with PVCs or aberrant ventricular conduction",
    "Sinus bradycardia with 1st degree A-V block with frequent PVCs",
    "LVH with IVCD, LAD and secondary repol abnrm",
    "Inferior infarct, old, with lateral ST-T changes may be due to myocardial ischemia",
    "Possible atrial flutter with variable A-V block, cannot rule out anterior infarct, age undetermined",
    "Sinus tachycardia, right bundle branch block, left anterior fascicular block, no evidence of ischemia",
    "ST elevation in V2-V4, consider early repolarization, pericarditis, or injury",
    "Sinus rhythm with short PR interval and borderline low QRS voltage in the limb leads",
)


@pytest.fixture(scope="module")
def passages():
    by_finding = defaultdict(list)
    for passage in knowledge_passages():
        by_finding[passage.finding].append(passage)
    return dict(by_finding)


@pytest.fixture(scope="module")
def problems(passages):
    """What is wrong with a description of one finding, by the finding's own page."""

    def found(text, name, **said):
        flagged = check_description(text, (ParsedFinding(name, **said),), passages[name]).flagged
        return [problem for sentence in flagged for problem in sentence.problems]

    return found


def shares(sentences, problems):
    """The share of flagged sentences of each kind, and of all that are wrong."""
    total, flagged = Counter(), Counter()
    for sentence in sentences:
        total[sentence.kind] += 1
        flagged[sentence.kind] += bool(problems(sentence.text, sentence.finding))
    wrong = [kind for kind in total if kind != "right"]
    by_kind = {kind: flagged[kind] / total[kind] for kind in total}
    return by_kind | {"wrong": sum(flagged[kind] for kind in wrong) / max(1, sum(total[kind] for kind in wrong))}


# ----- planted sentences ----------------------------------------------------------------------------------------------


def test_written_sentences_are_told_apart(problems):
    with WRITTEN.open(newline="", encoding="utf-8") as file:
        rows = [Sentence(row["finding"], row["kind"], row["sentence"]) for row in csv.DictReader(file)]
    assert sum(row.kind == "right" for row in rows) >= 380 and len(rows) >= 680
    found = shares(rows, problems)
    assert found["right"] <= 0.02, found
    assert min(found[kind] for kind in ("lead", "number", "invented")) >= 0.95 and found["direction"] >= 0.9, found


@pytest.mark.parametrize("half", [0, 1])
def test_each_half_of_the_pages_is_told_apart(half, problems):
    pages = pages_of_half(half)
    found = shares([*right_sentences(pages, seed=half), *wrong_sentences(pages, seed=half)], problems)
    assert found["right"] <= 0.01, found
    assert min(found[kind] for kind in ("lead", "number", "invented")) >= 0.95, found


def test_100_wrong_among_400_right(problems):
    pages = load_knowledge()
    rng = random.Random(400)
    drawn = rng.sample(right_sentences(pages, 4), 400) + rng.sample(wrong_sentences(pages, 5), 100)
    found = shares(drawn, problems)
    assert found["wrong"] >= 0.95 and found["right"] <= 0.05, found


def test_descriptions_from_the_pages_pass(passages):
    pages = load_knowledge()
    for text in COMPOUNDS:
        parsed = parse_statement(text)
        said = describe(parsed, pages)
        cited = [
            passage
            for name in dict.fromkeys((*parsed.names, *(part.source for part in said)))
            for passage in passages.get(name, ())
        ]
        support = check_description(" ".join(part.text for part in said), parsed.findings, cited)
        assert len(support.sentences) == len(said) > 1
        assert not support.flagged, support.flagged
        assert support.score > 0.9


# ----- what is bound to what ------------------------------------------------------------------------------------------

BOUND = Passage("ST elevation in II, III and aVF. R waves are small in V1-V3. PR 90 ms, QRS 120 ms or more.", "A book")


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("ST elevation is present in the inferior leads.", False),
        ("ST elevation is present in V1 to V3.", True),
        ("ST depression is present in II, III and aVF.", True),
        ("In V1, V2 and V3 the R waves are small.", False),
        ("The R waves are tall in V1-V3.", True),
        ("The QRS lasts at least 0.12 s, i.e. three small squares.", False),
        ("The QRS lasts 90 ms or more.", True),
        ("The QRS is under 120 ms.", True),
        ("The PR interval is 90 ms.", False),
        ("The QRS is wide and the ST segment is elevated.", False),
        ("The QRS is narrow.", True),
    ],
)
def test_a_claim_is_judged_by_its_own_wave(sentence, wrong):
    assert bool(check_description(sentence, (), [BOUND]).flagged) == wrong


def test_a_problem_is_told_in_plain_words(problems):
    text = "In the acute phase the ST segment is elevated in V5 and II."
    (problem,) = problems(text, INFERIOR)
    assert problem.startswith("names V5; the passage has II, III")
    assert problem.endswith(f"({INFERIOR}, Waveform)")
    (problem,) = problems("The ST segment is elevated by 0.4 mV.", INFERIOR)
    assert "0.4 mV" in problem and "at least 0.1 mV" in problem
    (problem,) = problems("There is also a left bundle branch block.", INFERIOR)
    assert problem == f"names left bundle branch block; neither the statement nor the passage does ({INFERIOR})"


def test_a_mimic_is_no_support_unless_it_is_told_apart(problems):
    assert problems("A left anterior fascicular block is present.", INFERIOR)
    assert not problems("It must be distinguished from left anterior fascicular block.", INFERIOR)


def test_a_finding_cannot_borrow_from_the_page_of_another(passages):
    cited = passages["left bundle branch block"] + passages["right bundle branch block"]
    findings = (ParsedFinding("left bundle branch block"), ParsedFinding("right bundle branch block"))
    assert check_description("Left bundle branch block shows an rsR' complex in V1.", findings, cited).flagged
    assert not check_description("Right bundle branch block shows an rsR' complex in V1.", findings, cited).flagged


def test_a_copy_with_another_lead_or_number_is_seen(problems):
    right = "Reciprocal ST depression of an anterolateral occlusion appears in III and aVF."
    assert not problems(right, "anterolateral myocardial infarction")
    assert problems(right.replace("III and aVF", "V5 and V6"), "anterolateral myocardial infarction")


def test_left_for_right_and_second_for_third(problems):
    assert problems("Conduction through the right bundle branch is blocked.", "left bundle branch block")
    assert problems("Every third beat is a premature complex.", "bigeminy")


# ----- the statement --------------------------------------------------------------------------------------------------


def test_leads_of_the_statement_are_granted(problems):
    text = "The ST segment is depressed in V1."
    assert problems(text, "myocardial ischemia")
    assert not problems(text, "myocardial ischemia", leads=("V1",))
    assert not problems("T waves are inverted in II, III and aVF.", "myocardial ischemia", territory=("inferior",))


def test_a_doubt_must_not_become_a_fact(problems):
    sure = "This tracing shows atrial flutter."
    assert not problems(sure, "atrial flutter")
    assert problems(sure, "atrial flutter", certainty="possible") == [
        "tells of atrial flutter as certain; the statement says possible"
    ]
    assert not problems("This tracing shows possible atrial flutter.", "atrial flutter", certainty="possible")
    assert not problems(f"Atrial flutter is possible. {sure}", "atrial flutter", certainty="possible")


def test_what_is_negated_stays_negated_and_what_is_stated_is_not_denied(problems):
    assert problems("Myocardial ischemia is present.", "myocardial ischemia", negated=True)
    assert not problems("There is no myocardial ischemia.", "myocardial ischemia", negated=True)
    assert problems("There is no myocardial ischemia.", "myocardial ischemia") == [
        "denies myocardial ischemia; the statement names it"
    ]


def test_two_sentences_that_say_opposite_things(problems):
    book = Passage("The RR intervals vary or stay the same.", "A book")
    support = check_description("The rhythm is regular. The rhythm is irregular.", (), [book])
    assert [bool(sentence.problems) for sentence in support.sentences][-1]


# ----- the result -----------------------------------------------------------------------------------------------------


def test_flagged_sentences_can_be_dropped(passages):
    text = "ST elevation is seen in II, III and aVF. ST elevation is seen in V1 and V2."
    support = check_description(text, (ParsedFinding(INFERIOR),), passages[INFERIOR])
    assert [sentence.text for sentence in support.flagged] == ["ST elevation is seen in V1 and V2."]
    assert support.kept() == "ST elevation is seen in II, III and aVF."
    assert support.kept(drop_flagged=False) == text
    assert support.sentences[0].passage_key in {passage.key for passage in passages[INFERIOR]}
    assert 0 < support.score < support.sentences[0].support <= 1


def test_what_no_passage_says_has_no_support(problems, passages):
    assert check_description("", (), ()).score == 0
    assert check_description("The QRS is wide.", (), ()).flagged
    assert not check_description("Left bundle branch block.", (ParsedFinding("left bundle branch block"),), ()).flagged
    support = check_description("The patient has diabetes and smokes.", (), passages[INFERIOR])
    assert support.flagged and support.score < 0.3


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=120), st.text(max_size=120))
def test_any_text_can_be_checked(description, text):
    support = check_description(description, (ParsedFinding("atrial flutter"),), [Passage(text, "A book")])
    assert all(0 <= sentence.support <= 1 for sentence in support.sentences)


def test_a_long_line_of_numbers_is_read():
    text = "V1 120 ms " * 300
    assert check_description(text, (), [Passage(text, "A book")]).sentences
