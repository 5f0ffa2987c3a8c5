"""Where a run begins: at step 0, further on, or not at all, since it is done. And what is then no longer as it was."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .batches import Position, TrainingOrder, records_hash
from .checkpoints import (
    FINISHED,
    ResumeError,
    all_checkpoints,
    read_state,
    remove,
    remove_unfinished,
    step_of,
    what_is_missing,
    whole_checkpoints,
)

logger = logging.getLogger(__name__)

NOT_DECISIVE = {  # flags that do not change the weights, or not before the run ends
    "data_dir", "meta_path", "file_path", "num_workers", "gradient_checkpointing", "compile", "output_dir",
    "max_steps", "contrastive_chunk_size", "mixed_precision", "cpu_threads", "eval_batch_size", "eval_epochs",
    "eval_limit", "eval_batch", "logging_steps", "save_steps", "save_total_limit", "resume_from_checkpoint",
    "report_to", "num_reports", "push_to_hub", "hub_model_id", "license",
}  # fmt: skip


def decisive_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that decide the weights: with `auto`, a run goes on only where these are the same."""
    return {name: value for name, value in flags.items() if name not in NOT_DECISIVE}


def choose_start(accelerator: Accelerator, flags: Mapping[str, Any]) -> tuple[bool, Path | None]:
    """Whether all is done already, and else the checkpoint to go on from, if any. Every process must call it.

    The main process looks, after it has removed what a killed process left half written, and tells the others.

    Raises:
        ResumeError: on all processes, as `finished_run` and `find_checkpoint`.
    """
    asked, output_dir = flags["resume_from_checkpoint"] or "none", Path(flags["output_dir"])
    settings = decisive_settings(flags)
    found: list[Any] = [None]
    if accelerator.is_main_process:
        remove_unfinished(output_dir)
        try:
            is_finished = finished_run(asked, output_dir, settings, flags["epochs"], flags["max_steps"])
            found = [(is_finished, find_checkpoint(asked, output_dir, settings))]
        except ResumeError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], ResumeError):
        raise found[0]
    return found[0]


def finished_run(asked: str, output_dir: Path, settings: Mapping[str, Any], epochs: int, max_steps: int | None) -> bool:
    """Whether `output_dir` holds the finished result of what is asked for, so that there is nothing to train.

    Args:
        asked: `--resume_from_checkpoint`: `auto`, `latest`, `none` or a checkpoint folder.
        settings: what decides the weights; compared with those of the run in `output_dir`.

    Raises:
        ResumeError: with `auto`, where the folder holds the result of other settings.
    """
    if asked not in ("auto", "latest") or not (output_dir / FINISHED).is_file():
        return False
    state = json.loads((output_dir / FINISHED).read_text())
    changed = differences(state["settings"], settings)
    if changed and asked == "auto":
        raise ResumeError(_other_settings(output_dir, changed))
    position = state["position"]
    return not changed and (position["epoch"] >= epochs or (max_steps is not None and position["step"] >= max_steps))


def find_checkpoint(asked: str, output_dir: Path, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint from which a run goes on; `None`: it starts at step 0. Arguments as in `finished_run`.

    Raises:
        ResumeError: for a folder that is no whole checkpoint; with `auto`, for a run of other settings.
    """
    if asked == "none":
        return None
    if asked not in ("auto", "latest"):
        if missing := what_is_missing(Path(asked)):
            raise ResumeError(f"--resume_from_checkpoint: {asked} is not a whole checkpoint ({missing}).")
        return Path(asked)
    found = whole_checkpoints(output_dir)
    if not found:
        return None
    changed = differences(read_state(found[-1])["settings"], settings)
    if changed and asked == "auto":
        raise ResumeError(_other_settings(output_dir, changed))
    return found[-1]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`(then, now)` of every setting that both know and that changed."""
    now = json.loads(json.dumps(now))
    return {name: (then[name], now[name]) for name in then.keys() & now.keys() if then[name] != now[name]}


def remove_after(output_dir: Path, step: int) -> None:
    """Delete what a run that begins at `step` will write again: later checkpoints, and the word that all is done."""
    (output_dir / FINISHED).unlink(missing_ok=True)
    for folder in all_checkpoints(output_dir):
        if step_of(folder) > step:
            logger.info("Removing %s: it is from later than step %d, where this run begins.", folder.name, step)
            remove(folder)


def _other_settings(output_dir: Path, changed: Mapping[str, tuple[Any, Any]]) -> str:
    told = "; ".join(f"{name}: {then} then, {now} now" for name, (then, now) in sorted(changed.items()))
    return (
        f"--output_dir {output_dir}: it holds a run of other settings ({told}). Give another --output_dir; or "
        "--resume_from_checkpoint latest, which goes on with the new settings from its last checkpoint; or "
        "--resume_from_checkpoint none, which starts anew and replaces it."
    )


def begin_state(
    order: TrainingOrder, record_ids: Iterable[str], flags: Mapping[str, Any], accelerator: Accelerator
) -> dict[str, Any]:
    """What a checkpoint says beside weights, optimizer and random states; its position is still the beginning."""
    return {
        "position": asdict(Position()),
        "num_processes": order.num_processes,
        "batch_size": order.batch_size,
        "num_records": order.num_records,
        "records": records_hash(record_ids),
        "settings": decisive_settings(flags),
        "computed_with": {
            "torch": torch.__version__,
            "device": accelerator.device.type,
            "precision": accelerator.mixed_precision,
            "threads": torch.get_num_threads() if accelerator.device.type == "cpu" else None,
        },
    }


def go_on_from(folder: Path, now: Mapping[str, Any], order: TrainingOrder, accelerator: Accelerator) -> Position:
    """Load a checkpoint; what is no longer as it was is told, or refused where records would be seen in another order.

    Args:
        now: `begin_state` of this run.

    Raises:
        ResumeError: for another seed, or other training records.
    """
    then = read_state(folder)
    if then["records"] != now["records"] or then["settings"]["seed"] != now["settings"]["seed"]:
        raise ResumeError(
            f"--resume_from_checkpoint: {folder} was written with --seed {then['settings']['seed']} and "
            f"{then['num_records']} training records, now there are --seed {now['settings']['seed']} and "
            f"{now['num_records']}{'' if then['num_records'] != now['num_records'] else ' others'}: the order would be "
            "another one. Give the same, or --resume_from_checkpoint none to start anew."
        )
    accelerator.load_state(str(folder))
    position = order.settled(Position(**then["position"]))
    logger.info("Resumed from %s: step %d, epoch %d, record %d of its order.", folder, *asdict(position).values())
    for name, (before, after) in differences(then["settings"], now["settings"]).items():
        logger.warning("Since the checkpoint --%s changed from %s to %s.", name, before, after)
    sizes = [(state["num_processes"], state["batch_size"]) for state in (then, now)]
    if sizes[0] != sizes[1]:
        same_union = math.prod(sizes[0]) == math.prod(sizes[1])
        logger.warning(
            "Then %d processes of %d records, now %d of %d. The order of records goes on at the same record, the "
            "learning rate at the same place of its schedule. No longer as in an undisturbed run, bit for bit: %severy "
            "process draws other noise, crops, texts and dropout.", *sizes[0], *sizes[1],
            "" if same_union else "a step has another number of records; ",
        )  # fmt: skip
    for name, (before, after) in differences(then["computed_with"], now["computed_with"]).items():
        logger.warning("No longer the same, bit for bit: %s was %s, is %s.", name, before, after)
    return position
