"""The knowledge base: every page has the fixed form, names real leads and gives every number its unit."""

import csv
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from datasets_scripts.cqa.knowledge import (
    EXTRA_LEADS,
    SECTIONS,
    STANDARD_LEADS,
    UNITS,
    URGENCIES,
    KnowledgeError,
    KnowledgePage,
    Quantity,
    leads_in,
    load_knowledge,
    numbers_in,
    parse_page,
    sentences_of,
)

SCP_STATEMENTS = """
    NDT NST_ DIG LNGQT NORM IMI ASMI LVH LAFB ISC_ IRBBB 1AVB IVCD ISCAL CRBBB CLBBB ILMI LAO/LAE AMI ALMI ISCIN INJAS
    LMI ISCIL LPFB ISCAS INJAL ISCLA RVH ANEUR RAO/RAE EL WPW ILBBB IPLMI ISCAN IPMI SEHYP INJIN INJLA PMI 3AVB INJIL
    2AVB ABQRS PVC STD_ VCLVH QWAVE LOWT NT_ PAC LPR INVT LVOLT HVOLT TAB_ STE_ PRC(S) SR AFIB STACH SARRH SBRAD PACE
    SVARR BIGU AFLT SVTAC PSVT TRIGU
""".split()
PTB_XL_TABLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "ptbxl" / "scp_statements.csv"
LEAD_SPELLINGS = re.compile(r"(?i)(?<![\w'])(av[rlf]|v\d{1,2}r?)(?![\w'])")

PAGE = """---
name: "long pause"
scp: ["XYZ"]
snomed: ["123"]
group: "rhythm"
sources:
  - title: "A guideline"
    year: 2018
    doi: "10.1000/1"
---
## Definition
No beat for a while.

## Waveform
A long pause shows no P wave in II for 3.0 s. The baseline in V1-V3 stays flat.

## Criteria
- No QRS for 3.0 s in II or V1
- Escape rate 40 to 60 bpm

## Mimics
- Loose electrode

## Urgency
Soon: syncope threatens.
"""


@pytest.fixture(scope="module")
def pages() -> dict[str, KnowledgePage]:
    return load_knowledge()


@pytest.fixture(scope="module")
def findings() -> dict[str, dict[str, str]]:
    with files("datasets_scripts.cqa").joinpath("findings.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_every_ptb_xl_statement_has_one_page(pages):
    owners = Counter(code for page in pages.values() for code in page.scp)
    assert len(SCP_STATEMENTS) == 71
    assert owners == Counter(SCP_STATEMENTS)


def test_the_71_statements_are_those_of_the_data_set():
    if not PTB_XL_TABLE.is_file():
        pytest.skip("needs ../shared/data/ptbxl/scp_statements.csv, which is not part of the repository")
    with PTB_XL_TABLE.open(newline="", encoding="utf-8") as file:
        assert {row[""] for row in csv.DictReader(file)} == set(SCP_STATEMENTS)


def test_pages_carry_the_names_groups_and_codes_of_the_findings(pages, findings):
    for name, page in pages.items():
        row = findings[name]
        assert (page.group, set(page.scp), set(page.snomed)) == (
            row["group"],
            set(filter(None, row["scp"].split("|"))),
            set(filter(None, row["snomed"].split("|"))),
        ), name


def test_every_finding_that_needs_a_waveform_has_a_page(pages, findings):
    assert {name for name, row in findings.items() if row["needs_waveform"] == "yes"} <= set(pages)


def test_every_page_has_all_sections_and_a_source(pages):
    assert len(pages) >= 150
    for page in pages.values():
        assert tuple(page.sections) == SECTIONS
        assert page.criteria and page.urgency in URGENCIES
        assert page.sources and all(source.title and 1900 <= source.year <= 2026 for source in page.sources), page.name
        assert all(source.link == "" or source.link.startswith("https://") for source in page.sources)


def test_waveforms_are_short_and_of_two_to_five_sentences(pages):
    for page in pages.values():
        assert 25 <= len(page.sections["Waveform"].split()) <= 110, page.name
        assert 2 <= len(page.waveform) <= 5, page.name
        assert all(sentence.endswith(".") for sentence in page.waveform), page.name
        assert len(sentences_of(page.sections["Urgency"])) == 1, page.name
        assert len(sentences_of(page.sections["Definition"])) <= 2, page.name


def test_sentences_stand_alone(pages):
    leaning = re.compile(r"^(It|Its|They|Their|This|These|Those|That|Such|He|She|Also|However|There,)\b")
    assert [s for page in pages.values() for s in page.waveform if leaning.match(s)] == []


def test_no_two_pages_share_a_waveform_sentence(pages):
    counts = Counter(sentence.lower() for page in pages.values() for sentence in page.waveform)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_leads_are_spelled_as_everywhere_and_exist(pages):
    for page in pages.values():
        for section, text in page.sections.items():
            assert set(leads_in(text)) <= {*STANDARD_LEADS, *EXTRA_LEADS}, (page.name, section)
            assert set(LEAD_SPELLINGS.findall(text)) <= {*STANDARD_LEADS, *EXTRA_LEADS}, (page.name, section)


def test_numbers_carry_units(pages):
    for page in pages.values():
        for section, text in page.sections.items():
            assert all(number.unit in UNITS for number in numbers_in(text)), (page.name, section)


# what the guidelines say, by hand: (page, text of the criteria or waveform, as a number and its unit)
THRESHOLDS = [
    ("left bundle branch block", 120, "ms"),
    ("right bundle branch block", 120, "ms"),
    ("first degree av block", 200, "ms"),
    ("long qt interval", 450, "ms"),
    ("long qt interval", 460, "ms"),
    ("left ventricular hypertrophy", 3.5, "mV"),
    ("left ventricular hypertrophy", 2.8, "mV"),
    ("left anterior fascicular block", -45, "degrees"),
    ("left anterior fascicular block", -90, "degrees"),
    ("st elevation", 0.25, "mV"),
    ("st elevation", 0.15, "mV"),
    ("wolff-parkinson-white pattern", 120, "ms"),
    ("sinus bradycardia", 60, "bpm"),
    ("sinus tachycardia", 100, "bpm"),
    ("brugada pattern", 0.2, "mV"),
    ("right axis deviation", 90, "degrees"),
    ("left axis deviation", -30, "degrees"),
]


@pytest.mark.parametrize(("name", "value", "unit"), THRESHOLDS)
def test_the_criteria_hold_the_accepted_limits(pages, name, value, unit):
    assert Quantity(value, unit) in {number for line in pages[name].criteria for number in line.numbers}


@pytest.mark.parametrize(
    ("name", "leads"),
    [
        ("inferior myocardial infarction", {"II", "III", "aVF"}),
        ("lateral myocardial infarction", {"I", "aVL", "V5", "V6"}),
        ("anteroseptal myocardial infarction", {"V1", "V2", "V3"}),
        ("anterior myocardial infarction", {"V2", "V3", "V4"}),
        ("posterior myocardial infarction", {"V7", "V8", "V9"}),
        ("right ventricular myocardial infarction", {"V4R", "V1"}),
        ("lateral myocardial ischemia", {"I", "aVL", "V5", "V6"}),
        ("inferior subendocardial injury", {"II", "III", "aVF"}),
    ],
)
def test_territories_name_their_leads(pages, name, leads):
    assert leads <= set(leads_in(pages[name].sections["Waveform"]))


def test_leads_are_read_with_ranges_and_without_kinds_of_block():
    assert leads_in("V1 to V3, aVF and I, but not Mobitz II, type I or III.") == ("V1", "V2", "V3", "aVF", "I", "III")
    assert leads_in("V7-V9, V4R, AVF and V10") == ("V7", "V8", "V9", "V4R", "AVF", "V10")
    assert leads_in("S1Q3T3 with an R/S ratio above 1 in V5/V6") == ("V5", "V6")


def test_numbers_are_read_with_their_units():
    assert numbers_in("-30 to +90 degrees") == (Quantity(-30, "degrees"), Quantity(90, "degrees"))
    assert numbers_in("0.04 mm·s (4 mV·ms)") == (Quantity(0.04, "mm·s"), Quantity(4, "mV·ms"))
    assert numbers_in("2:1 block in a 12-lead tracing, R/S ratio above 1, V1-V4, S1Q3T3") == ()
    assert numbers_in("60-100 bpm for 7 of them") == (Quantity(60, "bpm"), Quantity(100, "bpm"), Quantity(7, ""))
    assert numbers_in("at least 0.1 mV.") == (Quantity(0.1, "mV"),)


def test_a_page_is_read_whole():
    page = parse_page(PAGE, "long-pause.md")
    assert page.codes == ("XYZ", "123") and page.urgency == "soon"
    assert page.waveform == ("A long pause shows no P wave in II for 3.0 s.", "The baseline in V1-V3 stays flat.")
    assert page.criteria[0].leads == ("II", "V1") and page.criteria[1].numbers[0] == Quantity(40, "bpm")
    assert page.sources[0].link == "https://doi.org/10.1000/1"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("---\nname", "name", "front matter between"),
        ('group: "rhythm"\n', "", "expected the keys"),
        ('"123"', "123", "codes in quotes"),
        ("year: 2018", "year: soon", "whole number as year"),
        ("    year: 2018\n", "", "title, year"),
        ("## Mimics", "## Lookalikes", "expected the sections"),
        ("- Loose electrode", "", "got none in Mimics"),
        ("- Loose electrode", "Loose electrode", "begin with '- '"),
        ("- Escape rate", "Escape rate", "begin with '- '"),
        ("Soon: syncope", "Perhaps: syncope", "urgency"),
        ("in V1-V3", "in V1-V9 and V10", "V10"),
        ("or V1\n", "or AVF\n", "AVF"),
        ("40 to 60 bpm", "40 to 60", "40, 60"),
        ("for 3.0 s.", "for 3.0.", "3 without"),
        ('name: "long pause"', 'name: "Long pause"', "lower-case name"),
        ('name: "long pause"', "name: [", "no YAML"),
    ],
)
def test_a_page_that_breaks_the_form_is_refused(old, new, reason):
    assert old in PAGE
    with pytest.raises(KnowledgeError, match=re.escape(reason)) as error:
        parse_page(PAGE.replace(old, new, 1), "long-pause.md")
    assert "long-pause.md" in str(error.value)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(KnowledgeError, match="got none"):
        load_knowledge(tmp_path)


def test_a_folder_of_other_pages_can_be_loaded(tmp_path):
    (tmp_path / "long-pause.md").write_text(PAGE, encoding="utf-8")
    assert list(load_knowledge(tmp_path)) == ["long pause"]
