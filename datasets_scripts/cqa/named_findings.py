"""Findings that a text names, for the checker of descriptions.

Names and synonyms are those of `findings.csv`. A name that is nothing but a wave and what is said of it ("inverted T
wave") is a picture: it says no more than a claim does, and is kept apart.
"""

from __future__ import annotations

import re
from functools import lru_cache

from datasets_scripts.cqa.ecg_terms import POLES
from datasets_scripts.cqa.findings import Phrase, all_findings, phrase_of
from datasets_scripts.cqa.grammar import read_items
from datasets_scripts.cqa.sentence_items import plain_form
from datasets_scripts.cqa.wording import words_of

_PICTURE = frozenset(
    "p q r s t u st st-t qrs pr pq qt qtc rr j r' rsr rsr' rs qs qr r/s v1 wave segment interval complex point pattern"
    " voltage amplitude duration rate rhythm axis deviation progression terminal force initial slurring delta pause"
    " change abnormal normal absent no of in the large notched bifid tented hyperacute fused fragmented depression"
    " elevation junctional".split()
)
_WORDS_THAT_NAME = re.compile(
    r"\b(?!diagnosis|prognosis|criteri)\w+(?:a?emia|itis|opathy|osis|oma|embolism|syndrome)\b"
    r"|\bwellens\b|\bde winter\b|\bsgarbossa\b"
)


@lru_cache(maxsize=20_000)
def _all_named(text: str) -> tuple[tuple[str, Phrase], ...]:
    words = words_of(_opened(text))
    named = []
    place, at = "", 0
    for item in read_items(words):
        phrase = words[item.start : item.stop]
        if item.kind == "territory":
            place, at = item.value, item.stop
        elif item.kind == "finding":
            placed = f"{place} {item.value}"
            beside = bool(place) and at == item.start and placed in all_findings()
            named.append((placed, (*place.split(), *phrase)) if beside else (item.value, phrase))
    return tuple(dict.fromkeys(named))


def findings_named(text: str) -> tuple[tuple[str, Phrase], ...]:
    """The findings that a text names by a name or synonym, each with the words it uses; pictures of waves are left out.

    >>> findings_named("Delta wave in WPW, with inverted T waves")
    (('wolff-parkinson-white pattern', ('wpw',)),)
    """
    return tuple((name, phrase) for name, phrase in _all_named(text) if not _is_picture(phrase))


def pictures_in(text: str) -> frozenset[str]:
    """The findings that a text names as pictures of waves, which say no more than claims do."""
    return frozenset(name for name, phrase in _all_named(text) if _is_picture(phrase))


def _is_picture(phrase: Phrase) -> bool:
    if phrase in (("ventricular", "rhythm"), ("atrial", "rhythm")):
        return True  # in prose whatever the ventricles do, not an escape rhythm
    if "junctional" in phrase and not {"depression", "elevation", "st"} & set(phrase):
        return False  # a rhythm, not the junction of QRS and ST segment
    return all(word in _PICTURE or word in POLES for word in phrase)


def _opened(text: str) -> str:
    return text.replace("(", ", ").replace(")", ", ")


def names_in(text: str) -> frozenset[str]:
    """The names of the findings of a text, and words for diseases that the table does not hold."""
    return frozenset(name for name, _ in findings_named(text)) | frozenset(_WORDS_THAT_NAME.findall(plain_form(text)))


@lru_cache(maxsize=4096)
def words_of_name(name: str) -> frozenset[str]:
    """The words of a finding's name and of all its synonyms."""
    finding = all_findings().get(name)
    names = (name, *finding.synonyms) if finding else (name,)
    return frozenset(word for spelling in names for word in phrase_of(spelling))
