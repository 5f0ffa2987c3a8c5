"""What enters a record of what a file says about a patient."""

import datetime
import hashlib

import pytest

from datasets_scripts.readers.demographics import (
    age_between,
    age_of,
    date_of,
    identity_rule,
    report_of,
    safe_statements,
    sex_of,
)


def test_identity_rule():
    assert identity_rule()("4711") is None
    assert identity_rule("keep")(" 4711 ") == "4711"
    assert identity_rule("keep")("") is None
    assert identity_rule("hash", "salt")("4711") == hashlib.sha256(b"salt4711").hexdigest()[:16]


@pytest.mark.parametrize(
    ("choice", "salt"), [("hash", None), ("hash", ""), ("drop", "salt"), ("keep", "x"), ("all", None)]
)
def test_identity_rule_refuses(choice, salt):
    with pytest.raises(ValueError, match="expected"):
        identity_rule(choice, salt)


@pytest.mark.parametrize(
    ("amount", "unit", "age"),
    [("056", "Y", 56), ("89", "YEARS", 89), ("90", "YEARS", 90), ("104", "Y", 90), ("011", "M", 0), ("400", "D", 1)]
    + [("", "Y", None), ("abc", "Y", None), ("56", "FURLONGS", None), ("999", "Y", None), (None, None, None)],
)
def test_age_of(amount, unit, age):
    assert age_of(amount, unit) == age


def test_age_between_counts_birthdays():
    birth = datetime.date(1953, 5, 8)
    assert age_between(birth, datetime.date(2002, 5, 7)) == 48
    assert age_between(birth, datetime.date(2002, 5, 8)) == 49
    assert age_between(birth, datetime.date(2052, 5, 8)) == 90
    assert age_between(birth, datetime.date(1950, 1, 1)) is None
    assert age_between(date_of("20010230"), birth) is None


def test_sex_of():
    assert [sex_of(text) for text in ("M", "FEMALE", "f ", "UN", "O", "", None)] == [
        "male",
        "female",
        "female",
        None,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Confirmed by VLAY, M.D., STEPHEN (1008) on 2/9/2015 11:10:33 AM",
        "Electronically signed by Lawson",
        "Reviewed electronically by Lawson",
        "Referred by: Dr. Grey",
        "Bestätigt durch Oberarzt Muster",
        "Validé par le docteur Martin",
        "Technician: Jones",
    ],
)
def test_lines_about_people_are_left_out(line):
    assert safe_statements([line, "Sinus rhythm"], []) == (("Sinus rhythm",), ("left_out_statement: confirmation",))


@pytest.mark.parametrize(
    "line", ["Unconfirmed", "Diagnostic non confirmé.", "Left axis deviation", "R/S transition in V3"]
)
def test_lines_about_the_heart_stay(line):
    assert safe_statements([line], ["Smith^John", "123"]) == ((line,), ())


def test_names_and_numbers_of_the_file_are_left_out():
    lines = ["ECG of Mrs Sommerfeld-Grün", "sinus rhythm for sommerfeld", "seen in 81-773", "Normal ECG"]
    statements, repairs = safe_statements(lines[1:], ["Sommerfeld^Anna", "81-773"])
    assert (statements, repairs) == (("Normal ECG",), ("left_out_statement: identity",) * 2)
    assert safe_statements(["Rate 100, PR 250"], ["100-250", "100"]) == (("Rate 100, PR 250",), ())
    assert "Sommerfeld" not in " ".join(safe_statements(lines, [])[0])


def test_dates_and_long_numbers_are_masked():
    lines = ["Anterior infarct (cited on or before 14-FEB-2011)", "When compared with ECG of 2/9/2015 11:10,"]
    lines += ["Call 555-123456", "since 2011-02-14"]
    assert safe_statements(lines, []) == (
        (
            "Anterior infarct (cited on or before [date])",
            "When compared with ECG of [date],",
            "Call [number]",
            "since [date]",
        ),
        ("masked_in_statement: date",) * 2 + ("masked_in_statement: number", "masked_in_statement: date"),
    )


def test_report_of():
    assert (
        report_of(["Sinus rhythm", "Compared with [date],", "Normal."]) == "Sinus rhythm. Compared with [date], Normal."
    )
    assert report_of([]) == ""
