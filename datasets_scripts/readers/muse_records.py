"""GE MUSE exports (`RestingECG` XML) become records.

The layout is not published as a standard; it is what MUSE 5 to 9 write: a `Waveform` of type Rhythm and one of type
Median, each with `LeadData`, whose `WaveFormData` is base64 of little-endian int16. Rules:
- Of the Rhythm waveforms the one with the most leads, then the longest, is taken; others are left out and told.
- MUSE stores I, II and V1 to V6. III, aVR, aVL and aVF follow from I and II in the feature extractor, not here.
- Every count the file states must agree with the bytes; a CRC-32 (of the bytes) that does not agree is told, since
  programs that remove names often leave it untouched.
- `statements` are the lines of Diagnosis, or of OriginalDiagnosis where there is none, as `ENDSLINE` ends them, without
  those that tell who confirmed the ECG; `report` is made of them.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
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
)
from datasets_scripts.readers.demographics import (
    IdentityRule,
    age_between,
    age_of,
    date_from,
    report_of,
    safe_statements,
    sex_of,
)
from datasets_scripts.readers.lead_codes import plain_lead_name, told_name
from datasets_scripts.readers.xml_safety import child, children, descendants, local_name, number_of, text_of
from datasets_scripts.records import ECGRecord

BYTES_PER_SAMPLE = 2
_IDENTITY = re.compile(r"(name|id|mrn|number|user|physician|technician|tech|fellow|attending)$")
_PEOPLE_SECTIONS = ("patientdemographics", "testdemographics", "order", "orderinfo", "visit")
_NOT_PEOPLE = ("locationname", "sitename", "cartnumber")  # words such as "cardiology" are no identities


@dataclass(frozen=True)
class _Lead:
    name: str
    samples: np.ndarray  # (num_samples,) int16
    millivolt_per_step: float
    repairs: tuple[str, ...]


def muse_record(path: Path, root: Element, identify: IdentityRule) -> ECGRecord:
    """The record of a parsed `RestingECG`. `identify` is an `identity_rule`. Raises ValueError with one sentence."""
    waveforms = list(descendants(root, "waveform"))
    rhythms = [one for one in waveforms if _kind(one) == "rhythm"]
    read = [(one, _leads(path, one)) for one in rhythms]
    chosen, leads = max(read, key=lambda pair: (len(pair[1]), len(pair[1][0].samples)), default=(None, []))
    if chosen is None:
        kinds = ", ".join(sorted({_kind(one) or "(no type)" for one in waveforms})) or "none"
        raise ValueError(f"{path}: expected a Waveform of type Rhythm, got waveforms: {kinds}")
    repairs = [f"left_out_waveform: {_kind(one)}" for one in waveforms if one is not chosen]
    repairs += [repair for lead in leads for repair in lead.repairs]
    metadata, text_repairs = _metadata(root, identify)
    return record_of_integers(
        path,
        np.stack([lead.samples for lead in leads]),
        [1.0 / lead.millivolt_per_step for lead in leads],
        np.zeros(len(leads)),
        [lead.name for lead in leads],
        _sampling_rate(path, chosen),
        repairs=(*repairs, *text_repairs),
        **metadata,
    )


def _kind(waveform: Element) -> str:
    return told_name(text_of(waveform, "waveformtype")).lower()


def _sampling_rate(path: Path, waveform: Element) -> float:
    base = number_of(path, text_of(waveform, "samplebase"), "SampleBase")
    exponent = number_of(path, text_of(waveform, "sampleexponent") or "0", "SampleExponent")
    if not (exponent == int(exponent) and -6 <= exponent <= 6):
        raise ValueError(f"{path}: expected a SampleExponent of -6 to 6, got {exponent:g}; correct the file")
    return checked_rate(path, base * 10.0**exponent)


def _leads(path: Path, waveform: Element) -> list[_Lead]:
    """The leads of a waveform, which must have begun together and be equally long."""
    elements = children(waveform, "leaddata")
    check_size(path, len(elements), 1)
    offsets = {number_of(path, text_of(one, "leadtimeoffset") or "0", "LeadTimeOffset") for one in elements}
    if len(offsets) > 1:
        raise ValueError(
            f"{path}: expected leads that begin together, got LeadTimeOffset {sorted(offsets)[:MAX_LEADS]}"
        )
    leads = [_lead(path, one) for one in elements]
    lengths = {len(lead.samples) for lead in leads}
    if len(lengths) > 1:
        raise ValueError(f"{path}: expected as many samples in every lead, got {sorted(lengths)}; correct the file")
    check_size(path, len(leads), lengths.pop())
    return leads


def _lead(path: Path, element: Element) -> _Lead:
    name = text_of(element, "leadid")
    name = plain_lead_name(name) or told_name(name)
    data = _decoded(path, element, name)
    size = number_of(path, text_of(element, "leadsamplesize") or "2", f"LeadSampleSize of lead {name}")
    if size != BYTES_PER_SAMPLE or len(data) % BYTES_PER_SAMPLE or not data:
        raise ValueError(f"{path}: expected samples of {BYTES_PER_SAMPLE} bytes in lead {name}, got {len(data)} bytes")
    counts = {"LeadByteCountTotal": len(data), "LeadSampleCountTotal": len(data) // BYTES_PER_SAMPLE}
    for what, held in counts.items():
        announced = text_of(element, what.lower())
        if announced and number_of(path, announced, what) != held:
            raise ValueError(
                f"{path}: lead {name} announces {what} {announced[:12]!r}, but holds {held}; export it again"
            )
    step = number_of(path, text_of(element, "leadamplitudeunitsperbit"), f"LeadAmplitudeUnitsPerBit of lead {name}")
    step *= millivolt_per_unit(path, text_of(element, "leadamplitudeunits"))
    if step == 0:
        raise ValueError(f"{path}: expected LeadAmplitudeUnitsPerBit other than 0 for lead {name}, got 0")
    return _Lead(name, np.frombuffer(data, "<i2"), step, _repairs(element, name, data))


def _decoded(path: Path, element: Element, name: str) -> bytes:
    text = "".join(node.text or "" for node in children(element, "waveformdata"))
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{path}: expected base64 in WaveFormData of lead {name}, got other text") from error


def _repairs(element: Element, name: str, data: bytes) -> tuple[str, ...]:
    """What the file says of the lead that a reader should know, though the samples stay as they are."""
    checksum = text_of(element, "leaddatacrc32")
    found = []
    if checksum.isdecimal() and checksum not in ("0", str(zlib.crc32(data))):
        found.append(f"checksum_differs: {name}")
    if text_of(element, "leadoff").lower() == "true":
        found.append(f"lead_off: {name}")
    for part in ("leadoffsetfirstsample", "firstsamplebaseline"):
        if text_of(element, part) not in ("", "0"):
            found.append(f"ignored_{part}: {name}")
    return tuple(found)


def _metadata(root: Element, identify: IdentityRule) -> tuple[dict[str, Any], tuple[str, ...]]:
    patient, test = child(root, "patientdemographics"), child(root, "testdemographics")
    lines = _lines(child(root, "diagnosis")) or _lines(child(root, "originaldiagnosis"))
    statements, repairs = safe_statements(lines, _identities(root))
    age = age_of(text_of(patient, "patientage"), text_of(patient, "ageunits") or "YEARS")
    if age is None:
        birth, recorded = text_of(patient, "dateofbirth"), text_of(test, "acquisitiondate")
        age = age_between(_american_date(birth), _american_date(recorded))
    metadata = {
        "age": age,
        "sex": sex_of(text_of(patient, "gender")),
        "patient_id": identify(text_of(patient, "patientid")),
        "statements": statements,
        "report": report_of(statements),
    }
    return metadata, repairs


def _lines(diagnosis: Element | None) -> list[str]:
    """Statements joined up to each `ENDSLINE`; where none is flagged, each statement is a line."""
    statements = children(diagnosis, "diagnosisstatement") if diagnosis is not None else []
    ends = [any((flag.text or "").strip() == "ENDSLINE" for flag in children(one, "stmtflag")) for one in statements]
    lines, begun = [], []
    for statement, is_end in zip(statements, ends, strict=True):
        begun.append(text_of(statement, "stmttext"))
        if is_end or not any(ends):
            lines.append(" ".join(begun))
            begun = []
    return [line for line in (*lines, " ".join(begun)) if line.strip()]


def _identities(root: Element) -> list[str]:
    """Names and numbers of people that the file states, so that no statement repeats them."""
    nodes = [node for section in root if local_name(section) in _PEOPLE_SECTIONS for node in section.iter()]
    named = (node for node in nodes if _IDENTITY.search(local_name(node)) and local_name(node) not in _NOT_PEOPLE)
    return [(node.text or "").strip() for node in named]


def _american_date(text: str) -> Any:
    match = re.fullmatch(r"([0-9]{1,2})-([0-9]{1,2})-([0-9]{4})", text)
    return date_from(match[3], match[1], match[2]) if match else None
