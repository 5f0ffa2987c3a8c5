"""The shipped knowledge base: one Markdown page per ECG finding, of fixed form, so that its sentences can be checked.

A page is `knowledge/<name with - for spaces>.md`: YAML front matter (name, scp, snomed, group, sources), then the
sections Definition, Waveform, Criteria, Mimics and Urgency. The waveform section holds two to five sentences, each of
which stands alone: they become the description of the finding. Every number carries its unit, and every lead is one
of the 12 standard leads or a known extra lead; a page that breaks the form is refused with its file and the reason.

The pages are our own words, under the project's licence; the guidelines that they follow are cited, not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

import yaml

PAGES_FOLDER = "knowledge"
SECTIONS = ("Definition", "Waveform", "Criteria", "Mimics", "Urgency")
URGENCIES = ("none", "routine", "soon", "immediate")
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EXTRA_LEADS = ("V7", "V8", "V9", "V3R", "V4R")
UNITS = (
    "mV·ms", "mm·s", "mm/s", "mm/mV", "mmol/L", "ms", "mV", "mm", "bpm", "degrees", "Hz", "%", "°C", "s", "year",
    "years", "day", "days", "week", "weeks", "hour", "hours", "month", "months", "minute", "minutes", "point",
    "points", "beats",
)  # fmt: skip

_FRONT_MATTER = re.compile(r"\A---\n(?P<front>.*?)\n---\n(?P<body>.*)\Z", re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# "type I", "Mobitz II" and the like are kinds, not leads
_ROMAN = r"(?<!type )(?<!Mobitz )(?<!class )(?:III|II|I)(?![\w'])"
_LEAD = re.compile(
    rf"(?<![\w/-])V[1-9](?: ?to |-)V[1-9](?!\w)|(?<!\w)(?:[aA]V[A-Za-z]|V\d+[A-Z]?)(?!\w)|(?<!\w)(?:{_ROMAN})"
)
_RANGE = re.compile(r"V(\d)(?: ?to |-)V(\d)")
_FREE_NUMBER = re.compile(
    r"\d+(?:\.\d+)?:\d+(?:\.\d+)?|(?<!\d)12-lead|ratio (?:of |above |below |at least |over )?\d+(?:[.:]\d+)?"
)
_NUMBER = re.compile(r"(?<![\w.])([-+−]?\d+(?:\.\d+)?)(?![\w.]*\w)")
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_WITH_UNIT = re.compile(rf"(?:\s*(?:to|and|or|-|/)\s*[-+−]?\d+(?:\.\d+)?)*[ -]?({_UNIT})(?!\w)")


class KnowledgeError(ValueError):
    """A page of the knowledge base does not have the fixed form; the message names the file and what was expected."""


@dataclass(frozen=True)
class Quantity:
    """A number of a sentence with its unit, as written: `120 ms`, `0.1 mV`, `-30 degrees`."""

    value: float
    unit: str


@dataclass(frozen=True)
class Criterion:
    """One line of a page's criteria, with the leads it names (ranges spelled out) and its numbers."""

    text: str
    leads: tuple[str, ...]
    numbers: tuple[Quantity, ...]


@dataclass(frozen=True)
class Source:
    """What a page follows; `link` is a URL, empty where only title and year are given."""

    title: str
    year: int
    link: str


@dataclass(frozen=True)
class KnowledgePage:
    """One finding: `scp` and `snomed` are its codes, `sections` the text under each heading, in the page's order."""

    name: str
    scp: tuple[str, ...]
    snomed: tuple[str, ...]
    group: str
    sections: Mapping[str, str]
    criteria: tuple[Criterion, ...]
    sources: tuple[Source, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """SCP codes, then SNOMED codes."""
        return self.scp + self.snomed

    @property
    def waveform(self) -> tuple[str, ...]:
        """The sentences that describe the finding on the 12-lead ECG; each stands alone."""
        return sentences_of(self.sections["Waveform"])

    @property
    def urgency(self) -> str:
        """`none`, `routine`, `soon` or `immediate`."""
        return self.sections["Urgency"].split(":")[0].lower()


def sentences_of(text: str) -> tuple[str, ...]:
    """The sentences of a text; a point inside a number does not end one.

    >>> sentences_of("ST elevation is 0.1 mV. Leads are contiguous.")
    ('ST elevation is 0.1 mV.', 'Leads are contiguous.')
    """
    return tuple(part.strip() for part in _SENTENCE_END.split(" ".join(text.split())) if part.strip())


def leads_in(text: str) -> tuple[str, ...]:
    """The leads that a text names, each once, in order; ranges are spelled out. Names that are no lead are kept.

    >>> leads_in("Q waves in II, aVF and V1-V3 of type I")
    ('II', 'aVF', 'V1', 'V2', 'V3')
    """
    found: list[str] = []
    for match in _LEAD.finditer(text):
        if ends := _RANGE.fullmatch(match[0]):
            found += [f"V{number}" for number in range(int(ends[1]), int(ends[2]) + 1)]
        else:
            found.append(match[0])
    return tuple(dict.fromkeys(found))


def numbers_in(text: str) -> tuple[Quantity, ...]:
    """The numbers of a text with their units; ratios such as 2:1 and lead names are passed over.

    Both ends of a range have its unit. A number without a unit has the unit "".

    >>> numbers_in("60 to 100 bpm, QRS below 120 ms")
    (Quantity(value=60.0, unit='bpm'), Quantity(value=100.0, unit='bpm'), Quantity(value=120.0, unit='ms'))
    """
    plain = _FREE_NUMBER.sub(lambda match: " " * len(match[0]), text)
    return tuple(_quantity(match, plain) for match in _NUMBER.finditer(plain))


def _quantity(match: re.Match[str], text: str) -> Quantity:
    unit = _WITH_UNIT.match(text, match.end())
    return Quantity(float(match[1].replace("−", "-")), unit[1] if unit else "")


def load_knowledge(folder: Traversable | None = None) -> dict[str, KnowledgePage]:
    """All pages by their name, in alphabetical order; `folder` holds other pages of the same form.

    Raises `KnowledgeError` where a page breaks the form, and where a name is there twice or the folder has no page.
    """
    folder = folder if folder is not None else files("datasets_scripts.cqa").joinpath(PAGES_FOLDER)
    pages: dict[str, KnowledgePage] = {}
    for file in sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".md")), key=lambda entry: entry.name
    ):
        page = parse_page(file.read_text(encoding="utf-8"), file.name)
        pages[page.name] = page
    if not pages:
        raise KnowledgeError(f"{folder}: expected pages *.md, got none; is the package installed with its data?")
    return pages


def parse_page(text: str, file_name: str) -> KnowledgePage:
    """A page from its text; `file_name` must be the page's name with `-` for spaces and `.md`."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        raise KnowledgeError(
            f"{file_name}: expected front matter between two lines '---' at the top, got {text[:40]!r}"
        )
    front = _front_matter(match["front"], file_name)
    sections = _sections(match["body"], file_name)
    page = KnowledgePage(
        **front,
        sections=MappingProxyType(sections),
        criteria=tuple(
            Criterion(line, leads_in(line), numbers_in(line))
            for line in _bullets(sections["Criteria"], "Criteria", file_name)
        ),
    )
    _check(page, file_name)
    return page


def _front_matter(text: str, file_name: str) -> dict:
    try:
        front = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KnowledgeError(f"{file_name}: the front matter is no YAML: {error}") from error
    expected = {"name", "scp", "snomed", "group", "sources"}
    if not isinstance(front, dict) or set(front) != expected:
        got = sorted(front) if isinstance(front, dict) else front
        raise KnowledgeError(f"{file_name}: front matter: expected the keys {sorted(expected)}, got {got}")
    for key in ("scp", "snomed"):
        front[key] = _codes(front[key], key, file_name)
    if not isinstance(front["sources"], list) or not front["sources"]:
        raise KnowledgeError(f"{file_name}: sources: expected at least one, got {front['sources']!r}")
    front["sources"] = tuple(_source(entry, file_name) for entry in front["sources"])
    return front


def _codes(value: object, key: str, file_name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise KnowledgeError(f"{file_name}: {key}: expected a list of codes in quotes, got {value!r}")
    return tuple(value)


def _source(entry: object, file_name: str) -> Source:
    if not isinstance(entry, dict) or not {"title", "year"} <= set(entry) <= {"title", "year", "url", "doi"}:
        raise KnowledgeError(f"{file_name}: source: expected title, year and one of url and doi at most, got {entry!r}")
    if not isinstance(entry["year"], int) or not isinstance(entry["title"], str):
        raise KnowledgeError(f"{file_name}: source: expected a text as title and a whole number as year, got {entry!r}")
    link = f"https://doi.org/{entry['doi']}" if "doi" in entry else entry.get("url", "")
    return Source(entry["title"], entry["year"], link)


def _sections(body: str, file_name: str) -> dict[str, str]:
    parts = _HEADING.split(body)
    names = tuple(parts[1::2])
    if names != SECTIONS or parts[0].strip():
        raise KnowledgeError(
            f"{file_name}: expected the sections {', '.join(SECTIONS)} in this order, got {', '.join(names)}"
        )
    sections = dict(zip(names, (part.strip() for part in parts[2::2]), strict=True))
    if empty := [name for name, text in sections.items() if not text]:
        raise KnowledgeError(f"{file_name}: expected text in every section, got none in {', '.join(empty)}")
    return sections


def _bullets(text: str, section: str, file_name: str) -> tuple[str, ...]:
    lines = [line for line in text.splitlines() if line.strip()]
    if wrong := [line for line in lines if not line.startswith("- ")]:
        raise KnowledgeError(f"{file_name}: {section}: expected lines that begin with '- ', got {wrong[0]!r}")
    return tuple(line.removeprefix("- ").strip() for line in lines)


def _check(page: KnowledgePage, file_name: str) -> None:
    if page.name != page.name.lower() or file_name != f"{page.name.replace(' ', '-')}.md":
        raise KnowledgeError(
            f"{file_name}: expected the lower-case name with '-' for spaces as file name, got {page.name!r}"
        )
    _bullets(page.sections["Mimics"], "Mimics", file_name)
    if page.urgency not in URGENCIES:
        raise KnowledgeError(
            f"{file_name}: urgency: expected '<{'|'.join(URGENCIES)}>: why', got {page.sections['Urgency']!r}"
        )
    for section, text in page.sections.items():
        _check_text(text, section, file_name)


def _check_text(text: str, section: str, file_name: str) -> None:
    if unknown := [lead for lead in leads_in(text) if lead not in STANDARD_LEADS + EXTRA_LEADS]:
        known = ", ".join(STANDARD_LEADS + EXTRA_LEADS)
        raise KnowledgeError(f"{file_name}: {section}: expected leads of {known}, got {', '.join(unknown)}")
    if bare := [f"{number.value:g}" for number in numbers_in(text) if not number.unit]:
        raise KnowledgeError(
            f"{file_name}: {section}: expected a unit behind every number, got {', '.join(bare)} without one"
        )
