"""A checkpoint is whole or it is not there; one run at a time has an output folder."""

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from modeling_esi.training import checkpoints
from modeling_esi.training.checkpoints import (
    ResumeError,
    only_run_in,
    read_state,
    remove,
    remove_unfinished,
    save_checkpoint,
    what_is_missing,
    whole_checkpoints,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def accelerator():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(3, 2)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    return accelerator


def save(accelerator, folder, step, limit=9):
    save_checkpoint(accelerator, folder, {"position": {"step": step}, "settings": {}}, limit)
    return folder / f"checkpoint-{step}"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_has_its_state_and_the_sizes_of_its_files(accelerator, tmp_path):
    folder = save(accelerator, tmp_path, 7)
    state = read_state(folder)
    assert state["position"] == {"step": 7}
    assert state["files"]["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert what_is_missing(folder) is None and whole_checkpoints(tmp_path) == [folder]


def test_the_last_ones_are_kept_by_number_not_by_name(accelerator, tmp_path):
    for step in (8, 9, 10, 11):
        save(accelerator, tmp_path, step, limit=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]


def test_later_ones_do_not_push_out_the_one_that_is_written(accelerator, tmp_path):
    save(accelerator, tmp_path, 20)
    save(accelerator, tmp_path, 5, limit=1)
    assert names(tmp_path) == ["checkpoint-20", "checkpoint-5"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "training_state.json").unlink(), "no training_state.json"),
        (lambda folder: (folder / "optimizer.bin").unlink(), "no optimizer.bin"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"half"), "expected .* bytes, got 4"),
        (lambda folder: (folder / "training_state.json").write_text('{"step": 3}'), "an earlier version"),
    ],
)
def test_what_is_not_whole_is_left_out_and_named(accelerator, tmp_path, caplog, damage, reason):
    good, bad = save(accelerator, tmp_path, 1), save(accelerator, tmp_path, 2)
    damage(bad)
    assert whole_checkpoints(tmp_path) == [good]
    assert re.search(reason, caplog.text) and "checkpoint-2" in caplog.text
    assert whole_checkpoints(tmp_path / "nothing") == []


def test_one_that_is_written_again_takes_the_place_of_a_broken_one(accelerator, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "stray").write_text("x")
    folder = save(accelerator, tmp_path, 3)
    assert whole_checkpoints(tmp_path) == [folder] and not (folder / "stray").exists()


@pytest.mark.parametrize("moment", ["save_state", "sync", "rename"])
def test_a_save_that_dies_at_any_moment_leaves_the_last_one(accelerator, tmp_path, monkeypatch, moment):
    """The process would be gone; here it raises, and leaves the folder as it is."""
    first = save(accelerator, tmp_path, 1)

    def die(*_, **__):
        raise KeyboardInterrupt

    place = {"save_state": (Accelerator, "save_state"), "sync": (os, "fsync"), "rename": (Path, "rename")}[moment]
    monkeypatch.setattr(*place, die)
    with pytest.raises(KeyboardInterrupt):
        save(accelerator, tmp_path, 2)
    monkeypatch.undo()
    assert whole_checkpoints(tmp_path) == [first]
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["checkpoint-1"]
    save(accelerator, tmp_path, 2)
    assert len(whole_checkpoints(tmp_path)) == 2


def test_a_removal_that_dies_leaves_no_half_checkpoint(accelerator, tmp_path, monkeypatch):
    folder = save(accelerator, tmp_path, 1)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    remove(folder)
    assert whole_checkpoints(tmp_path) == [] and names(tmp_path) == ["unfinished-removal-checkpoint-1"]
    monkeypatch.undo()
    remove_unfinished(tmp_path)
    assert names(tmp_path) == []


def test_everything_is_on_the_disk_before_the_name(accelerator, tmp_path, monkeypatch):
    events, rename, sync = [], Path.rename, checkpoints._sync
    monkeypatch.setattr(checkpoints, "_sync", lambda path: (events.append(path.name), sync(path)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    folder = save(accelerator, tmp_path, 4)
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    files = {path.name for path in folder.iterdir()} - {"training_state.json"}
    assert files | {".training_state.json.unfinished"} <= set(before)
    assert before[-1] == "unfinished-checkpoint-4" and after == [tmp_path.name]  # the folders' own entries


# ----- one run at a time ---------------------------------------------------------------------------------------------


def test_a_second_run_waits_until_the_first_is_gone(tmp_path):
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from modeling_esi.training.checkpoints import only_run_in
        with only_run_in(Path({str(tmp_path)!r})):
            print("mine", flush=True)
            time.sleep(60)
    """)
    first = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "mine\n"
        with pytest.raises(ResumeError, match=f"process {first.pid} trains there.*kill {first.pid}"):
            with only_run_in(tmp_path, longest_wait=0.3):
                pass
        first.kill()
        start = time.monotonic()
        with only_run_in(tmp_path, longest_wait=20):
            assert (tmp_path / "run" / "lock").read_text() == str(os.getpid())
        assert time.monotonic() - start < 10
    finally:
        first.kill()
        first.wait()
