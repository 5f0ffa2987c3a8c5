"""CPSC2018, the China Physiological Signal Challenge 2018 (http://2018.icbeb.org/Challenge.html): 6,877 ECGs of 6 to
60 s (a few are longer), 12 leads at 500 Hz, nine classes, up to three for a record.

Two forms are read, in folders of any depth:

- the original: `A0001.mat`, a MATLAB 5.0 struct `ECG` with `sex`, `age` and `data (12, num_samples)` in mV, in
  `TrainingSet1` to `TrainingSet3` or flat, with `REFERENCE.csv` (Recording, First_label, Second_label, Third_label;
  1 Normal, 2 AF, 3 I-AVB, 4 LBBB, 5 RBBB, 6 PAC, 7 PVC, 8 STD, 9 STE);
- the WFDB files of the PhysioNet/CinC Challenges 2020 and 2021 (`A0001.hea` and `A0001.mat`), with labels from
  `REFERENCE.csv` where one names the record, else from the SNOMED CT codes in `#Dx`, which say the same.

`labels` stand in the order given; `statements` say them in words. No patients are named, so the split is by a hash of
the record's name: 90 % train, 5 % validation, 5 % test, the same as in `physionet2021`. The original release states no
licence; the WFDB form is CC BY 4.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.listing.csv_tables import SEXES, UNKNOWN_SEXES, TableRow, read_rows, whole_number
from datasets_scripts.listing.record_files import Folder, walk_folders
from datasets_scripts.readers.matlab_structs import read_matlab_struct
from datasets_scripts.readers.wfdb_records import missing_and_flat, read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="China Physiological Signal Challenge 2018",
    homepage="http://2018.icbeb.org/Challenge.html",
    license="other",
    citation="Liu F, Liu C, Zhao L, Zhang X, Wu X, Xu X, Liu Y, Ma C, Wei S, He Z, Li J, Ng EYK. An open access "
    "database for evaluating the algorithms of electrocardiogram rhythm and morphology abnormality detection. J "
    "Med Imaging Health Inform 8(7), 1368-1373 (2018). https://doi.org/10.1166/jmihi.2018.2442",
)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLING_RATE = 500
REFERENCE_FILE = "REFERENCE.csv"
EXPECTED = "CPSC2018 (A0001.mat ... and REFERENCE.csv)"
LABEL_COLUMNS = ("First_label", "Second_label", "Third_label")

# in the order of the reference numbers 1 to 9; the first phrase is the statement
PHRASES = {
    "Normal": ["normal ECG", "sinus rhythm, normal ECG"],
    "AF": ["atrial fibrillation"],
    "I-AVB": ["first degree AV block"],
    "LBBB": ["left bundle branch block"],
    "RBBB": ["right bundle branch block"],
    "PAC": ["premature atrial contraction", "supraventricular premature beat"],
    "PVC": ["premature ventricular contraction", "ventricular premature beat"],
    "STD": ["ST depression", "ST segment depression"],
    "STE": ["ST elevation", "ST segment elevation"],
}
LABEL_OF_NUMBER = {str(number): label for number, label in enumerate(PHRASES, start=1)}
LABEL_OF_SNOMED_CODE = {
    "426783006": "Normal",  # sinus rhythm
    "164889003": "AF",
    "270492004": "I-AVB",
    "164909002": "LBBB",
    "59118001": "RBBB",
    "284470004": "PAC",
    "164884008": "PVC",  # ventricular ectopics
    "429622005": "STD",
    "164931005": "STE",
}
_NAME = re.compile(r"A\d{4}", re.ASCII)

References = dict[Path, dict[str, TableRow]]  # folder of a REFERENCE.csv -> record -> its row


def list_entries(data_dir: str | PathLike[str] | None) -> Iterator[Entry]:
    """All records below `data_dir`, folder by folder, by name, then what `REFERENCE.csv` names and is not there.

    The `REFERENCE.csv` of the record's own folder or the next one above tells its labels, else any other one below
    `data_dir`. A file of another name, a second one of the same name, and an original file that no `REFERENCE.csv`
    names are listed with their problem. Raises FileNotFoundError or ValueError for a folder or table that is none.
    """
    folders = list(walk_folders(data_dir, EXPECTED))
    paths = [folder.path for folder in folders if REFERENCE_FILE in folder.file_names]
    references = {path: _read_reference(path / REFERENCE_FILE) for path in paths}
    return _entries(folders, references)


def read_entry(entry: Entry, **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError."""
    path = Path(entry.path)
    if path.suffix == ".mat":
        return _read_original(path).with_metadata(**entry.fields)
    record = read_wfdb_record(path)
    if "labels" in entry.fields:
        return record.with_metadata(**entry.fields)
    labels = [LABEL_OF_SNOMED_CODE[code] for code in record.labels if code in LABEL_OF_SNOMED_CODE]
    others = [f"code_of_no_class: {code}" for code in record.labels if code not in LABEL_OF_SNOMED_CODE]
    return record.with_metadata(**_said(labels), repairs=(*record.repairs, *others))


def tables(data_dir: str | PathLike[str] | None, **_: Any) -> tuple[Path, ...]:
    """Every `REFERENCE.csv` below `data_dir`."""
    folders = walk_folders(data_dir, EXPECTED)
    return tuple(folder.path / REFERENCE_FILE for folder in folders if REFERENCE_FILE in folder.file_names)


def label_names(**_: Any) -> list[str]:
    """The nine classes, in the order of the reference numbers 1 to 9."""
    return list(PHRASES)


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """English texts for every class, in the order of `label_names`.

    >>> label_prompts()["I-AVB"]
    ['ECG Findings: first degree AV block.']
    """
    return {label: [findings_text([phrase]) for phrase in phrases] for label, phrases in PHRASES.items()}


def _said(labels: list[str]) -> dict[str, tuple[str, ...]]:
    labels = list(dict.fromkeys(labels))
    return {"labels": tuple(labels), "statements": tuple(PHRASES[label][0] for label in labels)}


def _read_reference(path: Path) -> dict[str, TableRow]:
    return {row.get("Recording"): row for row in read_rows(path, ("Recording", "First_label"))}


def _labels_of_row(row: TableRow, table: Path) -> list[str]:
    """The labels of a row in its order. ValueError for a broken row, another number, or none."""
    if row.problem is not None:
        raise ValueError(row.problem)
    numbers = [whole_number(row.get(column)) for column in LABEL_COLUMNS]
    numbers = [number for number in numbers if number]
    if not numbers or not set(numbers) <= set(LABEL_OF_NUMBER):
        raise ValueError(
            f"row {row.number} of {table}: expected labels from 1 to 9, got {', '.join(numbers) or 'none'}"
        )
    return [LABEL_OF_NUMBER[number] for number in numbers]


def _entries(folders: list[Folder], references: References) -> Iterator[Entry]:
    listed: dict[str, Path] = {}
    for folder in folders:
        yield from folder.link_entries()
        there = set(folder.file_names)
        for name in folder.file_names:
            stem, _, suffix = name.rpartition(".")
            if suffix == "hea" or (suffix == "mat" and f"{stem}.hea" not in there):
                yield _entry(folder.path / name, references, listed.get(stem))
                listed.setdefault(stem, folder.path / name)
    for folder, rows in references.items():
        for name in sorted(rows.keys() - listed.keys()):
            listed[name] = folder / f"{name}.mat"
            problem = f"{name}: {REFERENCE_FILE} names it, but there is no {name}.mat; copy it into the folder"
            yield Entry(name, str(listed[name]), split_of(name), problem=problem)


def _entry(path: Path, references: References, same_name: Path | None) -> Entry:
    name, split, fields, problem = path.stem, split_of(path.stem), {}, None
    row_and_table = _row_of(path, references)
    if not _NAME.fullmatch(name):
        problem = f"{path.name}: expected A0001 to A6877; other sets of the Challenge are read as physionet2021"
    elif same_name is not None:
        problem = f"{name}: the same name as {same_name}; keep one of the two below data_dir"
    elif row_and_table is not None:
        try:
            fields = _said(_labels_of_row(*row_and_table))
        except ValueError as error:
            problem = str(error)
    elif path.suffix == ".mat":
        problem = f"{name}: no {REFERENCE_FILE} names it, so it has no label; copy the published table into data_dir"
    files = (str(path),) if path.suffix == ".mat" else (str(path), str(path.with_suffix(".mat")))
    return Entry(name, str(path), split, fields, files, problem=problem)


def _row_of(path: Path, references: References) -> tuple[TableRow, Path] | None:
    """The row of the nearest table upwards that names the record, else of the first table that does."""
    for folder in (*path.parents, *references):
        if path.stem in references.get(folder, {}):
            return references[folder][path.stem], folder / REFERENCE_FILE
    return None


def _read_original(path: Path) -> ECGRecord:
    fields = read_matlab_struct(path, "ECG")
    missing = {"sex", "age", "data"} - set(fields)
    if missing:
        raise ValueError(f"{path}: expected ECG with sex, age and data, got {', '.join(fields)}")
    data = fields["data"]
    if data.dtype.kind not in "fiu" or data.shape[0] != len(LEADS) or data.shape[1] < 1:
        raise ValueError(f"{path}: expected data of (12, num_samples) numbers in mV, got {data.dtype} {data.shape}")
    with np.errstate(over="ignore"):
        signal = np.ascontiguousarray(data, dtype=np.float32)
    if np.isinf(signal).any():
        raise ValueError(f"{path}: expected data in mV, got infinite values; copy the file again")
    age, age_repairs = _age(fields["age"])
    sex, sex_repairs = _sex(fields["sex"])
    repairs = (*missing_and_flat(signal, LEADS), *age_repairs, *sex_repairs)
    return ECGRecord(signal, LEADS, SAMPLING_RATE, record_id=path.stem, age=age, sex=sex, repairs=repairs)


def _age(values: np.ndarray) -> tuple[float | None, list[str]]:
    """The age in years, with the repair where it is none that a person has; NaN stands for not known."""
    if values.dtype.kind not in "fiu" or values.size != 1:
        return None, [f"unreadable_age: {values.size} values"] if values.size else []
    age = float(values.item())
    if np.isnan(age):
        return None, []
    return (age, []) if 0 <= age <= 150 else (None, [f"implausible_age: {age:g}"])


def _sex(values: np.ndarray) -> tuple[str | None, list[str]]:
    word = str(values.item()).strip() if values.dtype.kind == "U" and values.size == 1 else ""
    known = word.lower() in SEXES or word.lower() in UNKNOWN_SEXES
    return SEXES.get(word.lower()), [] if known else [f"unknown_sex: {word[:40]}"]
