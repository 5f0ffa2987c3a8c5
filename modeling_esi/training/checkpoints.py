"""Checkpoints that are whole or not there, and one run at a time in an output folder.

In an output folder stand `checkpoint-STEP/` and, while a run lasts, `run/` with what belongs to the run and not to the
model: its lock, its log, and at last `finished.json`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

STATE = "training_state.json"
FINISHED = "run/finished.json"
LOCK = "run/lock"
UNFINISHED = "unfinished-"
LONGEST_WAIT = 600.0  # seconds that a run waits for the one before it to be gone


class ResumeError(ValueError):
    """A run cannot begin as it was asked to; the message says what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, state: Mapping[str, Any], save_total_limit: int
) -> None:
    """Write `checkpoint-STEP`: weights, optimizer, random states of every process, and `state`.

    Everything is on the disk before the folder gets its name, so that a process may be killed, or a machine lose its
    power, at any moment. Every process must call it. Of the checkpoints up to this one, the last `save_total_limit`
    are kept.

    Args:
        state: plain values; `state["position"]["step"]` names the folder.
    """
    folder = output_dir / f"checkpoint-{state['position']['step']}"
    unfinished = output_dir / f"{UNFINISHED}{folder.name}"
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in unfinished.rglob("*"):
            _sync(path)
        files = {path.relative_to(unfinished).as_posix(): path.stat().st_size
                 for path in sorted(unfinished.rglob("*")) if path.is_file()}  # fmt: skip
        _write_json(unfinished / STATE, {**state, "files": files})
        remove(folder)
        unfinished.rename(folder)
        _sync(output_dir)
        earlier = [path for path in all_checkpoints(output_dir) if step_of(path) <= step_of(folder)]
        for old in earlier[:-save_total_limit]:
            remove(old)
    accelerator.wait_for_everyone()


class Stateful(Protocol):
    """What can be in a checkpoint beside model and optimizer: its state is tensors by name."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> Any: ...


def keep_in_checkpoints(accelerator: Accelerator, name: str, part: Stateful) -> None:
    """Have `part` in every checkpoint from now on, as `NAME.safetensors`, and read back with it.

    (What accelerate itself offers for this is a pickle.) Reading one that lacks it raises ResumeError.
    """
    file = f"{name}.safetensors"

    def save(models: list[Any], weights: list[Any], folder: str) -> None:
        if accelerator.is_main_process:
            save_file({key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()},
                      Path(folder) / file)  # fmt: skip

    def load(models: list[Any], folder: str) -> None:
        if not (Path(folder) / file).is_file():
            raise ResumeError(
                f"--resume_from_checkpoint: {folder} holds no {file}: its run had other flags. Give the "
                "same ones, or --resume_from_checkpoint none to start anew."
            )
        part.load_state_dict(load_file(Path(folder) / file))

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def write_finished(output_dir: Path, state: Mapping[str, Any]) -> None:
    """Say that the final folder is whole; the last file that a run writes."""
    _sync_all(output_dir)
    _write_json(output_dir / FINISHED, state)


def remove(folder: Path) -> None:
    """Delete a folder, if it is there. It loses its name first: half a checkpoint never bears one."""
    if folder.is_dir():
        doomed = folder.with_name(f"{UNFINISHED}removal-{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def remove_unfinished(output_dir: Path) -> None:
    """Delete what killed processes left half written or half deleted."""
    for folder in output_dir.glob(f"{UNFINISHED}*"):
        logger.info("Removing %s: it was not whole when its process ended.", folder.name)
        shutil.rmtree(folder)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The whole file, or none: it gets its name last."""
    unnamed = path.with_name(f".{path.name}.unfinished")
    unnamed.write_text(json.dumps(content, indent=1))
    _sync(unnamed)
    unnamed.replace(path)
    _sync(path.parent)


def _sync_all(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------------------------------
# Finding


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoints with all their files at their sizes, oldest first; others are named in the log."""
    missing = {folder: what_is_missing(folder) for folder in all_checkpoints(output_dir)}
    for folder, reason in missing.items():
        if reason:
            logger.warning("%s is not a whole checkpoint (%s): left out.", folder, reason)
    return [folder for folder, reason in missing.items() if reason is None]


def what_is_missing(folder: Path) -> str | None:
    """Why a folder is no whole checkpoint, or `None` where it is one."""
    if not (folder / STATE).is_file():
        return f"no {STATE} in it"
    if "position" not in read_state(folder):
        return f"no position in its {STATE}; an earlier version wrote it"
    for name, size in read_state(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            return f"no {name} in it"
        if path.stat().st_size != size:
            return f"{name}: expected {size} bytes, got {path.stat().st_size}"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `state`."""
    return json.loads((folder / STATE).read_text())


def all_checkpoints(output_dir: Path) -> list[Path]:
    found = [path for path in output_dir.glob("checkpoint-*") if path.name.split("-", 1)[1].isdecimal()]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.split("-", 1)[1])


# ---------------------------------------------------------------------------------------------------------------------
# One run at a time


@contextlib.contextmanager
def only_run_in(output_dir: Path, longest_wait: float = LONGEST_WAIT) -> Iterator[None]:
    """Keep an output folder for this process; wait while another one, not yet ended, has it.

    Raises:
        ResumeError: after `longest_wait` seconds.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    (output_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with (output_dir / LOCK).open("a+") as lock:
        started = told = time.monotonic()
        while not _locked(fcntl, lock):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            now = time.monotonic()
            if now - started > longest_wait:
                raise ResumeError(f"--output_dir {output_dir}: process {holder} trains there. Stop it: kill {holder}")
            if now >= told:
                logger.warning("%s: waiting for process %s, which trains there, to end.", output_dir, holder)
                told = now + 30.0
            time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(fcntl: Any, lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning(
            "%s: this file system has no locks (%s); see to it that one run at a time is there.", lock.name, error
        )
    return True
