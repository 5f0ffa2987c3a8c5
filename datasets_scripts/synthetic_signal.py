"""From the moving cardiac dipole to the samples of 12 leads: waves, lead vectors, noise, integers.

The heart is one dipole (x to the left, y to the feet, z to the back; mV as a limb lead sees it) at one place. A wave is
a smooth course in time, zero outside its support, times a direction; fixed lead vectors see the sum of the waves.
"""

from __future__ import annotations

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
GAIN = 2000  # digital units per mV

# Limb leads: Einthoven's equilateral triangle. Chest leads: the coefficients of Dower, Machado and Osborne, "On
# deriving the electrocardiogram from vectorcardiographic leads", Clin. Cardiol. 1980,
# https://doi.org/10.1002/clc.1980.3.2.87 , as printed in
# https://stuff.mit.edu/afs/athena.mit.edu/user/g/a/gari/www/CODE/DOWER/README.txt .
_LEAD_VECTORS = np.array(
    [
        [1.0, 0.0, 0.0],  # I
        [0.5, np.sqrt(0.75), 0.0],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)


def wave(onset: float, rise: float, fall: float, vector: tuple, hold: float = 0.0, power: float = 2.0) -> list[float]:
    """One wave as a row `(onset, rise, hold, fall, power, x, y, z)`; times in seconds, `vector` in mV at its top.

    Its course is `sin(pi/2 * t/rise) ** power` up, 1 for `hold`, and the same down within `fall`. Power 2 is the raised
    cosine; lower powers have sharper ends.
    """
    return [onset, rise, hold, fall, power, *vector]


def wave_areas(waves: np.ndarray) -> np.ndarray:
    """The integral of each wave's course over time, in seconds. `waves (W, 8)` -> `(W,)`."""
    quarter = np.sin(np.pi / 2 * (np.arange(64) + 0.5) / 64)
    mean = (quarter[None, :] ** waves[:, 4:5]).mean(axis=1)
    return (waves[:, 1] + waves[:, 3]) * mean + waves[:, 2]


def place_waves(waves: np.ndarray, times: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """A beat's `waves (W, 8)` at each of `times (B,)`, with directions turned by `vectors (B, 3, 3)`: `(B * W, 8)`."""
    placed = np.repeat(waves[None], len(times), axis=0)  # (W, 8) -> (B, W, 8)
    placed[:, :, 0] += times[:, None]
    placed[:, :, 5:] = waves[None, :, 5:] @ vectors.transpose(0, 2, 1)
    return placed.reshape(-1, 8)  # (B, W, 8) -> (B * W, 8)


def render_dipole(waves: np.ndarray, sampling_rate: float, num_samples: int) -> np.ndarray:
    """The dipole `(3, num_samples)` in mV: the sum of `waves (W, 8)`, each computed only where it is not zero."""
    onset, end = waves[:, 0], waves[:, :4].sum(axis=1)
    first = np.clip(np.ceil(onset * sampling_rate), 0, num_samples).astype(int)
    count = np.clip(np.floor(end * sampling_rate) + 1, 0, num_samples).astype(int) - first
    count = np.maximum(count, 0)
    of_wave = np.repeat(np.arange(len(waves)), count)
    sample = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[of_wave]
    time = sample / sampling_rate
    phase = np.minimum((time - onset[of_wave]) / waves[of_wave, 1], (end[of_wave] - time) / waves[of_wave, 3])
    course = np.sin(np.pi / 2 * np.clip(phase, 0, 1)) ** waves[of_wave, 4]
    return np.stack([np.bincount(sample, course * waves[of_wave, axis], num_samples) for axis in (5, 6, 7)])


def fibrillatory_waves(rng: np.random.Generator, size: float, sampling_rate: float, num_samples: int) -> np.ndarray:
    """The atria in fibrillation as a dipole `(3, num_samples)`: 5 to 8 Hz, of wandering frequency, largest in V1.

    With `size` 1 they are 0.03 to 0.05 mV high in V1.
    """
    time = np.arange(num_samples) / sampling_rate
    course = np.zeros(num_samples)
    for frequency in rng.uniform(5.2, 8.0, size=2):
        drift = rng.uniform(1.0, 2.0) * np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * time + rng.uniform(0, 2 * np.pi))
        course += 0.5 * np.sin(2 * np.pi * frequency * time + drift + rng.uniform(0, 2 * np.pi))
    return size * rng.uniform(0.7, 1.1) * np.array([[-0.01], [0.02], [-0.05]]) * course


def independent_leads(dipole: np.ndarray) -> np.ndarray:
    """I, II, V1..V6 of a dipole: `(3, num_samples)` -> `(8, num_samples)` in mV."""
    return _LEAD_VECTORS @ dipole


def noise(rng: np.random.Generator, level: float, sampling_rate: float, num_samples: int) -> np.ndarray:
    """Muscle, mains and baseline wander of the 8 independent leads, `(8, num_samples)` in mV.

    `level` 1 is an ordinary recording: 5 to 11 uV of muscle (standard deviation), up to 3 uV of mains, up to 0.12 mV of
    wander with the breath. The mains are left out where the sampling rate is under four times theirs.
    """
    muscle = rng.standard_normal((8, num_samples), dtype=np.float32) * rng.uniform(0.005, 0.011)
    time = np.arange(num_samples) / sampling_rate
    frequencies = [rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.32)]
    mains = float(rng.choice([50.0, 60.0]))
    sizes = rng.uniform(-0.04, 0.04, size=(8, 4))
    if sampling_rate >= 4 * mains:
        frequencies.append(mains)
        sizes = np.hstack([sizes, rng.uniform(-0.002, 0.002, size=(8, 2))])
    turns = 2 * np.pi * np.array(frequencies)[:, None] * time
    swings = np.stack([np.sin(turns), np.cos(turns)], axis=1).reshape(-1, num_samples)  # sine, cosine of each in turn
    return level * (muscle + sizes @ swings)


def to_digital(independent: np.ndarray) -> np.ndarray:
    """The 12 leads as integers of 1 / `GAIN` mV: `(8, num_samples)` mV -> `(12, num_samples)` int16, in `LEADS` order.

    I and II are rounded to even integers, so that III, aVR, aVL and aVF are integers too, and Einthoven's law and
    Goldberger's formulas hold between the stored samples without any rounding error.
    """
    limit = 16_000  # 8 mV: the sums of two limb leads stay inside int16
    one, two = (2 * np.clip(np.rint(independent[:2] * (GAIN / 2)), -limit // 2, limit // 2)).astype(np.int16)
    chest = np.clip(np.rint(independent[2:] * GAIN), -limit, limit).astype(np.int16)
    limbs = np.stack([one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2])
    return np.concatenate([limbs, chest])
