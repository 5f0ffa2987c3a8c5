"""The `released` formulas written down plainly (docs/model.md): what speed and memory are measured against.

Channels first, einsum attention, the pooled ECG repeated for each token, padded texts, all logits of the vocabulary.
Parameters have `ESIModel`'s names, so that its weights load. The text encoder is transformers' own, with eager
attention.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from modeling_esi.configuration_esi import ESIConfig
from modeling_esi.text_model import build_text_model


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over channels of `(B, C, T)`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 1)).permute(0, 2, 1)


class TimeNorm(nn.Module):
    """Each channel of `(B, C, T)` less its mean over time, over its unbiased deviation plus epsilon."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + self.eps)
        return self.weight[:, None] * x + self.bias[:, None]


class GlobalResponseNorm(nn.Module):
    """`gamma * (x * n) + beta + x` over `(B, T, C)`, `n` being the energy over time relative to all channels'."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        energy = torch.norm(x, p=2, dim=1, keepdim=True)
        response = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * response) + self.beta + x


class Block(nn.Module):
    """ConvNeXt V2 block on `(B, C, T)`."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.grn = GlobalResponseNorm(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dwconv(x).permute(0, 2, 1)  # (B, C, T) -> (B, T, C)
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(self.norm(y)))))
        return x + y.permute(0, 2, 1)


class Encoder(nn.Module):
    """`(B, 12, S)` to the pooled vector `(B, H)`."""

    def __init__(self, config):
        super().__init__()
        norm, eps = {"time": TimeNorm, "channel": ChannelNorm}[config.norm_type], config.layer_norm_eps
        widths = config.hidden_sizes
        self.downsamples = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv1d(a, b, kernel_size=stride, stride=stride), "norm": norm(normed, eps)})
            for a, b, stride, normed in [(config.num_leads, widths[0], config.patch_size, widths[0])]
            + [(widths[i], widths[i + 1], 2, widths[i]) for i in range(3)]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, eps) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for s, (downsample, stage) in enumerate(zip(self.downsamples, self.stages, strict=True)):
            conv, norm = downsample["conv"], downsample["norm"]
            x = stage(norm(conv(x)) if s == 0 else conv(norm(x)))
        return self.norm(x.mean(dim=-1))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int, is_causal: bool):
    """Multi-query attention: `query (B, T, heads * d)`, one `key` and `value (B, K, d)` for all heads."""
    query = query.unflatten(-1, (num_heads, -1)) * key.shape[-1] ** -0.5
    scores = torch.einsum("bihd,bjd->bhij", query, key)
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
    return torch.einsum("bhij,bjd->bihd", scores.softmax(dim=-1), value).flatten(-2)


def rotate(x: torch.Tensor, base: float) -> torch.Tensor:
    """Rotary positions of `(B, T, heads, d)`, halves turned."""
    half, device = x.shape[-1] // 2, x.device
    angles = torch.arange(x.shape[1], device=device)[:, None] / base ** (torch.arange(half, device=device) / half)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


class CausalStep(nn.Module):
    """Self-attention and SwiGLU side by side, from one fused projection."""

    def __init__(self, config):
        super().__init__()
        width, inner, self.heads, self.base = (
            config.hidden_size, config.intermediate_size, config.num_attention_heads, config.rope_theta,
        )  # fmt: skip
        self.split = (self.heads * config.head_dim, config.head_dim, config.head_dim, inner, inner)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.attn_out = nn.Linear(self.split[0], width, bias=False)
        self.ff_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value, ff, gate = self.in_proj(self.norm(x)).split(self.split, dim=-1)
        query = rotate(query.unflatten(-1, (self.heads, -1)), self.base).flatten(-2)
        key = rotate(key.unsqueeze(2), self.base).squeeze(2)
        return self.attn_out(attend(query, key, value, self.heads, is_causal=True)) + self.ff_out(ff * F.silu(gate))


class CrossStep(nn.Module):
    """Attention to the ECG context and a second SwiGLU side by side."""

    def __init__(self, config):
        super().__init__()
        width, inner, self.heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.q_proj = nn.Linear(width, self.heads * config.head_dim, bias=False)
        self.kv_proj = nn.Linear(width, 2 * config.head_dim, bias=False)
        self.attn_out = nn.Linear(self.heads * config.head_dim, width, bias=False)
        self.ff_in, self.ff_out = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        key, value = self.kv_proj(context).chunk(2, dim=-1)
        ff, gate = self.ff_in(x).chunk(2, dim=-1)
        return self.attn_out(attend(self.q_proj(x), key, value, self.heads, is_causal=False)) + self.ff_out(
            ff * F.silu(gate)
        )


class Baseline(nn.Module):
    """`released` ESI; `forward` gives the sum of both losses and the parts."""

    def __init__(self, config: ESIConfig):
        super().__init__()
        width, decoder = config.hidden_size, config.decoder_config
        self.pad_token_id = decoder.pad_token_id
        text_config = copy.deepcopy(config.text_config)  # a model that shares the configuration keeps its attention
        text_config._attn_implementation = "eager"
        self.ecg_model = nn.ModuleDict({"encoder": Encoder(config.ecg_config)})
        self.text_model = build_text_model(text_config)
        self.ecg_head = nn.Linear(config.ecg_config.hidden_size, width)
        self.ecg_norm = nn.LayerNorm(width, bias=False)
        self.ecg_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.ones(1))
        layer = {"causal_step": CausalStep, "cross_step": CrossStep}
        self.decoder = nn.ModuleDict({
            "layers": nn.ModuleList(
                nn.ModuleDict({name: step(decoder) for name, step in layer.items()})
                for _ in range(decoder.num_hidden_layers)
            ),
            "norm": nn.LayerNorm(width, eps=decoder.layer_norm_eps, bias=False),
            "lm_head": nn.Linear(width, decoder.vocab_size, bias=False),
        })  # fmt: skip

    def forward(self, input_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor):
        ecg = self.ecg_norm(self.ecg_head(self.ecg_model["encoder"](input_values)))
        text = self.text_model(input_ids[:, :-1], attention_mask=attention_mask[:, :-1]).last_hidden_state
        ecg_embeds = F.normalize(self.ecg_projection(ecg), dim=-1)
        text_embeds = F.normalize(self.text_projection(text[:, 0]), dim=-1)
        similarity = self.logit_scale.exp() * text_embeds @ ecg_embeds.T
        pairs = torch.arange(len(similarity), device=similarity.device)
        contrastive = (F.cross_entropy(similarity, pairs) + F.cross_entropy(similarity.T, pairs)) / 2
        x = text[:, 1:]
        context = ecg.unsqueeze(1).expand(-1, x.shape[1], -1)
        for layer in self.decoder["layers"]:
            x = x + layer["causal_step"](x)
            x = x + layer["cross_step"](x, context)
        logits = self.decoder["lm_head"](self.decoder["norm"](x))
        caption = F.cross_entropy(logits.flatten(0, 1), input_ids[:, 2:].flatten(), ignore_index=self.pad_token_id)
        return contrastive + caption, contrastive, caption
