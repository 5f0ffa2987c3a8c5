"""What a question asks: about which findings, which sections of their pages answer it, and what else it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from datasets_scripts.cqa.abbreviations import terms_of
from datasets_scripts.cqa.retriever import STOP_WORDS, Query, is_sign, read_query

# section -> what asks for it
_ASKED_BY: dict[str, str] = {
    "Mimics": r"mimic\w*|differential\w*|differentiat\w*|distinguish\w*|confus\w*|mistak\w*|look-?alikes?"
    r"|differ(?:s|ence|ences|ent)?\b|versus|vs\b",
    "Urgency": r"urgen\w*|emergen\w*|danger\w*|serious\w*|immediate\w*|how soon|life-?threaten\w*|benign|harmless"
    r"|worr\w*|alarm\w*|act on",
    "Criteria": r"criteri\w*|diagnos\w*|threshold\w*|cut-?offs?|limits?\b|values?\b|measure\w*"
    r"|how (?:long|wide|broad|many|much|high|tall|deep|fast|slow|big|short|large)"
    r"|(?:at |in |above |below )?(?:which|what) (?:leads?|voltages?|rates?|amplitudes?|durations?)",
    "Waveform": r"seen?\b|looks?(?: like)?\b|appear\w*|recogni[sz]\w*|identif\w*|shows?\b|shown\b|describ\w*"
    r"|features?\b|signs?\b|waveforms?\b|morpholog\w*|shapes?\b|pictures?\b|spot\b|characteristic\w*",
    "Definition": r"what (?:is|are)|what does|defin\w*|means?\b|meaning|stands? for|explain\w*|why|mechanism\w*",
}
_ASKS = {section: re.compile(rf"\b(?:{pattern})", re.IGNORECASE) for section, pattern in _ASKED_BY.items()}
BY_DEFAULT = ("Definition", "Waveform")
COMPARED = ("Waveform", "Mimics")  # "Mobitz I versus Mobitz II"
# words that a passage need not say to answer
_GENERIC = frozenset(
    "ecg tracing finding patient typical typically normally usually please tell give know say old new must a i".split()
)


@dataclass(frozen=True)
class Question:
    """A question: `sections` answer it, `is_explicit` if its words name them; `rest` are the words left over.

    >>> question = read_question("How urgent is Wenckebach in athletes?")
    >>> question.findings, question.sections, question.rest
    (('mobitz type i second degree av block',), ('Urgency',), ('athlete',))
    """

    query: Query
    sections: tuple[str, ...]
    is_explicit: bool
    rest: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that it names, in order."""
        return self.query.findings

    @property
    def is_about_findings(self) -> bool:
        """Whether it asks about findings that it names; otherwise it describes something by its signs."""
        return bool(self.findings) and (not self.rest or not all(is_sign(name) for name in self.findings))


def read_question(text: str) -> Question:
    """Reads any text; never raises."""
    query = read_query(text)
    sections = tuple(section for section, asks in _ASKS.items() if section != "Definition" and asks.search(text))
    if len(query.findings) > 1 and sections == ("Mimics",):
        sections = COMPARED
    plain = text
    for asks in _ASKS.values():
        plain = asks.sub(" ", plain)
    named = terms_of(text).named.union(*(terms_of(name).words for name in query.findings))
    words = dict.fromkeys(terms_of(plain).words)
    rest = tuple(word for word in words if word not in named | STOP_WORDS | _GENERIC)
    return Question(query, sections or BY_DEFAULT, bool(sections), rest)
