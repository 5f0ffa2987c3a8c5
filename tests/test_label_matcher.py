"""What the matcher finds in a text, rule by rule, and on the synthetic corpus's own wordings."""

import ast
import csv
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.ptb_xl_labels import label_prompts as ptb_xl_prompts
from datasets_scripts.synthetic_findings import WORDINGS, label_prompts, sample_findings, write_report
from modeling_esi.evaluation.label_matcher import LabelMatcher, plain_text

PROMPTS = {
    "LBBB": ["ECG Findings: left bundle branch block."],
    "ILBBB": "incomplete left bundle branch block",
    "AFIB": ["ECG Findings: atrial fibrillation."],
    "STE": ["ECG Findings: ST elevation."],
    "1AVB": ["ECG Findings: first degree AV block."],
}


def found(text: str) -> set[str]:
    return set(LabelMatcher.from_prompts(PROMPTS).find(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Atrial fibrillation. Left-bundle branch blocks.", {"AFIB", "LBBB"}),
        ("AFib with LBBB", {"AFIB", "LBBB"}),
        ("Incomplete left bundle branch block", {"ILBBB"}),
        ("Incomplete LBBB", set()),
        ("1st degree AV-BLOCKS", {"1AVB"}),
        ("No ST elevation, atrial fibrillation", {"AFIB"}),
        ("No ST elevation or atrial fibrillation.", set()),
        ("No ST elevation or block but atrial fibrillation.", {"AFIB"}),
        ("Without ST elevation. ST elevation in V2.", {"STE"}),
        ("Atrial fibrillation is not seen", {"AFIB"}),  # a denial behind is not understood
        ("Possible atrial fibrillation, cannot be excluded", {"AFIB"}),
        ("Northern lights, nothing else", set()),
        ("atrial. fibrillation", set()),
        ("Vorhofflimmern/-flattern, unvollständiger Linksschenkelblock. A-V Block I", {"AFIB", "ILBBB", "1AVB"}),
        ("A-V Block II ohne Vorhofflimmern", set()),
        ("", set()),
    ],
)
def test_rules(text, expected):
    assert found(text) == expected


def test_a_phrase_of_two_labels_gives_both_and_labels_keep_their_order():
    matcher = LabelMatcher.from_prompts({"b": ["pause"], "a": ["sinus pause", "pause"]})
    assert matcher.labels == ("b", "a") and matcher.find("Pauses.") == {"a", "b"}
    assert matcher.find("sinus pause") == {"a"}
    with pytest.raises(ValueError, match="at least one label"):
        LabelMatcher.from_prompts({})


def test_plain_text():
    assert plain_text("ST-T changes; P-waves (sinus) 2° loss") == "st t change p wave sinus 2 loss"


def test_the_findings_of_the_synthetic_reports_are_found():
    matcher, rng = LabelMatcher.from_prompts(label_prompts()), np.random.default_rng(0)
    true_positive = wrong = missed = 0
    for _ in range(150):
        findings = set(sample_findings(rng))
        said = matcher.find(write_report(tuple(f for f in WORDINGS if f in findings), 70, rng))
        true_positive += len(findings & said)
        wrong, missed = wrong + len(said - findings), missed + len(findings - said)
    assert 2 * true_positive / (2 * true_positive + wrong + missed) > 0.97


DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data folder beside the checkout")
def test_the_rhythms_and_blocks_of_real_reports_are_found():
    """PTB-XL's own reports, German and English, against its codes."""
    said = ("SR", "SBRAD", "STACH", "AFIB", "CLBBB", "CRBBB", "1AVB", "LAFB")
    prompts = ptb_xl_prompts("all", DATA / "ptbxl")
    matcher = LabelMatcher.from_prompts({**prompts, "2AVB": [*prompts["2AVB"], "A-V Block II"]})
    with (DATA / "ptbxl_reports" / "reports_folds_1_8.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for number, row in enumerate(csv.DictReader(file)) if number % 20 == 0]
    found = [matcher.find(row["report"]) for row in rows]
    true = [set(ast.literal_eval(row["scp_codes"])) for row in rows]
    hits, all_found, all_true = (
        sum(label in held for label in said for held in column)
        for column in ([f & t for f, t in zip(found, true, strict=True)], found, true)
    )
    assert 2 * hits / (all_found + all_true) > 0.85
