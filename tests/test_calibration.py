"""Integers become records by one rule."""

from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.readers.calibration import (
    check_size,
    checked_rate,
    millivolt_per_unit,
    record_of_integers,
    record_of_millivolts,
)

PATH = Path("folder/ward 7.dcm")


def record(integers, gain=200.0, offset=0.0, **metadata):
    integers = np.array(integers)
    return record_of_integers(
        PATH, integers, [gain] * len(integers), [offset] * len(integers), ["I", "II"], 250, **metadata
    )


def test_small_integers_are_kept():
    made = record([[100, -200, 0], [1, 2, 3]], gain=200, offset=10, report="x")
    assert made.digital.tolist() == [[100, -200, 0], [1, 2, 3]]
    np.testing.assert_allclose(made.signal[0], [0.45, -1.05, -0.05], rtol=1e-6)
    assert (made.record_id, made.report) == ("ward 7", "x")


def test_unsigned_16_bits_are_moved_and_mean_the_same():
    made = record([[32768, 65535, 20000], [32768] * 3], gain=1000, offset=32768)
    assert made.digital.dtype == np.int16
    np.testing.assert_allclose(made.signal[0], [0.0, 32.767, -12.768], atol=1e-5)


def test_the_lowest_integer_is_a_value_unless_it_is_told_absent():
    made = record([[-32768, 32767, 0], [0, 0, 0]], gain=1000)
    assert made.digital is None
    np.testing.assert_allclose(made.signal[0], [-32.768, 32.767, 0.0], rtol=1e-6)
    absent = np.array([[True, False, False], [False] * 3])
    made = record([[-32768, 32767, 0], [0, 0, 0]], gain=1000, absent=absent)
    assert made.digital[0].tolist() == [-32768, 32767, 0]
    assert np.isnan(made.signal[0, 0]) and np.isfinite(made.signal).sum() == 5


def test_units():
    units = {"uV": 1e-3, "\N{MICRO SIGN}V": 1e-3, "MICROVOLTS": 1e-3, "mV": 1, "V": 1000, " nV ": 1e-6}
    assert {unit: millivolt_per_unit(PATH, unit) for unit in units} == units
    for unit in ("MV", "mmHg", "", "adu"):
        with pytest.raises(ValueError, match=r"ward 7.*never guessed"):
            millivolt_per_unit(PATH, unit)


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.0, 0.0), (np.inf, 0.0), (np.nan, 0.0), (1e12, 0.0), (1.0, np.nan), (1.0, 1e12)]
)
def test_impossible_calibrations_are_refused(gain, offset):
    with pytest.raises(ValueError, match=r"ward 7\.dcm: expected"):
        record([[1, 2], [3, 4]], gain, offset)


@pytest.mark.parametrize("sizes", [(0, 5), (3, 0), (257, 5), (12, 10**12), (-1, -5)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="ward 7"):
        check_size(PATH, *sizes)


@pytest.mark.parametrize("rate", [0, -500, 1e9, float("nan"), float("inf")])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match="sampling rate"):
        checked_rate(PATH, rate)


def test_infinite_values_and_double_names_are_refused():
    with pytest.raises(ValueError, match="finite"):
        record_of_millivolts(PATH, np.array([[1e300, 0.0]]), ["I"], 500)
    with pytest.raises(ValueError, match="each lead once"):
        record_of_millivolts(PATH, np.zeros((2, 5)), ["I", "I"], 500)
