"""The order of records: each once an epoch, the same for any number of processes, and from any place on."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_scripts import load_ecg_dataset
from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.report_text import choose_text
from modeling_esi.losses import entailed_pairs
from modeling_esi.training.batches import Position, StepReader, TrainingOrder, read_ahead, records_hash
from modeling_esi.training.entailment import found_in, said_in, statement_numbers

ROOT = Path(__file__).resolve().parents[1]


START = Position()


def rows_of(order, position=START):
    return [rows for _, rows in order.steps(position)]


def union_of(orders, position=START):
    """What all processes read, step by step, in the order of their ranks."""
    parts = [rows_of(order, position) for order in orders]
    return [sum(step, []) for step in zip(*parts, strict=True)]


def orders(num_processes, batch_size, num_records=23, epochs=2, seed=3):
    return [TrainingOrder(num_records, batch_size, epochs, seed, rank, num_processes) for rank in range(num_processes)]


# ----- the order -----------------------------------------------------------------------------------------------------


def test_an_epoch_visits_each_record_at_most_once_and_ranks_share_it():
    alone, shared = union_of(orders(1, 6)), union_of(orders(2, 3))
    assert alone == shared
    first, second = alone[:3], alone[3:]
    assert len(set(sum(first, []))) == len(set(sum(second, []))) == 18  # 23 records: the last 5 are left out
    assert first != second


def test_the_order_of_an_epoch_is_that_of_its_seed():
    """As numpy draws it from (seed, epoch): weights of earlier versions came from this order."""
    expected = np.random.default_rng([3, 1]).permutation(23)[:18].tolist()
    assert sum(rows_of(*orders(1, 6))[3:], []) == expected


@pytest.mark.parametrize("done", range(7))
def test_from_any_place_on_the_rest_is_the_same(done):
    order = orders(1, 6)[0]
    position = Position()
    for _ in range(done):
        position = order.after(position)
    assert rows_of(order, position) == rows_of(order)[done:]
    assert order.last_step(position) == 6
    assert position == Position(done, done // 3, done % 3 * 6)


@pytest.mark.parametrize(("num_processes", "batch_size"), [(1, 4), (2, 2), (3, 2), (1, 6)])
def test_another_number_of_processes_goes_on_at_the_same_record(num_processes, batch_size):
    before = orders(2, 3, num_records=40, epochs=1)
    position = before[0].after(before[0].after(Position()))  # 12 records done
    after = orders(num_processes, batch_size, num_records=40, epochs=1)
    seen = sum(union_of(before)[:2], []) + sum(union_of(after, position), [])
    whole = np.random.default_rng([3, 0]).permutation(40).tolist()
    assert seen == whole[: len(seen)] and len(seen) > 40 - num_processes * batch_size


def test_what_is_left_of_an_epoch_and_fills_no_larger_step_is_left_out():
    order = orders(1, 8, num_records=20)[0]
    assert order.settled(Position(5, 0, 14)) == Position(5, 1, 0)
    assert order.settled(Position(5, 0, 12)) == Position(5, 0, 12)
    assert order.last_step(Position(5, 0, 12)) == 5 + 1 + 2


def test_the_schedule_counts_records_not_steps():
    one, two = orders(1, 4, num_records=16)[0], orders(2, 4, num_records=16)[0]
    position = Position(step=6, epoch=1, examples=8)
    assert one.schedule_step(position) / one.steps_per_epoch == two.schedule_step(position) / two.steps_per_epoch == 1.5


def test_records_that_fill_no_batch_are_refused():
    with pytest.raises(ValueError, match="5 training records do not fill one batch of 3 on each of 2 processes"):
        TrainingOrder(5, 3, 1, 0, num_processes=2)


def test_the_hash_of_records_knows_their_order_and_borders():
    assert records_hash(["ab", "c"]) == records_hash(["ab", "c"])
    assert len({records_hash(ids) for ids in (["ab", "c"], ["c", "ab"], ["a", "bc"], ["ab"])}) == 4


# ----- reading -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_ecg_dataset("synthetic", split="train", limit=11, cache_dir=cache, sampling_rate=100)


def step_reader(dataset, **options):
    options = {"text_augmentation": True, "seed": 5, "rank": 0} | options
    return StepReader(RecordReader(dataset), np.arange(len(dataset)), **options)


def test_a_step_reads_what_its_numbers_say_whatever_ran_before(dataset):
    reader = step_reader(dataset)
    step = (Position(step=4), [7, 2])
    first, _, again = reader[step], reader[Position(step=5), [1, 3]], step_reader(dataset)[step]
    assert first.record_ids() == [dataset[7]["record_id"], dataset[2]["record_id"]]
    assert first.text_keys.tolist() == [7, 2]
    assert (first.texts, first.seed, first.crop_seed) == (again.texts, again.seed, again.crop_seed)
    assert first.crop_generator().initial_seed() == first.crop_seed
    assert first.seed != step_reader(dataset, rank=1)[step].seed  # ranks draw apart
    plain = step_reader(dataset, text_augmentation=False)[step]
    assert plain.texts == [dataset[7]["text"], dataset[2]["text"]] and plain.seed == first.seed


def test_a_step_tells_what_its_texts_say_and_who_has_it(dataset):
    step = (Position(step=4), [7, 2, 5])
    assert step_reader(dataset)[step].positives().keys() == {"text_key"}
    batch = step_reader(dataset, reads_statements=True)[step]
    said = [said_in(record, text) for record, text in zip(batch.records, batch.texts, strict=True)]
    assert torch.equal(batch.text_statements, statement_numbers(said)) and all(said)
    assert torch.equal(batch.ecg_statements, statement_numbers([found_in(record) for record in batch.records]))
    assert entailed_pairs(batch.text_statements, batch.ecg_statements).diagonal().all()
    assert batch.texts == step_reader(dataset)[step].texts  # to look is to change nothing
    positives = StepReader.of(dataset, True, 5, 0, reads_statements=True)[step].positives()
    assert torch.equal(positives["ecg_statements"], batch.ecg_statements)


def test_varied_texts_take_their_descriptions_from_the_texts_of_the_split(dataset):
    look = {"sinus rhythm": "P before each QRS", "normal ecg": "nothing to see"}

    def described(row):
        statements = ["sinus rhythm", *(["normal ECG"] if row["record_id"][-1] in "02468" else [])]
        fields = row | {"statements": statements}
        return fields | {"text": choose_text(fields, "statements", look)}

    reader = StepReader.of(dataset.map(described, load_from_cache_file=False), True, 5, 0, reads_statements=False)
    assert reader.waveforms == look
    texts = [text for step in range(20) for text in reader[Position(step=step), range(11)].texts]
    assert any(text.endswith("normal ECG.\nPotential ECG waveforms:\nnothing to see") for text in texts)
    assert any("waveforms" not in text for text in texts)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_order_and_leave_torchs_generator_alone(dataset, num_workers):
    order = TrainingOrder(len(dataset), 3, epochs=2, seed=1)
    expected = [step_reader(dataset)[step] for step in order.steps(Position())]
    torch.manual_seed(9)
    before = torch.get_rng_state()
    got = list(read_ahead(step_reader(dataset), order.steps(Position()), num_workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch.position for batch in got] == [batch.position for batch in expected]
    for one, other in zip(got, expected, strict=True):
        assert (one.texts, one.seed, one.record_ids()) == (other.texts, other.seed, other.record_ids())
        assert all(np.array_equal(a.digital, b.digital) for a, b in zip(one.records, other.records, strict=True))


def test_the_next_batch_is_read_while_one_is_used():
    read, wanted = [], threading.Event()

    class Reader:
        def __getitem__(self, step):
            read.append(step)
            if step == 1:
                wanted.set()
            return step

    batches = read_ahead(Reader(), range(4))
    assert next(batches) == 0
    assert wanted.wait(timeout=10)  # nobody has asked for it yet
    assert list(batches) == [1, 2, 3] == read[1:]
    assert list(read_ahead(Reader(), [])) == []


def test_what_goes_wrong_while_reading_reaches_the_loop():
    class Broken:
        def __getitem__(self, step):
            raise OSError(f"no step {step}")

    with pytest.raises(OSError, match="no step 0"):
        list(read_ahead(Broken(), range(2)))


# ----- two processes -------------------------------------------------------------------------------------------------


def test_two_processes_read_the_order_of_one_after_a_stop_too(tmp_path):
    """Each process of a real group writes down what it reads; before and after a stop at step 2."""
    script = tmp_path / "reads.py"
    script.write_text(
        textwrap.dedent("""
        import json, sys
        import torch.distributed as dist
        from modeling_esi.training.batches import Position, TrainingOrder
        dist.init_process_group("gloo")
        order = TrainingOrder(23, 3, 2, 3, dist.get_rank(), dist.get_world_size())
        steps = list(order.steps(Position()))
        stopped = order.after(steps[1][0])
        told = [None] * dist.get_world_size()
        dist.all_gather_object(told, [steps[:2], list(order.steps(stopped))])
        if dist.get_rank() == 0:
            parts = [[rows for _, rows in before + after] for before, after in told]
            print(json.dumps([dist.get_world_size(), parts]))
        dist.destroy_process_group()
    """)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    world, parts = json.loads(done.stdout.strip().splitlines()[-1])
    assert world == 2
    assert [first + second for first, second in zip(*parts, strict=True)] == rows_of(*orders(1, 6))
