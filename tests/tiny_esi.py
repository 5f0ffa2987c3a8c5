"""A tiny ESI for tests: every width is another odd number, so that swapped dimensions fail; every weight is alive."""

import torch
from torch import nn

from modeling_esi import ESIConfig, ESIModel

TEXT = {
    "model_type": "bert", "vocab_size": 99, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 37, "max_position_embeddings": 41,
}  # fmt: skip
CONVNEXT = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 40]}
XRESNET = {"encoder_type": "xresnet1d", "depths": [1, 2, 1, 1], "hidden_sizes": [12, 20, 28, 44]}
DECODER = {
    "hidden_size": 30, "num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 14, "intermediate_size": 53,
    "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
ENCODERS = {"convnextv2": CONVNEXT, "xresnet1d": XRESNET}


def tiny_config(variant: str = "esi", ecg: dict = CONVNEXT, text: dict = TEXT, decoder: dict | None = None, **kwargs):
    """Configuration of `variant`; the `released` decoder must be as wide as the text encoder."""
    width = {"hidden_size": text["hidden_size"]} if variant == "released" else {}
    fields = {"projection_dim": 28} | kwargs
    return ESIConfig.from_variant(
        variant,
        ecg_config=dict(ecg),
        text_config=dict(text),
        decoder_config=DECODER | width | (decoder or {}),
        **fields,
    )


def tiny_esi(variant: str = "esi", attn_implementation: str = "sdpa", **kwargs) -> ESIModel:
    """A model in evaluation mode with random values in every parameter and buffer."""
    config = tiny_config(variant, **kwargs)
    return randomise(ESIModel._from_config(config, attn_implementation=attn_implementation)).eval()


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values everywhere, also where a fresh model has zeros (GRN, biases, the norm that closes a block)."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(noise.square() + 0.5)
        elif tensor.is_floating_point() and name != "logit_scale":
            tensor.copy_(noise / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else tensor + 0.3 * noise)
    return model


def tiny_batch(batch: int = 3, num_samples: int = 677, num_tokens: int = 11, seed: int = 0) -> dict[str, torch.Tensor]:
    """Pairs with texts of different lengths; padding id 0 last."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(4, 99, (batch, num_tokens), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row in range(batch):
        length = num_tokens - 2 * row % num_tokens
        input_ids[row, 0], input_ids[row, length - 1] = 2, 3
        input_ids[row, length:] = attention_mask[row, length:] = 0
    signals = torch.randn(batch, 12, num_samples, generator=generator)
    return {"input_values": signals, "input_ids": input_ids, "attention_mask": attention_mask}
