"""Read one uploaded recording, in a process of its own: `python reading_process.py REQUEST` writes what it read.

A file from outside may take a library down, or all memory, or all time. Here it takes this process, which may use so
much of each and no more. It knows no model and imports no torch, so that it starts in a second.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.checks.signal_checks import no_signal, notices
from datasets_scripts.records import ECGRecord, read_record, record_to_row

MAX_VALUES = 2**24  # leads times samples: 12 leads at 500 Hz for 46 minutes
MEMORY = 3 * 2**30  # bytes of addresses, of which a fifth are the libraries
ARRAYS = ("signal", "gain", "offset")


def main(argv: list[str]) -> int:
    """Answers a request: JSON with `file`, `settings` of `read_record`, `seconds`, and `answer`, where to write.

    The answer is JSON with `row` and `notices`, the row's arrays in `.npz` beside it; or with `problem`, one sentence.
    """
    request = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    _limit(request["seconds"])
    answer = Path(request["answer"])
    try:
        record = read_record(request["file"], **request["settings"])
        _check(record)
    except (ValueError, OSError, ImportError) as error:
        _write(answer, {"problem": str(error)})
        return 0
    row: dict[str, Any] = record_to_row(record)
    np.savez(answer.with_suffix(".npz"), **{name: row.pop(name) for name in ARRAYS})
    _write(answer, {"row": row, "notices": notices(record)})
    return 0


def _check(record: ECGRecord) -> None:
    if record.stored.size > MAX_VALUES:
        raise ValueError(
            f"{record.record_id}: expected at most {MAX_VALUES / 1e6:.0f} million samples in all leads, got "
            f"{record.stored.size / 1e6:.0f} million: cut the recording."
        )
    if reason := no_signal(record):
        raise ValueError(f"{record.record_id}: {reason}.")


def _write(path: Path, answer: dict[str, Any]) -> None:
    path.write_text(json.dumps(answer), encoding="utf-8")


def _limit(seconds: int) -> None:
    """At most so many seconds of computing, and so much memory, where the system can say so."""
    if sys.platform != "linux":
        return  # elsewhere only the clock of the process that waits
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
