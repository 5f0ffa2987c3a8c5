"""One measurement in a process of its own: nothing that ran before can help it or disturb it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")}
MALLOC = "MALLOC_TRIM_THRESHOLD_"


def measured(module: str, function: str, *arguments: Any) -> dict[str, float]:
    """The numbers that `module.function(*arguments)` returns, called in a fresh process with one thread."""
    code = (
        f"import importlib, json, sys; function = getattr(importlib.import_module({module!r}), {function!r}); "
        "sys.stdout.write(json.dumps(function(*json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module}.{function}: ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def malloc_setting() -> str:
    """What the environment says about malloc, to be told beside timings."""
    return f"{MALLOC}={os.environ[MALLOC]}" if MALLOC in os.environ else f"{MALLOC} not set (glibc's default)"


def anonymous_memory() -> float:
    """RssAnon of this process in MB: memory of its own, without mapped files. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


@contextmanager
def working_folder(folder: str | None) -> Iterator[Path]:
    """`folder`, or a temporary one that is removed at the end."""
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
