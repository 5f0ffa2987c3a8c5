"""Disturbed records are physically what they say: power ratios, bands, leads by name, rates and lengths."""

import numpy as np
import pytest
from scipy.signal import periodogram

from datasets_scripts.records import ECGRecord
from modeling_esi import ESIFeatureExtractor
from modeling_esi.configuration_esi import LEADS
from modeling_esi.evaluation.perturbations import (
    LEAD_SETS,
    NOISES,
    add_noise,
    change_rate,
    keep_leads,
    lead_origins,
    shorten,
)

RATE = 360.0


def record(rate: float = RATE, seconds: float = 8.0, record_id: str = "r7", leads=tuple(LEADS)) -> ECGRecord:
    """Pulses of a heart at 75 beats a minute, another amplitude and offset in each lead; limb leads obey Einthoven."""
    time = np.arange(int(rate * seconds)) / rate
    pulse = np.exp(-0.5 * (((time % 0.8) - 0.3) / 0.02) ** 2)
    slow = np.sin(2 * np.pi * 1.25 * time)
    first, second = pulse + 0.1 * slow, 1.4 * pulse - 0.2 * slow
    limbs = {
        "I": first, "II": second, "III": second - first, "aVR": -(first + second) / 2, "aVL": first - second / 2,
        "aVF": second - first / 2,
    }  # fmt: skip
    chest = {f"V{i}": (0.3 * i - 1) * pulse + 0.05 * i * slow + 0.01 * i for i in range(1, 7)}
    rows = limbs | chest
    signal = np.stack([rows[lead] for lead in leads]).astype(np.float32)
    return ECGRecord(signal, leads, rate, record_id=record_id, patient_id="p1", labels=("NORM",), age=50.0)


def measured_snr(clean: ECGRecord, noisy: ECGRecord) -> np.ndarray:
    noise = noisy.signal.astype(float) - clean.signal
    with np.errstate(invalid="ignore"):  # a flat lead has no ratio
        return 10 * np.log10(np.nanvar(clean.signal, axis=1) / np.nanvar(noise, axis=1))


# ----- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [0, 6, 24])
@pytest.mark.parametrize("kind", NOISES)
def test_the_measured_ratio_is_the_one_asked_for(kind, snr_db):
    clean = record()
    noisy = add_noise(clean, kind, snr_db, seed=3)
    np.testing.assert_allclose(measured_snr(clean, noisy), snr_db, atol=0.1)
    assert (noisy.leads, noisy.sampling_rate, noisy.record_id, noisy.labels) == (clean.leads, RATE, "r7", ("NORM",))
    assert noisy.digital is None and noisy.signal.dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "low", "high", "share"),
    [("muscle", 15, 160, 0.97), ("baseline_wander", 0, 0.7, 0.95), ("powerline", 49, 51, 0.97)],
)
def test_each_noise_lies_in_its_band(kind, low, high, share):
    clean = record(seconds=20)
    noise = add_noise(clean, kind, 0).signal - clean.signal
    frequency, power = periodogram(noise, RATE, axis=-1)
    inside = (frequency >= low) & (frequency <= high)
    assert (power[:, inside].sum(axis=1) / power.sum(axis=1) > share).all()


def test_white_noise_is_flat_and_independent_between_leads():
    clean = record(seconds=20)
    noise = add_noise(clean, "white", 0).signal - clean.signal
    frequency, power = periodogram(noise, RATE, axis=-1)
    lower, upper = power[:, frequency < RATE / 4].mean(), power[:, frequency >= RATE / 4].mean()
    assert lower / upper == pytest.approx(1, abs=0.35)
    correlation = np.corrcoef(noise) - np.eye(12)
    assert np.abs(correlation).max() < 0.1


def test_powerline_has_one_phase_in_all_leads_and_the_countrys_frequency():
    clean = record(seconds=10)
    hum = add_noise(clean, "powerline", 0, powerline_frequency=60).signal - clean.signal
    np.testing.assert_allclose(np.corrcoef(hum), 1, atol=1e-3)
    frequency, power = periodogram(hum[0], RATE)
    assert frequency[power.argmax()] == pytest.approx(60, abs=0.2)


def test_chance_is_the_seed_and_the_records_name_alone():
    clean = record()
    one = add_noise(clean, "muscle", 6, seed=1).signal
    np.testing.assert_array_equal(one, add_noise(clean, "muscle", 6, seed=1).signal)
    assert not np.array_equal(one, add_noise(clean, "muscle", 6, seed=2).signal)
    assert not np.array_equal(one, add_noise(record(record_id="r8"), "muscle", 6, seed=1).signal)


def test_missing_samples_stay_missing_and_a_flat_lead_stays_flat():
    signal = record().signal.copy()
    signal[2, 100:400], signal[5] = np.nan, 0.25
    clean = record().with_metadata(signal=signal)
    noisy = add_noise(clean, "white", 6)
    np.testing.assert_array_equal(np.isnan(noisy.signal), np.isnan(signal))
    np.testing.assert_array_equal(noisy.signal[5], signal[5])
    np.testing.assert_allclose(np.delete(measured_snr(clean, noisy), 5), 6, atol=0.1)


def test_noise_that_cannot_be_in_a_record_is_refused():
    with pytest.raises(ValueError, match="above 100 Hz, got 100 Hz"):
        add_noise(record(rate=100.0), "powerline", 6)
    assert add_noise(record(rate=100.0), "muscle", 6).num_samples == 800
    with pytest.raises(ValueError, match="expected one of white"):
        add_noise(record(), "pink", 6)
    with pytest.raises(ValueError, match="finite SNR"):
        add_noise(record(), "white", float("nan"))


def test_integers_give_the_millivolts_that_are_disturbed():
    digital = (record().signal * 200).astype(np.int16)
    stored = ECGRecord.from_digital(digital, np.full(12, 200.0), np.zeros(12), tuple(LEADS), RATE, record_id="r7")
    noisy = add_noise(stored, "white", 12)
    np.testing.assert_allclose(measured_snr(stored, noisy), 12, atol=0.1)
    assert noisy.digital is None


# ----- leads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAD_SETS)
def test_a_removed_lead_is_absent_and_the_door_masks_or_derives_it_as_told(name):
    leads = LEAD_SETS[name]
    assert len(leads) == int(name)
    whole, reduced = record(), keep_leads(record(), leads)
    assert reduced.leads == leads and reduced.num_leads == len(leads)
    door = ESIFeatureExtractor(sampling_rate=100, duration=8.0, scaling="none")
    expected, got = door(whole), door(reduced)
    origins = lead_origins(leads)
    for slot, lead in enumerate(door.leads):
        assert bool(got["lead_mask"][0, slot]) == (origins[lead] != "masked")
        values = got["input_values"][0, slot].numpy()
        if origins[lead] == "masked":
            assert lead.startswith("V") or name == "1"
            assert not values.any()
        else:
            np.testing.assert_allclose(values, expected["input_values"][0, slot], atol=1e-5)


def test_leads_are_found_under_other_spellings_and_keep_them():
    upper = record().with_metadata(leads=tuple(f"MDC_ECG_LEAD_{lead.upper()}" for lead in LEADS))
    assert keep_leads(upper, ("aVR", "II")).leads == ("MDC_ECG_LEAD_II", "MDC_ECG_LEAD_AVR")
    np.testing.assert_array_equal(keep_leads(upper, ("aVR",)).signal[0], upper.signal[3])


def test_a_lead_that_is_not_there_cannot_be_kept():
    with pytest.raises(ValueError, match=r"record 'r7' has \(I, II\), got I, V2: leave out V2"):
        keep_leads(record(leads=("I", "II")), ("I", "V2"))
    with pytest.raises(ValueError, match="got none"):
        keep_leads(record(), ())


# ----- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100, 250, 500, 1000])
def test_another_rate_keeps_the_time_and_a_slow_sine(rate):
    time = np.arange(500 * 5) / 500
    clean = ECGRecord(np.sin(2 * np.pi * 3 * time)[None].astype(np.float32), ("II",), 500.0)
    changed = change_rate(clean, rate)
    assert changed.sampling_rate == rate and changed.num_samples == 5 * rate and changed.duration == 5.0
    expected = np.sin(2 * np.pi * 3 * np.arange(5 * rate) / rate)
    middle = slice(rate // 2, -rate // 2)
    np.testing.assert_allclose(changed.signal[0, middle], expected[middle], atol=3e-3)


def test_a_lower_rate_loses_what_lies_above_half_of_it():
    time = np.arange(5000) / 500
    clean = ECGRecord(np.sin(2 * np.pi * 80 * time)[None].astype(np.float32), ("II",), 500.0)
    assert np.std(change_rate(clean, 100).signal[0, 50:-50]) < 0.02
    assert np.std(change_rate(clean, 250).signal[0, 50:-50]) == pytest.approx(0.5**0.5, rel=0.02)


def test_gaps_stay_where_they_were_in_time():
    signal = record(rate=500.0, seconds=4).signal.copy()
    signal[0, 500:750], signal[3] = np.nan, np.nan
    changed = change_rate(record(rate=500.0, seconds=4).with_metadata(signal=signal), 100)
    missing = np.flatnonzero(np.isnan(changed.signal[0]))
    assert missing.min() == 100 and missing.max() == 149 and np.isnan(changed.signal[3]).all()
    assert np.isfinite(np.delete(changed.signal, (0, 3), axis=0)).all()


def test_a_shorter_record_is_the_beginning_of_the_longer_one():
    whole = record(seconds=8)
    for duration in (2.5, 5.0):
        part = shorten(whole, duration)
        assert part.duration == duration
        np.testing.assert_array_equal(part.signal, whole.signal[:, : part.num_samples])
    assert shorten(whole, 10.0) is whole and shorten(whole, 8.0) is whole
    with pytest.raises(ValueError, match="at least one sample"):
        shorten(whole, 0.0)
