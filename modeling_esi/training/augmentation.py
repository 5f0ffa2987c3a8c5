"""Signal augmentation of the published recipe: a little noise on every sample, a little gain on every lead."""

from collections.abc import Callable

import torch


def jitter_and_gain(jitter: float = 0.003, gain: float = 0.003) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make an augmentation for `ESIFeatureExtractor(..., augment=...)`.

    Args:
        jitter: Standard deviation in mV of Gaussian noise, drawn for every sample.
        gain: Standard deviation of a factor around 1, drawn for every lead.

    Returns:
        A function of signals `(B, 12, S)` in mV, drawing from torch's global generator of their device.
    """

    def augment(signal: torch.Tensor) -> torch.Tensor:
        signal = signal + jitter * torch.randn_like(signal)
        return signal * (1 + gain * torch.randn(*signal.shape[:2], 1, device=signal.device))

    return augment
