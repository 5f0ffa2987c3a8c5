"""The coarse median beat: beats are found where they are, and the waves point where they point."""

import numpy as np
import pytest

from datasets_scripts.checks.median_beat import excerpt, median_beat
from datasets_scripts.records import ECGRecord
from datasets_scripts.synthetic import generate_record


def spikes(rate: float, period: float, duration: float = 10.0, height: float = 1.0) -> np.ndarray:
    """Triangles of 60 ms, `period` seconds apart, the first at 0.5 s; `(2, samples)`, the second lead inverted."""
    time = np.arange(round(duration * rate)) / rate
    phase = (time - 0.5 + period / 2) % period - period / 2
    wave = height * np.clip(1 - np.abs(phase) / 0.03, 0, None)
    return np.stack([wave, -wave])


@pytest.mark.parametrize("rate", [100, 128, 250, 400, 500, 1000])
def test_the_beat_is_in_the_middle_with_its_height_and_sign(rate: int) -> None:
    beat = median_beat(ECGRecord(spikes(rate, 0.8), ("II", "AVR"), rate))
    assert beat is not None and beat.leads == ("II", "aVR") and 66 <= beat.sampling_rate <= 150
    assert beat.part("II", -0.05, 0.06).max() > 0.6
    assert beat.part("aVR", -0.05, 0.06).min() == -beat.part("II", -0.05, 0.06).max()
    assert not beat.part("II", -0.28, -0.10).any()


def test_one_odd_beat_does_not_change_the_median() -> None:
    signal = spikes(500, 0.8)
    odd = signal.copy()
    odd[:, 2000:2100] += 3
    one, other = (median_beat(ECGRecord(s, ("I", "V6"), 500)) for s in (signal, odd))
    assert np.abs(one.part("I", -0.1, 0.1) - other.part("I", -0.1, 0.1)).max() < 0.15


def test_no_beat_without_beats() -> None:
    flat = np.zeros((2, 5000))
    assert median_beat(ECGRecord(flat, ("I", "II"), 500)) is None
    assert median_beat(ECGRecord(spikes(500, 0.8, duration=1.5), ("I", "II"), 500)) is None
    assert median_beat(ECGRecord(spikes(40, 0.8), ("I", "II"), 40)) is None
    assert median_beat(ECGRecord(flat[:, :1], ("I", "II"), 500)) is None


def test_missing_samples_do_no_harm() -> None:
    signal = spikes(500, 0.8)
    signal[0, 100:300] = np.nan
    beat = median_beat(ECGRecord(signal, ("I", "II"), 500))
    assert beat is not None and np.isfinite(beat.signal).all()


def test_an_excerpt_is_every_kth_sample_in_millivolt() -> None:
    record = generate_record(3)
    assert np.array_equal(excerpt(record, (7, 2), 5, 4000), record.signal[[7, 2], :4000:5])
    plain = ECGRecord(record.signal, record.leads, 500)
    assert np.array_equal(excerpt(plain, (7, 2), 5), record.signal[[7, 2], ::5])
