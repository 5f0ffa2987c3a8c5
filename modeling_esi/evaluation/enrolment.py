"""Who is enrolled and who is probe: chosen by rule, or read from split files; and nobody of the training among them.

Split files are two or three CSV files in one folder: `gallery.csv`, `probe.csv` and, where there is one, `train.csv`
(names such as `ptbxl_gallery.csv` will do). A row names a recording in a column `record_id` or, as in PTB-XL's own
table, `ecg_id`; a column `patient_id` counts where the data set knows no patients. (MELP's split of PTB-XL, arXiv
2506.21803, has 3,586, 608 and 608 rows; its files' layout is not documented: rename their columns where they differ.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from datasets_scripts import load_ecg_dataset
from datasets_scripts.listing.csv_tables import read_header, read_rows, whole_number

PROBES = ("all", "one")
RECORD_COLUMNS = ("record_id", "ecg_id")


@dataclass(frozen=True)
class Enrolment:
    """Which recordings are enrolled and which are probes: record numbers `(G,)` and `(P,)`."""

    gallery: np.ndarray
    probes: np.ndarray


def choose_recordings(patient_ids: Sequence[str | None], probes: str = "all") -> Enrolment:
    """Enrolment and probes among recordings of known persons.

    The first recording of a person, in the data set's order, is enrolled. `probes` of the same person are `"all"`
    others, or `"one"`, the second. A person with one recording takes no part: nobody could look for it.

    Args:
        patient_ids: of each record; None where it is not known, which takes no part either.
        probes: `"all"` or `"one"`.

    Raises:
        ValueError: for another word, and where fewer than two persons have two recordings.
    """
    if probes not in PROBES:
        raise ValueError(f"probes: expected one of {', '.join(PROBES)}, got {probes!r}.")
    recordings: dict[str, list[int]] = {}
    for number, patient in enumerate(patient_ids):
        if patient is not None:
            recordings.setdefault(patient, []).append(number)
    repeated = [numbers for numbers in recordings.values() if len(numbers) > 1]
    if len(repeated) < 2:
        raise ValueError(
            f"identification: expected at least two persons with two recordings, got {len(repeated)} among "
            f"{len(recordings)} persons: choose another data set, or all its splits (split 'all')."
        )
    last = 2 if probes == "one" else None
    return Enrolment(
        np.array([numbers[0] for numbers in repeated]),
        np.array([number for numbers in repeated for number in numbers[1:last]]),
    )


def check_disjoint(patient_ids: Iterable[str | None], training_patients: Iterable[str | None]) -> int:
    """How many persons were compared with those of the training. ValueError that names the ones in both."""
    persons = {patient for patient in patient_ids if patient is not None}
    trained = {patient for patient in training_patients if patient is not None}
    if not trained:
        raise ValueError("training_patients: expected at least one person to compare with, got none.")
    if shared := sorted(persons & trained):
        more = f" and {len(shared) - 10} more" if len(shared) > 10 else ""
        raise ValueError(
            f"identification: expected persons that the model has not been trained on, got {len(shared)} of "
            f"{len(persons)} that are among the training's: {', '.join(shared[:10])}{more}. Leave them out, or train "
            "without them."
        )
    return len(persons)


# ----- files ---------------------------------------------------------------------------------------------------------


def read_split(
    split_dir: str | PathLike[str], record_ids: Sequence[str], patient_ids: Sequence[str | None]
) -> tuple[Enrolment, dict[str, str], list[str | None]]:
    """Enrolment and probes as files say, among the records at hand.

    Args:
        split_dir: the folder of the files (see above).
        record_ids, patient_ids: of the records at hand.

    Returns:
        The enrolment; rows of the files that are left out, with the reason (a recording that is not at hand, and
        probes of persons who are therefore not enrolled); and the patient of each record, from the files where the
        data set knows none.

    Raises:
        FileNotFoundError: without a gallery and a probe file.
        ValueError: for files without the columns, a person in train.csv too, and where nothing is left.
    """
    folder = Path(split_dir)
    listed = {part: _read_part(_find_part(folder, part)) for part in ("gallery", "probe")}
    place = {record_id: row for row, record_id in enumerate(record_ids)}
    patients = list(patient_ids)
    absent = [name for names in listed.values() for name in names if name not in place]
    for names in listed.values():
        for name, patient in names.items():
            if name in place and patients[place[name]] is None:
                patients[place[name]] = patient
    gallery, probes = ([place[name] for name in listed[part] if name in place] for part in ("gallery", "probe"))
    enrolled = {patients[row] for row in gallery} - {None}
    kept = [row for row in probes if patients[row] in enrolled]
    left_out = {}
    if absent:
        left_out[_some(absent)] = "in the split files, not among the records at hand"
    if lost := [record_ids[row] for row in probes if patients[row] not in enrolled]:
        left_out[_some(lost)] = "probes of persons who are not enrolled"
    if not kept:
        raise ValueError(
            f"{folder}: expected probes of enrolled persons among the {len(record_ids)} records, got none."
        )
    train = _find_part(folder, "train", needed=False)
    if train is not None:
        trained = {p or (patients[place[name]] if name in place else None) for name, p in _read_part(train).items()}
        if trained - {None}:
            check_disjoint([patients[row] for row in (*gallery, *kept)], trained)
    return Enrolment(np.array(gallery), np.array(kept)), left_out, patients


def read_patients(path: str | PathLike[str]) -> list[str]:
    """Patients of a training: a prepared folder's training split, a CSV's column `patient_id`, or a file's lines.

    Raises FileNotFoundError, or ValueError where the file names none.
    """
    path = Path(path)
    if path.is_dir():
        names = load_ecg_dataset(path, split="train")["patient_id"]
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder; training_patients must name persons, one on a line")
    elif path.suffix.lower() == ".csv":
        names = [whole_number(row.get("patient_id")) for row in read_rows(path, ("patient_id",))]
    else:
        names = [whole_number(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = sorted({name for name in names if name})
    if not found:
        raise ValueError(f"{path}: expected at least one person, got none.")
    return found


def _find_part(folder: Path, part: str, needed: bool = True) -> Path | None:
    found = sorted(path for path in folder.glob("*.csv") if path.stem.lower().split("_")[-1] == part)
    if len(found) == 1:
        return found[0]
    if not found and not needed:
        return None
    if not found:
        raise FileNotFoundError(f"{folder}: no {part}.csv; split_dir must hold gallery.csv and probe.csv")
    raise ValueError(f"{folder}: expected one file of the {part}, got {', '.join(path.name for path in found)}")


def _read_part(path: Path) -> dict[str, str | None]:
    """The person of each recording that a file names; None where it does not say."""
    column = next((name for name in RECORD_COLUMNS if name in read_header(path)), None)
    if column is None:
        raise ValueError(f"{path}: expected a column record_id or ecg_id, got {', '.join(read_header(path))}")
    rows = list(read_rows(path, (column,)))
    if problem := next((row.problem for row in rows if row.problem), None):
        raise ValueError(f"{path}: {problem}")
    return {whole_number(row.get(column)): whole_number(row.get("patient_id")) or None for row in rows}


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} recordings ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
