"""Cross-entropy over a vocabulary, a few tokens at a time: the logits of all tokens never stand in memory together.

The gradients are made in the forward pass, while a chunk's logits are there, so nothing is computed twice (as in Liger
Kernel, Hsu et al. 2024, https://arxiv.org/abs/2410.10989). What stays until the backward pass is as large as the
states and the head themselves.
"""

import torch
from torch.autograd.function import once_differentiable

from .feed_forward import product_dtype, without_autocast

CHUNK_LOGITS = 1 << 23  # logits at once: 32 MB in float32, 290 tokens of BioLinkBERT's vocabulary


def vocabulary_loss(
    states: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    chunk_logits: int = CHUNK_LOGITS,
) -> torch.Tensor:
    """`cross_entropy(states @ weight.T, targets, reduction="sum")` in float32 at least, with exact gradients.

    Args:
        states: `(N, D)`, what the head reads.
        weight: `(V, D)` of the head, which has no bias.
        targets: `(N,)` token ids; `ignore_index` is never a target.
        chunk_logits: How many logits may be in memory at once.
    """
    dtype = product_dtype(states)
    counted = (targets != ignore_index).to(torch.promote_types(dtype, torch.float32))
    with without_autocast(states):
        chunk = max(1, chunk_logits // len(weight))
        return _VocabularyLoss.apply(states.to(dtype), weight, targets.clamp(min=0), counted, chunk)


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, targets, counted, chunk):
        total, head = counted.new_zeros(()), weight.to(states.dtype)
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=counted.dtype) if ctx.needs_input_grad[1] else None
        # Both are used again for every chunk: fresh memory of this size costs as much as the arithmetic.
        products = states.new_empty(min(chunk, len(states)), len(weight))
        wide = products if products.dtype == counted.dtype else torch.empty_like(products, dtype=counted.dtype)
        for start in range(0, len(states), chunk):
            of = slice(start, min(start + chunk, len(states)))
            num_rows = of.stop - of.start
            logits = torch.mm(states[of], head.T, out=products[:num_rows])
            logits = logits if wide is products else wide[:num_rows].copy_(logits)
            index = targets[of, None]
            largest, of_target = logits.amax(dim=1, keepdim=True), logits.gather(1, index)
            sums = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += ((largest + sums.log() - of_target) * counted[of, None]).sum()
            slope = logits.mul_(counted[of, None] / sums)  # of the loss by the logits, less 1 at the target
            slope.scatter_add_(1, index, -counted[of, None])
            slope = slope if wide is products else products[:num_rows].copy_(slope)
            if grad_states is not None:
                torch.mm(slope, head, out=grad_states[of])
            if grad_weight is not None:
                _add_product(grad_weight, slope.T, states[of])
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad_states, grad_weight = ctx.saved_tensors
        if grad_states is not None:
            grad_states = grad_states * grad.to(grad_states.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad).to(ctx.weight_dtype)
        return grad_states, grad_weight, None, None, None


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, num_rows: int = 4096) -> None:
    """`total += left @ right`; a `total` of higher precision in slices, so that no copy of it is made."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
        return
    for start in range(0, len(total), num_rows):
        total[start : start + num_rows] += left[start : start + num_rows] @ right
