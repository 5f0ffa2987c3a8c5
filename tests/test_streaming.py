"""A stream gives every row once: over any number of ranks, after any stop, from the Hub as from a folder."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
from datasets.distributed import split_dataset_by_node
from hub_double import hub_of_this_process
from test_push import push_quietly
from tiny_prepared import numbered, tiny_record, write_prepared
from torch.utils.data import DataLoader

from datasets_scripts import load_ecg_dataset
from datasets_scripts.preparation.streaming import Order, RowGroup, stream_ecg_dataset
from datasets_scripts.records import row_to_record

NUM_ROWS = 37
SHARDS = {
    "train-00000": numbered(0, 13), "train-00001": [], "train-00002": numbered(13, 11, 9),
    "train-00003": [*numbered(24, 6), *numbered(30, 7, 6)], "test-00000": numbered(37, 4),
}  # fmt: skip
RANKS = [1, 2, 3, 5, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets_scripts.preparation.shards.ROWS_PER_BATCH", 4)
        yield write_prepared(tmp_path_factory.mktemp("streams") / "prepared", SHARDS)


def ids(rows):
    return [row["record_id"] for row in rows]


def stream(folder, **options):
    return stream_ecg_dataset(folder, **{"block_size": 8} | options)


# ----- the order -----------------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_the_map_style_data_set(folder):
    expected = {row["record_id"]: row for row in load_ecg_dataset(folder)}
    rows = list(stream(folder))
    assert len(rows) == NUM_ROWS == len(expected)
    for row in rows:
        assert row == expected[row["record_id"]]
        original = tiny_record(int(row["record_id"]), row["num_samples"])
        np.testing.assert_array_equal(row_to_record(row).signal, original.signal)
    table = next(iter(stream(folder).with_format("arrow").iter(5)))
    assert isinstance(table, pa.Table) and table["record_id"].to_pylist() == ids(rows)[:5]
    assert stream(folder).features == load_ecg_dataset(folder).features


def test_an_epoch_is_a_permutation_fixed_by_seed_and_epoch(folder):
    orders = {(s, e): ids(stream(folder, seed=s, epoch=e)) for s in (0, 1) for e in (0, 1, 2)}
    assert len({tuple(order) for order in orders.values()}) == 6
    assert all(sorted(order, key=int) == [str(n) for n in range(NUM_ROWS)] for order in orders.values())
    assert ids(stream(folder, seed=1, epoch=2)) == orders[1, 2]
    rows = stream(folder, seed=1)
    for epoch in (2, 0, 1):
        rows.set_epoch(epoch)
        assert ids(rows) == orders[1, epoch]


def test_blocks_mix_rows_of_different_shards(folder):
    order = [int(record_id) for record_id in ids(stream(folder, block_size=16))]
    together = np.abs(np.diff(order)) == 1  # neighbours of the folder, such as two recordings of one patient
    assert together.mean() < 0.2
    shards = [0 if n < 13 else 1 if n < 24 else 2 for n in order]
    assert all(len(set(shards[start : start + 16])) > 1 for start in (0, 16))
    whole = [int(record_id) for record_id in ids(stream(folder, block_size=NUM_ROWS))]
    assert sorted(whole) == list(range(NUM_ROWS)) and whole != order


# ----- ranks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [*RANKS, 40])
@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_are_the_equal_parts_of_one_sequence(folder, world_size, epoch):
    parts = [ids(stream(folder, rank=rank, world_size=world_size, epoch=epoch)) for rank in range(world_size)]
    assert sum(parts, []) == ids(stream(folder, epoch=epoch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("world_size", RANKS)
def test_the_library_may_split_a_stream_or_a_map_style_data_set(folder, world_size):
    for whole in (stream(folder, epoch=1), load_ecg_dataset(folder)):
        parts = [ids(split_dataset_by_node(whole, rank, world_size)) for rank in range(world_size)]
        assert sorted(map(int, sum(parts, []))) == list(range(NUM_ROWS))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_share_the_part_of_their_rank(folder, num_workers):
    found = []
    for rank in range(2):
        rows = stream(folder, rank=rank, world_size=2, epoch=1)
        loader = DataLoader(rows, batch_size=4, num_workers=num_workers, collate_fn=ids)
        found += sum(loader, [])
    assert sorted(map(int, found)) == list(range(NUM_ROWS))


def test_only_blocks_at_the_ends_are_read_by_two_ranks():
    groups = tuple(RowGroup(f"{n // 16}", n % 16, 128) for n in range(6250))
    read = [piece for rank in range(8) for piece in Order(groups, 0, rank, 8).pieces(5)]
    assert sum(piece.stop - piece.start for piece in read) == 800_000
    assert sum(len(piece.row_groups) for piece in read) <= 6250 + 7 * 8


# ----- resuming ------------------------------------------------------------------------------------------------------

RESUME = """
    import json, sys
    from datasets_scripts.preparation.streaming import stream_ecg_dataset
    found = []
    for state in json.loads(sys.argv[2]):
        rows = stream_ecg_dataset(sys.argv[1], block_size=8, seed=3, rank=1, world_size=2, epoch=state["epoch"])
        rows.load_state_dict(state)
        found.append([row["record_id"] for row in rows])
    print(json.dumps(found))
"""


def test_a_new_process_goes_on_at_the_very_next_row(folder):
    expected = ids(stream(folder, seed=3, rank=1, world_size=2, epoch=2))
    rows = stream(folder, seed=3, rank=1, world_size=2, epoch=2)
    states = [rows.state_dict()]
    for _ in rows:
        states.append(json.loads(json.dumps(rows.state_dict())))
    command = [sys.executable, "-c", textwrap.dedent(RESUME), str(folder), json.dumps(states)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [expected[count:] for count in range(len(expected) + 1)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_of_tables_resume_too(folder, batch_size):
    expected = ids(stream(folder))
    for stop in range(NUM_ROWS // batch_size + 1):
        rows = stream(folder).with_format("arrow")
        batches = rows.iter(batch_size)
        before = sum((next(batches)["record_id"].to_pylist() for _ in range(stop)), [])
        state = json.loads(json.dumps(rows.state_dict()))
        resumed = stream(folder).with_format("arrow")
        resumed.load_state_dict(state)
        after = sum((table["record_id"].to_pylist() for table in resumed.iter(batch_size)), [])
        assert before + after == expected


def test_after_the_resumed_epoch_comes_a_whole_one(folder):
    rows = stream(folder, epoch=1)
    iterator = iter(rows)
    for _ in range(20):
        next(iterator)
    resumed = stream(folder, epoch=1)
    resumed.load_state_dict(rows.state_dict())
    assert len(ids(resumed)) == NUM_ROWS - 20
    resumed.set_epoch(2)
    assert ids(resumed) == ids(stream(folder, epoch=2))


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 1, "world_size": 2}, {"block_size": 9}, {"split": "test"}])
def test_a_state_of_another_stream_is_refused(folder, other):
    rows = stream(folder)
    next(iter(rows))
    resumed = stream(folder, **other)
    resumed.load_state_dict(rows.state_dict())
    changed = "shards" if "split" in other else next(iter(other))
    with pytest.raises(ValueError, match=f"expected one of this very stream.*{changed}: "):
        next(iter(resumed))


# ----- from the Hub --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_of_this_process(monkeypatch, tmp_path / "hub_cache") as server:
        yield server


def test_the_hub_gives_the_same_stream_by_ranges_of_bytes(hub, folder, tmp_path):
    push_quietly(folder)
    hub.asked.clear()
    rows = list(stream("someone/ecgs", epoch=1))
    assert rows == list(stream(folder, epoch=1))
    ranges = [asked for asked in hub.asked if ".parquet" in asked]
    assert all(asked.startswith("GET") and asked.split()[-1].isdigit() for asked in ranges)
    assert len(ranges) == 11 + 3  # one for each row group, one for each footer
    cached = sorted(path.name for path in (tmp_path / "hub_cache").rglob("*") if path.is_symlink())
    assert cached == ["manifest.json"]  # nothing else stays on the disk
    resumed = stream("someone/ecgs", epoch=1)
    iterator = iter(resumed)
    for _ in range(15):
        next(iterator)
    again = stream("someone/ecgs", epoch=1)
    again.load_state_dict(resumed.state_dict())
    assert list(again) == rows[15:]


def test_a_rank_fetches_its_part_only(hub, folder):
    push_quietly(folder)
    hub.asked.clear()
    assert len(list(stream("someone/ecgs", rank=2, world_size=5))) == 37 * 3 // 5 - 37 * 2 // 5
    assert len([asked for asked in hub.asked if ".parquet" in asked]) <= 6 + 3  # two blocks of three row groups


def test_a_later_push_does_not_disturb_a_running_stream(hub, folder, tmp_path):
    push_quietly(folder)
    rows = stream("someone/ecgs")
    expected = ids(stream(folder))
    iterator = iter(rows)
    first = [next(iterator)["record_id"] for _ in range(5)]
    push_quietly(write_prepared(tmp_path / "other", {"train-00000": numbered(70, 9)}))
    assert first + ids(iterator) == expected
    assert len(ids(stream("someone/ecgs"))) == 9
    assert ids(stream("someone/ecgs", revision=f"{1:040x}")) == expected
    changed = stream("someone/ecgs")
    changed.load_state_dict(rows.state_dict())
    with pytest.raises(ValueError, match="got one of another .shards"):
        next(iter(changed))


def test_a_downloaded_copy_streams_as_well(hub, folder, tmp_path):
    push_quietly(folder)
    for name, content in hub.files("someone/ecgs").items():
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert list(stream(tmp_path / "copy", seed=4)) == list(stream(folder, seed=4))


def test_a_broken_connection_says_so(hub, folder):
    push_quietly(folder)
    rows = iter(stream("someone/ecgs"))
    next(rows)
    hub.refuse = 403
    with pytest.raises(PermissionError, match="read someone/ecgs: .* status 403"):
        list(rows)


# ----- bounds --------------------------------------------------------------------------------------------------------


def test_memory_is_that_of_two_blocks(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets_scripts.preparation.shards.ROWS_PER_BATCH", 10)
    shards = {f"train-{n:05d}": numbered(20 * n, 20, 5000) for n in range(10)}  # 200 rows of 30 kB
    push_quietly(write_prepared(tmp_path / "prepared", shards))
    before, most, num_rows = pa.total_allocated_bytes(), 0, 0
    for table in stream("someone/ecgs", block_size=20).with_format("arrow"):
        num_rows += len(table)
        most = max(most, pa.total_allocated_bytes() - before)
    assert num_rows == 200
    assert 0.5e6 < most < 1.5e6  # of 6 MB, where a block has 0.6 MB


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "expected 0 <= rank < world_size=2, got 2"),
        ({"rank": -1}, "rank: expected"),
        ({"block_size": 0}, "block_size: expected at least 1"),
        ({"epoch": -1}, "epoch: expected 0"),
        ({"split": "dev"}, "split: expected one of"),
        ({"split": None}, "split: expected one of the splits, got None"),
        ({"split": "validation"}, "expected records in the split 'validation', got none"),
    ],
)
def test_arguments_that_make_no_sense(folder, options, message):
    with pytest.raises(ValueError, match=message):
        stream(folder, **options)


def test_a_folder_that_is_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare it first"):
        stream(tmp_path)
