"""Statistics of a corpus by hand-computed numbers, the same to the bit in whatever order its parts come."""

import json
import random

import numpy as np
import pytest

from datasets_scripts.checks.lead_statistics import LeadStatistics
from datasets_scripts.checks.leads import LEADS
from datasets_scripts.records import DIGITAL_NAN, ECGRecord
from datasets_scripts.synthetic import generate_record


def digital_record(rows: list[list[int]], leads: tuple[str, ...], gain: float = 200, offset: float = 0) -> ECGRecord:
    ones = np.ones(len(leads), np.float32)
    return ECGRecord.from_digital(np.array(rows, np.int16), gain * ones, offset * ones, leads, 100)


def some_records() -> list[ECGRecord]:
    """Digital and float, with missing and flat leads, missing samples and different lengths."""
    rng = np.random.default_rng(11)
    records = [generate_record(seed, sampling_rate=100, duration=5 + seed % 3) for seed in range(7)]
    for number in range(8):
        signal = rng.normal(0.1, 0.7 + number, size=(3, 97 + number))
        signal[0, : number * 3] = np.nan
        signal[1] *= number > 2
        records.append(ECGRecord(signal, ("DII", "mlii", "AVR"), 100))
    return records


def statistics_of(records: list[ECGRecord]) -> LeadStatistics:
    statistics = LeadStatistics()
    for record in records:
        statistics.add(record)
    return statistics


def test_hand_computed_numbers() -> None:
    statistics = LeadStatistics()
    statistics.add(digital_record([[100, 300, 100, 300]], ("DI",)))  # 0.5, 1.5 mV: mean 1, deviation 0.5
    statistics.add(digital_record([[-100, 500, -100, 500]], ("I",), offset=100))  # -1, 2 mV: mean 0.5, deviation 1.5
    lead = statistics.summary()["I"]
    assert (lead["records"], lead["missing"], lead["flat"], lead["empty"], lead["with_nan"]) == (2, 0, 0, 0, 0)
    assert lead["mean"] == 0.75
    assert lead["standard_deviation"] == pytest.approx(((0.5**2 + 1.5**2) / 2) ** 0.5, abs=1e-6)
    assert (lead["minimum"], lead["maximum"]) == (-1.0, 2.0)
    assert lead["median_peak_to_peak"] == pytest.approx(1.0, rel=0.03)  # the lower of 1 and 3 mV


def test_missing_flat_empty_and_nan() -> None:
    statistics = LeadStatistics()
    statistics.add(digital_record([[1, 2, 3, DIGITAL_NAN], [5, 5, 5, 5], [DIGITAL_NAN] * 4], ("I", "II", "V1")))
    statistics.add(ECGRecord(np.array([[0.0, np.nan, 1.0, np.inf]]), ("V1",), 100))
    summary = statistics.summary()
    assert summary["V2"] == {"records": 0, "missing": 2, "flat": 0, "empty": 0, "with_nan": 0, "nan_share": 0.0}
    assert (summary["I"]["with_nan"], summary["I"]["nan_share"], summary["I"]["missing"]) == (1, 0.25, 1)
    assert summary["I"]["mean"] == 0.01 and summary["I"]["minimum"] == 0.005
    assert (summary["II"]["flat"], summary["II"]["empty"], "mean" in summary["II"]) == (1, 0, False)
    assert (summary["V1"]["empty"], summary["V1"]["with_nan"], summary["V1"]["nan_share"]) == (1, 2, 0.75)
    assert (summary["V1"]["mean"], summary["V1"]["maximum"]) == (0.5, 1.0)


def test_a_negative_gain_turns_the_ends() -> None:
    statistics = statistics_of([digital_record([[0, 100, 0, 300]], ("I",), gain=-100)])
    lead = statistics.summary()["I"]
    assert (lead["minimum"], lead["maximum"], lead["mean"]) == (-3.0, 0.0, -1.0)


def test_integers_and_their_millivolts_agree() -> None:
    record = generate_record(5)
    plain = ECGRecord(record.signal, record.leads, record.sampling_rate)
    for lead, values in statistics_of([record]).summary().items():
        others = statistics_of([plain]).summary()[lead]
        assert values == pytest.approx(others, abs=2e-6)


def test_numpy_agrees_on_real_shapes() -> None:
    record = generate_record(9, sampling_rate=250, duration=7)
    summary = statistics_of([record]).summary()
    for lead, row in zip(record.leads, record.signal.astype(np.float64), strict=True):
        assert summary[lead]["mean"] == pytest.approx(row.mean(), abs=1e-6)
        assert summary[lead]["standard_deviation"] == pytest.approx(row.std(), abs=1e-6)
        assert summary[lead]["median_peak_to_peak"] == pytest.approx(np.ptp(row), rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_and_any_parts_give_the_same_bytes(seed: int) -> None:
    """An interrupted preparation and an undisturbed one, one worker and many: one result."""
    records = some_records()
    expected = json.dumps(statistics_of(records).to_dict())
    order = random.Random(seed)
    order.shuffle(records)
    parts = [statistics_of(records[start::4]) for start in range(4)]
    stored = [LeadStatistics.from_dict(json.loads(json.dumps(part.to_dict()))) for part in parts]
    order.shuffle(stored)
    assert json.dumps(LeadStatistics.merged(stored).to_dict()) == expected
    assert LeadStatistics.merged(stored).summary() == statistics_of(some_records()).summary()


def test_merging_leaves_the_other_as_it_was() -> None:
    first, second = statistics_of(some_records()[:2]), statistics_of(some_records()[2:4])
    before = json.dumps(second.to_dict())
    first.merge(second)
    first.add(some_records()[5])
    assert json.dumps(second.to_dict()) == before


def test_the_summary_can_be_written_and_has_all_leads() -> None:
    summary = statistics_of(some_records()).summary()
    assert list(summary) == [*LEADS, "mlii"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(LeadStatistics().summary()) == list(LEADS)


def test_garbage_does_not_overflow() -> None:
    statistics = statistics_of([ECGRecord(np.array([[-3e38, 3e38, 0.0]]), ("I",), 100)] * 3)
    assert statistics.summary()["I"]["records"] == 3


def test_the_median_is_over_records() -> None:
    amplitudes = [0.2, 0.5, 1.0, 40.0, 7.0]
    records = [ECGRecord(np.array([[0.0, amplitude]]), ("V1",), 100) for amplitude in amplitudes]
    assert statistics_of(records).summary()["V1"]["median_peak_to_peak"] == pytest.approx(1.0, rel=0.03)
