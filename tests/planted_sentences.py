"""Sentences with known truth for tests of the checker: right ones as written and paraphrased, wrong ones planted.

Everything follows from a seed. The rules know the pages only as text; they share nothing with the checker.
"""

import hashlib
import random
import re
from dataclasses import dataclass

from datasets_scripts.cqa.knowledge import KnowledgePage, load_knowledge

LEAD = r"(?:aV[RLF]|V[1-9]R?(?:-V[1-9])?|III|II|I)"
LEAD_LIST = re.compile(rf"(?<![\w-]){LEAD}(?:(?:, | and | or |, and ){LEAD})*(?![\w'-])")
NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?= (ms|mV|bpm|degrees)\b)")
WAVE = re.compile(r"\b(?:ST|QRS|PR|QTc?|[PQRSTU])\b")
TERRITORIES = (
    ("II", "III", "aVF"), ("V1", "V2"), ("V1", "V2", "V3"), ("V2", "V3", "V4"), ("V4", "V5", "V6"), ("V5", "V6"),
    ("I", "aVL"), ("I", "aVL", "V5", "V6"), ("III", "aVF"), ("aVR",), ("V3",), ("aVL",), ("V6",), ("V1",), ("III",),
)  # fmt: skip
SYNONYMS = (
    (r"\bST elevation\b", "ST-segment elevation|elevation of the ST segment|elevated ST segments"),
    (r"\bST depression\b", "ST-segment depression|depression of the ST segment|depressed ST segments"),
    (r"\bT inversion\b", "T-wave inversion|inversion of the T wave|inverted T waves"),
    (r"\bwide QRS\b", "broad QRS|widened QRS"),
    (r"\bnarrow QRS\b", "QRS that is not broad|narrow QRS"),
    (r"\bQRS complexes\b", "ventricular complexes|QRS complexes"),
    (r"\binverted\b", "negative"), (r"\bupright\b", "positive"), (r"\bbroad\b", "wide"), (r"\bwide\b", "broad"),
    (r"\bR-R intervals\b", "RR intervals|intervals between successive QRS complexes"),
    (r"\bprecedes?\b", "comes before"), (r"\bshows\b", "demonstrates|is characterized by|displays"),
    (r"\bchest leads\b", "precordial leads"), (r"\blimb leads\b", "extremity leads"),
    (r"\bpathological\b", "significant|abnormal"), (r"\babsent\b", "missing|not visible"),
    (r"\bapproximately\b", "about"), (r"\bexceeds\b", "is greater than|is above"), (r"\bexceed\b", "are greater than"),
    (r"\bunder (?=\d)", "less than |below |shorter than "), (r"\babove (?=\d)", "more than |greater than |over "),
    (r"\bbpm\b", "beats per minute|beats/min|/min"), (r"\bcontiguous\b", "adjacent|neighbouring"),
    (r"\bpremature\b", "early"), (r"\bconstant\b", "fixed|stable"), (r"\birregular\b", "variable"),
    (r"\bslurred\b", "notched or slurred"), (r"\bsymmetric\b", "symmetrical"), (r"\bprominent\b", "large"),
    (r"\bIn the acute phase\b", "Acutely|During the acute stage"), (r"\bhidden\b", "buried"),
    (r"\btall\b", "high"), (r"\boften\b", "frequently|commonly"), (r"\bmostly\b", "usually|mainly"),
)  # fmt: skip
OPENINGS = ("On the ECG, ", "Typically, ", "In this condition, ", "On the 12-lead tracing, ", "Characteristically, ")


@dataclass(frozen=True)
class Sentence:
    """A sentence about a finding; `kind` is "right", "lead", "number" or "invented"."""

    finding: str
    kind: str
    text: str


def right_sentences(pages: dict[str, KnowledgePage], seed: int) -> list[Sentence]:
    """Every waveform sentence and criterion, as written or paraphrased."""
    rng = random.Random(seed)
    found = []
    for name, page in pages.items():
        for text in (*page.waveform, *(f"{criterion.text}." for criterion in page.criteria)):
            found.append(Sentence(name, "right", text if rng.random() < 0.2 else paraphrased(text, rng)))
    return found


def wrong_sentences(pages: dict[str, KnowledgePage], seed: int) -> list[Sentence]:
    """For each page a false lead, a false number and an invented finding where it has a sentence to plant it in."""
    rng = random.Random(seed)
    found = []
    for name, page in pages.items():
        for kind, plant in (("lead", _false_lead), ("number", _false_number)):
            planted = [text for sentence in page.waveform if (text := plant(sentence, page, rng))]
            if planted:
                text = rng.choice(planted)
                found.append(Sentence(name, kind, text if rng.random() < 0.4 else paraphrased(text, rng)))
        found.append(Sentence(name, "invented", _invented(page, pages, rng)))
    return found


def paraphrased(text: str, rng: random.Random) -> str:
    """Other words, units, lead lists, and sometimes another order; the meaning stays."""
    text = _reordered(text, rng)
    for pattern, choices in SYNONYMS:
        if rng.random() < 0.6:
            text = re.sub(pattern, rng.choice(choices.split("|")), text)
    for change in (_other_units, _other_bounds, _other_lead_lists):
        if rng.random() < 0.6:
            text = change(text, rng)
    if rng.random() < 0.4 and not text.startswith(OPENINGS) and not re.match(r"V\d|[A-Z]{2}|[a-z]?[A-Z]\b", text):
        text = rng.choice(OPENINGS) + text[0].lower() + text[1:]
    return text


def _reordered(text: str, rng: random.Random) -> str:
    """ "X in II and aVF." becomes "In II and aVF, X" where the sentence names leads once, at its end."""
    lists = list(LEAD_LIST.finditer(text))
    match = re.fullmatch(rf"([^,;:]+) in ({LEAD_LIST.pattern})\.", text)
    if match and len(lists) == 1 and rng.random() < 0.5 and not re.match(r"[A-Z]{2}|[A-Z] ", text):
        return f"In leads {match[2]}, {match[1][0].lower()}{match[1][1:]}."
    return text


def _other_units(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        text = re.sub(r"(?<![\w.-])(\d+) ms\b", lambda m: f"{int(m[1]) / 1000:g} s", text)
        return re.sub(r"(\d+) to 0\.(\d+) s\b", lambda m: f"0.{int(m[1]):03d}".rstrip("0") + f" to 0.{m[2]} s", text)
    if re.search(r"\d (?:to|and) \d+\.\d+ mV", text):
        return text
    return re.sub(r"(?<![\w.-])(\d+\.\d+) mV\b(?!·)", lambda m: f"{float(m[1]) * 10:g} mm", text)


def _other_bounds(text: str, rng: random.Random) -> str:
    text = re.sub(r"\bat least (\d+(?:\.\d+)? (?:ms|mV|mm|s))\b", rng.choice([r"\1 or more", r"≥ \1"]), text)
    return re.sub(r"(\d+(?:\.\d+)? (?:ms|s)) or more\b", rng.choice([r"at least \1", r"\1 or longer"]), text)


def _other_lead_lists(text: str, rng: random.Random) -> str:
    inferior = rng.choice(["the inferior leads II, III and aVF", "leads II, III, and aVF"])
    text = re.sub(r"\bII, III and aVF\b", inferior, text)
    if rng.random() < 0.5:
        return re.sub(r"\bV(\d)-V(\d)\b", r"V\1 to V\2", text)
    return re.sub(r"\bV(\d)-V(\d)\b", lambda m: ", ".join(f"V{n}" for n in range(int(m[1]), int(m[2]) + 1)), text)


def _leads(text: str) -> set[str]:
    found = set()
    for listed in LEAD_LIST.findall(text):
        for first, last in re.findall(r"V(\d)-V(\d)", listed):
            found |= {f"V{number}" for number in range(int(first), int(last) + 1)}
        found |= set(re.findall(LEAD, re.sub(r"V\d-V\d", "", listed)))
    return found


def _false_lead(sentence: str, page: KnowledgePage, rng: random.Random) -> str:
    """The sentence with other leads for one of its lists, of which one at least is nowhere given to its waves."""
    lists = list(LEAD_LIST.finditer(sentence))
    if not lists:
        return ""
    match = rng.choice(lists)
    waves = set(WAVE.findall(sentence))
    said = (*page.waveform, *(criterion.text for criterion in page.criteria))
    taken = set().union(_leads(sentence), *(_leads(text) for text in said if waves & set(WAVE.findall(text))))
    choices = [leads for leads in TERRITORIES if not set(leads) <= taken]
    if not choices or not waves:
        return ""
    leads = rng.choice(choices)
    listed = " and ".join(filter(None, (", ".join(leads[:-1]), leads[-1])))
    return sentence[: match.start()] + listed + sentence[match.end() :]


def _false_number(sentence: str, page: KnowledgePage, rng: random.Random) -> str:
    """The sentence with one of its numbers a quarter to a half off, and nowhere on the page."""
    matches = [match for match in NUMBER.finditer(sentence) if float(match[1])]
    if not matches:
        return ""
    match = rng.choice(matches)
    text = " ".join(page.sections.values())
    for factor in rng.sample([0.5, 0.6, 0.7, 0.75, 1.25, 1.3, 1.4, 1.5], 8):
        value = float(match[1]) * factor
        new = f"{value:.2f}".rstrip("0").rstrip(".") if match[2] == "mV" else f"{round(value / 5) * 5 or 5:g}"
        if float(new) != float(match[1]) and f"{new} {match[2]}" not in text and f"{new} to" not in text:
            return sentence[: match.start()] + new + sentence[match.end() :]
    return ""


def _invented(page: KnowledgePage, pages: dict[str, KnowledgePage], rng: random.Random) -> str:
    """A finding of another group that the page does not mention: by name, or by a sentence of its own page."""
    text = " ".join(page.sections.values()).lower()
    far = [
        other for name, other in pages.items()
        if other.group not in (page.group, "summary", "clinical") and name not in text
        and not set(name.split()) & set(page.name.split())
    ]  # fmt: skip
    other = rng.choice(far)
    if rng.random() < 0.5:
        return rng.choice(other.waveform)
    name = f"{'an' if other.name[0] in 'aeiou' else 'a'} {other.name}"
    text = rng.choice(["there is also {}.", "the tracing also shows {}.", "{} is present as well."]).format(name)
    return text[0].upper() + text[1:]


def pages_of_half(which: int) -> dict[str, KnowledgePage]:
    """One half of the pages: 0 was read while the checker was first written, 1 was not."""
    return {
        name: page for name, page in load_knowledge().items() if hashlib.sha256(name.encode()).digest()[0] % 2 == which
    }
