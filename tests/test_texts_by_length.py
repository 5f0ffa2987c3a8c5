"""Texts in groups of similar length, and real tokens in a row, give what the padded batch gives."""

import pytest
import torch
from tiny_esi import randomise
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from modeling_esi.texts_by_length import COUNT_FROM_THE_FIRST, RealTokens, encode_by_length

LENGTHS = [5, 11, 1, 8, 11]
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 37, "max_position_embeddings": 41}
DISTILBERT = {"dim": 36, "n_layers": 2, "n_heads": 3, "hidden_dim": 37, "max_position_embeddings": 41}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def text_encoder(model_type: str = "bert", dropout: float = 0.0, **kwargs) -> PreTrainedModel:
    fields = DISTILBERT if model_type == "distilbert" else {"hidden_size": 36, "embedding_size": 20} | SIZES
    without = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "dropout": dropout}
    config = CONFIG_MAPPING[model_type](**{"vocab_size": 99} | fields | without | {"attention_dropout": dropout})
    return randomise(AutoModel.from_config(config, **kwargs)).train()


def texts(lengths: list[int] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids with the padding token (0) also inside some texts, and the mask."""
    ids = torch.randint(0, 99, (len(lengths), max(LENGTHS)))
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    ids[0, min(2, lengths[0] - 1)] = 0
    return ids * mask, mask


def states_and_gradients(model, ids, mask, num_groups) -> list[torch.Tensor]:
    model.zero_grad()
    states = encode_by_length(model, ids, mask, mask.bool(), num_groups).last_hidden_state * mask.unsqueeze(-1)
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return [states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


# ---------------------------------------------------------------------------------------------------------------------
# Groups


@pytest.mark.parametrize("model_type", [*COUNT_FROM_THE_FIRST, "roberta", "deberta-v2"])
@pytest.mark.parametrize("num_groups", [2, 4, 7])
def test_groups_give_what_the_padded_batch_gives(model_type, num_groups):
    model, (ids, mask) = text_encoder(model_type), texts()
    whole, grouped = (states_and_gradients(model, ids, mask, groups) for groups in (1, num_groups))
    assert len(whole) == len(grouped) > 10
    for first, second in zip(grouped, whole, strict=True):
        assert torch.dist(first, second) <= 1e-5 * second.norm() + 1e-5


@pytest.mark.parametrize("lengths", [[3], [1], [1, 1, 1, 1, 1], [11, 2]])
def test_few_and_short_texts(lengths):
    """Also a text that is its start token alone."""
    model, (ids, mask) = text_encoder(), texts(lengths)
    whole, grouped = (states_and_gradients(model, ids, mask, groups) for groups in (1, 4))
    for first, second in zip(grouped, whole, strict=True):
        assert torch.dist(first, second) <= 1e-5 * second.norm() + 1e-5


@pytest.mark.parametrize("model_type", COUNT_FROM_THE_FIRST)
def test_these_encoders_number_tokens_whatever_they_are(model_type):
    model, (ids, mask) = text_encoder(model_type).eval(), texts()
    assert ids[0, 2] == 0  # a padding token inside a text
    of_ids = model(input_ids=ids, attention_mask=mask).last_hidden_state
    of_embeddings = model(inputs_embeds=model.get_input_embeddings()(ids), attention_mask=mask).last_hidden_state
    assert torch.equal(of_ids, of_embeddings)


def test_roberta_does_not():
    model, (ids, mask) = text_encoder("roberta").eval(), texts()
    ids[0, 2] = model.config.pad_token_id  # 1
    of_ids = model(input_ids=ids, attention_mask=mask).last_hidden_state
    of_embeddings = model(inputs_embeds=model.get_input_embeddings()(ids), attention_mask=mask).last_hidden_state
    assert not torch.allclose(of_ids[0], of_embeddings[0], atol=1e-2)


def runs_of(model) -> list[tuple[int, int]]:
    """Rows and tokens of every run from here on."""
    runs = []
    model.encoder.layer[0].register_forward_pre_hook(lambda module, args: runs.append(tuple(args[0].shape[:2])))
    return runs


@pytest.mark.parametrize("lengths", [[3], [11, 2], LENGTHS, [4] * 9])
def test_the_encoder_runs_equally_often_for_any_batch(lengths):
    """Where weights are sharded each run is a collective, and processes hold different numbers of rows."""
    model = text_encoder()
    runs = runs_of(model)
    states_and_gradients(model, *texts(lengths), 4)
    assert len(runs) == 4


def test_little_is_computed_on_padding():
    model = text_encoder()
    runs = runs_of(model)
    encode_by_length(model, *texts(), texts()[1].bool(), 3)
    assert runs == [(2, 11), (2, 8), (1, 1)]


def test_one_look_up_serves_all_groups():
    model, looked_up = text_encoder(), []
    model.get_input_embeddings().register_forward_hook(lambda *_: looked_up.append(1))
    encode_by_length(model, *texts(), texts()[1].bool(), 4)
    assert looked_up == [1]


def test_dropout_follows_from_the_seed_and_the_batch_alone():
    model, (ids, mask), found = text_encoder(dropout=0.3), texts(), []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.set_grad_enabled(enabled):
            found.append(encode_by_length(model, ids, mask, mask.bool(), 4).last_hidden_state)
    assert torch.equal(*found)


def test_states_behind_the_mask_are_there_where_they_are_needed():
    """A token that is masked, but is no padding, is still one to be predicted from."""
    model, (ids, mask) = text_encoder(), texts([11, 6])
    is_real = mask.bool().clone()
    is_real[1, :8] = True
    whole = model(input_ids=ids, attention_mask=mask).last_hidden_state
    grouped = encode_by_length(model, ids, mask, is_real, 2).last_hidden_state
    torch.testing.assert_close(grouped[1, :8], whole[1, :8], rtol=1e-4, atol=1e-4)
    assert not grouped[1, 8:].any()


def test_all_rows_go_together_where_more_is_asked_for_or_no_mask_says_where_texts_end():
    model, (ids, mask) = text_encoder(attn_implementation="eager"), texts()
    runs = runs_of(model)
    assert len(encode_by_length(model, ids, mask, mask.bool(), 4, output_hidden_states=True).hidden_states) == 3
    assert len(encode_by_length(model, ids, mask, mask.bool(), 4, output_attentions=True).attentions) == 2
    model.config.output_hidden_states = True
    assert len(encode_by_length(model, ids, mask, mask.bool(), 4).hidden_states) == 3
    model.config.output_hidden_states = False
    encode_by_length(model, ids, None, mask.bool(), 4)
    assert runs == [(5, 11)] * 4


# ---------------------------------------------------------------------------------------------------------------------
# Real tokens


def test_real_tokens_by_hand():
    counted = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]]).bool()
    tokens = RealTokens.up_to_the_last(counted)
    assert tokens.index.tolist() == [0, 1, 2, 8, 9, 10, 11, 12, 13, 14] and tokens.shape == (4, 4)
    values = torch.arange(16.0).view(4, 4)
    packed = tokens.pack(values)
    assert packed.tolist() == [0, 1, 2, 8, 9, 10, 11, 12, 13, 14]
    assert tokens.unpack(packed).tolist() == [[0, 1, 2, 0], [0] * 4, [8, 9, 10, 11], [12, 13, 14, 0]]
    assert tokens.repeat(torch.tensor([3, 5, 7, 9])).tolist() == [3, 3, 3, 7, 7, 7, 7, 9, 9, 9]


def test_no_real_token_at_all():
    tokens = RealTokens.up_to_the_last(torch.zeros(2, 3, dtype=torch.bool))
    assert tokens.pack(torch.ones(2, 3, 5)).shape == (0, 5)
    assert torch.equal(tokens.unpack(torch.ones(0, 5)), torch.zeros(2, 3, 5))


def test_gradients_reach_the_tokens_that_are_real():
    tokens = RealTokens.up_to_the_last(torch.tensor([[True, True, False], [True, False, False]]))
    padded = torch.ones(2, 3, 4, requires_grad=True)
    tokens.unpack(2 * tokens.pack(padded)).sum().backward()
    assert padded.grad[:, :, 0].tolist() == [[2, 2, 0], [2, 0, 0]]


def test_of_meta_tensors_all_tokens_are_real():
    tokens = RealTokens.up_to_the_last(torch.zeros(2, 3, dtype=torch.bool, device="meta"))
    assert tokens.pack(torch.ones(2, 3, 5, device="meta")).shape == (6, 5)
