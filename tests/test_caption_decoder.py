"""The caption decoder against straightforward formulas, and its causality at the level of one layer."""

import math

import pytest
import torch
from tiny_esi import randomise
from torch.nn import functional as F

from modeling_esi import ESIDecoderConfig
from modeling_esi.caption_decoder import ESICaptionDecoder, rotate, rotation_at

WIDTH, HEADS, HEAD_DIM, INNER, VOCAB, EMBEDDING = 30, 3, 14, 53, 99, 22


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny_decoder(attn_implementation: str = "sdpa", **kwargs) -> ESICaptionDecoder:
    fields = {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "embedding_size": EMBEDDING, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "head_dim": HEAD_DIM, "intermediate_size": INNER,
    }  # fmt: skip
    config = ESIDecoderConfig(**fields | kwargs)
    return randomise(ESICaptionDecoder._from_config(config, attn_implementation=attn_implementation)).eval()


def test_rotary_positions_turn_by_the_angle_of_their_position():
    rotation = rotation_at(torch.tensor([0, 1, 5]), head_dim=4, base=100.0)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 3, 4)
    turned = rotate(x, rotation)
    assert torch.equal(turned[0, 0, 0], x[0, 0, 0])
    for row, position in ((1, 1), (2, 5)):
        slow = position / 100 ** (2 / 4)  # the second pair turns base^(-2/d) times as fast
        expected = [
            1 * math.cos(position) - 3 * math.sin(position), 2 * math.cos(slow) - 4 * math.sin(slow),
            3 * math.cos(position) + 1 * math.sin(position), 4 * math.cos(slow) + 2 * math.sin(slow),
        ]  # fmt: skip
        torch.testing.assert_close(turned[0, 0, row], torch.tensor(expected))


def test_rotated_products_depend_on_distance_only():
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(at_query: int, at_key: int) -> float:
        turned = [rotate(x, rotation_at(torch.tensor([t]), 8, 10000.0)) for x, t in ((query, at_query), (key, at_key))]
        return (turned[0] * turned[1]).sum().item()

    assert product(7, 4) == pytest.approx(product(103, 100), rel=1e-4)
    assert product(7, 4) != pytest.approx(product(7, 5), rel=1e-2)


def layer_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * weight


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + (-x).exp())


def turn(vector: torch.Tensor, position: int) -> torch.Tensor:
    half = len(vector) // 2
    angles = torch.tensor([position / 10000 ** (2 * i / len(vector)) for i in range(half)], dtype=vector.dtype)
    first, second = vector[:half], vector[half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin])


def attend(query: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor]) -> torch.Tensor:
    scores = torch.stack([query @ key * HEAD_DIM**-0.5 for key in keys])
    shares = scores.exp() / scores.exp().sum()
    return sum(share * value for share, value in zip(shares, values, strict=True))


def reference(decoder: ESICaptionDecoder, embeds: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Logits of one text, token by token and head by head: `embeds (T, E)`, `context (F, D)` to `(T, V)`."""
    p = decoder.state_dict()
    x = embeds @ p["token_projection.weight"].T + p["token_projection.bias"]
    for i in range(decoder.config.num_hidden_layers):
        own, cross = f"layers.{i}.causal_step", f"layers.{i}.cross_step"
        fused = layer_norm(x, p[f"{own}.norm.weight"]) @ p[f"{own}.in_proj.weight"].T
        query, key, value, inner, gate = fused.split([HEADS * HEAD_DIM, HEAD_DIM, HEAD_DIM, INNER, INNER], dim=-1)
        update = []
        for t in range(len(x)):
            keys = [turn(key[k], k) for k in range(t + 1)]  # one key for all heads; nothing after t
            queries = [turn(query[t, h * HEAD_DIM : (h + 1) * HEAD_DIM], t) for h in range(HEADS)]
            heads = torch.cat([attend(q, keys, list(value[: t + 1])) for q in queries])
            update.append(p[f"{own}.attn_out.weight"] @ heads)
        x = x + torch.stack(update) + (inner * silu(gate)) @ p[f"{own}.ff_out.weight"].T

        normed = layer_norm(x, p[f"{cross}.norm.weight"])
        keys, values = (context @ p[f"{cross}.kv_proj.weight"].T).split(HEAD_DIM, dim=-1)  # context is not normed
        queries = (normed @ p[f"{cross}.q_proj.weight"].T).reshape(len(x), HEADS, HEAD_DIM)
        attended = [torch.cat([attend(q, list(keys), list(values)) for q in row]) for row in queries]
        inner, gate = (normed @ p[f"{cross}.ff_in.weight"].T).split(INNER, dim=-1)
        parallel = (inner * silu(gate)) @ p[f"{cross}.ff_out.weight"].T
        x = x + torch.stack(attended) @ p[f"{cross}.attn_out.weight"].T + parallel
    return layer_norm(x, p["norm.weight"]) @ p["lm_head.weight"].T


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_decoder_is_the_formulas(attn_implementation):
    decoder = tiny_decoder(attn_implementation).double()
    embeds = torch.randn(2, 6, EMBEDDING, dtype=torch.float64)
    context = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    logits = decoder(inputs_embeds=embeds, context_kv=decoder.project_context(context)).logits
    for row in range(2):
        expected = reference(decoder, embeds[row], context[row])
        # Rotary angles are float32, as transformers' own.
        torch.testing.assert_close(logits[row], expected, rtol=1e-5, atol=1e-5)
    assert logits.std() > 0.1


def test_keys_and_values_have_one_head_and_nothing_has_a_bias_but_the_token_projection():
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny_decoder().state_dict().items()}
    assert shapes["layers.0.cross_step.kv_proj.weight"] == (2 * HEAD_DIM, WIDTH)
    assert shapes["layers.0.causal_step.in_proj.weight"] == (HEADS * HEAD_DIM + 2 * HEAD_DIM + 2 * INNER, WIDTH)
    assert [name for name in shapes if name.endswith("bias")] == ["token_projection.bias"]


def test_the_token_projection_is_built_only_where_widths_differ():
    decoder = tiny_decoder(embedding_size=WIDTH)
    assert not any(name.startswith("token_projection") for name in decoder.state_dict())


def test_repeated_context_gives_what_one_copy_gives():
    """Over equal keys the softmax is uniform: the `released` context needs no copies."""
    decoder = tiny_decoder()
    embeds, context = torch.randn(2, 6, EMBEDDING), torch.randn(2, 1, WIDTH)
    one = decoder(inputs_embeds=embeds, context_kv=decoder.project_context(context)).logits
    many = decoder(inputs_embeds=embeds, context_kv=decoder.project_context(context.expand(-1, 6, -1))).logits
    torch.testing.assert_close(many, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_masked_frames_have_no_influence(attn_implementation):
    decoder, embeds, context = tiny_decoder(attn_implementation), torch.randn(2, 6, EMBEDDING), torch.randn(2, 7, WIDTH)
    context_mask = torch.arange(7) < torch.tensor([[7], [4]])

    def logits(context: torch.Tensor) -> torch.Tensor:
        kwargs = {"context_kv": decoder.project_context(context), "context_mask": context_mask[: len(context)]}
        return decoder(inputs_embeds=embeds, **kwargs).logits

    noisy = torch.where(context_mask[:, :, None], context, 1e3 * torch.randn(2, 7, WIDTH))
    assert torch.equal(logits(context), logits(noisy))
    alone = decoder(inputs_embeds=embeds[1:], context_kv=decoder.project_context(context[1:, :4])).logits
    torch.testing.assert_close(logits(context)[1:], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_nothing_of_the_future_reaches_an_earlier_state(attn_implementation):
    decoder, embeds = tiny_decoder(attn_implementation), torch.randn(2, 8, EMBEDDING)
    context_kv = decoder.project_context(torch.randn(2, 5, WIDTH))
    before = decoder(inputs_embeds=embeds, context_kv=context_kv).logits
    for t in range(8):
        changed = embeds.clone()
        changed[:, t] = torch.randn(2, EMBEDDING)
        after = decoder(inputs_embeds=changed, context_kv=context_kv).logits
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.isclose(after[:, t:], before[:, t:]).all(dim=-1).any()


def test_a_token_at_a_time_through_the_cache_gives_the_same_logits():
    decoder, ids = tiny_decoder(), torch.randint(0, VOCAB, (2, 8))
    table = torch.nn.Embedding(VOCAB, EMBEDDING)
    kwargs = {"context_kv": decoder.project_context(torch.randn(2, 5, WIDTH)), "embed_tokens": table}
    at_once, cache, steps = decoder(input_ids=ids, **kwargs).logits, None, []
    for first, last in ((0, 3), (3, 4), (4, 8)):
        output = decoder(input_ids=ids[:, first:last], past_key_values=cache, use_cache=True, **kwargs)
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), at_once, rtol=1e-5, atol=1e-5)


def test_attentions_are_given_on_request_and_sum_to_one():
    decoder = tiny_decoder("eager")
    kwargs = {"context_kv": decoder.project_context(torch.randn(2, 5, WIDTH)), "output_hidden_states": True}
    output = decoder(inputs_embeds=torch.randn(2, 6, EMBEDDING), output_attentions=True, **kwargs)
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, HEADS, 6, 6)] * 2
    assert [tuple(weights.shape) for weights in output.cross_attentions] == [(2, HEADS, 6, 5)] * 2
    for weights in (*output.attentions, *output.cross_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert torch.equal(output.attentions[0].triu(1), torch.zeros_like(output.attentions[0]))
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 6, WIDTH)] * 3
    torch.testing.assert_close(output.logits, F.linear(output.hidden_states[-1], decoder.lm_head.weight))
