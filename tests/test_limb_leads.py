"""Einthoven's and Goldberger's laws on generated and real limb leads; exchanged columns and electrodes are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.checks.limb_leads import (
    breaks_einthoven,
    einthoven_residual,
    limb_lead_notices,
    suspected_limb_reversal,
)
from datasets_scripts.records import DIGITAL_NAN, ECGRecord, read_record
from datasets_scripts.synthetic import generate_record

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ARMS = "right arm and left arm electrodes are exchanged"
RIGHT_SIDE = "right arm and right leg electrodes are exchanged"


def real_records() -> list[ECGRecord]:
    paths = [*sorted((DATA / "ptbxl/records500").rglob("*.hea")), *sorted((DATA / "physionet2021").rglob("*.hea"))]
    if not paths:
        pytest.skip("needs real records in ../shared/data/ptbxl and ../shared/data/physionet2021")
    return [read_record(path) for path in paths]


def sinus_records() -> list[ECGRecord]:
    """Model hearts in sinus rhythm, with clear P waves."""
    return [generate_record(seed, ["normal ECG"], heart_rate=60 + seed) for seed in range(12)]


def with_columns(record: ECGRecord, order: list[int], inverted: tuple[int, ...] = ()) -> ECGRecord:
    """Row i becomes row order[i], under the old names; `inverted` rows then change sign."""
    digital = record.digital.copy()
    digital[:6] = digital[order]
    digital[list(inverted)] *= -1
    return record.with_metadata(digital=digital)


def with_electrodes(record: ECGRecord, exchanged: Callable[..., tuple]) -> ECGRecord:
    """The limb leads of other electrode places. Potentials against the left leg: RA = -II, LA = -III, LL = 0; the
    right leg is nearly the left."""
    signal = record.signal.copy()
    right_leg = np.random.default_rng(5).normal(0, 0.005, signal.shape[1])
    right, left, leg = exchanged(-signal[1], -signal[2], np.zeros_like(signal[0]), right_leg)
    one, two = left - right, leg - right
    signal[:6] = one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2
    return ECGRecord(signal, record.leads, record.sampling_rate)


def limb_record(rows: dict[str, np.ndarray]) -> ECGRecord:
    return ECGRecord(np.stack(list(rows.values())), tuple(rows), 100)


def waves(num_samples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    time = np.arange(num_samples) / 100
    return np.sin(2 * np.pi * 1.3 * time), 0.8 * np.sin(2 * np.pi * 0.7 * time)


# ----- the laws ------------------------------------------------------------------------------------------------------


def test_the_residual_of_a_known_error() -> None:
    """III is 0.2 mV off for a tenth of the time: the 99th percentile of |II - I - III| is 0.2 mV."""
    one, two = waves()
    three = two - one
    three[200:300] += 0.2
    assert einthoven_residual(limb_record({"I": one, "II": two, "III": three})) == pytest.approx(0.2, abs=1e-6)
    three[200:300] -= 0.2
    assert einthoven_residual(limb_record({"I": one, "II": two, "III": three})) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("lead", "law"),
    [
        ("III", lambda one, two: two - one),
        ("AVR", lambda one, two: -(one + two) / 2),
        ("avl", lambda one, two: one - two / 2),
        ("aVF", lambda one, two: two - one / 2),
    ],
)
def test_each_law_is_tested_by_itself(lead: str, law: Callable) -> None:
    one, two = waves()
    assert not breaks_einthoven(limb_record({lead: law(one, two), "I": one, "DII": two}))
    assert breaks_einthoven(limb_record({lead: 1.3 * law(one, two), "I": one, "DII": two}))


def test_without_leads_there_is_no_answer() -> None:
    one, two = waves()
    for leads in ({"I": one, "II": two}, {"I": one, "III": two, "aVF": one}, {"V1": one, "V2": two, "V3": one}):
        record = limb_record(leads)
        assert einthoven_residual(record) is None
        assert not breaks_einthoven(record)
        assert suspected_limb_reversal(record) is None and limb_lead_notices(record) == {}


def test_a_lead_without_samples_is_missing_and_missing_samples_are_passed_over() -> None:
    record = generate_record(3)
    digital = record.digital.copy()
    digital[3] = DIGITAL_NAN  # aVR: MIMIC-IV-ECG has such leads
    digital[1, 1000:2000] = DIGITAL_NAN
    assert einthoven_residual(record.with_metadata(digital=digital)) < 0.01
    digital[1] = DIGITAL_NAN
    assert einthoven_residual(record.with_metadata(digital=digital)) is None


def test_constant_offsets_and_baselines_do_not_count() -> None:
    record = generate_record(3)
    shift = np.arange(12, dtype=np.int16)[:, None] * 111
    assert not breaks_einthoven(record.with_metadata(digital=record.digital + shift))
    moved = record.with_metadata(digital=record.digital + np.int16(2048), offset=np.full(12, 2048.0))
    assert einthoven_residual(moved) == pytest.approx(einthoven_residual(record), abs=1e-6)


def test_samples_cut_off_at_the_rail_do_not_count() -> None:
    record = generate_record(3)
    limit = np.percentile(record.digital[1], 97)
    digital = record.digital.copy()
    digital[1] = np.minimum(digital[1], int(limit))
    plain = record.digital[1].astype(int) - record.digital[0] - record.digital[2]
    cut = digital[1].astype(int) - digital[0] - digital[2]
    assert np.percentile(np.abs(cut), 99) > 20 * np.percentile(np.abs(plain), 99)
    assert not breaks_einthoven(record.with_metadata(digital=digital))


def test_coarse_converters_are_not_blamed() -> None:
    """5 uV and 20 uV steps, truncated: MIMIC-IV-ECG and old machines."""
    for gain in (200.0, 50.0):
        for seed in range(5):
            record = generate_record(seed)
            digital = np.floor(record.signal * gain).astype(np.int16)
            coarse = record.with_metadata(digital=digital, gain=np.full(12, gain))
            assert not breaks_einthoven(coarse)


def test_a_lost_lead_breaks_the_law_and_names_no_exchange() -> None:
    record = generate_record(3)
    digital = record.digital.copy()
    digital[4] = 0
    lost = record.with_metadata(digital=digital)
    assert breaks_einthoven(lost) and suspected_limb_reversal(lost) is None
    (detail,) = limb_lead_notices(lost).values()
    assert detail == f"by {einthoven_residual(lost):.3f} mV"


def test_tiny_records_do_no_harm() -> None:
    for num_samples in (1, 2, 7):
        record = ECGRecord(np.arange(12.0 * num_samples).reshape(12, -1) % 5, generate_record(3).leads, 500)
        limb_lead_notices(record)
        einthoven_residual(record)


# ----- columns of a file ---------------------------------------------------------------------------------------------

COLUMNS = {
    "aVL and aVF are exchanged": ([0, 1, 2, 3, 5, 4], ()),
    "aVR and aVL are exchanged": ([0, 1, 2, 4, 3, 5], ()),
    "I and II are exchanged": ([1, 0, 2, 3, 4, 5], ()),
    "III and aVF are exchanged": ([0, 1, 5, 3, 4, 2], ()),
    "aVR is inverted": ([0, 1, 2, 3, 4, 5], (3,)),
    "I is inverted": ([0, 1, 2, 3, 4, 5], (0,)),
    "aVR, aVL, aVF hold aVF, aVR, aVL": ([0, 1, 2, 5, 3, 4], ()),
    "the limb leads are in Cabrera's order, with -aVR": ([4, 0, 3, 1, 5, 2], (2,)),
    "the limb leads are in Cabrera's order, with aVR upright": ([4, 0, 3, 1, 5, 2], ()),
}


@pytest.mark.parametrize("expected", COLUMNS)
def test_exchanged_columns_are_named(expected: str) -> None:
    for seed in range(8):
        exchanged = with_columns(generate_record(seed), *COLUMNS[expected])
        assert suspected_limb_reversal(exchanged) == expected
        assert limb_lead_notices(exchanged)["suspected limb lead reversal"] == expected
        assert breaks_einthoven(exchanged)


def test_the_order_of_rows_is_not_what_counts() -> None:
    """MIMIC-IV-ECG's own order, rightly named, is fine; read as the usual order, it is not."""
    record = generate_record(3)
    order = [0, 1, 2, 3, 5, 4, *range(6, 12)]
    digital = record.digital[order]
    assert limb_lead_notices(record.with_metadata(digital=digital, leads=tuple(record.leads[i] for i in order))) == {}
    assert suspected_limb_reversal(record.with_metadata(digital=digital)) == "aVL and aVF are exchanged"


def test_exchanges_that_cannot_be_told_apart_are_not_named() -> None:
    one, two = waves()
    record = limb_record({"I": two, "II": one, "III": two - one})  # or is III inverted?
    assert breaks_einthoven(record) and suspected_limb_reversal(record) is None


# ----- electrodes ----------------------------------------------------------------------------------------------------


def test_model_hearts_raise_no_alarm() -> None:
    for seed in range(60):
        assert limb_lead_notices(generate_record(seed)) == {}


def test_exchanged_arms_are_found_in_sinus_rhythm() -> None:
    found = [
        suspected_limb_reversal(with_electrodes(record, lambda right, left, leg, _: (left, right, leg)))
        for record in sinus_records()
    ]
    assert found.count(ARMS) >= 10 and set(found) <= {ARMS, None}


def test_without_p_waves_exchanged_arms_are_not_claimed() -> None:
    record = generate_record(1, ["atrial fibrillation"])
    exchanged = with_electrodes(record, lambda right, left, leg, _: (left, right, leg))
    assert suspected_limb_reversal(exchanged) is None


def test_right_arm_and_right_leg() -> None:
    """The right arm's wire is on the right leg: lead II lies between the legs and is flat."""
    found = [
        suspected_limb_reversal(with_electrodes(record, lambda right, left, leg, right_leg: (right_leg, left, leg)))
        for record in sinus_records()
    ]
    assert found.count(RIGHT_SIDE) >= 9 and set(found) <= {RIGHT_SIDE, ARMS, None}


def test_right_arm_and_left_leg_turn_the_inferior_leads_too() -> None:
    found = {
        suspected_limb_reversal(with_electrodes(record, lambda right, left, leg, _: (leg, left, right)))
        for record in sinus_records()
    }
    assert found <= {"right arm and left leg electrodes are exchanged", None}


def test_dextrocardia_is_no_reversal() -> None:
    """A mirrored heart turns lead I as exchanged arms do, but V6 with it."""
    for record in sinus_records():
        mirrored = with_electrodes(record, lambda right, left, leg, _: (left, right, leg))
        signal = mirrored.signal.copy()
        signal[6:] = 0.3 * signal[6:][::-1]  # V6 looks at the far side: an rS complex
        assert suspected_limb_reversal(ECGRecord(signal, record.leads, 500)) is None


def test_electrode_exchanges_keep_the_laws() -> None:
    record = with_electrodes(generate_record(3), lambda right, left, leg, _: (left, right, leg))
    assert einthoven_residual(record) < 1e-5


# ----- real recordings -----------------------------------------------------------------------------------------------


def test_real_records_keep_the_laws_and_raise_no_alarm() -> None:
    for record in real_records():
        assert einthoven_residual(record) <= 0.004
        assert suspected_limb_reversal(record) is None


def test_reversals_made_of_real_records_are_found() -> None:
    records = real_records()
    arms = [with_electrodes(record, lambda right, left, leg, _: (left, right, leg)) for record in records]
    right = [with_electrodes(record, lambda right, left, leg, right_leg: (right_leg, left, leg)) for record in records]
    columns = [with_columns(record, [0, 1, 2, 3, 5, 4]) for record in records]
    assert sum(suspected_limb_reversal(record) == ARMS for record in arms) > 0.7 * len(records)
    assert sum(suspected_limb_reversal(record) == RIGHT_SIDE for record in right) > 0.9 * len(records)
    assert all(suspected_limb_reversal(record) == "aVL and aVF are exchanged" for record in columns)


def test_records_z_scored_per_lead_break_the_laws_and_name_no_exchange() -> None:
    paths = sorted((DATA / "ptbxl_filtered").rglob("*.hea"))[::10]
    if not paths:
        pytest.skip("needs real records in ../shared/data/ptbxl_filtered")
    for record in map(read_record, paths):
        assert breaks_einthoven(record) and suspected_limb_reversal(record) is None
