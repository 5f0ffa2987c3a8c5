"""The waves of one heart beat for every finding of the synthetic corpus, as parts of the cardiac dipole.

x points to the left, y to the feet, z to the back, in mV; times in seconds. A beat starts at the onset of its QRS.
Textbook criteria behind the shapes: Surawicz et al., https://doi.org/10.1016/j.jacc.2008.12.013 (conduction);
Hancock et al., https://doi.org/10.1016/j.jacc.2008.12.015 (hypertrophy); Rautaharju et al.,
https://doi.org/10.1016/j.jacc.2008.12.014 (ST, T, QT).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets_scripts import synthetic_findings as names
from datasets_scripts.synthetic_signal import wave, wave_areas

_QRS_POWER = 1.3  # sharper ends than a raised cosine: a QRS complex begins and ends abruptly
PREMATURE_QRS = 0.160  # seconds


@dataclass(frozen=True)
class Anatomy:
    """What a patient keeps from one recording to the next: places between 0 and 1 within the range of each quantity."""

    axis: float
    size: float
    depth: float
    p_size: float
    t_size: float
    pr: float
    qrs: float
    qt: float


@dataclass(frozen=True)
class Beat:
    """The measures of one recording's beats: seconds, degrees in the frontal plane, mV."""

    rr: float
    pr: float
    qrs: float
    qt: float
    axis: float
    size: float
    depth: float
    p_size: float
    t_size: float


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient's anatomy."""
    return Anatomy(*rng.uniform(size=8).tolist())


def measure_beat(findings: tuple[str, ...], anatomy: Anatomy, heart_rate: float) -> Beat:
    """What `findings` and `anatomy` make of the beats at `heart_rate` per minute."""
    found, rr = set(findings), 60 / heart_rate
    wide = found & set(names.WIDE_QRS)
    pr = _pr(found, anatomy, rr)
    room = rr * 0.66 - 0.02 if names.ATRIAL_FIBRILLATION in found else rr - pr - 0.02
    return Beat(
        rr=rr,
        pr=pr,
        qrs=_between(anatomy.qrs, 0.150, 0.172) if wide else _between(anatomy.qrs, 0.080, 0.094),
        qt=min(_corrected_qt(found, anatomy) * np.sqrt(rr), room),
        axis=_axis(found, anatomy),
        size=_between(anatomy.size, 1.1, 1.4),
        depth=_between(anatomy.depth, 0.75, 1.15),
        p_size=_between(anatomy.p_size, 0.08, 0.09)
        if names.LOW_VOLTAGE in found
        else _between(anatomy.p_size, 0.14, 0.2),
        t_size=_between(anatomy.t_size, 0.8, 1.2),
    )


def _between(place: float, low: float, high: float) -> float:
    return low + (high - low) * place


def _pr(found: set[str], anatomy: Anatomy, rr: float) -> float:
    if names.FIRST_DEGREE_BLOCK in found:
        return _between(anatomy.pr, 0.255, 0.315)
    return _between(anatomy.pr, 0.130, 0.145) if rr < 0.6 else _between(anatomy.pr, 0.140, 0.172)


def _corrected_qt(found: set[str], anatomy: Anatomy) -> float:
    """Bazett's QT at an RR interval of one second."""
    if names.LONG_QT in found:
        return _between(anatomy.qt, 0.515, 0.565)
    if found & {names.SINUS_TACHYCARDIA, names.ATRIAL_FIBRILLATION}:
        low, high = 0.37, 0.39
    else:
        low, high = 0.385, 0.42
    late = 0.04 if found & set(names.WIDE_QRS) else 0.0
    return _between(anatomy.qt, low, high) + late


def _axis(found: set[str], anatomy: Anatomy) -> float:
    if names.LEFT_AXIS in found:
        ranges = {names.HYPERTROPHY: (-54, -47), names.RIGHT_BUNDLE_BLOCK: (-68, -58), names.INFERIOR_ST: (-66, -56)}
        low, high = next((ranges[name] for name in ranges if name in found), (-64, -47))
        return _between(anatomy.axis, low, high)
    ranges = {
        names.LEFT_BUNDLE_BLOCK: (10, 45),
        names.RIGHT_BUNDLE_BLOCK: (20, 60),
        names.PACING: (20, 65),
        names.HYPERTROPHY: (8, 40),
    }
    low, high = next((ranges[name] for name in ranges if name in found), (12, 68))
    return _between(anatomy.axis, low, high)


def _frontal(size: float, degrees: float) -> tuple[float, float]:
    return size * np.cos(np.radians(degrees)), size * np.sin(np.radians(degrees))


def p_wave(beat: Beat) -> np.ndarray:
    """Right atrium, then left: `(2, 8)`, with the onset `pr` before the QRS complex."""
    stretch = 0.88 if beat.rr < 0.6 else 1.0
    x, y = _frontal(0.8 * beat.p_size, 56)
    right = wave(-beat.pr, 0.042 * stretch, 0.040 * stretch, (0.8 * x, y, -0.4 * beat.p_size))
    left = wave(-beat.pr + 0.030 * stretch, 0.032 * stretch, 0.038 * stretch, (1.1 * x, 0.9 * y, 0.4 * beat.p_size))
    return np.array([right, left])


def conducted_beat(findings: tuple[str, ...], beat: Beat) -> np.ndarray:
    """QRS complex, ST segment and T wave of the rhythm's own beats, `(W, 8)`."""
    found = set(findings)
    if names.LEFT_BUNDLE_BLOCK in found:
        return _discordant(_left_bundle_qrs(beat), beat, 0.30 if names.ATRIAL_FIBRILLATION in found else 0.38)
    if names.PACING in found:
        return _discordant(_ectopic_qrs(beat, beat.size, beat.axis), beat)
    if names.RIGHT_BUNDLE_BLOCK in found:
        size = 0.7 if names.ATRIAL_FIBRILLATION in found else 1.0
        st_t = _st_and_t(beat, st=np.zeros(3), t=size * np.array([0.20, 0.13, 0.13]))
        return np.vstack([_right_bundle_qrs(beat), st_t])
    qrs = _hypertrophied_qrs(beat) if names.HYPERTROPHY in found else _narrow_qrs(beat, beat.size, 0.35)
    if names.LOW_VOLTAGE in found:
        qrs[:, 5:] *= np.array([0.265, 0.265, 0.5]) * 1.2 / beat.size
    return np.vstack([qrs, _narrow_st_and_t(found, beat)])


def premature_beat(findings: tuple[str, ...], beat: Beat) -> np.ndarray:
    """A ventricular beat without P wave, `(W, 8)`: wide, tall, with ST and T against its QRS.

    It starts in the right ventricle: in the outflow tract (axis to the feet), or at the apex where the axis is left.
    """
    axis = -60.0 if names.LEFT_AXIS in findings else 66.0
    wide = Beat(**{**vars(beat), "qrs": PREMATURE_QRS, "qt": max(beat.qt, 0.36) + 0.03})
    return _discordant(_ectopic_qrs(wide, 1.6 * beat.size, axis), wide)


def pacing_spike(beat: Beat, sampling_rate: float) -> np.ndarray:
    """The stimulus before a paced QRS, `(1, 8)`: 8 ms long, or what is left of it where samples are farther apart."""
    length = max(0.008, 2.5 / sampling_rate)
    height = max(0.5 * 0.008 / length, 0.2) * beat.size
    vector = (*_frontal(height, beat.axis), -0.2 * height)
    return np.array([wave(-length, length / 2, length / 2, vector)])


def _sharp(onset: float, rise: float, fall: float, vector: tuple) -> list[float]:
    return wave(onset, rise, fall, vector, power=_QRS_POWER)


def _narrow_qrs(beat: Beat, size: float, back: float) -> np.ndarray:
    """Septum to the right and front, free wall along the axis, base to the back."""
    d, scale = beat.qrs, size / 1.25
    down = 0.14 if beat.axis < 0 else -0.03  # left axis: the anterior fascicle is late, the first forces go to the feet
    septum = _sharp(0.0, 0.14 * d, 0.22 * d, (-0.10 * scale, down * scale, -0.22 * scale))
    base = _sharp(0.40 * d, 0.30 * d, 0.30 * d, (-0.14 * scale, -0.09 * scale, 0.52 * beat.depth * scale))
    wall = _sharp(0.14 * d, 0.30 * d, 0.38 * d, (0.0, 0.0, back * beat.depth))
    return _with_axis(np.array([wall, septum, base]), size, beat.axis)


def _hypertrophied_qrs(beat: Beat) -> np.ndarray:
    if beat.axis < 0:
        return _narrow_qrs(beat, 2.3, 1.35 / beat.depth)
    return _narrow_qrs(beat, 2.05 / np.cos(np.radians(beat.axis)) ** 0.7, 1.2 / beat.depth)


def _right_bundle_qrs(beat: Beat) -> np.ndarray:
    """A narrow complex, after which the right ventricle follows slowly, to the right and front."""
    early = Beat(**{**vars(beat), "qrs": 0.084})
    wall, septum, base = _narrow_qrs(early, beat.size, 0.2)
    start, length, scale = 0.064, beat.qrs - 0.064, beat.size / 1.25
    x, y = (0.55, 0.12) if beat.axis < 0 else (1.0, 0.0)  # with left axis the early forces already went up
    front = _sharp(start, 0.40 * length, 0.40 * length, (-0.20 * x * scale, (y + 0.04) * scale, -0.60 * scale))
    right = _sharp(
        start + 0.22 * length, 0.46 * length, 0.32 * length, (-0.40 * x * scale, (y - 0.16) * scale, -0.30 * scale)
    )
    septum[7] *= 0.8
    base[7] *= 0.5
    size = (1.35 if beat.axis < 0 else 1.1) * beat.size
    return _with_axis(np.array([wall, septum, base, front, right]), size, beat.axis)


def _left_bundle_qrs(beat: Beat) -> np.ndarray:
    """Septum from right to left, a notch, then the free wall: all to the left and back, no septal q wave."""
    d = beat.qrs
    first = _sharp(0.0, 0.26 * d, 0.34 * d, (*_frontal(0.70 * beat.size, beat.axis + 14), 0.15 + 0.30 * beat.depth))
    between = _sharp(0.12 * d, 0.30 * d, 0.48 * d, (0.0, 0.0, 0.40 * beat.depth))
    second = _sharp(0.32 * d, 0.38 * d, 0.30 * d, (*_frontal(0.95 * beat.size, beat.axis - 9), 0.4 + 0.55 * beat.depth))
    return np.array([first, between, second])


def _ectopic_qrs(beat: Beat, size: float, axis: float) -> np.ndarray:
    """From the right ventricle through muscle: slurred, without a notch, to the back and along `axis`."""
    d = beat.qrs
    x, y = _frontal(size, axis)
    slur = _sharp(0.0, 0.30 * d, 0.30 * d, (0.45 * x, 0.45 * y, 0.35 * size))
    bulk = _sharp(0.14 * d, 0.38 * d, 0.48 * d, (0.9 * x, 0.9 * y, 0.75 * size))
    return np.array([slur, bulk])


def _with_axis(waves: np.ndarray, size: float, axis: float) -> np.ndarray:
    """`waves` whose first gets the frontal direction, of `size` mV, that brings the net QRS area to `axis` degrees."""
    areas = wave_areas(waves)
    rest = areas[1:] @ waves[1:, 5:7]
    direction = np.array(_frontal(1.0, axis))
    along = rest @ direction
    net = along + np.sqrt(along**2 - rest @ rest + (size * areas[0]) ** 2)
    waves[0, 5:7] = (net * direction - rest) / areas[0]
    return waves


def _discordant(qrs: np.ndarray, beat: Beat, t: float = 0.38) -> np.ndarray:
    """A wide complex with its ST segment and T wave opposite to it."""
    mean = wave_areas(qrs) @ qrs[:, 5:] / beat.qrs
    return np.vstack([qrs, _st_and_t(beat, st=-0.10 * mean, t=-t * beat.t_size * mean)])


def _narrow_st_and_t(found: set[str], beat: Beat) -> np.ndarray:
    size = 0.7 if names.ATRIAL_FIBRILLATION in found else 1.0
    t = np.array([*_frontal(0.29, np.clip(0.5 * beat.axis + 20, 20, 52)), -0.2])
    st = np.zeros(3)
    if names.T_INVERSION in found:
        t, size = np.array([-0.31, -0.08, 0.04]), 1.0
        st = np.array([-0.10, -0.03, 0.04]) if names.HYPERTROPHY in found else st
    if names.LOW_VOLTAGE in found:
        t *= np.array([0.35, 0.35, 0.5])
    if names.INFERIOR_ST in found:
        st, t = np.array([-0.08, 0.40, 0.06]), np.array([0.02, 0.26, 0.0])
    if names.ANTERIOR_ST in found:
        st, t = np.array([0.11, -0.05, -0.34]), np.array([0.16, 0.06, -0.22])
    return _st_and_t(beat, st * (0.85 + 0.15 * beat.t_size), t * size * beat.t_size)


def _st_and_t(beat: Beat, st: np.ndarray | tuple, t: np.ndarray | tuple) -> np.ndarray:
    """The ST segment steps up under the end of the QRS, stays, and goes down under the T wave, which ends at `qt`."""
    length = min(0.24, 0.52 * beat.qt, beat.qt - beat.qrs - 0.03)
    start = beat.qt - length
    segment = wave(beat.qrs - 0.03, 0.03, 0.7 * length, tuple(st), hold=start + 0.3 * length - beat.qrs)
    return np.array([segment, wave(start, 0.6 * length, 0.4 * length, tuple(t))])
