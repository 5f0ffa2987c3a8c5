"""The losses of ESI: pure functions, tensors in, scalar out, float32 inside, no state.

Over several processes a loss is this process's share of the loss of the union batch: the mean of the shares is the loss
of the union, and the mean of their gradients (which DDP and FSDP compute) is its gradient, also where processes hold
different numbers of records or of tokens.
"""

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
            Every process takes part, with one record or more; B may differ between them.

    Returns:
        Scalar, mean of the two directions.
    """
    embeds = torch.stack([_at_least_float32(ecg_embeds), _at_least_float32(text_embeds)], dim=1)  # one message for both
    everything, all_keys, first, weight = _all_records(embeds, text_key, gather)
    (ecg, text), (all_ecg, all_text) = embeds.unbind(1), everything.unbind(1)
    targets = contrastive_targets(len(ecg), len(all_ecg), first, text_key, all_keys, ecg.device, ecg.dtype)
    scale = logit_scale.to(ecg.dtype)
    with torch.autocast(ecg.device.type, enabled=False):  # mixed precision would round the similarities
        ecg_to_text = F.cross_entropy(scale * ecg @ all_text.T, targets)
        text_to_ecg = F.cross_entropy(scale * text @ all_ecg.T, targets)
    return weight * (ecg_to_text + text_to_ecg) / 2


def contrastive_targets(
    num_rows: int,
    num_columns: int,
    first: int,
    row_keys: torch.Tensor | None,
    column_keys: torch.Tensor | None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Target distribution of each row, `(rows, columns)`: equal shares for all columns with the row's key.

    Without keys, class indices `(rows,)`: row `i` belongs to column `first + i`.
    """
    if row_keys is None:
        return first + torch.arange(num_rows, device=device)
    same = (row_keys[:, None] == column_keys[None, :]).to(dtype)
    return same / same.sum(dim=1, keepdim=True)


def sigmoid_contrastive_loss(
    ecg_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    text_key: torch.Tensor | None = None,
    gather: bool = False,
) -> torch.Tensor:
    """Each ECG with each text: a pair or not? (SigLIP, https://arxiv.org/abs/2303.15343, section 3.2.)

    Args:
        ecg_embeds, text_embeds, logit_scale, text_key, gather: As in `contrastive_loss`; equal keys are pairs too.
        logit_bias: Scalar or `(1,)`, added to the scaled similarities. SigLIP starts at scale 10 and bias -10, so that
            the many negatives do not dominate the first steps.

    Returns:
        Scalar: sum over all texts of the binary cross-entropies, mean over the ECGs.
    """
    ecg, text = _at_least_float32(ecg_embeds), _at_least_float32(text_embeds)
    all_text, all_keys, first, weight = _all_records(text, text_key, gather)
    targets = contrastive_targets(len(ecg), len(all_text), first, text_key, all_keys, ecg.device)
    positive = targets > 0 if text_key is not None else F.one_hot(targets, len(all_text)).bool()
    with torch.autocast(ecg.device.type, enabled=False):
        logits = logit_scale.to(ecg.dtype) * ecg @ all_text.T + logit_bias.to(ecg.dtype)
        return weight * -F.logsigmoid(torch.where(positive, logits, -logits)).sum() / len(ecg)


def target_entropy(text_key: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the soft targets of a batch with keys `(B,)`: the floor of its contrastive loss, in nats."""
    positives = (text_key[:, None] == text_key[None, :]).sum(dim=1).float()
    return positives.log().mean()


def caption_targets(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    first: int,
    pad_token_id: int | None,
    ignore_index: int,
) -> torch.Tensor:
    """The tokens that a decoder is to predict, `(B, T - first)` of `input_ids (B, T)`, padding as `ignore_index`.

    Padding is the padding token where it is masked: a tokenizer may pad with its end token, a target elsewhere.
    """
    targets = input_ids[:, first:]
    is_pad = torch.ones_like(targets, dtype=torch.bool) if pad_token_id is None else targets == pad_token_id
    if attention_mask is not None:
        is_pad = is_pad & (attention_mask[:, first:] == 0)
    elif pad_token_id is None:
        return targets
    return targets.masked_fill(is_pad, ignore_index)


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
    return total / count.to(total.dtype).clamp(min=1)


def mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Average an integer count over all processes, in float64; itself where there is one."""
    if not _in_company():
        return count
    total = count.detach().clone()
    dist.all_reduce(total)
    return total.double() / dist.get_world_size()


def _in_company() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _all_records(
    embeds: torch.Tensor, text_key: torch.Tensor | None, gather: bool
) -> tuple[torch.Tensor, torch.Tensor | None, int, float]:
    """Embeddings and keys of the union batch, where this process's records begin in it, and their weight in a mean."""
    if not (gather and _in_company()):
        return embeds, text_key, 0, 1.0
    counts = rows_of_processes(embeds)
    everything = gather_with_grad(embeds, counts)
    all_keys = None if text_key is None else gather_with_grad(text_key, counts)
    return everything, all_keys, sum(counts[: dist.get_rank()]), len(embeds) * len(counts) / sum(counts)


def rows_of_processes(tensor: torch.Tensor) -> list[int]:
    """`len(tensor)` of every process, by rank."""
    mine = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return torch.cat(counts).tolist()


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: torch.Tensor, counts: list[int]) -> torch.Tensor:
        ctx.counts = counts
        missing = tensor.new_zeros(max(counts) - len(tensor), *tensor.shape[1:])  # collectives want one shape
        padded = torch.cat([tensor, missing]) if len(missing) else tensor.contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)  # autograd may share it with another consumer
        dist.all_reduce(grad)
        rank = dist.get_rank()
        return grad.narrow(0, sum(ctx.counts[:rank]), ctx.counts[rank]), None


def gather_with_grad(tensor: torch.Tensor, counts: list[int] | None = None) -> torch.Tensor:
    """Concatenate `(B, ...)` of all processes, ordered by rank; gradients flow to every part.

    Every process must call it. The backward pass sums the gradients of all processes.

    Args:
        tensor: `(B, ...)`; B may differ between processes, the other sizes not.
        counts: B of every process, by rank, where it is known (`rows_of_processes`); otherwise they are asked.
    """
    return _GatherWithGrad.apply(tensor, rows_of_processes(tensor) if counts is None else counts)
