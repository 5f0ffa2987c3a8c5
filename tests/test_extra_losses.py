"""Losses of training alone: by numbers computed by hand, and by what they must not see."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modeling_esi.losses import contrastive_loss, sigmoid_contrastive_loss
from modeling_esi.training.extra_losses import (
    MaskedFrames,
    PairwiseSigmoid,
    TokenFrameAlignment,
    multi_positive_loss,
)
from modeling_esi.training.weight_average import WeightAverage


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- several true pairs for a text


def test_multi_positive_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    positives = torch.tensor([[True, True], [False, True]])
    row_0 = -(2.0 + 0.0) / 2 + math.log(math.e**2 + 1)  # both share the target
    row_1 = -1.0 + math.log(2 * math.e)
    column_0 = -2.0 + math.log(math.e**2 + math.e)
    column_1 = -(0.0 + 1.0) / 2 + math.log(1 + math.e)
    expected = ((row_0 + row_1) / 2 + (column_0 + column_1) / 2) / 2
    assert multi_positive_loss(logits, positives).item() == pytest.approx(expected, abs=1e-6)


def test_multi_positive_loss_of_pairs_alone_is_the_contrastive_loss():
    ecg, text = (F.normalize(torch.randn(7, 5, generator=seeded(i)), dim=1) for i in (0, 1))
    mine = multi_positive_loss(3.0 * text @ ecg.T, torch.eye(7, dtype=torch.bool))
    assert mine.item() == pytest.approx(contrastive_loss(ecg, text, torch.tensor(3.0)).item(), abs=1e-6)
    keys = torch.tensor([0, 1, 0, 2, 3, 1, 0])
    mine = multi_positive_loss(3.0 * text @ ecg.T, keys[:, None] == keys[None, :])
    assert mine.item() == pytest.approx(contrastive_loss(ecg, text, torch.tensor(3.0), text_key=keys).item(), abs=1e-6)


def test_pairwise_sigmoid_by_hand_and_as_siglip_where_only_pairs_are_positive():
    logits, positives = torch.tensor([[2.0, 0.0]]), torch.tensor([[True, False]])
    expected = (math.log(1 + math.exp(-(2 - 1))) + math.log(1 + math.exp(0 - 1))) / 2
    assert PairwiseSigmoid(-1.0)(logits, positives).item() == pytest.approx(expected, abs=1e-6)
    ecg, text = (F.normalize(torch.randn(7, 5, generator=seeded(i)), dim=1) for i in (0, 1))
    mine = PairwiseSigmoid()(10.0 * text @ ecg.T, torch.eye(7, dtype=torch.bool))
    siglip = sigmoid_contrastive_loss(ecg, text, torch.tensor(10.0), torch.tensor(-10.0))
    assert mine.item() == pytest.approx(siglip.item(), abs=1e-6)


# ---------------------------------------------------------------- masked frames


def test_hidden_frames_are_zero_come_in_spans_and_make_the_share_asked_for():
    part = MaskedFrames(hidden_size=9, num_leads=3, stride=4, ratio=0.3, span=2)
    signal = torch.ones(500, 3, 4 * 31 + 3)
    seen, hidden = part.hide(signal, seeded())
    assert hidden.shape == (500, 31) and signal.all()
    assert hidden.float().mean() == pytest.approx(0.28, abs=0.02)  # spans may overlap
    gone = hidden.repeat_interleave(4, dim=1)
    assert torch.equal(seen[:, :, :124] == 0, gone[:, None].expand(-1, 3, -1)) and seen[..., 124:].all()
    alone = hidden[:, 1:-1] & ~hidden[:, :-2] & ~hidden[:, 2:]
    assert not alone.any()
    assert torch.equal(hidden, part.hide(signal, seeded())[1])


def test_the_loss_counts_hidden_frames_of_present_leads_alone_by_hand():
    part = MaskedFrames(hidden_size=1, num_leads=2, stride=2, span=1)
    nn.init.zeros_(part.head.weight)
    with torch.no_grad():
        part.head.bias.copy_(torch.tensor([1.0, -1.0, 5.0, 5.0]))  # lead 0: 1 and -1; lead 1: 5 and 5
    signal = torch.tensor([[[9.0, 9.0, 3.0, 1.0], [0.0, 0.0, 7.0, 7.0]]])
    hidden = torch.tensor([[False, True]])
    spread = math.sqrt(2.0 + 0.01)  # unbiased variance of 3 and 1 is 2
    error_0 = (1 - 1 / spread) ** 2
    loss = part(torch.zeros(1, 2, 1), signal, hidden, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(error_0, abs=1e-6)
    both = part(torch.zeros(1, 2, 1), signal, hidden)
    assert both.item() == pytest.approx((error_0 + 25.0) / 2, abs=1e-5)
    assert part(torch.zeros(1, 2, 1), signal, torch.zeros(1, 2, dtype=torch.bool)).item() == 0.0
    padded = part(torch.zeros(1, 2, 1), signal, hidden, frame_mask=torch.tensor([[True, False]]))
    assert padded.item() == 0.0
    batch = torch.cat([signal, signal]), torch.cat([hidden, torch.zeros_like(hidden)])
    assert part(torch.zeros(2, 2, 1), *batch).item() == pytest.approx((error_0 + 25.0) / 4, abs=1e-5)


def test_masked_frames_refuse_a_share_that_makes_no_sense():
    with pytest.raises(ValueError, match="expected 0 < ratio < 1"):
        MaskedFrames(hidden_size=4, ratio=1.0)


# ---------------------------------------------------------------- tokens and frames


def identity_alignment(width=3, scale=2.0):
    part = TokenFrameAlignment(width, width, width, scale)
    for projection in (part.ecg_projection, part.text_projection):
        nn.init.eye_(projection.weight)
    return part


def test_alignment_takes_the_best_frame_of_each_token_by_hand():
    x, y, z = torch.eye(3)
    tokens = torch.stack([torch.stack([x, y])])  # one text of two tokens
    frames = torch.stack([torch.stack([x, x, z]), torch.stack([y, x, -z])])  # two ECGs of three frames
    logits = identity_alignment().logits_per_text(frames, None, tokens, torch.ones(1, 2))
    # ECG 0: tokens find (1, 0), frames find (1, 1, 0). ECG 1: (1, 1) and (1, 1, 0).
    assert torch.allclose(logits, 2.0 * torch.tensor([[(1 / 2 + 2 / 3) / 2, (1 + 2 / 3) / 2]]))


def test_alignment_sees_neither_padding_tokens_nor_masked_frames():
    part = identity_alignment(5)
    tokens, frames = torch.randn(4, 6, 5, generator=seeded()), torch.randn(4, 7, 5, generator=seeded(1))
    attention, frame_mask = torch.ones(4, 6), torch.ones(4, 7, dtype=torch.bool)
    attention[1, 3:], frame_mask[2, 5:] = 0, False
    before = part(frames, frame_mask, tokens, attention)
    tokens[1, 3:], frames[2, 5:] = 100.0, -100.0
    assert torch.equal(part(frames, frame_mask, tokens, attention), before)
    alone = part.logits_per_text(frames[2:3, :5], None, tokens[1:2, :3], torch.ones(1, 3))
    together = part.logits_per_text(frames, frame_mask, tokens, attention)
    assert torch.allclose(alone[0, 0], together[1, 2], atol=1e-6)


def test_alignment_falls_when_trained():
    torch.manual_seed(0)
    part, frames, tokens = TokenFrameAlignment(6, 5, 8), torch.randn(4, 3, 6), torch.randn(4, 2, 5)
    optimizer = torch.optim.Adam(part.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        losses.append(part(frames, None, tokens, torch.ones(4, 2)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 1.0 and losses[-1] < 0.3 * losses[0]


# ---------------------------------------------------------------- the mean of the weights


def test_weight_average_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = WeightAverage(layer, decay=0.15)
    nn.init.constant_(layer.weight, 2.0)
    average.update(layer)  # d = min(0.15, 1/10)
    assert average.weights()["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    average.update(layer)  # d = min(0.15, 2/11)
    assert average.weights()["weight"].item() == pytest.approx(0.15 * 1.9 + 0.85 * 2)
    assert layer.weight.item() == 2.0


def test_weight_average_goes_on_where_it_was_and_copies_what_is_no_number():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    one, other = WeightAverage(model, 0.9), None
    for step in range(6):
        if step == 3:
            other = WeightAverage(model, 0.9)
            other.load_state_dict(one.state_dict())
        model(torch.randn(4, 2)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        for average in (one, other):
            if average is not None:
                average.update(model)
    assert all(torch.equal(value, other.weights()[name]) for name, value in one.weights().items())
    assert one.weights()["1.num_batches_tracked"] == 6
    with pytest.raises(ValueError, match="other names"):
        one.load_state_dict({"num_updates": torch.tensor(1), "average.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected 0 <= decay < 1"):
        WeightAverage(model, 1.0)
