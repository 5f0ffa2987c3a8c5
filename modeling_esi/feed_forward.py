"""Feed-forwards that keep their pre-activation alone: what is wide and cheap is computed again in the backward pass.

Between two matrix products of a block lie activations four times as wide as the model. Autograd would keep several of
them for each block; these functions keep one, and pass over it as few times as they can. The idea: Chen et al.,
"Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174, applied within a block.
Gradients are exact; they cannot be differentiated again.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def gelu_grn_linear(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, linear: nn.Module, eps: float, frame_mask=None
) -> torch.Tensor:
    """Exact GELU, global response norm and a linear layer, `(B, F, C)` to `(B, F, C')`.

    GRN (ConvNeXt V2, https://arxiv.org/abs/2301.00808, section 3.3) is `y = gamma * (h * n) + beta + h` over
    `h = gelu(x)`, where `n` is each channel's energy over time, `||h||_2`, divided by its mean over channels plus
    `eps`; so `y = h * (1 + gamma * n) + beta`. The product is one pass in place, and beta goes through the linear layer
    once, into its bias.

    Args:
        gamma, beta: `(C,)`, float32 under mixed precision.
        linear: an `nn.Linear`, or what stands in its place (an adapter, a quantised layer), which is then called.
        frame_mask: `(B, F)` bool; the energy counts only frames where it is true. `None`: all.
    """
    if not is_plain(linear):
        h = F.gelu(x)
        return linear((h * _grn_scale(h, gamma, eps, frame_mask)[0] + beta).to(x.dtype))
    dtype = product_dtype(x)
    with without_autocast(x):
        return _GeluGrnLinear.apply(x.to(dtype), gamma, beta, linear.weight.to(dtype), linear.bias, eps, frame_mask)


def linear_gelu_grn_linear(
    x: torch.Tensor, first: nn.Module, gamma: torch.Tensor, beta: torch.Tensor, linear: nn.Module, eps: float,
    frame_mask: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """`gelu_grn_linear` of `first(x)`; on CPUs, where nothing is trained, by oneDNN, with GELU in the first product."""
    if not (can_fuse_gelu(x, first) and is_plain(linear)):
        return gelu_grn_linear(first(x), gamma, beta, linear, eps, frame_mask)
    fused = torch.ops.mkldnn._linear_pointwise
    h = fused(x, first.weight, first.bias, "gelu", [], "none")
    scale, _ = _grn_scale(h, gamma, eps, frame_mask)
    bias = _shifted_bias(beta, linear.weight, linear.bias)
    return fused(h.mul_(scale.to(h.dtype)), linear.weight, bias, "none", [], "")


def is_plain(linear: nn.Module) -> bool:
    """Whether its weight and bias say all that a linear layer does: no adapter, no hook, no other class."""
    hooked = linear._forward_hooks or linear._forward_pre_hooks or "forward" in linear.__dict__
    return type(linear) is nn.Linear and not hooked


def can_fuse_gelu(x: torch.Tensor, linear: nn.Module) -> bool:
    """Whether oneDNN's product with GELU behind it (what torch.compile calls) can stand for `gelu(linear(x))`.

    Only where nothing is trained, so that a training step repeats its forward pass to the same bits.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not linear.training
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and is_plain(linear)
        and linear.weight.dtype == x.dtype
        and linear.bias is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _GeluGrnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, weight, bias, eps, frame_mask):
        h = F.gelu(x)
        scale, energy = _grn_scale(h, gamma, eps, frame_mask)
        ctx.eps = eps
        ctx.save_for_backward(x, gamma, beta, weight, energy, frame_mask)
        bias = _shifted_bias(beta, weight, bias)
        return F.linear(h.mul_(scale.to(h.dtype)), weight, bias.to(h.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, gamma, beta, weight, energy, frame_mask = ctx.saved_tensors
        with without_autocast(x):
            h = F.gelu(x)
            level = energy.mean(dim=-1, keepdim=True) + ctx.eps
            response = energy / level
            scale = 1 + gamma * response
            grad_bias = grad.sum(dim=(0, 1), dtype=gamma.dtype)
            grad_y = grad @ weight
            grad_scale = _sum_over_frames(grad_y, h)
            grad_response = grad_scale * gamma
            grad_energy = (grad_response - (grad_response * response).mean(dim=-1, keepdim=True)) / level
            slope = torch.where(energy > 0, grad_energy / energy, 0.0).to(h.dtype)  # of energy by h, over h
            seen = h if frame_mask is None else h * frame_mask.unsqueeze(-1)
            scale = scale.to(h.dtype)
            grad_h = grad_y.mul_(scale).addcmul_(seen, slope)
            grad_x = torch.ops.aten.gelu_backward(grad_h, x)
            grad_weight = grad.flatten(0, 1).T @ h.mul_(scale).flatten(0, 1)
            grad_weight.addr_(grad_bias.to(weight.dtype), beta.to(weight.dtype))
            grad_gamma = (grad_scale * response).sum(dim=(0, 1))
            grad_beta = grad_bias @ weight.to(grad_bias.dtype)  # sums over frames and records commute with the product
        return grad_x, grad_gamma, grad_beta, grad_weight, grad_bias, None, None


def swiglu_linear(x_and_gate: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """`linear(x * silu(gate))` of `x` and `gate` side by side, `(..., 2 C)` to `(..., C')`; `linear` has no bias.

    SwiGLU: Shazeer 2020, https://arxiv.org/abs/2002.05202.
    """
    if not is_plain(linear):
        x, gate = x_and_gate.chunk(2, dim=-1)
        return linear(x * F.silu(gate))
    dtype = product_dtype(x_and_gate)
    with without_autocast(x_and_gate):
        return _SwiGluLinear.apply(x_and_gate.to(dtype), linear.weight.to(dtype))


class _SwiGluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_and_gate, weight):
        ctx.save_for_backward(x_and_gate, weight)
        x, gate = x_and_gate.chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(x), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x_and_gate, weight = ctx.saved_tensors
        x, gate = x_and_gate.chunk(2, dim=-1)
        with without_autocast(grad):
            grad_y, activated = grad @ weight, F.silu(gate)
            grad_both = torch.empty_like(x_and_gate, memory_format=torch.contiguous_format)
            grad_x, grad_gate = grad_both.chunk(2, dim=-1)
            torch.mul(grad_y, activated, out=grad_x)
            torch.ops.aten.silu_backward.grad_input(grad_y.mul_(x), gate, grad_input=grad_gate)
            grad_weight = grad.flatten(0, -2).T @ activated.mul_(x).flatten(0, -2)
        return grad_both, grad_weight


def _grn_scale(
    h: torch.Tensor, gamma: torch.Tensor, eps: float, frame_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What GRN multiplies each channel with, and the channels' energy, both `(B, 1, C)`."""
    energy = _sum_over_frames(h, h, frame_mask).sqrt()
    return 1 + gamma * energy / (energy.mean(dim=-1, keepdim=True) + eps), energy


def _shifted_bias(beta: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`linear(beta)`; a product with a matrix of one row is faster than with a vector."""
    return F.linear(beta.to(bias.dtype).unsqueeze(0), weight.to(bias.dtype), bias).squeeze(0)


def _sum_over_frames(x: torch.Tensor, y: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of `x * y` over time, `(B, F, C)` to `(B, 1, C)`, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.device.type != "cpu":
        product = x * y if frame_mask is None else x * y * frame_mask.unsqueeze(-1)
        return product.sum(dim=1, keepdim=True, dtype=dtype)
    # On CPUs a sum over rows is fastest as a matrix product, one record at a time, while it is in the cache.
    rows = torch.ones(x.shape[:2], dtype=dtype) if frame_mask is None else frame_mask.to(dtype)
    if x is y:
        return torch.stack([rows[i : i + 1] @ x[i].to(dtype).square() for i in range(len(x))])
    return torch.stack([rows[i : i + 1] @ (x[i].to(dtype) * y[i].to(dtype)) for i in range(len(x))])


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """What matrix products run in here: autocast's type where it is on."""
    device = x.device.type
    has_autocast = torch.amp.is_autocast_available(device)  # meta tensors have none
    return torch.get_autocast_dtype(device) if has_autocast and torch.is_autocast_enabled(device) else x.dtype


def without_autocast(x: torch.Tensor) -> AbstractContextManager:
    """A context in which products of `x` run in the types that they come in."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
