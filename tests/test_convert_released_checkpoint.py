"""Published weights come out as the same model: against reference outputs, and against names written down here."""

import json
import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_esi import CONVNEXT, TEXT, XRESNET, randomise, tiny_batch, tiny_config
from transformers import AutoModel, AutoProcessor, BertConfig, RobertaConfig

from modeling_esi import LEADS, MIMIC_LEADS, ESIConfig, ESIEcgConfig, ESIEcgModel, ESIModel
from modeling_esi.convert_released_checkpoint import (
    convert_released_checkpoint,
    convert_released_encoder,
    main,
    read_checkpoint,
)

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
BERT = BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"})


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ---------------------------------------------------------------------------------------------------------------------
# Reference weights, inputs and outputs
# ---------------------------------------------------------------------------------------------------------------------


def reference(name: str) -> tuple[dict, dict, dict, dict]:
    """State dict, inputs, outputs and configuration of a reference file."""
    path = REFERENCE / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"the reference weights ../shared/reference/{path.name} are not beside the checkout")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    parts: dict[str, dict] = {"state_dict": {}, "input": {}, "output": {}}
    for key, tensor in load_file(path).items():
        part, _, key = key.partition(".")
        parts[part][key] = tensor
    return parts["state_dict"], parts["input"], parts["output"], config


def assert_relatively_close(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert actual.shape == expected.shape, name
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    print(f"\n{name}: {error:.1e}")  # pytest -s shows it
    assert error < 1e-5, f"{name}: {error:.2e}"  # 1e-4 is asked for


def test_the_reference_model_gives_its_outputs():
    state_dict, inputs, expected, sizes = reference("esi_released_tiny")
    text = BertConfig(
        vocab_size=sizes["vocab_size"], hidden_size=sizes["text_hidden_size"],
        num_hidden_layers=sizes["text_num_hidden_layers"], num_attention_heads=sizes["text_num_attention_heads"],
        intermediate_size=sizes["text_intermediate_size"],
        max_position_embeddings=sizes["text_max_position_embeddings"],
    )  # fmt: skip
    model = convert_released_checkpoint(state_dict, text)
    assert model.config.variant == "released"
    with torch.no_grad():
        output = model(
            inputs["signals"].transpose(1, 2), input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            return_loss=True,
        )  # fmt: skip
    actual = {
        "ecg_pooled": output.ecg_model_output.pooler_output, "ecg_embedding": output.ecg_state,
        "text_cls": output.text_model_output.last_hidden_state[:, 0], "ecg_latents": output.ecg_embeds,
        "text_latents": output.text_embeds, "caption_logits": output.caption_logits,
        "contrastive_loss": output.contrastive_loss, "caption_loss": output.caption_loss, "loss": output.loss,
    }  # fmt: skip
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert_relatively_close(actual[name], tensor, name)


def test_the_reference_encoder_gives_its_output():
    state_dict, inputs, expected, _ = reference("xresnet1d101_released")
    model = convert_released_encoder(state_dict)
    assert model.config.signal_encoder == "xresnet1d101"
    with torch.no_grad():
        pooled = model(inputs["signals"].transpose(1, 2)).pooler_output
    assert_relatively_close(pooled, expected["ecg_pooled"], "ecg_pooled")


def test_the_reference_names_are_those_that_the_tests_below_write():
    state_dict, _, _, sizes = reference("esi_released_tiny")
    ecg = {"depths": sizes["depths"], "hidden_sizes": sizes["dims"]}
    written = published(ESIModel(tiny_config("released", ecg=ecg)))
    assert set(written) == set(state_dict)
    encoder, _, _, _ = reference("xresnet1d101_released")
    whole = ESIModel(tiny_config("released", ecg={"signal_encoder": "xresnet1d101"}))
    mine = {name.removeprefix("img_encoder.") for name in published(whole) if name.startswith("img_encoder.")}
    assert mine == set(encoder)


# ---------------------------------------------------------------------------------------------------------------------
# Published names, written from model.md section 5
# ---------------------------------------------------------------------------------------------------------------------


def published_convnext(model: ESIEcgModel) -> dict[str, torch.Tensor]:
    width, tensors = model.config.hidden_size, {}
    for name, tensor in model.encoder.state_dict().items():
        group, *rest = name.split(".")
        if group == "downsamples":
            stage, part, kind = rest
            is_norm = part == "norm"
            index = int(is_norm) if stage == "0" else int(not is_norm)
            shape = (1, -1, 1) if is_norm else tensor.shape
            tensors[f"img_encoder.downsample_layers.{stage}.{index}.{kind}"] = tensor.reshape(shape)
        else:
            tensors[f"img_encoder.{name}"] = tensor[None, None] if ".grn." in name else tensor
    return tensors | {"img_encoder.head.weight": torch.ones(5, width), "img_encoder.head.bias": torch.ones(5)}


def published_xresnet(model: ESIEcgModel) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, tensor in model.encoder.state_dict().items():
        group, *rest = name.split(".")
        kind = rest[-1]
        part = {"conv": 0, "norm": 1}[rest[-2]]
        if group == "stem":
            tensors[f"img_encoder.{rest[0]}.{part}.{kind}"] = tensor
            continue
        stage, block = int(rest[0]), rest[1]
        where = f"img_encoder.{4 + stage}.{block}"
        if rest[2] == "shortcut":
            tensors[f"{where}.idpath.{1 if stage else 0}.{part}.{kind}"] = tensor  # the average pool comes first
        else:
            for copy in ("convs", "convpath.0"):
                tensors[f"{where}.{copy}.{rest[3]}.{part}.{kind}"] = tensor.clone()
    return tensors


DECODER_NAMES = {
    "causal_step.norm.weight": "0.fn.norm.gamma", "causal_step.in_proj.weight": "0.fn.fused_attn_ff_proj.weight",
    "causal_step.attn_out.weight": "0.fn.attn_out.weight", "causal_step.ff_out.weight": "0.fn.ff_out.1.weight",
    "cross_step.norm.weight": "1.fn.norm.gamma", "cross_step.q_proj.weight": "1.fn.to_q.weight",
    "cross_step.kv_proj.weight": "1.fn.to_kv.weight", "cross_step.attn_out.weight": "1.fn.to_out.weight",
    "cross_step.ff_in.weight": "1.fn.ff.0.weight", "cross_step.ff_out.weight": "1.fn.ff.2.weight",
}  # fmt: skip
HEAD_NAMES = {
    "logit_scale": "temperature", "ecg_head.weight": "img_token_head.weight", "ecg_head.bias": "img_token_head.bias",
    "ecg_norm.weight": "img_attn_pool_norm.gamma", "ecg_projection.weight": "img_to_latents.to_latents.weight",
    "text_projection.weight": "text_to_latents.to_latents.weight", "decoder.norm.weight": "to_logits.0.gamma",
    "decoder.lm_head.weight": "to_logits.1.weight",
}  # fmt: skip
TEXT_COPIES = ("unimodal_layers.", "pretrained_text_encoder.")


def published(model: ESIModel) -> dict[str, torch.Tensor]:
    """The model's tensors as a published state dict stores them, unused ones included."""
    config, ours, tensors = model.config, model.state_dict(), {}
    for name, theirs in HEAD_NAMES.items():
        tensors[theirs] = ours[name]
    for i in range(config.decoder_config.num_hidden_layers):
        for name, theirs in DECODER_NAMES.items():
            tensors[f"multimodal_layers.{i}.{theirs}"] = ours[f"decoder.layers.{i}.{name}"]
        half = config.decoder_config.head_dim // 2
        tensors[f"multimodal_layers.{i}.0.fn.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(half) / half)
    width, ecg_width, inner = config.hidden_size, config.ecg_config.hidden_size, 2 * config.decoder_config.head_dim
    tensors |= {
        "img_attn_pool.to_q.weight": torch.ones(inner, width),
        "img_attn_pool.to_kv.weight": torch.ones(inner, ecg_width),
        "img_attn_pool.to_out.weight": torch.ones(width, inner),
        "img_attn_pool.norm.gamma": torch.ones(width),
        "img_attn_pool.context_norm.gamma": torch.ones(ecg_width),
        "text_cls_norm.gamma": torch.ones(width),
    }
    for copy in TEXT_COPIES:
        for name, tensor in model.text_model.state_dict().items():
            tensors[copy + name] = tensor.clone()
        text_width = config.text_config.hidden_size
        tensors |= {copy + "pooler.dense.weight": torch.ones(text_width, text_width)}
        tensors |= {copy + "pooler.dense.bias": torch.ones(text_width)}
    gammas = [name for name in tensors if name.endswith(".gamma")]
    tensors |= {name.removesuffix("gamma") + "beta": torch.zeros_like(tensors[name]) for name in gammas}
    is_xresnet = config.ecg_config.encoder_type == "xresnet1d"
    return tensors | (published_xresnet if is_xresnet else published_convnext)(model.ecg_model)


def released(ecg: dict = CONVNEXT, text: dict = TEXT, **decoder) -> ESIModel:
    config = tiny_config("released", ecg=ecg, text=text, decoder=decoder)
    model = randomise(ESIModel(config)).eval()
    model.logit_scale.data.fill_(1.7)
    return model


SIZES = {
    "another ConvNeXt": ({"depths": [2, 1, 3, 2], "hidden_sizes": [6, 10, 14, 22]}, {}),
    "convnextv2_atto": ({"signal_encoder": "convnextv2_atto"}, {}),
    "other kernels and leads": (CONVNEXT | {"kernel_size": 5, "patch_size": 5, "num_leads": 8}, {}),
    "an XResNet": (XRESNET, {}),
    "another decoder": (
        CONVNEXT, {"num_hidden_layers": 3, "num_attention_heads": 5, "head_dim": 6, "intermediate_size": 19},
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_any_size_comes_back_as_it_was(size, prefix):
    ecg, decoder = SIZES[size]
    model = released(ecg, **decoder)
    converted = convert_released_checkpoint({prefix + name: t for name, t in published(model).items()}, BERT)
    assert type(converted) is ESIModel and not converted.training
    assert converted.config.variant == "released"
    for name in ("signal_encoder", "depths", "hidden_sizes", "kernel_size", "num_leads", "patch_size", "norm_type"):
        if name != "patch_size" or model.config.ecg_config.encoder_type == "convnextv2":
            assert getattr(converted.config.ecg_config, name) == getattr(model.config.ecg_config, name), name
    for name in ("num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size", "vocab_size"):
        assert getattr(converted.config.decoder_config, name) == getattr(model.config.decoder_config, name), name
    assert set(converted.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(converted.state_dict()[name], tensor), name
    batch = tiny_batch() | {"input_values": torch.randn(3, model.config.ecg_config.num_leads, 677)}
    expected, actual = model(**batch, return_loss=True), converted(**batch, return_loss=True)
    for name in ("ecg_embeds", "text_embeds", "caption_logits", "loss"):
        assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize("dropped", TEXT_COPIES)
def test_either_copy_of_the_text_encoder_is_enough(dropped):
    model = released()
    state_dict = {name: t for name, t in published(model).items() if not name.startswith(dropped)}
    converted = convert_released_checkpoint(state_dict, BERT)
    for name, tensor in model.text_model.state_dict().items():
        assert torch.equal(converted.text_model.state_dict()[name], tensor), name


@pytest.mark.parametrize("dropped", ["convs.", "convpath."])
def test_either_copy_of_the_xresnet_convolutions_is_enough(dropped):
    model = released(XRESNET)
    state_dict = {name: t for name, t in published(model).items() if f".{dropped}" not in name}
    converted = convert_released_checkpoint(state_dict, BERT)
    x = tiny_batch()["input_values"]
    assert torch.equal(converted.get_ecg_features(x), model.get_ecg_features(x))


def test_another_kind_of_text_encoder():
    fields = {name: value for name, value in TEXT.items() if name != "model_type"}
    model = released(text={"model_type": "roberta"} | fields)
    converted = convert_released_checkpoint(published(model), RobertaConfig(**fields))
    batch = tiny_batch()
    assert torch.equal(converted(**batch).text_embeds, model(**batch).text_embeds)


def test_half_precision_files_become_float32():
    state_dict = {name: tensor.half() for name, tensor in published(released()).items()}
    converted = convert_released_checkpoint(state_dict, BERT)
    assert {parameter.dtype for parameter in converted.parameters()} == {torch.float32}


def test_unused_tensors_are_named(caplog):
    with caplog.at_level(logging.INFO, logger="modeling_esi.convert_released_checkpoint"):
        convert_released_checkpoint(published(released()), BERT)
    for name in ("img_attn_pool.to_q.weight", "text_cls_norm.gamma", "img_encoder.head.bias", "pooler.dense.weight"):
        assert name in caplog.text


@pytest.mark.parametrize("encoder", [CONVNEXT, XRESNET])
def test_the_encoder_alone(encoder):
    model = released(encoder)
    state_dict = {
        name.removeprefix("img_encoder."): tensor
        for name, tensor in published(model).items()
        if name.startswith("img_encoder.")
    }
    alone, x = convert_released_encoder(state_dict), tiny_batch()["input_values"]
    assert type(alone) is ESIEcgModel
    assert torch.equal(alone(x).pooler_output, model.ecg_model(x).pooler_output)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------


def refusal(changes: dict[str, torch.Tensor | None], ecg: dict = CONVNEXT) -> str:
    """The message for a state dict with some tensors exchanged, added, or (`None`) removed."""
    state_dict = published(released(ecg)) | changes
    with pytest.raises(ValueError) as caught:
        convert_released_checkpoint({name: t for name, t in state_dict.items() if t is not None}, BERT)
    return str(caught.value)


def test_unknown_tensors_are_listed():
    message = refusal({"img_encoder.stages.0.0.gate.weight": torch.ones(3), "extra_tower.bias": torch.ones(2)})
    assert "2 tensors do not fit" in message
    assert "img_encoder.stages.0.0.gate.weight" in message
    assert "extra_tower.bias (2,)" in message


@pytest.mark.parametrize(
    "name",
    [
        "temperature", "img_token_head.bias", "img_encoder.stages.2.1.dwconv.bias", "img_encoder.norm.weight",
        "img_encoder.downsample_layers.2.1.weight", "text_to_latents.to_latents.weight", "to_logits.0.gamma",
        "multimodal_layers.1.1.fn.to_q.weight",
    ],
)  # fmt: skip
def test_missing_tensors_are_listed(name):
    assert "missing" in refusal({name: None})


@pytest.mark.parametrize("name", ["to_logits.1.weight", "img_to_latents.to_latents.weight"])
def test_a_missing_tensor_that_gives_a_size_is_named(name):
    assert name in refusal({name: None})


def test_both_copies_of_a_text_tensor_missing():
    name = "encoder.layer.1.output.dense.weight"
    message = refusal({copy + name: None for copy in TEXT_COPIES})
    assert f"missing: text_model.{name}" in message


def test_another_shape_is_refused_with_both_shapes():
    message = refusal({"img_token_head.bias": torch.ones(35)})
    assert "img_token_head.bias: expected shape (36,), got (35,)" in message


@pytest.mark.parametrize("name, ecg", [
    ("pretrained_text_encoder.embeddings.word_embeddings.weight", CONVNEXT),
    ("img_encoder.5.1.convpath.0.1.0.weight", XRESNET),
])  # fmt: skip
def test_copies_that_contradict_each_other_are_refused(name, ecg):
    tensor = published(released(ecg))[name].clone()
    tensor.view(-1)[7] += 1e-3
    assert f"{name}: differs from its second copy" in refusal({name: tensor}, ecg)


@pytest.mark.parametrize("name", ["img_attn_pool_norm.beta", "to_logits.0.beta", "multimodal_layers.1.0.fn.norm.beta"])
def test_a_constant_that_is_not_zero_would_be_lost_and_is_refused(name):
    tensor = torch.zeros(36)
    tensor[5] = 0.1
    assert name in refusal({name: tensor})


def test_a_state_dict_of_something_else_is_refused():
    with pytest.raises(ValueError, match="published ESI checkpoint"):
        convert_released_checkpoint({"model.layer.weight": torch.ones(2, 2)}, BERT)
    with pytest.raises(ValueError, match="neither a ConvNeXt V2 .* nor an XResNet"):
        convert_released_encoder({"layer.weight": torch.ones(2, 2)})


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_a_bin_file_is_read(wrapper, tmp_path):
    state_dict = published(released())
    torch.save(state_dict if wrapper is None else {wrapper: state_dict, "epoch": 3}, tmp_path / "esi.bin")
    read = read_checkpoint(tmp_path / "esi.bin")
    assert set(read) == set(state_dict)
    assert torch.equal(read["temperature"], state_dict["temperature"])


def test_a_safetensors_file_is_read(tmp_path):
    state_dict = {name: tensor.contiguous() for name, tensor in published(released()).items()}
    save_file(state_dict, tmp_path / "esi.safetensors")
    assert set(read_checkpoint(tmp_path / "esi.safetensors")) == set(state_dict)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_runs_nothing(legacy, tmp_path):
    proof, path = tmp_path / "it_ran", tmp_path / "esi.bin"
    content = {"temperature": torch.ones(1), "payload": Code(proof)}
    if legacy:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="may hold code, which is never run"):
        read_checkpoint(path)
    assert not proof.exists()


def test_files_that_are_not_there_or_hold_no_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_checkpoint(tmp_path / "esi.safetensors")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "esi.bin")
    with pytest.raises(ValueError, match="dictionary of tensors"):
        read_checkpoint(tmp_path / "esi.bin")


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory) -> Path:
    """Folder of a tiny BERT's configuration and WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sinus", "rhythm", "left", "axis", "##es", "."]
    words += [f"[unused{i}]" for i in range(99 - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    BERT.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("options, leads", [([], MIMIC_LEADS), (["--lead_order", "standard"], LEADS)])
def test_the_command_writes_a_folder_that_loads(options, leads, text_encoder, tmp_path):
    model = released()
    torch.save(published(model), tmp_path / "esi.bin")
    output = tmp_path / "converted"
    arguments = ["--checkpoint", tmp_path / "esi.bin", "--text_encoder", text_encoder, "--output", output]
    main([str(argument) for argument in arguments] + options)

    loaded, processor = AutoModel.from_pretrained(output), AutoProcessor.from_pretrained(output)
    assert loaded.config.variant == "released"
    assert (loaded.config.decoder_config.bos_token_id, loaded.config.decoder_config.eos_token_id) == (2, 3)
    feature_extractor = processor.feature_extractor
    assert list(feature_extractor.leads) == list(leads)
    assert (feature_extractor.scaling, feature_extractor.sampling_rate) == ("record", 500)
    assert "license: gpl-3.0" in (output / "README.md").read_text()

    signal = torch.randn(12, 5000, generator=torch.Generator().manual_seed(0)).double()
    signal[2:6] = torch.stack([  # Einthoven and Goldberger
        signal[1] - signal[0], -(signal[0] + signal[1]) / 2, signal[0] - signal[1] / 2, signal[1] - signal[0] / 2,
    ])  # fmt: skip
    inputs = processor(signal.numpy(), ["sinus rhythm"], sampling_rate=500, leads=list(LEADS))
    in_order = signal[[LEADS.index(lead) for lead in leads]]
    expected = ((in_order - in_order.mean()) / (in_order.std(unbiased=False) + 1e-6)).float()
    torch.testing.assert_close(inputs["input_values"][0], expected, rtol=1e-3, atol=1e-3)
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 3]]
    result = loaded(**inputs, return_loss=True)
    torch.testing.assert_close(result.ecg_embeds, model.get_ecg_features(inputs["input_values"]))
    assert result.loss.isfinite()


def test_the_command_refuses_a_checkpoint_that_is_not_there(text_encoder, tmp_path):
    arguments = ["--checkpoint", tmp_path / "none.bin", "--text_encoder", text_encoder, "--output", tmp_path / "out"]
    with pytest.raises(ValueError, match="no file"):
        main([str(argument) for argument in arguments])
    assert not (tmp_path / "out").exists()


def test_presets_are_recognised_by_their_sizes():
    for name in ("convnextv2_atto", "convnextv2_nano", "xresnet1d101"):
        config = ESIConfig.from_variant("released", signal_encoder=name).ecg_config
        with torch.device("meta"):
            encoder = ESIEcgModel(config)
        writer = published_xresnet if name == "xresnet1d101" else published_convnext
        state_dict = {key.removeprefix("img_encoder."): torch.zeros(t.shape) for key, t in writer(encoder).items()}
        found = convert_released_encoder(state_dict).config
        assert found.signal_encoder == name
        assert found.to_dict() == ESIEcgConfig.from_dict(config.to_dict()).to_dict()
