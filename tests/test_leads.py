"""Lead names in the spellings that files have."""

import pytest

from datasets_scripts.checks.leads import LEADS, canonical_lead, distinct_leads


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("I", "I"), ("dii", "II"), ("D3", "III"), ("AVR", "aVR"), ("avr", "aVR"), ("aV-L", "aVL"), ("a VF", "aVF"),
        ("MDC_ECG_LEAD_AVR", "aVR"), ("MDC_ECG_LEAD_V6", "V6"), ("MDC_ECG_ELEC_POTL_AVF", "aVF"),
        ("Lead I (Einthoven)", "I"), ("Lead aVR (Goldberger)", "aVR"), ("aVR, augmented voltage, right", "aVR"),
        ("lead_v1", "V1"), ("ECG II", "II"), ("v5", "V5"), (" V2 ", "V2"), ("\uff36\uff11", "V1"),
    ],
)  # fmt: skip
def test_usual_spellings(name: str, expected: str) -> None:
    assert canonical_lead(name) == expected


@pytest.mark.parametrize(
    "name", ["MLII", "-aVR", "V7", "V3R", "vx", "ECG 4", "I-II", "IIII", "PLETH", "ECG I filtered"]
)
def test_other_channels_keep_their_name(name: str) -> None:
    assert canonical_lead(f" {name} ") == name


def test_canonical_names_are_their_own() -> None:
    assert distinct_leads(LEADS) == LEADS


def test_two_channels_of_one_lead_stay_two() -> None:
    assert distinct_leads(("ECG I", "ECG I", "DI", "DI", "V1")) == ("I", "ECG I", "DI", "DI (channel 3)", "V1")


def test_both_packages_read_names_alike() -> None:
    """The door of the model has its own reader of names: they may not drift apart."""
    lead_names = pytest.importorskip("modeling_esi.lead_names")
    for name in ("AVR", "DI", "mdc_ecg_lead_v3", "Lead II (Einthoven)", "MLII", "-aVL", "V7", "ecg: v4", "C1", "D2"):
        parsed = lead_names.parse_lead_name(name)
        assert canonical_lead(name) == (parsed or name)
