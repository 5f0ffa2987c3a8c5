"""A sentence cut into what an ECG description is made of: waves, what is said of them, leads, numbers, and the rest.

The text is first brought to one form (`plain_form`). Leads, lead groups, ratios and numbers are found by patterns,
waves and poles by the phrases of `ecg_terms.py`, the longest first. What the items say together is read in `claims.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from datasets_scripts.cqa.ecg_terms import ALTERNATIVES, EMPTY, LEAD_GROUPS, NEGATIONS, NUMERALS, POLES, SAME, WAVES
from datasets_scripts.cqa.measures import QUANTITY, RATIO, measure_of, numerals_as_digits

_ATOM = (
    r"(?:v\s?[1-9]r?(?:\s*-\s*v?\s?[1-9]r?|\s+(?:to|through|thru|up to)\s+v\s?[1-9]r?)?(?!\w)|av[rlf](?!\w)"
    r"|(?<!type )(?<!mobitz )(?<!class )(?<!grade )(?<!degree )(?<!kind )(?:iii|ii|i)(?![\w'.]\w|\w))"
)
_JOIN = r"\s*(?:,?\s*(?:and|or|plus|as well as|to|&|and/or)\s+|,|/|\+|&)\s*(?:(?:in|also in|lead|leads|from|both)\s+)*"
_LEADS = re.compile(rf"(?<![\w'])(?:leads? )?{_ATOM}(?:{_JOIN}{_ATOM})*")
_RANGE = re.compile(r"v\s?([1-9])(r?)\s*(?:-|to|through|thru|up to)\s*v?\s?([1-9])")
_SINGLE = re.compile(r"v\s?[1-9]r?|av[rlf]|iii|ii|i")
_LEAD_NAMES = {"avr": "aVR", "avl": "aVL", "avf": "aVF", "i": "I", "ii": "II", "iii": "III"}
_GROUP = "|".join(sorted(LEAD_GROUPS, key=len, reverse=True))
_GROUPS = re.compile(
    rf"\b(?:{_GROUP})(?:(?:\s*,\s*|\s*/\s*|,?\s+(?:and|or)\s+)(?:the )?(?:{_GROUP}))*"
    r"\s+(?:wall )?(?:leads?|derivations?)\b"
    rf"|\b(?:inferiorly|anteriorly|laterally)\b|\bleads? (?:of|over|facing) the (?:{_GROUP}) wall\b"
)
_PLACES = (
    r"inferior|lateral|high lateral|anterior|septal(?! [qr]\b)|anteroseptal|anterolateral|inferolateral"
    r"|inferoposterior|posterior"
)
_PLACED = re.compile(
    rf"\b({_PLACES})(?=(?: (?:deep|symmetric|horizontal|downsloping|slight|marked|inverted|tall|pathological))*"
    r" (?:st|stt|[qrt])(?: segments?| waves?)*(?: elevation| depression| inversion| changes?| abnormalit|s?\b))"
)
_GROUP_NAME = re.compile(rf"\b(?:{_GROUP})\b")
EVERY_LEAD = re.compile(r"\b(?:all|every|each|any)(?: of the| the)?(?: (?:12|twelve))? leads?\b|\ball twelve\b")
_GAP = (
    r"(?:distance|interval|spacing|time|gap|space)s? (?:between|from|separating) (?:the |two |each )*"
    r"(?:successive |consecutive |adjacent |neighbou?ring |sinus |onset of (?:the )?)*"
)
_REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[\ue000-\uf8ff]", " "), (r"[\u2010-\u2015\u2212]", "-"), (r"[\u2018\u2019\u2032\u0060\u00b4]", "'"),
        (r"\u00b0(?! ?c\b)", " degrees "), (r"\u2265|>=", " at least "), (r"\u2264|<=", " at most "),
        (r"[\u2248~]", " about "), (r"[\u00b5\u03bc]v", "uv"),
        (r"\b(?:i\. ?e|e\. ?g)\.?(?=\W)", ","), (r"\b12[- ]lead\b", "ecg"),
        (r"\br[ -]r(?=\W)", "rr"), (r"\bp[ -]p(?=\W)", "pp"), (r"\bp[ -]r(?=\W)", "pr"),
        (r"\bq[ -]t(?=\W|c)", "qt"), (r"\br[ -]p(?=\W)", "rp"), (r"\bst[-/]t\b", "stt"), (r"\bst and t wave", "stt"),
        (r"\b(re|pre)-(?=ent|exc|pol)", r"\1"), (r"\bnon-", "non"), (r"(?<=[a-z])-(?=[a-z])", " "),
        (r"\b(\w+)n't\b", r"\1n not"), (r"'s\b", ""), (r"\brsr (?:prime|')", "rsr'"), (r"\bcannot\b", "can not"),
        (r"(polar|general|local|normal|character|recogn|organ|minim|synchron)is(?=(?:ations?|ed|es?|ing)\b)", r"\1iz"),
        (r"\bearly repolarization", "earlyrepolarization"),  # a finding, not a T wave that is early
        (r"\bwithout warning\b", "suddenly"),
        (r"\brais(?:es?|ed|ing) (?:(?:the|a) )?(?=suspicion|possibility|question)", "suggests "),
        (r"(?<=[a-z])aem(?=[io])", "em"), (r"\bfavour", "favor"), (r"\bone in (?:two|three|four)(?: or \w+)?", "some"),
        (r"\blevel of the (pr|tp) segment", r"\1 level"),
        (r"\batrioventricular\b", "av"), (r"\b(atria|ventricle)s\b", r"\1"), (r"\bper cent\b", "%"),
        (r"\bm[vV]\s?[·.*x]\s?ms\b|\bmillivolt milliseconds?\b", "mv.ms"), (r"\bmm\s?[·.*x]\s?s\b", "mm.s"),
        (r"\b(?:does|do|did) not exceed", "not exceed"),
        (r"\b(?:type|mobitz) (?:1|i)\b", "typeone"), (r"\b(?:type|mobitz) (?:2|ii)\b", "typetwo"),
        (rf"\b{_GAP}(?:r waves|rs|qrs complexes|beats|ventricular \w+|r peaks|heartbeats)\b", "rr interval"),
        (rf"\b{_GAP}p waves\b", "pp interval"), (r"\b(?:instead|in place|in lieu) of\b", "without"),
        (r"\b(rr|pp|pr) (intervals?) (?:that |which )?(?:differ|change)s?\b", r"\1 \2 vary"),
        (r"\b(?:differ|change)s? (?=from beat to beat)", "vary "),
        (rf"\b{_GAP}(?:onset of )?(?:the )?p wave(?: onset)? (?:and|to) (?:the )?(?:onset of )?(?:the )?qrs\b",
         "pr interval"),
    )
)  # fmt: skip
_TOKEN = re.compile(r"[\ue000-\uf8ff]|r/s|[^\W\d_]+'?|\d+|[,;:().]")
_FIRST_MARK, _MOST_MARKS = 0xE000, 6000  # characters for private use, which no plain text has
_COUNTED = frozenset("beat complex qrs shape morphology form spike hump peak wave".split())
_NOT_NEGATING = frozenset("only every all always necessarily each just".split())


@dataclass(frozen=True)
class Item:
    """One item: `kind` is wave, pole, leads, group, measure, ratio, not, break, and, comma or word.

    `value` is what it stands for: a wave's name, axis and end of a pole, leads, a `Measure`, else the word. `text` are
    the words of a wave or pole.
    """

    kind: str
    value: object
    text: str = ""


def plain_form(text: str) -> str:
    """Lower case, one kind of dash and of prime, hyphens opened, `R-R` as `rr`: the text that is read."""
    text = f" {' '.join(text.split())} ".lower()
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return numerals_as_digits(" ".join(text.split()))


def tokens_of(plain: str) -> tuple[list[str], dict[str, Item]]:
    """The words, signs and marks of a plain text, and what the marks stand for."""
    marked, marks = marked_text(EVERY_LEAD.sub("ecg", plain))
    return _TOKEN.findall(marked), marks


def content_words(words: list[str]) -> list[str]:
    """The words that say something, each in the form that stands for all with its meaning."""
    return [_stem(SAME.get(word, word)) for word in words if word not in EMPTY and (len(word) > 1 or word in "pqrstuj")]


def choices_of(words: list[str]) -> Iterator[tuple[str, str]]:
    """Words in whose place another could stand (left, right), each with the next word that says something."""
    for at, word in enumerate(words):
        if word in NUMERALS:
            yield word, next((_stem(SAME.get(noun, noun)) for noun in words[at + 1 : at + 7] if noun in _COUNTED), "")
        elif word in ALTERNATIVES:
            following = next((other for other in words[at + 1 : at + 4] if content_words([other])), "")
            yield word, "".join(content_words([following])) if following not in ALTERNATIVES else ""


@lru_cache(maxsize=256)
def words_of_pole(axis: str, end: str) -> frozenset[str]:
    """The forms, as in `Reading.words`, of all words for one end of an axis."""
    words = [word for phrase, pole in POLES.items() if pole == (axis, end) for word in phrase.split()]
    return frozenset(content_words(words))


def singular(word: str) -> str:
    """A word without its plural or third-person ending."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]


def _stem(word: str) -> str:
    for ending in ("ically", "ation", "ingly", "ing", "edly", "ed", "ally", "ly", "al", "ity", "ion", "ic", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


# ----- items ----------------------------------------------------------------------------------------------------------


def marked_text(text: str) -> tuple[str, dict[str, Item]]:
    """The text with leads, lead groups, ratios and measures each as one character, and what these stand for."""
    marks: dict[str, Item] = {}

    def put(kind: str, value: object) -> str:
        if len(marks) >= _MOST_MARKS:
            return " "
        character = chr(_FIRST_MARK + len(marks))
        marks[character] = Item(kind, value)
        return f" {character} "

    text = _LEADS.sub(lambda match: put("leads", _lead_names(match[0])), text)
    text = _GROUPS.sub(lambda match: put("group", tuple(_GROUP_NAME.findall(match[0]))), text)
    text = _PLACED.sub(lambda match: put("group", (match[1],)), text)
    text = RATIO.sub(lambda match: put("ratio", _ratio(match)), text)
    return QUANTITY.sub(lambda match: put("measure", measure_of(match)), text), marks


def _ratio(match: re.Match[str]) -> str:
    digits = {"two": "2", "three": "3", "four": "4", "five": "5", "one": "1"}
    first, second = (match[1], match[2]) if match[1] else (match[3], match[4])
    return f"{digits.get(first, first)}:{digits.get(second, second)}"


def _lead_names(text: str) -> tuple[str, ...]:
    names: list[str] = []

    def spell_out(match: re.Match[str]) -> str:
        names.extend(f"V{number}{match[2].upper()}" for number in range(int(match[1]), int(match[3]) + 1))
        return " "

    rest = _RANGE.sub(spell_out, text)
    for name in _SINGLE.findall(rest):
        name = name.replace(" ", "")
        names.append(_LEAD_NAMES.get(name, name.upper()))
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=1)
def _phrases() -> Mapping[str, tuple[tuple[tuple[str, ...], Item], ...]]:
    """Waves and poles by their first word, the longest phrase first."""
    by_word: dict[str, list[tuple[tuple[str, ...], Item]]] = {}
    for kind, table in (("wave", WAVES), ("pole", POLES)):
        for phrase, value in table.items():
            words = tuple(phrase.split())
            by_word.setdefault(words[0], []).append((words, Item(kind, value, phrase)))
    return MappingProxyType(
        {word: tuple(sorted(entries, key=lambda entry: -len(entry[0]))) for word, entries in by_word.items()}
    )


def items_of(tokens: list[str], marks: Mapping[str, Item]) -> list[Item]:
    """The items of a sentence in their order."""
    words = [singular(token) for token in tokens]
    items: list[Item] = []
    at = 0
    while at < len(words):
        item, length = _item_at(tokens, words, at, marks)
        items.append(item)
        at += length
    return items


def _item_at(tokens: list[str], words: list[str], at: int, marks: Mapping[str, Item]) -> tuple[Item, int]:
    word = words[at]
    if word in marks:
        return marks[word], 1
    if word in ",()":
        return Item("comma", word), 1
    if word in ";:.":
        return Item("break", word), 1
    for source in (words, tokens):
        for phrase, item in _phrases().get(source[at], ()):
            if tuple(source[at : at + len(phrase)]) == phrase:
                return item, len(phrase)
    if word in ("and", "or"):
        return Item("and", word), 1
    if word in NEGATIONS and not (at + 1 < len(words) and words[at + 1] in _NOT_NEGATING):
        return Item("not", word), 1
    return Item("word", word), 1
