"""What a sentence claims: waves bound to their leads, numbers and directions."""

import pytest

from datasets_scripts.cqa.claims import read_sentence


def claims(text):
    """Each claim as (waves, ends of axes, leads, numbers)."""
    return [
        (
            "".join(sorted(claim.waves)),
            {end for _, _, end in claim.poles},
            "".join(sorted(claim.leads)),
            [measure.low for measure in claim.measures],
        )
        for claim in read_sentence(text).claims
    ]


def test_each_wave_has_its_own_leads_and_numbers():
    text = "The ST segment is elevated by 0.1 mV in II, III and aVF, with reciprocal ST depression in aVL and I."
    assert claims(text) == [("st", {"up"}, "IIIIIaVF", [0.1]), ("st", {"down"}, "IaVL", [])]
    assert claims("rS in aVL, whereas III and aVF show qR")[1][2] == "IIIaVF"
    assert claims("T waves are inverted in II and positive in V1") == [
        ("t", {"down"}, "II", []),
        ("t", {"up"}, "V1", []),
    ]


@pytest.mark.parametrize(
    ("text", "leads"),
    [
        ("Q in V1-V3", "V1 V2 V3"),
        ("Q in V4 through V6", "V4 V5 V6"),
        ("Q in V1\u20133", "V1 V2 V3"),
        ("Q in leads I, aVL, and V6", "I aVL V6"),
        ("Mobitz type II block: Q in v4R", "V4R"),
    ],
)
def test_lead_lists(text, leads):
    assert read_sentence(text).leads == frozenset(leads.split())


def test_groups_of_leads_are_loose():
    reading = read_sentence("ST elevation in the inferior and lateral leads")
    assert reading.claims[0].groups == ("inferior", "lateral") and not reading.leads
    assert reading.all_leads >= {"II", "III", "aVF", "V5", "V6"}
    assert not read_sentence("Necrosis of the inferior wall").all_leads
    named = read_sentence("ST elevation in the inferior leads (II, III, aVF)").claims[0]
    assert not named.groups and named.leads == {"II", "III", "aVF"}


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("There are no P waves.", True),
        ("The QRS is not preceded by a P wave.", True),
        ("P waves are not visible.", True),
        ("Loss of P waves", True),
        ("P waves are replaced by flutter waves.", True),
        ("Not all P waves are conducted.", False),
        ("The P wave does not exceed 0.25 mV.", False),
        ("A P wave precedes each QRS.", False),
    ],
)
def test_absence(text, absent):
    assert next(claim for claim in read_sentence(text).claims if "p" in claim.waves).absent == absent


def test_what_stands_between_no_and_a_wave_is_all_that_is_absent():
    baseline, flutter = read_sentence("There is no level baseline between the flutter waves.").claims
    assert baseline.absent and not flutter.absent


def test_a_number_says_what_a_word_says():
    assert ("qrs", "width", "wide") in read_sentence("The QRS lasts 120 ms or more.").claims[0].poles
    assert ("rate", "rate", "slow") in read_sentence("The rate is below 60 bpm.").claims[0].poles
    assert ("axis", "side", "left") in read_sentence("An axis of -45 to -90 degrees").claims[0].poles


def test_the_part_of_a_beat_is_the_part():
    (claim,) = read_sentence("The T wave of the premature beat is inverted.").claims
    assert claim.waves == {"t"} and claim.poles == {("t", "polarity", "down")}


def test_words_that_mean_the_same_count_as_one():
    one = read_sentence("A broad, notched QRS precedes the regular pause").words
    assert one == read_sentence("The widened and slurred QRS is preceded by a constant pause").words
