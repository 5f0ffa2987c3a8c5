"""Uploaded files become a record: counted and measured, read in a process of their own, and forgotten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import datasets_scripts
from datasets_scripts.records import ECGRecord, row_to_record

MAX_BYTES = 20 * 2**20  # of all files of one recording
MAX_FILES = 8
READING_SECONDS = 20
_READER = Path(__file__).with_name("reading_process.py")


@dataclass(frozen=True)
class Upload:
    """A recording that was read, and what is to be told of it: kind of notice to detail, in plain words."""

    record: ECGRecord
    notices: dict[str, str]


def read_upload(
    paths: Sequence[str | os.PathLike[str]],
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    seconds: int = READING_SECONDS,
) -> Upload:
    """The one recording that these files hold. They are read as copies in a folder of their own, which then goes.

    Args:
        paths: a file, or a WFDB header and the files that it names.
        sampling_rate, leads, unit: for files that do not say them.
        seconds: after which reading is given up.

    Raises:
        ValueError: with one sentence, for files that are not one recording, too large, or cannot be read. It names
            files as they were called, without their folders.
    """
    chosen = file_to_read([Path(path) for path in paths])
    settings = {"sampling_rate": sampling_rate, "leads": leads, "unit": unit}
    with TemporaryDirectory(prefix="esi-ecg-upload-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for path in paths:
            shutil.copyfile(path, folder / "files" / Path(path).name, follow_symlinks=False)
        answer = _ask(folder, chosen, settings, seconds)
        if "problem" in answer:
            raise ValueError(answer["problem"].replace(f"{folder / 'files'}{os.sep}", ""))
        with np.load(folder / "answer.npz", allow_pickle=False) as arrays:
            return Upload(row_to_record(answer["row"] | dict(arrays)), answer["notices"])


def file_to_read(paths: Sequence[Path]) -> str:
    """The name of the file that stands for the recording. ValueError where there is not exactly one recording."""
    if not paths:
        raise ValueError("Expected the file of a recording, got none: choose one.")
    sizes, names = [path.stat().st_size for path in paths], [path.name for path in paths]
    if len(paths) > MAX_FILES or sum(sizes) > MAX_BYTES:
        raise ValueError(
            f"Expected at most {MAX_FILES} files and {MAX_BYTES >> 20} MB, got {len(paths)} with "
            f"{sum(sizes) / 2**20:.1f} MB: upload one recording, or a part of it."
        )
    if len(set(names)) < len(names):
        raise ValueError("Expected each file once, got two of one name: upload one recording at a time.")
    headers = [name for name in names if name.lower().endswith(".hea")]
    candidates = headers or names
    if len(candidates) > 1:
        what = "one WFDB header" if headers else "one file, or a WFDB header with the files that it names"
        raise ValueError(f"Expected {what}, got {', '.join(candidates)}: upload one recording at a time.")
    return candidates[0]


def forget(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Delete uploaded files, and the folders that were made for each of them."""
    for path in map(Path, paths):
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _ask(folder: Path, name: str, settings: dict[str, Any], seconds: int) -> dict[str, Any]:
    """What the process says that reads the file. ValueError where it ended without a word."""
    request, answer = folder / "request.json", folder / "answer.json"
    asked = {"file": str(folder / "files" / name), "settings": settings, "seconds": seconds, "answer": str(answer)}
    request.write_text(json.dumps(asked), encoding="utf-8")
    root = str(Path(datasets_scripts.__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(_READER), str(request)]
    try:
        # the clock waits longer than the limit of computing: a busy machine is not the file's fault
        subprocess.run(command, env=environment, capture_output=True, timeout=3 * seconds, check=True)
    except subprocess.SubprocessError as error:
        raise ValueError(
            f"{name}: could not be read in {seconds} s and 3 GB of memory: the file is damaged or too large."
        ) from error
    return json.loads(answer.read_text(encoding="utf-8"))
