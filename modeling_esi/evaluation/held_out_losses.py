"""The two losses on held-out records, and the floor that soft targets put under the contrastive one."""

import hashlib
import math
from collections.abc import Sequence

import datasets
import numpy as np
import torch

from datasets_scripts.preparation.record_reader import RecordReader

from ..losses import contrastive_loss, target_entropy
from ..modeling_esi import ESIModel
from ..processing_esi import ESIProcessor
from .embedding import evaluation_mode


def held_out_outputs(
    model: ESIModel,
    processor: ESIProcessor,
    dataset: datasets.Dataset,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> dict[str, np.ndarray]:
    """One pass over pairs.

    Returns:
        `ecg_embeds`, `text_embeds` `(N, P)`, `text_keys` `(N,)` int64, and for each batch the sum of the caption's
        token losses and their number, `caption_sums`, `caption_counts` (empty where the model has no decoder).
    """
    device = device or model.device
    reader = RecordReader(dataset)
    parts: dict[str, list[np.ndarray]] = {"ecg_embeds": [], "text_embeds": [], "caption_sums": [], "caption_counts": []}
    with evaluation_mode(model):
        for start in range(0, len(dataset), batch_size):
            records = reader.records(range(start, min(start + batch_size, len(dataset))))
            inputs = processor(records, [record.text for record in records], device=device)
            for name, array in _batch_outputs(model, inputs).items():
                parts[name].append(array)
    outputs = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts.items()}
    return outputs | {"text_keys": key_numbers(dataset["text_key"])}


def _batch_outputs(model: ESIModel, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    output = model(**inputs, return_loss=True)
    arrays = {name: output[name].float().cpu().numpy() for name in ("ecg_embeds", "text_embeds")}
    if output.caption_loss is not None:
        first = 1 if model.config.decoder_config.input_states == "token_embeddings" else 2
        count = int(inputs["attention_mask"][:, first:].sum())
        arrays |= {"caption_sums": np.array([output.caption_loss.item() * count]), "caption_counts": np.array([count])}
    return arrays


def held_out_losses(
    outputs: dict[str, np.ndarray], logit_scale: float, batch_size: int, seed: int = 0, prefix: str = ""
) -> dict[str, float]:
    """Losses from `held_out_outputs` (of all processes, concatenated).

    The contrastive loss is the mean over batches of `batch_size` records in a fixed random order. Records with equal
    statements are positives of each other, so that the best possible loss is not 0 but the entropy of these targets:
    `contrastive_excess` is the loss less that entropy, to be held against `ln_batch`, which guessing gives.
    """
    order = np.random.default_rng(seed).permutation(len(outputs["ecg_embeds"]))
    batch_size = min(batch_size, len(order))
    losses, entropies = [], []
    for start in range(0, len(order) - batch_size + 1, batch_size):
        batch = order[start : start + batch_size]
        ecg, text, keys = (
            torch.from_numpy(outputs[name][batch]) for name in ("ecg_embeds", "text_embeds", "text_keys")
        )
        losses.append(contrastive_loss(ecg, text, torch.tensor([logit_scale]), text_key=keys).item())
        entropies.append(target_entropy(keys).item())
    results = {
        "contrastive_loss": float(np.mean(losses)),
        "contrastive_target_entropy": float(np.mean(entropies)),
        "contrastive_excess": float(np.mean(losses) - np.mean(entropies)),
        "ln_batch": math.log(batch_size),
    }
    if outputs["caption_counts"].sum():
        results["caption_loss"] = float(outputs["caption_sums"].sum() / outputs["caption_counts"].sum())
    return {f"{prefix}{name}": value for name, value in results.items()}


def key_numbers(text_keys: Sequence[str]) -> np.ndarray:
    """Text keys as int64, for tensors: equal keys give equal numbers. An empty key is like no other."""
    names = [key or f"empty {i}" for i, key in enumerate(text_keys)]
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype=np.int64).copy()
