"""Spellings of leads in file formats."""

import pytest

from datasets_scripts.readers.lead_codes import LEADS, lead_of_code, plain_lead_name, told_name


@pytest.mark.parametrize(
    "pattern", ["MDC_ECG_LEAD_{}", "MDC_ECG_ELEC_POTL_{}", "Lead {}", "ECG {}", "EKG {}", "{}", " {} "]
)
def test_every_lead_in_every_spelling(pattern):
    assert tuple(plain_lead_name(pattern.format(lead.upper())) for lead in LEADS) == LEADS


@pytest.mark.parametrize("name", ["", "Pleth", "-aVR", "MLII", "I-II", "ECG", "ECG 1", "VI", "V10"])
def test_other_names_are_none_of_them(name):
    assert plain_lead_name(name) is None


def test_codes():
    numbers = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    assert tuple(lead_of_code(f"5.6.3-9-{number}") for number in numbers) == LEADS
    assert tuple(lead_of_code(f"2:{number}") for number in numbers) == LEADS
    assert lead_of_code("5.6.3-9-65") == "-aVR"
    assert lead_of_code("MDC_ECG_LEAD_V3") == "V3"
    assert lead_of_code("5.6.3-9-999") is None and lead_of_code("") is None


def test_told_names_are_printable_and_short():
    assert told_name("a\n\x00b  c") == "a b c"
    assert len(told_name("x" * 1000)) == 40
