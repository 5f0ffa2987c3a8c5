"""Stopping in good order: signals become a wish, the wish of one process becomes the decision of all at one step."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN_AFTER = 2.0  # seconds: under torchrun, Ctrl-C reaches a process twice, from the terminal and from the launcher
LAUNCHERS = {"accelerate", "accelerate.commands.launch", "torchrun", "torch.distributed.run"}
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_code(number: int) -> int:
    """128 + signal, as shells say it: 143 after SIGTERM, 130 after SIGINT."""
    return 128 + number


class StopSignals:
    """SIGTERM and SIGINT, caught while this stands as a context.

    At first they end the process at once, with `exit_code`: there is nothing to save. After `hold()` they set
    `received`, and the loop, which looks at it between two steps, saves and ends. After `release()` they end the
    process at once again, also one that was held. A second SIGINT ends it at once in any case.
    """

    def __init__(self) -> None:
        self.received = 0
        self._is_held = False
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on somebody looks at `received`."""
        self._is_held = True

    def release(self) -> None:
        """From now on there is nothing to save."""
        self._is_held = False
        if self.received:
            sys.exit(exit_code(self.received))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_held:
            sys.exit(exit_code(number))
        if not self.received:
            self.received, self._first = number, time.monotonic()
            if "TORCHELASTIC_RUN_ID" not in os.environ:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
        elif number == signal.SIGINT and time.monotonic() - self._first > AGAIN_AFTER:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@dataclass(frozen=True)
class Verdict:
    """What all processes know: the signal that one of them got (0: none), the first step that went wrong, if any."""

    signal: int
    broken: Any


class Agreement:
    """What one process knows of its steps, told to all. It is read one step later, so that no device waits for it."""

    def __init__(self) -> None:
        self._sent: deque[tuple[torch.Tensor, Any, Any]] = deque()

    def send(self, signal_number: int, is_broken: torch.Tensor, step: Any) -> None:
        """Tell the others of this step. Every process must, at every step.

        Args:
            signal_number: `StopSignals.received`.
            is_broken: boolean scalar, on the device on which the processes exchange numbers.
            step: kept, and given back where it was broken.
        """
        known = torch.stack([is_broken.new_full((), signal_number, dtype=torch.float32), is_broken.float()])
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(known, dist.ReduceOp.MAX)
        arrived = None
        if known.is_cuda:  # to the host, behind the step's own work
            known = torch.empty(2, pin_memory=True).copy_(known, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._sent.append((known, arrived, step))

    def verdict(self, now: bool = False) -> Verdict | None:
        """What was agreed on up to the step before, with `now` on the last one too; `None` where all may go on.

        All processes get the same answer at the same step.
        """
        number, broken = 0, []
        while len(self._sent) > (0 if now else 1):
            known, arrived, step = self._sent.popleft()
            if arrived is not None:
                arrived.synchronize()
            received, is_broken = known.tolist()
            number, broken = number or int(received), broken + [step] * bool(is_broken)
            now = now or bool(number or broken)  # who stops looks at all steps
        return Verdict(number, broken[0] if broken else None) if number or broken else None


def follow_launcher() -> bool:
    """Where `accelerate launch` or `torchrun` started this process: be told (SIGTERM) when it dies, and stop too.

    A launcher that is killed tells its processes nothing; they would go on training beside the run that takes their
    place. Linux only; a process that a shell started is left alone. True where it follows one.
    """
    command = Path(f"/proc/{os.getppid()}/cmdline")
    if not sys.platform.startswith("linux") or not command.is_file():
        return False
    words = command.read_bytes().decode(errors="replace").split("\0")[:3]
    is_launcher = not LAUNCHERS.isdisjoint(Path(word).name for word in words)
    return is_launcher and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) == 0


def stop_at_signal(number: int, step: int, accelerator: Accelerator) -> NoReturn:
    """End, on all processes, after their checkpoint was written."""
    name, code = signal.Signals(number).name, exit_code(number)
    logger.info("%s: stopped after step %d; the same command goes on there. Exit code %d.", name, step, code)
    accelerator.end_training()
    sys.exit(code)
