"""ConvNeXt V2 along time against straightforward formulas, and what padding must not change."""

import math

import pytest
import torch
from tiny_esi import CONVNEXT, randomise
from torch.nn import functional as F

from modeling_esi import ESIEcgConfig, ESIEcgModel
from modeling_esi.convnextv2_1d import ConvNeXtV2Block, GlobalResponseNorm, TimeNorm


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny_encoder(norm_type: str = "channel", **kwargs) -> ESIEcgModel:
    return randomise(ESIEcgModel(ESIEcgConfig(norm_type=norm_type, **CONVNEXT | kwargs))).eval()


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def identity(width: int) -> torch.nn.Linear:
    linear = torch.nn.Linear(width, width)
    linear.weight.data, linear.bias.data = torch.eye(width), torch.zeros(width)
    return linear


def test_global_response_norm_by_hand():
    norm = GlobalResponseNorm(2)
    norm.gamma.data, norm.beta.data = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.25])
    first, second = (gelu(3.0), gelu(4.0)), (gelu(1.0), gelu(-0.5))
    energies = math.hypot(*first), math.hypot(*second)
    level = sum(energies) / 2 + 1e-6
    expected = [
        [2.0 * a * energies[0] / level + 0.5 + a, -1.0 * b * energies[1] / level + 0.25 + b]
        for a, b in zip(first, second, strict=True)
    ]
    y = norm(torch.tensor([[[3.0, 1.0], [4.0, -0.5]]]), identity(2), identity(2))
    torch.testing.assert_close(y[0], torch.tensor(expected))


def test_global_response_norm_does_not_count_masked_frames():
    norm, x = randomise(GlobalResponseNorm(5)), torch.randn(2, 7, 5)
    frame_mask = torch.arange(7) < torch.tensor([[7], [4]])
    linears = identity(5), identity(5)
    torch.testing.assert_close(norm(x, *linears, frame_mask)[1, :4], norm(x[1:, :4], *linears)[0])


def test_time_norm_divides_by_the_unbiased_deviation_plus_epsilon():
    norm = TimeNorm(2, eps=0.25)
    norm.weight.data, norm.bias.data = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 10.0])
    x = torch.tensor([[[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]]])  # mean 3; squares 4 1 0 9; 14 / 3
    std = math.sqrt(14 / 3)
    expected = [[2 * (value - 3) / (std + 0.25), 10.0] for value in (1, 2, 3, 6)]
    torch.testing.assert_close(norm(x)[0], torch.tensor(expected))


def test_time_norm_does_not_count_masked_frames():
    norm, x = randomise(TimeNorm(5)), torch.randn(2, 7, 5)
    frame_mask = torch.arange(7) < torch.tensor([[7], [4]])
    y = norm(x, frame_mask)
    torch.testing.assert_close(y[1, :4], norm(x[1:, :4])[0])
    torch.testing.assert_close(y[0], norm(x[:1])[0])


def test_flat_signals_give_finite_gradients_in_either_norm():
    for norm_type in ("time", "channel"):
        encoder = tiny_encoder(norm_type)
        sample_mask = (torch.arange(320) < 200).expand(2, -1)
        for mask in (None, sample_mask):
            encoder.zero_grad()
            encoder(torch.zeros(2, 12, 320), sample_mask=mask).pooler_output.square().sum().backward()
            assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def reference(model: ESIEcgModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder of model.md section 1 as plain formulas, channels first: `(B, 12, S)` to frames and pooled."""
    p, norm_type = model.encoder.state_dict(), model.config.norm_type

    def layer_norm(x, name):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-6).sqrt() * p[f"{name}.weight"][:, None] + p[f"{name}.bias"][:, None]

    def time_norm(x, name):
        y = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True, unbiased=True) + 1e-6)
        return y * p[f"{name}.weight"][:, None] + p[f"{name}.bias"][:, None]

    def linear(x, name):
        return torch.einsum("oi,bit->bot", p[f"{name}.weight"], x) + p[f"{name}.bias"][:, None]

    outer_norm = {"channel": layer_norm, "time": time_norm}[norm_type]
    for s, depth in enumerate(model.config.depths):
        name, stride = f"downsamples.{s}", 4 if s == 0 else 2
        x = x if s == 0 else outer_norm(x, f"{name}.norm")
        x = F.conv1d(x, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], stride=stride)
        x = outer_norm(x, f"{name}.norm") if s == 0 else x
        for b in range(depth):
            name = f"stages.{s}.{b}"
            y = F.conv1d(x, p[f"{name}.dwconv.weight"], p[f"{name}.dwconv.bias"], padding=3, groups=x.shape[1])
            y = linear(layer_norm(y, f"{name}.norm"), f"{name}.pwconv1")
            y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
            energy = y.square().sum(2, keepdim=True).sqrt()
            response = energy / (energy.mean(1, keepdim=True) + 1e-6)
            y = p[f"{name}.grn.gamma"][:, None] * (y * response) + p[f"{name}.grn.beta"][:, None] + y
            x = x + linear(y, f"{name}.pwconv2")
    return x.transpose(1, 2), layer_norm(x.mean(2, keepdim=True), "norm")[:, :, 0]


@pytest.mark.parametrize("norm_type", ["channel", "time"])
@pytest.mark.parametrize("num_samples", [320, 677])
def test_encoder_is_the_formulas(norm_type, num_samples):
    model, x = tiny_encoder(norm_type).double(), torch.randn(2, 12, num_samples, dtype=torch.float64)
    output = model(x)
    frames, pooled = reference(model, x)
    torch.testing.assert_close(output.last_hidden_state, frames, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.pooler_output, pooled, rtol=1e-9, atol=1e-9)
    assert output.pooler_output.std() > 0.1  # the formulas were put to a real test


def test_ten_seconds_at_500_hz_give_156_frames():
    output = tiny_encoder()(torch.zeros(1, 12, 5000), output_hidden_states=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [
        (1, 1250, 8), (1, 625, 16), (1, 312, 24), (1, 156, 40),
    ]  # fmt: skip
    assert output.last_hidden_state.shape == (1, 156, 40)
    assert output.pooler_output.shape == (1, 40)


def parameters_by_hand(depths: list[int], widths: list[int]) -> int:
    stem = 12 * 4 * widths[0] + widths[0] + 2 * widths[0]
    downsampling = sum(2 * a + 2 * a * b + b for a, b in zip(widths[:-1], widths[1:], strict=True))
    block = [(7 * c + c) + 2 * c + (4 * c * c + 4 * c) + 8 * c + (4 * c * c + c) for c in widths]
    return stem + downsampling + sum(d * n for d, n in zip(depths, block, strict=True)) + 2 * widths[-1]


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnextv2_base", "convnextv2_huge"])
@pytest.mark.parametrize("norm_type", ["channel", "time"])
def test_number_of_parameters(name, norm_type):
    config = ESIEcgConfig(signal_encoder=name, norm_type=norm_type)
    with torch.device("meta"):
        count = ESIEcgModel(config).num_parameters()
    assert count == parameters_by_hand(config.depths, config.hidden_sizes)
    if name == "convnextv2_base":
        assert round(count / 1e6, 2) == 85.56


def test_fresh_weights_are_truncated_normal_and_biases_and_grn_start_at_zero():
    torch.manual_seed(0)
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [32, 48, 64, 96]}
    model = ESIEcgModel(ESIEcgConfig(**sizes, initializer_range=1.5))
    for name, parameter in model.named_parameters():
        if ".norm." in name or name == "encoder.norm.weight":
            expected = 1.0 if name.endswith("weight") else 0.0
            assert (parameter == expected).all(), name
        elif ".grn." in name or name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            # Cut at -2 and 2: of a normal with deviation 1.5 that leaves a deviation of 1.02.
            assert parameter.std().item() == pytest.approx(1.02, rel=0.1), name
            assert parameter.abs().max() <= 2.0, name
    small = ESIEcgModel(ESIEcgConfig(**sizes)).encoder.stages[3][0].pwconv1.weight
    assert small.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("norm_type", ["channel", "time"])
@pytest.mark.parametrize("length", [64, 100, 333, 640, 676])
def test_a_padded_record_equals_the_same_record_alone(norm_type, length):
    model, x = tiny_encoder(norm_type), torch.randn(3, 12, 677)
    sample_mask = torch.ones(3, 677, dtype=torch.bool)
    sample_mask[1, length:] = False
    padded, alone = model(x, sample_mask=sample_mask), model(x[1:2, :, :length])
    frames = alone.last_hidden_state.shape[1]
    assert padded.frame_mask[1].sum() == frames
    torch.testing.assert_close(padded.pooler_output[1], alone.pooler_output[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded.last_hidden_state[1, :frames], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_without_mask_padding_only_the_content_is_blanked():
    model, x = tiny_encoder(mask_padding=False), torch.randn(2, 12, 640)
    sample_mask = (torch.arange(640) < 320).expand(2, -1)
    output = model(x, sample_mask=sample_mask)
    assert output.frame_mask is None
    torch.testing.assert_close(output.pooler_output, model(x * sample_mask[:, None]).pooler_output, rtol=0, atol=0)


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


def test_drop_path_rises_linearly_with_depth_and_keeps_the_mean():
    model = tiny_encoder(drop_path_rate=0.4)
    blocks = [block for stage in model.encoder.stages for block in stage]
    assert [block.drop_path_rate for block in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    block, y = blocks[-1].train(), torch.ones(20_000, 1, 1)
    torch.manual_seed(0)
    dropped = block._drop_path(y)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    x = torch.randn(2, 12, 320)
    assert torch.equal(model.eval()(x).pooler_output, model(x).pooler_output)


def test_a_dropped_block_is_its_residual():
    config = ESIEcgConfig(**CONVNEXT)
    block = randomise(ConvNeXtV2Block(config, 8, drop_path_rate=1 - 1e-9)).train()
    x = torch.randn(2, 20, 8)
    assert torch.equal(block(x, None), x)


@pytest.mark.parametrize("shape", [(12, 640), (2, 640, 12), (2, 11, 640), (2, 12, 31)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="input_values: expected"):
        tiny_encoder()(torch.zeros(shape))


def test_the_shortest_record_makes_one_frame():
    assert tiny_encoder()(torch.randn(1, 12, 32)).last_hidden_state.shape == (1, 1, 40)
