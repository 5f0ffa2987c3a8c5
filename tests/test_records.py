"""Records and their stored rows: what they hold, what they refuse, and the bits that come back."""

import numpy as np
import pytest

from datasets_scripts.records import ECGRecord, read_record, record_to_row, row_features, row_to_record


def same(first, second):
    return first.dtype == second.dtype == np.float32 and first.tobytes() == second.tobytes()


def test_from_digital_by_hand():
    digital = np.array([[10, -10, -32768], [0, 1, 2]], np.int16)
    record = ECGRecord.from_digital(digital, [200, 10], [10, 1], ("I", "II"), 100, record_id="x", age=7)
    np.testing.assert_array_equal(record.signal, np.float32([[0, -0.1, np.nan], [-0.1, 0, 0.1]]))
    assert (record.num_leads, record.num_samples, record.duration, record.age) == (2, 3, 0.03, 7.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": np.zeros((5, 2))}, r"\(num_leads=2.*transposed"),
        ({"signal": np.zeros(5)}, "num_leads=2"),
        ({"signal": np.zeros((2, 0))}, "num_samples > 0"),
        ({"leads": "II"}, "sequence of strings"),
        ({"leads": (1, 2)}, "expected strings"),
        ({"sampling_rate": 0}, "positive"),
        ({"sampling_rate": float("nan")}, "positive"),
        ({"age": 300}, "90 for 'over 89'"),
        ({"sex": "M"}, "'male', 'female'"),
        ({"digital": np.zeros((2, 5), np.int16)}, "belong together"),
        ({"digital": np.zeros((2, 5), np.int32), "gain": [1, 1], "offset": [0, 0]}, "int16"),
        ({"digital": np.zeros((2, 5), np.int16), "gain": [1, 0], "offset": [0, 0]}, "other than 0"),
        ({"digital": np.zeros((2, 5), np.int16), "gain": [1], "offset": [0, 0]}, "one per lead"),
    ],
)
def test_record_refuses_what_makes_no_sense(changes, message):
    fields = {"signal": np.zeros((2, 5)), "leads": ("I", "II"), "sampling_rate": 500} | changes
    with pytest.raises(ValueError, match=message):
        ECGRecord(**fields)


def test_row_gives_the_same_bits_back():
    import datasets

    rng = np.random.default_rng(3)
    digital = rng.integers(-32768, 32767, size=(3, 41)).astype(np.int16)
    digital[1, 7] = -32768
    metadata = {"text": "t", "report": "r", "statements": ("b", "a"), "labels": ("L",), "record_id": "7", "sex": "male"}
    whole = ECGRecord.from_digital(digital, [1000, 333.3, 0.7], [0, -5, 1e4], ("I", "aVF", "V1"), 333.25, **metadata)
    float_only = ECGRecord(whole.signal, whole.leads, whole.sampling_rate, **metadata)
    for record, dtype in ((whole, "int16"), (float_only, "float32"), (whole, "float32")):
        row = record_to_row(record, dtype)
        stored = datasets.Dataset.from_list([row], features=row_features(dtype))
        assert stored.features["signal"].feature.dtype == dtype
        assert same(row_to_record(stored.with_format("numpy")[0]).signal, record.signal)
        back = row_to_record(stored[0])
        assert same(back.signal, record.signal)
        assert (back.leads, back.sampling_rate, back.statements, back.labels) == (
            record.leads,
            record.sampling_rate,
            record.statements,
            record.labels,
        )
        assert (back.text, back.report, back.sex, back.age, back.patient_id) == ("t", "r", "male", None, None)
        assert (back.digital is None) == (dtype == "float32")
    assert record_to_row(whole)["signal"].dtype == np.int16 and set(record_to_row(whole)) == set(row_features())
    with pytest.raises(ValueError, match="int16 was asked for"):
        record_to_row(float_only, "int16")
    with pytest.raises(ValueError, match="3 leads"):
        row_to_record(record_to_row(whole) | {"num_samples": 40})


def test_millivolts_are_computed_when_asked_for_and_never_kept():
    record = ECGRecord.from_digital(np.int16([[1, 2, -32768]]), [10], [0], ("I",), 100)
    assert "signal" not in record.__dict__ and record.num_samples == 3
    assert record.signal is not record.signal and "signal" not in record.__dict__
    kept = record.with_metadata(repairs=("nan_samples: 1",), text="x")
    assert "signal" not in kept.__dict__ and kept.digital is record.digital and kept.repairs == ("nan_samples: 1",)
    assert same(kept.signal, record.signal)


def test_a_file_of_no_known_format_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"0123")
    with pytest.raises(ValueError, match=r"x\.bin"):
        read_record(tmp_path / "x.bin")
