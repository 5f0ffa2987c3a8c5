# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""The twelve leads: how their names are written in the world, and how the limb leads follow from each other."""

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from .configuration_esi import LEADS

logger = logging.getLogger(__name__)

LIMB_LEADS = LEADS[:6]
"""I, II, III, aVR, aVL, aVF: six views of one plane, so any two of them give the other four."""

_CANONICAL = {lead.lower(): lead for lead in LEADS}

_PREFIX = re.compile(r"^(mdc[\s_]ecg[\s_](lead|elec[\s_]potl)[\s_]|((ecg|ekg)[\s_:.-]*)?(lead[\s_:.-]*)?)")
_SUFFIX = re.compile(r"(\s*\((einthoven|goldberger|wilson)\)|,\s*augmented voltage,\s*(right|left|foot))$")
# the separators inside a name are spelled out: without them "I-II" (a difference) would read as III
_BODY = re.compile(
    r"d?\s*(?P<roman>i{1,3})|d\s*(?P<digit>[123])|a[\s_-]?v[\s_-]?(?P<limb>[rlf])|v[\s_-]?(?P<chest>[1-6])"
)
_NEGATED = re.compile(r"^[-\u2212\u2013]|\s[-\u2212\u2013]|[-\u2212\u2013]$|\b(neg|negative|inverted)\b|_neg_|_neg$")

_OTHER_SIGNALS = (  # known to be something else: such a channel is left out, and the record is read without it
    (r"ml\s?i{1,3}|ml\s?[1-3]|mcl\s?\d?|mv\d|c[mcs]\s?[1-6]|mod.*", "a modified lead: its electrodes sit elsewhere"),
    (r"v?[xyz]", "a Frank lead of the vectorcardiogram"),
    (r"v\d{1,2}r?|v[1-6]r", "a posterior or right-sided chest lead"),
    (r"v[rlf]", "a limb lead that is not augmented"),
    (r"v|chest|precordial", "a chest lead whose place is not said"),
    (r"resp.*|abp.*|art.*|pleth.*|ppg.*|spo2|cvp|pap|bp|nibp|co2|eeg.*|emg.*|eog.*", "not an ECG"),
)
_NUMBER = r"(ch|channel|signal|ecg|ekg|lead|sig|col|column)?[\s_]*\d+"


@lru_cache(maxsize=4096)
def parse_lead_name(name: str) -> str | None:
    """The lead of the twelve that a name stands for, or None.

    Case does not count. Understood are `aVR`, `AVR`, `avr`, `DI`, `D1`, `Lead I (Einthoven)`, `lead_v1`, `ECG I`,
    `aVR, augmented voltage, right` (DICOM), `MDC_ECG_LEAD_AVR` and `MDC_ECG_ELEC_POTL_AVR` (ISO/IEEE 11073-10102).
    Not understood, since they are something else: modified leads (`MLII`, `MCL1`), Frank's `vx vy vz`, `V3R`, `V7`,
    a plain number (`ECG 1`), `C1` (an electrode, and a place on the head) and negated leads (`-aVR`).

    >>> parse_lead_name("MDC_ECG_LEAD_AVR"), parse_lead_name("dii"), parse_lead_name("MLII")
    ('aVR', 'II', None)
    """
    plain = unicodedata.normalize("NFKC", name).strip().lower()
    if _NEGATED.search(plain):
        return None
    match = _BODY.fullmatch(_SUFFIX.sub("", _PREFIX.sub("", plain, count=1)))
    if match is None:
        return None
    roman, digit, limb, chest = match.group("roman", "digit", "limb", "chest")
    return _CANONICAL[roman or (digit and "i" * int(digit)) or (limb and f"av{limb}") or f"v{chest}"]


@lru_cache(maxsize=1024)
def match_leads(names: tuple[str, ...], ignore_unknown: bool = False) -> tuple[str | None, ...]:
    """The lead of the twelve for each of a record's channels, None for a channel to leave out.

    Args:
        names: one name per channel, in any usual spelling (see `parse_lead_name`).
        ignore_unknown: leave out whatever is not among the twelve, instead of refusing the record. Channels known to be
            something else (`MLII`, `vx`, `V7`, `RESP`) are always left out, with a warning in the log.

    Raises:
        ValueError: for an unknown name (unless left out), for two names of one lead, and where no lead is left.
    """
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"leads: expected names such as 'II' or 'V1', got {name!r} in {list(names)}.")
    matched = tuple(parse_lead_name(name) for name in names)
    for lead in LEADS:
        same = [name for name, found in zip(names, matched, strict=True) if found == lead]
        if len(same) > 1:
            raise ValueError(f"leads: expected each lead once, got {lead} as {same}: keep one of these channels.")
    others = [name for name, found in zip(names, matched, strict=True) if found is None]
    unknown = [name for name in others if _other_signal(name) is None]
    if unknown and not ignore_unknown:
        described = ", ".join(f"{name!r} ({_describe(name)})" for name in unknown)
        raise ValueError(
            f"leads: expected names of {', '.join(LEADS)} in any usual spelling, got {described}. Leave such channels "
            "out of the record, or build the feature extractor with ignore_unknown_leads=True, which leaves them out."
        )
    if len(others) == len(names):
        described = ", ".join(f"{name!r} ({_describe(name)})" for name in names)
        raise ValueError(f"leads: expected at least one of {', '.join(LEADS)}, got {described}.")
    if others:
        logger.warning("leads: left out %s", ", ".join(f"{name!r} ({_describe(name)})" for name in others))
    return matched


def _describe(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).strip().lower()
    if _NEGATED.search(plain):
        return "a negated lead: turn its sign and name it without the minus"
    if re.fullmatch(_NUMBER, plain):
        return "a number, which does not say where the lead lies"
    return _other_signal(name) or "unknown"


def _other_signal(name: str) -> str | None:
    """What a channel is that is known to be none of the twelve; None for a name that says nothing."""
    plain = unicodedata.normalize("NFKC", name).strip().lower()
    if _NEGATED.search(plain):
        return None
    return next((meaning for pattern, meaning in _OTHER_SIGNALS if re.fullmatch(pattern, plain)), None)


# Limb leads from I and II: III = II - I (Einthoven); aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2 (Goldberger).
_FROM_I_AND_II = {
    "I": (Fraction(1), Fraction(0)),
    "II": (Fraction(0), Fraction(1)),
    "III": (Fraction(-1), Fraction(1)),
    "aVR": (Fraction(-1, 2), Fraction(-1, 2)),
    "aVL": (Fraction(1), Fraction(-1, 2)),
    "aVF": (Fraction(-1, 2), Fraction(1)),
}


@lru_cache(maxsize=64)
def limb_lead_weights(available: tuple[str, ...]) -> Mapping[str, tuple[float, ...]]:
    """How each missing limb lead follows from the available ones, by least squares over I and II.

    Args:
        available: at least two different limb leads; any two are independent.

    Returns:
        For each limb lead that is not available, one weight per available lead.

    >>> limb_lead_weights(("I", "II"))["aVL"]
    (1.0, -0.5)
    """
    rows = [_FROM_I_AND_II[lead] for lead in available]
    # the normal equations of two unknowns, in exact fractions
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    determinant = aa * bb - ab * ab
    first = [(bb * a - ab * b) / determinant for a, b in rows]  # of I
    second = [(aa * b - ab * a) / determinant for a, b in rows]  # of II
    weights = {
        lead: tuple(float(of_i * a + of_ii * b) for a, b in zip(first, second, strict=True))
        for lead, (of_i, of_ii) in _FROM_I_AND_II.items()
        if lead not in available
    }
    return MappingProxyType(weights)


def derive_limb_leads(signal: Tensor, present: Tensor, order: Sequence[str]) -> None:
    """Fills in, in place, the limb leads that follow from at least two others. Measured leads stay as measured.

    Args:
        signal: `(B, 12, samples)`, zero where a lead is missing.
        present: `(B, 12)` bool; set to True for what was derived.
        order: the names of the twelve rows.
    """
    order = list(order)
    slots = [order.index(lead) for lead in LIMB_LEADS]
    patterns = [tuple(row) for row in present[:, slots].tolist()]
    for pattern in set(patterns):
        if not 2 <= sum(pattern) < len(LIMB_LEADS):
            continue
        records = torch.tensor([i for i, other in enumerate(patterns) if other == pattern], device=signal.device)
        available = tuple(lead for lead, there in zip(LIMB_LEADS, pattern, strict=True) if there)
        sources = [signal[records, order.index(lead)] for lead in available]
        for lead, weights in limb_lead_weights(available).items():
            # one product at a time: the same bits whatever else is in the batch
            terms = [source * weight for source, weight in zip(sources, weights, strict=True) if weight]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            signal[records, order.index(lead)] = total
            present[records, order.index(lead)] = True
