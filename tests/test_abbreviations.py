"""Terms: abbreviations and full names give the same findings; LAD is an axis or an artery by the words around it."""

import pytest

from datasets_scripts.cqa.abbreviations import ABBREVIATIONS, ARTERY, findings_asked, spelled_out, terms_of
from datasets_scripts.cqa.findings import all_findings

AXIS = "left axis deviation"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("LBBB", "left bundle-branch block"),
        ("RBBB", "Right Bundle Branch Block"),
        ("AFib", "atrial fibrillation"),
        ("PVCs", "ventricular premature complexes"),
        ("1st deg AV block", "first-degree A-V block"),
        ("WPW", "Wolff-Parkinson-White pattern"),
        ("STEMI", "ST-elevation myocardial infarction"),
        ("TdP", "torsades de pointes"),
        ("PE", "pulmonary embolism"),
        ("CHB", "third degree AV block"),
        ("BER", "early repolarisation"),
    ],
)
def test_an_abbreviation_is_what_it_is_short_for(short, long):
    assert terms_of(short).findings == terms_of(long).findings != ()
    assert set(terms_of(f"Seen in {long}, too.").all) >= {f"finding:{terms_of(short).findings[0]}"}


@pytest.mark.parametrize(
    ("text", "axis", "artery"),
    [
        ("LAD", True, True),
        ("LAD of -45 degrees", True, False),
        ("LAFB with LAD", True, False),
        ("Occlusion of the proximal LAD", False, True),
        ("the LAD or the RCA", False, True),
        ("left anterior descending artery", False, True),
        ("left axis deviation", True, False),
        ("LAD lesion beside LAD axis", True, True),
        ("LADY", False, False),
    ],
)
def test_lad_is_axis_or_artery(text, axis, artery):
    terms = terms_of(text)
    assert (AXIS in terms.findings, ARTERY in terms.other) == (axis, artery)
    assert (AXIS in findings_asked(text)) == axis


def test_the_longest_name_counts():
    assert terms_of("Incomplete right bundle branch block").findings == ("incomplete right bundle branch block",)
    assert terms_of("Mobitz type II second degree AV block").findings == ("mobitz type ii second degree av block",)


def test_findings_of_parts_come_from_the_statement_parser():
    assert findings_asked("Where is an old inferior MI seen?") == ("inferior myocardial infarction",)
    both = ("right bundle branch block", "left anterior fascicular block")
    assert findings_asked("How do RBBB and LAFB look?") == both
    assert findings_asked("What is the capital of France?") == ()


def test_words_keep_leads_numbers_and_ratios():
    assert terms_of("R/S in V1-V3 is 0.5, 2:1, rSR' in aVL").words == (
        "r", "s", "in", "v1", "v3", "is", "0.5", "2:1", "rsr'", "in", "avl",
    )  # fmt: skip


def test_every_abbreviation_adds_its_words_once():
    for short, long in ABBREVIATIONS.items():
        assert spelled_out(f"The {short.upper()}.") == f"The {short.upper()} ({long})."
    assert spelled_out("Pericarditis") == "Pericarditis"


def test_every_name_is_found_by_its_own_words():
    for name in all_findings():
        assert name in terms_of(name).findings, name
