"""The caption decoder: causal blocks that look at the ECG, in the manner of CoCa.

Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022,
https://arxiv.org/abs/2205.01917. Multi-query attention: Shazeer 2019, https://arxiv.org/abs/1911.02150. Parallel
attention and feed-forward: PaLM, https://arxiv.org/abs/2204.02311. Rotary positions: Su et al. 2021,
https://arxiv.org/abs/2104.09864. SwiGLU: Shazeer 2020, https://arxiv.org/abs/2002.05202.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple

from .configuration_esi import ESIDecoderConfig
from .feed_forward import swiglu_linear
from .texts_by_length import RealTokens


class MultiQueryAttention(nn.Module):
    """Attention of many query heads over one shared key and value head, by the implementation the config names."""

    def __init__(self, config: ESIDecoderConfig, is_causal: bool):
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`query (B, heads, T, d)`, `key` and `value (B, 1, K, d)` to `(B, T, heads * d)`, and weights if eager."""
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_multi_query_attention)
        output, weights = attend(self, query, key, value, attention_mask, scaling=self.head_dim**-0.5)
        return output.flatten(2), weights


def eager_multi_query_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain softmax attention; the one key and value head is shared by broadcasting."""
    weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2), weights


class CausalStep(nn.Module):
    """Causal self-attention and feed-forward side by side on one LayerNorm."""

    def __init__(self, config: ESIDecoderConfig, layer_idx: int):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.layer_idx = layer_idx
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.split = ((self.num_heads + 2) * self.head_dim, 2 * inner)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.attention = MultiQueryAttention(config, is_causal=True)
        self.attn_out = nn.Linear(self.num_heads * self.head_dim, width, bias=False)
        self.ff_out = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        real_tokens: RealTokens | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads, x_and_gate = self.in_proj(self.norm(hidden_states)).split(self.split, dim=-1)
        heads = heads if real_tokens is None else real_tokens.unpack(heads)  # (N, C) -> (B, T, C)
        heads = heads.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, h d) -> (B, h, T, d)
        query, key, value = heads.split((self.num_heads, 1, 1), dim=1)
        query, key = rotate(query, rotation), rotate(key, rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attended, weights = self.attention(query, key, value, attention_mask)
        attended = attended if real_tokens is None else real_tokens.pack(attended)
        return self.attn_out(attended) + swiglu_linear(x_and_gate, self.ff_out), weights


class CrossStep(nn.Module):
    """Cross-attention to the ECG and a second feed-forward side by side on one LayerNorm of the queries."""

    def __init__(self, config: ESIDecoderConfig):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.q_proj = nn.Linear(width, self.num_heads * self.head_dim, bias=False)
        self.kv_proj = nn.Linear(width, 2 * self.head_dim, bias=False)
        self.attention = MultiQueryAttention(config, is_causal=False)
        self.attn_out = nn.Linear(self.num_heads * self.head_dim, width, bias=False)
        self.ff_in = nn.Linear(width, 2 * inner, bias=False)
        self.ff_out = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None,
        context_kv: torch.Tensor | None,
        context_mask: torch.Tensor | None,
        real_tokens: RealTokens | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        normed = self.norm(hidden_states)
        context_kv = self.kv_proj(context) if context_kv is None else context_kv
        is_eager = self.attention.config._attn_implementation == "eager"  # gives its weights, also where all are 1
        if context_kv.shape[1] == 1 and context_mask is None and not is_eager:
            attended, weights = self._attend_to_one(context_kv, real_tokens), None
        else:
            attended, weights = self._attend(normed, context_kv, context_mask, real_tokens)
        return attended + swiglu_linear(self.ff_in(normed), self.ff_out), weights

    def _attend(
        self,
        normed: torch.Tensor,
        context_kv: torch.Tensor,
        context_mask: torch.Tensor | None,
        real_tokens: RealTokens | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.q_proj(normed)
        query = query if real_tokens is None else real_tokens.unpack(query)
        query = query.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        key, value = context_kv.unsqueeze(1).chunk(2, dim=-1)
        attended, weights = self.attention(query, key, value, context_mask)
        return self.attn_out(attended if real_tokens is None else real_tokens.pack(attended)), weights

    def _attend_to_one(self, context_kv: torch.Tensor, real_tokens: RealTokens | None) -> torch.Tensor:
        """Over one key the softmax is 1, whatever the query: every token gets the one value. `(B, 1, 2 d)`."""
        value = context_kv[..., self.head_dim :]
        attended = self.attn_out(value.repeat(1, 1, self.num_heads))
        attended = attended + 0.0 * self.q_proj.weight[0, 0]  # a gradient of zero, not none: DDP waits for all
        return attended if real_tokens is None else real_tokens.repeat(attended.squeeze(1))


class ESIDecoderLayer(GradientCheckpointingLayer):
    """Two residual steps: causal self-attention, then cross-attention to the ECG."""

    def __init__(self, config: ESIDecoderConfig, layer_idx: int):
        super().__init__()
        self.causal_step = CausalStep(config, layer_idx)
        self.cross_step = CrossStep(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None,
        context_kv: torch.Tensor | None,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        context_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        real_tokens: RealTokens | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """`hidden_states (B, T, D)` or `(N, D)` to the same, and attentions where eager.

        The ECG comes as `context (B, F, D)`, or as `context_kv (B, F, 2 d)`, this layer's own keys and values of it.
        """
        update, self_weights = self.causal_step(hidden_states, rotation, attention_mask, past_key_values, real_tokens)
        hidden_states = hidden_states + update
        update, cross_weights = self.cross_step(hidden_states, context, context_kv, context_mask, real_tokens)
        return hidden_states + update, self_weights, cross_weights


@dataclass
class ESIDecoderOutput(CausalLMOutputWithCrossAttentions):
    """Output of the caption decoder.

    Attributes:
        last_hidden_state: `(B, T, D)`, or `(N, D)` of real tokens alone: what the output head reads.
    """

    last_hidden_state: torch.Tensor | None = None


class ESICaptionDecoder(PreTrainedModel, GenerationMixin):
    """The causal decoder with cross-attention to an ECG; it writes through transformers' own generation."""

    config: ESIDecoderConfig
    base_model_prefix = "decoder"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ESIDecoderLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: ESIDecoderConfig):
        super().__init__(config)
        reads_tokens = config.input_states == "token_embeddings"
        if reads_tokens and config.embedding_size not in (None, config.hidden_size):
            self.token_projection = nn.Linear(config.embedding_size, config.hidden_size)
        else:
            self.token_projection = nn.Identity()
        self.layers = nn.ModuleList(ESIDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=False)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, lm_head: nn.Linear) -> None:
        self.lm_head = lm_head

    def project_context(self, context: torch.Tensor) -> torch.Tensor:
        """Every layer's keys and values of an ECG, once for all tokens to be written: `(B, F, D)` to
        `(B, layers, F, 2 d)`."""
        return torch.stack([layer.cross_step.kv_proj(context) for layer in self.layers], dim=1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        context_kv: torch.Tensor | None = None,
        context_mask: torch.Tensor | None = None,
        embed_tokens: Callable[[torch.Tensor], torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        output_logits: bool = True,
        real_tokens: RealTokens | None = None,
        **kwargs,
    ) -> ESIDecoderOutput:
        """Predict the next tokens.

        Args:
            input_ids: `(B, T)`; or `inputs_embeds (B, T, E)`.
            attention_mask: `(B, past + T)`, 0 where a token is padding.
            context: `(B, F, D)`, the ECG; or `context_kv (B, layers, F, 2 d)`, what `project_context` makes of it.
            context_mask: `(B, F)`, 0 where a frame is padding.
            embed_tokens: The text encoder's token table, which the decoder shares but does not own.
            output_logits: Whether to apply the output head, `(B, T, V)`.
            real_tokens: Compute these tokens alone (and attention, where all are needed); results are then `(N, ...)`.
        """
        if inputs_embeds is None:
            inputs_embeds = embed_tokens(input_ids)
        hidden_states = self.token_projection(inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        positions = past + torch.arange(hidden_states.shape[1], device=hidden_states.device)
        rotation = rotation_at(positions, self.config.head_dim, self.config.rope_theta)
        masks = {"config": self.config, "inputs_embeds": hidden_states}
        causal_mask = create_causal_mask(**masks, attention_mask=attention_mask, past_key_values=past_key_values)
        if context_mask is not None:
            frames = context if context_kv is None else context_kv[:, 0]
            context_mask = create_bidirectional_mask(**masks, attention_mask=context_mask, encoder_hidden_states=frames)
        if real_tokens is not None:
            hidden_states = real_tokens.pack(hidden_states)

        all_states, all_attentions, all_cross = (), (), ()
        all_kv = [None] * len(self.layers) if context_kv is None else context_kv.unbind(1)
        for layer, layer_kv in zip(self.layers, all_kv, strict=True):
            all_states += (hidden_states,)
            hidden_states, weights, cross_weights = layer(
                hidden_states,
                context,
                layer_kv,
                rotation,
                causal_mask,
                context_mask,
                past_key_values=past_key_values,
                real_tokens=real_tokens,
            )
            all_attentions, all_cross = all_attentions + (weights,), all_cross + (cross_weights,)
        hidden_states = self.norm(hidden_states)
        return ESIDecoderOutput(
            logits=self.lm_head(hidden_states) if output_logits else None,
            past_key_values=past_key_values,
            hidden_states=(*all_states, hidden_states) if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
            cross_attentions=all_cross if output_attentions else None,
            last_hidden_state=hidden_states,
        )


def rotation_at(positions: torch.Tensor, head_dim: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the rotary angles, `(1, 1, T, head_dim)` each, for positions `(T,)`."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[:, None] / base**exponents
    angles = torch.cat([angles, angles], dim=-1)[None, None]
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the halves of the last dimension by the angles of `rotation_at`."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
