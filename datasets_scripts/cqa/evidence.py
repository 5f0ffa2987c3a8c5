"""What passages say, arranged so that claims of a description can be looked up in it.

Passages of one finding of the shipped base are taken together as one page, any other passage stands alone. What a
section on mimics says is not said of the finding itself, and is kept apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from datasets_scripts.cqa.claims import Claim, Pole, Reading, plain_form, read_sentence
from datasets_scripts.cqa.ecg_terms import LEAD_GROUPS, POLES
from datasets_scripts.cqa.findings import Phrase, all_findings, phrase_of
from datasets_scripts.cqa.grammar import read_items
from datasets_scripts.cqa.measures import Measure
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.wording import words_of

_APART = re.compile(r"\b(?:mimics?|differential|pitfalls?)\b", re.IGNORECASE)
_HEADING = re.compile(r"^#+\s*(.+)$|^(Definition|Waveform|Criteria|Mimics|Urgency):?\s*$")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bapprox\.)(?<!\bca\.)[\"')\]]*\s+(?=[A-Z0-9\"'(])"
)
# a finding whose name is nothing but waves and poles is checked as a claim
_PICTURE = frozenset(
    "p q r s t u st stt qrs pr pq qt qtc rr j wave waves segment interval change changes complex voltage amplitude of in"
    " abnormal qs rs qr rsr rsr' r' rhythm rate duration absent no pattern axis the deviation r/s slurring initial delta"
    " terminal force v1 progression progressio large pause notched bifid tented hyperacute fused fragmented depression"
    " elevation st-t normal".split()
)
_WORDS_THAT_NAME = re.compile(
    r"\b\w+(?:emia|aemia|itis|opathy|osis|oma|embolism|syndrome|thrombosis)\b|\bwellens\b|\bde winter\b|\bsgarbossa\b"
)


_SHAPES = frozenset({"qs", "rsr", "rs", "qr"})


@dataclass(frozen=True)
class Page:
    """The evidence of one finding's page, or of one other passage."""

    label: str  # "inferior myocardial infarction, Criteria" without the section
    finding: str
    key: str
    readings: tuple[tuple[Reading, str, str], ...]  # with the section and the passage's key
    claims: tuple[tuple[Claim, frozenset[str]], ...]  # with the leads of the whole sentence
    words: frozenset[str]
    mimic_words: frozenset[str]
    names: frozenset[str]
    mimic_names: frozenset[str]
    leads: frozenset[str]
    poles: frozenset[Pole]
    plain: str

    def sections_of(self, leads: frozenset[str]) -> str:
        """The section whose sentences name most of the leads."""
        best = max(self.readings, key=lambda entry: len(entry[0].leads & leads), default=None)
        return best[1] if best else ""


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
    read = [entry for passage in passages for entry in _sentences(passage)]
    said = [(read_sentence(text), section, key) for text, section, key in read if not _APART.search(section)]
    apart = [read_sentence(text) for text, section, _ in read if _APART.search(section)]
    first = passages[0]
    about = read_sentence(f"{first.finding or first.title}")
    claims = tuple((claim, reading.leads) for reading, _, _ in said for claim in reading.claims)
    claims += tuple((claim, frozenset()) for claim in about.claims)
    mimic_words = frozenset().union(*(reading.words for reading in apart))
    return Page(
        label=first.finding or ", ".join(filter(None, (first.title, first.chapter))),
        finding=first.finding,
        key=first.key,
        readings=tuple(said),
        claims=claims,
        words=about.words.union(*(reading.words for reading, _, _ in said)),
        mimic_words=mimic_words,
        names=names_in(about.text).union({first.finding} - {""}, *(names_in(reading.text) for reading, _, _ in said)),
        mimic_names=frozenset().union(*(names_in(reading.text) for reading in apart)),
        leads=frozenset().union(*(reading.leads for reading, _, _ in said)),
        poles=frozenset().union(*(claim.poles for claim, _ in claims)),
        plain=" ".join(reading.plain for reading, _, _ in said),
    )


def _sentences(passage: Passage) -> list[tuple[str, str, str]]:
    """Each sentence with its section, which a heading inside the text may change, and the passage's key."""
    found = []
    section = passage.chapter
    for block in passage.text.splitlines(keepends=True):
        if heading := _HEADING.match(block.strip()):
            section = heading[1] or heading[2]
    # headings inside a passage are rare: the text is read as a whole unless there are some
    if section == passage.chapter:
        return [(text, section, passage.key) for text in sentences_of_text(passage.text)]
    section = passage.chapter
    lines: list[str] = []
    for line in [*passage.text.splitlines(), "# end"]:
        heading = _HEADING.match(line.strip())
        if not heading:
            lines.append(line)
            continue
        found += [(text, section, passage.key) for text in sentences_of_text("\n".join(lines))]
        section, lines = heading[1] or heading[2], []
    return found


# ----- findings named -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def findings_named(text: str) -> tuple[tuple[str, Phrase], ...]:
    """The findings that a text names by a name or synonym, each with the words it uses; pictures of waves are left out.

    >>> findings_named("Delta wave in WPW, with inverted T waves")
    (('wolff-parkinson-white pattern', ('wpw',)),)
    """
    words = words_of(_opened(text))
    named = []
    place, at = "", 0
    for item in read_items(words):
        phrase = words[item.start : item.stop]
        if item.kind == "territory":
            place, at = item.value, item.stop
            continue
        if item.kind == "finding" and not all(word in _PICTURE or word in POLES for word in phrase):
            placed = f"{place} {item.value}" if place and at == item.start else ""
            if placed in all_findings():
                named.append((placed, (*place.split(), *phrase)))
            else:
                named.append((item.value, phrase))
    return tuple(dict.fromkeys(named))


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
    telling = {pole for pole in claim.poles if pole[1] in ("polarity", "presence", "size", "width")}
    saying = [entry for entry in related if telling & entry[0].poles]
    covered = _leads(saying, loosely) or _leads(related, loosely)
    if not covered and related:
        return page.leads
    return covered


def _leads(entries: Sequence[tuple[Claim, frozenset[str]]], loosely: bool) -> frozenset[str]:
    of_sentences = frozenset().union(*(leads for claim, leads in entries if not (claim.leads or claim.groups)))
    named = of_sentences.union(*(_own_leads(claim) for claim, _ in entries if claim.leads))
    return named if named and not loosely else named.union(*(_own_leads(claim) for claim, _ in entries))


def _own_leads(claim: Claim) -> frozenset[str]:
    """The leads of a claim; a group whose leads it names ("limb leads I and aVL") adds nothing."""
    grouped = frozenset().union(*(LEAD_GROUPS[name] for name in claim.groups))
    return claim.leads if claim.leads and claim.leads <= grouped else claim.leads | grouped


def _opposed(claim: Claim, known: Claim) -> bool:
    """Whether the two say opposite things of a wave."""
    mine = {(wave, axis): end for wave, axis, end in claim.poles if axis in ("polarity", "presence")}
    ends: dict[tuple[str, str], set[str]] = {}
    for wave, axis, end in known.poles:
        ends.setdefault((wave, axis), set()).add(end)
    return any(key in ends and end not in ends[key] for key, end in mine.items() if end in ("up", "down"))


def known_measures(page: Page, claim: Claim) -> tuple[list[Measure], list[Measure]]:
    """The page's measures of the claim's waves, and those that it gives of no wave."""
    of_waves, loose = [], []
    for known, _ in page.claims:
        waves = known.waves | known.next_waves
        if not known.waves:
            loose += known.measures
        elif not claim.waves or (claim.waves | claim.next_waves) & waves:
            of_waves += known.measures
    return of_waves, loose


_INTERCHANGED = (
    frozenset({"qrs", "beat"}),
    frozenset({"rate", "rhythm", "qrs", "beat", "rr", "pp", "p", "flutter", "fibrillatory"}),
    frozenset({"p", "pr", "delta"}), frozenset({"spike", "pr"}), frozenset({"axis", "qrs"}), frozenset({"pause", "rr"}),
    frozenset({"beat", "pause"}), frozenset({"rsr", "r"}), frozenset({"st", "st t"}), frozenset({"r", "peak time"}),
)  # fmt: skip


def measures_for(page: Page, claim: Claim, measure: Measure) -> list[Measure]:
    """The page's measures with which the measure of a claim is compared.

    Rates are compared with all rates, angles with all angles of the same axis; times and amplitudes with those of the
    same wave, or of waves whose numbers are told by turns, as PR and AV delay.
    """
    own, loose = known_measures(page, claim)
    if measure.dimension == "bpm":
        return [known for entry, _ in page.claims for known in entry.measures if known.dimension in ("bpm", "")]
    if measure.dimension in ("years", "hours", "celsius", "%"):
        return [known for entry, _ in page.claims for known in entry.measures if known.dimension == measure.dimension]
    turns = set().union(*(group for group in _INTERCHANGED if group & (claim.waves | claim.next_waves) and "rate" not in group))
    near = [known for entry, _ in page.claims if (entry.waves | entry.next_waves) & turns for known in entry.measures]
    return own + loose + near
