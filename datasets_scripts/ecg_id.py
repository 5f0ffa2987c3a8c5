"""ECG-ID (https://physionet.org/content/ecgiddb/1.0.0/): lead I of 90 persons, 310 recordings of 20 s at 500 Hz.

`Person_NN/rec_M.{hea,dat,atr}`. Every recording holds the one lead twice: as recorded (`ECG I`) and filtered by the
set's author (`ECG I filtered`). One of the two becomes the record's lead I, the other is told as left out. Age and sex
stand in the headers. There are neither reports nor labels: what the set tells is who is who (`patient_id`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from datasets_scripts.readers.wfdb_records import read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="ECG-ID Database",
    homepage="https://physionet.org/content/ecgiddb/1.0.0/",
    license="odc-by",
    citation="Lugovaya TS. Biometric human identification based on electrocardiogram. Master's thesis, Electrotechnical"
    ' University "LETI", Saint-Petersburg, Russian Federation (June 2005). https://doi.org/10.13026/C2J01F',
    statements_are_labels=False,  # there are neither
)
CHANNELS = {"raw": "ECG I", "filtered": "ECG I filtered"}
LEAD = "I"
LIST_FILE = "RECORDS"
_NAME = re.compile(r"(Person_(\d+))/rec_(\d+)", re.ASCII)


def list_entries(data_dir: str | PathLike[str] | None, *, channel: str = "raw") -> Iterator[Entry]:
    """All recordings by person and number; split by a hash of the person.

    They are those that the file `RECORDS` names, where it is there, and those whose headers are there. `channel` is
    `"raw"` or `"filtered"`. A line of `RECORDS` that names no `Person_NN/rec_M` is a problem. Raises FileNotFoundError
    if there is no recording, ValueError for another channel.
    """
    _check_channel(channel)
    folder = _folder(data_dir)
    listed = _listed(folder)
    found = {header.relative_to(folder).with_suffix("").as_posix() for header in folder.glob("Person_*/rec_*.hea")}
    names = {*listed, *found}
    if not names:
        raise FileNotFoundError(
            f"{folder}: no Person_NN/rec_M.hea and no {LIST_FILE}; data_dir must be ECG-ID's folder, as published"
        )
    return (_entry(folder, name, listed) for name in sorted(names, key=_order))


def read_entry(entry: Entry, *, channel: str = "raw", **_: Any) -> ECGRecord:
    """The record of an entry: lead I of the chosen channel, the other told in `repairs`.

    Raises FileNotFoundError, or ValueError if the recording has not exactly one channel of that name.
    """
    _check_channel(channel)
    record = read_wfdb_record(Path(entry.path))
    rows = [row for row, name in enumerate(record.leads) if name.strip() == CHANNELS[channel]]
    if len(rows) != 1:
        raise ValueError(
            f"{entry.path}: expected one channel {CHANNELS[channel]!r}, got {', '.join(record.leads)}; choose another "
            f"channel, or correct the header"
        )
    kept = slice(rows[0], rows[0] + 1)
    left_out = tuple(f"left_out_channel: {name}" for row, name in enumerate(record.leads) if row != rows[0])
    integers = record.digital is not None
    return record.with_metadata(
        signal=None if integers else record.signal[kept],
        digital=record.digital[kept] if integers else None,
        gain=record.gain[kept] if integers else None,
        offset=record.offset[kept] if integers else None,
        leads=(LEAD,),
        repairs=(*record.repairs, *left_out),
        record_id=entry.record_id,
        **entry.fields,
    )


def tables(data_dir: str | PathLike[str] | None, **_: Any) -> tuple[Path, ...]:
    """The file `RECORDS`, where it is there."""
    path = _folder(data_dir) / LIST_FILE
    return (path,) if path.is_file() else ()


def label_names(**_: Any) -> list[str]:
    """This set names persons, no findings. Raises ValueError."""
    raise ValueError("ecg_id: expected a source with labels, got one that only says who is who; use ptb_xl or code15")


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """This set names persons, no findings. Raises ValueError."""
    label_names()
    return {}


def _folder(data_dir: str | PathLike[str] | None) -> Path:
    if data_dir is None:
        raise ValueError("data_dir: expected ECG-ID's folder, which holds Person_01 to Person_90, got None")
    return Path(data_dir)


def _check_channel(channel: str) -> None:
    if channel not in CHANNELS:
        raise ValueError(f"channel: expected one of {', '.join(CHANNELS)}, got {channel!r}")


def _listed(folder: Path) -> list[str]:
    path = folder / LIST_FILE
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _order(name: str) -> tuple[int, int, str]:
    """By person and number; what is no name comes last."""
    match = _NAME.fullmatch(name)
    return (int(match[2]), int(match[3]), name) if match else (2**63, 0, name)


def _entry(folder: Path, name: str, listed: list[str]) -> Entry:
    match = _NAME.fullmatch(name)
    if match is None:
        path = str(folder / LIST_FILE) if name in listed else f"{folder / name}.hea"
        problem = f"expected names such as Person_01/rec_1, got {name[:80]!r}; it is not opened"
        return Entry(name, path, split_of(name), files=(path,), problem=problem)
    path = str(folder / name)
    return Entry(name, path, split_of(match[1]), {"patient_id": match[1]}, (f"{path}.hea", f"{path}.dat"))
