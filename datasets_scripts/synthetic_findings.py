"""What the synthetic corpus can show: its findings, which of them may stand together, and how a report says them.

A finding is in the signal exactly when its name is among a record's `statements`; `synthetic_beats.py` draws it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

SINUS_RHYTHM = "sinus rhythm"
SINUS_TACHYCARDIA = "sinus tachycardia"
SINUS_BRADYCARDIA = "sinus bradycardia"
ATRIAL_FIBRILLATION = "atrial fibrillation"
FIRST_DEGREE_BLOCK = "first-degree AV block"
LEFT_BUNDLE_BLOCK = "left bundle branch block"
RIGHT_BUNDLE_BLOCK = "right bundle branch block"
HYPERTROPHY = "left ventricular hypertrophy"
INFERIOR_ST = "inferior ST elevation"
ANTERIOR_ST = "anterior ST elevation"
T_INVERSION = "T wave inversion"
LEFT_AXIS = "left axis deviation"
PREMATURE_BEATS = "premature ventricular beats"
LONG_QT = "long QT interval"
LOW_VOLTAGE = "low voltage"
PACING = "ventricular pacing"
NORMAL = "normal ECG"

RHYTHMS = (SINUS_RHYTHM, SINUS_TACHYCARDIA, SINUS_BRADYCARDIA, ATRIAL_FIBRILLATION)
WIDE_QRS = (LEFT_BUNDLE_BLOCK, RIGHT_BUNDLE_BLOCK, PACING)

# Each finding with its wordings: the words of a report, of which one is drawn. None of them denies another finding.
WORDINGS: dict[str, tuple[str, ...]] = {
    SINUS_RHYTHM: ("Sinus rhythm", "Rhythm is sinus", "Underlying sinus rhythm"),
    SINUS_TACHYCARDIA: ("Sinus tachycardia", "Rapid sinus rhythm, sinus tachycardia", "Tachycardia of sinus origin"),
    SINUS_BRADYCARDIA: ("Sinus bradycardia", "Slow sinus rhythm, sinus bradycardia", "Bradycardia of sinus origin"),
    ATRIAL_FIBRILLATION: (
        "Atrial fibrillation",
        "Atrial fibrillation with irregular ventricular response",
        "Rhythm is atrial fibrillation",
    ),
    FIRST_DEGREE_BLOCK: (
        "First-degree AV block",
        "First degree atrioventricular block",
        "Prolonged PR interval, first-degree AV block",
    ),
    LEFT_BUNDLE_BLOCK: ("Left bundle branch block", "Complete left bundle branch block", "LBBB"),
    RIGHT_BUNDLE_BLOCK: ("Right bundle branch block", "Complete right bundle branch block", "RBBB"),
    HYPERTROPHY: (
        "Left ventricular hypertrophy",
        "Voltage criteria for left ventricular hypertrophy",
        "LVH by voltage",
    ),
    INFERIOR_ST: (
        "Inferior ST elevation",
        "ST segment elevation in the inferior leads",
        "ST elevation in II, III and aVF",
    ),
    ANTERIOR_ST: (
        "Anterior ST elevation",
        "ST segment elevation in the anterior leads",
        "ST elevation in V1 to V4",
    ),
    T_INVERSION: ("T wave inversion", "Inverted T waves in the lateral leads", "Lateral T wave inversion"),
    LEFT_AXIS: ("Left axis deviation", "Leftward deviation of the QRS axis", "Abnormal left axis deviation"),
    PREMATURE_BEATS: (
        "Premature ventricular beats",
        "Premature ventricular complexes",
        "Ventricular extrasystoles, premature ventricular beats",
    ),
    LONG_QT: ("Long QT interval", "Prolonged QT interval", "QT prolongation, long QT interval"),
    LOW_VOLTAGE: ("Low voltage", "Low QRS voltage in the limb leads", "Low voltage QRS"),
    PACING: ("Ventricular pacing", "Ventricular paced complexes", "Electronic ventricular pacemaker"),
    NORMAL: ("Normal ECG", "ECG within normal limits", "Normal electrocardiogram"),
}
FINDINGS = tuple(WORDINGS)
_RATE_WORDINGS = ("Rate {}/min", "Heart rate {}/min", "Ventricular rate {}/min")

# What cannot stand beside what, because the heart cannot do it (no PR interval in fibrillation) or because the measure
# that defines one finding means nothing beside the other (ST, T and QT of a wide QRS, voltage of a paced beat), or
# hides it (a raised ST segment may look like a P wave where the RR interval is short).
_EXCLUDED: dict[str, tuple[str, ...]] = {
    ATRIAL_FIBRILLATION: (FIRST_DEGREE_BLOCK, PREMATURE_BEATS, LONG_QT, PACING, INFERIOR_ST, ANTERIOR_ST),
    SINUS_TACHYCARDIA: (FIRST_DEGREE_BLOCK, PREMATURE_BEATS, LONG_QT, PACING),
    SINUS_BRADYCARDIA: (PACING,),
    LEFT_BUNDLE_BLOCK: (RIGHT_BUNDLE_BLOCK, HYPERTROPHY),
    RIGHT_BUNDLE_BLOCK: (HYPERTROPHY,),
    PACING: (LEFT_BUNDLE_BLOCK, RIGHT_BUNDLE_BLOCK, HYPERTROPHY, FIRST_DEGREE_BLOCK),
    **{finding: WIDE_QRS for finding in (T_INVERSION, LONG_QT, LOW_VOLTAGE, PREMATURE_BEATS)},
    INFERIOR_ST: (*WIDE_QRS, ANTERIOR_ST, HYPERTROPHY, T_INVERSION, LONG_QT, LOW_VOLTAGE),
    ANTERIOR_ST: (*WIDE_QRS, HYPERTROPHY, T_INVERSION, LONG_QT, LOW_VOLTAGE),
}
_EXCLUDED[LOW_VOLTAGE] += (HYPERTROPHY, LEFT_AXIS, PREMATURE_BEATS)
_EXCLUDED[LONG_QT] += (PREMATURE_BEATS,)
_EXCLUDED[HYPERTROPHY] = (PREMATURE_BEATS,)

# How often a finding is drawn; those that few others allow weigh more, so that each reaches about 8 % of the records.
_WEIGHTS = {
    FIRST_DEGREE_BLOCK: 0.45,
    LEFT_BUNDLE_BLOCK: 1.7,
    RIGHT_BUNDLE_BLOCK: 1.7,
    HYPERTROPHY: 1.4,
    INFERIOR_ST: 2.3,
    ANTERIOR_ST: 2.3,
    T_INVERSION: 0.8,
    LEFT_AXIS: 0.15,
    PREMATURE_BEATS: 1.5,
    LONG_QT: 1.9,
    LOW_VOLTAGE: 1.5,
    PACING: 3.8,
}
_NORMAL_SHARE = 0.24
_RHYTHM_SHARES = {SINUS_RHYTHM: 0.52, SINUS_TACHYCARDIA: 0.15, SINUS_BRADYCARDIA: 0.16, ATRIAL_FIBRILLATION: 0.17}
_COUNT_SHARES = {
    True: (0.0, 0.5, 0.36, 0.14),
    False: (0.3, 0.42, 0.28, 0.0),
}  # number of further findings, by normal rate


def exclude_each_other(first: str, second: str) -> bool:
    """True if the two findings cannot stand in one record."""
    both_rhythms = first in RHYTHMS and second in RHYTHMS and first != second
    return both_rhythms or second in _EXCLUDED.get(first, ()) or first in _EXCLUDED.get(second, ())


def complete_findings(findings: Iterable[str], heart_rate: float | None = None) -> tuple[str, ...]:
    """The findings in the corpus's order, with the rhythm they lack and `normal ECG` where nothing else stands.

    Where no rhythm is named it is sinus, by `heart_rate` in beats per minute: bradycardia under 60, tachycardia over
    100. Raises ValueError for an unknown name or for two findings that exclude each other.

    >>> complete_findings(["left axis deviation"], heart_rate=48)
    ('sinus bradycardia', 'left axis deviation')
    >>> complete_findings([])
    ('sinus rhythm', 'normal ECG')
    """
    found = {findings} if isinstance(findings, str) else set(findings)
    unknown = sorted(found - set(FINDINGS))
    if unknown:
        raise ValueError(f"findings: expected names among {', '.join(FINDINGS)}; got {', '.join(unknown)}")
    if not found & set(RHYTHMS):
        found.add(_sinus_name(heart_rate))
    _check_together(sorted(found, key=FINDINGS.index))
    if found == {SINUS_RHYTHM}:
        found.add(NORMAL)
    return tuple(name for name in FINDINGS if name in found)


def _sinus_name(heart_rate: float | None) -> str:
    if heart_rate is None or 60 <= heart_rate <= 100:
        return SINUS_RHYTHM
    return SINUS_BRADYCARDIA if heart_rate < 60 else SINUS_TACHYCARDIA


def _check_together(found: list[str]) -> None:
    for i, first in enumerate(found):
        for second in found[i + 1 :]:
            if exclude_each_other(first, second):
                raise ValueError(
                    f"findings: {first!r} and {second!r} cannot stand in one record; leave one of them out"
                )
    if NORMAL in found and set(found) != {SINUS_RHYTHM, NORMAL}:
        raise ValueError(f"findings: {NORMAL!r} stands only beside {SINUS_RHYTHM!r}; got {', '.join(found)}")


def sample_findings(rng: np.random.Generator, rhythm: str | None = None) -> tuple[str, ...]:
    """Findings drawn as they occur in the corpus; `rhythm` fixes the rhythm instead of drawing it too."""
    if rng.random() < _NORMAL_SHARE and rhythm in (None, SINUS_RHYTHM):
        return complete_findings([SINUS_RHYTHM])
    if rhythm is None:
        rhythm = str(rng.choice(list(_RHYTHM_SHARES), p=list(_RHYTHM_SHARES.values())))
    chosen = [rhythm]
    for _ in range(rng.choice(4, p=_COUNT_SHARES[rhythm == SINUS_RHYTHM])):
        possible = [name for name in _WEIGHTS if name not in chosen]
        possible = [name for name in possible if not any(exclude_each_other(name, other) for other in chosen)]
        if possible:
            weights = np.array([_WEIGHTS[name] for name in possible])
            chosen.append(str(rng.choice(possible, p=weights / weights.sum())))
    return complete_findings(chosen)


def write_report(findings: tuple[str, ...], heart_rate: int, rng: np.random.Generator) -> str:
    """A report of all `findings` and nothing else: rhythm, rate in beats per minute, then the others in any order."""
    rhythm, others = findings[0], [findings[1:][i] for i in rng.permutation(len(findings) - 1)]
    sentences = [_worded(rhythm, rng), str(rng.choice(_RATE_WORDINGS)).format(heart_rate)]
    return " ".join(f"{sentence}." for sentence in sentences + [_worded(name, rng) for name in others])


def _worded(finding: str, rng: np.random.Generator) -> str:
    wordings = WORDINGS[finding]
    return wordings[rng.integers(len(wordings))]


def label_names(**_: Any) -> list[str]:
    """The names of all findings, in the corpus's order, whatever its options; `labels` and `statements` are of them."""
    return list(FINDINGS)


def label_prompts(**_: Any) -> dict[str, list[str]]:
    """For each label, several ways to say it in the style of the texts, for zero-shot classification.

    >>> label_prompts()["left bundle branch block"][0]
    'ECG Findings: left bundle branch block.'
    """
    return {name: _prompts(name) for name in FINDINGS}


def _prompts(name: str) -> list[str]:
    canonical = [f"ECG Findings: {name}."]
    if name == NORMAL:
        canonical.append(f"ECG Findings: {SINUS_RHYTHM}, {name}.")
    return canonical + [f"{wording}." for wording in WORDINGS[name]]
