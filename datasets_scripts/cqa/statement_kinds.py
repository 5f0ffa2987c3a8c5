"""Lines that name no finding: about the recording (quality), the interpretation (administrative), the whole (summary).

A cue counts only where nothing else in the line is a finding: "Sinus rhythm, poor data quality" stays a finding.
"""

from __future__ import annotations

import re
from functools import lru_cache

KINDS = ("quality", "summary", "administrative")

# each cue with what it takes along, so that no part of it is read as a finding; on lower-case text without asterisks
_QUALITY = (
    r"(?:lead|electrode|cable)(?:s|\(s\))? (?:is |are |was |were )?(?:un|not )suitable for analysis.*",
    r"(?:recording|tracing|ecg|data|signal) (?:is )?unsuitable for (?:analysis|interpretation)(?:.*repeat)?",
    r"technically (?:unsatisfactory|inadequate|poor|difficult|limited)(?: tracing| ecg| recording)?",
    r"(?:possible )?(?:measurement|analysis|recording|lead|acquisition|computation) error.*",
    r"(?:warning ?:? ?)?(?:poor )?data quality.*",
    r"poor (?:signal |tracing |ecg |recording |baseline )?quality.*|interpretation (?:\w+ )?limited by.*",
    r"quality (?:of (?:the )?(?:ecg|tracing|data|recording))? .*interpretation.*",
    r"(?<!pacemaker )(?<!pacing )(?:muscle |motion |movement |baseline |ac |somatic )?art[ei]fact.*",
    r"baseline (?:wander|drift|sway|shift|artifact|instability).*",
    r"wandering baseline.*",
    r"(?:partial(?:ly)? )?missing (?:lead|data|electrode|signal).*",
    r"(?:lead|electrode)s?(?:\(s\))? .*(?:missing|disconnected|off|not connected|failed)\b.*",
    r"(?:possible )?(?:lead )?sequence error.*",
    r"(?:possible |suspect(?:ed)? )?faulty .*",
    r"omitted from analysis",
    r"(?:lead|electrode)s?(?:\(s\))? .*(?:not (?:been )?(?:used|analy[sz]ed)|excluded|omitted).*",
    r"(?:possible |probable |suspect(?:ed)? |suggests? |consider |apparent )*(?:\w+ )?(?:arm|limb|leg|chest"
    r"|precordial|v|la|ra)?[ /-]*"
    r"(?:lead|electrode|cable)s? (?:reversal|misplacement|interchange|switch|mis-?placed|reversed|placement).*",
    r"repeat with .*",
    r"(?:incomplete|limited|partial) analysis.*",
    r"(?:only|no) lead(?:s|\(s\))? .*analy[sz]ed.*",
    r"(?:possible )?electronic simulator.*|similar qrs in .* leads.*",
    r"(?:complex qrs morphology|all leads flat)?\W*\bno (?:further )?(?:\w+ )?(?:analysis"
    r"|interpretation)(?: (?:attempted|possible|made|performed))?",
    r"pace[rm]\w* detection .*",
    r"(?:external |electrical |excessive |muscle |high )?noise\b.*",
    r"(?:muscle|somatic) tremor.*|(?:ac|power ?line|electrical) interference.*|\b(?:50|60) ?hz\b.*",
    r"(?:cannot|unable to|could not) (?:be )?(?:analy[sz]ed?|interpret\w*|measure\w*|detect\w*).*",
    r"(?:please )?repeat (?:the )?(?:ecg|tracing|recording)\b.*|please repeat|check (?:data|leads?|electrodes?)",
    r"(?:gain|calibration|standardi[sz]ation) .*|(?:half|double) standard.*",
    r"(?:interpretation|analysis|measurements?) (?:may|might|could) be (?:affected|unreliable|inaccurate|impaired).*",
    r"(?:the )?report (?:below|above).*",
    r"(?:no|insufficient|invalid) (?:ecg |lead )?(?:signal|data|qrs(?: complexes)? detected|waveform)\b.*",
    r"\bnot (?:enough|sufficient) [^,]*(?:data|measured).*?(?=,|$)",
)
_ADMINISTRATIVE = (
    r"^.*\bwithout (?:knowing|knowledge|knowlege|the knowledge|known|benefit|information).*",
    r"un ?-?confirmed.*|not confirmed.*|\bconfirmed\b.*",
    r"^.*(?:pediatric|paediatric|adult|infant|neonatal) (?:criteria|ecg|analysis|interpretation|report).*",
    r"^(?:age|gender|sex)(?: ?(?:and|or|/|&) ?(?:age|gender|sex))? (?:not |un|assumed|specific).*",
    r"^(?:no|missing|unknown|invalid|unspecified) (?:patient )?(?:age|gender|sex|date of birth).*",
    r"interpretation (?:made|based|assumes|is|done|performed|by|without).*",
    r"(?:report|analysis|diagnosis|statements?) (?:made|based|assumes|performed|generated).*",
    r"(?:physician|cardiologist|clinician)\b.*|(?:over|re)-?read.*|edited by.*|referred by.*|reviewed by.*",
    r"(?:computer|automated|machine|preliminary) (?:interpretation|analysis|report|reading|generated).*",
    r"(?:please )?(?:interpret|correlate|review)\b.*|clinical correlation.*|review (?:advised|recommended|suggested"
    r"|needed)",
    r"(?:when )?compared (?:with|to) [^,]*(?:ecg|tracing|recording)[^,]*,?",
    r"(?:since |no )?(?:the )?(?:previous|prior|earlier|last) (?:ecg|tracing|recording|ecgs|tracings)\b[^,]*",
    r"electronically signed.*|(?:recording|paper|chart) speed.*",
    r"(?:standard )?(?:12|15|18|single|six)[ -]?lead (?:ecg|electrocardiogram).*|(?:stress|rhythm) (?:test|strip)\b.*",
    r"(?:see|refer to|call|notify|contact) .*|critical (?:test )?(?:result|value)s?|stat\b.*|test (?:ecg|record"
    r"|patient).*",
    r"(?:technician|technologist|nurse)\b.*|(?:test )?(?:reason|indication)(?: for \w+)? ?[:-].*",
    r"questionable change in .*|(?:significant )?changes? (?:has|have) occurred.*|preclude.* comparison.*",
    r"^(?:vent\w*\.? rate|(?:heart )?rate|qtc?|pr|qrs (?:axis|duration)) (?:has|have) "
    r"(?:increased|decreased|lengthened|shortened|changed|shifted).*",
    r"serial (?:comparison|ecg).*|serial changes(?: of| in)?",
    r"no (?:significant )?change(?:s)? (?:was|were|from|since|in|has|have)\b.*",
    r"^no (?:significant )?changes?$|suggests? recording .*|recording .* recommended.*",
    r"^(?:p|pr|qrs|qt|qtc|rr|t|vent\w* rate|heart rate|rate)(?: interval| duration| axis)?s? ?[:=]? ?-?\d[^,;]*",
)
_SUMMARY = (
    r"summary\b.*",
    r"(?:otherwise|probabl[ey]|possibly|essentially|borderline|nearly|apparently)? ?"
    r"(?:abnormal|borderline|atypical|unusual|otherwise normal|borderline normal|normal or borderline|"
    r"(?:abnormal|borderline)[ /-]+(?:abnormal|borderline|normal)) (?:rhythm )?(?:ecg|ekg|electrocardiogram|tracing"
    r"|record|report).*",
    r"normal (?:ecg|ekg|electrocardiogram|tracing),? (?:except|apart|other than|but)(?: for)?(?: (?:the )?(?:rate"
    r"|rhythm|axis)$)?",
    r"(?:is |are )?within normal limits.*|outside (?:of )?normal limits.*|normal limits.*",
    r"(?:no|without) (?:significant |definite |other |further |diagnostic )?(?:abnormalit\w+|pathology|findings)\b.*",
    r"^(?:borderline )?(?:ab)?normal for (?:age|sex|gender).*|^normal variant.*",
    r"regard as .*",
    r"^(?:ab)?normal$|^borderline$",
    r"interpret together with clinical data",
)
# remarks on the lines before them, which name nothing themselves; only for what has no other cue
_REMARK = (
    r"(?:these |such |the |above |those )?(?:changes?|findings?|abnormalit\w+|this|these)\b.*",
    r".*\bleads? (?:are|is) (?:also )?involved",
    r".*\b(?:as above|may be normal|normal variant|clinical (?:findings|data))\b.*",
)  # fmt: skip
_TABLES = {"quality": _QUALITY, "summary": _SUMMARY, "administrative": _ADMINISTRATIVE}


_CLAUSE_END = re.compile(r"(?<=[.;])\s+|(?<=\w\.)(?=[a-z]{4})")


@lru_cache(maxsize=1)
def _cues() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, re.compile(rf"(?<!\w)(?:{cue})")) for kind in KINDS for cue in _TABLES[kind])


@lru_cache(maxsize=1)
def _any_cue() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(cue for kind in KINDS for cue in _TABLES[kind])})")


@lru_cache(maxsize=1)
def _remarks() -> re.Pattern[str]:
    return re.compile("|".join(_REMARK))


def plain_text(text: str) -> str:
    """Lower case, without asterisks and quotes, single spaces: what the cues are written for."""
    return re.sub(r"[\s*_!\"]+", " ", text.casefold().replace("\u2019", "'")).strip(" .-")


def without_cues(text: str) -> tuple[str, str]:
    """`(kind, rest)`: the kind of the cues in a plain text (empty if none), and the text without them.

    Where there are several kinds, the first of `KINDS` is told.
    """
    kinds: set[str] = set()
    rest: list[str] = []
    for clause in _CLAUSE_END.split(text):
        if _any_cue().search(clause):
            clause = _without_cues(clause, kinds)
        rest.append(clause)
    return next((kind for kind in KINDS if kind in kinds), ""), " ".join(rest).strip()


def _without_cues(clause: str, kinds: set[str]) -> str:
    for kind, cue in _cues():
        clause, count = cue.subn(" ", clause)
        if count:
            kinds.add(kind)
    return clause.strip()


def is_remark(text: str) -> bool:
    """Whether a plain text speaks of the lines before it ("Changes may be due partly to rate/rhythm")."""
    return _remarks().fullmatch(text) is not None
