"""PhysioNet/CinC Challenge 2021 (https://physionet.org/content/challenge-2021/1.0.3/): eight sets of 12-lead ECGs with
SNOMED CT codes; and the Chapman-Shaoxing-Ningbo release (https://physionet.org/content/ecg-arrhythmia/1.0.0/).

Any tree of `.hea` and `.mat` files is read: the official `training/<set>/g1/`, the `WFDB_*` folders of its copies, and
`WFDBRecords/01/010/` of the Chapman-Shaoxing-Ningbo release, whose records have the same names and headers. The name of
a record tells its set: A0001 is CPSC2018, Q CPSC-Extra, I St Petersburg INCART, S PTB, HR PTB-XL, E Georgia, JS
Chapman-Shaoxing up to JS10646 and Ningbo above. One Ningbo header is published as S23074 beside JS23074.mat.

`statements` are the names of all codes in `#Dx` as `datasets_scripts.snomed` gives them, in the order given; `labels`
are the classes of a task. A code that is not known is told in `repairs`.

**Splits.** These files name no patients. Of CPSC2018, CPSC-Extra, Georgia, Chapman-Shaoxing and Ningbo 90 % of the
records are for training, 5 % for validation, 5 % for testing, by a hash of the record's name: nothing says that a
patient has several records there, nothing excludes it. Where patients are known to have several (PTB: 549 of 290,
INCART: 75 of 32, PTB-XL: 21,799 of 18,869 patients), all records are for training, so that no patient is in two splits.
With `ptb_xl_table` (PTB-XL's `ptbxl_database.csv`) HR records take patient and fold from there: HR00001 is its `ecg_id`
1; folds 1-8 train, 9 validates, 10 tests. Train on HR records without that table, and the patients of PTB-XL's own test
fold are in the training set.

Known bad headers of the Chapman-Shaoxing-Ningbo release (JS01052 and JS23074, whose first two lines stand in one) are
rejected with their reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from datasets_scripts import snomed
from datasets_scripts.listing.csv_tables import read_rows, whole_number
from datasets_scripts.listing.record_files import Folder, walk_folders
from datasets_scripts.ptb_xl import split_of_fold
from datasets_scripts.readers.wfdb_header import parse_header
from datasets_scripts.readers.wfdb_records import metadata_of_comments, read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="PhysioNet/Computing in Cardiology Challenge 2021, training sets",
    homepage="https://physionet.org/content/challenge-2021/1.0.3/",
    license="cc-by-4.0",
    citation="Reyna MA, Sadr N, Perez Alday EA, Gu A, Shah AJ, Robichaux C, Rad AB, Elola A, Seyedi S, Ansari S, "
    "Ghanbari H, Li Q, Sharma A, Clifford GD. Will Two Do? Varying Dimensions in Electrocardiography: The "
    "PhysioNet/Computing in Cardiology Challenge 2021. Computing in Cardiology 48, 1-4 (2021). "
    "https://doi.org/10.23919/CinC53138.2021.9662687",
)
SETS = (
    "cpsc_2018",
    "cpsc_2018_extra",
    "st_petersburg_incart",
    "ptb",
    "ptb-xl",
    "georgia",
    "chapman_shaoxing",
    "ningbo",
)
SET_OF_PREFIX = dict(zip(("A", "Q", "I", "S", "HR", "E"), SETS, strict=False))
SEVERAL_RECORDS_PER_PATIENT = ("st_petersburg_incart", "ptb", "ptb-xl")
LAST_CHAPMAN_NUMBER = 10646
MISNAMED = "S23074"  # a Ningbo record, not PTB's, whose names have four digits
_NAME = re.compile(r"(A|Q|I|S|HR|E|JS)(\d{4,6})", re.ASCII)


def list_entries(
    data_dir: str | PathLike[str] | None,
    *,
    sets: Collection[str] | None = None,
    task: str = "challenge",
    scored_only: bool = False,
    ptb_xl_table: str | PathLike[str] | None = None,
) -> Iterator[Entry]:
    """All records below `data_dir`, folder by folder, by name; no file is opened, unless `scored_only` asks for it.

    `sets` (names of `SETS`) are the only ones listed; `task` names the labels: `"challenge"` (26 scored classes) or
    `"csn"` (the acronyms of the Chapman-Shaoxing-Ningbo release); `scored_only` reads every header and leaves out
    records without a label of the task; `ptb_xl_table` gives HR records their patients and folds. A header of another
    name, and signals without a header, are listed with their problem. Raises FileNotFoundError or ValueError if the
    folder, the table or an option makes no sense.
    """
    snomed.check_task(task)
    wanted = _wanted_sets(sets)
    patients = None if ptb_xl_table is None else _read_patients(Path(ptb_xl_table))
    folders = walk_folders(data_dir, "the Challenge's records (.hea and .mat files, in folders of any depth)")
    entries = (entry for folder in folders for entry in _entries(folder, wanted, patients))
    return (_without_label(entry, task) for entry in entries) if scored_only else entries


def read_entry(entry: Entry, *, task: str = "challenge", **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError."""
    record = read_wfdb_record(Path(entry.path))
    codes = record.labels  # of the header's #Dx
    repairs = [f"unknown_snomed_code: {code}" for code in snomed.unknown_codes(codes)]
    if record.record_id != entry.record_id:
        repairs.append(f"record_name_corrected: {record.record_id} to {entry.record_id}")
    metadata = {"statements": snomed.names_of_codes(codes), "labels": snomed.labels_of_codes(codes, task)}
    metadata |= {"record_id": entry.record_id, "repairs": (*record.repairs, *repairs), **entry.fields}
    return record.with_metadata(**metadata)


def tables(
    data_dir: str | PathLike[str] | None, *, ptb_xl_table: str | PathLike[str] | None = None, **_: Any
) -> tuple[Path, ...]:
    """PTB-XL's table where it is given: this source has no table of its own."""
    return () if ptb_xl_table is None else (Path(ptb_xl_table),)


def label_names(*, task: str = "challenge", **_: Any) -> list[str]:
    """The 26 scored classes in the Challenge's order, or the conditions of the Chapman-Shaoxing-Ningbo release.

    CLBBB and LBBB are one class (LBBB), as are CRBBB and RBBB (RBBB), PAC and SVPB (PAC), PVC and VPB (PVC).
    """
    return snomed.label_names(task)


def label_prompts(*, task: str = "challenge", **_: Any) -> dict[str, list[str]]:
    """English texts for every label, in the order of `label_names`."""
    return snomed.label_prompts(task)


def set_of_record(name: str) -> str:
    """The set to which a record belongs by its name. Raises ValueError for a name that is none of the Challenge's.

    >>> set_of_record("HR00001"), set_of_record("JS10646"), set_of_record("JS10647")
    ('ptb-xl', 'chapman_shaoxing', 'ningbo')
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name}: expected a record named as in the Challenge: A0001, Q0001, I0001, S0001, HR00001, E00001, JS00001"
        )
    if match[1] == "JS" or name == MISNAMED:
        return "chapman_shaoxing" if int(match[2]) <= LAST_CHAPMAN_NUMBER else "ningbo"
    return SET_OF_PREFIX[match[1]]


def _wanted_sets(sets: Collection[str] | None) -> tuple[str, ...]:
    if sets is None:
        return SETS
    sets = (sets,) if isinstance(sets, str) else tuple(sets)
    unknown = [name for name in sets if name not in SETS]
    if unknown or not sets:
        raise ValueError(f"sets: expected names among {', '.join(SETS)}, got {', '.join(map(str, unknown)) or 'none'}")
    return sets


def _read_patients(path: Path) -> dict[str, tuple[str, str]]:
    """Patient and split of every HR record that PTB-XL's table holds."""
    patients = {}
    for row in read_rows(path, ("ecg_id", "patient_id", "strat_fold")):
        number, fold = whole_number(row.get("ecg_id")), whole_number(row.get("strat_fold"))
        patient = whole_number(row.get("patient_id"))
        if row.problem or not number.isdigit() or not patient or fold not in map(str, range(1, 11)):
            raise ValueError(
                f"{path}: expected ecg_id, patient_id and a strat_fold from 1 to 10 in row {row.number}, got "
                f"{row.problem or (number, patient, fold)}"
            )
        patients[f"HR{int(number):05d}"] = (patient, split_of_fold(int(fold)))
    return patients


def _entries(
    folder: Folder, wanted: tuple[str, ...], patients: Mapping[str, tuple[str, str]] | None
) -> Iterator[Entry]:
    """The entries of one folder."""
    yield from folder.link_entries()
    there = set(folder.file_names)
    for name in folder.file_names:
        stem, _, suffix = name.rpartition(".")
        if suffix == "hea":
            entry = _entry(folder.path, stem, patients)
        elif suffix == "mat" and _NAME.fullmatch(stem) and not there & {f"{stem}.hea", f"{stem[1:]}.hea"}:
            problem = f"{name}: has no header {stem}.hea beside it; copy the header into the same folder"
            entry = Entry(stem, str(folder.path / name), "train", problem=problem)
        else:
            continue
        if not _NAME.fullmatch(stem) or set_of_record(stem) in wanted:
            yield entry


def _entry(folder: Path, stem: str, patients: Mapping[str, tuple[str, str]] | None) -> Entry:
    path = folder / f"{stem}.hea"
    record_id = f"J{stem}" if stem == MISNAMED else stem
    files = (str(path), str(folder / f"{record_id}.mat"))
    try:
        record_set = set_of_record(stem)
    except ValueError as error:
        return Entry(stem, str(path), "train", files=files, problem=str(error))
    if patients is None or record_set != "ptb-xl":
        split = "train" if record_set in SEVERAL_RECORDS_PER_PATIENT else split_of(record_id)
        return Entry(record_id, str(path), split, files=files)
    if record_id in patients:
        patient, split = patients[record_id]
        return Entry(record_id, str(path), split, {"patient_id": patient}, files)
    problem = (
        f"{record_id}: PTB-XL's table does not hold this record, so its patient is not known; pass a full table, or "
        f"none (version 1.0.3 of PTB-XL withdrew 38 records)"
    )
    return Entry(record_id, str(path), "train", files=files, problem=problem)


def _without_label(entry: Entry, task: str) -> Entry:
    """The entry, left out if its header says that it has no label of the task."""
    if entry.problem is not None:
        return entry
    try:
        codes = metadata_of_comments(parse_header(Path(entry.path)).comments)["labels"]
    except (ValueError, OSError) as error:
        return replace(entry, problem=str(error))
    return entry if snomed.labels_of_codes(codes, task) else replace(entry, left_out_by="scored_only")
