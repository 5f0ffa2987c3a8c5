"""What a statement says of a finding beyond its name, in one line: "Possible old inferior myocardial infarction."

The name with its modifiers: certainty, negation, age, severity, frequency, form, leads, rate response. Territories are
spelled out as leads where the shipped pages have them, so that a description names the leads that are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets_scripts.cqa.knowledge import STANDARD_LEADS, KnowledgePage, leads_in
from datasets_scripts.cqa.statements import ParsedFinding

_UPPER = frozenset("av st st-t t-u qt pr qrs ecg p q r s t u j i ii iii s1q3t3 s1s2s3 v1".split())
_SPELLED = {
    "brugada": "Brugada", "mobitz": "Mobitz", "rsr": "RSR'", "lown-ganong-levine": "Lown-Ganong-Levine",
    "wolff-parkinson-white": "Wolff-Parkinson-White",
}  # fmt: skip
_IN_FRONT = frozenset({"possible", "probable", "borderline"})
_BEHIND = {"cannot rule out": "cannot be ruled out", "consider": "to be considered", "suggested": "suggested"}
_REGIONS = {
    "diffuse": "most leads", "extensive": "many leads", "limb leads": "the limb leads",
    "precordial leads": "the precordial leads", "right precordial leads": "the right precordial leads",
    "left precordial leads": "the left precordial leads", "right ventricular": "the right ventricular leads",
}  # fmt: skip
_FORMS_BEHIND = {"couplets": "in couplets", "triplets": "in triplets", "type A": "of type A", "type B": "of type B"}
_REMARKS = {
    "normal variant": "which can be a normal variant", "masked": "masked by the conduction defect",
    "unless pulmonary disease": "unless there is pulmonary disease", "for age or sex": "for the age or sex",
    "also in lateral leads": "also in the lateral leads", "nonspecific": "which is nonspecific",
    "non-diagnostic": "which is not diagnostic", "rate related": "related to the heart rate",
}  # fmt: skip
_SILENT_NOTES = frozenset({"cited before"})  # about another recording
_SOLID_AGES = ("acute", "recent", "subacute", "old")


def display_name(name: str) -> str:
    """A finding's name as it is written in a text.

    >>> display_name("mobitz type ii second degree av block"), display_name("st-t changes")
    ('Mobitz type II second degree AV block', 'ST-T changes')
    """
    words = (_SPELLED.get(word, word.upper() if word in _UPPER else word) for word in name.split())
    return " ".join(words)


def sentence_case(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end."""
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def enumeration(parts: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def territory_page(territory: str, pages: Mapping[str, KnowledgePage]) -> KnowledgePage | None:
    """The page whose first sentence tells the leads of a territory; None where no page is about it."""
    names = (f"{territory} {base}" for base in ("myocardial ischemia", "myocardial infarction"))
    return next((pages[name] for name in names if name in pages), None)


def leads_of_territory(territory: str, pages: Mapping[str, KnowledgePage]) -> tuple[str, ...]:
    """The leads that face a territory, from the first sentence of its page; empty where there is none.

    "Extensive" and "diffuse" are no territories: they leave open which leads are meant.
    """
    page = None if territory in _REGIONS else territory_page(territory, pages)
    return () if page is None else leads_in(page.waveform[0])


def placed_leads(finding: ParsedFinding, pages: Mapping[str, KnowledgePage]) -> tuple[str, ...]:
    """The leads in which a statement places a finding, named one by one or by territory, in the usual order."""
    named = {*finding.leads, *(lead for place in finding.territory for lead in leads_of_territory(place, pages))}
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def is_plain(finding: ParsedFinding) -> bool:
    """Whether the statement says nothing of the finding but its name."""
    return not (
        finding.negated
        or finding.alternative
        or finding.relation
        or finding.certainty != "stated"
        or finding.age_of_infarct
        or finding.rate_response
        or finding.frequency
        or finding.severity
        or finding.form
        or finding.leads
        or set(finding.notes) - _SILENT_NOTES
        or _places(finding)
    )


def groups_of(findings: Sequence[ParsedFinding]) -> list[list[ParsedFinding]]:
    """Findings one by one; those of an "A or B" together."""
    groups: list[list[ParsedFinding]] = []
    for finding in findings:
        if groups and finding.alternative and groups[-1][-1].alternative:
            groups[-1].append(finding)
        else:
            groups.append([finding])
    return groups


def headline(group: Sequence[ParsedFinding], pages: Mapping[str, KnowledgePage]) -> str:
    """One sentence for a finding, or for several of which the statement says "A or B".

    >>> from datasets_scripts.cqa.statements import parse_statement
    >>> headline(parse_statement("Possible anterior infarct - age undetermined").findings, {})
    'Possible anterior myocardial infarction, age undetermined.'
    >>> headline(parse_statement("frequent PVCs or aberrant ventricular conduction").findings, {})
    'Frequent ventricular premature complexes or aberrant ventricular conduction.'
    """
    first = group[0]
    is_even = len({finding.certainty for finding in group}) == 1
    phrases = [_phrase(finding, pages) if is_even else _doubted(finding, pages) for finding in group]
    phrase = enumeration(phrases, "or")
    if any(finding.relation for finding in group):
        doubt = f"{_doubt(first)} " if first.certainty != "stated" and is_even else ""
        return sentence_case(f"{phrase} as a {doubt}cause{', which is denied' if first.negated else ''}")
    if any(finding.negated for finding in group):
        return sentence_case(f"no evidence of {phrase}")
    if is_even and first.certainty == "cannot rule out":
        return sentence_case(f"{phrase} {_BEHIND[first.certainty]}")
    if is_even and first.certainty in _BEHIND:
        verb = "are" if group[-1].name.endswith(("changes", "complexes")) else "is"
        return sentence_case(f"{phrase} {verb} {_BEHIND[first.certainty]}")
    return sentence_case(_doubted(first, pages) if len(group) == 1 else f"{_doubt(first) if is_even else ''} {phrase}")


def _doubt(finding: ParsedFinding) -> str:
    """The statement's doubt in one word; none where it states the finding."""
    if finding.certainty == "stated":
        return ""
    return finding.certainty if finding.certainty in _IN_FRONT else "possible"


def _doubted(finding: ParsedFinding, pages: Mapping[str, KnowledgePage]) -> str:
    return f"{_doubt(finding)} {_phrase(finding, pages)}".strip()


def _phrase(finding: ParsedFinding, pages: Mapping[str, KnowledgePage]) -> str:
    """The name with its modifiers, without certainty and negation."""
    age = finding.age_of_infarct
    behind = [_FORMS_BEHIND[form] for form in finding.form if form in _FORMS_BEHIND]
    forms = [form for form in finding.form if form not in _FORMS_BEHIND]
    frequency = "" if finding.frequency == "runs" else finding.frequency
    in_front = [age if age in _SOLID_AGES else "", finding.severity, frequency, *dict.fromkeys(forms)]
    words = [word for word in dict.fromkeys(in_front) if word and word not in finding.name.split()]
    phrase = " ".join([*words, _counted(finding), *dict.fromkeys(behind)])
    if finding.frequency == "runs":
        phrase += " in runs"
    if finding.rate_response:
        phrase += f" with {_rate(finding.rate_response)}"
    places = _places(finding)
    if places or finding.leads:
        phrase += f" in {_told_places(finding, places, pages)}"
    remarks = [_REMARKS.get(note, note) for note in finding.notes if note not in _SILENT_NOTES]
    if age and age not in _SOLID_AGES:
        remarks.insert(0, "age undetermined" if age.endswith("undetermined") else age)
    return ", ".join([phrase, *dict.fromkeys(remarks)])


def _rate(response: str) -> str:
    return f"{'an' if response[0] in 'aeiou' else 'a'} {response} ventricular response"


def _counted(finding: ParsedFinding) -> str:
    """The name, with complexes in the plural where there are several of them, or none."""
    several = finding.negated or finding.frequency not in ("", "isolated")
    name = display_name(finding.name)
    return f"{name}es" if several and name.endswith("complex") else name


def _places(finding: ParsedFinding) -> tuple[str, ...]:
    """The territories that the finding's own name does not tell already."""
    return tuple(place for place in finding.territory if place not in finding.name)


def _told_places(finding: ParsedFinding, places: Sequence[str], pages: Mapping[str, KnowledgePage]) -> str:
    regions = [_REGIONS[place] for place in places if place in _REGIONS]
    walls = [place for place in places if place not in _REGIONS]
    told = regions
    if walls:
        known = all(leads_of_territory(place, pages) for place in walls)
        leads = placed_leads(finding, pages) if known else finding.leads
        told = [*regions, f"the {enumeration(walls)} leads" + (f" ({enumeration(leads)})" if leads else "")]
    elif finding.leads:
        told = [*regions, enumeration(finding.leads)]
    return enumeration(told)
