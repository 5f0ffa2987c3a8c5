# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""Polyphase resampling from any rate to any rate, in torch.

The filter and the alignment are those of `scipy.signal.resample_poly` with its default Kaiser window
(https://docs.scipy.org/doc/scipy/reference/generated/scipy.signal.resample_poly.html); the sum runs over the
filter's taps, one elementwise product at a time. So a row's result depends on that row alone: the same bits come
out alone and in a batch, which matrix products and convolutions do not promise.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

MAX_FACTOR = 20_000
"""Largest factor of a ratio up / down. A ratio that needs larger ones is replaced by the nearest that does not."""

KAISER_BETA = 5.0
ZERO_CROSSINGS = 10  # of the sinc on each side of its centre, at the lower of the two rates


@torch.no_grad()
def resample(signal: Tensor, source_rate: float, target_rate: float) -> Tensor:
    """Signal at another sampling rate.

    Args:
        signal: `(..., samples)`, float32 or float64, without NaN.
        source_rate: its sampling rate in Hz.
        target_rate: the wanted sampling rate in Hz.

    Returns:
        `(..., ceil(samples * up / down))`, same dtype and device; `signal` itself where the rates are equal.
        Samples before the first and after the last count as 0, as in SciPy.

    Raises:
        ValueError: for a rate that is not positive and finite, or a signal that is not floating point.

    >>> resample(torch.tensor([0.0, 1.0, 0.0, -1.0] * 30), 4, 2).shape
    torch.Size([60])
    """
    up, down = resampling_ratio(source_rate, target_rate)
    return resample_poly(signal, up, down)


def resampling_ratio(source_rate: float, target_rate: float) -> tuple[int, int]:
    """`(up, down)` in lowest terms, so that `source_rate * up / down` is `target_rate`.

    Exact where both are at most 20,000, as for all whole rates up to 20,000 Hz. Otherwise the nearest such ratio,
    which is off by at most 5 parts in 100,000: half a millisecond at the end of ten seconds. 499.99 Hz, say, is
    taken for 500 Hz.

    >>> resampling_ratio(1000, 500), resampling_ratio(360, 500), resampling_ratio(1 / 0.003, 500)
    ((1, 2), (25, 18), (3, 2))
    """
    for name, rate in (("source_rate", source_rate), ("target_rate", target_rate)):
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"{name}: expected a positive number of Hz, got {rate!r}.")
    ratio = Fraction(float(target_rate)) / Fraction(float(source_rate))
    if max(ratio.numerator, ratio.denominator) > MAX_FACTOR:
        # the bound is on the larger of the two, whichever it is
        swap = ratio > 1
        ratio = (1 / ratio if swap else ratio).limit_denominator(MAX_FACTOR)
        if ratio == 0:
            raise ValueError(f"cannot resample from {source_rate} Hz to {target_rate} Hz: more than 1 to {MAX_FACTOR}.")
        ratio = 1 / ratio if swap else ratio
    return ratio.numerator, ratio.denominator


@torch.no_grad()
def resample_poly(signal: Tensor, up: int, down: int) -> Tensor:
    """`scipy.signal.resample_poly(signal, up, down, axis=-1)` with its default window and zero edges.

    Args:
        signal: `(..., samples)`, float32 or float64.
        up, down: positive whole numbers; the new rate is `up / down` of the old one.

    Returns:
        `(..., ceil(samples * up / down))`, same dtype and device; `signal` itself where up equals down.

    Raises:
        ValueError: for factors that are not positive, or a signal that is not float32 or float64.
    """
    if up < 1 or down < 1:
        raise ValueError(f"expected positive whole factors, got up={up}, down={down}.")
    if signal.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected a float32 or float64 signal, got {signal.dtype}: convert it first.")
    ratio = Fraction(up, down)
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return signal

    num_samples = signal.shape[-1]
    num_output = -(-num_samples * up // down)
    bank = torch.from_numpy(_filter_bank(up, down)).to(signal)  # (taps, up)
    num_taps = bank.shape[0]

    # output n is the sum over k of filter[n * down + centre - k * up] * signal[k]; `newest` is its largest k
    clock = torch.arange(num_output, device=signal.device) * down + ZERO_CROSSINGS * max(up, down)
    newest, phase = clock // up, clock % up
    before, after = num_taps - 1, max(0, (num_output * down + ZERO_CROSSINGS * max(up, down)) // up + 1 - num_samples)

    # (..., samples) -> (samples, rows): a tap then reads and writes whole rows
    rows = signal.reshape(-1, num_samples)
    padded = signal.new_zeros((before + num_samples + after, rows.shape[0]))
    padded[before : before + num_samples] = rows.t()
    total = signal.new_zeros((num_output, rows.shape[0]))
    term = torch.empty_like(total)
    for tap in _outermost_first(num_taps):
        torch.index_select(padded[before - tap :], 0, newest, out=term)
        total += term.mul_(bank[tap][phase][:, None])
    return total.t().reshape(*signal.shape[:-1], num_output)


def _outermost_first(num_taps: int) -> list[int]:
    # small coefficients are added first, which keeps the rounding error of a float32 sum near that of its last steps
    return sorted(range(num_taps), key=lambda tap: -abs(tap - (num_taps - 1) / 2))


@lru_cache(maxsize=32)
def _filter_bank(up: int, down: int) -> np.ndarray:
    """`bank[tap, phase] = filter[phase + tap * up]`, `(taps, up)` float64, of SciPy's low-pass filter times `up`."""
    longest = max(up, down)
    half = ZERO_CROSSINGS * longest
    offsets = np.arange(-half, half + 1)
    lowpass = np.sinc(offsets / longest) * np.kaiser(2 * half + 1, KAISER_BETA)
    lowpass *= up / lowpass.sum()
    num_taps = -(-lowpass.size // up)
    bank = np.zeros(num_taps * up)
    bank[: lowpass.size] = lowpass
    return bank.reshape(num_taps, up)
