"""What is logged, once for each step: a line in `run/log.jsonl`, and the same to a tracker.

A run that was killed logged further than its last checkpoint. What it logged stays, and is not logged again when its
steps are done again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

LOG = "run/log.jsonl"
TRACKERS_THAT_RESUME = ("wandb", "trackio")  # they find a run by its name; tensorboard by its folder


class TrainingLog:
    """The log of one run, on the main process; elsewhere it does nothing.

    Args:
        accelerator: whose tracker gets the same figures.
        flags: of the run; plain ones are shown beside it in the tracker.
        settings: what decides the weights. A log of other settings is not continued beyond `step`.
        step: where this run begins.
    """

    def __init__(
        self, accelerator: Accelerator, flags: Mapping[str, Any], settings: Mapping[str, Any], step: int
    ) -> None:
        self._accelerator = accelerator
        self._path = Path(flags["output_dir"]) / LOG
        self._logged: set[tuple[str, int]] = set()
        self._head = {"run_id": secrets.token_hex(4), "settings": json.loads(json.dumps(settings))}
        first_step: int | None = step + 1  # where the tracker must forget what it knows
        if accelerator.is_main_process:
            is_new = flags["resume_from_checkpoint"] in (None, "none")
            lines = [] if is_new or not self._path.is_file() else _whole_lines(self._path)
            if lines and lines[0].get("settings") == self._head["settings"]:
                self._head, first_step = lines[0], None
            kept = [line for line in lines[1:] if first_step is None or line["step"] <= step]
            self._logged = {(line["kind"], line["step"]) for line in kept}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rewritten = self._path.with_suffix(".unfinished")
            rewritten.write_text("".join(json.dumps(line) + "\n" for line in [self._head, *kept]))
            rewritten.replace(self._path)
        if flags["report_to"] != "none":
            self._open_tracker(flags, first_step)

    def _open_tracker(self, flags: Mapping[str, Any], first_step: int | None) -> None:
        name, run_id = flags["report_to"], self._head["run_id"]
        options: dict[str, Any] = {}
        if name in TRACKERS_THAT_RESUME:
            options = {"name": run_id, "resume": "allow"} | ({"id": run_id} if name == "wandb" else {})
        elif name == "tensorboard" and first_step is not None:
            options = {"purge_step": first_step}
        plain = {name: value for name, value in flags.items() if isinstance(value, int | float | str)}
        self._accelerator.init_trackers("esi-ecg", plain if first_step == 1 else None, {name: options})

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log `values` of `kind` ("train", "validation") at `step`, unless that was done before."""
        if not values or not self._accelerator.is_main_process or (kind, step) in self._logged:
            return
        self._logged.add((kind, step))
        with self._path.open("a") as log:
            log.write(json.dumps({"kind": kind, "step": step, "values": dict(values)}) + "\n")
        self._accelerator.log(dict(values), step=step)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """All lines but one that was half written when its process was killed."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
