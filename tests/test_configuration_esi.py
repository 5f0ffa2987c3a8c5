"""Presets as published, the two variants as named fields, refusals, and what saving keeps."""

import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_esi import CONVNEXT, TEXT, XRESNET, tiny_config
from transformers import AutoConfig, RobertaConfig

from modeling_esi import ENCODER_PRESETS, LEADS, MIMIC_LEADS, ESIConfig, ESIDecoderConfig, ESIEcgConfig
from modeling_esi.configuration_esi import VARIANTS

PUBLISHED_SIZES = {
    "convnextv2_atto": ([2, 2, 6, 2], [40, 80, 160, 320], 320),
    "convnextv2_femto": ([2, 2, 6, 2], [48, 96, 192, 384], 384),
    "convnextv2_pico": ([2, 2, 6, 2], [64, 128, 256, 512], 512),
    "convnextv2_nano": ([2, 2, 8, 2], [80, 160, 320, 640], 640),
    "convnextv2_tiny": ([3, 3, 9, 3], [96, 192, 384, 768], 768),
    "convnextv2_base": ([3, 3, 27, 3], [128, 256, 512, 1024], 1024),
    "convnextv2_large": ([3, 3, 27, 3], [192, 384, 768, 1536], 1536),
    "convnextv2_huge": ([3, 3, 27, 3], [352, 704, 1408, 2816], 2816),
    "xresnet1d101": ([3, 4, 23, 3], [256, 256, 256, 256], 512),
}


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_presets_have_the_published_sizes(name):
    config = ESIEcgConfig(signal_encoder=name)
    assert (config.depths, config.hidden_sizes, config.hidden_size) == PUBLISHED_SIZES[name]
    is_xresnet = name == "xresnet1d101"
    assert config.kernel_size == (5 if is_xresnet else 7)
    assert config.norm_type == ("batch" if is_xresnet else "channel")


def test_there_are_no_other_presets_and_base_is_the_default():
    assert set(ENCODER_PRESETS) == set(PUBLISHED_SIZES)
    assert ESIEcgConfig().signal_encoder == "convnextv2_base"


def test_a_preset_cannot_be_changed_through_a_configuration():
    ESIEcgConfig(signal_encoder="convnextv2_atto").depths.append(5)
    assert ENCODER_PRESETS["convnextv2_atto"]["depths"] == [2, 2, 6, 2]


def test_lead_orders_hold_the_same_leads_and_differ_in_avl_and_avf():
    assert sorted(LEADS) == sorted(MIMIC_LEADS)
    assert [i for i in range(12) if LEADS[i] != MIMIC_LEADS[i]] == [LEADS.index("aVL"), LEADS.index("aVF")]


def field(config: ESIConfig, name: str):
    for part in name.split("."):
        config = getattr(config, part)
    return config


#: Another legal value for each field in which the variants differ.
OTHER = {
    "ecg_config.norm_type": {"channel": "time", "time": "channel"},
    "ecg_config.mask_padding": {True: False, False: True},
    "decoder_config.ecg_context": {"frames": "pooled", "pooled": "frames"},
    "decoder_config.input_states": {"token_embeddings": "text_encoder", "text_encoder": "token_embeddings"},
    "negatives": {"global": "local", "local": "global"},
    "positives": {"entailed": "pair", "pair": "entailed"},
    "logit_scale_init_value": {math.log(1 / 0.07): 2.0, 1.0: 2.0},
    "logit_scale_max": {100.0: 50.0, None: 50.0},
}
EVERY_DIFFERENCE = [(variant, name) for variant in VARIANTS for name in OTHER]


def test_variants_are_what_the_table_of_the_model_says():
    assert set(VARIANTS["esi"]) == set(VARIANTS["released"]) == set(OTHER)
    esi, released = ESIConfig.from_variant("esi"), ESIConfig.from_variant("released")
    assert (esi.ecg_config.norm_type, released.ecg_config.norm_type) == ("channel", "time")
    assert (esi.ecg_config.mask_padding, released.ecg_config.mask_padding) == (True, False)
    assert (esi.decoder_config.ecg_context, released.decoder_config.ecg_context) == ("frames", "pooled")
    assert esi.decoder_config.input_states == "token_embeddings"
    assert released.decoder_config.input_states == "text_encoder"
    assert (esi.negatives, released.negatives) == ("global", "local")
    assert (esi.positives, released.positives) == ("entailed", "pair")
    assert math.exp(esi.logit_scale_init_value) == pytest.approx(1 / 0.07)
    assert released.logit_scale_init_value == 1.0
    assert (esi.logit_scale_max, released.logit_scale_max) == (100.0, None)


def test_the_variants_differ_in_no_field_that_is_not_named():
    def flat(fields: dict, prefix: str = "") -> dict:
        items = {}
        for name, value in fields.items():
            items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return items

    esi, released = flat(ESIConfig.from_variant("esi").to_dict()), flat(ESIConfig.from_variant("released").to_dict())
    assert {name for name in esi | released if esi.get(name) != released.get(name)} == set(VARIANTS["esi"])


def test_nothing_given_is_the_esi_variant():
    assert ESIConfig().variant == "esi"


@pytest.mark.parametrize("ecg", [CONVNEXT, XRESNET])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_recognised_with_either_encoder(variant, ecg):
    config = tiny_config(variant, ecg=ecg)
    assert config.variant == variant
    assert ESIConfig.from_dict(config.to_dict()).variant == variant


@pytest.mark.parametrize("variant, name", EVERY_DIFFERENCE)
def test_every_field_is_set_by_its_variant_and_seen_by_the_property(variant, name):
    config = ESIConfig.from_variant(variant)
    value = field(config, name)
    assert value == VARIANTS[variant][name]
    section, _, last = name.rpartition(".")
    setattr(getattr(config, section) if section else config, last, OTHER[name][value])
    assert config.variant == "custom"


@pytest.mark.parametrize("variant, name", EVERY_DIFFERENCE)
def test_a_field_given_by_the_caller_wins_over_the_variant(variant, name):
    section, _, last = name.rpartition(".")
    other = OTHER[name][VARIANTS[variant][name]]
    given = {section: {last: other}} if section else {last: other}
    assert field(ESIConfig.from_variant(variant, **given), name) == other


def test_a_variant_sets_its_fields_in_configurations_given_as_objects_too():
    config = ESIConfig.from_variant("released", ecg_config=ESIEcgConfig(**CONVNEXT), decoder_config=ESIDecoderConfig())
    assert config.variant == "released"
    assert config.ecg_config.hidden_sizes == CONVNEXT["hidden_sizes"]


def test_a_preset_and_fields_of_the_encoder_go_together():
    config = ESIConfig.from_variant("esi", signal_encoder="convnextv2_pico", ecg_config={"drop_path_rate": 0.1})
    assert config.ecg_config.hidden_size == 512
    assert config.ecg_config.drop_path_rate == 0.1


def test_widths_follow_from_the_text_encoder_and_the_decoder():
    config = ESIConfig(text_config=TEXT, decoder_config={"hidden_size": 30})
    assert (config.decoder_config.vocab_size, config.decoder_config.embedding_size, config.hidden_size) == (99, 36, 30)
    assert config.decoder_config.intermediate_size == 120
    electra = {"model_type": "electra", "vocab_size": 99, "hidden_size": 36, "embedding_size": 20}
    assert ESIConfig(text_config=electra).decoder_config.embedding_size == 20


ROBERTA = {
    "model_type": "roberta", "vocab_size": 77, "hidden_size": 18, "num_attention_heads": 2, "num_hidden_layers": 1,
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("text", [TEXT, ROBERTA])
@pytest.mark.parametrize("ecg", [CONVNEXT, XRESNET])
def test_saving_and_loading_keeps_every_field(variant, text, ecg, tmp_path):
    config = tiny_config(variant, ecg=ecg, text=text, projection_dim=13, num_labels=5, caption_loss_weight=0.5)
    assert ESIConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ESIConfig
    assert type(loaded.text_config) is type(config.text_config)
    assert loaded.to_dict() == config.to_dict() | {"_name_or_path": str(tmp_path)}
    assert (loaded.projection_dim, loaded.num_labels, loaded.caption_loss_weight) == (13, 5, 0.5)


def test_config_json_names_both_towers_and_the_code_that_builds_them(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_type"] == "esi"
    assert content["auto_map"]["AutoConfig"] == "configuration_esi.ESIConfig"
    assert content["ecg_config"]["hidden_sizes"] == CONVNEXT["hidden_sizes"]
    assert content["text_config"]["model_type"] == "bert"
    assert content["decoder_config"]["ecg_context"] == "frames"


def test_a_text_configuration_may_be_an_object():
    config = ESIConfig(text_config=RobertaConfig(vocab_size=77, hidden_size=18, num_attention_heads=2))
    assert config.text_config.model_type == "roberta"
    assert config.decoder_config.vocab_size == 77


REFUSED_ECG = {
    "an unknown preset": ({"signal_encoder": "convnextv2_giga"}, "convnextv2_giga"),
    "a preset with other depths": ({"signal_encoder": "convnextv2_atto", "depths": [1, 1, 1, 1]}, r"\[2, 2, 6, 2\]"),
    "three stages": ({"depths": [1, 1, 1], "hidden_sizes": [8, 8, 8]}, "four stages"),
    "no block in a stage": ({"depths": [1, 0, 1, 1], "hidden_sizes": [8, 8, 8, 8]}, "positive"),
    "another pooled width": (CONVNEXT | {"hidden_size": 41}, "got 41"),
    "XResNet's pooled width is twice its channels": (XRESNET | {"hidden_size": 44}, "give 88, got 44"),
    "BatchNorm in ConvNeXt": (CONVNEXT | {"norm_type": "batch"}, "channel or time"),
    "channel norm in XResNet": (XRESNET | {"norm_type": "channel"}, "has batch"),
    "an even kernel": (CONVNEXT | {"kernel_size": 6}, "odd number, got 6"),
    "always dropping": (CONVNEXT | {"drop_path_rate": 1.0}, "got 1.0"),
}


@pytest.mark.parametrize("case", REFUSED_ECG)
def test_encoders_that_make_no_sense_are_refused(case):
    fields, message = REFUSED_ECG[case]
    with pytest.raises(ValueError, match=message):
        ESIEcgConfig(**fields)


REFUSED = {
    "two widths": ({"hidden_size": 31, "decoder_config": {"hidden_size": 30}}, "decoder's is 30, got 31"),
    "text states of another width": (
        {"decoder_config": {"hidden_size": 30, "input_states": "text_encoder"}}, "expected hidden_size 36, got 30",
    ),
    "a head that cannot write every token": ({"decoder_config": {"vocab_size": 98}}, "99, got 98"),
    "an odd head": ({"decoder_config": {"head_dim": 13}}, "even number, got 13"),
    "no contrastive loss": ({"contrastive_loss_weight": 0.0}, "got 0.0"),
    "a negative weight": ({"caption_loss_weight": -1.0}, "-1.0"),
    "a scale that starts above its maximum": ({"logit_scale_init_value": 5.0}, "4.6052, got 5.0"),
    "no group of texts": ({"text_groups": 0}, "text_groups: expected at least 1, got 0"),
    "an unknown text encoder": ({"text_config": {"model_type": "biolink"}}, "biolink"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_combinations_that_make_no_sense_are_refused(case):
    fields, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        ESIConfig(**{"text_config": TEXT} | fields)


def test_an_unknown_variant_and_an_unknown_word_are_refused():
    with pytest.raises(ValueError, match="expected one of esi, released, got 'paper'"):
        ESIConfig.from_variant("paper")
    for fields in ({"negatives": "all"}, {"positives": "all"}, {"ecg_config": CONVNEXT | {"norm_type": "group"}}):
        with pytest.raises((ValueError, StrictDataclassError), match="expected one of"):
            ESIConfig(**fields)
