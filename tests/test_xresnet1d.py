"""XResNet1d-101 against straightforward formulas, its published size, and what padding must not change."""

import math

import pytest
import torch
from tiny_esi import XRESNET, randomise
from torch.nn import functional as F

from modeling_esi import ESIEcgConfig, ESIEcgModel
from modeling_esi.xresnet1d import XResNetBlock


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny_encoder(**kwargs) -> ESIEcgModel:
    return randomise(ESIEcgModel(ESIEcgConfig(**XRESNET | kwargs))).eval()


def test_the_published_size():
    model = ESIEcgModel(ESIEcgConfig(signal_encoder="xresnet1d101"))
    assert model.num_parameters() == 1_804_672
    inner_widths = {block.convs[1].conv.out_channels for stage in model.encoder.stages for block in stage}
    assert inner_widths == {64}


def test_ten_seconds_at_500_hz_give_157_frames_and_twice_the_channels():
    output = tiny_encoder()(torch.zeros(1, 12, 5000), output_hidden_states=True)
    assert [state.shape[1] for state in output.hidden_states] == [1250, 625, 313, 157]
    assert output.last_hidden_state.shape == (1, 157, 44)
    assert output.pooler_output.shape == (1, 88)


def reference(model: ESIEcgModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder of model.md section 1 as plain formulas in evaluation: `(B, 12, S)` to frames and pooled."""
    p = model.encoder.state_dict()

    def layer(x, name, stride=1, act=True):
        weight = p[f"{name}.conv.weight"]
        x = F.conv1d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)
        mean, var = p[f"{name}.norm.running_mean"][:, None], p[f"{name}.norm.running_var"][:, None]
        x = (x - mean) / (var + 1e-5).sqrt() * p[f"{name}.norm.weight"][:, None] + p[f"{name}.norm.bias"][:, None]
        return x.clamp(min=0) if act else x

    for i, stride in enumerate((2, 1, 1)):
        x = layer(x, f"stem.{i}", stride)
    padded = F.pad(x, (1, 1), value=-math.inf)
    x = torch.stack([padded[:, :, i : i + x.shape[2] : 2] for i in range(3)]).amax(0)
    for s, depth in enumerate(model.config.depths):
        for b in range(depth):
            name, stride = f"stages.{s}.{b}", 2 if s > 0 and b == 0 else 1
            y = layer(layer(x, f"{name}.convs.0"), f"{name}.convs.1", stride)
            y = layer(y, f"{name}.convs.2", act=False)
            if stride == 2:
                last = x[:, :, -1:] if x.shape[2] % 2 else x[:, :, :0]
                even = x[:, :, : x.shape[2] // 2 * 2]
                x = torch.cat([(even[:, :, ::2] + even[:, :, 1::2]) / 2, last], dim=2)
            if f"{name}.shortcut.conv.weight" in p:
                x = layer(x, f"{name}.shortcut", act=False)
            x = (x + y).clamp(min=0)
    return x.transpose(1, 2), torch.cat([x.amax(2), x.mean(2)], dim=1)


@pytest.mark.parametrize("num_samples", [320, 501, 677])
def test_encoder_is_the_formulas(num_samples):
    model, x = tiny_encoder().double(), torch.randn(2, 12, num_samples, dtype=torch.float64)
    output = model(x)
    frames, pooled = reference(model, x)
    torch.testing.assert_close(output.last_hidden_state, frames, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.pooler_output, pooled, rtol=1e-9, atol=1e-9)
    assert output.pooler_output.std() > 0.1


def test_maximum_comes_before_mean():
    output = tiny_encoder()(torch.randn(2, 12, 320))
    frames = output.last_hidden_state
    torch.testing.assert_close(output.pooler_output[:, :44], frames.amax(1))
    torch.testing.assert_close(output.pooler_output[:, 44:], frames.mean(1))


def test_a_block_has_a_shortcut_convolution_only_where_channels_differ():
    assert XResNetBlock(64, 256, kernel=5, stride=1).shortcut is not None
    assert XResNetBlock(256, 256, kernel=5, stride=2).shortcut is None


def test_fresh_weights_are_kaiming_normal_and_blocks_start_as_their_shortcuts():
    torch.manual_seed(0)
    model = ESIEcgModel(ESIEcgConfig(signal_encoder="xresnet1d101"))
    for name, parameter in model.named_parameters():
        if name.endswith("convs.2.norm.weight"):
            assert (parameter == 0).all(), name
        elif name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("norm.bias"):
            assert torch.equal(parameter, torch.full_like(parameter, 1e-3)), name
        else:
            assert parameter.std().item() == pytest.approx((2 / parameter[0].numel()) ** 0.5, rel=0.15), name


@pytest.mark.parametrize("hidden_sizes", [XRESNET["hidden_sizes"], [64, 64, 32, 32]])
@pytest.mark.parametrize("length", [64, 101, 331, 640, 676])
def test_a_padded_record_equals_the_same_record_alone(length, hidden_sizes):
    model, x = tiny_encoder(hidden_sizes=hidden_sizes), torch.randn(3, 12, 677)
    sample_mask = torch.ones(3, 677, dtype=torch.bool)
    sample_mask[1, length:] = False
    padded, alone = model(x, sample_mask=sample_mask), model(x[1:2, :, :length])
    frames = alone.last_hidden_state.shape[1]
    assert padded.frame_mask[1].sum() == frames
    torch.testing.assert_close(padded.pooler_output[1], alone.pooler_output[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded.last_hidden_state[1, :frames], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_a_whole_record_gives_the_same_bits_with_and_without_a_mask():
    model, x = tiny_encoder(), torch.randn(3, 12, 677)
    sample_mask = torch.ones(3, 677, dtype=torch.bool)
    sample_mask[2, 300:] = False
    plain, masked = model(x), model(x, sample_mask=sample_mask)
    for name in ("last_hidden_state", "pooler_output"):
        assert torch.equal(plain[name][:2], masked[name][:2]), name


def test_a_record_that_is_all_padding_spoils_nothing():
    model, x = tiny_encoder(), torch.randn(2, 12, 320)
    sample_mask = torch.ones(2, 320, dtype=torch.bool)
    sample_mask[1] = False
    output = model(x, sample_mask=sample_mask)
    assert output.pooler_output.isfinite().all()
    assert torch.equal(output.pooler_output[0], model(x).pooler_output[0])


def test_running_statistics_move_in_training_only():
    model, x = tiny_encoder(), torch.randn(4, 12, 320)
    norm = model.encoder.stem[0].norm
    before = norm.running_mean.clone()
    model(x)
    assert torch.equal(norm.running_mean, before)
    model.train()(x)
    expected = 0.9 * before + 0.1 * model.encoder.stem[0].conv(x).mean(dim=(0, 2))
    torch.testing.assert_close(norm.running_mean, expected)
