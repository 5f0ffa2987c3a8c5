"""The losses of ESI: pure functions, tensors in, scalar out, float32 inside, no state."""

import torch
import torch.distributed as dist
from torch.nn import functional as F


def contrastive_loss(
    ecg_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    text_key: torch.Tensor | None = None,
    gather: bool = False,
) -> torch.Tensor:
    """Symmetric cross-entropy between ECGs and texts (CLIP, https://arxiv.org/abs/2103.00020).

    Args:
        ecg_embeds, text_embeds: `(B, P)`, L2-normalised, of the same records.
        logit_scale: Scalar or `(1,)`, the factor itself (not its logarithm).
        text_key: `(B,)` integers; records with equal keys are positives of each other, and share the target equally.
            `None`: only the pair is positive.
        gather: Contrast with the records of all processes, with exact gradients. The loss is then this process's
            share; averaging it (or its gradients, as DDP does) over processes gives the loss of the union batch.

    Returns:
        Scalar, mean of the two directions.
    """
    ecg_embeds, text_embeds = _at_least_float32(ecg_embeds), _at_least_float32(text_embeds)
    all_ecg, all_text, all_keys, first = ecg_embeds, text_embeds, text_key, 0
    if gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        all_ecg, all_text = gather_with_grad(ecg_embeds), gather_with_grad(text_embeds)
        all_keys = None if text_key is None else gather_with_grad(text_key)
        first = dist.get_rank() * len(ecg_embeds)
    targets = contrastive_targets(len(ecg_embeds), len(all_ecg), first, text_key, all_keys, ecg_embeds.device)
    if text_key is not None:
        targets = targets.to(ecg_embeds.dtype)
    scale = logit_scale.to(ecg_embeds.dtype)
    with torch.autocast(ecg_embeds.device.type, enabled=False):  # mixed precision would round the similarities
        ecg_to_text = F.cross_entropy(scale * ecg_embeds @ all_text.T, targets)
        text_to_ecg = F.cross_entropy(scale * text_embeds @ all_ecg.T, targets)
    return (ecg_to_text + text_to_ecg) / 2


def contrastive_targets(
    num_rows: int,
    num_columns: int,
    first: int,
    row_keys: torch.Tensor | None,
    column_keys: torch.Tensor | None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Target distribution of each row, `(rows, columns)`: equal shares for all columns with the row's key.

    Without keys, class indices `(rows,)`: row `i` belongs to column `first + i`.
    """
    if row_keys is None:
        return first + torch.arange(num_rows, device=device)
    same = (row_keys[:, None] == column_keys[None, :]).to(torch.float32)
    return same / same.sum(dim=1, keepdim=True)


def target_entropy(text_key: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the soft targets of a batch with keys `(B,)`: the floor of its contrastive loss, in nats."""
    positives = (text_key[:, None] == text_key[None, :]).sum(dim=1).float()
    return positives.log().mean()


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int, num_targets: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of the next token, `logits (B, T, V)` against `targets (B, T)`, padding ignored.

    Args:
        ignore_index: Token id that is never a target.
        num_targets: Divide the summed loss by this instead of the batch's own count, so that processes with texts of
            different lengths weigh every token alike (see `mean_over_processes`).

    Returns:
        Scalar; 0 where the batch has no target at all.
    """
    logits = _at_least_float32(logits).flatten(0, 1)
    total = F.cross_entropy(logits, targets.flatten(), ignore_index=ignore_index, reduction="sum")
    count = (targets != ignore_index).sum() if num_targets is None else num_targets
    return total / count.clamp(min=1)


def mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Average a count over all processes; itself where there is one."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return count
    total = count.detach().clone().float()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        ctx.num_rows = len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)  # autograd may share it with another consumer
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.num_rows, ctx.num_rows)


def gather_with_grad(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate `(B, ...)` of all processes to `(world * B, ...)`, ordered by rank; gradients flow to every part.

    Every process must call it, with tensors of one shape. The backward pass sums the gradients of all processes.
    """
    return _GatherWithGrad.apply(tensor)
