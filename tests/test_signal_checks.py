"""What is told about one record's signal: duplicates, nothing to learn, z-scores, padding."""

from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.checks.signal_checks import looks_z_scored, no_signal, notices, padding, signal_hash
from datasets_scripts.records import DIGITAL_NAN, ECGRecord, read_record
from datasets_scripts.synthetic import generate_record

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def headers(folder: str) -> list[Path]:
    found = sorted((DATA / folder).rglob("*.hea"))
    if not found:
        pytest.skip(f"needs real records in ../shared/data/{folder}")
    return found


def changed(record: ECGRecord, **fields: object) -> ECGRecord:
    return record.with_metadata(**fields)


# ----- signal_hash ---------------------------------------------------------------------------------------------------


def test_a_hash_is_of_the_signal_and_not_of_its_file() -> None:
    record = generate_record(3)
    again = changed(generate_record(3), record_id="other", patient_id="other", text="other", report="", age=7)
    renamed = changed(again, leads=tuple(name.upper() for name in record.leads))
    assert len(signal_hash(record)) == 32 and int(signal_hash(record), 16) >= 0
    assert signal_hash(record) == signal_hash(again) == signal_hash(renamed)


def test_the_order_of_leads_does_not_count_their_names_do() -> None:
    record = generate_record(3)
    order = [0, 1, 2, 3, 5, 4, *range(6, 12)]
    names = tuple(record.leads[i] for i in order)
    reordered = changed(record, digital=record.digital[order], leads=names)
    misnamed = changed(record, digital=record.digital[order])
    assert signal_hash(reordered) == signal_hash(record) != signal_hash(misnamed)


@pytest.mark.parametrize("field", ["sample", "gain", "offset", "rate", "length", "leads"])
def test_what_makes_a_signal_another(field: str) -> None:
    record = generate_record(3)
    digital = record.digital.copy()
    digital[4, 2500] += 1
    fields = {
        "sample": {"digital": digital},
        "gain": {"gain": record.gain * 2},
        "offset": {"offset": record.offset + 1},
        "rate": {"sampling_rate": 250},
        "length": {"digital": record.digital[:, :-1]},
        "leads": {"leads": (*record.leads[:11], "V7")},
    }[field]
    assert signal_hash(changed(record, **fields)) != signal_hash(record)


def test_the_ends_do_not_tell_recordings_apart() -> None:
    """Resampling makes other numbers of the last samples, depending on what came after them."""
    record = generate_record(3)
    digital = record.digital.copy()
    digital[:, :100] += 5
    digital[:, -100:] -= 7
    assert signal_hash(changed(record, digital=digital)) == signal_hash(record)


def test_float_records_have_hashes_too() -> None:
    signal = generate_record(3).signal
    signal[0, 700:800], signal[1, 1000] = np.nan, 0.0
    minus_zero = signal.copy()
    minus_zero[1, 1000] = -0.0
    one, other = (ECGRecord(values, generate_record(3).leads, 500) for values in (signal, minus_zero))
    shifted = ECGRecord(np.roll(signal, 1, axis=1), one.leads, 500)
    assert signal_hash(one) == signal_hash(other) != signal_hash(shifted)


def test_memory_layout_does_not_count() -> None:
    record = generate_record(3)
    interleaved = np.asfortranarray(record.digital)
    assert signal_hash(changed(record, digital=interleaved)) == signal_hash(record)


@pytest.mark.parametrize("rate", ["500", "100"])
def test_ptb_xl_duplicates_and_no_others(rate: str) -> None:
    """137 = 138 and 143 = 144 have one patient and one time each; at 100 Hz their last samples differ."""
    groups: dict[str, list[int]] = {}
    for path in headers(f"ptbxl/records{rate}"):
        groups.setdefault(signal_hash(read_record(path)), []).append(int(path.stem[:5]))
    duplicates = [group for group in groups.values() if len(group) > 1]
    expected = [group for group in ([137, 138], [143, 144], [456, 457], [459, 460])]
    assert duplicates == [group for group in expected if set(group) <= {i for g in groups.values() for i in g}]


# ----- no_signal -----------------------------------------------------------------------------------------------------


def record_of(rows: object, digital: bool) -> ECGRecord:
    rows = np.array(rows, np.float32)
    leads = tuple(f"V{i + 1}" for i in range(len(rows)))
    if not digital:
        return ECGRecord(rows, leads, 100)
    integers = np.where(np.isnan(rows), DIGITAL_NAN, rows).astype(np.int16)
    return ECGRecord.from_digital(integers, np.ones(len(rows)), np.zeros(len(rows)), leads, 100)


@pytest.mark.parametrize("digital", [True, False])
def test_nothing_can_be_learnt_from_flat_and_empty_leads(digital: bool) -> None:
    nan = np.nan
    reason = "every lead is flat or missing (NaN)"
    assert no_signal(record_of([[0, 0, 0], [7, 7, 7]], digital)) == reason
    assert no_signal(record_of([[nan, nan, nan], [7, nan, 7]], digital)) == reason
    assert no_signal(record_of([[nan, nan, nan], [7, nan, 8]], digital)) is None
    assert no_signal(record_of([[3, 3, 3], [7, 7, 8]], digital)) is None


def test_infinite_values() -> None:
    assert no_signal(record_of([[0, 1, np.inf], [0, 1, 0]], digital=False)) == "infinite values in the signal"
    assert no_signal(record_of([[0, 1, 0], [0, -np.inf, np.nan]], digital=False)) == "infinite values in the signal"


# ----- looks_z_scored ------------------------------------------------------------------------------------------------


def z_scored(record: ECGRecord) -> np.ndarray:
    signal = record.signal.astype(np.float64)
    return (signal - signal.mean(axis=1, keepdims=True)) / signal.std(axis=1, keepdims=True)


def test_z_scores_are_seen_in_integers_and_floats() -> None:
    record = generate_record(3)
    scores = z_scored(record)
    offset = np.full(12, 17.0)
    digital = (scores * 1000 + 17).round().astype(np.int16)
    assert looks_z_scored(ECGRecord(scores, record.leads, 500))
    assert looks_z_scored(ECGRecord.from_digital(digital, np.full(12, 1000.0), offset, record.leads, 500))
    assert not looks_z_scored(record)


def test_flat_leads_of_z_scored_records_are_passed_over() -> None:
    scores = z_scored(generate_record(3))
    scores[4] = 0
    leads = generate_record(3).leads
    assert looks_z_scored(ECGRecord(scores, leads, 500))
    assert not looks_z_scored(ECGRecord(scores * 0, leads, 500))


@pytest.mark.parametrize("change", [lambda s: s * 1.03, lambda s: s + 0.02])
def test_one_lead_that_is_not_z_scored_decides(change) -> None:
    scores = z_scored(generate_record(3))
    scores[11] = change(scores[11])
    assert not looks_z_scored(ECGRecord(scores, generate_record(3).leads, 500))


def test_real_records_are_told_apart() -> None:
    assert not any(looks_z_scored(read_record(path)) for path in headers("ptbxl"))
    assert not any(looks_z_scored(read_record(path)) for path in headers("physionet2021"))
    assert all(looks_z_scored(read_record(path)) for path in headers("ptbxl_filtered")[::7])


# ----- padding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 300])
@pytest.mark.parametrize("digital", [True, False])
def test_zero_padding_is_measured(digital: bool, offset: int) -> None:
    record = generate_record(3, sampling_rate=400)
    integers = record.digital + np.int16(offset)
    integers[:, :123], integers[:, 123] = offset, 1 + offset
    integers[:, -456:], integers[:, -457] = offset, 1 + offset
    padded = ECGRecord.from_digital(integers, record.gain, np.full(12, float(offset)), record.leads, 400)
    if not digital:
        padded = ECGRecord(padded.signal, record.leads, 400)
    assert padding(padded) == (123, 456)
    assert notices(padded)["zero padding"] == "123 leading and 456 trailing samples"


def test_short_runs_and_single_leads_are_no_padding() -> None:
    record = generate_record(3)
    digital = record.digital.copy()
    digital[:, :50], digital[:3, -800:] = 0, 0
    digital[:, 50] = 1
    assert padding(changed(record, digital=digital)) == (0, 0)
    assert padding(changed(record, digital=np.zeros_like(digital))) == (5000, 0)


# ----- notices -------------------------------------------------------------------------------------------------------


def test_a_good_record_is_not_mentioned() -> None:
    assert notices(generate_record(3)) == {}


def test_notices_say_what_is_wrong() -> None:
    found = notices(ECGRecord(z_scored(generate_record(3)), generate_record(3).leads, 500))
    assert set(found) == {"z-scored leads", "limb leads break Einthoven's or Goldberger's law"}


def test_real_records_at_hand_raise_no_notice() -> None:
    for path in [*headers("ptbxl"), *headers("physionet2021")]:
        assert notices(read_record(path)) == {}, path.name
