"""Shards keep records to the bit, in the narrowest layout that holds all of them, and are never half there."""

import datasets
import numpy as np
import pytest

from datasets_scripts.preparation.shards import ROWS_PER_BATCH, Layout, ShardWriter, convert_shard
from datasets_scripts.records import DIGITAL_NAN, ECGRecord, row_to_record

LEADS = ("I", "II")


def digital(num_samples: int, seed: int) -> ECGRecord:
    rng = np.random.default_rng(seed)
    samples = rng.integers(-900, 900, size=(2, num_samples)).astype(np.int16)
    samples[0, 1] = DIGITAL_NAN
    return ECGRecord.from_digital(
        samples, [1000.0, 200.0], [3.0, -7.0], LEADS, 250, record_id=str(seed), statements=("sinus rhythm",),
        repairs=("nan_samples: 1",), age=61, sex="male", patient_id=None if seed % 2 else f"p{seed}",
    )  # fmt: skip


def millivolts(num_samples: int, seed: int) -> ECGRecord:
    signal = np.random.default_rng(seed).normal(size=(2, num_samples))
    return ECGRecord(signal, LEADS, 400, record_id=str(seed), report="normal")


def written(path, records):
    with ShardWriter(path) as writer:
        for record in records:
            writer.write(record)
    return writer.layout, datasets.Dataset.from_file(str(path))


def assert_same(rows, records):
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        back = row_to_record(row)
        assert back.signal.tobytes() == record.signal.tobytes()
        for name in ("leads", "sampling_rate", "record_id", "patient_id", "statements", "repairs", "age", "sex"):
            assert getattr(back, name) == getattr(record, name)


@pytest.mark.parametrize(
    ("records", "layout"),
    [
        ([digital(37, i) for i in range(ROWS_PER_BATCH + 5)], Layout("int16", 74)),
        ([digital(37, i) for i in range(ROWS_PER_BATCH + 5)] + [digital(41, 900)], Layout("int16", None)),
        ([millivolts(19, 1), millivolts(19, 2)], Layout("float32", 38)),
        ([digital(19, i) for i in range(ROWS_PER_BATCH + 2)] + [millivolts(19, 3)], Layout("float32", 38)),
        ([millivolts(19, 3), digital(37, 4), digital(37, 5)], Layout("float32", None)),
        ([], Layout("int16", None)),
    ],
    ids=["one shape", "two lengths", "float", "float comes late", "float comes first", "nothing"],
)
def test_records_come_back_to_the_bit_in_the_narrowest_layout(tmp_path, records, layout):
    got, rows = written(tmp_path / "a.arrow", records)
    assert got == layout
    assert_same(rows, records)
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]


def test_the_same_records_give_the_same_bytes(tmp_path):
    records = [digital(37, 1), digital(37, 2), digital(5, 3)]
    written(tmp_path / "a.arrow", records)
    written(tmp_path / "b.arrow", records)
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_conversion_is_the_same_as_writing_so_from_the_start(tmp_path):
    records = [digital(37, i) for i in range(ROWS_PER_BATCH + 5)]
    written(tmp_path / "a.arrow", records)
    for _ in range(2):  # the second time there is nothing left to do
        convert_shard(tmp_path / "a.arrow", Layout("float32", 74))
        rows = datasets.Dataset.from_file(str(tmp_path / "a.arrow"))
        assert rows.features["signal"] == datasets.List(datasets.Value("float32"), length=74)
        assert_same(rows, records)


def test_fixed_length_is_a_fixed_size_list(tmp_path):
    _, rows = written(tmp_path / "a.arrow", [digital(37, 1), digital(37, 2)])
    assert rows.features["signal"] == datasets.List(datasets.Value("int16"), length=74)
    _, rows = written(tmp_path / "b.arrow", [digital(37, 1), digital(36, 2)])
    assert rows.features["signal"] == datasets.List(datasets.Value("int16"))


def test_long_records_are_written_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets_scripts.preparation.shards.VALUES_PER_BATCH", 300)
    _, rows = written(tmp_path / "a.arrow", [digital(100, i) for i in range(5)])
    assert [len(chunk) for chunk in rows.data.column("signal").chunks] == [2, 2, 1]


def test_layouts_join_to_the_narrowest_that_holds_both():
    one, other = Layout("int16", 10), Layout("float32", 10)
    assert one | one == one and one | other == other | one == other
    assert one | Layout("int16", 12) == Layout("int16", None)
