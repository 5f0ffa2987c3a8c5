"""What passages say, arranged so that claims of a description can be looked up in it.

Passages of one finding of the shipped base are taken together as one page, any other passage stands alone. What a
section on mimics says is not said of the finding itself, and is kept apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from datasets_scripts.cqa.claims import Claim, Pole, Reading, read_sentence
from datasets_scripts.cqa.ecg_terms import LEAD_GROUPS
from datasets_scripts.cqa.measures import Measure
from datasets_scripts.cqa.named_findings import names_in, pictures_in
from datasets_scripts.cqa.passages import Passage

_Shared = tuple[Claim, frozenset[str]]

_APART = re.compile(r"\b(?:mimics?|differential|pitfalls?)\b", re.IGNORECASE)
_HEADING = re.compile(r"^#+\s*(.+)$|^(Definition|Waveform|Criteria|Mimics|Urgency):?\s*$")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bapprox\.)(?<!\bca\.)[\"')\]]*\s+(?=[A-Z0-9\"'(])"
)
_OPPOSITES = frozenset({"up", "down", "large", "small", "wide", "narrow"})
_ATRIAL, _VENTRICULAR = (
    frozenset({"p", "flutter", "fibrillatory", "atrial rate"}), frozenset({"qrs", "beat", "ventricular rate"})
)  # fmt: skip
_SHAPES = frozenset({"qs", "rsr", "rs", "qr"})
# waves whose numbers stand for each other: the time from P to QRS is told of either, or as PR
_INTERCHANGED = (
    frozenset({"qrs", "beat"}), frozenset({"rr", "rate", "rhythm"}), frozenset({"rr", "pp"}),
    frozenset({"p", "pr", "delta"}), frozenset({"spike", "pr"}), frozenset({"axis", "qrs"}), frozenset({"pause", "rr"}),
    frozenset({"beat", "pause"}), frozenset({"rsr", "r"}), frozenset({"st", "st t"}), frozenset({"r", "peak time"}),
)  # fmt: skip


@dataclass(frozen=True)
class _Sentence:
    """A sentence of a passage: as read, with its section and the passage's key."""

    reading: Reading
    section: str
    key: str


@dataclass(frozen=True)
class Page:
    """What one finding's page, or one other passage, says; what it says of mimics is in `mimic_...` alone."""

    label: str  # the finding, or title and chapter
    finding: str  # of the shipped base, else ""
    key: str
    sentences: tuple[_Sentence, ...]
    claims: tuple[_Shared, ...]  # with the leads that one without leads shares
    waves: frozenset[str]
    words: frozenset[str]
    mimic_words: frozenset[str]
    names: frozenset[str]
    mimic_names: frozenset[str]
    pictures: frozenset[str]
    leads: frozenset[str]
    poles: frozenset[Pole]
    ends: Mapping[tuple[str, str], frozenset[str]]  # of each wave and axis
    plain: str

    def place_of(self, leads: frozenset[str]) -> str:
        """The label with the section whose sentences name most of the leads."""
        best = max(self.sentences, key=lambda entry: len(entry.reading.leads & leads), default=None)
        return f"{self.label}, {best.section}" if best and best.section not in self.label else self.label


def sentences_of_text(text: str) -> tuple[str, ...]:
    """The sentences of prose or of a list; a point of an abbreviation or within a number ends none.

    >>> sentences_of_text("QRS 0.12 s, e.g. in V1. 3 beats follow.\\n- No P wave")
    ('QRS 0.12 s, e.g. in V1.', '3 beats follow.', 'No P wave')
    """
    found: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*\u2022#]|\d{1,2}[.)]\s))", text):
        block = " ".join(_BULLET.sub("", block).split())
        found += [part.strip() for part in _SENTENCE_END.split(block) if part.strip()]
    return tuple(found)


def pages_of(passages: Sequence[Passage]) -> tuple[Page, ...]:
    """The passages as evidence; those of one finding of the shipped base together."""
    groups: dict[str, list[Passage]] = {}
    for passage in passages:
        groups.setdefault(passage.finding or f"\n{passage.key}", []).append(passage)
    return tuple(_page(tuple(group)) for group in groups.values())


@lru_cache(maxsize=4096)
def _page(passages: tuple[Passage, ...]) -> Page:
    sentences = [entry for passage in passages for entry in _sentences(passage)]
    said = tuple(entry for entry in sentences if not _APART.search(entry.section))
    apart = [entry.reading for entry in sentences if _APART.search(entry.section)]
    first = passages[0]
    about = read_sentence(first.finding or first.title)
    readings = [about, *(entry.reading for entry in said)]
    claims = tuple((claim, frozenset()) for claim in about.claims)
    claims += tuple(pair for entry in said for pair in _with_leads(entry.reading))
    poles = frozenset().union(*(claim.poles for claim, _ in claims))
    return Page(
        label=first.finding or ", ".join(filter(None, (first.title, first.chapter))),
        finding=first.finding,
        key=first.key,
        sentences=said,
        claims=claims,
        waves=frozenset().union(*(claim.waves for claim, _ in claims)),
        words=frozenset().union(*(reading.words for reading in readings)),
        mimic_words=frozenset().union(*(reading.words for reading in apart)),
        names=frozenset({first.finding} - {""}).union(*(names_in(reading.text) for reading in readings)),
        mimic_names=frozenset().union(*(names_in(reading.text) for reading in apart)),
        pictures=frozenset().union(*(pictures_in(reading.text) for reading in readings)),
        leads=frozenset().union(*(entry.reading.leads for entry in said)),
        poles=poles,
        ends=ends_of(poles),
        plain=" ".join(entry.reading.plain for entry in said),
    )


def _with_leads(reading: Reading) -> Iterator[_Shared]:
    """The claims of a sentence, each with the leads that it shares if it names none: those of the next claim that names
    some, else of the one before; all of the sentence if it says nothing of size or direction.
    """
    for at, claim in enumerate(reading.claims):
        near = next((other for other in (*reading.claims[at:], *reading.claims[at::-1]) if own_leads(other)), claim)
        telling = any(pole[1] in ("polarity", "size", "width", "presence") for pole in claim.poles)
        yield claim, own_leads(near) if telling else reading.all_leads


def _sentences(passage: Passage) -> list[_Sentence]:
    """The sentences of a passage; a heading inside it begins a section of its own."""
    found: list[_Sentence] = []
    section, lines = passage.chapter, []
    for line in passage.text.splitlines():
        if heading := _HEADING.match(line.strip()):
            found += _sentences_of_section(lines, section, passage.key)
            section, lines = heading[1] or heading[2], []
        else:
            lines.append(line)
    return found + _sentences_of_section(lines, section, passage.key)


def _sentences_of_section(lines: Sequence[str], section: str, key: str) -> list[_Sentence]:
    return [_Sentence(read_sentence(text), section, key) for text in sentences_of_text("\n".join(lines))]


# ----- looking up -----------------------------------------------------------------------------------------------------


def covered_leads(page: Page, claim: Claim, loosely: bool = False) -> frozenset[str]:
    """The leads in which the page says what the claim says; empty if it says nothing of these waves.

    Sentences that agree in what they say of the wave count before those that merely speak of it. A statement of the
    page without leads takes those of its sentence, and without any, all of the page. The leads of a group ("limb
    leads") count where no leads are named one by one, and always if `loosely` is true.
    """
    shapes = claim.waves & _SHAPES
    waves = shapes if any(known.waves & shapes for known, _ in page.claims) else claim.waves
    related = [(known, leads) for known, leads in page.claims if not waves or known.waves & waves]
    related = [entry for entry in related if not _opposed(claim, entry[0])]
    related = _of_this_size(claim, waves, related) or related
    telling = {pole for pole in claim.poles if pole[1] in ("polarity", "presence")}
    saying = [entry for entry in related if telling & entry[0].poles]
    covered = _leads(saying, loosely) or _leads(related, loosely)
    return page.leads if related and not covered else covered


def _of_this_size(claim: Claim, waves: frozenset[str], related: Sequence[_Shared]) -> list[_Shared]:
    """For a claim on size or width, what is said of such waves: not of normal ones nor of those within another shape,
    and leads that are shared only where the size is the same. None if that leaves no lead.
    """
    sizes = {pole for pole in claim.poles if pole[1] in ("size", "width")}
    fitting = [
        (known, leads if sizes & known.poles else frozenset())
        for known, leads in related
        if not (known.waves & _SHAPES - waves or _is_normal(known))
    ]
    return fitting if sizes and _leads(fitting, loosely=True) else []


def _leads(entries: Sequence[_Shared], loosely: bool) -> frozenset[str]:
    of_sentences = frozenset().union(*(leads for claim, leads in entries if not (claim.leads or claim.groups)))
    named = of_sentences.union(*(own_leads(claim) for claim, _ in entries if claim.leads))
    return named if named and not loosely else named.union(*(own_leads(claim) for claim, _ in entries))


def own_leads(claim: Claim) -> frozenset[str]:
    """The leads of a claim; a group whose leads it names ("limb leads I and aVL") adds nothing."""
    grouped = frozenset().union(*(LEAD_GROUPS[name] for name in claim.groups))
    return claim.leads if claim.leads and claim.leads <= grouped else claim.leads | grouped


def _is_normal(claim: Claim) -> bool:
    return any(pole[1:] == ("state", "normal") for pole in claim.poles)


def _opposed(claim: Claim, known: Claim) -> bool:
    """Whether the two say opposite things of a wave."""
    mine, theirs = ends_of(claim.poles), ends_of(known.poles)
    return any(
        key in theirs and ends.isdisjoint(theirs[key]) and not ends.isdisjoint(_OPPOSITES) for key, ends in mine.items()
    )


def ends_of(poles: Iterable[Pole]) -> dict[tuple[str, str], frozenset[str]]:
    """The ends that are said of each wave and axis."""
    ends: dict[tuple[str, str], frozenset[str]] = {}
    for wave, axis, end in poles:
        ends[wave, axis] = ends.get((wave, axis), frozenset()) | {end}
    return ends


@dataclass(frozen=True)
class KnownMeasure:
    """A measure of a page with the leads that it is given for, none if it is given for no lead in particular."""

    measure: Measure
    leads: frozenset[str]


def measures_for(page: Page, claim: Claim, measure: Measure) -> list[KnownMeasure]:
    """The page's measures with which the measure of a claim is compared.

    Rates are compared with all rates but those of the other chamber, ages with all ages; times, amplitudes and angles
    with those of the same wave, of waves whose numbers are told by turns (PR and AV delay), and with those that the
    page gives of no wave.
    """
    waves = claim.waves | claim.other_waves
    waves = waves.union(*(group for group in _INTERCHANGED if group & waves))
    anywhere = measure.dimension in ("bpm", "years", "hours", "celsius", "%") or not waves
    return [
        KnownMeasure(own, own_leads(known))
        for known, _ in page.claims
        for own in known.measures
        if (anywhere or not known.waves or waves & (known.waves | known.other_waves))
        and not (measure.dimension == "bpm" and _of_other_chamber(claim, known))
    ]


def _of_other_chamber(claim: Claim, known: Claim) -> bool:
    """Whether a claim names the rate of the atria or the ventricles, and what is known is of the other one alone."""
    by_name = claim.waves & {"atrial rate", "ventricular rate"}
    return bool(by_name) and {_chamber(claim), _chamber(known)} == {"atria", "ventricles"}


def _chamber(claim: Claim) -> str:
    atria, ventricles = bool(claim.waves & _ATRIAL), bool(claim.waves & _VENTRICULAR)
    if atria == ventricles:
        return ""
    return "atria" if atria else "ventricles"
