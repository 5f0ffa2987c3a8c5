"""Resampling equals SciPy's, keeps what it should, and treats every row alike."""

import doctest

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly as scipy_resample_poly

from modeling_esi import resampling
from modeling_esi.resampling import resample, resample_poly, resampling_ratio

PAIRS = [
    (1000, 500),
    (500, 100),
    (257, 500),
    (360, 500),
    (400, 500),
    (500, 250),
    (128, 100),
    (977, 500),
    (100, 500),
    (1000, 100),
    (20, 500),
    (2000, 37),
]


def wave(rows: int, num_samples: int, seed: int = 0) -> np.ndarray:
    """A wandering signal of about 2 mV at most."""
    walk = np.random.default_rng(seed).normal(size=(rows, num_samples)).cumsum(axis=-1)
    return 2 * walk / np.abs(walk).max()


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("num_samples", [1, 37, 1283])
def test_equals_scipy(source: int, target: int, num_samples: int) -> None:
    signal = wave(3, num_samples)
    expected = scipy_resample_poly(signal, target, source, axis=-1)
    double = resample(torch.from_numpy(signal), source, target)
    single = resample(torch.from_numpy(signal).float(), source, target)
    assert double.shape == single.shape == expected.shape
    assert double.dtype == torch.float64 and single.dtype == torch.float32
    np.testing.assert_allclose(double.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-6)


def test_equal_rates_leave_the_signal_untouched() -> None:
    signal = torch.randn(2, 12, 37)
    assert resample(signal, 500, 500.0) is signal
    assert resample(signal, 1 / 0.002, 500) is signal
    assert resample_poly(signal, 7, 7) is signal


def test_any_number_of_axes() -> None:
    signal = torch.from_numpy(wave(6, 101))
    flat = resample(signal, 360, 500)
    assert torch.equal(resample(signal.reshape(2, 3, 101), 360, 500), flat.reshape(2, 3, -1))
    assert torch.equal(resample(signal[0], 360, 500), flat[0])


@pytest.mark.parametrize(("source", "target"), [(500, 100), (360, 500), (1000, 500), (977, 500)])
def test_a_row_gives_the_same_bits_alone_and_among_others(source: int, target: int) -> None:
    signal = torch.from_numpy(wave(61, 999)).float()
    together = resample(signal, source, target)
    for row in (0, 7, 60):
        assert torch.equal(resample(signal[row : row + 1], source, target)[0], together[row])
        assert torch.equal(resample(signal[row - 5 if row > 5 else 0 :], source, target)[min(row, 5)], together[row])


def test_one_hertz_survives_500_to_100() -> None:
    time = torch.arange(5000, dtype=torch.float64) / 500
    output = resample(torch.sin(2 * torch.pi * time), 500, 100)
    expected = torch.sin(2 * torch.pi * torch.arange(1000, dtype=torch.float64) / 100)
    assert output.shape == (1000,)
    assert (output - expected)[50:-50].abs().max() < 1e-3


def test_above_the_new_nyquist_frequency_is_removed() -> None:
    time = torch.arange(5000, dtype=torch.float64) / 500
    output = resample(torch.sin(2 * torch.pi * 120 * time), 500, 100)
    assert output[50:-50].abs().max() < 0.01


def test_ratio() -> None:
    assert resampling_ratio(500, 500) == (1, 1)
    assert resampling_ratio(977, 500) == (500, 977)
    assert resampling_ratio(19_997, 500) == (500, 19_997)
    assert resampling_ratio(1 / 0.004, 500) == (2, 1)
    assert resampling_ratio(np.float32(400), np.int64(500)) == (5, 4)


@pytest.mark.parametrize("source", [499.907, 257.3, 333.3333, 1000 / 3, 499.99, 127.98, 20.001, 19_999.9])
def test_odd_rates_are_met_within_the_documented_tolerance(source: float) -> None:
    up, down = resampling_ratio(source, 500)
    assert max(up, down) <= resampling.MAX_FACTOR
    assert abs(source * up / down / 500 - 1) <= 5e-5


@pytest.mark.parametrize("rate", [0, -500, float("nan"), float("inf")])
def test_senseless_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="source_rate: expected a positive number of Hz"):
        resample(torch.zeros(10), rate, 500)
    with pytest.raises(ValueError, match="target_rate"):
        resample(torch.zeros(10), 500, rate)


def test_senseless_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="up=0"):
        resample_poly(torch.zeros(10), 0, 1)
    with pytest.raises(ValueError, match=r"torch\.int16"):
        resample_poly(torch.zeros(10, dtype=torch.int16), 1, 2)
    with pytest.raises(ValueError, match="cannot resample"):
        resampling_ratio(1e-3, 500)


def test_the_documented_examples() -> None:
    assert doctest.testmod(resampling).failed == 0
