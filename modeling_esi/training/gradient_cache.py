"""One contrastive loss over a batch of any size, in the memory of one chunk (GradCache).

Luyu Gao, Yunyi Zhang, Jiawei Han and Jamie Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", 2021, https://arxiv.org/abs/2101.06983, section 3.2. Adding up the gradients of chunks is not enough: each chunk
would be contrasted with itself alone. Instead:

1. Every chunk is embedded without gradients. The state of the random generators before each chunk is kept.
2. The loss over all embeddings (of all processes) gives its gradient for each embedding, the scale and the bias.
3. Every chunk goes through the model again, with gradients and from the same random state, so that dropout leaves out
   the same. The dot product of its embeddings with their gradients of 2. has the gradient of the whole loss for the
   weights; the caption loss is a sum over tokens, and adds up over chunks.

The price is a second forward pass of both encoders.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_esi.losses import POSITIVES, configured_contrastive_loss, mean_over_processes
from modeling_esi.modeling_esi import IGNORED, ESIModel, ESIOutput

Inputs = dict[str, torch.Tensor | None]
RandomState = tuple[torch.Tensor, torch.Tensor | None]


def cached_backward(
    model: nn.Module,
    inputs: Inputs,
    chunk_size: int,
    backward: Callable[[torch.Tensor], Any],
    extra_terms: Callable[[ESIOutput, slice], torch.Tensor] | None = None,
    no_sync: Callable[[], AbstractContextManager] | None = None,
) -> ESIOutput:
    """The gradients of `model(**inputs, return_loss=True).loss`, with the activations of `chunk_size` records at once.

    It takes the place of forward and backward in a training step, and gives the same gradients up to rounding. Under
    DDP processes may hold different numbers of records and chunks; under FSDP, where every forward is a collective,
    the number of chunks must be the same.

    Args:
        model: `ESIModel`, or a wrapper around it (DDP, `torch.compile`), in training mode.
        inputs: Arguments of `ESIModel.forward`, each `(B, ...)` with this process's records, or `None`.
        chunk_size: Records that are in memory at once; the last chunk may be smaller.
        backward: Called once for each chunk with a scalar, such as `accelerator.backward` or `torch.Tensor.backward`.
        extra_terms: `(output, rows)` of a chunk to a further loss, a mean over these rows of the batch. Each chunk's
            counts by its share of the records.
        no_sync: Makes a context in which gradients are not averaged over processes yet, for every chunk but the last.
            Default: `model.no_sync` where there is one (DDP).

    Returns:
        Detached, as the plain forward gives them: `loss`, `contrastive_loss`, `caption_loss`, and `ecg_embeds`,
        `text_embeds` `(B, P)`.

    Raises:
        ValueError: A chunk size below 1, inputs of different lengths, or a BatchNorm in training mode.
    """
    esi = unwrapped(model)
    check_batch_norm(esi)
    no_sync = no_sync or getattr(model, "no_sync", nullcontext)
    inputs = {name: value for name, value in inputs.items() if value is not None}
    rows = chunk_rows(inputs, chunk_size)
    known = {name: inputs.pop(name) for name in POSITIVES if name in inputs}
    chunks = [{name: value[of] for name, value in inputs.items()} for of in rows]
    ecg_embeds, text_embeds, random_states = embed_chunks(model, chunks)
    cache = gradients_of_embeddings(esi, ecg_embeds, text_embeds, known)
    num_targets = _num_caption_targets(esi, inputs)
    total: dict[str, torch.Tensor] = {}
    for of, chunk, random_state in zip(rows, chunks, random_states, strict=True):
        is_last = of.stop == len(ecg_embeds)
        with nullcontext() if is_last else no_sync():
            set_random_state(random_state, chunk["input_values"].device)
            output = model(**chunk, num_caption_targets=num_targets)
            terms = {} if output.caption_loss is None else {"caption_loss": output.caption_loss}
            if extra_terms is not None:
                terms["extra"] = extra_terms(output, of) * ((of.stop - of.start) / len(ecg_embeds))
            backward(_weighted(esi, terms) + surrogate(esi, output, cache, of, is_last))
        total = {name: total.get(name, 0) + term.detach() for name, term in terms.items()}
        del output, terms  # before the next chunk's activations
    loss = esi.config.contrastive_loss_weight * cache.loss + _weighted(esi, total)
    total.pop("extra", None)
    return ESIOutput(loss=loss, contrastive_loss=cache.loss, ecg_embeds=ecg_embeds, text_embeds=text_embeds, **total)


def chunk_rows(inputs: Inputs, chunk_size: int) -> list[slice]:
    """Rows of the batch that go together: `chunk_size` of them, in the last chunk the rest."""
    lengths = {name: len(value) for name, value in inputs.items()}
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected at least 1, got {chunk_size}.")
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"inputs: expected as many rows in each as there are records, one or more, got {lengths}.")
    num_records = lengths["input_values"]
    return [slice(start, min(start + chunk_size, num_records)) for start in range(0, num_records, chunk_size)]


def unwrapped(model: nn.Module) -> ESIModel:
    """The ESIModel inside DDP's and the compiler's wrappers."""
    while not isinstance(model, ESIModel):
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if inner is None:
            raise ValueError(f"model: expected an ESIModel or a wrapper around one, got {type(model).__name__}.")
        model = inner
    return model


def check_batch_norm(model: nn.Module) -> None:
    """Refuse a model whose result for a record depends on the records beside it.

    Raises:
        ValueError: A BatchNorm in training mode.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"GradCache cannot train {name}, a BatchNorm: it would normalise each chunk by itself, which is "
                "another model than over the whole batch, and count every chunk twice in its running statistics. "
                "Use a ConvNeXt V2 encoder, the whole batch at once, or put the BatchNorms into evaluation mode."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Pass 1: embeddings without gradients, and the gradients for them


def embed_chunks(model: nn.Module, chunks: list[Inputs]) -> tuple[torch.Tensor, torch.Tensor, list[RandomState]]:
    """ECG and text embeddings `(B, P)` of all chunks, and the random state before each."""
    ecg_embeds, text_embeds, states = [], [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(get_random_state(chunk["input_values"].device))
            output = model(**chunk, return_loss=False)
            ecg_embeds.append(output.ecg_embeds)
            text_embeds.append(output.text_embeds)
    torch.clear_autocast_cache()  # weights cast without gradients are not for pass 2; torch 2.13 sees to it itself
    return torch.cat(ecg_embeds), torch.cat(text_embeds), states


def get_random_state(device: torch.device) -> RandomState:
    """State of the CPU's generator and of `device`'s, where that is another."""
    if device.type == "cpu":
        return torch.get_rng_state(), None
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(*_generator_of(device))


def set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.get_device_module(device).set_rng_state(state[1], *_generator_of(device))


def _generator_of(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # MPS has one generator, and takes no device


class EmbeddingGradients(NamedTuple):
    """The contrastive loss, and its weighted gradients: of the embeddings `(B, P)`, of the scale (and bias)."""

    loss: torch.Tensor
    ecg_embeds: torch.Tensor
    text_embeds: torch.Tensor
    scalars: list[torch.Tensor]


def gradients_of_embeddings(
    esi: ESIModel, ecg_embeds: torch.Tensor, text_embeds: torch.Tensor, known: dict[str, torch.Tensor]
) -> EmbeddingGradients:
    """The model's own contrastive loss over embeddings `(B, P)`, gathered over processes where it says so.

    `known` of the whole batch: what the loss takes for positives, by the names in `POSITIVES`.
    """
    leaves = [_leaf(tensor) for tensor in (ecg_embeds, text_embeds, *esi.contrastive_scalars())]
    with torch.enable_grad():
        loss = configured_contrastive_loss(esi.config, esi.training, *leaves, **known)
        ecg, text, *scalars = torch.autograd.grad(esi.config.contrastive_loss_weight * loss, leaves)
    return EmbeddingGradients(loss.detach(), ecg, text, scalars)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # a shard of FSDP2
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).requires_grad_()


# ---------------------------------------------------------------------------------------------------------------------
# Pass 2: chunk by chunk with gradients


def surrogate(esi: ESIModel, output: ESIOutput, cache: EmbeddingGradients, rows: slice, is_last: bool) -> torch.Tensor:
    """A scalar with the gradient of the weighted contrastive loss for these rows; the last chunk's also has the scale.

    DDP averages gradients during the last chunk's backward pass, so every parameter must take part in that one.
    """
    parts = [(output.ecg_embeds, cache.ecg_embeds[rows]), (output.text_embeds, cache.text_embeds[rows])]
    if is_last:
        parts += zip(esi.contrastive_scalars(), cache.scalars, strict=True)
    return sum((tensor.to(gradient.dtype) * gradient).sum() for tensor, gradient in parts)


def _num_caption_targets(esi: ESIModel, inputs: Inputs) -> torch.Tensor:
    """Tokens that the decoder is to predict in the whole batch; over several processes their mean."""
    num_targets = (esi.tokens_to_predict(inputs["input_ids"], inputs.get("attention_mask")) != IGNORED).sum()
    return mean_over_processes(num_targets) if esi.training else num_targets


def _weighted(esi: ESIModel, terms: dict[str, torch.Tensor]) -> torch.Tensor | float:
    weights = {"caption_loss": esi.config.caption_loss_weight}
    return sum(weights.get(name, 1.0) * term for name, term in terms.items())
