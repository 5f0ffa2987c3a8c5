"""What people pass in: every usual form is read alike, everything else is refused with what to do."""

import types

import numpy as np
import pytest
import torch

from datasets_scripts.records import ECGRecord, digital_to_millivolt, record_to_row
from modeling_esi.configuration_esi import LEADS
from modeling_esi.recordings import Recording, SignalBatch, read_recordings, stack_recordings

NAMES = ["I", "II", "V1"]
SIGNAL = np.random.default_rng(0).normal(size=(3, 37)).astype(np.float32)


def read(signal: object, sampling_rate: object = 500, leads: object = NAMES, unit: object = "mV") -> list:
    return read_recordings(signal, sampling_rate, leads, unit)


@pytest.mark.parametrize(
    "signal",
    [
        SIGNAL,
        SIGNAL.astype(np.float64),
        SIGNAL.astype(">f4"),
        SIGNAL.tolist(),
        [list(row) for row in SIGNAL],
        list(SIGNAL),
        tuple(map(tuple, SIGNAL.tolist())),
        np.asfortranarray(SIGNAL),
        np.flip(np.flip(SIGNAL, 1).copy(), 1),
        torch.from_numpy(SIGNAL),
        torch.from_numpy(SIGNAL).double().requires_grad_(),
        torch.from_numpy(SIGNAL.T.copy()).T,
        {"signal": SIGNAL, "sampling_rate": 500, "leads": NAMES},
        types.SimpleNamespace(signal=SIGNAL, sampling_rate=500, leads=tuple(NAMES), text="ignored"),
        SIGNAL[None],
        [SIGNAL],
        [SIGNAL.tolist()],
        [torch.from_numpy(SIGNAL)],
    ],
)
def test_forms_of_one_record(signal: object) -> None:
    (recording,) = read(signal)
    assert torch.equal(recording.signal, torch.from_numpy(SIGNAL))
    assert recording.signal.dtype == torch.float32 and not recording.signal.requires_grad
    assert recording.sampling_rate == 500 and recording.leads == tuple(NAMES)


def test_read_only_arrays_and_callers_data_stay_as_they_are() -> None:
    signal = SIGNAL.copy()
    signal.flags.writeable = False
    (recording,) = read(signal)
    recording.signal.zero_()
    assert np.array_equal(signal, SIGNAL)


def test_lists_of_records_with_one_description_or_one_each() -> None:
    short = SIGNAL[:2, :30]
    recordings = read([SIGNAL, short.tolist()], [500, 250.0], [NAMES, ["V5", "V6"]], ["mV", "uV"])
    assert [tuple(r.signal.shape) for r in recordings] == [(3, 37), (2, 30)]
    assert [r.sampling_rate for r in recordings] == [500, 250.0]
    assert recordings[1].leads == ("V5", "V6")
    assert len(read(np.stack([SIGNAL] * 4))) == 4
    assert len(read(np.stack([SIGNAL] * 2), np.array([500, 360]))) == 2
    ragged = np.empty(2, dtype=object)
    ragged[0], ragged[1] = SIGNAL, SIGNAL[:, :20]
    assert [r.signal.shape[1] for r in read(ragged)] == [37, 20]
    mixed = [{"signal": SIGNAL, "sampling_rate": 257, "leads": NAMES}, SIGNAL]
    assert [r.sampling_rate for r in read(mixed[:1] * 2, None, None)] == [257, 257]
    assert [r.sampling_rate for r in read(mixed, [None, 500])] == [257, 500]


@pytest.mark.parametrize(
    ("unit", "per_mv"), [("mV", 1), ("uV", 1e3), ("\u00b5V", 1e3), ("\u03bcV", 1e3), ("V", 1e-3), ("nV", 1e6)]
)
def test_units(unit: str, per_mv: float) -> None:
    (recording,) = read(SIGNAL.astype(np.float64) * per_mv, unit=unit)
    np.testing.assert_allclose(recording.signal.numpy(), SIGNAL, rtol=1e-7)


def test_whole_numbers_mean_units() -> None:
    counts = np.array([[1250, -17_000_001, 3]], dtype=np.int32)
    (recording,) = read(counts, leads="II", unit="uV")
    assert recording.signal.tolist() == [[1.25, np.float32(-17000.001), np.float32(0.003)]]
    assert read(counts.astype(np.int16), leads=["II"])[0].signal[0, 0] == 1250


def test_masked_samples_are_missing() -> None:
    masked = np.ma.masked_greater(SIGNAL, 1.0)
    (recording,) = read(masked)
    assert torch.equal(recording.signal.isnan(), torch.from_numpy(SIGNAL > 1.0))


@pytest.mark.parametrize("rate", [0, -500, float("nan"), float("inf"), 19.9, 20_001, "500", True, [500, 500], 5e5])
def test_senseless_rates(rate: object) -> None:
    with pytest.raises(ValueError, match="sampling_rate: expected"):
        read(SIGNAL, rate)


@pytest.mark.parametrize("rate", [np.float32(500), np.int64(500), np.array(500.0), torch.tensor(500)])
def test_rates_from_array_libraries(rate: object) -> None:
    assert read(SIGNAL, rate)[0].sampling_rate == 500
    assert type(read(SIGNAL, rate)[0].sampling_rate) in (int, float)


def test_missing_descriptions() -> None:
    with pytest.raises(ValueError, match=r"record 0: sampling_rate: expected Hz, got none: pass sampling_rate="):
        read(SIGNAL, None)
    with pytest.raises(ValueError, match=r"record 0: leads: expected one name per channel, got none: pass leads="):
        read(SIGNAL, leads=None)
    with pytest.raises(ValueError, match=r"record 1: sampling_rate"):
        read([SIGNAL, SIGNAL], [500, None])
    with pytest.raises(ValueError, match=r"leads: expected one for all or one for each of the 1 records, got 5"):
        read(SIGNAL, leads=5)


@pytest.mark.parametrize("unit", ["ADC", "digital", "MV", "mv", "UV", "", "volt"])
def test_unknown_units(unit: str) -> None:
    with pytest.raises(ValueError, match=r"unit: expected one of V, mV, uV.*case counts.*\(value - baseline\) / gain"):
        read(SIGNAL, unit=unit)


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (SIGNAL.T, "which is (samples, leads): transpose it"),
        (SIGNAL[:2], "one name for each of the 2 channels of (2, 37), got 3"),
        (SIGNAL[0], "got 1 axes (37,): for one lead, pass signal[None]"),
        (3.5, "got 0 axes ()"),
        (np.float32(3), "got 0 axes ()"),
        (torch.tensor(1.0), "got 0 axes ()"),
        ([SIGNAL[None]], "got 3 axes (1, 3, 37)"),
        (SIGNAL[None, None], "got 4 axes"),
        (SIGNAL[:, :0], "at least one sample"),
        (SIGNAL.astype(complex), "real numbers, got dtype complex"),
        (torch.from_numpy(SIGNAL).to(torch.complex64), "real numbers, got torch.complex64"),
        (SIGNAL > 0, "real numbers, got dtype bool"),
        (torch.from_numpy(SIGNAL) > 0, "real numbers, got torch.bool"),
        (SIGNAL.astype(object), "real numbers, got dtype object"),
        (SIGNAL.astype(str), "real numbers, got dtype <U"),
        ([[1.0, 2.0], [3.0]], "leads of one length"),
        ([], "at least one record, got an empty list"),
        ("record.hea", "got 'record.hea': read the file first"),
        (None, "read the file first"),
        ({"ecg": SIGNAL}, "a record with such a field, got a dict"),
        ({"signal": SIGNAL.astype(np.int16), "gain": [0.005] * 3}, "counts with a gain"),
        ({"signal": SIGNAL.astype(np.int16), "gain": [200] * 3, "offset": [0] * 3}, "or the counts as digital"),
    ],
)
def test_senseless_signals(signal: object, words: str) -> None:
    with pytest.raises(ValueError) as error:
        read(signal)
    assert words in str(error.value)


def test_a_record_and_a_call_that_disagree() -> None:
    record = {"signal": SIGNAL, "sampling_rate": 257, "leads": NAMES}
    with pytest.raises(ValueError, match=r"sampling_rate: the record says 257, the call 500"):
        read(record)
    with pytest.raises(ValueError, match="leads: the record says"):
        read(record, None, ["I", "II", "V2"])


def test_lead_names_are_checked_with_the_number_of_the_record() -> None:
    with pytest.raises(ValueError, match=r"record 1: leads: .*'ECG 1' \(a number"):
        read([SIGNAL, SIGNAL], leads=[NAMES, ["ECG 1", "V1", "V5"]])
    (recording,) = read_recordings(SIGNAL, 360, ["ECG 1", "V1", "V5"], "mV", ignore_unknown_leads=True)
    assert recording.leads == ("ECG 1", "V1", "V5")


def test_too_large_for_float32_becomes_infinite() -> None:
    (recording,) = read(np.full((12, 5), 1e300), leads=LEADS)
    assert recording.signal.isinf().all()


# ----- integers with a gain ------------------------------------------------------------------------------------------

DIGITAL = np.random.default_rng(1).integers(-32767, 32768, (3, 37)).astype(np.int16)
DIGITAL[0, 4] = DIGITAL[2, 36] = -32768
GAIN, OFFSET = np.float32([200, 1000, -3.7]), np.float32([0, 17, -1.3])
STORED = {"digital": DIGITAL, "gain": GAIN, "offset": OFFSET, "sampling_rate": 257, "leads": NAMES}


class NoMillivolts:
    """A record that cannot say its signal."""

    digital, gain, offset, sampling_rate, leads = DIGITAL, GAIN, OFFSET, 257, NAMES

    @property
    def signal(self) -> np.ndarray:
        raise AssertionError("the signal was asked for")


def read_stored(record: object) -> Recording:
    (recording,) = read_recordings(record, None, None, "mV")
    return recording


@pytest.mark.parametrize(
    "record",
    [
        STORED,
        NoMillivolts(),
        types.SimpleNamespace(**STORED),
        ECGRecord.from_digital(DIGITAL, GAIN, OFFSET, tuple(NAMES), 257),
        STORED | {"signal": None},
        STORED | {"digital": torch.from_numpy(DIGITAL), "gain": torch.from_numpy(GAIN)},
        STORED | {"digital": DIGITAL.tolist(), "gain": GAIN.tolist(), "offset": OFFSET.tolist()},
        STORED | {"digital": DIGITAL.astype(">i2")},
        STORED | {"digital": DIGITAL.astype(np.int64)},
    ],
)
def test_forms_of_a_record_that_holds_integers(record: object) -> None:
    recording = read_stored(record)
    assert recording.signal.dtype == np.int16 and recording.gain.dtype == np.float32
    assert (recording.sampling_rate, recording.leads) == (257, tuple(NAMES))
    batch = stack_recordings([recording] * 2, torch.device("cpu"))
    assert batch.signal.dtype == torch.int16
    expected = digital_to_millivolt(DIGITAL, GAIN, OFFSET)
    assert np.isnan(expected).sum() == 2
    for signal in batch.millivolts():  # the bits, not only the numbers
        assert np.array_equal(signal.numpy().view(np.int32), expected.view(np.int32))


def test_integers_are_not_copied_before_they_are_stacked() -> None:
    digital = DIGITAL.copy()
    digital.flags.writeable = False  # as a view of a file is
    recording = read_stored(STORED | {"digital": digital})
    assert np.shares_memory(recording.signal, digital)
    stack_recordings([recording], torch.device("cpu")).signal.zero_()
    assert np.array_equal(digital, DIGITAL)


def test_millivolts_by_hand() -> None:
    digital = torch.tensor([[[300, -32768, 100]], [[-32767, 32767, 0]]], dtype=torch.int16)
    batch = SignalBatch(digital, torch.tensor([[200.0], [1.0]]), torch.tensor([[100.0], [1.0]]))
    first, second = batch.millivolts().tolist()
    assert first[0][0] == 1.0 and np.isnan(first[0][1]) and first[0][2] == 0.0
    assert second == [[-32768.0, 32766.0, -1.0]]  # an offset may lead where int16 ends
    assert torch.equal(torch.cat([part.millivolts() for part in batch.split(1)])[1], batch.millivolts()[1])
    assert digital[0, 0, 1] == -32768
    floats = SignalBatch(torch.ones(3, 1, 2))
    assert floats.millivolts() is floats.signal and [len(part.signal) for part in floats.split(2)] == [2, 1]


@pytest.mark.parametrize("dtype", [np.int16, np.int64, None])
def test_stored_rows(dtype: type | None) -> None:
    row = record_to_row(ECGRecord.from_digital(DIGITAL, GAIN, OFFSET, tuple(NAMES), 257))
    row["signal"] = row["signal"].tolist() if dtype is None else row["signal"].astype(dtype)
    recording = read_stored(row)
    assert np.array_equal(recording.signal, DIGITAL) and recording.signal.dtype == np.int16
    assert len(read([row, row], None, None)) == 2
    floats = record_to_row(ECGRecord(SIGNAL, tuple(NAMES), 257))
    assert torch.equal(read_stored(floats).signal, torch.from_numpy(SIGNAL))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"digital": DIGITAL.T}, "which is (samples, leads): transpose it"),
        ({"digital": DIGITAL[0]}, "got 1 axes (37,)"),
        ({"digital": DIGITAL.astype(np.float32)}, "digital: expected int16 numbers, got float32"),
        ({"digital": DIGITAL.astype(np.int32) + 40_000}, "digital: expected int16 numbers, got int32"),
        ({"digital": torch.from_numpy(SIGNAL)}, "digital: expected int16 numbers, got float32"),
        (
            {"gain": [200, 0, 200]},
            "gain: expected 3 finite numbers other than 0, one per lead, got [200.0, 0.0,",
        ),
        ({"gain": 200}, "gain: expected 3 finite numbers other than 0"),
        ({"offset": [0, float("nan"), 0]}, "offset: expected 3 finite numbers, one per lead, got [0.0, nan, 0.0]"),
        ({"unit": "uV"}, "unit: expected 'mV' for digital, whose gain is per mV, got 'uV'"),
        ({"offset": None}, "a record with such a field, got a dict"),
        ({"leads": None}, "leads: expected one name per channel, got none"),
        ({"sampling_rate": None}, "sampling_rate: expected Hz, got none"),
        ({"signal": DIGITAL.reshape(-1), "num_samples": 36}, "expected 3 leads * 36 samples in a row, got 111 values"),
        ({"signal": SIGNAL.reshape(-1), "num_samples": 37}, "got floats with a gain"),
        ({"signal": DIGITAL.reshape(-1), "num_samples": [37]}, "num_samples: expected a number"),
    ],
)
def test_senseless_integers(changed: dict, words: str) -> None:
    with pytest.raises(ValueError) as error:
        read_stored(STORED | changed)
    assert words in str(error.value)


def test_only_records_held_alike_are_stacked_together() -> None:
    floats = {"signal": SIGNAL, "sampling_rate": 257, "leads": NAMES}
    kinds = [r.kind for r in read_recordings([STORED, floats, NoMillivolts()], None, None, "mV")]
    assert kinds[0] == kinds[2] != kinds[1]
