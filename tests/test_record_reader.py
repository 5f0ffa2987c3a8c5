"""Records read from the middle of Arrow tables are those that were stored, whatever the tables look like."""

import dataclasses
import pickle
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from datasets_scripts.preparation.record_reader import RecordReader, StoredRecord
from datasets_scripts.records import ECGRecord, record_to_row, row_features, row_to_record

FIELDS = [field.name for field in dataclasses.fields(ECGRecord)]
NAMES = ("I", "II", "V1")
STATUS = Path("/proc/self/status")


def record(number: int, num_samples: int = 37, leads: tuple[str, ...] = NAMES, rate: float = 250.0) -> ECGRecord:
    rng = np.random.default_rng(number)
    digital = rng.integers(-900, 900, (len(leads), num_samples)).astype(np.int16)
    digital[0, number % num_samples] = -32768
    return ECGRecord.from_digital(
        digital, np.linspace(200, 1000, len(leads)), np.arange(len(leads)) - number, leads, rate,
        text=f"text of {number}", report=f"Bericht {number}", statements=("sinus rhythm",) * (number % 3),
        labels=("NORM",) if number % 2 else (), record_id=f"r{number}", patient_id=None if number % 5 else f"p{number}",
        age=None if number % 4 == 0 else 30.5 + number % 60, sex=(None, "male", "female")[number % 3],
        repairs=("trailing_zeros_trimmed: 7 samples",) if number == 3 else (),
    )  # fmt: skip


def mixed(number: int) -> ECGRecord:
    """Records of two shapes, three lists of leads and two rates, in no simple order."""
    leads = (NAMES, ("aVR", "V6"), ("I", "II", "V2"))[number % 7 % 3]
    return record(number, (37, 41)[number % 5 % 2], leads, (250.0, 360.0)[number % 2])


def table(path: Path, records: list[ECGRecord], num_values: int | None, rows: int = 4, **changed) -> datasets.Dataset:
    """A data set over a file whose record batches have so many rows; `changed` are columns to write instead."""
    schema = row_features("int16", num_values).arrow_schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for start in range(0, len(records), rows):
            stored = [record_to_row(r) for r in records[start : start + rows]]
            for name, values in changed.items():
                for row, value in zip(stored, values[start : start + rows], strict=True):
                    row[name] = value
            stream.write_batch(pa.RecordBatch.from_pylist(stored, schema=schema))
    return datasets.Dataset.from_file(str(path))


@pytest.fixture(scope="module", params=["fixed", "any length", "mixed"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    """Eleven records in batches of four, four and three."""
    records = [(mixed if request.param == "mixed" else record)(i) for i in range(11)]
    path = tmp_path_factory.mktemp("rows") / "rows.arrow"
    return table(path, records, 3 * 37 if request.param == "fixed" else None)


def assert_same(read: ECGRecord, expected: ECGRecord) -> None:
    for name in FIELDS:
        ours, theirs = getattr(read, name), getattr(expected, name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, name
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            assert ours == theirs and type(ours) is type(theirs), name


# ----- what is read is what was stored -------------------------------------------------------------------------------


def test_records_are_those_that_were_stored_in_the_order_asked_for(stored):
    indices = [9, 0, 4, 3, 10, 9]
    read = RecordReader(stored).records(indices)
    assert [r.record_id for r in read] == [f"r{i}" for i in indices]
    for r, i in zip(read, indices, strict=True):
        assert isinstance(r, StoredRecord)
        assert_same(r, row_to_record(stored[i]))
    assert np.isnan(read[1].signal[0, 0]) and read[1].num_samples in (37, 41)


@pytest.mark.parametrize(
    "rearranged",
    [
        lambda d: d.select(range(2, 9)),  # a slice of the table: its batches start in the middle of lists
        lambda d: d.select([10, 3, 3, 0]),
        lambda d: d.shuffle(seed=3),
        lambda d: d.shuffle(seed=3).select(range(1, 6)),
        lambda d: d.shard(2, 1, contiguous=True),
        lambda d: datasets.concatenate_datasets([d.select(range(3, 8)), d]),
        lambda d: d.with_format("numpy"),
        lambda d: d.add_column("fold", list(range(11))),
    ],
)
def test_data_sets_may_be_rearranged(stored, rearranged):
    dataset = rearranged(stored)
    read = RecordReader(dataset).records(range(len(dataset)))
    assert len(read) == len(dataset)
    for r, row in zip(read, dataset.with_format(None), strict=True):
        assert_same(r, row_to_record(row))


def test_samples_are_views_of_the_table_and_metadata_wait(stored):
    reader = RecordReader(stored)
    first, second = reader.records([5])[0], reader.records(np.array([5]))[0]
    assert np.shares_memory(first.digital, second.digital) and not first.digital.flags.writeable
    assert "text" not in vars(first) and "statements" not in vars(first)
    assert first.text == "text of 5" and vars(first)["text"] == "text of 5"


def test_samples_alone(stored):
    reader = RecordReader(stored.select(range(1, 11)))
    indices = np.random.default_rng(0).permutation(10)
    for digital, r in zip(reader.digital(indices), reader.records(indices), strict=True):
        assert np.shares_memory(digital, r.digital) and digital.dtype == np.int16
        np.testing.assert_array_equal(digital, r.digital)


def test_no_index_no_record_and_a_wrong_one_is_refused(stored):
    reader = RecordReader(stored)
    assert reader.records([]) == [] and len(reader) == 11
    for wrong in ([11], [0, -1], range(12)):
        with pytest.raises(IndexError, match="expected numbers from 0 to 10"):
            reader.records(wrong)
    assert RecordReader(stored.select([])).records([]) == []


def test_rows_of_millivolts_are_read_too():
    signals = np.random.default_rng(0).normal(size=(3, 2, 29)).astype(np.float32)
    signals[1, 0, 5] = np.nan
    rows = [record_to_row(ECGRecord(s, ("I", "V5"), 100, record_id=str(i))) for i, s in enumerate(signals)]
    dataset = datasets.Dataset.from_list(rows, features=row_features("float32"))
    for r, signal in zip(RecordReader(dataset).records([2, 1]), signals[[2, 1]], strict=True):
        np.testing.assert_array_equal(r.signal, signal)
        assert r.digital is None
    with pytest.raises(ValueError, match="row '2': expected int16 samples, got float32 mV"):
        RecordReader(dataset).digital([2])


def test_a_reader_goes_to_another_process_by_file_name(stored):
    reader = RecordReader(stored)
    reader.records([1])
    assert_same(pickle.loads(pickle.dumps(reader)).records([8])[0], row_to_record(stored[8]))


# ----- a stored record is a record -----------------------------------------------------------------------------------


def test_a_stored_record_can_be_changed_copied_and_sent(stored):
    read, expected = RecordReader(stored).records([3])[0], row_to_record(stored[3])
    changed = read.with_metadata(text="another", age=44)
    assert (changed.text, changed.age, changed.report) == ("another", 44, "Bericht 3")
    assert type(changed) is ECGRecord and np.shares_memory(changed.digital, read.digital)
    assert dataclasses.replace(read, sex="male").sex == "male"
    sent = pickle.loads(pickle.dumps(RecordReader(stored).records([3])[0]))
    assert type(sent) is ECGRecord and not np.shares_memory(sent.digital, read.digital)
    for r in (sent, read.in_memory()):
        assert_same(r, expected)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.age = 3


# ----- rows that are no records --------------------------------------------------------------------------------------


def broken(tmp_path: Path, **changed) -> RecordReader:
    return RecordReader(table(tmp_path / "broken.arrow", [record(i) for i in range(3)], None, **changed))


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("num_samples", 38, "row 'r1': expected 3 leads"),
        ("signal", [1, 2, 3, 4], "got 4 values"),
        ("gain", [200, 0, 200], "gain: expected a number other than 0"),
        ("gain", [200, 200], "gain: expected 3 finite numbers"),
        ("gain", [200, None, 200], "gain: expected 3 finite numbers"),
        ("offset", [0, float("nan"), 0], "offset: expected 3 finite numbers"),
        ("sampling_rate", 0.0, "sampling_rate: expected a positive"),
        ("leads", ["I", "II"], "row 'r1': expected 2 leads"),
        ("leads", [], "row 'r1': expected 0 leads"),
    ],
)
def test_a_broken_row_is_refused_and_its_neighbours_are_read(tmp_path, column, value, match):
    whole = [record_to_row(record(i))[column] for i in range(3)]
    reader = broken(tmp_path, **{column: [whole[0], value, whole[2]]})
    for read in (reader.records, reader.digital):
        with pytest.raises(ValueError, match=match):
            read([1])
    for r, i in zip(reader.records([2, 0]), (2, 0), strict=True):
        assert_same(r, record(i))


def test_impossible_metadata_are_refused_when_asked_for(tmp_path):
    reader = broken(tmp_path, age=[float("nan"), 300.0, 40.0], sex=["M", "male", None])
    not_known, too_old, fine = reader.records(range(3))
    assert fine.age == 40.0 and fine.sex is None and too_old.text == "text of 1"
    with pytest.raises(ValueError, match="age: expected years between 0 and 150"):
        _ = too_old.age
    with pytest.raises(ValueError, match="sex: expected 'male', 'female' or None, got 'M'"):
        _ = not_known.sex
    unknown_age = broken(tmp_path, age=[float("nan")] * 3).records([0])[0]
    assert unknown_age.age is None


def test_missing_columns_are_named(stored):
    with pytest.raises(ValueError, match="expected the columns of stored rows, got none named report, gain"):
        RecordReader(stored.remove_columns(["gain", "report"]))


# ----- memory --------------------------------------------------------------------------------------------------------


def anonymous_megabytes() -> float:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux's /proc")
def test_reading_a_hundred_thousand_records_keeps_nothing(tmp_path):
    dataset = table(tmp_path / "many.arrow", [record(i, num_samples=500) for i in range(240)], 1500, rows=16)
    reader, order = RecordReader(dataset), np.random.default_rng(0).integers(0, 240, (1000, 100))
    np.stack([r.digital for r in reader.records(order[0])])
    before = anonymous_megabytes()
    for indices in order:
        records = reader.records(indices)
        np.stack([r.digital for r in records])
        assert records[0].text
    assert anonymous_megabytes() - before < 10
