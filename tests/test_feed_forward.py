"""Feed-forwards that compute again what is wide: results and gradients are those of the plain formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modeling_esi.feed_forward import (
    can_fuse_gelu,
    gelu_grn_linear,
    linear_gelu_grn_linear,
    product_dtype,
    swiglu_linear,
    without_autocast,
)

EPS = 1e-6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def plain_gelu_grn_linear(x, gamma, beta, linear, frame_mask=None):
    """ConvNeXt V2, section 3.3, as it is written there."""
    h = F.gelu(x)
    seen = h if frame_mask is None else h * frame_mask.unsqueeze(-1)
    energy = seen.square().sum(dim=1, keepdim=True).sqrt()
    response = energy / (energy.mean(dim=-1, keepdim=True) + EPS)
    return linear(gamma * (h * response) + beta + h)


def plain_swiglu_linear(x_and_gate, linear):
    x, gate = x_and_gate.chunk(2, dim=-1)
    return linear(x * gate * torch.sigmoid(gate))


def leaves(*shapes, dtype=torch.float64) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def with_gradients(function, inputs: list[torch.Tensor], linear: nn.Linear) -> list[torch.Tensor]:
    output = function()
    weight = torch.linspace(-1, 1, output.numel()).view_as(output)  # no two outputs count alike
    of = [*inputs, *linear.parameters()]
    return [output.detach(), *torch.autograd.grad((output * weight.to(output.dtype)).sum(), of)]


def grn_case(dtype=torch.float64, batch=3, frames=7):
    inputs = leaves((batch, frames, 10), (10,), (10,), dtype=dtype)
    return inputs, nn.Linear(10, 4).to(dtype)


MASKS = {
    "none": None,
    "ends": torch.arange(7) < torch.tensor([[7], [4], [1]]),
    "gaps": torch.arange(7) % 2 == torch.tensor([[0], [1], [1]]),
}


@pytest.mark.parametrize("mask", MASKS)
def test_gelu_grn_linear_is_the_formula(mask):
    inputs, linear = grn_case()
    ours = with_gradients(lambda: gelu_grn_linear(*inputs, linear, EPS, MASKS[mask]), inputs, linear)
    plain = with_gradients(lambda: plain_gelu_grn_linear(*inputs, linear, MASKS[mask]), inputs, linear)
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


def test_a_record_without_a_frame_gives_numbers():
    """The slope of a norm at zero is not a number, and would be every weight's."""
    inputs, linear = grn_case()
    frame_mask = torch.arange(7) < torch.tensor([[7], [0], [4]])
    found = with_gradients(lambda: gelu_grn_linear(*inputs, linear, EPS, frame_mask), inputs, linear)
    assert all(tensor.isfinite().all() for tensor in found)


def test_its_gradients_are_finite_differences():
    inputs, linear = grn_case(frames=4)
    parameters = list(linear.parameters())
    assert torch.autograd.gradcheck(
        lambda x, gamma, beta, *_: gelu_grn_linear(x, gamma, beta, linear, EPS), (*inputs, *parameters)
    )


def test_float32_differs_by_rounding_alone():
    inputs, linear = grn_case(torch.float32)
    ours = with_gradients(lambda: gelu_grn_linear(*inputs, linear, EPS), inputs, linear)
    plain = with_gradients(lambda: plain_gelu_grn_linear(*inputs, linear), inputs, linear)
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 12), (9, 12)])  # padded, and tokens in a row
def test_swiglu_linear_is_the_formula(shape):
    inputs, linear = leaves(shape), nn.Linear(6, 5, bias=False).double()
    ours = with_gradients(lambda: swiglu_linear(*inputs, linear), inputs, linear)
    plain = with_gradients(lambda: plain_swiglu_linear(*inputs, linear), inputs, linear)
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


def test_swiglu_takes_one_side_of_a_wider_projection():
    """As the decoder has it: attention heads stand beside it in one tensor."""
    inputs, linear = leaves((2, 5, 15)), nn.Linear(6, 5, bias=False).double()
    ours = with_gradients(lambda: swiglu_linear(inputs[0].split((3, 12), dim=-1)[1], linear), inputs, linear)
    plain = with_gradients(lambda: plain_swiglu_linear(inputs[0][..., 3:], linear), inputs, linear)
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


CASES = {
    "grn": (plain_gelu_grn_linear, lambda *args: gelu_grn_linear(*args, EPS), grn_case),
    "swiglu": (plain_swiglu_linear, swiglu_linear,
               lambda dtype: (leaves((3, 7, 20), dtype=dtype), nn.Linear(10, 4, bias=False).to(dtype))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bf16_autocast_is_as_near_to_float32_as_the_plain_formula_is(name):
    plain, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    exact = with_gradients(lambda: plain(*inputs, linear), inputs, linear)

    def under_autocast(function):
        with torch.autocast("cpu", torch.bfloat16):
            return function(*inputs, linear)

    found = [with_gradients(lambda f=f: under_autocast(f), inputs, linear) for f in (ours, plain)]
    assert found[0][0].dtype == torch.bfloat16
    for mine, theirs, true in zip(*found, exact, strict=True):
        limit = 2 * torch.dist(theirs.float(), true) + 0.004 * true.norm()  # half a step of bf16
        assert torch.dist(mine.float(), true) <= limit


@pytest.mark.parametrize("name", CASES)
def test_one_wide_activation_is_kept(name):
    _, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    kept = set()

    def pack(tensor):
        if tensor.numel() >= inputs[0].numel() // 2:
            kept.add(tensor.untyped_storage()._cdata)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = ours(*inputs, linear)
    assert output.requires_grad and kept == {inputs[0].untyped_storage()._cdata}


class Adapted(nn.Linear):
    """A linear layer with something beside it, as adapters have."""

    def forward(self, x):
        return super().forward(x) + 2 * x.sum(dim=-1, keepdim=True)


def adapted_by_hook(linear: nn.Linear) -> nn.Linear:
    linear.register_forward_hook(lambda module, inputs, output: output + 2 * inputs[0].sum(dim=-1, keepdim=True))
    return linear


@pytest.mark.parametrize("how", ["class", "hook"])
@pytest.mark.parametrize("name", CASES)
def test_what_stands_in_a_linear_layers_place_is_called(name, how):
    plain, ours, case = CASES[name]
    inputs, linear = case(torch.float64)
    if how == "class":
        linear.__class__ = Adapted
    else:
        adapted_by_hook(linear)
    found, expected = (with_gradients(lambda f=f: f(*inputs, linear), inputs, linear) for f in (ours, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", MASKS)
def test_with_nothing_to_train_one_pass_gives_the_same(mask, dtype):
    (wide, gamma, beta), linear = grn_case()
    first, x = nn.Linear(6, 10).double(), torch.randn(3, 7, 6, dtype=torch.float64)
    exact = plain_gelu_grn_linear(first(x), gamma, beta, linear, MASKS[mask])
    x, gamma, beta = (tensor.detach().to(dtype) for tensor in (x, gamma, beta))
    first, linear = first.to(dtype).eval(), linear.to(dtype).eval()
    assert not can_fuse_gelu(x, first)  # gradients are on
    with torch.inference_mode():
        assert can_fuse_gelu(x, first) and not can_fuse_gelu(x, first.train())
        found = linear_gelu_grn_linear(x, first.eval(), gamma, beta, linear, EPS, MASKS[mask])
    limit = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found.double(), exact, rtol=limit, atol=limit)


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_left_as_they_were(name):
    _, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    before = [tensor.detach().clone() for tensor in inputs]
    with_gradients(lambda: ours(*inputs, linear), inputs, linear)
    assert all(map(torch.equal, before, inputs))


@pytest.mark.parametrize("name", CASES)
def test_meta_tensors_have_shapes_and_no_autocast(name):
    _, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    inputs, linear = [tensor.detach().to("meta").requires_grad_() for tensor in inputs], linear.to("meta")
    with without_autocast(inputs[0]):
        assert product_dtype(inputs[0]) == torch.float32
    output = ours(*inputs, linear)
    assert output.is_meta and output.shape == (3, 7, 4)
    output.sum().backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in (*inputs, *linear.parameters()))


@pytest.mark.parametrize("name", CASES)
def test_without_gradients_the_results_are_the_same(name):
    _, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    with torch.no_grad():
        alone = ours(*inputs, linear)
    torch.testing.assert_close(alone, ours(*inputs, linear).detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiled_they_give_the_same(name):
    _, ours, case = CASES[name]
    inputs, linear = case(torch.float32)
    compiled = torch.compile(lambda *inputs: ours(*inputs, linear))
    found = [with_gradients(lambda f=f: f(*inputs), inputs, linear) for f in (compiled, lambda *i: ours(*i, linear))]
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
