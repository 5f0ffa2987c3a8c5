"""LUDB 1.0.1 (https://physionet.org/content/ludb/1.0.1/): 200 12-lead ECGs of 10 s at 500 Hz, each of another person.

`data/1.{hea,dat}` to `data/200`, the leads named in lower case (i ii iii avr avl avf v1..v6), the wave boundaries of
each lead in an annotation file of its own, which is not read. What cardiologists found stands twice: in `ludb.csv`
(cells end in line breaks and hold one finding a line) and in the comments of the headers (`Rhythm: Sinus rhythm.`); the
table is used where it has the record, else the comments. Age `>89` is stored as 90.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from datasets_scripts.listing.csv_tables import TableRow, parse_age, parse_sex, read_rows, whole_number
from datasets_scripts.readers.wfdb_header import parse_header
from datasets_scripts.readers.wfdb_records import OVER_89, read_wfdb_record
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import Entry, SourceFacts, split_of

FACTS = SourceFacts(
    title="Lobachevsky University Electrocardiography Database",
    homepage="https://physionet.org/content/ludb/1.0.1/",
    license="odc-by",
    citation="Kalyakulina A, Yusipov I, Moskalenko V, Nikolskiy A, Kosonogov K, Zolotykh N, Ivanchenko M. Lobachevsky "
    "University Electrocardiography Database (version 1.0.1). PhysioNet (2021). https://doi.org/10.13026/eegm-h675",
)
TABLE_FILE = "ludb.csv"
AXIS_COLUMN = "Electric axis of the heart"
FINDING_COLUMNS = (
    "Rhythms",
    AXIS_COLUMN,
    "Conduction abnormalities",
    "Extrasystolies",
    "Hypertrophies",
    "Cardiac pacing",
    "Ischemia",
    "Non-specific repolarization abnormalities",
    "Other states",
)
OLDEST = f">{OVER_89 - 1}"  # as the set writes "over 89"

# The labels of each task, as statements say them, with other ways to say the same
RHYTHMS = {
    "sinus rhythm": ("normal sinus rhythm",),
    "sinus bradycardia": ("slow sinus rhythm, bradycardia",),
    "sinus tachycardia": ("fast sinus rhythm, tachycardia",),
    "sinus arrhythmia": (),
    "irregular sinus rhythm": (),
    "atrial fibrillation": ("atrial fibrillation with irregular ventricular response",),
    "atrial flutter, typical": ("atrial flutter",),
}
AXES = {
    "normal electrical axis": ("normal QRS axis",),
    "left axis deviation": ("left axis deviation of the QRS complex",),
    "right axis deviation": ("right axis deviation of the QRS complex",),
    "vertical electrical axis": ("vertical heart axis",),
    "horizontal electrical axis": ("horizontal heart axis",),
}
CONDUCTION = {
    "first degree AV block": ("prolonged PR interval, first degree AV block",),
    "third degree AV block": ("complete AV block",),
    "incomplete right bundle branch block": (),
    "complete right bundle branch block": ("right bundle branch block",),
    "incomplete left bundle branch block": (),
    "complete left bundle branch block": ("left bundle branch block",),
    "left anterior hemiblock": ("left anterior fascicular block",),
    "non-specific intraventricular conduction delay": ("intraventricular conduction delay",),
    "sinoatrial blockade, undefined": ("sinoatrial block",),
}
HYPERTROPHIES = {
    "left ventricular hypertrophy": (),
    "right ventricular hypertrophy": (),
    "left atrial hypertrophy": ("left atrial enlargement",),
    "right atrial hypertrophy": ("right atrial enlargement",),
    "left ventricular overload": (),
    "left atrial overload": (),
    "right atrial overload": (),
}
TASKS = {
    "all": RHYTHMS | AXES | CONDUCTION | HYPERTROPHIES,
    "rhythm": RHYTHMS,
    "axis": AXES,
    "conduction": CONDUCTION,
    "hypertrophy": HYPERTROPHIES,
}
# the set's own words, where plain words differ: whole findings, or what they begin with
_AXIS = re.compile(rf"{AXIS_COLUMN}:\s*(.*)", re.IGNORECASE)
_PLAIN = (
    (re.compile(r"rhythm:\s*", re.IGNORECASE), ""),
    (re.compile(r"\biii degree av[- ]block", re.IGNORECASE), "third degree AV block"),
    (re.compile(r"\bi degree av[- ]block", re.IGNORECASE), "first degree AV block"),
    (re.compile(r"\bnon- +specific", re.IGNORECASE), "non-specific"),
    (re.compile(r"intravintricular", re.IGNORECASE), "intraventricular"),
    (re.compile(r"\bsupp\.\s*nstemi", re.IGNORECASE), "supposed NSTEMI"),
    (re.compile(r"\bstemi\b", re.IGNORECASE), "STEMI"),
    (re.compile(r"\b(uni|bi)polar\b", re.IGNORECASE), lambda match: match[0].lower()),
)
_COMMENT_FIELD = re.compile(r"<(\w+)>\s*:\s*(.*)")


def list_entries(data_dir: str | PathLike[str] | None, *, task: str = "all") -> Iterator[Entry]:
    """All records by number; split by a hash of the record, since each is of another person.

    They are those of `ludb.csv`, where it is there, and those whose headers are in `data_dir/data` or `data_dir`
    itself. `task` names the labels: `"rhythm"`, `"axis"`, `"conduction"`, `"hypertrophy"` or `"all"` of them; the other
    findings are statements only. A row without a number, or that stands twice, is a problem. Raises FileNotFoundError
    if there is no record, ValueError for another task or a table without the columns.
    """
    _check_task(task)
    folder = _folder(data_dir)
    rows = list(read_rows(folder / TABLE_FILE, ("ID", *FINDING_COLUMNS))) if tables(folder) else []
    records = folder / "data" if (folder / "data").is_dir() else folder
    found = {header.stem for header in records.glob("*.hea")}
    if not rows and not found:
        raise FileNotFoundError(f"{records}: no header and no {TABLE_FILE}; data_dir must be LUDB's folder")
    entries = [_entry(folder, records, row, task) for row in rows]
    known = {entry.record_id for entry in entries}
    entries += [_untold(records, name, bool(rows)) for name in found - known]
    return iter(_once(sorted(entries, key=_order)))


def read_entry(entry: Entry, *, task: str = "all", **_: Any) -> ECGRecord:
    """The record of an entry. Raises FileNotFoundError or ValueError with one sentence."""
    _check_task(task)
    record = read_wfdb_record(Path(entry.path))
    fields = dict(entry.fields)
    if "statements" not in fields:
        comments = parse_header(Path(f"{entry.path}.hea")).comments
        fields |= metadata_of_comments(comments, task)
    repairs = (*record.repairs, *fields.pop("repairs", ()))
    return record.with_metadata(**fields, record_id=entry.record_id, repairs=repairs)


def tables(data_dir: str | PathLike[str] | None, **_: Any) -> tuple[Path, ...]:
    """`ludb.csv`, where it is there."""
    path = _folder(data_dir) / TABLE_FILE
    return (path,) if path.is_file() else ()


def label_names(*, task: str = "all", **_: Any) -> list[str]:
    """The labels of a task, as statements say them. Raises ValueError for another task."""
    _check_task(task)
    return list(TASKS[task])


def label_prompts(*, task: str = "all", **_: Any) -> dict[str, list[str]]:
    """English texts for every label of a task, in the style of the training texts (`ECG Findings: sinus rhythm.`)."""
    _check_task(task)
    phrases = {label: (label, *others) for label, others in TASKS[task].items()}
    return {label: [findings_text([phrase]) for phrase in said] for label, said in phrases.items()}


def plain_statement(finding: str) -> str:
    """A finding in plain words, without the column it repeats; empty for an axis that is not told.

    >>> plain_statement("Rhythm: Sinus bradycardia."), plain_statement("Electric axis of the heart: vertical.")
    ('sinus bradycardia', 'vertical electrical axis')
    >>> plain_statement("III degree AV-block"), plain_statement("STEMI: anterior wall")
    ('third degree AV block', 'STEMI: anterior wall')
    """
    text = " ".join(finding.split()).rstrip(".").strip()
    axis = _AXIS.fullmatch(text)
    if axis:
        said = axis[1].lower()
        return said if "deviation" in said else f"{said} electrical axis" if said else ""
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    return text[:1].lower() + text[1:] if text[1:2].islower() else text  # STEMI and P-synchrony stay as they are


def metadata_of_comments(comments: Iterable[str], task: str = "all") -> dict[str, Any]:
    """`age`, `sex`, `statements` and `labels` of a header's comments. ValueError for an age or sex that is none."""
    fields, findings = {}, []
    for comment in comments:
        match = _COMMENT_FIELD.match(comment)
        if match:
            fields[match[1].lower()] = match[2].strip()
            findings.append(match[2] if match[1].lower() == "diagnoses" else "")
        elif "diagnoses" in fields:
            findings.append(comment)
    return _said(findings, fields.get("age", ""), fields.get("sex", ""), task)


def _said(findings: Iterable[str], age: str, sex: str, task: str) -> dict[str, Any]:
    statements = tuple(dict.fromkeys(filter(None, map(plain_statement, findings))))
    return {
        "age": float(OVER_89) if age.replace(" ", "") == OLDEST else parse_age(age),
        "sex": parse_sex(sex),
        "statements": statements,
        "labels": tuple(label for label in TASKS[task] if label in statements),
    }


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")


def _folder(data_dir: str | PathLike[str] | None) -> Path:
    if data_dir is None:
        raise ValueError(f"data_dir: expected LUDB's folder, which holds {TABLE_FILE} and data, got None")
    return Path(data_dir)


def _order(entry: Entry) -> tuple[int, str]:
    """By number; what is no number comes last."""
    return (int(entry.record_id), "") if _is_number(entry.record_id) else (2**63, entry.record_id)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,8}", text, re.ASCII) is not None


def _entry(folder: Path, records: Path, row: TableRow, task: str) -> Entry:
    number = whole_number(row.get("ID"))
    try:
        if row.problem or not _is_number(number):
            raise ValueError(row.problem or f"ID: expected a number such as 1, got {number[:40]!r}")
        fields = {"patient_id": number, **_of_row(row, task)}
    except ValueError as error:  # such a row depends on its table alone
        table = str(folder / TABLE_FILE)
        name = number or f"row {row.number}"
        return Entry(name, table, split_of(name), files=(table,), problem=str(error))
    path = str(records / number)
    return Entry(number, path, split_of(number), fields, (f"{path}.hea", f"{path}.dat"))


def _of_row(row: TableRow, task: str) -> dict[str, Any]:
    findings = []
    for column in FINDING_COLUMNS:
        cells = [cell.strip() for cell in row.get(column).splitlines() if cell.strip()]
        repeated = column == AXIS_COLUMN and [cell if _AXIS.match(cell) else f"{column}: {cell}" for cell in cells]
        findings += repeated or cells
    return _said(findings, row.get("Age"), row.get("Sex"), task)


def _untold(records: Path, name: str, has_table: bool) -> Entry:
    """A record that only its header tells of; anything but a number is told, since it is none of LUDB's."""
    path = str(records / name)
    if not _is_number(name):
        problem = f"expected a header named by a number, such as 1.hea, got {name[:80]!r}; move it away"
        return Entry(name, path, split_of(name), files=(f"{path}.hea",), problem=problem)
    fields: dict[str, Any] = {"patient_id": name}
    if has_table:
        fields["repairs"] = ("not_in_table: findings are those of the header's comments",)
    return Entry(name, path, split_of(name), fields, (f"{path}.hea", f"{path}.dat"))


def _once(entries: Iterable[Entry]) -> Iterator[Entry]:
    seen: set[str] = set()
    for entry in entries:
        if entry.record_id in seen and entry.problem is None:
            problem = f"{TABLE_FILE}: expected one row for each record, got {entry.record_id} again"
            entry = Entry(entry.record_id, entry.path, entry.split, files=(entry.path,), problem=problem)
        seen.add(entry.record_id)
        yield entry
