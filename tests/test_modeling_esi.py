"""The joint model: shapes, masks, causality, gradients, saving, precision, and writing reports."""

import json
import math

import pytest
import torch
from tiny_esi import CONVNEXT, ENCODERS, TEXT, randomise, tiny_batch, tiny_config, tiny_esi
from torch.nn import functional as F
from transformers import AutoModel, BertConfig, BertModel, GenerationConfig

from modeling_esi import ESIConfig, ESIEcgModel, ESIModel
from modeling_esi.losses import caption_loss, contrastive_loss

RESULTS = ("ecg_embeds", "caption_logits", "loss", "contrastive_loss", "caption_loss", "logits_per_ecg")
ATTENTION = pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
VARIANT = pytest.mark.parametrize("variant", ["esi", "released"])
ENCODER = pytest.mark.parametrize("encoder", ENCODERS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def assert_same_bits(first, second) -> None:
    for name in RESULTS:
        assert torch.equal(first[name], second[name]), name


def assert_same_model(first: ESIModel, second: ESIModel) -> None:
    """Equal weights; equal results but for the last bits, which may depend on where weights lie in memory."""
    weights = second.state_dict()
    assert set(first.state_dict()) == set(weights)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    results = [model(**tiny_batch(), return_loss=True) for model in (first, second)]
    for name in RESULTS:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# What comes out
# ---------------------------------------------------------------------------------------------------------------------


@ENCODER
@VARIANT
def test_output_fields_and_shapes(variant, encoder):
    model, batch = tiny_esi(variant, ecg=ENCODERS[encoder]), tiny_batch()
    output = model(**batch, return_loss=True)
    width, predicted = (30, 10) if variant == "esi" else (36, 9)
    assert output.ecg_embeds.shape == output.text_embeds.shape == (3, 28)
    assert output.ecg_state.shape == (3, width)
    assert output.caption_logits.shape == (3, predicted, 99)
    assert output.logits_per_ecg.shape == (3, 3)
    assert torch.equal(output.logits_per_ecg, output.logits_per_text.T)
    assert torch.equal(output.decoder_output.logits, output.caption_logits)
    for embeds in (output.ecg_embeds, output.text_embeds):
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(output.loss, output.contrastive_loss + output.caption_loss)


def test_features_are_the_embeddings_of_forward():
    model, batch = tiny_esi(), tiny_batch()
    output = model(**batch)
    assert torch.equal(model.get_ecg_features(batch["input_values"]), output.ecg_embeds)
    text_features = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(text_features, output.text_embeds, rtol=0, atol=1e-6)


@VARIANT
def test_losses_are_those_of_the_outputs(variant):
    model, batch = tiny_esi(variant, contrastive_loss_weight=0.25, caption_loss_weight=3.0), tiny_batch()
    text_key = torch.tensor([5, 6, 5])
    output = model(**batch, text_key=text_key, return_loss=True)
    keys = text_key if variant == "esi" else None  # `released`: only the pair
    contrastive = contrastive_loss(output.ecg_embeds, output.text_embeds, model.logit_scale.exp(), keys)
    targets = batch["input_ids"][:, 1 if variant == "esi" else 2 :]
    caption = caption_loss(output.caption_logits, targets, ignore_index=0)
    torch.testing.assert_close(output.contrastive_loss, contrastive)
    torch.testing.assert_close(output.caption_loss, caption)
    torch.testing.assert_close(output.loss, 0.25 * contrastive + 3.0 * caption)


def test_released_order_of_things_by_hand():
    """The text encoder sees tokens[:-1]; its states without `[CLS]` are the decoder's input; the context is `e`."""
    model, batch = tiny_esi("released"), tiny_batch()
    output = model(**batch)
    states = model.text_model(batch["input_ids"][:, :-1], batch["attention_mask"][:, :-1]).last_hidden_state
    pooled = model.ecg_model(batch["input_values"]).pooler_output
    ecg_state = F.layer_norm(model.ecg_head(pooled), (36,), model.ecg_norm.weight)
    context = ecg_state[:, None].expand(-1, 9, -1)  # once for each text position
    caption = model.decoder(inputs_embeds=states[:, 1:], context_kv=model.decoder.project_context(context))
    torch.testing.assert_close(output.caption_logits, caption.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.text_embeds, F.normalize(model.text_projection(states[:, 0]), dim=-1))
    torch.testing.assert_close(output.ecg_embeds, F.normalize(model.ecg_projection(ecg_state), dim=-1))


def test_esi_order_of_things_by_hand():
    """Token embeddings of tokens[:-1] enter the decoder; the context is the frames, projected and normed."""
    model, batch = tiny_esi(), tiny_batch()
    output = model(**batch)
    frames = model.ecg_model(batch["input_values"]).last_hidden_state
    context = F.layer_norm(model.context_head(frames), (30,), model.context_norm.weight)
    embeds = model.text_model.embeddings.word_embeddings(batch["input_ids"][:, :-1])
    caption = model.decoder(inputs_embeds=embeds, context_kv=model.decoder.project_context(context))
    assert torch.equal(output.caption_logits, caption.logits)


def test_captions_come_with_pairs_and_losses_need_them():
    model, batch = tiny_esi(), tiny_batch()
    assert model(**batch, return_loss=False).caption_logits is None
    one = batch | {"input_values": batch["input_values"][:1]}
    output = model(**one)
    assert output.caption_logits is None
    assert output.logits_per_ecg.shape == (1, 3)
    with pytest.raises(ValueError, match="got 1 ECGs and 3 texts"):
        model(**one, return_loss=True)


def test_logit_scale_has_one_dimension_starts_as_configured_and_is_clamped():
    model = ESIModel(tiny_config())
    assert model.logit_scale.shape == (1,)
    assert model.get_logit_scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    model.logit_scale.data.fill_(7.0)
    assert model.get_logit_scale().item() == pytest.approx(100.0, rel=1e-5)
    released = ESIModel(tiny_config("released"))
    assert released.get_logit_scale().item() == pytest.approx(math.e, rel=1e-5)
    released.logit_scale.data.fill_(7.0)
    assert released.get_logit_scale().item() == pytest.approx(math.exp(7), rel=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# What must have no influence
# ---------------------------------------------------------------------------------------------------------------------


def masks(num_samples: int) -> dict[str, torch.Tensor]:
    lead_mask = torch.ones(3, 12, dtype=torch.bool)
    lead_mask[0, [3, 7]] = lead_mask[2, 11] = False
    return {"lead_mask": lead_mask, "sample_mask": torch.arange(num_samples) < torch.tensor([[677], [333], [500]])}


@pytest.mark.parametrize("garbage", ["noise", "nan", "inf"])
@ATTENTION
@ENCODER
def test_masked_leads_and_padded_samples_change_no_bit(encoder, attn_implementation, garbage):
    model = tiny_esi(ecg=ENCODERS[encoder], attn_implementation=attn_implementation)
    batch = tiny_batch() | masks(677)
    clean = model(**batch, return_loss=True)
    seen = batch["lead_mask"][:, :, None] & batch["sample_mask"][:, None]
    junk = {"noise": 1e4 * torch.randn(3, 12, 677), "nan": torch.tensor(math.nan), "inf": torch.tensor(math.inf)}
    batch["input_values"] = torch.where(seen, batch["input_values"], junk[garbage])
    assert_same_bits(clean, model(**batch, return_loss=True))
    assert clean.loss.isfinite()


def test_masks_are_no_formality():
    """What is masked does matter where it is not: the test above can fail."""
    model, batch = tiny_esi(), tiny_batch()
    whole = model(**batch).ecg_embeds
    for name, mask in masks(677).items():
        assert (model(**batch, **{name: mask}).ecg_embeds[2] - whole[2]).abs().max() > 1e-3, name


@ENCODER
def test_gradients_do_not_come_from_what_is_masked(encoder):
    model, batch = tiny_esi(ecg=ENCODERS[encoder]).train(), tiny_batch() | masks(677)
    batch["input_values"].requires_grad_()
    model(**batch, return_loss=True).loss.backward()
    seen = batch["lead_mask"][:, :, None] & batch["sample_mask"][:, None]
    gradient = batch["input_values"].grad
    assert torch.equal(gradient[~seen], torch.zeros_like(gradient[~seen]))
    assert (gradient[seen] != 0).float().mean() > 0.9


@ENCODER
def test_a_padded_record_gives_what_it_gives_alone(encoder):
    model, batch = tiny_esi(ecg=ENCODERS[encoder]), tiny_batch()
    together = model(**batch, sample_mask=masks(677)["sample_mask"])
    for row, length in enumerate((677, 333, 500)):
        alone = model(**{name: tensor[row : row + 1] for name, tensor in batch.items()} | {
            "input_values": batch["input_values"][row : row + 1, :, :length]
        })  # fmt: skip
        for name in ("ecg_embeds", "text_embeds", "caption_logits"):
            torch.testing.assert_close(together[name][row : row + 1], alone[name], rtol=1e-5, atol=1e-5)


@ENCODER
def test_a_whole_record_gives_the_same_bits_with_a_mask_and_without(encoder):
    model, batch = tiny_esi(ecg=ENCODERS[encoder]), tiny_batch()
    plain = model(**batch, return_loss=True)
    everything = torch.ones(3, 677, dtype=torch.bool)
    assert_same_bits(plain, model(**batch, sample_mask=everything, return_loss=True))
    beside_a_short_one = everything.clone()
    beside_a_short_one[2, 400:] = False
    mixed = model(**batch, sample_mask=beside_a_short_one)
    assert torch.equal(mixed.ecg_embeds[:2], plain.ecg_embeds[:2])
    torch.testing.assert_close(mixed.caption_logits[:2], plain.caption_logits[:2], rtol=1e-5, atol=1e-5)


def test_padding_of_the_text_changes_nothing_that_is_read():
    model, batch = tiny_esi(), tiny_batch()
    longer = batch | {name: F.pad(batch[name], (0, 5)) for name in ("input_ids", "attention_mask")}
    short, long = model(**batch, return_loss=True), model(**longer, return_loss=True)
    torch.testing.assert_close(long.text_embeds, short.text_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(long.caption_loss, short.caption_loss, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Nothing of the future is visible
# ---------------------------------------------------------------------------------------------------------------------


def caption_logits(model: ESIModel, batch: dict, t: int | None = None) -> torch.Tensor:
    """Logits, with token `t` of every text exchanged where it is given."""
    input_ids = batch["input_ids"].clone()
    if t is not None:
        input_ids[:, t] = 4 + (input_ids[:, t] + 31) % 95
    torch.manual_seed(0)
    return model(batch["input_values"], input_ids=input_ids).caption_logits


@ATTENTION
@pytest.mark.parametrize("training", [False, True])
def test_changing_token_t_changes_no_logit_that_predicts_a_token_up_to_t(training, attn_implementation):
    model, batch = tiny_esi(attn_implementation=attn_implementation).train(training), tiny_batch()
    before = caption_logits(model, batch)
    for t in range(1, 11):
        after = caption_logits(model, batch, t)
        assert torch.equal(after[:, :t], before[:, :t])  # entry i predicts token i + 1
        if t < 10:
            assert not torch.isclose(after[:, t], before[:, t]).all()


@ATTENTION
def test_the_released_variant_does_see_the_token_that_it_predicts(attn_implementation):
    model, batch = tiny_esi("released", attn_implementation=attn_implementation), tiny_batch()
    before = caption_logits(model, batch)
    for t in range(3, 10):  # entry i predicts token i + 2; the last token never enters the text encoder
        after = caption_logits(model, batch, t)
        assert (after[:, : t - 1] - before[:, : t - 1]).abs().max() > 1e-3
    assert torch.equal(caption_logits(model, batch, 10), before)


# ---------------------------------------------------------------------------------------------------------------------
# Every module is used
# ---------------------------------------------------------------------------------------------------------------------

BASE = {key: value for key, value in TEXT.items() if key != "model_type"} | {"pad_token_id": 0}
TEXT_ENCODERS = {
    "bert": BASE,
    "roberta": BASE,
    "electra": BASE | {"embedding_size": 20},
    "albert": BASE | {"embedding_size": 20},
    "mpnet": BASE,
    "distilbert": {
        "vocab_size": 99, "dim": 36, "n_layers": 2, "n_heads": 3, "hidden_dim": 37, "max_position_embeddings": 41,
    },
    "modernbert": BASE | {
        "hidden_size": 48, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3,
    },
    "deberta-v2": BASE | {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", TEXT_ENCODERS)
@VARIANT
def test_any_text_encoder_trains_and_leaves_no_parameter_without_gradient(variant, model_type, tmp_path):
    text = {"model_type": model_type} | TEXT_ENCODERS[model_type]
    width = {"hidden_size": text.get("hidden_size", 36)} if variant == "released" else {}
    model, batch = ESIModel(tiny_config(variant, text=text | {"hidden_size": 36} | width, decoder=width)), tiny_batch()
    model(**batch, return_loss=True).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval().save_pretrained(tmp_path)
    assert_same_model(model, ESIModel.from_pretrained(tmp_path))


@ENCODER
def test_randomised_parameters_all_get_a_gradient_that_is_not_zero(encoder):
    model = tiny_esi(ecg=ENCODERS[encoder])
    model(**tiny_batch(), return_loss=True).loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_without_caption_loss_no_decoder_is_built_and_nothing_is_unused():
    model, batch = ESIModel(tiny_config(caption_loss_weight=0.0)), tiny_batch()
    assert not [name for name, _ in model.named_parameters() if name.startswith(("decoder", "context"))]
    output = model(**batch, return_loss=True)
    output.loss.backward()
    assert output.caption_logits is None
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    with pytest.raises(ValueError, match="no decoder"):
        model.generate(batch["input_values"])


def test_the_released_variant_builds_no_context_head():
    assert not [name for name, _ in ESIModel(tiny_config("released")).named_parameters() if name.startswith("context")]


def test_a_given_text_encoder_keeps_its_weights_and_loses_its_pooler(tmp_path):
    bert = randomise(BertModel(BertConfig(**BASE)))
    assert bert.pooler is not None
    weights = {name: value.clone() for name, value in bert.state_dict().items() if not name.startswith("pooler")}
    bert.save_pretrained(tmp_path)
    for text_model in (bert, AutoModel.from_pretrained(tmp_path)):
        model = ESIModel(tiny_config(), text_model=text_model)
        state = model.text_model.state_dict()
        assert set(state) == set(weights)
        for name, value in weights.items():
            assert torch.equal(state[name], value), name


def test_resizing_the_vocabulary_reaches_the_head_and_both_configurations():
    model, batch = tiny_esi(), tiny_batch()
    model.resize_token_embeddings(105)
    assert (model.config.text_config.vocab_size, model.config.decoder_config.vocab_size) == (105, 105)
    assert model(**batch).caption_logits.shape[-1] == 105


# ---------------------------------------------------------------------------------------------------------------------
# Saving, precision, implementations
# ---------------------------------------------------------------------------------------------------------------------


@ENCODER
@VARIANT
def test_a_saved_model_comes_back_whole(variant, encoder, tmp_path):
    model = tiny_esi(variant, ecg=ENCODERS[encoder])
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is ESIModel
    assert not loaded.training
    assert loaded.config.variant == variant
    assert_same_model(model, loaded)


def test_config_json_says_what_loads_it(tmp_path):
    tiny_esi().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["architectures"] == ["ESIModel"]
    assert content["auto_map"] == {
        "AutoConfig": "configuration_esi.ESIConfig",
        "AutoModel": "modeling_esi.ESIModel",
        "AutoModelForSequenceClassification": "modeling_esi.ESIForECGClassification",
    }
    for name in content["auto_map"].values():
        assert (tmp_path / f"{name.split('.')[0]}.py").is_file()


@ENCODER
def test_the_encoder_alone_loads_from_the_folder_of_the_whole_model(encoder, tmp_path):
    model, x = tiny_esi(ecg=ENCODERS[encoder]), tiny_batch()["input_values"]
    model.save_pretrained(tmp_path / "whole")
    alone = ESIEcgModel.from_pretrained(tmp_path / "whole")
    assert alone.config.model_type == "esi_ecg"
    for name, tensor in model.ecg_model.state_dict().items():
        assert torch.equal(alone.state_dict()[name], tensor), name
    alone.save_pretrained(tmp_path / "alone")
    again = AutoModel.from_pretrained(tmp_path / "alone")
    assert type(again) is ESIEcgModel
    torch.testing.assert_close(again(x).pooler_output, model.ecg_model(x).pooler_output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@VARIANT
def test_half_precision_loads_and_takes_float32_signals(variant, dtype, tmp_path):
    model, batch = tiny_esi(variant), tiny_batch()
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    output = half(**batch, return_loss=True)
    assert output.ecg_embeds.dtype == dtype
    assert output.loss.dtype == torch.float32
    cosine = (output.ecg_embeds.float() * model(**batch).ecg_embeds).sum(-1)
    assert (cosine > 0.99).all()
    output.loss.backward()
    if variant == "esi":
        assert half.generate(batch["input_values"], max_new_tokens=3, min_new_tokens=3).shape == (3, 4)


@ENCODER
@VARIANT
def test_gradient_checkpointing_gives_the_same_gradients(variant, encoder):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_esi(variant, ecg=ENCODERS[encoder]).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        torch.manual_seed(0)
        model(**tiny_batch(), return_loss=True).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: n + m)


@VARIANT
def test_eager_and_sdpa_attention_agree(variant):
    batch = tiny_batch() | masks(677)
    sdpa, eager = (tiny_esi(variant, attn_implementation=name)(**batch, return_loss=True) for name in ("sdpa", "eager"))
    for name in RESULTS:
        torch.testing.assert_close(sdpa[name], eager[name], rtol=1e-4, atol=1e-5)


def test_the_attention_implementation_reaches_every_part(tmp_path):
    tiny_esi().save_pretrained(tmp_path)
    for name in ("sdpa", "eager"):
        model = ESIModel.from_pretrained(tmp_path, attn_implementation=name)
        parts = (model, model.text_model, model.decoder)
        assert [part.config._attn_implementation for part in parts] == [name] * 3


def test_a_record_times_three_tenths_has_another_embedding():
    """Voltage survives: only the `released` norms over time can hide a factor, and they do not stand here."""
    model, x = tiny_esi(), tiny_batch()["input_values"]
    cosine = (model.get_ecg_features(x) * model.get_ecg_features(0.3 * x)).sum(-1)
    assert (cosine < 0.999).all()


# ---------------------------------------------------------------------------------------------------------------------
# Writing reports
# ---------------------------------------------------------------------------------------------------------------------

BOS, EOS, PAD = 2, 3, 0


def greedy_by_hand(model: ESIModel, input_values: torch.Tensor, num_tokens: int, **kwargs) -> torch.Tensor:
    """One forward pass of the whole model for each token; ends and padding as a reader would set them."""
    ids = torch.full((len(input_values), 1), BOS)
    for _ in range(num_tokens):
        logits = model(input_values, input_ids=F.pad(ids, (0, 1)), **kwargs).caption_logits[:, -1]
        done = (ids == EOS).any(dim=1)
        ids = torch.cat([ids, torch.where(done, PAD, logits.argmax(-1))[:, None]], dim=1)
    return ids


@ATTENTION
@ENCODER
def test_greedy_writing_is_the_argmax_of_forward_with_and_without_cache(encoder, attn_implementation):
    model = tiny_esi(ecg=ENCODERS[encoder], attn_implementation=attn_implementation)
    batch = {"input_values": tiny_batch()["input_values"]} | masks(677)
    expected = greedy_by_hand(model, num_tokens=12, **batch)
    for use_cache in (True, False):
        written = model.generate(**batch, max_new_tokens=12, use_cache=use_cache)
        assert torch.equal(written, expected[:, : written.shape[1]])
        assert written.shape[1] == 13 or (written == EOS).any(dim=1).all()


def model_that_ends(step: int) -> ESIModel:
    """A model whose first record ends its text after `step` tokens."""
    model, x = tiny_esi(), tiny_batch()["input_values"]
    model.config.decoder_config.eos_token_id = None
    first = model.generate(x, max_new_tokens=step)[0, -1].item()
    model.config.decoder_config.eos_token_id = first  # set after building, as from a tokenizer
    return model


def test_writing_stops_at_the_end_token_and_pads():
    model, x = model_that_ends(step=3), tiny_batch()["input_values"]
    eos = model.config.decoder_config.eos_token_id
    written = model.generate(x, max_new_tokens=20)
    ends = (written[0] == eos).nonzero()[0].item()
    assert ends <= 3
    assert (written[0, ends + 1 :] == PAD).all()
    alone = model.generate(x[:1], max_new_tokens=20)
    assert alone.shape[1] == ends + 1


def test_a_batch_writes_what_each_record_writes_alone():
    model, batch = model_that_ends(step=4), {"input_values": tiny_batch()["input_values"]} | masks(677)
    together = model.generate(**batch, max_new_tokens=15)
    for row in range(3):
        alone = model.generate(**{name: tensor[row : row + 1] for name, tensor in batch.items()}, max_new_tokens=15)
        assert torch.equal(together[row, : alone.shape[1]], alone[0])
        assert (together[row, alone.shape[1] :] == PAD).all()


def test_a_given_beginning_is_continued_and_left_as_it_was():
    model, x = tiny_esi(), tiny_batch()["input_values"]
    prompt = torch.tensor([[BOS, 17, 5], [BOS, 8, 8], [BOS, 61, 4]])
    before = prompt.clone()
    written = model.generate(x, input_ids=prompt, max_new_tokens=4, min_new_tokens=4)
    assert torch.equal(prompt, before)
    assert torch.equal(written[:, :3], before)
    assert written.shape == (3, 7)
    assert not torch.equal(written[:, 3:], model.generate(x, max_new_tokens=4, min_new_tokens=4)[:, 1:])


def log_probability(model: ESIModel, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logits = model(x, input_ids=ids).caption_logits.log_softmax(-1)
    return logits.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(-1)


def test_beam_search_finds_texts_at_least_as_likely_as_greedy_ones():
    model, x = tiny_esi(decoder={"eos_token_id": None}), tiny_batch()["input_values"]
    greedy, beam = (model.generate(x, max_new_tokens=6, num_beams=beams) for beams in (1, 5))
    assert beam.shape == (3, 7)
    gain = log_probability(model, x, beam) - log_probability(model, x, greedy)
    assert (gain >= -1e-4).all()
    several = model.generate(x, max_new_tokens=6, num_beams=4, num_return_sequences=2)
    assert several.shape == (6, 7)


def test_sampling_is_seeded_and_varies():
    model, x = tiny_esi(), tiny_batch()["input_values"]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": True}
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(model.generate(x, **options))
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_a_generation_config_is_obeyed():
    model, x = tiny_esi(), tiny_batch()["input_values"]
    config = GenerationConfig(max_new_tokens=2, min_new_tokens=2, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    assert model.generate(x, generation_config=config).shape == (3, 3)


def test_writing_gives_no_gradient_and_needs_none():
    assert not model_that_ends(2).generate(tiny_batch()["input_values"], max_new_tokens=2).requires_grad


def test_models_that_cannot_write_say_why():
    x = tiny_batch()["input_values"]
    with pytest.raises(ValueError, match="'released' decoder .* cannot write"):
        tiny_esi("released").generate(x)
    silent = tiny_esi(decoder={"bos_token_id": None})
    with pytest.raises(ValueError, match="bos_token_id is not set"):
        silent.generate(x)
    start = torch.full((3, 1), BOS)
    assert silent.generate(x, input_ids=start, max_new_tokens=2, min_new_tokens=2).shape == (3, 3)


def test_custom_sizes_far_from_the_presets_run():
    config = ESIConfig(
        ecg_config=CONVNEXT | {"num_leads": 8, "patch_size": 5, "kernel_size": 3}, text_config=TEXT,
        decoder_config={"hidden_size": 30, "num_attention_heads": 1, "head_dim": 2, "num_hidden_layers": 1},
        projection_dim=3,
    )  # fmt: skip
    batch = tiny_batch() | {"input_values": torch.randn(3, 8, 403)}
    assert ESIModel(config)(**batch, return_loss=True).loss.isfinite()
