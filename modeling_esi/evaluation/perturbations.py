"""What befalls a recording outside the hospital: leads that are missing, noise, another rate, less time.

Pure functions from one `ECGRecord` to another. Chance comes from the seed and the record's own name, so that a record
is disturbed in the same way alone, in any batch and in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy import signal as scipy_signal

from datasets_scripts.records import ECGRecord
from modeling_esi.configuration_esi import LEADS
from modeling_esi.lead_names import LIMB_LEADS, parse_lead_name
from modeling_esi.resampling import resample

CHEST_LEADS = tuple(LEADS[6:])
#: The sets of leads that wearables and reduced montages record, by how many they are.
LEAD_SETS: dict[str, tuple[str, ...]] = {
    "1": ("I",),
    "2": ("I", "II"),
    "3": ("I", "II", "V2"),
    "6": tuple(LIMB_LEADS),
    "8": ("I", "II", *CHEST_LEADS),
}
NOISES = ("white", "muscle", "baseline_wander", "powerline")
MUSCLE_BAND = (20.0, 150.0)  # Hz: where surface muscle activity overlaps the QRS
WANDER_BAND = (0.05, 0.5)  # Hz: breathing and movement of the electrodes
POWERLINE = 50.0  # Hz


# ----- leads ---------------------------------------------------------------------------------------------------------


def keep_leads(record: ECGRecord, leads: Sequence[str]) -> ECGRecord:
    """The record with only these leads (names of the twelve); the channels keep their order and their spelling.

    A removed lead is absent by name. What the door then does with it, `lead_origins` says.

    Raises:
        ValueError: where the record does not have all of them.
    """
    found = [parse_lead_name(name) for name in record.leads]
    missing = [lead for lead in leads if lead not in found]
    if missing or not leads:
        raise ValueError(
            f"leads: expected some that record {record.record_id!r} has ({', '.join(record.leads)}), got "
            f"{', '.join(leads) or 'none'}: leave out {', '.join(missing) or 'this set'}."
        )
    kept = [row for row, lead in enumerate(found) if lead in leads]
    return _with_signal(record, record.signal[kept], leads=tuple(record.leads[row] for row in kept))


def lead_origins(leads: Sequence[str]) -> dict[str, str]:
    """What the door makes of each of the twelve leads where only `leads` are recorded.

    `"measured"`; `"derived"`, which limb leads are from any two others (III = II - I, aVR = -(I + II)/2,
    aVL = I - II/2, aVF = II - I/2); or `"masked"`: chest leads follow from no other lead, and one limb lead alone says
    nothing of the others.

    >>> [lead for lead, origin in lead_origins(["I", "II"]).items() if origin == "derived"]
    ['III', 'aVR', 'aVL', 'aVF']
    """
    derivable = LIMB_LEADS if sum(lead in LIMB_LEADS for lead in leads) >= 2 else ()
    return {lead: "measured" if lead in leads else "derived" if lead in derivable else "masked" for lead in LEADS}


# ----- noise ---------------------------------------------------------------------------------------------------------


def add_noise(
    record: ECGRecord, kind: str, snr_db: float, seed: int = 0, powerline_frequency: float = POWERLINE
) -> ECGRecord:
    """The record with noise in every lead at a signal-to-noise ratio.

    The ratio is that of powers about the mean, of each lead by itself: `10 log10(var(lead) / var(noise))`, and the
    noise drawn is scaled to meet it exactly. A lead without any change stays as it is; missing samples stay missing.

    Args:
        record: millivolts, any rate.
        kind: `"white"`; `"muscle"`, white noise in `MUSCLE_BAND` that comes in bursts; `"baseline_wander"`, slow sines
            in `WANDER_BAND`; `"powerline"`, a sine that swells and ebbs, with the same phase in all leads.
        snr_db: decibels; 0 is as much noise as signal.
        seed: with the record's name, the only source of chance.
        powerline_frequency: 50 or 60 Hz, by country.

    Raises:
        ValueError: for another kind, a ratio that is not finite, or a sampling rate too low to hold the noise.
    """
    if kind not in NOISES or not np.isfinite(snr_db):
        raise ValueError(f"noise: expected one of {', '.join(NOISES)} and a finite SNR, got {kind!r}, {snr_db!r} dB.")
    lowest = {"powerline": 2 * powerline_frequency, "muscle": 2 * MUSCLE_BAND[0]}.get(kind, 0.0)
    if record.sampling_rate <= lowest:
        raise ValueError(
            f"noise: {kind} expects a sampling rate above {lowest:g} Hz, got {record.sampling_rate:g} Hz: such noise "
            "cannot be in this record; choose another kind, or a version of the data at a higher rate."
        )
    generator = np.random.default_rng([seed, _name_number(record.record_id)])
    noise = _draw(kind, record.signal.shape, record.sampling_rate, powerline_frequency, generator)
    return _with_signal(record, record.signal + _scaled(noise, record.signal, snr_db))


def _draw(
    kind: str, shape: tuple[int, int], sampling_rate: float, powerline: float, generator: np.random.Generator
) -> np.ndarray:
    """`(leads, samples)` noise of any power."""
    time = np.arange(shape[1]) / sampling_rate
    if kind == "white":
        return generator.normal(size=shape)
    if kind == "muscle":
        return _muscle(shape, time, sampling_rate, generator)
    if kind == "baseline_wander":
        return np.stack([_sines(time, generator.uniform(*WANDER_BAND, 6), generator) for _ in range(shape[0])])
    swelling = 1 + 0.3 * _sines(time, np.array([0.2]), generator)
    hum = swelling * np.sin(2 * np.pi * powerline * time + generator.uniform(0, 2 * np.pi))
    return np.tile(hum, (shape[0], 1))


def _muscle(
    shape: tuple[int, int], time: np.ndarray, sampling_rate: float, generator: np.random.Generator
) -> np.ndarray:
    """Band-passed white noise under a slow envelope; the band ends below half the rate."""
    high = min(MUSCLE_BAND[1], 0.45 * sampling_rate)
    band = scipy_signal.butter(4, np.array((MUSCLE_BAND[0], high)) * 2 / sampling_rate, "bandpass", output="sos")
    settling = int(sampling_rate)  # the filter's first second is not part of the record
    white = generator.normal(size=(shape[0], shape[1] + settling))
    bursts = np.stack([1 + 0.7 * _sines(time, generator.uniform(0.2, 1.0, 3), generator) for _ in range(shape[0])])
    return scipy_signal.sosfilt(band, white, axis=-1)[:, settling:] * bursts


def _sines(time: np.ndarray, frequencies: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`(samples,)`: the mean of sines at these frequencies, with random phases."""
    phases = generator.uniform(0, 2 * np.pi, len(frequencies))
    return np.sin(2 * np.pi * frequencies[:, None] * time + phases[:, None]).mean(axis=0)


def _scaled(noise: np.ndarray, signal: np.ndarray, snr_db: float) -> np.ndarray:
    """`(leads, samples)`: noise about mean zero, at the wanted ratio where there are samples."""
    known = np.isfinite(signal)
    weights = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
    noise = noise - (noise * weights).sum(axis=1, keepdims=True)
    filled = np.where(known, signal, 0.0).astype(np.float64)
    power = (((filled - (filled * weights).sum(axis=1, keepdims=True)) ** 2) * weights).sum(axis=1, keepdims=True)
    noise_power = ((noise**2) * weights).sum(axis=1, keepdims=True)
    wanted = power / 10 ** (snr_db / 10)
    return noise * np.sqrt(np.divide(wanted, noise_power, out=np.zeros_like(wanted), where=noise_power > 0))


def _name_number(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest())


# ----- time ----------------------------------------------------------------------------------------------------------


def change_rate(record: ECGRecord, sampling_rate: float) -> ECGRecord:
    """The record as a device of this sampling rate (Hz) would give it, by the door's own polyphase filter.

    What lies above half the lower rate is gone. Missing samples stay missing where their time was.
    """
    known = np.isfinite(record.signal)
    filled = np.stack([_bridged(row, there) for row, there in zip(record.signal, known, strict=True)])
    resampled = resample(torch.from_numpy(filled), record.sampling_rate, sampling_rate).numpy()
    if not known.all():
        nearest = np.round(np.arange(resampled.shape[1]) * record.sampling_rate / sampling_rate).astype(int)
        resampled = np.where(known[:, np.minimum(nearest, record.num_samples - 1)], resampled, np.nan)
    return _with_signal(record, resampled, sampling_rate=float(sampling_rate))


def _bridged(row: np.ndarray, known: np.ndarray) -> np.ndarray:
    """One lead with a straight line over its gaps, zero where there is nothing."""
    if known.all():
        return row.astype(np.float32)
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros(len(row), np.float32)
    return np.interp(np.arange(len(row)), places, row[places]).astype(np.float32)


def shorten(record: ECGRecord, duration: float) -> ECGRecord:
    """The first `duration` seconds; a record that is no longer than that stays as it is. ValueError below 1 sample."""
    num_samples = round(duration * record.sampling_rate)
    if num_samples < 1:
        raise ValueError(f"duration: expected at least one sample, got {duration!r} s at {record.sampling_rate:g} Hz.")
    if num_samples >= record.num_samples:
        return record
    return _with_signal(record, record.signal[:, :num_samples])


def _with_signal(record: ECGRecord, signal: np.ndarray, **fields: object) -> ECGRecord:
    """The record with other millivolts; its integers no longer stand for them."""
    return record.with_metadata(signal=np.asarray(signal, np.float32), digital=None, gain=None, offset=None, **fields)
