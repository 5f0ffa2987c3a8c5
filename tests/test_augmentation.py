"""Augmentation: what each part does to a signal, by its physics; the seed decides everything; nothing changes at 0."""

import numpy as np
import pytest
import torch

from modeling_esi import ESIFeatureExtractor
from modeling_esi.configuration_esi import LEADS
from modeling_esi.training.augmentation import (
    SignalAugmentation,
    add_muscle_noise,
    add_powerline,
    add_wander,
    drop_leads,
    jitter_and_gain,
    scale_amplitude,
    shift_time,
)

RATE = 250
STRONG = SignalAugmentation(
    jitter=0.01, gain=0.01, amplitude=0.2, wander=0.3, powerline=0.1, muscle=0.05, shift=0.4
)  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spectrum(signal, rate):
    return torch.fft.rfftfreq(signal.shape[-1], 1 / rate), torch.fft.rfft(signal).abs()


def test_the_seed_decides_everything_and_the_input_stays():
    signal = torch.randn(5, 12, 333, generator=seeded(1))
    before = signal.clone()
    torch.manual_seed(0)
    one = STRONG.bind(RATE, seeded())(signal)
    torch.manual_seed(99)
    assert torch.equal(one, STRONG.bind(RATE, seeded())(signal))  # torch's own generator has no part in it
    assert not torch.equal(one, STRONG.bind(RATE, seeded(1))(signal))
    assert torch.equal(signal, before) and one.shape == signal.shape


def test_nothing_happens_at_strength_0():
    signal = torch.randn(3, 12, 77)
    assert torch.equal(SignalAugmentation(jitter=0.0, gain=0.0)(signal, RATE), signal)


@pytest.mark.parametrize("name", vars(SignalAugmentation()))
def test_a_strength_below_0_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected a strength from 0"):
        SignalAugmentation(**{name: -0.1})


def test_shift_moves_every_peak_of_a_record_alike_and_loses_none():
    signal = torch.zeros(64, 3, 200)
    signal[:, :, 100], signal[:, :, 130] = 1.0, 0.5
    shifted = shift_time(signal, 40, seeded())
    peaks = shifted.argmax(dim=2)
    assert (peaks == peaks[:, :1]).all()  # all leads alike
    moved = peaks[:, 0] - 100
    assert moved.min() < -30 and moved.max() > 30 and moved.abs().max() <= 40
    for record, first in zip(shifted, peaks[:, 0], strict=True):
        assert record[0, (first + 30) % 200] == 0.5 and record.sum() == signal[0].sum()


def test_amplitude_is_1_in_expectation_and_keeps_the_shape_of_a_lead():
    signal = torch.randn(1, 1, 50, generator=seeded(3)).expand(20_000, 2, 50)
    scaled = scale_amplitude(signal, 0.5, seeded())
    factors = (scaled / signal).mean(dim=2)
    assert torch.allclose(scaled, factors[..., None] * signal, atol=1e-5)
    assert factors.min() > 0 and abs(factors.mean() - 1) < 0.01
    assert abs(factors.log().std() - 0.5) < 0.01
    assert np.corrcoef(factors[:, 0], factors[:, 1])[0, 1] == pytest.approx(0, abs=0.03)


def test_jitter_and_gain_are_the_published_ones():
    flat, ones = torch.zeros(40, 12, 500), torch.ones(4000, 12, 3)
    assert jitter_and_gain(0.003, 0.003, seeded())(flat).std() == pytest.approx(0.003, rel=0.02)
    gained = jitter_and_gain(0.0, 0.003, seeded())(ones)
    assert torch.equal(gained[..., 0], gained[..., 2])  # a factor for the whole lead
    assert gained.std() == pytest.approx(0.003, rel=0.02) and gained.mean() == pytest.approx(1, abs=1e-4)


def test_wander_is_slow_and_one_movement_seen_by_all_leads():
    wander = add_wander(torch.zeros(200, 12, 20 * RATE), RATE, 0.3, seeded())
    assert 0.05 < wander.abs().max() <= 0.3
    hertz, power = spectrum(wander - wander.mean(-1, keepdim=True), RATE)
    assert power[..., hertz > 1.5].square().sum() < 0.01 * power.square().sum()
    for record in wander[:5]:
        assert torch.linalg.matrix_rank(record.double(), rtol=1e-4) == 1


def test_powerline_hums_at_50_or_60_hertz_and_not_where_it_cannot():
    hum = add_powerline(torch.zeros(200, 2, 2 * RATE), RATE, 0.1, seeded())
    hertz, power = spectrum(hum, RATE)
    assert set(hertz[power.argmax(dim=2)].unique().tolist()) == {50.0, 60.0}
    assert 0.08 < hum.abs().max() <= 0.1
    assert torch.equal(add_powerline(torch.zeros(9, 2, 200), 100, 0.1, seeded()), torch.zeros(9, 2, 200))


def test_muscle_noise_differs_in_strength_between_leads():
    noise = add_muscle_noise(torch.zeros(300, 2, 1000), 0.2, seeded()).std(dim=2)
    assert noise.max() < 0.22 and noise.min() < 0.02 and noise.mean() == pytest.approx(0.1, rel=0.1)


def test_augmentation_goes_through_the_door_before_scaling():
    door = ESIFeatureExtractor(sampling_rate=100, duration=2.5, scaling="lead")
    signal = torch.randn(3, 12, 1000, generator=seeded(2))
    inputs = [
        door.transform(signal, 100, LEADS, crop="random", generator=seeded(), augment=STRONG.bind(100, seeded(4)))
        for _ in range(2)
    ]
    values = inputs[0]["input_values"]
    assert values.shape == (3, 12, 250) and torch.equal(values, inputs[1]["input_values"])
    assert torch.allclose(values.mean(-1), torch.zeros(3, 12), atol=1e-5)


# ---------------------------------------------------------------- leads


def test_a_dropped_lead_is_zero_and_masked_and_the_others_stay():
    values, mask = torch.randn(400, 12, 17, generator=seeded(5)), torch.ones(400, 12, dtype=torch.bool)
    mask[::7, 3] = False
    values = values.masked_fill(~mask[..., None], 0.0)
    dropped, kept = drop_leads(values, mask, 0.5, seeded())
    assert (dropped[~kept] == 0).all() and torch.equal(dropped[kept], values[kept])
    assert not (kept & ~mask).any() and kept.any(dim=1).all()
    lost = (kept != mask).any(dim=1)
    assert lost.float().mean() == pytest.approx(0.5, abs=0.08)  # so many records lose leads,
    assert kept[lost].float().mean() == pytest.approx(0.5, abs=0.05)  # about half of theirs


def test_one_lead_always_stays_though_all_should_go():
    mask = torch.zeros(50, 12, dtype=torch.bool)
    mask[:, [2, 7]] = True
    dropped, kept = drop_leads(torch.ones(50, 12, 4), mask, 1.0, seeded(), lead_probability=1.0)
    assert (kept.sum(dim=1) == 1).all() and not (kept & ~mask).any()
    assert kept[:, 2].any() and kept[:, 7].any()  # by lot
    assert (dropped.sum(dim=(1, 2)) == 4).all()


def test_no_lead_goes_at_0_and_the_seed_decides():
    values, mask = torch.randn(9, 12, 5), torch.ones(9, 12, dtype=torch.bool)
    same, kept = drop_leads(values, mask, 0.0, seeded())
    assert torch.equal(same, values) and torch.equal(kept, mask)
    one, other = (drop_leads(values, mask, 0.5, seeded(8))[1] for _ in range(2))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="probability: expected a probability from 0 to 1, got 1.5"):
        drop_leads(values, mask, 1.5)


def test_a_record_without_any_lead_stays_without():
    mask = torch.zeros(4, 12, dtype=torch.bool)
    values, kept = drop_leads(torch.zeros(4, 12, 3), mask, 1.0, seeded())
    assert not kept.any() and not values.any()
