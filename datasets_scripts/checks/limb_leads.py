"""Do the limb leads fit together (Einthoven, Goldberger), and were electrodes or columns exchanged? Only reported.

Six limb leads are six views of three electrodes, so I and II give the others: III = II - I, aVR = -(I + II) / 2,
aVL = I - II / 2, aVF = II - I / 2. When a file's columns are exchanged or a sign is lost, these laws break, and the one
exchange that restores them is named. When electrodes are exchanged on the patient, the laws still hold, and only the
shape of the waves tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from datasets_scripts.checks.leads import LIMB_LEADS, distinct_leads
from datasets_scripts.checks.median_beat import AFTER, BEFORE, MedianBeat, excerpt, median_beat
from datasets_scripts.records import ECGRecord

LEAST_SAMPLES = 1000  # of each lead that the laws are tested on, where it has so many; less than twice as many
RELATIVE_TOLERANCE = 0.05  # of the limb leads' amplitude; the least of 1,442 records z-scored per lead has 0.08
TOLERANCE_STEPS = 5  # of the converter: III and the augmented leads are sums of rounded or truncated numbers
LEAST_TOLERANCE = 0.01  # mV
INVERTED_QRS, INVERTED_P = -0.05, -0.02  # mV: how much further up than down the wave goes
P_WINDOW = (-0.28, -0.06)  # seconds after the middle of the QRS complex
UPRIGHT_CHEST = 0.3  # of the chest lead's QRS amplitude, the same way
AGAINST_CHEST = -0.5  # correlation of lead I with the chest lead, QRS to T
FLAT_LEAD = 0.1  # mV, the published bound; the smallest lead II of 315 real recordings has 0.18
FLAT_SHARE = 0.1  # of the smaller of the other two
_MOST_UNUSABLE = 0.75
_RAILS = 0.01  # a share of the samples: a lead that is so often at its extreme is cut off there

# what is 0 by Einthoven's and Goldberger's laws, over LIMB_LEADS
_LAWS = np.array(
    [[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-1, 0.5, 0, 0, 1, 0], [0.5, -1, 0, 0, 0, 1]], dtype=np.float32
)


@dataclass(frozen=True)
class _LimbLeads:
    """Some samples of the limb leads in mV: `signal (num_leads, samples)`, row i is LIMB_LEADS[where[i]]."""

    signal: np.ndarray
    where: tuple[int, ...]
    resolution: float  # mV per step of the converter, 0 if not known

    @property
    def laws(self) -> np.ndarray:
        """The laws whose leads are all there, over the rows of `signal`."""
        absent = [i for i in range(len(LIMB_LEADS)) if i not in self.where]
        return _LAWS[~_LAWS[:, absent].any(axis=1)][:, list(self.where)]


def einthoven_residual(record: ECGRecord) -> float | None:
    """How far the limb leads are from Einthoven's and Goldberger's laws, in mV; None if too few leads are there.

    The largest, over the laws whose leads are present (I, II and one more at least), of the 99th percentile of
    |measured - expected|. A constant offset between leads does not count, nor do samples where a lead is missing or
    cut off (the converter's rail); None if fewer than a quarter remain. Measured on 1,000 to 2,000 samples, evenly
    spaced over the record.
    """
    leads = _limb_leads(record)
    return None if leads is None else _residual(leads.laws @ leads.signal)


def breaks_einthoven(record: ECGRecord) -> bool:
    """Whether the limb leads break Einthoven's or Goldberger's law; False where they cannot be tested.

    The residual must be above 5 % of the limb leads' median peak-to-peak amplitude, 5 steps of the converter, and
    0.01 mV. Of 314 real 12-lead records at 500 and 1000 Hz (PTB-XL, Challenge 2021) the worst has 0.6 %, 3 steps.
    """
    leads = _limb_leads(record)
    return leads is not None and _breaks(leads, leads.laws)


def suspected_limb_reversal(record: ECGRecord) -> str | None:
    """What seems to be exchanged among the limb leads, or None.

    Columns or signs of a file, where the laws of the limb leads break and just one of these restores them: two leads
    exchanged (such as aVL and aVF, when MIMIC-IV-ECG's order is read as the usual one), one inverted, the augmented
    ones in another order, or all in Cabrera's order. All six limb leads must be there.

    Electrodes, where the laws hold:
    - right and left arm: in lead I both P and QRS point down, while V6 (or V5) has an upright QRS and runs against lead
      I. That I and V6 disagree tells it from dextrocardia, the inverted P from right axis deviation; so without a clear
      P wave (atrial fibrillation) it is not found. Table 5 of https://pmc.ncbi.nlm.nih.gov/articles/PMC10902517/ and
      https://pmc.ncbi.nlm.nih.gov/articles/PMC6932211/
    - right arm and left leg: the same, and P points down in aVF too.
    - right arm and right leg: lead II alone is below 0.1 mV, since it lies between the legs (same table).

    On the 1,756 real recordings that the bounds were chosen on (PTB-XL, Challenge 2021; 1,441 of them with limb leads
    brought back from z-scores) there was no alarm; of arm exchanges made of them 83 % were found, 1 in 27 of these as
    right arm and left leg; of right arm and right leg 99 %.
    Not looked for: left arm and left leg (too much like other hearts), left arm and right leg (a small lead III
    is often natural), and the two legs (they change nothing).
    """
    leads = _limb_leads(record)
    return None if leads is None else _suspicion(record, leads, _breaks(leads, leads.laws))


def limb_lead_notices(record: ECGRecord) -> dict[str, str]:
    """`breaks_einthoven` and `suspected_limb_reversal` in one go: kind -> detail, empty if all is well."""
    leads = _limb_leads(record)
    if leads is None:
        return {}
    breaks, found = _breaks(leads, leads.laws), {}
    if breaks:
        residual = _residual(leads.laws @ leads.signal)
        found["limb leads break Einthoven's or Goldberger's law"] = f"by {residual:.3f} mV"
    suspicion = _suspicion(record, leads, breaks)
    return found | ({"suspected limb lead reversal": suspicion} if suspicion else {})


def _limb_leads(record: ECGRecord) -> _LimbLeads | None:
    """The excerpt that the laws are tested on; None if I, II or a third lead is missing, or too few samples remain."""
    names = distinct_leads(record.leads)
    where = [i for i, lead in enumerate(LIMB_LEADS) if lead in names]
    rows = [names.index(LIMB_LEADS[i]) for i in where]
    step = max(1, record.num_samples // LEAST_SAMPLES)
    signal = excerpt(record, rows, step)
    absent = ~np.isfinite(signal)
    if absent.any():
        there = ~absent.all(axis=1)  # a lead without any sample is a missing lead
        signal, absent = signal[there], absent[there]
        where, rows = np.array(where)[there].tolist(), np.array(rows)[there].tolist()
    if len(where) < 3 or where[:2] != [0, 1]:
        return None
    unusable = (absent | _at_rail(signal)).any(axis=0)
    if unusable.any():
        if unusable.mean() > _MOST_UNUSABLE:
            return None
        signal = signal[:, ~unusable]
    resolution = 0.0 if record.gain is None else 1 / float(np.abs(record.gain[rows]).min())
    return _LimbLeads(signal, tuple(where), resolution)


def _at_rail(signal: np.ndarray) -> np.ndarray:
    """Which samples are at an extreme of their lead where it stays, as a converter does that can go no further."""
    extremes = (np.fmin.reduce(signal, axis=1), np.fmax.reduce(signal, axis=1))
    moves, at_rail = extremes[0] < extremes[1], np.zeros(signal.shape, bool)
    for extreme in extremes:
        at_extreme = signal == extreme[:, None]
        stays = np.count_nonzero(at_extreme, axis=1) > _RAILS * signal.shape[1]
        stays &= moves & (extreme != 0)  # a lead that stays at 0 has lost its electrode
        if stays.any():
            at_rail |= at_extreme & stays[:, None]
    return at_rail


def _breaks(leads: _LimbLeads, laws: np.ndarray) -> bool:
    residuals = laws @ leads.signal
    tolerance = max(LEAST_TOLERANCE, TOLERANCE_STEPS * leads.resolution)
    if np.ptp(residuals, axis=1).max() <= tolerance:  # nearly always: it spares the percentiles
        return False
    low, high = np.percentile(leads.signal, [0.5, 99.5], axis=1)
    tolerance = max(tolerance, RELATIVE_TOLERANCE * float(np.median(high - low)))
    return _residual(residuals) > tolerance


def _residual(residuals: np.ndarray) -> float:
    from_middle = np.abs(residuals - np.median(residuals, axis=1, keepdims=True))
    return float(np.percentile(from_middle, 99, axis=1).max())


def _suspicion(record: ECGRecord, leads: _LimbLeads, breaks: bool) -> str | None:
    return _exchanged_columns(leads) if breaks else _exchanged_electrodes(record, leads)


# ----- columns of a file: which exchange restores the laws -----------------------------------------------------------


def _exchanged_columns(leads: _LimbLeads) -> str | None:
    """The one exchange after which the laws hold; None if there is none, or several fit."""
    if len(leads.where) < len(LIMB_LEADS):
        return None
    names, laws = _exchanges()
    centred = leads.signal - leads.signal.mean(axis=1, keepdims=True)
    gram = (centred @ centred.T).astype(np.float64)
    energies = np.einsum("cri,ij,crj->cr", laws, gram, laws, optimize=True).max(axis=1)
    best, second = np.argsort(energies, kind="stable")[:2]
    if _breaks(leads, laws[best]) or not _breaks(leads, laws[second]):
        return None
    return names[best]


@lru_cache(maxsize=1)
def _exchanges() -> tuple[tuple[str, ...], np.ndarray]:
    """What is looked for, and for each the laws `(4, 6)` as they hold among the exchanged columns."""
    found: dict[str, np.ndarray] = {}
    one = np.eye(6, dtype=np.float32)
    for a, b in combinations(range(6), 2):
        order = list(range(6))
        order[a], order[b] = b, a
        found[f"{LIMB_LEADS[a]} and {LIMB_LEADS[b]} are exchanged"] = one[order]
    for a, lead in enumerate(LIMB_LEADS):
        found[f"{lead} is inverted"] = np.where(np.arange(6) == a, -1, 1).astype(np.float32)[:, None] * one
    for order in ((0, 1, 2, 4, 5, 3), (0, 1, 2, 5, 3, 4)):
        hold = dict(zip(order[3:], LIMB_LEADS[3:], strict=True))
        found[f"aVR, aVL, aVF hold {', '.join(hold[i] for i in (3, 4, 5))}"] = one[list(order)]
    cabrera = one[[1, 3, 5, 2, 0, 4]]  # its columns are aVL, I, -aVR, II, aVF, III
    found["the limb leads are in Cabrera's order, with aVR upright"] = cabrera
    found["the limb leads are in Cabrera's order, with -aVR"] = np.diag([1, 1, 1, -1, 1, 1]).astype("f4") @ cabrera
    return tuple(found), np.stack([_LAWS @ mended for mended in found.values()])


# ----- electrodes: the laws hold, the waves point the wrong way ------------------------------------------------------


def _exchanged_electrodes(record: ECGRecord, leads: _LimbLeads) -> str | None:
    chest = next((lead for lead in ("V6", "V5") if lead in distinct_leads(record.leads)), None)
    against_chest = chest is not None and _lead_i_runs_against(record, chest)
    if not (against_chest or _lead_ii_is_small(leads.signal)):
        return None
    beat = median_beat(record)
    if beat is None:
        return None
    if _lead_ii_is_flat(beat):
        return "right arm and right leg electrodes are exchanged"
    if against_chest and _lead_i_is_upside_down(beat, chest):
        inferior = _p_wave(beat.part("II", *P_WINDOW) - beat.part("I", *P_WINDOW) / 2)  # aVF
        return f"right arm and left {'leg' if _net(inferior) < INVERTED_P else 'arm'} electrodes are exchanged"
    return None


def _lead_i_runs_against(record: ECGRecord, chest: str) -> bool:
    """Whether the slopes of lead I and the chest lead go together inversely: so in 1 of 100 recordings, and if the
    arms are exchanged in 99 of 100. A quick look that spares the others the median beat."""
    names = distinct_leads(record.leads)
    signal = excerpt(record, (names.index("I"), names.index(chest)), max(1, record.num_samples // LEAST_SAMPLES))
    slopes = np.diff(signal, axis=1)
    together = slopes[0] * slopes[1]
    total = together.sum()
    return bool((total if np.isfinite(total) else together[np.isfinite(together)].sum()) < 0)


def _lead_ii_is_small(signal: np.ndarray) -> bool:
    one, two = signal[:2]
    return bool(np.ptp(two) < 0.5 * min(np.ptp(one), np.ptp(two - one)))


def _lead_ii_is_flat(beat: MedianBeat) -> bool:
    one, two = (beat.part(lead, -BEFORE, AFTER) for lead in ("I", "II"))
    others = min(np.ptp(one), np.ptp(two - one))
    return bool(np.ptp(two) < min(FLAT_LEAD, FLAT_SHARE * others))


def _lead_i_is_upside_down(beat: MedianBeat, chest: str) -> bool:
    qrs, chest_qrs = (_from_baseline(beat, lead) for lead in ("I", chest))
    if not (_net(qrs) < INVERTED_QRS and _net(chest_qrs) > UPRIGHT_CHEST * np.ptp(chest_qrs)):
        return False
    if _net(_p_wave(beat.part("I", *P_WINDOW))) > INVERTED_P:
        return False
    one, other = (part - part.mean() for part in (beat.part(lead, -0.08, 0.40) for lead in ("I", chest)))
    return bool(one @ other < AGAINST_CHEST * np.sqrt((one @ one) * (other @ other)))


def _from_baseline(beat: MedianBeat, lead: str) -> np.ndarray:
    """The QRS complex above the end of the PR segment."""
    return beat.part(lead, -0.08, 0.10) - np.median(beat.part(lead, -0.10, -0.06))


def _p_wave(wave: np.ndarray) -> np.ndarray:
    """The wave above the straight line between its ends."""
    return wave - np.linspace(wave[0], wave[-1], wave.size)


def _net(wave: np.ndarray) -> float:
    """How much further it goes up than down, mV."""
    return float(wave.max() + wave.min())
