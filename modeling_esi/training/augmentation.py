"""Signal augmentation, batched on the device: what may change in an ECG without changing what it says.

Each part is one function of a batch `(B, leads, samples)` in mV and the generator that it draws from; 0 switches it
off. `SignalAugmentation` puts them together for the door's `augment`; `drop_leads` comes after the door, since it
clears the lead mask. The published recipe (ESI, https://arxiv.org/abs/2405.19366) has jitter and gain alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WANDER_HERTZ = (0.05, 0.5)  # breathing and slow movement
POWERLINE_HERTZ = (50.0, 60.0)


@dataclass(frozen=True)
class SignalAugmentation:
    """The parts in their order, each with its strength; the defaults are the published recipe.

    Attributes:
        jitter: standard deviation of noise on every sample, in mV.
        gain: standard deviation of a factor around 1 on every lead.
        amplitude: as `scale_amplitude`, standard deviation of a logarithm.
        wander, powerline, muscle: largest amplitude of each disturbance, in mV.
        shift: largest shift in time, in seconds.

    >>> augmentation = SignalAugmentation(jitter=0.0, gain=0.0, shift=0.5)
    >>> augment = augmentation.bind(100, torch.Generator().manual_seed(0))
    >>> augment(torch.zeros(2, 12, 250)).shape
    torch.Size([2, 12, 250])
    """

    jitter: float = 0.003
    gain: float = 0.003
    amplitude: float = 0.0
    wander: float = 0.0
    powerline: float = 0.0
    muscle: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        for name, strength in vars(self).items():
            if not 0 <= strength < math.inf:
                raise ValueError(f"{name}: expected a strength from 0 (off) upwards, got {strength!r}.")

    def bind(self, sampling_rate: float, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        """A function of signals alone, for `ESIFeatureExtractor(..., augment=...)`.

        `sampling_rate` in Hz is that of the door's output; `generator` must lie on the signals' device (None: torch's
        own of that device).
        """
        return lambda signal: self(signal, sampling_rate, generator)

    def __call__(self, signal: Tensor, sampling_rate: float, generator: torch.Generator | None = None) -> Tensor:
        """A new batch, `(B, leads, samples)` in mV; its input stays as it is."""
        if self.shift:
            signal = shift_time(signal, round(self.shift * sampling_rate), generator)
        if self.amplitude:
            signal = scale_amplitude(signal, self.amplitude, generator)
        if self.wander:
            signal = add_wander(signal, sampling_rate, self.wander, generator)
        if self.powerline:
            signal = add_powerline(signal, sampling_rate, self.powerline, generator)
        if self.muscle:
            signal = add_muscle_noise(signal, self.muscle, generator)
        return jitter_and_gain(self.jitter, self.gain, generator)(signal)


def jitter_and_gain(
    jitter: float = 0.003, gain: float = 0.003, generator: torch.Generator | None = None
) -> Callable[[Tensor], Tensor]:
    """The published augmentation (ESI, arXiv 2405.19366): noise on every sample, a factor around 1 on every lead.

    Args:
        jitter: Standard deviation in mV of Gaussian noise, drawn for every sample.
        gain: Standard deviation of a factor around 1, drawn for every lead.
        generator: On the signals' device; None: torch's own of that device.

    Returns:
        A function of signals `(B, leads, samples)` in mV.
    """

    def augment(signal: Tensor) -> Tensor:
        if jitter:
            signal = signal + jitter * _normal(signal.shape, signal, generator)
        if gain:
            signal = signal * (1 + gain * _normal((*signal.shape[:2], 1), signal, generator))
        return signal

    return augment


def scale_amplitude(signal: Tensor, log_std: float, generator: torch.Generator | None = None) -> Tensor:
    """Multiply each lead by `exp(N(-s^2 / 2, s^2))`: log-normal, so never negative, and 1 in expectation.

    Electrodes and bodies differ; one factor per lead. As in ECG Augment (Nonaka and Seita 2020), https://arxiv.org/abs/2009.04398.
    """
    return signal * torch.exp(log_std * _normal((*signal.shape[:2], 1), signal, generator) - log_std**2 / 2)


def add_wander(
    signal: Tensor, sampling_rate: float, largest: float, generator: torch.Generator | None = None, num_waves: int = 3
) -> Tensor:
    """Baseline wander: per record a sum of slow sines (0.05-0.5 Hz), which each lead sees with a factor of its own.

    The amplitude is drawn per record, uniform from 0 to `largest` mV. As in Mehari and Strodthoff 2022, section 3.4,
    https://arxiv.org/abs/2103.12676.
    """
    batch, leads, samples = signal.shape
    hertz = _uniform((batch, num_waves, 1), signal, generator, *WANDER_HERTZ)
    phase = _uniform((batch, num_waves, 1), signal, generator, 0.0, 2 * math.pi)
    clock = torch.arange(samples, device=signal.device) / sampling_rate
    wave = torch.sin(2 * math.pi * hertz * clock + phase).mean(dim=1, keepdim=True)  # (B, waves, S) -> (B, 1, S)
    strength = _uniform((batch, 1, 1), signal, generator, 0.0, largest)
    return signal + strength * _uniform((batch, leads, 1), signal, generator, -1.0, 1.0) * wave


def add_powerline(
    signal: Tensor, sampling_rate: float, largest: float, generator: torch.Generator | None = None
) -> Tensor:
    """A mains hum of 50 or 60 Hz per record, up to `largest` mV; nothing where the sampling rate cannot carry it.

    Source as `add_wander`.
    """
    mains = torch.tensor(POWERLINE_HERTZ, device=signal.device)
    batch, leads, samples = signal.shape
    hertz = mains[torch.randint(len(mains), (batch, 1, 1), device=signal.device, generator=generator)]
    phase = _uniform((batch, 1, 1), signal, generator, 0.0, 2 * math.pi)
    strength = _uniform((batch, leads, 1), signal, generator, 0.0, largest) * (2 * hertz < sampling_rate)
    clock = torch.arange(samples, device=signal.device) / sampling_rate
    return signal + strength * torch.sin(2 * math.pi * hertz * clock + phase)


def add_muscle_noise(signal: Tensor, largest: float, generator: torch.Generator | None = None) -> Tensor:
    """White noise; its standard deviation is drawn per lead, uniform from 0 to `largest` mV. Source as `add_wander`."""
    strength = _uniform((*signal.shape[:2], 1), signal, generator, 0.0, largest)
    return signal + strength * _normal(signal.shape, signal, generator)


def shift_time(signal: Tensor, largest: int, generator: torch.Generator | None = None) -> Tensor:
    """Turn each record by up to `largest` samples either way, all leads alike: what leaves one end enters the other.

    As in ECG Augment (Nonaka and Seita 2020), https://arxiv.org/abs/2009.04398.
    """
    batch, leads, samples = signal.shape
    shift = torch.randint(-largest, largest + 1, (batch, 1, 1), device=signal.device, generator=generator)
    source = (torch.arange(samples, device=signal.device) - shift) % samples
    return signal.gather(2, source.expand(batch, leads, samples))


def drop_leads(
    input_values: Tensor,
    lead_mask: Tensor,
    probability: float = 0.5,
    generator: torch.Generator | None = None,
    lead_probability: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Hide leads of some records, so that no finding hangs on a lead which a device may not have.

    Random lead masking of Oh et al. 2022, https://arxiv.org/abs/2203.06889, for a share of the records.

    Args:
        input_values: `(B, 12, S)`, after the door.
        lead_mask: `(B, 12)` bool, true where a lead is present.
        probability: chance of a record to lose leads at all.
        generator: on the device of `input_values`; None: torch's own.
        lead_probability: chance of each present lead to go, where the record loses any. One always stays.

    Returns:
        Both anew: what was dropped is exactly zero, and not in the mask.

    Raises:
        ValueError: for a probability outside 0..1.
    """
    for name, value in (("probability", probability), ("lead_probability", lead_probability)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a probability from 0 to 1, got {value!r}.")
    lottery = _uniform(lead_mask.shape, input_values, generator, 0.0, 1.0)
    chosen = _uniform((len(lead_mask), 1), input_values, generator, 0.0, 1.0) < probability
    luckiest = lottery.masked_fill(~lead_mask, -1.0).argmax(dim=1, keepdim=True)
    stays = (lottery >= lead_probability).scatter(1, luckiest, True)
    kept = lead_mask & (stays | ~chosen)
    return input_values.masked_fill(~kept[..., None], 0.0), kept


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, device=like.device, dtype=like.dtype, generator=generator)


def _uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None, low: float, high: float
) -> Tensor:
    return low + (high - low) * torch.rand(shape, device=like.device, dtype=like.dtype, generator=generator)
