"""Findings in a text: a small matcher over the phrases of labels, to be read in a minute and trusted no further.

Rules, in this order:

1. Text and phrases are made plain: no letter case, hyphens and punctuation are spaces, a plural s is dropped.
2. A label's phrases are those it is prompted with, what `SYNONYMS` knows as their other wordings, and no more.
3. The longest phrase counts where several cover a place: "incomplete left bundle branch block" is that, and not a left
   bundle branch block too, where both are labels.
4. A phrase does not count behind "incomplete", unless that belongs to it, nor behind a denial ("no", "not", "without",
   "absence of", "negative for", "free of", "kein", "ohne"), which reaches to the next comma, colon, full stop or "but".

Doubt ("possible", "cannot be excluded") counts as said. How far to trust it on a data set, the matcher's score on the
true reports says, which stands beside every result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Wordings of one finding, English and (PTB-XL's reports) German.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("normal ECG", "normal electrocardiogram", "ECG within normal limits", "ECG is normal", "unremarkable ECG",
     "normales EKG"),
    ("sinus rhythm", "rhythm is sinus", "Sinusrhythmus"),
    ("sinus tachycardia", "tachycardia of sinus origin", "Sinustachykardie"),
    ("sinus bradycardia", "bradycardia of sinus origin", "Sinusbradykardie"),
    ("sinus arrhythmia", "Sinusarrhythmie"),
    ("atrial fibrillation", "AFib", "Vorhofflimmern"),
    ("atrial flutter", "AFlut", "Vorhofflattern"),
    ("left bundle branch block", "complete left bundle branch block", "LBBB", "CLBBB", "Linksschenkelblock"),
    ("right bundle branch block", "complete right bundle branch block", "RBBB", "CRBBB", "Rechtsschenkelblock"),
    ("incomplete right bundle branch block", "IRBBB", "unvollständiger Rechtsschenkelblock"),
    ("incomplete left bundle branch block", "ILBBB", "unvollständiger Linksschenkelblock"),
    ("left anterior fascicular block", "left anterior hemiblock", "LAFB", "linksanteriorer Hemiblock"),
    ("left posterior fascicular block", "left posterior hemiblock", "LPFB", "linksposteriorer Hemiblock"),
    ("first degree AV block", "first degree atrioventricular block", "1st degree AV block", "A-V Block I"),
    ("second degree AV block", "second degree atrioventricular block", "2nd degree AV block", "A-V Block II"),
    ("third degree AV block", "complete AV block", "complete heart block", "3rd degree AV block", "A-V Block III"),
    ("left ventricular hypertrophy", "LVH", "Linkshypertrophie"),
    ("right ventricular hypertrophy", "RVH", "Rechtshypertrophie"),
    ("myocardial infarction", "myocardial infarct", "Infarkt"),
    ("inferior myocardial infarction", "inferiorer Infarkt", "old inferior infarct"),
    ("anterior myocardial infarction", "anteriorer Infarkt"),
    ("anteroseptal myocardial infarction", "anteroseptaler Infarkt"),
    ("anterolateral myocardial infarction", "anterolateraler Infarkt"),
    ("inferolateral myocardial infarction", "inferolateraler Infarkt"),
    ("premature ventricular contractions", "premature ventricular complexes", "premature ventricular beats",
     "ventricular premature beats", "ventricular premature complexes", "ventricular ectopic beats",
     "ventricular extrasystoles", "PVC", "ventrikuläre Extrasystole"),
    ("premature atrial contractions", "premature atrial complexes", "premature atrial beats", "atrial premature beats",
     "atrial premature complexes", "atrial extrasystoles", "PAC", "supraventrikuläre Extrasystole"),
    ("long QT interval", "prolonged QT interval", "QT prolongation", "prolonged QT", "verlängertes QT"),
    ("low voltage", "low QRS voltage", "low QRS voltages", "low voltage QRS", "Niederspannung"),
    ("left axis deviation", "leftward deviation of the QRS axis", "leftward axis"),
    ("right axis deviation", "rightward deviation of the QRS axis", "rightward axis"),
    ("T wave inversion", "inverted T waves", "T inversion", "T waves are inverted"),
    ("low amplitude T-waves", "T waves are low"),
    ("non-specific ST depression", "ST segments are depressed", "ST-Senkung"),
    ("abnormal QRS", "QRS(T) abnorm"),
    ("inferior ST elevation", "ST elevation in the inferior leads", "ST segment elevation in the inferior leads",
     "ST elevation in II, III and aVF"),
    ("anterior ST elevation", "ST elevation in the anterior leads", "ST segment elevation in the anterior leads",
     "ST elevation in V1 to V4"),
    ("ventricular pacing", "ventricular paced complexes", "ventricular paced rhythm", "ventricular pacemaker"),
)  # fmt: skip
_DENIALS = re.compile(r"\b(?:no|not|without|absence of|negative for|free of|kein|keine|ohne)\b")
_DENIAL_ENDS = re.compile(r"[.,;:\n]|\b(?:but|aber)\b")
_TEMPLATE = re.compile(r"^.*?ECG Findings:\s*", re.DOTALL)


@dataclass(frozen=True)
class LabelMatcher:
    """Finds labels in texts; made by `from_prompts`.

    >>> matcher = LabelMatcher.from_prompts({"LBBB": ["left bundle branch block"], "PVC": ["PVC"]})
    >>> matcher.find("Complete left bundle-branch block, no ventricular extrasystoles.")
    frozenset({'LBBB'})
    """

    labels: tuple[str, ...]
    phrases: Mapping[str, frozenset[str]]
    """Labels of each plain phrase, the longest first."""

    @classmethod
    def from_prompts(
        cls, prompts: Mapping[str, str | Iterable[str]], synonyms: Sequence[Sequence[str]] = SYNONYMS
    ) -> LabelMatcher:
        """From the texts that describe each label (`ECG Findings: atrial fibrillation.`, or plain phrases).

        Raises ValueError for no labels.
        """
        if not prompts:
            raise ValueError("prompts: expected texts for at least one label, got none.")
        groups = [frozenset(map(plain_text, wordings)) for wordings in synonyms]
        labels_of: dict[str, set[str]] = {}
        for label, texts in prompts.items():
            for text in [texts] if isinstance(texts, str) else texts:
                phrase = plain_text(_TEMPLATE.sub("", text))
                same = [group for group in groups if phrase in group]
                for wording in frozenset([phrase]).union(*same) - {""}:
                    labels_of.setdefault(wording, set()).add(label)
        longest_first = sorted(labels_of, key=lambda phrase: (-len(phrase.split()), phrase))
        return cls(tuple(prompts), {phrase: frozenset(labels_of[phrase]) for phrase in longest_first})

    def find(self, text: str) -> frozenset[str]:
        """The labels that a text says."""
        found: set[str] = set()
        for clause in _affirmed(text):
            for phrase, labels in self.phrases.items():
                if phrase not in clause:
                    continue
                pattern = rf"(?<!\bincomplete )\b{re.escape(phrase)}\b"
                clause, count = re.subn(pattern, "|", clause)  # covered: a shorter phrase does not count here too
                if count:
                    found |= labels
        return frozenset(found)


def plain_text(text: str) -> str:
    """Words without case, punctuation and the ending of a plural, one space between.

    >>> plain_text("First-degree AV blocks; complexes.")
    'first degree av block complex'
    """
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(map(_singular, words))


def _singular(word: str) -> str:
    """Not grammar: only the same for a text and a phrase."""
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def _affirmed(text: str) -> list[str]:
    """The parts of a text that nothing denies, plain. A part ends where a denial could; phrases may run over commas."""
    kept, rest = [], text.casefold()
    while denial := _DENIALS.search(rest):
        kept.append(rest[: denial.start()])
        end = _DENIAL_ENDS.search(rest, denial.end())
        rest = rest[end.end() :] if end else ""
    sentences = [sentence for part in (*kept, rest) for sentence in re.split(r"[.;\n]", part)]
    return [plain_text(sentence) for sentence in sentences]
