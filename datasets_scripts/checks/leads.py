"""The twelve leads' names, however a file spells them."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMB_LEADS = LEADS[:6]

_CANONICAL = {lead.lower(): lead for lead in LEADS}
_PREFIX = re.compile(r"^(mdc[\s_]ecg[\s_](lead|elec[\s_]potl)[\s_]|((ecg|ekg)[\s_:.-]*)?(lead[\s_:.-]*)?)")
_SUFFIX = re.compile(r"(\s*\((einthoven|goldberger|wilson)\)|,\s*augmented voltage,\s*(right|left|foot))$")
_BODY = re.compile(
    r"d?\s*(?P<roman>i{1,3})|d\s*(?P<digit>[123])|a[\s_-]?v[\s_-]?(?P<limb>[rlf])|v[\s_-]?(?P<chest>[1-6])"
)


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str:
    """The usual spelling of one of the twelve leads; a name that is none of them comes back without outer spaces.

    Case does not count; `DI`, `D1`, `Lead I (Einthoven)`, `lead_v1`, `ECG I`, `aVR, augmented voltage, right` (DICOM),
    `MDC_ECG_LEAD_AVR` and `MDC_ECG_ELEC_POTL_AVR` (ISO/IEEE 11073-10102) are understood. Negated leads (`-aVR`),
    modified ones (`MLII`) and numbers (`ECG 1`) are something else.

    >>> [canonical_lead(name) for name in ("AVR", "dii", "MDC_ECG_LEAD_V1", "MLII", "-aVR")]
    ['aVR', 'II', 'V1', 'MLII', '-aVR']
    """
    plain = unicodedata.normalize("NFKC", name).strip().lower()
    match = _BODY.fullmatch(_SUFFIX.sub("", _PREFIX.sub("", plain, count=1)))
    if match is None:
        return name.strip()
    roman, digit, limb, chest = match.group("roman", "digit", "limb", "chest")
    return _CANONICAL[roman or (digit and "i" * int(digit)) or (limb and f"av{limb}") or f"v{chest}"]


@lru_cache(maxsize=1024)
def distinct_leads(names: tuple[str, ...]) -> tuple[str, ...]:
    """The canonical name of every channel; a second channel of one lead keeps its own name, with its place if need be.

    >>> distinct_leads(("ECG I", "Lead I", "AVL"))
    ('I', 'Lead I', 'aVL')
    """
    distinct: list[str] = []
    for index, name in enumerate(names):
        lead = canonical_lead(name)
        if lead in distinct:
            lead = name.strip() if name.strip() not in distinct else f"{name.strip()} (channel {index})"
        distinct.append(lead)
    return tuple(distinct)
