"""Losses beside the model's: they add what their parts say, in chunks what they add at once."""

import pytest
import torch
from tiny_esi import TEXT, XRESNET, tiny_batch, tiny_config, tiny_esi

from modeling_esi.training.extra_losses import multi_positive_loss
from modeling_esi.training.extra_terms import ExtraTerms
from modeling_esi.training.gradient_cache import cached_backward

BATCH = 5


def a_batch():
    batch = tiny_batch(batch=BATCH, num_samples=330)
    batch["lead_mask"] = torch.arange(12) != torch.arange(BATCH)[:, None]
    batch["sample_mask"] = torch.arange(330) < 330 - 40 * torch.arange(BATCH)[:, None]
    batch["text_key"] = torch.tensor([4, 9, 7, 9, 4])
    return batch


def a_model(**kwargs):
    return tiny_esi(text=TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, **kwargs).train()


def test_what_is_added_is_the_weighted_sum_of_the_parts():
    model, inputs = a_model(), a_batch()
    extra = ExtraTerms(model.config, 0.3, 0.7, seed=0)
    torch.manual_seed(2)
    seen, added = extra.of_step(inputs)
    torch.manual_seed(2)
    values, hidden = extra.masked_frames.hide(inputs["input_values"])
    assert torch.equal(seen["input_values"], values) and not torch.equal(values, inputs["input_values"])
    assert seen["input_ids"] is inputs["input_ids"]
    output = model(**seen, return_loss=True)
    ecg, states = output.ecg_model_output, output.text_model_output.last_hidden_state
    masked = extra.masked_frames(ecg.last_hidden_state, inputs["input_values"], hidden, inputs["lead_mask"],
                                 ecg.frame_mask)  # fmt: skip
    logits = extra.alignment.logits_per_text(ecg.last_hidden_state, ecg.frame_mask, states, inputs["attention_mask"])
    same = inputs["text_key"][:, None] == inputs["text_key"][None, :]
    expected = 0.3 * masked + 0.7 * multi_positive_loss(logits, same)
    torch.testing.assert_close(added(output, slice(None)), expected)


@pytest.mark.parametrize("variant", ["esi", "released"])
def test_both_variants_and_encoders_train_every_head(variant):
    for fields in ({}, {"ecg": XRESNET}):
        model = a_model(variant=variant, **fields)
        extra = ExtraTerms(model.config, 0.3, 0.7, seed=0)
        seen, added = extra.of_step(a_batch())
        output = model(**seen, return_loss=True)
        (output.loss + added(output, slice(None))).backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in extra.parameters())


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_masked_frames_in_chunks_have_the_gradients_of_the_whole_batch(chunk_size):
    found = []
    for in_chunks in (False, True):
        model, inputs = a_model().double(), a_batch()
        inputs["input_values"] = inputs["input_values"].double()
        extra = ExtraTerms(model.config, 0.6, 0.0, seed=0).double()
        torch.manual_seed(2)
        seen, added = extra.of_step(inputs)
        if in_chunks:
            loss = cached_backward(model, seen, chunk_size, torch.Tensor.backward, added).loss
        else:
            output = model(**seen, return_loss=True)
            loss = (output.loss + added(output, slice(None))).detach()
            (output.loss + added(output, slice(None))).backward()
        everything = [*model.named_parameters(), *extra.named_parameters()]
        found.append({"loss": loss} | {name: parameter.grad for name, parameter in everything})
    for name, expected in found[0].items():  # the encoder's targets are taken in float32, whatever the model is in
        torch.testing.assert_close(found[1][name], expected, rtol=1e-5, atol=1e-6, msg=lambda told, n=name: n + told)


def test_heads_come_from_their_seed_alone_and_leave_the_draws_of_others():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = ExtraTerms(tiny_config(), 1.0, 1.0, seed=0)
    assert torch.equal(torch.rand(1), expected)
    other = ExtraTerms(tiny_config(), 1.0, 1.0, seed=0)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    with pytest.raises(ValueError, match="expected 0 .off. or more, got -1 and 0"):
        ExtraTerms(tiny_config(), -1.0, 0.0, seed=0)
