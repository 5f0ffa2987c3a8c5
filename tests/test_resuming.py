"""Where a run begins; and that a run which was killed 30 times ends in the same weights, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from modeling_esi import ESIProcessor
from modeling_esi.training import resuming
from modeling_esi.training.batches import Position, TrainingOrder
from modeling_esi.training.checkpoints import ResumeError, save_checkpoint, write_finished

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {"lr": 0.1, "seed": 3, "epochs": 4, "max_steps": None, "resume_from_checkpoint": "auto", "batch_size": 3}
IDS = [f"r{number}" for number in range(12)]
ORDER = TrainingOrder(num_records=12, batch_size=3, epochs=4, seed=3)


@pytest.fixture(scope="module")
def accelerator():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(3, 2)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    return accelerator


@pytest.fixture
def begin(accelerator, tmp_path):
    """Write a checkpoint at a position, or say that the run is finished there; and ask where a run begins."""

    def state(position, flags=FLAGS, ids=IDS, order=ORDER):
        return resuming.begin_state(order, ids, flags, accelerator) | {"position": position.to_dict()}

    def save(position, **options):
        save_checkpoint(accelerator, tmp_path, state(position, **options), 9)

    def finish(position, **options):
        (tmp_path / "run").mkdir(exist_ok=True)
        write_finished(tmp_path, state(position, **options))

    def choose(**changed):
        is_finished, folder = resuming.choose_start(accelerator, FLAGS | {"output_dir": str(tmp_path)} | changed)
        return "finished" if is_finished else folder and folder.name

    return SimpleNamespace(state=state, save=save, finish=finish, choose=choose, folder=tmp_path)


# ----- where ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["auto", "latest", "none", None])
def test_an_empty_folder_begins_at_step_0(begin, asked):
    assert begin.choose(resume_from_checkpoint=asked) is None


@pytest.mark.parametrize("asked", ["auto", "latest"])
def test_the_same_command_goes_on_from_the_last_checkpoint(begin, asked):
    begin.save(Position(2, 0, 6))
    begin.save(Position(11, 2, 9))
    (begin.folder / "unfinished-checkpoint-12").mkdir()
    assert begin.choose(resume_from_checkpoint=asked, save_steps=7, num_workers=2) == "checkpoint-11"
    assert not (begin.folder / "unfinished-checkpoint-12").exists()


def test_none_begins_anew_and_a_folder_begins_there(begin):
    begin.save(Position(2, 0, 6))
    assert begin.choose(resume_from_checkpoint="none") is None
    assert begin.choose(resume_from_checkpoint=str(begin.folder / "checkpoint-2")) == "checkpoint-2"
    with pytest.raises(ResumeError, match="checkpoint-9 is not a whole checkpoint"):
        begin.choose(resume_from_checkpoint=str(begin.folder / "checkpoint-9"))


def test_other_settings_stop_auto_and_not_latest(begin):
    begin.save(Position(2, 0, 6))
    with pytest.raises(ResumeError, match=r"a run of other settings \(lr: 0.1 then, 0.2 now\).*--output_dir.*none"):
        begin.choose(lr=0.2)
    assert begin.choose(lr=0.2, resume_from_checkpoint="latest") == "checkpoint-2"


@pytest.mark.parametrize("asked", ["auto", "latest"])
def test_what_is_finished_is_not_trained_again(begin, asked):
    begin.save(Position(16, 4, 0))
    begin.finish(Position(16, 4, 0))
    assert begin.choose(resume_from_checkpoint=asked) == "finished"
    assert begin.choose(resume_from_checkpoint=asked, max_steps=7) == "finished"
    assert begin.choose(resume_from_checkpoint="none") is None


def test_what_ended_at_max_steps_goes_on_without_it(begin):
    begin.save(Position(5, 1, 3))
    begin.finish(Position(5, 1, 3))
    assert begin.choose(max_steps=5) == "finished"
    assert begin.choose(max_steps=6) == begin.choose() == "checkpoint-5"


def test_the_result_of_other_settings_is_not_replaced_unasked(begin):
    begin.save(Position(16, 4, 0))
    begin.finish(Position(16, 4, 0))
    with pytest.raises(ResumeError, match="epochs: 4 then, 9 now"):
        begin.choose(epochs=9)
    assert begin.choose(epochs=9, resume_from_checkpoint="latest") == "checkpoint-16"


def test_what_comes_later_is_removed_where_a_run_begins_earlier(begin):
    for position in (Position(2, 0, 6), Position(5, 1, 3), Position(16, 4, 0)):
        begin.save(position)
    begin.finish(Position(16, 4, 0))
    resuming.remove_after(begin.folder, 5)
    assert sorted(path.name for path in begin.folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-5"]
    assert not (begin.folder / "run" / "finished.json").exists()


# ----- what is then no longer as it was ------------------------------------------------------------------------------


def test_another_number_of_processes_says_what_is_not_the_same(begin, accelerator, caplog):
    before = TrainingOrder(len(IDS), 3, 4, 3, num_processes=2)
    begin.save(Position(3, 1, 6), order=before)
    now = TrainingOrder(len(IDS), 6, 4, 3)
    with caplog.at_level("INFO"):
        position = resuming.go_on_from(
            begin.folder / "checkpoint-3", begin.state(Position(), order=now), now, accelerator
        )
    assert position == Position(3, 1, 6)
    assert "step 3, epoch 1, record 6" in caplog.text
    assert (
        "Then 2 processes of 3 records, now 1 of 6." in caplog.text and "another number of records" not in caplog.text
    )
    smaller = TrainingOrder(len(IDS), 4, 4, 3)
    resuming.go_on_from(begin.folder / "checkpoint-3", begin.state(Position(), order=smaller), smaller, accelerator)
    assert "a step has another number of records" in caplog.text


@pytest.mark.parametrize(("flags", "ids"), [({"seed": 4}, IDS), ({}, IDS[::-1]), ({}, IDS[:-1])])
def test_another_order_of_records_is_refused(begin, accelerator, flags, ids):
    begin.save(Position(2, 0, 6))
    order = TrainingOrder(len(ids), 3, 4, 3)
    now = begin.state(Position(), flags=FLAGS | flags, ids=ids, order=order)
    with pytest.raises(ResumeError, match="the order would be another one"):
        resuming.go_on_from(begin.folder / "checkpoint-2", now, order, accelerator)


def test_nothing_is_said_where_all_is_the_same(begin, accelerator, caplog):
    begin.save(Position(2, 0, 6))
    resuming.go_on_from(begin.folder / "checkpoint-2", begin.state(Position()), ORDER, accelerator)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


# ----- kill -9 -------------------------------------------------------------------------------------------------------

STARTER = """
import json, os, sys, traceback
import train_accelerate
print("ready", flush=True)
for line in sys.stdin:
    process = os.fork()
    if not process:
        output = os.open(os.environ["OUTPUT"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        try:
            train_accelerate.main(json.loads(line))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else print(end.code) or 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
COMMAND = (
    f"--config {ROOT}/recipes/demo.yaml --limit 9 --batch_size 3 --epochs 6 --lr 1e-3 --duration 2.5 "
    "--decoder_layers 1 --scratch_layers 1 --eval_batch 4 --eval_epochs 2 --cpu_threads 1 --num_reports 0 --seed 7 "
    "--logging_steps 2 --save_steps 2 --crop_duration 1.5 --positives entailed --weight_average 0.9 "
    "--masked_frames_weight 0.3"
).split()


class Starter:
    """Starts trainings as processes of their own, from one that has imported everything: seconds less for each."""

    def __init__(self, output):
        self.output = output
        environment = os.environ | {"OUTPUT": str(output), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([sys.executable, "-c", STARTER], cwd=output.parent, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def start(self, *flags):
        self.process.stdin.write(json.dumps([*COMMAND, *map(str, flags)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def ended(self):
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    starter = Starter(tmp_path_factory.mktemp("killed") / "output.txt")
    yield starter
    starter.process.stdin.close()
    starter.process.wait(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(starter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "esi"
    starter.start("--output_dir", folder)
    assert starter.ended() == 0
    return folder


def assert_same(folder, expected):
    """Weights, results and log are those of the run that nobody disturbed."""
    for name in ("model.safetensors", "results.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert logged_losses(folder) == logged_losses(expected)
    assert not list(folder.glob("unfinished-*"))


def logged_losses(folder):
    """All that was logged and does not depend on a clock, or on how long a process has been there."""
    passing = ("second", "share", "memory", "dimension")
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()[1:]]
    return [(line["kind"], line["step"], {name: value for name, value in line["values"].items()
                                          if not any(word in name for word in passing)}) for line in lines]  # fmt: skip


def kill_during_save(process, folder, rng):
    """Once a save has begun, within it or soon after; None where the training ended first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and is_running(process):
        if any(folder.glob("unfinished-checkpoint-*")):
            time.sleep(rng.uniform(0, 0.06))
            break
        time.sleep(0.002)
    return kill(process, folder)


def kill_at_random(process, folder, rng):
    time.sleep(rng.uniform(0.2, 6))
    return kill(process, folder)


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] not in "ZX"
    except FileNotFoundError:
        return False


def kill(process, folder):
    """Kill it, and say whether a checkpoint was half written; None where there was nothing left to kill."""
    if not is_running(process):
        return None
    os.kill(process, signal.SIGKILL)
    return "save" if any(folder.glob("unfinished-checkpoint-*")) else "else"


def kill_again_and_again(starter, tmp_path, expected, num_kills, seed, check):
    """Kill trainings, each started again by the same command until it ends, until `num_kills` are dead."""
    rng, killed, finished = random.Random(seed), [], 0
    while len(killed) < num_kills:
        folder = tmp_path / f"esi-{finished}"
        code = None
        while code != 0:
            process = starter.start("--output_dir", folder)
            if len(killed) < num_kills:
                how = (kill_during_save, kill_at_random)[len(killed) % 2]
                where = how(process, folder, rng)
                code = starter.ended()
                assert code in (0, -signal.SIGKILL)
                if code:
                    killed.append(where)
            else:
                code = starter.ended()
                assert code == 0
        finished += 1
        check(folder, expected)
    return killed


def test_the_parts_of_the_method_are_in_the_checkpoints_and_the_average_in_the_folder(undisturbed):
    last = undisturbed / "checkpoint-18"
    average, weights = load_file(last / "weight_average.safetensors"), load_file(undisturbed / "model.safetensors")
    assert average.pop("num_updates") == 18
    trained = load_file(last / "model.safetensors")
    for name, value in weights.items():  # judged and saved is the mean, not the last step
        assert torch.equal(value, average[f"average.{name}"])
    assert not all(torch.equal(value, trained[name]) for name, value in weights.items())
    heads = load_file(last / "extra_terms.safetensors")
    assert heads.keys() == {"masked_frames.head.weight", "masked_frames.head.bias"} and not heads.keys() & weights
    assert not list(last.glob("custom_checkpoint*"))  # which would be pickles
    assert json.loads((undisturbed / "config.json").read_text())["positives"] == "entailed"
    assert ESIProcessor.from_pretrained(undisturbed).feature_extractor.duration == 2.5  # training saw 1.5 s


EVERY_PART = (
    "--max_steps 2 --amplitude_jitter 0.2 --baseline_wander 0.5 --muscle_noise 0.2 --time_shift 0.3 "
    "--lead_dropout 0.5 --alignment_weight 0.2"
).split()


def test_the_same_seed_gives_the_same_weights_with_every_part_of_the_method(starter, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        starter.start("--output_dir", folder, *EVERY_PART)
        assert starter.ended() == 0, starter.output.read_text()[-3000:]
    assert_same(*folders)
    heads = load_file(folders[0] / "checkpoint-2" / "extra_terms.safetensors")
    assert {name.split(".")[0] for name in heads} == {"masked_frames", "alignment"}


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@needs_proc
def test_killed_three_times_the_weights_are_the_same(starter, undisturbed, tmp_path):
    killed = kill_again_and_again(starter, tmp_path, undisturbed, 3, seed=1, check=assert_same)
    assert len(killed) == 3 and killed.count("save") >= 1


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_thirty_times_the_weights_are_the_same(starter, undisturbed, tmp_path):
    killed = kill_again_and_again(starter, tmp_path, undisturbed, 30, seed=0, check=assert_same)
    assert len(killed) == 30 and killed.count("save") >= 5 and killed.count("else") >= 5


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_ends_in_the_same_weights(starter, undisturbed, tmp_path, number):
    folder = tmp_path / "esi"
    process = starter.start("--output_dir", folder, "--save_steps", 999)
    wait_for(folder / "run" / "log.jsonl", '"step": 2', process)
    os.kill(process, number)
    assert starter.ended() == 128 + number
    saved = [path.name for path in folder.glob("checkpoint-*")]
    assert len(saved) == 1 and 2 <= int(saved[0].split("-")[1]) < 18
    starter.start("--output_dir", folder)
    assert starter.ended() == 0
    assert load_file(folder / "model.safetensors").keys() == load_file(undisturbed / "model.safetensors").keys()
    assert_same(folder, undisturbed)


def wait_for(path, words, process):
    deadline = time.monotonic() + 60
    while not (path.is_file() and words in path.read_text()):
        assert time.monotonic() < deadline and is_running(process)
        time.sleep(0.005)


def test_a_finished_run_says_so_and_trains_no_more(starter, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.name != "lock"}
    start = time.monotonic()
    starter.start("--output_dir", undisturbed)
    assert starter.ended() == 0 and time.monotonic() - start < 10
    assert {path: path.stat().st_mtime_ns for path in before} == before
    starter.start("--output_dir", undisturbed, "--lr", 0.5)
    assert starter.ended() == 1
    said = starter.output.read_text()
    assert "is finished" in said and "lr: 0.001 then, 0.5 now" in said
