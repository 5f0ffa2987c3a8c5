"""MIMIC-IV-ECG 1.0 (https://physionet.org/content/mimic-iv-ecg/1.0/): 800,035 ECGs of 10 s with machine statements.

Read as published: `record_list.csv` names the recordings, `machine_measurements.csv` what the cardiograph said of them
(`report_0` to `report_17`). Age and sex are not in this set: they come from MIMIC-IV's `patients.csv`, which is under a
data use agreement. Its dates are shifted for each patient, and so are the recordings' by the same shift; 91 years
there stand for over 89 (https://mimic.mit.edu/docs/iv/modules/hosp/patients/), which a record stores as 90.

Lead order in the files is I II III aVR aVF aVL V1..V6: leads are known by name, never by position.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from datasets_scripts.listing.csv_tables import TableRow, parse_age, parse_sex, read_header, read_rows, whole_number
from datasets_scripts.readers.wfdb_records import OVER_89, read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset",
    homepage="https://physionet.org/content/mimic-iv-ecg/1.0/",
    license="odbl",
    citation="Gow B, Pollard T, Nathanson LA, Johnson A, Moody B, Fernandes C, Greenbaum N, Waks JW, Eslami P, "
    "Carbonati T, Chaudhari A, Herbst E, Moukheiber D, Berkowitz S, Mark R, Horng S. MIMIC-IV-ECG: Diagnostic "
    "Electrocardiogram Matched Subset (version 1.0). PhysioNet (2023). https://doi.org/10.13026/4nqg-sb35",
    statements_are_labels=False,  # they are the report itself
    credentialed_fields={"patients": ("age", "sex")},
)
RECORDS_TABLE, STATEMENTS_TABLE = "record_list.csv", "machine_measurements.csv"
REPORT_COLUMNS = tuple(f"report_{number}" for number in range(18))
AGES = ("recording", "anchor")
# how tables write "nothing", as pandas reads them: MERL counts words after `dropna`
NOTHING = frozenset({"", "nan", "NaN", "NA", "N/A", "n/a", "<NA>", "None", "null", "NULL"})
_PLAIN_PATH = re.compile(r"[-\w]+(?:/[-\w]+)*", re.ASCII)
_YEAR = re.compile(r"(\d{4})-\d\d?-\d\d?\b.*", re.ASCII)


class MachineReport(NamedTuple):
    """What the cardiograph said of a recording: its statements, the text made of them, and MERL's count of words."""

    statements: tuple[str, ...]
    text: str
    num_words: int


NO_REPORT = MachineReport((), "", 0)


class Patient(NamedTuple):
    """A row of `patients.csv`: `anchor_age` in years, in the (shifted) year `anchor_year`."""

    sex: str | None
    anchor_age: float | None
    anchor_year: int | None


@dataclass
class _Statements:
    """The table of statements: reports by study, studies told twice differently, and rows that tell nothing."""

    reports: dict[str, MachineReport] = field(default_factory=dict)
    contradicted: set[str] = field(default_factory=set)
    broken_rows: list[TableRow] = field(default_factory=list)
    repairs: tuple[str, ...] = ()


def list_entries(
    data_dir: str | PathLike[str] | None,
    *,
    patients: str | PathLike[str] | None = None,
    min_words: int = 0,
    age: str = "recording",
) -> Iterator[Entry]:
    """All recordings in the order of `record_list.csv`; split by a hash of the patient.

    `patients` is the path of MIMIC-IV's `patients.csv` (unpacked): with it records have sex and age, which is that at
    the recording (`anchor_age` + year of `ecg_time` - `anchor_year`), or, with `age="anchor"`, `anchor_age` itself, as
    the paper's template took it. `min_words` leaves out reports with fewer words, counted as MERL does (`count_words`);
    4 is MERL's own filter, which keeps 771,693 records.

    `report` is the statements, in order, each ended by a full stop unless it has one. A study that stands twice, or
    that has two different reports, and a row without a plain path are problems. A recording without statements, or of
    a patient who is not in `patients`, is listed with what is known, and says so in `repairs`. Entries are made one by
    one; about 350 MB are held for 800,000 studies.
    Raises FileNotFoundError for a missing table, ValueError for missing columns or options that make no sense.
    """
    folder = _folder(data_dir)
    if age not in AGES:
        raise ValueError(f"age: expected one of {', '.join(AGES)}, got {age!r}")
    if min_words < 0:
        raise ValueError(f"min_words: expected a number of words from 0 on, got {min_words!r}")
    known = None if patients is None else read_patients(Path(patients), with_year=age == "recording")
    needed = ("subject_id", "study_id", "path") + (("ecg_time",) if known is not None and age == "recording" else ())
    rows = read_rows(_published(folder, RECORDS_TABLE), needed)
    said = _read_statements(_published(folder, STATEMENTS_TABLE))
    return _entries(folder, rows, said, known, min_words, age)


def read_entry(entry: Entry, **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError with one sentence."""
    record = read_wfdb_record(Path(entry.path))
    fields = dict(entry.fields)
    repairs = (*record.repairs, *fields.pop("repairs", ()))
    return record.with_metadata(**fields, record_id=entry.record_id, repairs=repairs)


def tables(
    data_dir: str | PathLike[str] | None, *, patients: str | PathLike[str] | None = None, **_: Any
) -> tuple[Path, ...]:
    """The two published tables, and `patients.csv` where it is given."""
    folder = _folder(data_dir)
    published = (folder / RECORDS_TABLE, folder / STATEMENTS_TABLE)
    return published if patients is None else (*published, Path(patients))


def label_names(**_: Any) -> list[str]:
    """This set has reports only. Raises ValueError."""
    raise ValueError("mimic_iv_ecg: expected a source with labels, got one with machine reports only; use ptb_xl")


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """This set has reports only. Raises ValueError."""
    label_names()
    return {}


def count_words(values: Sequence[str]) -> int:
    """The words of a report as MERL counts them (arXiv 2403.06659, released preprocessing): 0 for none.

    `values` are the cells that hold something, as they are. They are joined by ". ", asterisks and spaces are taken
    off both ends, then "=" and "-", and what stands between spaces is a word.

    >>> count_words(["Sinus rhythm", "Normal ECG"]), count_words(["*** Atrial fibrillation ***"])
    (4, 2)
    """
    return len(". ".join(values).strip(" *").strip("=-").split())


def join_statements(statements: Sequence[str]) -> str:
    """The statements as one text: each a sentence, ended by a full stop unless it ends in ".", "!" or "?".

    >>> join_statements(["Sinus rhythm", "A-V dissociation."])
    'Sinus rhythm. A-V dissociation.'
    """
    return " ".join(said if said.endswith((".", "!", "?")) else f"{said}." for said in statements)


def machine_report(cells: Sequence[str]) -> MachineReport:
    """The report of the cells `report_0`, `report_1`, ...: spaces around statements and empty ones are dropped."""
    values = [cell for cell in cells if cell not in NOTHING]
    statements = tuple(said for said in map(str.strip, values) if said not in NOTHING)
    return MachineReport(statements, join_statements(statements), count_words(values))


def read_patients(path: Path, with_year: bool = True) -> dict[str, Patient]:
    """The patients of MIMIC-IV's `patients.csv` by `subject_id`; `with_year`: `anchor_year` must be there.

    Raises FileNotFoundError or ValueError: columns that are missing, a row that makes no sense, a patient twice.
    """
    if path.suffix == ".gz":
        raise ValueError(f"{path}: expected an unpacked CSV, got a packed one; unpack it with gunzip --keep")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; patients must be MIMIC-IV's patients.csv (module hosp)")
    needed = ("subject_id", "gender", "anchor_age")
    if with_year and "anchor_year" not in read_header(path):
        raise ValueError(
            f"{path}: expected the columns {', '.join((*needed, 'anchor_year'))}, got no anchor_year, without which "
            f"the age at the recording is not known; pass the published table, or age='anchor' for the anchor age"
        )
    found: dict[str, Patient] = {}
    for row in read_rows(path, needed):
        subject = whole_number(row.get("subject_id"))
        try:
            patient = _patient(row, with_year)
        except ValueError as error:
            raise ValueError(f"{path}, row {row.number}: {error}; correct the table") from error
        if found.setdefault(subject, patient) != patient:
            raise ValueError(f"{path}, row {row.number}: expected one row for each patient, got another for {subject}")
    return found


def _patient(row: TableRow, with_year: bool) -> Patient:
    if row.problem:
        raise ValueError(row.problem)
    year = whole_number(row.get("anchor_year")) if with_year else ""
    if year and not re.fullmatch(r"\d{4}", year, re.ASCII):
        raise ValueError(f"anchor_year: expected a year of four digits, got {year[:40]!r}")
    return Patient(parse_sex(row.get("gender")), parse_age(row.get("anchor_age")), int(year) if year else None)


def age_of(patient: Patient, ecg_time: str | None) -> tuple[float | None, str]:
    """The age in years and, where it cannot be known, why: at the time of the recording, or, for None, at the anchor.

    90 stands for over 89. Someone over 89 at the anchor who was recorded years before has no known age.
    """
    if patient.anchor_age is None:
        return None, "no anchor_age"
    years = 0
    if ecg_time is not None:
        year = _YEAR.fullmatch(ecg_time)
        if year is None or patient.anchor_year is None:
            return None, f"ecg_time {ecg_time[:20]!r}" if year is None else "no anchor_year"
        years = int(year[1]) - patient.anchor_year
    if patient.anchor_age >= OVER_89 and years < 0:
        return None, f"over 89 in {patient.anchor_year}, recorded {-years} years before"
    age = patient.anchor_age + years
    if not 0 <= age <= 150:
        return None, f"{age:g} years"
    return float(min(age, OVER_89)), ""


def _folder(data_dir: str | PathLike[str] | None) -> Path:
    if data_dir is None:
        raise ValueError(f"data_dir: expected MIMIC-IV-ECG's folder, which holds {RECORDS_TABLE}, got None")
    return Path(data_dir)


def _published(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder / name}: no such file; data_dir must be MIMIC-IV-ECG's folder, as published on PhysioNet"
        )
    return folder / name


def _read_statements(path: Path) -> _Statements:
    """Equal reports are kept once: 800,035 studies have about 180,000."""
    columns = [name for name in REPORT_COLUMNS if name in read_header(path)]
    if not columns:
        raise ValueError(f"{path}: expected the columns report_0 to report_17, got {', '.join(read_header(path))}")
    missing = [name for name in REPORT_COLUMNS if name not in columns]
    said = _Statements(repairs=(f"missing_columns: {', '.join(missing)}",) if missing else ())
    distinct: dict[tuple[str, ...], MachineReport] = {}
    for row in read_rows(path, ("study_id",)):
        study = whole_number(row.get("study_id"))
        if row.problem or not study:
            said.broken_rows.append(row)
            continue
        cells = tuple(cell for cell in map(row.values.__getitem__, columns) if cell not in NOTHING)
        report = distinct.get(cells)
        if report is None:
            report = distinct[cells] = machine_report(cells)
        if said.reports.setdefault(study, report) != report:
            said.contradicted.add(study)
    return said


def _entries(
    folder: Path,
    rows: Iterator[TableRow],
    said: _Statements,
    patients: dict[str, Patient] | None,
    min_words: int,
    age: str,
) -> Iterator[Entry]:
    seen: set[str] = set()
    for row in rows:
        study, subject = whole_number(row.get("study_id")), whole_number(row.get("subject_id"))
        name = row.get("path")
        problem = _problem(row, study, subject, name, seen, said)
        record_id, path = study or f"row {row.number}", f"{folder}{os.sep}{name}"
        seen.add(study)
        if problem is not None:  # such a row depends on its table alone: what it names is not even looked at
            files = (str(folder / RECORDS_TABLE),)
            yield Entry(record_id, path, split_of(subject or record_id), files=files, problem=problem)
            continue
        report = said.reports.get(study, NO_REPORT)
        fields, repairs = _told(row, subject, patients, age)
        repairs += said.repairs if study in said.reports else ("no_machine_measurements",)
        fields |= {"patient_id": subject, "statements": report.statements, "report": report.text}
        if repairs:
            fields["repairs"] = repairs
        left_out_by = "min_words" if report.num_words < min_words else None
        files = (f"{path}.hea", f"{path}.dat")
        yield Entry(record_id, path, split_of(subject), fields, files, left_out_by=left_out_by)
    for row in said.broken_rows:
        problem = row.problem or f"row {row.number} of {STATEMENTS_TABLE}: expected a study_id, got none"
        table = str(folder / STATEMENTS_TABLE)
        yield Entry(f"{STATEMENTS_TABLE} row {row.number}", table, "train", files=(table,), problem=problem)


def _problem(row: TableRow, study: str, subject: str, name: str, seen: set[str], said: _Statements) -> str | None:
    """Why a row of `record_list.csv` cannot be kept."""
    if row.problem:
        return row.problem
    for column, value in (("study_id", study), ("subject_id", subject), ("path", name)):
        if not value:
            return f"row {row.number} of {RECORDS_TABLE}: expected a {column}, got none"
    if study in seen:
        return f"row {row.number} of {RECORDS_TABLE}: expected each study once, got {study} again"
    if study in said.contradicted:
        return f"{STATEMENTS_TABLE}: expected one report of study {study}, got different ones"
    if not _PLAIN_PATH.fullmatch(name):
        return f"expected a path inside the data set's folder, got {name[:80]!r}; it is not opened"
    return None


def _told(
    row: TableRow, subject: str, patients: dict[str, Patient] | None, age: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Age and sex of the recording's patient, and what is not known of them."""
    if patients is None:
        return {}, ()
    if subject not in patients:
        return {}, ("patient_not_in_table",)
    patient = patients[subject]
    years, unknown = age_of(patient, row.get("ecg_time") if age == "recording" else None)
    return {"age": years, "sex": patient.sex}, (f"age_not_known: {unknown}",) if unknown else ()
