"""Learning rates by hand, and which parameters decay."""

import numpy as np
import pytest
import torch
from torch import nn

from modeling_esi.training.schedule import Schedule, build_optimizer


def factors(name, steps_per_epoch, epochs, **options):
    schedule = Schedule(name, steps_per_epoch, epochs, **options)
    return [schedule.factor(step) for step in range(schedule.total_steps)]


def test_warmup_step_decay_by_hand():
    expected = [0.25, 0.5, 0.75, 1.0] + 6 * [1.0] + 6 * [0.1] + 2 * [0.01]
    np.testing.assert_allclose(
        factors("warmup_step_decay", 2, 9, warmup_epochs=2, decay_epochs=3, decay_factor=0.1), expected
    )


def test_the_published_schedule_over_thirty_epochs():
    """Warm-up for 5 epochs, then x0.1 every 10: epoch by epoch, one step each."""
    got = factors("warmup_step_decay", 1, 30)
    np.testing.assert_allclose(got, [0.2, 0.4, 0.6, 0.8, 1.0] + 10 * [1.0] + 10 * [0.1] + 5 * [0.01])


def test_linear_and_cosine_by_hand():
    linear = factors("linear", 10, 1, warmup_ratio=0.2)
    np.testing.assert_allclose(linear, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = factors("cosine", 4, 1, warmup_ratio=0.0)
    np.testing.assert_allclose(cosine, [1.0, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5])


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="expected warmup_step_decay, linear or cosine, got 'constant'"):
        Schedule("constant", 1, 1)


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, lr=0.5, weight_decay=0.1).step()  # no gradient: only decay, by lr * weight_decay
    torch.testing.assert_close(model[0].weight.detach(), torch.full((5, 3), 0.95))
    assert all(torch.equal(p.detach(), torch.ones(5)) for p in (model[0].bias, model[1].weight, model[1].bias))


def test_the_fused_optimizer_computes_adamw():
    """Against the formula of https://arxiv.org/abs/1711.05101, algorithm 2, first step: m / sqrt(v) is the sign."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    model.weight.grad = torch.tensor([[3.0, -0.5]])
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.0)
    assert optimizer.param_groups[0]["fused"]
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[0.9, -1.9]]))
