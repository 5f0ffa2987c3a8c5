"""Statements of interpretive programs are read as their findings, with certainty, territory, age, rate and leads."""

import csv
import itertools
import random
from pathlib import Path

import pytest

from datasets_scripts.cqa.findings import all_findings
from datasets_scripts.cqa.grammar import TERRITORIES, leads_of, lexicon
from datasets_scripts.cqa.statements import ParsedStatement, parse_statement
from datasets_scripts.cqa.wording import words_of

LABELLED = Path(__file__).parent / "mimic_statements_labelled.csv"
ALL_STATEMENTS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "mimic_statements.txt"
OTHERS = Path(__file__).parent / "other_statements.csv"
KINDS = {"finding", "administrative", "quality", "summary"}


def labelled(path: Path = LABELLED) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def names_of(text: str) -> tuple[str, ...]:
    return parse_statement(text).names


def told(text: str, field: str) -> list[object]:
    """One field of all findings of a statement."""
    return [getattr(finding, field) for finding in parse_statement(text).findings]


# ----- compounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    {
        "Sinus bradycardia with frequent PVCs with PAC(s)": (
            "sinus bradycardia", "ventricular premature complex", "atrial premature complex",
        ),
        "LVH with IVCD, LAD and secondary repol abnrm": (
            "left ventricular hypertrophy", "intraventricular conduction delay", "left axis deviation",
            "secondary repolarization abnormality",
        ),
        "Atrial fibrillation with rapid ventricular response with PVCs or aberrant ventricular conduction": (
            "atrial fibrillation", "ventricular premature complex", "aberrant ventricular conduction",
        ),
        "Sinus bradycardia with sinus arrhythmia with 2nd degree (Mobitz II) SA block with 1st degree A-V block.": (
            "sinus bradycardia", "sinus arrhythmia", "sinoatrial block", "first degree av block",
        ),
        "Sinus rhythm with 2nd degree A-V block, Mobitz II.": (
            "sinus rhythm", "mobitz type ii second degree av block",
        ),
        "PROBABLE SINUS TACHYCARDIA.CONSIDER FLUTTER AND/OR 2:1 A-V BLOCK": (
            "sinus tachycardia", "atrial flutter", "two-to-one av block",
        ),
        "Afib/flut and V-paced complexes": ("atrial fibrillation", "atrial flutter", "ventricular pacing"),
        "A-V dual-paced complexes, A-noncapt due to AF": (
            "dual chamber pacing", "failure to capture", "atrial fibrillation",
        ),
        "Multiple premature complexes, vent & supraven": (
            "ventricular premature complex", "supraventricular premature complex",
        ),
        "Low R + Q in anterolateral leads": ("low r wave", "abnormal q wave"),
        "Vent pre-excitat'n(WPW), left acces'y pathway": ("wolff-parkinson-white pattern",),
        "I.V. CONDUCTION DEFECT OF LEFT BUNDLE BRANCH BLOCK TYPE": ("intraventricular conduction delay",),
        "S I,II,III syndrome": ("s1s2s3 pattern",),
        "Failure to sense and/or capture (?magnet)": ("failure to sense", "failure to capture"),
        "Regular rhythm, no P-wave found": ("regular rhythm", "absent p wave"),
        "WITH RAPID VENTRICULAR RESPONSE": ("rapid ventricular response",),
    }.items(),
)  # fmt: skip
def test_compounds_are_cut_into_their_findings(text, names):
    parsed = parse_statement(text)
    assert (parsed.names, parsed.kind, parsed.not_understood) == (names, "finding", "")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Abnormal T, consider ischemia, lateral leads", ["t wave abnormality", "myocardial ischemia"]),
        ("abnrm t, consider ischaemia, lateral lds", ["t wave abnormality", "myocardial ischemia"]),
        ("ST & T wave abnormality", ["st-t changes"]),
        ("ST-T wave changes", ["st-t changes"]),
        ("Repol abnrm", ["st-t changes"]),
        ("2ND DEGREE MOBITZ II SINO-ATRIAL BLOCK", ["sinoatrial block"]),
        ("Ventricular premature complexes", ["ventricular premature complex"]),
        ("VENTRICULAR PREMATURE COMPLEX(ES)", ["ventricular premature complex"]),
    ],
)
def test_spelling_case_and_plural_do_not_count(text, names):
    assert list(names_of(text)) == names


# ----- modifiers -----------------------------------------------------------------------------------------------------


def test_certainty_belongs_to_what_it_stands_before():
    text = "Possible atrial flutter with PVCs with borderline 1st degree A-V block"
    assert told(text, "certainty") == ["possible", "stated", "borderline"]
    assert told("Probable LVH w/ secondary repol abnrm", "certainty") == ["probable", "stated"]
    assert told("LAD, consider left anterior fascicular block", "certainty") == ["stated", "consider"]
    assert told("Cannot rule out anterior infarct", "certainty") == ["cannot rule out"]
    assert told("Lateral T wave changes suggest myocardial ischemia", "certainty") == ["stated", "suggested"]


def test_certainty_behind_its_finding():
    assert told("Anterior ST-T changes are borderline abnormal for age/sex", "certainty") == ["borderline"]
    text = "CHANGES V2-V4 MAY BE DUE TO LVH BUT ANTEROSEPTAL INFARCTION CANNOT BE EXCLUDED"
    assert told(text, "certainty") == ["possible", "possible"]


def test_a_verb_of_doubt_takes_a_list_but_an_adjective_does_not():
    consider = "ST elevation, consider early repolarization, pericarditis, or injury"
    assert told(consider, "certainty") == ["stated", "consider", "consider", "consider"]
    assert told("Tall R wave in V2, consider RVH or PMI", "certainty") == ["stated", "consider", "consider"]
    assert told("Possible LVH, LAD", "certainty") == ["possible", "stated"]


def test_causes_are_possible_findings_that_say_so():
    cause = parse_statement("Inferior/lateral ST-T changes may be due to myocardial ischemia").findings[1]
    assert (cause.name, cause.certainty, cause.relation) == ("myocardial ischemia", "possible", "cause")
    text = "Lateral ST changes may be due to hypertrophy and/or ischemia"
    assert names_of(text) == ("st changes", "ventricular hypertrophy", "myocardial ischemia")
    assert told(text, "relation") == ["", "cause", "cause"]
    assert told(text, "alternative") == [False, True, True]


def test_alternatives_are_marked_on_both_sides():
    assert told("Sinus or ectopic atrial bradycardia", "alternative") == [True, True]
    assert names_of("Sinus or ectopic atrial bradycardia") == ("sinus bradycardia", "ectopic atrial bradycardia")
    assert told("Sinus rhythm with PVCs or aberrant ventricular conduction", "alternative") == [False, True, True]


def test_a_negated_finding_asks_for_no_waveform():
    parsed = parse_statement("No evidence of ischemia")
    assert told("No evidence of ischemia", "negated") == [True]
    assert not parsed.needs_waveform
    assert told("Sinus rhythm without PVCs", "negated") == [False, True]
    assert parse_statement("Sinus rhythm without PVCs").needs_waveform


def test_rate_response_frequency_form_and_severity():
    flutter, pvc = parse_statement(
        "Atrial flutter with slow ventricular response with frequent multifocal interpolated PVCs"
    ).findings
    assert flutter.rate_response == "slow"
    assert (pvc.frequency, pvc.form) == ("frequent", ("multifocal", "interpolated"))
    assert told("Atrial fibrillation with uncontrolled ventricular response", "rate_response") == ["uncontrolled"]
    assert told("Sinus rhythm with non-sustained ventricular tachycardia", "form") == [(), ("non-sustained",)]
    assert told("Marked sinus bradycardia", "severity") == ["marked"]
    assert told("Irregular ectopic atrial rhythm", "form") == [("irregular",)]


# ----- territories, ages, leads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "age"),
    [
        ("INFERIOR INFARCTION - AGE UNDETERMINED", "inferior myocardial infarction", "undetermined"),
        ("Anterior infarct, age indeterminate", "anterior myocardial infarction", "undetermined"),
        ("Probable old anteroseptal infarct", "anteroseptal myocardial infarction", "old"),
        ("*** ANTERIOR INFARCT - POSSIBLY ACUTE ***", "anterior myocardial infarction", "possibly acute"),
        ("Extensive infarct with acute inferior + lateral changes", "extensive myocardial infarction", "acute"),
        ("Inferior infarct, acute (RCA)", "inferior myocardial infarction", "acute"),
        ("Consider recent inferoposterior infarct", "inferoposterior myocardial infarction", "recent"),
        ("CONSIDER ACUTE ST ELEVATION MI", "st elevation myocardial infarction", "acute"),
        ("Acute MI", "myocardial infarction", "acute"),
    ],
)
def test_an_infarct_has_its_territory_in_its_name_and_its_age_beside_it(text, name, age):
    assert names_of(text) == (name,)
    assert told(text, "age_of_infarct") == [age]


def test_two_territories_of_infarction_are_two_findings_of_one_age():
    text = "Inferior and anteroseptal infarction, old"
    assert names_of(text) == ("inferior myocardial infarction", "anteroseptal myocardial infarction")
    assert told(text, "age_of_infarct") == ["old", "old"]
    assert told(text, "territory") == [("inferior",), ("anteroseptal",)]


def test_the_territory_of_st_and_t_findings_is_a_modifier():
    for text in ("Ant/septal + lateral ST changes", "ST changes in the anteroseptal and lateral leads"):
        assert names_of(text) == ("st changes",)
        assert told(text, "territory") == [("anteroseptal", "lateral")]
    text = "Repol abnrm, prob ischemia, anterolateral lds"
    assert told(text, "territory") == [("anterolateral",), ("anterolateral",)]
    assert names_of("T wave abnormality, consider lateral ischemia")[1] == "lateral myocardial ischemia"
    assert names_of("Possible inferior subendocardial injury") == ("inferior subendocardial injury",)


def test_nonspecific_is_part_of_the_name_wherever_it_stands():
    for text in ("Nonspecific T abnormalities, inferior leads", "Inferior T wave changes are non-specific"):
        assert names_of(text) == ("nonspecific t wave changes",)
        assert told(text, "territory") == [("inferior",)]
    assert names_of("Nonspecific ST depression, lateral leads") == ("st depression",)


def test_leads_and_ranges_of_leads():
    assert told("Poor R wave progression V2-V4", "leads") == [("V2", "V3", "V4")]
    assert told("Low R(V2-V4) probably due to RVH", "leads") == [("V2", "V3", "V4"), ()]
    assert told("Broad R in I, V5 or V6", "leads") == [("I", "V5", "V6")]
    assert told("T wave inversion in leads III and aVF", "leads") == [("III", "aVF")]
    assert leads_of("v4r") == ("V4R",)


INFARCT_TERRITORIES = [
    name.removesuffix(" myocardial infarction") for name in all_findings() if " myocardial inf" in name
]


@pytest.mark.parametrize("territory", [place for place in INFARCT_TERRITORIES if place in TERRITORIES])
def test_every_territory_with_every_age_and_doubt(territory):
    ages = {"old": "old", "acute": "acute", "recent": "recent", "age undetermined": "undetermined"}
    doubts = {"": "stated", "Possible ": "possible", "Consider ": "consider", "CANNOT RULE OUT ": "cannot rule out"}
    for (said, age), (doubt, certainty), joint in itertools.product(ages.items(), doubts.items(), (", ", " - ")):
        parsed = parse_statement(f"{doubt}{territory} infarct{joint}{said}")
        [finding] = parsed.findings
        assert finding.name == f"{territory} myocardial infarction"
        assert (finding.age_of_infarct, finding.certainty, parsed.not_understood) == (age, certainty, "")


@pytest.mark.parametrize("finding", ["ST changes", "ST-T changes", "T wave changes", "ST elevation", "ST depression"])
def test_every_pair_of_territories_with_every_st_and_t_finding(finding):
    places = ("inferior", "anterior", "lateral", "septal", "anteroseptal", "anterolateral")
    for (one, two), joint in itertools.product(itertools.permutations(places, 2), (" and ", "/", "+", " + ")):
        [found] = parse_statement(f"{one}{joint}{two} {finding}".capitalize()).findings
        assert found.territory == (one, two)


# ----- lines that name no finding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    {
        "Lead(s) unsuitable for analysis: V1 V2 V4": "quality",
        "LEAD(S) UNSUITABLE FOR ANALYSIS: I": "quality",
        "Warning: Data quality may affect computer interpretation!!": "quality",
        "Artifact in lead(s) I,II and baseline wander in lead(s) V2": "quality",
        "? FAULTY V4 - OMITTED FROM ANALYSIS": "quality",
        "PACER DETECTION SUSPENDED DUE TO EXTERNAL NOISE-REVIEW ADVISED": "quality",
        "SUGGESTS ARM LEAD REVERSAL - ONLY LEADS aVF, V1 - V6 ANALYSED": "quality",
        "*** complex QRS morphology - no further analysis ***": "quality",
        "Missing lead(s): V2,V3": "quality",
        "*** report made without knowing patient's age ***": "administrative",
        "** INTERPRETATION MADE WITHOUT KNOWING PATIENT'S GENDER/AGE **": "administrative",
        "--- Pediatric criteria used ---": "administrative",
        "*UnconfirmedAnalysis*": "administrative",
        "": "administrative",
        "Abnormal ECG": "summary",
        "- ABNORMAL ECG -": "summary",
        "Borderline ECG": "summary",
        "Otherwise normal ECG": "summary",
        "Normal ECG except for rate": "summary",
        "Summary: NORMAL ECG": "summary",
        "Within normal limits for age": "summary",
        "CHANGES MAY BE DUE PARTLY TO RATE/RHYTHM": "summary",
        "BORDERLINE ABNORMAL FOR AGE AND SEX. INTERPRET TOGETHER WITH CLINICAL DATA": "summary",
    }.items(),
)
def test_lines_about_the_recording_and_the_report_get_no_waveform(text, kind):
    parsed = parse_statement(text)
    assert parsed == ParsedStatement(text, (), kind)
    assert not parsed.needs_waveform


def test_a_normal_ecg_has_a_waveform_when_nothing_else_is_said():
    parsed = parse_statement("Normal ECG")
    assert (parsed.kind, parsed.names, parsed.needs_waveform) == ("summary", ("normal ecg",), True)


@pytest.mark.parametrize(
    ("text", "names"),
    {
        "Sinus rhythm, poor data quality": ("sinus rhythm",),
        "Pacemaker rhythm - no further analysis*": ("paced rhythm",),
        "Normal ECG except for sinus bradycardia": ("sinus bradycardia",),
        "APPEARANCES SUGGEST DEXTROCARDIA: REPEAT WITH REVERSED LEADS. NO FURTHER ANALYSIS.": ("dextrocardia",),
        "Anterior infarct, age unknown": ("anterior myocardial infarction",),
    }.items(),
)
def test_a_finding_beside_a_cue_stays_a_finding(text, names):
    parsed = parse_statement(text)
    assert (parsed.kind, parsed.names) == ("finding", names)


@pytest.mark.parametrize(("text", "names"), [tuple(row.values()) for row in labelled(OTHERS)])
def test_statements_of_other_carts(text, names):
    parsed = parse_statement(text)
    assert sorted(parsed.names) == sorted(filter(None, names.split("|")))
    assert parsed.findings or parsed.kind in ("administrative", "quality", "summary")


def test_a_finding_that_another_one_replaced_is_denied():
    parsed = parse_statement("Sinus rhythm has replaced Atrial fibrillation")
    assert [(finding.name, finding.negated) for finding in parsed.findings] == [
        ("sinus rhythm", False), ("atrial fibrillation", True),
    ]  # fmt: skip
    assert parse_statement("T waves are no longer inverted in V2").findings[0].negated
    assert not any(found.negated for found in parse_statement("Sinus rhythm replaced by atrial flutter").findings)


def test_what_is_not_understood_is_told():
    assert parse_statement("Sinus rhythm with flurbs").not_understood == "flurb"
    nonsense = parse_statement("the quick brown fox")
    assert (nonsense.kind, nonsense.findings, nonsense.not_understood) == ("finding", (), "the quick brown fox")


# ----- real statements -----------------------------------------------------------------------------------------------


def test_ninety_percent_of_the_labelled_statements_have_exactly_their_findings():
    rows = labelled()
    assert len(rows) == 150
    right = [set(names_of(row["statement"])) == set(filter(None, row["findings"].split("|"))) for row in rows]
    assert sum(right) / len(rows) >= 0.9


def test_no_waveform_is_right_in_95_percent_both_ways():
    rows = labelled()
    labels = [row["waveform"] == "no" for row in rows]
    parsed = [not parse_statement(row["statement"]).needs_waveform for row in rows]
    both = sum(label and said for label, said in zip(labels, parsed, strict=True))
    assert both / sum(parsed) >= 0.95
    assert both / sum(labels) >= 0.95


def test_the_labels_are_names_of_the_table():
    assert {name for row in labelled() for name in filter(None, row["findings"].split("|"))} <= set(all_findings())


@pytest.mark.skipif(not ALL_STATEMENTS.is_file(), reason="the list of MIMIC statements is not beside the repository")
def test_97_percent_of_all_statements_are_read_to_the_end():
    statements = ALL_STATEMENTS.read_text(encoding="utf-8").splitlines()
    rest = [text for text in statements if parse_statement(text).not_understood]
    assert len(rest) / len(statements) <= 0.03, rest


# ----- any text ------------------------------------------------------------------------------------------------------


def random_texts(number: int) -> list[str]:
    """Characters at random, and words of the vocabulary in no order."""
    chance = random.Random(6)
    words = [word for phrase in lexicon() for word in phrase] + [",", ".", "-", ";", "/", "+", "or", "V1-V3", "(", "*"]
    strings = ["".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(chance.randrange(40))) for _ in range(number)]
    return strings + [" ".join(chance.choices(words, k=chance.randrange(1, 15))) for _ in range(number)]


def test_no_text_is_too_strange_and_reading_it_twice_gives_the_same():
    for text in random_texts(600):
        parsed = parse_statement(text)
        assert parsed == parse_statement(text)
        assert parsed.kind in KINDS
        assert set(parsed.names) <= set(all_findings())
        assert parsed.findings or parsed.kind != "finding" or parsed.not_understood


@pytest.mark.parametrize("piece", ["(prox ", "lead ", "possible ", "V1-", "sinus or ", "a/", "no ", "st-t or "])
def test_a_long_text_takes_no_time(piece):
    assert parse_statement(piece * 300).kind in KINDS


def test_words_of_the_same_meaning_have_one_spelling():
    assert words_of("1st deg. A-V block") == words_of("FIRST DEGREE AV BLOCKS")
    assert words_of("V1 - V3") == words_of("V1-V3") == ("v1-v3",)
