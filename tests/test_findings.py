"""The table of findings: one name per picture, and every code of PTB-XL and of the Challenge leads to one."""

import csv
from pathlib import Path

import pytest

from datasets_scripts.cqa.findings import all_findings, find_finding, finding_phrases, findings_of_code
from datasets_scripts.cqa.wording import words_of
from datasets_scripts.snomed import snomed_codes

SCP_TABLE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ptbxl" / "scp_statements.csv"


def test_names_are_lower_case_and_can_name_a_file():
    for name in all_findings():
        assert name == name.lower().strip()
        assert not set(name) & set("/\\:*?\"<>|'"), name


def test_every_name_finds_itself_before_any_synonym():
    assert {name: find_finding(name).name for name in all_findings()} == {name: name for name in all_findings()}


def test_no_synonym_stands_in_two_rows():
    rows: dict[tuple[str, ...], str] = {}
    for finding in all_findings().values():
        for phrase in {words_of(text) for text in (finding.name, *finding.synonyms)}:
            assert rows.setdefault(phrase, finding.name) == finding.name, phrase


@pytest.mark.parametrize(
    ("text", "name"),
    {
        "PVCs": "ventricular premature complex",
        "premature ventricular contractions": "ventricular premature complex",
        "PAC(s)": "atrial premature complex",
        "LBBB": "left bundle branch block",
        "1st deg. A-V block": "first degree av block",
        "Mobitz type II 2nd degree A-V block": "mobitz type ii second degree av block",
        "complete heart block": "third degree av block",
        "WPW pattern type B": "wolff-parkinson-white pattern",
        "IVCD": "intraventricular conduction delay",
        "LAD": "left axis deviation",
        "Repol abnrm": "st-t changes",
        "ischaemia": "myocardial ischemia",
        "left atrial abnormality": "left atrial enlargement",
        "Prolonged QTc": "long qt interval",
        "afib": "atrial fibrillation",
        "NORM": "normal ecg",
        "ISCIN": "inferior myocardial ischemia",
        "426177001": "sinus bradycardia",
    }.items(),
)
def test_a_finding_is_found_by_synonym_abbreviation_and_code(text, name):
    assert find_finding(text).name == name


@pytest.mark.parametrize("text", ["", "  ", "no such finding", "999", "sinus"])
def test_what_is_no_finding_is_none(text):
    assert find_finding(text) is None


def test_every_snomed_code_and_name_has_its_finding():
    for code, row in snomed_codes().items():
        named = find_finding(row.name)
        assert findings_of_code(code), row.name
        assert named is None or named in findings_of_code(code), row.name


def test_one_code_can_stand_for_two_findings():
    assert [finding.name for finding in findings_of_code("195080001")] == ["atrial fibrillation", "atrial flutter"]


def test_scp_codes_are_those_of_71_statements_each_once():
    codes = [code for finding in all_findings().values() for code in finding.scp]
    assert len(codes) == len(set(codes)) == 71


@pytest.mark.skipif(not SCP_TABLE.is_file(), reason="PTB-XL's scp_statements.csv is not beside the repository")
def test_every_ptb_xl_statement_has_a_finding_and_its_description_finds_it():
    with SCP_TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        finding = findings_of_code(row[""])[0]
        assert finding.needs_waveform
        if not row["SCP-ECG Statement Description"].startswith("in "):  # "in lateral leads" names nothing by itself
            assert find_finding(row["SCP-ECG Statement Description"]) == finding


def test_only_conditions_and_recording_faults_have_no_waveform():
    without = {finding.group for finding in all_findings().values() if not finding.needs_waveform}
    assert without == {"clinical", "quality"}


def test_phrases_are_read_only():
    with pytest.raises(TypeError):
        finding_phrases()[("new",)] = "sinus rhythm"
