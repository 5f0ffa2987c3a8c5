"""The vocabulary of statements around the findings: certainty, territory, age, rate, frequency, leads, connections.

The vocabularies are those of the interpretive programs by Philips/HP, GE (Marquette 12SL), Mortara, Burdick/Quinton
and Schiller as seen in MIMIC-IV-ECG (https://physionet.org/content/mimic-iv-ecg/1.0/). Values are what
`ParsedFinding` carries; keys are written in any of their spellings and pass through `words_of`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from datasets_scripts.cqa.findings import finding_phrases, phrase_of
from datasets_scripts.cqa.wording import SEPARATORS

CERTAINTIES: dict[str, str] = {
    "possible": "possible|may be|might be|could be|can be|may also be|possibility of|may indicate|may represent"
    "|is possible"
    "|may also partly be|may be partly|may|might|could|cannot be excluded|suspect|suspected|is suspected|question|query"
    "|equivocal|equivocal evidence of|raise the possibility of|repeat if|if clinically indicated|versus|vs",
    "probable": "probable|most likely|is probable|appear|appear to be|presumed|highly likely",
    "consider": "consider|recommend considering|must be considered|should be considered|think of",
    "cannot rule out": "cannot rule out|can not rule out|cannot exclude|can not exclude|cannot be ruled out|rule out"
    "|r/o"
    "|unable to rule out|does not rule out|not excluded|not ruled out|unable to exclude|exclude",
    "suggested": "suggest|strongly suggest|consistent with|compatible with|in keeping with|indicate|indicative of"
    "|evidence of"
    "|additional evidence of|offer additional evidence of|strongly suggestive of|pointing to|appearance suggest"
    "|there is evidence of|represent|further evidence of|characteristic of|typical of|diagnostic of|signs of|sign of",
    "borderline": "borderline|borderline abnormal|borderline criteria for|low normal|high normal|upper normal"
    "|just above normal",
}  # fmt: skip
# cues that take a list of objects: "consider RVH and posterior infarct"
LISTING_CERTAINTIES = frozenset({"consider", "cannot rule out", "suggested"})

CAUSES = (
    "due to|due partly to|partly due to|secondary to|related to|caused by|attributed to|because of|associated with"
    "|due in part to|result of|reflect|partly be due to|explained by|in the presence of|in presence of"
    "|on the basis of|from"
)

TERRITORIES: dict[str, str] = {
    "inferior": "inferior|inferior wall|diaphragmatic",
    "anterior": "anterior|anterior wall",
    "lateral": "lateral|lateral wall",
    "high lateral": "high lateral",
    "septal": "septal|septum|midseptal|mid septal",
    "anteroseptal": "anteroseptal|septoanterior",
    "anterolateral": "anterolateral",
    "anteroapical": "anteroapical",
    "anteroinferior": "anteroinferior",
    "inferolateral": "inferolateral",
    "inferoseptal": "inferoseptal",
    "inferoapical": "inferoapical",
    "inferoposterior": "inferoposterior|posteroinferior",
    "inferoposterolateral": "inferoposterolateral|inferior posterior lateral|infero postero lateral",
    "posterior": "posterior|true posterior|posterior wall",
    "posterolateral": "posterolateral",
    "posteroseptal": "posteroseptal",
    "apical": "apical|apex|apicolateral",
    "extensive": "extensive|widespread",
    "extensive anterior": "extensive anterior",
    "diffuse": "diffuse|throughout|generalized|global|diffuse lead|all lead|most lead|many lead",
    "limb leads": "extremity lead|limb lead|frontal lead|frontal plane|extremity|limb|standard lead|frontal plane lead",
    "precordial leads": "precordial lead|chest lead|precordial|v lead|horizontal plane|anterior precordial lead",
    "right precordial leads": "right precordial lead|right precordial",
    "left precordial leads": "left precordial lead|left precordial",
    "right ventricular": "right ventricular|right sided",
}  # fmt: skip

AGES: dict[str, str] = {
    "acute": "acute|hyperacute|evolving acute|acutely",
    "recent": "recent|new|recently",
    "subacute": "subacute|evolving",
    "old": "old|remote|previous|prior|healed|chronic|past|long standing",
    "undetermined": "age undetermined|undetermined age|of undetermined age|age unknown|of unknown age"
    "|age not determined"
    "|age indeterminate|of indeterminate age|age uncertain|date undetermined|date unknown",
}  # fmt: skip

RATE_RESPONSES: dict[str, str] = {
    "rapid": "rapid ventricular response|rapid v rate|rapid ventricular rate|rapid response|rvr"
    "|fast ventricular response"
    "|rapid rate|accelerated ventricular response",
    "slow": "slow ventricular response|slow v rate|slow ventricular rate|slow response|slow rate",
    "uncontrolled": "uncontrolled ventricular response|uncontrolled v rate|uncontrolled ventricular rate",
    "controlled": "controlled ventricular response|controlled v rate|controlled ventricular rate"
    "|normal ventricular response"
    "|normal ventricular rate|moderate ventricular response|rate controlled|controlled rate|controlled",
    "irregular": "irregular ventricular response|irregular ventricular rate|variable ventricular response",
    "regular": "regular ventricular response",
}  # fmt: skip

FREQUENCIES: dict[str, str] = {
    "occasional": "occasional|infrequent|sporadic|rare|few",
    "frequent": "frequent|very frequent|numerous|many",
    "multiple": "multiple|multi|several",
    "intermittent": "intermittent|episodic|intermittently|transient|occasionally",
    "isolated": "isolated|single|one|an isolated",
    "predominant": "predominant|predominantly|mostly",
    "runs": "run of|in run|short run of|brief run of|salvo of|burst of",
}  # fmt: skip

SEVERITIES: dict[str, str] = {
    "minimal": "minimal|slight|trivial|very small|small|tiny|slightly|subtle|minimally",
    "mild": "mild|mildly",
    "moderate": "moderate",
    "marked": "marked|large|significant|pronounced|definite|prominent|striking",
    "severe": "severe|extreme|profound|extremely",
    "abnormal": "abnormal|pathological|excessive",
}  # fmt: skip

FORMS: dict[str, str] = {
    "intrinsic": "intrinsic",
    "multifocal": "multifocal|multiform|polymorphic|multiformed",
    "unifocal": "unifocal|uniform|monomorphic",
    "interpolated": "interpolated",
    "paroxysmal": "paroxysmal",
    "non-sustained": "nonsustained|non sustained",
    "sustained": "sustained",
    "demand": "demand|on demand",
    "irregular": "irregular",
    "regular": "regular|fixed",
    "coarse": "coarse",
    "fine": "fine",
    "couplets": "in couplet|in pair|paired|coupled|consecutive|successive",
    "triplets": "in triplet|triplet",
    "bigeminal": "bigeminal",
    "trigeminal": "trigeminal",
    "atypical": "atypical|unusual",
    "typical": "typical",
    "deep": "deep",
    "varying": "varying|variable",
    "secondary": "secondary",
    "type A": "type a|pattern type a",
    "type B": "type b|pattern type b",
    "downsloping": "downsloping",
    "upsloping": "upsloping",
    "horizontal": "horizontal",
    "symmetric": "symmetric|symmetrical",
    "primary": "primary",
    "R on T": "r on t",
}  # fmt: skip

NOTES: dict[str, str] = {
    "normal variant": "normal variant|may be normal variant|may be a normal variant|may be normal variant for age"
    "|may be normal"
    "|may be a normal variant for age|probable normal variant|probable a normal variant|a normal variant"
    "|possible normal variant"
    "|normal for age|may be normal for age|variant of normal|may be normal for age sex|could be normal|benign variant"
    "|could be a normal variant|could be normal variant|may be physiologic|normal finding|physiologic"
    "|is normal for age|for a female of this age|for a male of this age|a normal juvenile pattern"
    "|normal juvenile pattern"
    "|juvenile pattern|juvenile t wave|normal for age and race|is normal for age and race"
    "|may be a normal variant for a female of this age"
    "|may be a normal variant for a male of this age|is a normal juvenile pattern"
    "|may be normal in young adult|probable normal for age|may be normal for age and sex"
    "|within normal limit",
    "rate related": "rate related|probable rate related|possible rate related|due to rate|rate dependent"
    "|due to rate rhythm|due to rhythm|due to tachycardia rate|related to rate",
    "nonspecific": "nonspecific|is nonspecific",
    "non-diagnostic": "nondiagnostic|is nondiagnostic",
    "unless pulmonary disease": "if no pulmonary disease",
    "masked": "masked by fascicular block|may be masked by fascicular block|masked by lbbb"
    "|masked by left bundle branch block",
    "cited before": "cited on or before",
    "also in lateral leads": "lateral lead also involved|lateral lead is also involved|also involved|involved",
    "new": "now present|now evident|new since previous|new since previous tracing|has developed",
    "for age or sex": "for age|for age sex|for age and sex|for sex|for age gender|for age and gender|for gender"
    "|for patient age",
    "positional": "positional|may be positional|hyperventilation",
    "in young women": "in young women|in young woman|in young adult|in young male|in young men|in athlete",
}  # fmt: skip

NEGATIONS = (
    "no|not|without|absent|absence of|no evidence of|negative for|no sign of|no longer|is no longer present|no definite"
    "|is not present|is absent|not present|is not seen|no significant|free of|is no longer evident|no longer evident"
    "|is no longer seen|no longer present|has replaced|have replaced|replaced"
)

# connecting words, and words that say nothing beyond the finding that they stand with
FILLERS = (
    "in|the|a|an|of|at|on|to|for|is|are|be|been|was|were|by|as|also|this|these|that|there|it|has|have|had|which|when|if"
    "|lead|in lead|change|wave|segment|pattern|type|configuration|morphology|criteria|criterion|activity|abnormality"
    "|evidence"
    "|present|seen|noted|observed|above|below|as above|here|such|some|other|additional|associated|underlying|basic|both"
    "|either|only|alone|though|although|however|while|then|than|now|still|again|persistent|persist|superimposed"
    "|combined|further|partly|site|region|area|origin|beat|complex|extension|extending|extend|into|over|out|up|through"
    "|bpm|ms|mv|mm|degree|ecg|based on|described|normal|underlying rhythm|very|more|less|occur|appearance|provide"
    "|offer|give|magnet|available|clinical finding of|clinical finding|finding"
    "|detected|disease|syndrome"
    "|electronic|evident|more evident|less evident|more prominent|less prominent|undetermined|in a pattern of"
    "|shown|show|exist|with a|likely|in part|with a rate of|rate of|rate|v rate|ventricular rate|heart rate"
)  # fmt: skip
BOUNDARIES: dict[str, str] = {
    "with": "with|followed by|replaced by|following|alternating with|complicated by|superimposed on",
    "but": "but|except|except for|rather than|instead of",
}
COORDINATIONS = "and|plus|as well as|along with"

LEADS: Mapping[str, str] = MappingProxyType(
    {"i": "I", "ii": "II", "iii": "III", "avr": "aVR", "avl": "aVL", "avf": "aVF"}
    | {f"v{number}": f"V{number}" for number in range(1, 10)}
    | {f"v{number}r": f"V{number}R" for number in range(1, 7)}
)
PASSED_OVER = frozenset(",-/&")  # within a phrase
_LEAD_RANGE = re.compile(r"v([1-9])-v?([1-9])")


@dataclass(frozen=True)
class Item:
    """A stretch of a statement that was understood (`kind` "finding", "certainty", ...) or was not ("unknown")."""

    kind: str
    value: str
    start: int = 0
    stop: int = 0


def leads_of(word: str) -> tuple[str, ...]:
    """The leads that a word of a statement names, ranges spelled out; none if it names none.

    >>> leads_of("v2-v4"), leads_of("avl"), leads_of("wave")
    (('V2', 'V3', 'V4'), ('aVL',), ())
    """
    match = _LEAD_RANGE.fullmatch(word)
    if match:
        return tuple(f"V{number}" for number in range(int(match[1]), int(match[2]) + 1))
    return (LEADS[word],) if word in LEADS else ()


@lru_cache(maxsize=1)
def lexicon() -> Mapping[tuple[str, ...], Item]:
    """All phrases that are understood, by their words; where two readings are equally long the more telling one stays.

    Most modifiers go before findings ("rapid ventricular response"); severity and form, and fillers, after them.
    """
    tables = {
        "certainty": CERTAINTIES, "age": AGES, "rate": RATE_RESPONSES, "frequency": FREQUENCIES, "note": NOTES,
        "territory": TERRITORIES, "cause": {"cause": CAUSES}, "negation": {"no": NEGATIONS},
    }  # fmt: skip
    phrases: dict[tuple[str, ...], Item] = {}
    for kind, values in tables.items():
        _add(phrases, kind, values)
    modifiers = {**phrases, **_added("severity", SEVERITIES), **_added("form", FORMS)}
    for phrase, name in finding_phrases().items():
        if not _begins_with_modifier(phrase, name, modifiers):
            phrases.setdefault(phrase, Item("finding", name))
    rest = {"severity": SEVERITIES, "form": FORMS, "boundary": BOUNDARIES, "and": {"": COORDINATIONS}}
    for kind, values in {**rest, "filler": {"": FILLERS}}.items():
        _add(phrases, kind, values)
    return MappingProxyType(phrases)


def _added(kind: str, values: Mapping[str, str]) -> dict[tuple[str, ...], Item]:
    phrases: dict[tuple[str, ...], Item] = {}
    _add(phrases, kind, values)
    return phrases


def _begins_with_modifier(phrase: tuple[str, ...], name: str, modifiers: Mapping[tuple[str, ...], Item]) -> bool:
    """Whether a synonym is a shorter one with a modifier before it, which is then better read as one."""
    kinds = ("frequency", "severity", "form", "age", "territory")
    if any(phrase[:length] in finding_phrases() for length in range(1, len(phrase))):
        return False  # cut short, its beginning would be read as something else
    return any(
        finding_phrases().get(phrase[cut:]) == name and modifiers.get(phrase[:cut], Item("", "")).kind in kinds
        for cut in range(1, len(phrase))
    )


def _add(phrases: dict[tuple[str, ...], Item], kind: str, values: Mapping[str, str]) -> None:
    for value, spellings in values.items():
        for spelling in spellings.split("|"):
            phrases.setdefault(phrase_of(spelling), Item(kind, value))


@lru_cache(maxsize=1)
def _longest_phrase() -> Mapping[str, int]:
    longest: dict[str, int] = {}
    for phrase in lexicon():
        longest[phrase[0]] = max(longest.get(phrase[0], 0), len(phrase))
    return MappingProxyType(longest)


def read_items(words: tuple[str, ...]) -> list[Item]:
    """Cuts the words of a statement into understood stretches, the longest phrase first, from left to right.

    Commas, dashes and slashes within a phrase are passed over ("2nd degree A-V block, Mobitz II").
    """
    items: list[Item] = []
    at = 0
    while at < len(words):
        items.append(_item_at(words, at))
        at = items[-1].stop
    return items


def _item_at(words: tuple[str, ...], at: int) -> Item:
    word = words[at]
    if word in SEPARATORS or word in "/+&":
        return Item("separator" if word in SEPARATORS else "and", word, at, at + 1)
    if word == "or":
        return Item("or", word, at, at + 1)
    phrase: list[str] = []
    best = None
    position = at
    while position < len(words) and len(phrase) < _longest_phrase().get(word, 0):
        if words[position] not in PASSED_OVER:
            phrase.append(words[position])
            found = lexicon().get(tuple(phrase))
            if found:
                best = Item(found.kind, found.value, at, position + 1)
        position += 1
    if best:
        return best
    if leads_of(word):
        return Item("leads", word, at, at + 1)
    return Item("filler" if word[0].isdigit() and word[-1].isdigit() else "unknown", word, at, at + 1)
