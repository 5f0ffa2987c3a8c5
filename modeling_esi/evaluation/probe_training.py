"""MERL's linear probe: one linear layer on frozen embeddings, trained with AdamW in small batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .logistic import LinearModel

BATCH_SIZE = 16
LEARNING_RATE = 1e-3
WARMUP_EPOCHS = 5
WEIGHT_DECAY = 0.01


def train_linear(
    features: np.ndarray,
    targets: np.ndarray,
    judge: Callable[[LinearModel], float],
    epochs: int = 100,
    seed: int = 0,
) -> tuple[LinearModel, int, float]:
    """Train a linear layer by MERL's settings; the epoch with the highest `judge` is taken.

    Args:
        features: `(N, P)` embeddings as they are.
        targets: `(N, C)` of 0 and 1.
        judge: of a model, on records that are neither trained nor tested on; higher is better.
        epochs: passes over the records.
        seed: of the weights and the order of the records.

    Returns:
        The model, its epoch (from 1) and its value.

    Raises:
        ValueError: for shapes that do not fit.
    """
    inputs, wanted = torch.from_numpy(np.asarray(features, np.float32)), torch.from_numpy(np.asarray(targets)).float()
    if inputs.ndim != 2 or wanted.ndim != 2 or len(inputs) != len(wanted) or not len(inputs):
        raise ValueError(f"expected features (N, P) and targets (N, C), got {inputs.shape} and {wanted.shape}.")
    generator = torch.Generator().manual_seed(seed)
    layer = _new_layer(inputs.shape[1], wanted.shape[1], generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best: tuple[LinearModel, int, float] | None = None
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(order), BATCH_SIZE):
            rate = rate_at(epoch + start / len(order), epochs)
            _step(layer, optimizer, inputs, wanted, order[start : start + BATCH_SIZE], rate)
        model = LinearModel(layer.weight.detach().T.clone().numpy(), layer.bias.detach().clone().numpy())
        value = judge(model)
        if best is None or value > best[2]:
            best = (model, epoch + 1, value)
    if best is None:
        raise ValueError(f"epochs: expected at least 1, got {epochs}.")
    return best


def rate_at(epoch: float, epochs: int) -> float:
    """The learning rate: linear warm-up over the first epochs, then half a cosine down to 0.

    >>> [round(1000 * rate_at(epoch, 100), 3) for epoch in (0, 2.5, 5, 52.5, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = min(WARMUP_EPOCHS, epochs / 2)
    if epoch < warmup:
        return LEARNING_RATE * epoch / warmup
    return LEARNING_RATE * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2


def _new_layer(num_features: int, num_classes: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(num_features, num_classes)
    bound = 1 / math.sqrt(num_features)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def _step(
    layer: nn.Linear, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, wanted: torch.Tensor, rows: torch.Tensor,
    rate: float,
) -> None:  # fmt: skip
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(layer(inputs[rows]), wanted[rows]).backward()
    optimizer.step()
