"""HL7 annotated ECGs (aECG, `AnnotatedECG` XML) become records.

Layout: HL7 aECG Implementation Guide (2005), https://www.hl7.org/implement/standards/product_brief.cfm?product_id=102.
Rules:
- Of the rhythm series (code RHYTHM), the set of sequences with the most leads, then the longest, is taken; others and
  derived series (representative beats) are left out and told.
- `mV = (origin + scale * digit) * unit`; the digits are kept as integers where they are whole numbers of 16 bits.
- `report` is made of the interpretation statements; comments, which people write, are left out and told.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from datasets_scripts.readers.calibration import (
    MAX_LEADS,
    check_size,
    checked_rate,
    millivolt_per_unit,
    record_of_integers,
    record_of_millivolts,
    voltage_unit,
)
from datasets_scripts.readers.demographics import IdentityRule, age_between, date_of, report_of, safe_statements, sex_of
from datasets_scripts.readers.lead_codes import plain_lead_name, told_name
from datasets_scripts.readers.xml_safety import child, children, descendants, local_name, number_of, text_of
from datasets_scripts.records import ECGRecord

SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_DIGITS = re.compile(r"[0-9\s.+\-eE]+")
_STATEMENT_CODES = ("MDC_ECG_INTERPRETATION_STATEMENT", "MDC_ECG_INTERPRETATION_SUMMARY")
_COMMENT_CODE = "MDC_ECG_INTERPRETATION_COMMENT"
_IDENTITY_ELEMENTS = ("name", "family", "given", "patientid", "secondpatientid")


@dataclass(frozen=True)
class _Lead:
    name: str
    digits: str
    scale: float  # mV per digit, 0 where it is no voltage
    origin: float  # mV
    num_samples: int


@dataclass(frozen=True)
class _SequenceSet:
    leads: tuple[_Lead, ...]
    others: tuple[str, ...]
    sampling_rate: float | None
    num_samples: int


def aecg_record(path: Path, root: Element, identify: IdentityRule) -> ECGRecord:
    """The record of a parsed `AnnotatedECG`. `identify` is an `identity_rule`. Raises ValueError with one sentence."""
    series = list(descendants(root, "series"))
    rhythms = [one for one in series if _code(one) == "RHYTHM"]
    sets = [_sequence_set(path, one) for rhythm in rhythms for one in _sets_of(rhythm)]
    chosen = max(sets, key=lambda one: (len(one.leads), one.num_samples), default=None)
    if chosen is None or not chosen.leads:
        codes = ", ".join(sorted({told_name(_code(one)) for one in series})) or "none"
        raise ValueError(f"{path}: expected a series RHYTHM with leads in volts, got series: {codes}")
    left_out = [one for one in series if one not in rhythms] + list(descendants(root, "derivedseries"))
    repairs = [f"left_out_series: {told_name(_code(one)) or local_name(one)}" for one in left_out]
    repairs += [f"left_out_sequence_set: {len(one.leads)} leads" for one in sets if one is not chosen]
    repairs += [f"left_out_channel: {name}" for name in chosen.others]
    metadata, text_repairs = _metadata(root, identify)
    return _record(path, chosen, repairs=(*repairs, *text_repairs), **metadata)


def _code(element: Element) -> str:
    found = child(element, "code")
    return found.get("code", "") if found is not None else ""


def _sets_of(series: Element) -> list[Element]:
    """The sequence sets of a series itself: not those of the series derived from it."""
    return [found for part in children(series, "component") for found in children(part, "sequenceset")]


def _sequence_set(path: Path, element: Element) -> _SequenceSet:
    sequences = [found for part in children(element, "component") for found in children(part, "sequence")]
    rate, leads, others = None, [], []
    for sequence in sequences[: MAX_LEADS + 1]:
        value = child(sequence, "value")
        if value is None:
            continue
        if _code(sequence).startswith("TIME_"):
            rate = _sampling_rate(path, value)
        elif child(value, "digits") is not None:
            lead = _lead(path, _code(sequence), value)
            if lead.scale:
                leads.append(lead)
            else:
                others.append(lead.name)
    return _SequenceSet(tuple(leads), tuple(others), rate, _num_samples(path, leads, len(sequences)))


def _num_samples(path: Path, leads: list[_Lead], num_sequences: int) -> int:
    lengths = {lead.num_samples for lead in leads}
    if len(lengths) > 1:
        raise ValueError(f"{path}: expected as many samples in every lead, got {sorted(lengths)}; correct the file")
    num_samples = lengths.pop() if lengths else 0
    if leads:
        check_size(path, num_sequences, num_samples)
    return num_samples


def _sampling_rate(path: Path, value: Element) -> float:
    increment = child(value, "increment")
    if increment is None:
        raise ValueError(f"{path}: expected a time sequence with a fixed increment, got another one")
    unit = increment.get("unit", "")
    seconds = number_of(path, increment.get("value", ""), "the time increment")
    if unit not in SECONDS_PER_UNIT or seconds <= 0:
        known = ", ".join(SECONDS_PER_UNIT)
        raise ValueError(f"{path}: expected a time increment above 0 in {known}, got {seconds:g} {unit[:10]!r}")
    return checked_rate(path, 1.0 / (seconds * SECONDS_PER_UNIT[unit]))


def _lead(path: Path, code: str, value: Element) -> _Lead:
    name = plain_lead_name(code) or told_name(code.removeprefix("MDC_ECG_LEAD_"))
    scale, unit = _quantity(path, value, "scale", name)
    if voltage_unit(unit) is None:
        if unit:
            return _Lead(name, "", 0.0, 0.0, 0)
        raise ValueError(f"{path}: expected a unit for lead {name}, got none; units are never guessed")
    origin, origin_unit = _quantity(path, value, "origin", name)
    if scale == 0:
        raise ValueError(f"{path}: expected a scale other than 0 for lead {name}, got 0; correct the file")
    digits = text_of(value, "digits")
    scale *= millivolt_per_unit(path, unit)
    origin *= millivolt_per_unit(path, origin_unit or unit)
    return _Lead(name, digits, scale, origin, _num_numbers(digits))


def _quantity(path: Path, value: Element, part: str, name: str) -> tuple[float, str]:
    found = child(value, part)
    if found is None:
        raise ValueError(f"{path}: expected a {part} for lead {name}, got none; correct the file")
    return number_of(path, found.get("value", ""), f"the {part} of lead {name}"), found.get("unit", "")


def _num_numbers(digits: str) -> int:
    """How many words a text has, without making them."""
    is_word = np.frombuffer(digits.encode(), np.uint8) > ord(" ")
    return int(is_word[:1].sum() + (is_word[1:] & ~is_word[:-1]).sum())


def _numbers(path: Path, lead: _Lead) -> np.ndarray:
    numbers = np.empty(0)
    if _DIGITS.fullmatch(lead.digits):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it stops at what is no number; the count shows it
            try:
                numbers = np.fromstring(lead.digits, np.float64, sep=" ")
            except ValueError:  # newer numpy refuses what older numpy stops at; the count tells both
                numbers = np.empty(0)
    if len(numbers) != lead.num_samples:
        raise ValueError(f"{path}: expected numbers in lead {lead.name}, got other text; correct the file")
    return numbers


def _record(path: Path, chosen: _SequenceSet, **metadata: Any) -> ECGRecord:
    if chosen.sampling_rate is None:
        raise ValueError(f"{path}: expected a time sequence, which says the sampling rate, got none")
    names = [lead.name for lead in chosen.leads]
    digits = np.stack([_numbers(path, lead) for lead in chosen.leads])
    if not np.isfinite(digits).all() or np.abs(digits).max() >= 2**31:
        raise ValueError(f"{path}: expected digits of at most 32 bits, got larger ones; correct the file")
    if (digits == np.rint(digits)).all():
        gain = [1.0 / lead.scale for lead in chosen.leads]
        offset = [-lead.origin / lead.scale for lead in chosen.leads]
        return record_of_integers(path, digits.astype(np.int64), gain, offset, names, chosen.sampling_rate, **metadata)
    scale, origin = (np.array([getattr(lead, part) for lead in chosen.leads])[:, None] for part in ("scale", "origin"))
    return record_of_millivolts(path, origin + scale * digits, names, chosen.sampling_rate, **metadata)


def _metadata(root: Element, identify: IdentityRule) -> tuple[dict[str, Any], tuple[str, ...]]:
    subject = next(descendants(root, "trialsubject"), None)
    person = child(subject, "subjectdemographicperson")
    identifier = child(subject, "id")
    number = identifier.get("extension", "") if identifier is not None else ""
    number = number or text_of(person, "patientid")
    identities = [number, *(text for node in descendants(root, *_IDENTITY_ELEMENTS) for text in node.itertext())]
    statements, repairs = safe_statements(_lines(root, *_STATEMENT_CODES), identities)
    repairs += ("left_out_statement: comment",) * len(_lines(root, _COMMENT_CODE))
    sex, birth = child(person, "administrativegendercode"), child(person, "birthtime")
    metadata = {
        "age": age_between(date_of(birth.get("value") if birth is not None else None), _recorded(root)),
        "sex": sex_of(sex.get("code") if sex is not None else None),
        "patient_id": identify(number),
        "report": report_of(statements),
    }
    return metadata, repairs


def _lines(root: Element, *codes: str) -> list[str]:
    found = (text_of(node, "value") for node in descendants(root, "annotation") if _code(node) in codes)
    return [text for text in found if text]


def _recorded(root: Element) -> Any:
    """The day of the recording, for the age."""
    times = child(root, "effectivetime")
    values = (
        [node.get("value") for node in times if local_name(node) in ("low", "center", "high")]
        if times is not None
        else []
    )
    return next((day for day in map(date_of, values) if day), None)
