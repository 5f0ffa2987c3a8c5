"""The losses of ESI: pure functions, tensors in, scalar out, float32 inside, no state.

Over several processes a loss is this process's share of the loss of the union batch: the mean of the shares is the loss
of the union, and the mean of their gradients (which DDP and FSDP compute) is its gradient, also where processes hold
different numbers of records or of tokens.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn import functional as F

from .configuration_esi import ESIConfig

POSITIVES = ("text_key", "text_statements", "ecg_statements")  # what `positive_pairs` takes


def contrastive_loss(
    ecg_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    text_key: torch.Tensor | None = None,
    gather: bool = False,
    text_statements: torch.Tensor | None = None,
    ecg_statements: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric cross-entropy between ECGs and texts (CLIP, https://arxiv.org/abs/2103.00020).

    A row with several positives shares its target equally among them (as in https://arxiv.org/abs/2004.11362).

    Args:
        ecg_embeds, text_embeds: `(B, P)`, L2-normalised, of the same records.
        logit_scale: Scalar or `(1,)`, the factor itself (not its logarithm).
        text_key, text_statements, ecg_statements: As in `positive_pairs`: what is positive beside the pair.
        gather: Contrast with the records of all processes, with exact gradients. The loss is then this process's
            share; averaging it (or its gradients, as DDP does) over processes gives the loss of the union batch.
            Every process takes part, with one record or more; B may differ between them.

    Returns:
        Scalar, mean of the two directions.
    """
    embeds = torch.stack([_at_least_float32(ecg_embeds), _at_least_float32(text_embeds)], dim=1)  # one message for both
    union = UnionBatch.of(embeds, gather)
    (ecg, text), (all_ecg, all_text) = embeds.unbind(1), union.everything(embeds).unbind(1)
    of_ecgs, of_texts = positive_pairs(text_key, text_statements, ecg_statements, union)
    scale = logit_scale.to(ecg.dtype)
    with torch.autocast(ecg.device.type, enabled=False):  # mixed precision would round the similarities
        ecg_to_text = F.cross_entropy(scale * ecg @ all_text.T, union.targets(of_ecgs, ecg))
        text_to_ecg = F.cross_entropy(scale * text @ all_ecg.T, union.targets(of_texts, text))
    return union.weight * (ecg_to_text + text_to_ecg) / 2


def sigmoid_contrastive_loss(
    ecg_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    text_key: torch.Tensor | None = None,
    gather: bool = False,
    text_statements: torch.Tensor | None = None,
    ecg_statements: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each ECG with each text: a pair or not? (SigLIP, https://arxiv.org/abs/2303.15343, section 3.2.)

    Args:
        ecg_embeds, text_embeds, logit_scale, gather: As in `contrastive_loss`.
        logit_bias: Scalar or `(1,)`, added to the scaled similarities. SigLIP starts at scale 10 and bias -10, so that
            the many negatives do not dominate the first steps.
        text_key, text_statements, ecg_statements: As in `positive_pairs`: these are pairs too.

    Returns:
        Scalar: sum over all texts of the binary cross-entropies, mean over the ECGs.
    """
    ecg, text = _at_least_float32(ecg_embeds), _at_least_float32(text_embeds)
    union = UnionBatch.of(text, gather)
    all_text = union.everything(text)
    positive = positive_pairs(text_key, text_statements, ecg_statements, union)[0]
    positive = union.own_pairs(text) if positive is None else positive
    with torch.autocast(ecg.device.type, enabled=False):
        logits = logit_scale.to(ecg.dtype) * ecg @ all_text.T + logit_bias.to(ecg.dtype)
        return union.weight * -F.logsigmoid(torch.where(positive, logits, -logits)).sum() / len(ecg)


def configured_contrastive_loss(
    config: ESIConfig, is_training: bool, *embeds_and_scalars: torch.Tensor, **known: torch.Tensor | None
) -> torch.Tensor:
    """The loss that a configuration names: by its type, negatives (of all processes in training alone) and positives.

    `embeds_and_scalars`: the first arguments of `contrastive_loss`, or of `sigmoid_contrastive_loss`. `known`: what is
    known of the batch, of which `chosen_positives` lets some count.
    """
    contrast = sigmoid_contrastive_loss if config.contrastive_loss_type == "sigmoid" else contrastive_loss
    gather = config.negatives == "global" and is_training
    return contrast(*embeds_and_scalars, gather=gather, **chosen_positives(config.positives, **known))


# ---------------------------------------------------------------------------------------------------------------------
# Which texts are true of which ECGs


def positive_pairs(
    text_key: torch.Tensor | None = None,
    text_statements: torch.Tensor | None = None,
    ecg_statements: torch.Tensor | None = None,
    union: "UnionBatch | None" = None,
) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """What is positive in a batch of B records, this process's rows against all N records of the union.

    Args:
        text_key: `(B,)` integers; records with equal keys are positives of each other.
        text_statements, ecg_statements: `(B, K)` and `(B, L)` of `entailed_pairs`; where both are given, every ECG that
            has all that a text says is its positive too. K and L may differ between processes.
        union: Whose records the columns are; default: this process's alone.

    Returns:
        `(B, N)` bool each: texts for each ECG, and ECGs for each text; `None` twice where only the pair is positive.
    """
    union = union or UnionBatch()
    same = None if text_key is None else text_key[:, None] == union.everything(text_key)[None, :]
    if text_statements is None or ecg_statements is None:
        return same, same
    text_statements, ecg_statements = union.as_wide_as_the_widest(text_statements, ecg_statements)
    known = union.own_pairs(text_statements) if same is None else same
    of_ecgs = entailed_pairs(union.everything(text_statements), ecg_statements).T
    return of_ecgs | known, entailed_pairs(text_statements, union.everything(ecg_statements)) | known


def chosen_positives(positives: str, **known: torch.Tensor | None) -> dict[str, torch.Tensor | None]:
    """Of what is `known` of a batch (by the names in `POSITIVES`), what `ESIConfig.positives` lets count.

    `"pair"` nothing; `"text_key"` the keys; `"entailed"` the keys and the statements.
    """
    counting = {"pair": (), "text_key": POSITIVES[:1], "entailed": POSITIVES}[positives]
    return {name: known.get(name) for name in counting}


def entailed_pairs(text_statements: torch.Tensor, ecg_statements: torch.Tensor) -> torch.Tensor:
    """`(texts, ECGs)` bool: whether an ECG has everything that a text says. A text that says nothing has no ECG.

    Semantic matching as in MedCLIP, https://arxiv.org/abs/2210.10163, made exact.

    Args:
        text_statements: `(texts, K)` numbers of the statements in each text, -1 where there is none.
        ecg_statements: `(ECGs, L)`, the same of all that is known of each ECG.

    >>> entailed_pairs(torch.tensor([[7, -1], [7, 9]]), torch.tensor([[7, -1, -1], [9, 8, 7]])).tolist()
    [[True, True], [False, True]]
    """
    is_true = (text_statements != -1).any(dim=1)[:, None].repeat(1, len(ecg_statements))
    for said in text_statements.unbind(1):  # one by one: (texts, ECGs, K, L) would be large
        is_found = (said[:, None, None] == ecg_statements[None, :, :]).any(dim=2)
        is_true &= is_found | (said == -1)[:, None]
    return is_true


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


# ---------------------------------------------------------------------------------------------------------------------
# The records of all processes


@dataclass(frozen=True)
class UnionBatch:
    """This process's records among those of all, one process after the other.

    Attributes:
        counts: Records of each process, by rank; `None`: only this process counts.
    """

    counts: list[int] | None = None

    @classmethod
    def of(cls, rows: torch.Tensor, gather: bool) -> "UnionBatch":
        """The union of the processes' `rows`, which every process must then ask for; without `gather` these alone."""
        return cls(rows_of_processes(rows) if gather and _in_company() else None)

    @property
    def first(self) -> int:
        """Where this process's records begin."""
        return 0 if self.counts is None else sum(self.counts[: dist.get_rank()])

    @property
    def weight(self) -> float:
        """Of a mean over this process's records, in the mean over processes that is the mean over all records."""
        return 1.0 if self.counts is None else self.counts[dist.get_rank()] * len(self.counts) / sum(self.counts)

    def everything(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, with gradients."""
        return rows if self.counts is None else gather_with_grad(rows, self.counts)

    def own_pairs(self, rows: torch.Tensor) -> torch.Tensor:
        """`(B, N)` bool: each of this process's records with itself."""
        everyone = torch.arange(len(rows) if self.counts is None else sum(self.counts), device=rows.device)
        return everyone[None, :] == everyone[self.first : self.first + len(rows), None]

    def targets(self, positives: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
        """For cross-entropy: equal shares for each row's positives, `(B, N)`, or the place of its pair, `(B,)`."""
        if positives is None:
            return self.first + torch.arange(len(rows), device=rows.device)
        shares = positives.to(rows.dtype)
        return shares / shares.sum(dim=1, keepdim=True)

    def as_wide_as_the_widest(self, *tables: torch.Tensor) -> list[torch.Tensor]:
        """Tables `(B, width)` with -1 to the right, so that each has one width on all processes."""
        if self.counts is None:
            return list(tables)
        widths = torch.tensor([table.shape[1] for table in tables], device=tables[0].device)
        dist.all_reduce(widths, dist.ReduceOp.MAX)
        missing = [width - table.shape[1] for width, table in zip(widths.tolist(), tables, strict=True)]
        return [F.pad(table, (0, more), value=-1) for table, more in zip(tables, missing, strict=True)]


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
