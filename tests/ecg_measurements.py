"""Measures of a 12-lead ECG taken from the signal alone, as a reader with calipers would: rate, QRS, PR, axis, voltage.

It knows lead names, mV and the sampling rate, and nothing of who made the signal. QRS complexes are where all leads
together are steepest; a complex lasts as long as they stay steep; a P wave is the last bump before it in the median
beat of lead II.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

_LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")


@dataclass(frozen=True)
class Measurements:
    """Times in seconds, voltages in mV, rate per minute, angles in degrees; `pr` is None without P waves."""

    r_peaks: np.ndarray
    rate: float
    rr_variation: float
    qrs_typical: float
    qrs_widest: float
    has_p: bool
    pr: float | None
    axis: float
    axis_by_amplitude: float
    limb_voltage: dict[str, float]
    st: dict[str, float]
    t: dict[str, float]
    r: dict[str, float]
    s: dict[str, float]
    qt: float

    @property
    def irregular(self) -> bool:
        """RR intervals that vary by more than a tenth."""
        return self.rr_variation > 0.1


def steepness(signal: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Root mean square slope over the leads, mV/s: `(num_leads, num_samples)` -> `(num_samples,)`."""
    smooth = sosfiltfilt(butter(2, min(45.0, 0.45 * sampling_rate), fs=sampling_rate, output="sos"), signal)
    return np.sqrt(np.mean(np.gradient(smooth, 1 / sampling_rate, axis=1) ** 2, axis=0))


def find_qrs(signal: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Onset and end of every QRS complex, as sample numbers.

    Complexes are found as humps of the steepness, 0.25 s apart or more; each goes on while the steepness stays above a
    tenth of the complex's own maximum, and bridges flat tops shorter than 20 ms.
    """
    steep = steepness(signal, sampling_rate)
    hump = np.convolve(np.minimum(steep, np.quantile(steep, 0.98)), np.ones(round(0.1 * sampling_rate)), mode="same")
    peaks, _ = find_peaks(hump, height=0.55 * np.quantile(hump, 0.97), distance=round(0.25 * sampling_rate))
    reach, bridge = round(0.13 * sampling_rate), max(1, round(0.02 * sampling_rate))
    onsets, ends = [], []
    for peak in peaks:
        low, high = max(0, peak - reach), min(len(steep), peak + reach)
        near = steep[low:high]
        active = np.flatnonzero(near > max(0.1 * near.max(), 2.0 * np.quantile(steep, 0.25)))
        middle = int(np.argmin(np.abs(active - (peak - low))))
        first = last = middle
        while first > 0 and active[first] - active[first - 1] <= bridge:
            first -= 1
        while last < len(active) - 1 and active[last + 1] - active[last] <= bridge:
            last += 1
        onsets.append(low + active[first])
        ends.append(low + active[last])
    return np.array(onsets), np.array(ends)


def measure(signal: np.ndarray, leads: tuple[str, ...], sampling_rate: float) -> Measurements:
    """All measures of one recording, `signal (num_leads, num_samples)` in mV."""
    signal = np.asarray(signal, dtype=np.float64)
    onsets, ends = find_qrs(signal, sampling_rate)
    whole = (onsets > 0.02 * sampling_rate) & (ends < signal.shape[1] - 0.02 * sampling_rate)
    widths = (ends - onsets)[whole] / sampling_rate
    r_peaks = _r_peaks(signal, onsets, ends)
    rr = np.diff(r_peaks) / sampling_rate
    typical = float(np.median(widths))
    usual = whole & (np.abs((ends - onsets) / sampling_rate - typical) < 0.035)
    rate = 60 / rr.mean()
    beat, zero = _median_beat(signal, onsets[usual], sampling_rate)
    named = dict(zip(leads, beat, strict=True))
    p_onset = _p_onset(named["II"], zero, sampling_rate)
    qrs = {lead: _qrs(course, zero, typical, sampling_rate) for lead, course in named.items()}
    at_st = zero + round((typical + 0.05) * sampling_rate)
    qt_end = _t_end(beat, zero, typical, rr.mean(), sampling_rate)
    return Measurements(
        r_peaks=r_peaks,
        rate=rate,
        rr_variation=float(rr.std() / rr.mean()),
        qrs_typical=typical,
        qrs_widest=float(widths.max()),
        has_p=p_onset is not None,
        pr=None if p_onset is None else p_onset / sampling_rate,
        axis=_angle(qrs["I"].sum(), qrs["aVF"].sum()),
        axis_by_amplitude=_angle(qrs["I"].max() + qrs["I"].min(), qrs["aVF"].max() + qrs["aVF"].min()),
        limb_voltage={lead: float(np.ptp(qrs[lead])) for lead in _LIMB_LEADS},
        st={lead: float(course[at_st] - _level(course, zero, sampling_rate)) for lead, course in named.items()},
        t={lead: _t_height(course, at_st, qt_end, zero, sampling_rate) for lead, course in named.items()},
        r={lead: float(course.max()) for lead, course in qrs.items()},
        s={lead: float(-course.min()) for lead, course in qrs.items()},
        qt=(qt_end - zero) / sampling_rate,
    )


def _r_peaks(signal: np.ndarray, onsets: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where the leads together are farthest from their level at the complex's onset."""
    peaks = []
    for onset, end in zip(onsets, ends, strict=True):
        inside = signal[:, onset : end + 1] - signal[:, onset : onset + 1]
        peaks.append(onset + int(np.argmax(np.sum(inside**2, axis=0))))
    return np.array(peaks)


def _median_beat(signal: np.ndarray, onsets: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, int]:
    """The median of the beats from 0.45 s before to 0.8 s after their QRS onset, and the onset's place in it."""
    before, after = round(0.45 * sampling_rate), round(0.8 * sampling_rate)
    num_samples = signal.shape[1]
    padded = np.pad(signal, ((0, 0), (before, after)), constant_values=np.nan)
    beats = np.stack([padded[:, onset : onset + before + after] for onset in onsets if onset < num_samples])
    levels = np.nanmedian(beats[:, :, before - round(0.02 * sampling_rate) : before], axis=2, keepdims=True)
    return np.nanmedian(beats - levels, axis=0), before


def _level(course: np.ndarray, zero: int, sampling_rate: float) -> float:
    return float(np.median(course[zero - round(0.02 * sampling_rate) : zero]))


def _qrs(course: np.ndarray, zero: int, width: float, sampling_rate: float) -> np.ndarray:
    return course[zero : zero + round(width * sampling_rate) + 1] - _level(course, zero, sampling_rate)


def _angle(one: float, foot: float) -> float:
    """The frontal axis in degrees from the nets in I and aVF; aVF is short by sqrt(3)/2 in Einthoven's triangle."""
    return float(np.degrees(np.arctan2(2 / np.sqrt(3) * foot, one)))


def _p_onset(lead_two: np.ndarray, zero: int, sampling_rate: float) -> int | None:
    """Samples from the onset of the last P wave before the QRS complex to it; None if no bump stands 0.045 mV high.

    The bump's onset is where it falls under a tenth of its height over the foot before it.
    """
    stop = zero - round(0.02 * sampling_rate)
    width = max(1, round(0.012 * sampling_rate))
    smooth = np.convolve(np.nan_to_num(lead_two), np.ones(width) / width, mode="same")
    peaks, found = find_peaks(smooth[:stop], prominence=0.045, wlen=round(0.3 * sampling_rate))
    peaks = peaks[peaks > zero - 0.3 * sampling_rate]
    if not len(peaks):
        return None
    peak = peaks[-1]
    foot = smooth[peak - round(0.07 * sampling_rate) : peak].min()
    onset = peak
    while smooth[onset] > foot + 0.1 * (smooth[peak] - foot):
        onset -= 1
    return zero - onset


def _t_end(beat: np.ndarray, zero: int, width: float, rr: float, sampling_rate: float) -> int:
    """Where the T wave is over in all leads: their steepness falls, after its last maximum, under a fifth of that."""
    width_samples = max(3, round(0.03 * sampling_rate))
    smooth = np.apply_along_axis(
        np.convolve, 1, np.nan_to_num(beat), np.ones(width_samples) / width_samples, mode="same"
    )
    steep = np.sqrt(np.mean(np.gradient(smooth, 1 / sampling_rate, axis=1) ** 2, axis=0))
    first = zero + round((width + 0.08) * sampling_rate)
    last = min(beat.shape[1] - width_samples, zero + round(min(0.62, 0.68 * rr) * sampling_rate))
    place = first + int(np.argmax(steep[first:last]))
    while place < last and steep[place] > 0.2 * steep[first:last].max():
        place += 1
    return place


def _t_height(course: np.ndarray, start: int, end: int, zero: int, sampling_rate: float) -> float:
    """The T wave's largest distance from the level before the QRS complex, with its sign."""
    wave = course[start : end + 1] - _level(course, zero, sampling_rate)
    return float(wave[np.argmax(np.abs(wave))])
