"""Nobody can guess fresh random tokens: a caption loss below ln(V) is a leak of the future, not knowledge."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling_esi import ESIConfig, ESIModel

NUM_TOKENS, TEXT_LENGTH, WIDTH = 24, 9, 48
TEXT = {
    "model_type": "bert", "vocab_size": NUM_TOKENS + 1, "hidden_size": WIDTH, "num_hidden_layers": 1,
    "num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "max_position_embeddings": TEXT_LENGTH,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DECODER = {
    "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16,
    "intermediate_size": 2 * WIDTH,
}  # fmt: skip
ECG = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}


def random_pairs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as signals, and tokens that are uniform over 1..NUM_TOKENS (0 is padding, and never occurs)."""
    return torch.randn(batch, 12, 64), torch.randint(1, NUM_TOKENS + 1, (batch, TEXT_LENGTH))


def train(variant: str, steps: int = 400) -> ESIModel:
    torch.manual_seed(0)
    model = ESIModel(ESIConfig.from_variant(variant, ecg_config=ECG, text_config=TEXT, decoder_config=DECODER))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        signals, input_ids = random_pairs(48)
        model(signals, input_ids=input_ids, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def next_token_losses(model: ESIModel, num_losses: int = 20_000) -> torch.Tensor:
    """Cross-entropy of each of the next tokens, `(num_losses,)`, none of which the model has met."""
    losses = torch.empty(0)
    while len(losses) < num_losses:
        signals, input_ids = random_pairs(500)
        logits = model(signals, input_ids=input_ids).caption_logits
        targets = input_ids[:, -logits.shape[1] :]
        losses = torch.cat([losses, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")])
    return losses[:num_losses]


@pytest.mark.parametrize("variant", ["esi", "released"])
def test_the_released_decoder_copies_the_future_and_ours_cannot(variant):
    losses = next_token_losses(train(variant))
    mean, standard_error = losses.mean().item(), losses.std().item() / len(losses) ** 0.5
    honest = math.log(NUM_TOKENS)
    print(f"\n{variant}: {mean:.3f} (standard error {standard_error:.3f}), ln V {honest:.3f}")  # pytest -s shows it
    if variant == "esi":
        assert mean >= honest - 3 * standard_error
        assert mean < honest + 0.05  # it did learn that tokens are uniform
    else:
        assert mean < honest / 2
