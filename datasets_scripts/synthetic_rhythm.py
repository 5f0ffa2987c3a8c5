"""When the hearts of the synthetic corpus beat: which rates a finding allows, and the times of all beats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets_scripts import synthetic_findings as names

# Beats per minute that each rhythm allows, and (second pair) those the corpus draws from, away from the limits.
_RATES = {
    names.SINUS_RHYTHM: ((60, 100), (62, 96)),
    names.SINUS_TACHYCARDIA: ((101, 140), (106, 132)),
    names.SINUS_BRADYCARDIA: ((38, 59), (42, 56)),
    names.ATRIAL_FIBRILLATION: ((50, 110), (62, 104)),
}
# Above these the T wave of a beat would run into the P wave of the next, or a premature beat into a T wave.
_FASTEST = {names.FIRST_DEGREE_BLOCK: 85, names.LONG_QT: 85, names.PREMATURE_BEATS: 85, names.PACING: 90}
_FASTEST_LONG_PR_AND_QT = 70
_FASTEST_WIDE = {names.SINUS_TACHYCARDIA: 120, names.ATRIAL_FIBRILLATION: 88}


@dataclass(frozen=True)
class Beats:
    """Times in seconds, of the middle of the QRS complex, from one beat before the recording to one after it.

    `conducted` are beats of the rhythm, `premature` are ventricular beats without a P wave.
    """

    conducted: np.ndarray
    premature: np.ndarray


def allowed_rates(findings: tuple[str, ...]) -> tuple[int, int]:
    """Slowest and fastest heart rate, in beats per minute, at which all `findings` can be drawn."""
    slowest, fastest = _RATES[findings[0]][0]
    caps = [_FASTEST[name] for name in findings if name in _FASTEST]
    if names.FIRST_DEGREE_BLOCK in findings and names.LONG_QT in findings:
        caps.append(_FASTEST_LONG_PR_AND_QT)
    if set(findings) & set(names.WIDE_QRS):
        caps.append(_FASTEST_WIDE.get(findings[0], fastest))
    return slowest, min([fastest, *caps])


def sample_rate(findings: tuple[str, ...], rng: np.random.Generator) -> int:
    """A heart rate in beats per minute for `findings`."""
    slowest, fastest = _RATES[findings[0]][1]
    return int(rng.integers(slowest, min(fastest, allowed_rates(findings)[1] - 1) + 1))


def check_rate(findings: tuple[str, ...], heart_rate: float) -> None:
    """ValueError unless `findings` can be drawn at `heart_rate`."""
    slowest, fastest = allowed_rates(findings)
    if not slowest <= heart_rate <= fastest:
        raise ValueError(
            f"heart_rate: expected {slowest} to {fastest} beats per minute with {', '.join(findings)}; got {heart_rate}"
        )


def sample_beats(
    findings: tuple[str, ...], heart_rate: float, duration: float, qt: float, rng: np.random.Generator
) -> Beats:
    """Beats for a recording of `duration` seconds.

    Exactly `round(duration * heart_rate / 60)` lie inside it, and their mean RR interval is exactly `60 / heart_rate`:
    counting beats and averaging intervals give the same rate. `qt`, in seconds, keeps premature beats off T waves.
    """
    mean = 60 / heart_rate
    count = int(np.floor(duration / mean + 0.5))
    fibrillation = names.ATRIAL_FIBRILLATION in findings
    intervals = _irregular(count - 1, rng) if fibrillation else _sinus(count - 1, mean, rng)
    intervals *= mean * (count - 1) / intervals.sum()
    spare = duration - intervals.sum()
    first = rng.uniform(max(0.24 * mean, spare - 0.8 * mean), min(0.8 * mean, spare - 0.24 * mean))
    inside = first + np.concatenate([[0.0], np.cumsum(intervals)])
    times = np.concatenate([[first - mean], inside, [inside[-1] + mean]])
    early = np.zeros(len(times), dtype=bool)
    if names.PREMATURE_BEATS in findings:
        early[_premature_places(count, rng)] = True
        place = np.flatnonzero(early)
        times[place] = times[place - 1] + _coupling(mean, qt, len(place), rng)
    return Beats(conducted=times[~early], premature=times[early])


def _sinus(count: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """RR intervals around 1 that follow the breath by up to 3 %, with jitter, never more than 4.5 % off."""
    breath = 2 * np.pi * rng.uniform(0.2, 0.3) * mean * np.arange(count) + rng.uniform(0, 2 * np.pi)
    return 1 + np.clip(rng.uniform(0.005, 0.03) * np.sin(breath) + 0.006 * rng.standard_normal(count), -0.045, 0.045)


def _irregular(count: int, rng: np.random.Generator) -> np.ndarray:
    """RR intervals around 1 without order: pairs equally far from it, so that their median is their mean as well."""
    pairs = count // 2
    far = 0.11 + 0.22 * (np.arange(pairs) + rng.uniform(size=pairs)) / max(pairs, 1)
    odd = rng.uniform(-0.02, 0.02, size=count % 2)
    return 1 + rng.permutation(np.concatenate([far, -far, odd]))


def _premature_places(count: int, rng: np.random.Generator) -> np.ndarray:
    """Which beats come early: two to four, never the first, the last, or two in a row."""
    possible = np.arange(2, count)  # places among all beats, of which the first is before the recording
    wanted = min(int(rng.integers(2, 5)), max(1, count // 3))
    chosen: list[int] = []
    for place in rng.permutation(possible):
        if len(chosen) < wanted and all(abs(place - other) > 1 for other in chosen):
            chosen.append(int(place))
    return np.array(sorted(chosen))


def _coupling(mean: float, qt: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds from a beat to the premature one: as early as the T wave allows, and the pause after it compensates."""
    return max(0.54 * mean, qt + 0.11) + rng.uniform(0, 0.03, size=count) * mean
