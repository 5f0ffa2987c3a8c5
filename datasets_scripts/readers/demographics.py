"""What a file says about a patient, and the little of it that may enter a record: age, sex, what the ECG shows.

Names, birth dates, hospital numbers and operators never do. A patient's number is taken over only on request, or as a
salted hash. Machine reports are free text: lines that tell who confirmed them, or that contain a name or number the
file states elsewhere, are left out; dates and long numbers in the rest are masked. HIPAA's Safe Harbor is the model:
https://www.hhs.gov/hipaa/for-professionals/special-topics/de-identification/index.html
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterable

PATIENT_ID_CHOICES = ("drop", "keep", "hash")
OVER_89 = 90.0  # every age above 89, as Safe Harbor asks
IdentityRule = Callable[[str | None], str | None]

_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425, "H": 8765.82}
_PEOPLE = re.compile(
    r"\b(confirmed|reviewed|signed|edited|interpreted|verified|overread|over-read|approved|validated|referred|ordered|"
    r"requested|dictated|authenticated|read|performed|acquired|recorded|analy[sz]ed|compared)\s+(\w+ly\s+)?by\b"
    r"|\b(dr|m\.?d|prof|mrs?|ms)\b\.?|\bm\.d\."
    r"|\b(physician|cardiologist|technician|technologist|operator|doctor|nurse|patient\s+(name|id)|mrn|dob)\b"
    r"|\b(confirm[ée]+|valid[ée]+|sign[ée]+|lu|relu)\s+par\b|\bdocteur\b|\bm[ée]decin\b"
    r"|\b(best[äa]tigt|befundet|validiert|unterschrieben|freigegeben)\s+(von|durch)\b|\barzt\b|\b[äa]rztin\b"
    r"|\b(confirmado|revisado|firmado|validado)\s+por\b|\b(confermato|refertato|firmato|validato)\s+da\b|\bdott\b",
    re.IGNORECASE,
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|okt|dez|m[äa]r)[a-z]*"
_CLOCK = r"(?:[\sT,]+(?:at\s+)?\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:\s*[ap]m\b)?)?"
_DATE = re.compile(
    rf"\b(?:\d{{1,4}}[-/. ]{_MONTH}[-/. ]+\d{{2,4}}|{_MONTH}\.?\s+\d{{1,2}},?\s+\d{{4}}"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
    rf"|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}){_CLOCK}",
    re.IGNORECASE,
)
_LONG_NUMBER = re.compile(r"\d[\d-]{4,}\d")
_NO_IDENTITY = {"anonymous", "anonym", "anonymized", "anonymised", "unknown", "patient", "test", "none", "name", "ecg"}
_NO_IDENTITY |= {"the", "and", "not", "for", "with"}


def identity_rule(patient_id: str = "drop", salt: str | None = None) -> IdentityRule:
    """How a patient's number in a file becomes `ECGRecord.patient_id`.

    `"drop"` gives None, `"keep"` the number, `"hash"` the first 16 hex digits of `sha256(salt + number)`. Raises
    ValueError for another choice, for `"hash"` without a salt, and for a salt that nothing uses.

    >>> identity_rule("hash", "secret")("12345")
    '192b2f53d37513ad'
    """
    if patient_id not in PATIENT_ID_CHOICES:
        raise ValueError(f"patient_id: expected one of {', '.join(PATIENT_ID_CHOICES)}, got {patient_id!r}")
    if (patient_id == "hash") != bool(salt):
        raise ValueError(
            f"salt: expected a secret, non-empty text exactly when patient_id is 'hash', got patient_id={patient_id!r} "
            f"{'with' if salt else 'without'} a salt"
        )

    def rule(number: str | None) -> str | None:
        number = (number or "").strip()
        if patient_id == "drop" or not number:
            return None
        return number if patient_id == "keep" else hashlib.sha256(f"{salt}{number}".encode()).hexdigest()[:16]

    return rule


def sex_of(text: str | None) -> str | None:
    """`"male"`, `"female"`, or None for everything else."""
    return _SEXES.get((text or "").strip().lower())


def age_of(amount: str | None, unit: str | None = "Y") -> float | None:
    """An age in whole years, 90 for every age above 89, None where none is told. `unit` by its first letter.

    >>> age_of("056"), age_of("093"), age_of("18", "MONTHS")
    (56.0, 90.0, 1.0)
    """
    per_year = _PER_YEAR.get((unit or "Y").strip()[:1].upper())
    amount = (amount or "").strip()
    if per_year is None or not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", amount):
        return None
    return _whole_years(float(amount) / per_year)


def age_between(birth: datetime.date | None, recorded: datetime.date | None) -> float | None:
    """The age in whole years at the recording, by the same rules as `age_of`."""
    if birth is None or recorded is None or recorded < birth:
        return None
    years = recorded.year - birth.year - ((recorded.month, recorded.day) < (birth.month, birth.day))
    return _whole_years(years)


def date_of(text: str | None) -> datetime.date | None:
    """The date at the start of `YYYYMMDD...` (DICOM, HL7), None where there is none."""
    match = re.match(r"\s*([0-9]{4})-?([0-9]{2})-?([0-9]{2})", text or "")
    return date_from(*match.groups()) if match else None


def date_from(year: str, month: str, day: str) -> datetime.date | None:
    """The date of three numbers, None if there is no such day."""
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


def safe_statements(lines: Iterable[str], identities: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines of a report that may enter a record, each once, and the repairs that tell what did not.

    `identities` are names and numbers that the file states elsewhere.

    >>> safe_statements(["Sinus  rhythm", "Confirmed by DOE, JANE", "Compared with 08-FEB-2015 22:15,"], [])
    (('Sinus rhythm', 'Compared with [date],'), ('left_out_statement: confirmation', 'masked_in_statement: date'))
    """
    identities = list(identities)
    words, numbers = _identity_words(identities), _identity_numbers(identities)
    kept, repairs = [], []
    for line in lines:
        line = " ".join(line.split())
        if _PEOPLE.search(line):
            repairs.append("left_out_statement: confirmation")
            continue
        if words & set(_words(line)) or any(number in line.casefold() for number in numbers):
            repairs.append("left_out_statement: identity")
            continue
        for what, pattern in (("date", _DATE), ("number", _LONG_NUMBER)):
            line, count = pattern.subn(f"[{what}]", line)
            repairs += [f"masked_in_statement: {what}"] * (count > 0)
        if line and line not in kept:
            kept.append(line)
    return tuple(kept), tuple(repairs)


def report_of(statements: Iterable[str]) -> str:
    """The statements as one text, each a sentence of its own."""
    return " ".join(line if line[-1] in ".!?,;:" else f"{line}." for line in statements)


def _whole_years(years: float) -> float | None:
    if not 0 <= years <= 150:
        return None
    return min(float(int(years)), OVER_89)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _identity_words(identities: Iterable[str]) -> set[str]:
    """Names; short numbers are none, or "rate 100" would be taken for a patient's number."""
    words = {word for text in identities for word in _words(text)}
    return {word for word in words if len(word) >= (3 if word.isalpha() else 5)} - _NO_IDENTITY


def _identity_numbers(identities: Iterable[str]) -> set[str]:
    texts = (text.strip().casefold() for text in identities)
    return {text for text in texts if len(text) >= 5 and any(sign.isdigit() for sign in text)}
