"""Lead names as the world writes them, and Einthoven's and Goldberger's laws."""

import doctest
import itertools

import pytest
import torch

from modeling_esi import lead_names
from modeling_esi.configuration_esi import LEADS
from modeling_esi.lead_names import LIMB_LEADS, derive_limb_leads, limb_lead_weights, match_leads, parse_lead_name


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize(
    "spelling",
    ["{}", "Lead {}", "lead_{}", "Lead-{}", "ECG {}", "ecg_lead_{}", "MDC_ECG_LEAD_{}", "MDC_ECG_ELEC_POTL_{}", " {} "],
)
def test_every_lead_in_every_case(lead: str, spelling: str) -> None:
    name = spelling.format(lead)
    assert parse_lead_name(name) == parse_lead_name(name.upper()) == parse_lead_name(name.lower()) == lead


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("DI", "I"),
        ("dii", "II"),
        ("D3", "III"),
        ("Lead I (Einthoven)", "I"),
        ("aVR (Goldberger)", "aVR"),
        ("aVF, augmented voltage, foot", "aVF"),
        ("a VL", "aVL"),
        ("V 4", "V4"),
        ("\u2162", "III"),  # the single character for Roman three
    ],
)
def test_other_spellings(name: str, lead: str) -> None:
    assert parse_lead_name(name) == lead


@pytest.mark.parametrize(
    "name",
    ["", "lead", "V", "V0", "V7", "V3R", "V10", "VX", "vy", "MLII", "MCL1", "CM5", "VR", "IV", "I-II", "I II", "II III"]
    + ["ECG", "ECG 1", "1", "C1", "RESP", "PLETH", "ECG I filtered", "-aVR", "\u2212aVR", "aVR-", "Lead -aVR"],
)
def test_what_is_not_one_of_the_twelve(name: str) -> None:
    assert parse_lead_name(name) is None


def test_channels_known_to_be_something_else_are_left_out_and_told(caplog) -> None:
    names = ("MLII", "vx", "V8", "V4R", "RESP", "V", "DII", "V5")
    assert match_leads(names) == (None,) * 6 + ("II", "V5")
    for said in ("'MLII' (a modified lead", "'vx' (a Frank lead", "'V8' (a posterior", "'RESP' (not an ECG)"):
        assert said in caplog.text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("MLII", "vx"), ["at least one of", "'MLII' (a modified lead", "'vx' (a Frank lead"]),
        (("I", "-aVR"), ["'-aVR' (a negated lead: turn its sign"]),
        (("ECG 1", "ECG 2"), ["'ECG 1' (a number"]),
        (("foo",), ["'foo' (unknown)", "I, II, III, aVR", "ignore_unknown_leads=True"]),
        (("I", "II", "DI"), ["each lead once", "I as ['I', 'DI']"]),
        (("I", None), ["got None"]),
        ((), ["at least one of"]),
    ],
)
def test_refused_names_are_named(names: tuple, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        match_leads(names)
    for word in words:
        assert word in str(error.value)


def test_unknown_channels_can_be_left_out() -> None:
    assert match_leads(("vx", "II", "RESP"), ignore_unknown=True) == (None, "II", None)
    with pytest.raises(ValueError, match="at least one of"):
        match_leads(("vx", "vy"), ignore_unknown=True)
    with pytest.raises(ValueError, match="each lead once"):
        match_leads(("II", "vx", "ii"), ignore_unknown=True)


def limb_leads(one: torch.Tensor, two: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "I": one,
        "II": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_any_limb_leads_give_the_others(count: int) -> None:
    torch.manual_seed(0)
    truth = limb_leads(*torch.randn(2, 37, dtype=torch.float64))
    for available in itertools.combinations(LIMB_LEADS, count):
        weights = limb_lead_weights(available)
        assert set(weights) == set(LIMB_LEADS) - set(available)
        for lead, factors in weights.items():
            derived = sum(w * truth[a] for w, a in zip(factors, available, strict=True))
            torch.testing.assert_close(derived, truth[lead])


def test_textbook_weights() -> None:
    weights = limb_lead_weights(("I", "II"))
    assert weights == {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def test_disagreeing_leads_are_met_by_least_squares() -> None:
    """I = 1, II = 0, III = 0 do not add up; the nearest (I, II) is (2/3, 1/3), by hand."""
    weights = limb_lead_weights(("I", "II", "III"))
    one, two = 2 / 3, 1 / 3
    measured = (1.0, 0.0, 0.0)
    for lead, expected in {"aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}.items():
        assert sum(w * m for w, m in zip(weights[lead], measured, strict=True)) == pytest.approx(expected)


def test_derivation_fills_only_what_is_missing() -> None:
    torch.manual_seed(0)
    signal = torch.randn(3, 12, 37)
    present = torch.ones(3, 12, dtype=torch.bool)
    order = list(reversed(LEADS))
    for record, missing in enumerate((["III", "V2"], LIMB_LEADS[1:], [])):
        for lead in missing:
            present[record, order.index(lead)] = False
    signal[~present] = 0.0
    before = signal.clone()
    derive_limb_leads(signal, present, order)
    assert present[0].sum() == 11 and not present[0, order.index("V2")]
    assert present[1].sum() == 7  # one limb lead: no other follows
    changed = (signal != before).any(dim=-1)
    assert changed.sum() == 1 and changed[0, order.index("III")]
    weights = limb_lead_weights(("I", "II", "aVR", "aVL", "aVF"))["III"]
    by_hand = sum(w * before[0, order.index(a)] for w, a in zip(weights, ("I", "II", "aVR", "aVL", "aVF"), strict=True))
    torch.testing.assert_close(signal[0, order.index("III")], by_hand)


def test_the_documented_examples() -> None:
    assert doctest.testmod(lead_names).failed == 0
