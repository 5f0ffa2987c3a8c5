"""Machine statements of an ECG cart, read as findings with their modifiers.

A statement is often a compound: "Atrial fibrillation with rapid ventricular response with PVCs or aberrant ventricular
conduction" names three findings, "Inferior/lateral ST-T changes may be due to myocardial ischemia" a finding and its
possible cause. `parse_statement` cuts it into phrases (`grammar.read_items`: findings, territories, certainty, ...) and
walks over them once, attaching each modifier to the finding before or behind it. What no phrase covers is reported.

What gets a description: every finding that `findings.csv` says has a picture. Lines on the recording, the
interpretation or the tracing as a whole name none ("Lead(s) unsuitable for analysis", "Abnormal ECG", "Summary: ...").
"Normal ECG" by itself is a summary that names one, PTB-XL's NORM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from datasets_scripts.cqa.findings import all_findings
from datasets_scripts.cqa.grammar import LISTING_CERTAINTIES, TERRITORIES, Item, leads_of, read_items
from datasets_scripts.cqa.statement_kinds import is_remark, plain_text, without_cues
from datasets_scripts.cqa.wording import words_of

NORMAL = "normal ecg"
INFARCTION = "myocardial infarction"
# findings with a row for each territory; for ischemia the territory must stand right before it
TERRITORIAL = (INFARCTION, "subendocardial injury", "myocardial ischemia")
NONSPECIFIC = {
    "st changes": "nonspecific st changes",
    "st-t changes": "nonspecific st-t changes",
    "t wave abnormality": "nonspecific t wave changes",
}
# a beat and the pattern in which it comes
PATTERNS = {
    (f"{place} premature complex", pattern): f"{place} {pattern}"
    for place, pattern in (
        ("ventricular", "bigeminy"), ("ventricular", "trigeminy"), ("atrial", "bigeminy"), ("atrial", "trigeminy"),
        ("supraventricular", "bigeminy"),
    )
}  # fmt: skip
RATE_FINDINGS = {"rapid": "rapid ventricular response", "uncontrolled": "rapid ventricular response"}
DOUBTS = {"possible": "possibly", "probable": "probably", "consider": "possibly", "cannot rule out": "possibly"}
AGED_GROUPS = frozenset({"infarct", "st-t"})
PLACED_GROUPS = frozenset({"infarct", "st-t", "morphology", "clinical"})


@dataclass(frozen=True)
class ParsedFinding:
    """One finding of a statement; an empty value means that the statement does not say.

    `name` is a name of `findings.csv`. `certainty` is "stated", "probable", "possible", "consider", "cannot rule out",
    "suggested" or "borderline". `leads` are standard names ("aVL", "V2"), `territory` words ("inferior"). `relation`
    is "cause" for what a finding may be due to. `alternative` marks the members of "A or B". `notes` are remarks such
    as "normal variant".
    """

    name: str
    certainty: str = "stated"
    negated: bool = False
    leads: tuple[str, ...] = ()
    territory: tuple[str, ...] = ()
    age_of_infarct: str = ""
    rate_response: str = ""
    frequency: str = ""
    severity: str = ""
    form: tuple[str, ...] = ()
    relation: str = ""
    alternative: bool = False
    notes: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The group of the finding in `findings.csv`: "rhythm", "infarct", ..."""
        return all_findings()[self.name].group


@dataclass(frozen=True)
class ParsedStatement:
    """A statement as read: `kind` is "finding", "administrative", "quality" or "summary"; `not_understood` the rest."""

    text: str
    findings: tuple[ParsedFinding, ...]
    kind: str
    not_understood: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the findings in order, each once; also of those that are negated."""
        return tuple(dict.fromkeys(finding.name for finding in self.findings))

    @property
    def needs_waveform(self) -> bool:
        """Whether the statement can be described as a waveform: one of its findings has a picture."""
        return any(all_findings()[finding.name].needs_waveform for finding in self.findings if not finding.negated)


def parse_statement(text: str) -> ParsedStatement:
    """Reads any text; never raises. What is not understood is told in `not_understood`.

    A text without letters or digits is administrative. Findings that are equal in every respect are told once.

    >>> parsed = parse_statement("Possible atrial flutter with rapid ventricular response with frequent PVCs")
    >>> [(found.name, found.certainty, found.rate_response, found.frequency) for found in parsed.findings]
    [('atrial flutter', 'possible', 'rapid', ''), ('ventricular premature complex', 'stated', '', 'frequent')]
    >>> parse_statement("Lead(s) unsuitable for analysis: V1 V2").kind
    'quality'
    """
    cue, rest = without_cues(plain_text(text))
    words = words_of(rest)
    items = read_items(words)
    findings = _Reading(items).findings()
    at_quality = any(finding.group == "quality" for finding in findings)
    findings = tuple(finding for finding in findings if finding.group != "quality")
    if not findings:
        return _without_findings(text, cue or ("quality" if at_quality else ""), rest)
    plain = all(finding.negated or finding.name == NORMAL for finding in findings)
    kind = "summary" if plain else "finding"
    unknown = " ".join(words[at] for item in items if item.kind == "unknown" for at in range(item.start, item.stop))
    return ParsedStatement(text, findings, kind, unknown)


def _without_findings(text: str, cue: str, rest: str) -> ParsedStatement:
    if cue:
        return ParsedStatement(text, (), cue)
    if is_remark(rest):
        return ParsedStatement(text, (), "summary")
    if not any(character.isalnum() for character in text):
        return ParsedStatement(text, (), "administrative")
    return ParsedStatement(text, (), "finding", text.strip())


@dataclass
class _Reading:
    """One walk over the items of a statement: what has been found, and the modifiers that wait for the next finding."""

    items: list[Item]
    found: list[ParsedFinding] = field(default_factory=list)
    waiting: ParsedFinding = ParsedFinding("")  # a finding without a name that collects modifiers
    listing: bool = False  # the certainty that waits stands for a list of objects
    joined: bool = False  # "or" or "/" stands between the last finding and the next one
    latest: int = 0  # number of the first of the findings that came last: one infarct has several territories
    sentence: int = 0  # number of the first finding since the last full stop or semicolon
    clause: int = 0  # the same since the last separator of any kind
    at: int = 0

    def findings(self) -> tuple[ParsedFinding, ...]:
        for at, item in enumerate(self.items):
            self.at = at
            action: Callable[[str], None] | None = getattr(self, f"_read_{item.kind}", None)
            if action:
                action(item.value)
        return tuple(dict.fromkeys(self.found))

    # ----- findings ---------------------------------------------------------------------------------------------------

    def _read_finding(self, name: str) -> None:
        pattern = PATTERNS.get((self.found[-1].name, name), "") if self.found else ""
        if pattern and self.items[self.at - 1].kind in ("filler", "boundary"):
            self._change(-1, name=pattern)
            return
        waiting = self.waiting
        named = replace(waiting, name=name)
        new = [_nonspecific(finding) for finding in _in_their_territories(named)]
        if self.joined and self.found:
            self.found[-1] = replace(self.found[-1], alternative=True)
            new[0] = replace(new[0], alternative=True)
        self.latest = len(self.found)
        self.found += new
        self.joined = False
        # what the next finding of a list shares with this one
        self.waiting = ParsedFinding(
            "", certainty=waiting.certainty, negated=waiting.negated, relation=waiting.relation
        )

    def _read_rate(self, value: str) -> None:
        rhythms = [at for at, finding in enumerate(self.found) if finding.group == "rhythm"]
        if rhythms:
            self._change(rhythms[-1], rate_response=value)
        elif self._finding_ahead():
            self.waiting = replace(self.waiting, rate_response=value)
        else:
            self._read_finding(RATE_FINDINGS.get(value, "slow ventricular response"))

    # ----- modifiers --------------------------------------------------------------------------------------------------

    def _read_certainty(self, value: str) -> None:
        self.listing = value in LISTING_CERTAINTIES
        if self._finding_ahead() or not self.found or self._next_kind() in ("age", "cause"):
            self.waiting = replace(self.waiting, certainty=value)
            return
        for at in range(min(self.clause, len(self.found) - 1), len(self.found)):
            if self.found[at].certainty == "stated":
                self._change(at, certainty=value)

    def _read_cause(self, value: str) -> None:
        self.listing = True
        self.waiting = replace(self.waiting, relation=value)

    def _read_negation(self, value: str) -> None:
        if self._finding_ahead():
            self.waiting = replace(self.waiting, negated=True)
        elif self.found:
            self._change(-1, negated=True)

    def _read_territory(self, value: str) -> None:
        if self.found and not self._finding_ahead():
            self._place(value)
        elif value not in self.waiting.territory:
            self.waiting = replace(self.waiting, territory=(*self.waiting.territory, value))

    def _read_age(self, value: str) -> None:
        aged = [at for at, finding in enumerate(self.found) if finding.group in AGED_GROUPS]
        if self._finding_ahead() or not aged:
            self.waiting = replace(self.waiting, age_of_infarct=value)
            return
        doubt = DOUBTS.get(self.waiting.certainty, "")
        for at in {aged[-1], *(at for at in aged if at >= self.latest)}:
            self._change(at, age_of_infarct=f"{doubt} {value}".strip())
        self.waiting = replace(self.waiting, certainty="stated")

    def _read_frequency(self, value: str) -> None:
        self._modify(frequency=value)

    def _read_severity(self, value: str) -> None:
        self._modify(severity=value)

    def _read_form(self, value: str) -> None:
        target = self.waiting if self._finding_ahead() or not self.found else self.found[-1]
        self._modify(form=(*target.form, value))

    def _read_note(self, value: str) -> None:
        target = self.waiting if self._finding_ahead() or not self.found else self.found[-1]
        self._modify(notes=(*target.notes, value))
        self.found = [_nonspecific(finding) for finding in self.found]

    def _read_leads(self, word: str) -> None:
        if self.found:
            self._change(-1, leads=(*self.found[-1].leads, *leads_of(word)))
        else:
            self.waiting = replace(self.waiting, leads=(*self.waiting.leads, *leads_of(word)))

    # ----- what joins and parts ---------------------------------------------------------------------------------------

    def _read_or(self, value: str) -> None:
        self.joined = bool(self.found) and self._finding_ahead() is not None

    def _read_and(self, value: str) -> None:
        if value == "/":
            self._read_or(value)
        elif not self.listing:
            self._end_scope()

    def _read_boundary(self, value: str) -> None:
        if value != "with" or not self.listing:
            self._end_scope()

    def _read_separator(self, value: str) -> None:
        if value != "," or not self._list_goes_on():
            self._end_scope()
        self.clause = len(self.found)
        if value in ".;":
            self.sentence = self.clause

    def _list_goes_on(self) -> bool:
        """A comma with "or" behind it ends no list: "consider early repolarization, pericarditis, or injury"."""
        return self.listing and any(item.kind == "or" for item in self.items[self.at :])

    def _end_scope(self) -> None:
        """Certainty, negation and cause reach no further once a finding has taken them."""
        self.joined = False
        if self.found:
            self.listing = False
            self.waiting = replace(self.waiting, certainty="stated", negated=False, relation="")

    # ----- looking ahead, and changing --------------------------------------------------------------------------------

    def _next_kind(self) -> str:
        kinds = (item.kind for item in self.items[self.at + 1 :] if item.kind != "filler")
        return next(kinds, "")

    def _finding_ahead(self) -> Item | None:
        """The finding that the present modifier stands before, with nothing but other modifiers between; else None."""
        for item in self.items[self.at + 1 :]:
            if item.kind == "finding":
                return item
            if item.kind in ("separator", "boundary", "cause", "unknown", "rate", "leads"):
                return None
            if item.kind == "certainty" and self.items[self.at].kind != "certainty":
                return None
            if item.kind == "filler" and self.items[self.at].kind in ("territory", "age"):
                return None
        return None

    def _modify(self, **changes: object) -> None:
        """To the finding ahead, else to the one just read."""
        if self._finding_ahead() or not self.found:
            self.waiting = replace(self.waiting, **changes)
        else:
            self._change(-1, **changes)

    def _change(self, at: int, **changes: object) -> None:
        self.found[at] = replace(self.found[at], **changes)

    def _place(self, territory: str) -> None:
        """A territory behind its findings: "Abnormal T, consider ischemia, lateral leads"."""
        directly = self.items[self.at - 1].kind in ("filler", "finding")
        for at in range(min(self.sentence, len(self.found) - 1), len(self.found)):
            finding = self.found[at]
            if finding.group in PLACED_GROUPS and territory not in finding.territory:
                placed = replace(finding, territory=(*finding.territory, territory))
                by_name = finding.name == INFARCTION or directly
                self.found[at] = _in_their_territories(placed)[0] if by_name else placed


def _in_their_territories(finding: ParsedFinding) -> list[ParsedFinding]:
    """An infarct, ischemia or injury under the names of its territories, one each, where these have rows of their own.

    A name that holds a territory ("septal infarct") gets it as its territory.
    """
    base = next((name for name in TERRITORIAL if finding.name.endswith(name)), "")
    if not base:
        return [finding]
    own = finding.name.removesuffix(base).strip()
    if own in TERRITORIES:
        return [replace(finding, territory=tuple(dict.fromkeys((own, *finding.territory))))]
    if own:
        return [finding]
    places = [place for place in finding.territory if f"{place} {base}" in all_findings()]
    return [replace(finding, name=f"{place} {base}", territory=(place,)) for place in places] or [finding]


def _nonspecific(finding: ParsedFinding) -> ParsedFinding:
    """The word nonspecific, before or behind ST and T changes, is part of their names."""
    if "nonspecific" not in finding.notes or finding.name not in NONSPECIFIC:
        return finding
    notes = tuple(note for note in finding.notes if note != "nonspecific")
    return replace(finding, name=NONSPECIFIC[finding.name], notes=notes)
