"""How file formats spell leads: by code (SCP-ECG, ISO/IEEE 11073-10101) or in words, as plain names (I, aVR, V1).

A name that is not one of the twelve stays as it is spelled; the feature extractor decides what to do with it.
SCP-ECG's numbers: EN 1064, table 2 of section 3; DICOM PS3.16 CID 3001 uses the same ones behind `5.6.3-9-` and `2:`.
"""

from __future__ import annotations

import re

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEAD_OF_NUMBER = {1: "I", 2: "II", **{number: f"V{number - 2}" for number in range(3, 10)}}
LEAD_OF_NUMBER |= {number: f"V{number - 8}R" for number in range(10, 16)}
LEAD_OF_NUMBER |= {
    16: "X",
    17: "Y",
    18: "Z",
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
    65: "-aVR",
    66: "V8",
    67: "V9",
}

_PLAIN = {lead.lower(): lead for lead in (*LEADS, "V7", "V8", "V9", *(f"V{number}R" for number in range(2, 8)))}
_PREFIX = re.compile(r"^(mdc_ecg_(lead|elec_potl)_|((ecg|ekg)[\s_:.-]*)?(lead[\s_:.-]*)?)", re.IGNORECASE)
_SUFFIX = re.compile(r"(\s*\((einthoven|goldberger|wilson)\)|,\s*augmented voltage,.*)$", re.IGNORECASE)


def plain_lead_name(text: str) -> str | None:
    """The lead that a spelling stands for, None where it is not one of the usual leads.

    >>> plain_lead_name("Lead I (Einthoven)"), plain_lead_name("MDC_ECG_LEAD_AVR"), plain_lead_name("Pleth")
    ('I', 'aVR', None)
    """
    return _PLAIN.get(_SUFFIX.sub("", _PREFIX.sub("", text.strip(), count=1)).strip().lower())


def told_name(text: str) -> str:
    """A name from a file as it may be repeated: printable characters, single spaces, not long."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[:80]).split())[:40]


def lead_of_code(code: str) -> str | None:
    """The lead of an SCP-ECG code as DICOM writes it, `5.6.3-9-62`, or of an MDC one, `2:62`; None for another code.

    >>> lead_of_code("5.6.3-9-62"), lead_of_code("2:3")
    ('aVR', 'V1')
    """
    match = re.fullmatch(r"(?:5\.6\.3-9-|2:)([0-9]{1,3})", code.strip())
    return LEAD_OF_NUMBER.get(int(match[1])) if match else plain_lead_name(code)
