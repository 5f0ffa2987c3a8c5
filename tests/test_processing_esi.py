"""The processor: the door and the tokenizer in one object, saved and loaded as one."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedTokenizerFast

from modeling_esi import processing_esi
from modeling_esi.configuration_esi import LEADS, ESIConfig
from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
from modeling_esi.processing_esi import ESIProcessor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sinus", "rhythm", "atrial", "fibrillation", "normal", "ecg"]
SIGNAL = np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32)


def make_tokenizer(**options: object) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special, **options)


def make_processor(**options: object) -> ESIProcessor:
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=2.0), make_tokenizer(), **options)


def test_signal_and_text() -> None:
    inputs = make_processor()([SIGNAL] * 2, ["sinus rhythm", "normal"], sampling_rate=250, leads=LEADS)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "input_values": (2, 12, 200),
        "lead_mask": (2, 12),
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
    }
    assert inputs["input_ids"].tolist() == [[2, 4, 5, 3], [2, 8, 3, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    expected = ESIFeatureExtractor(sampling_rate=100, duration=2.0)([SIGNAL] * 2, 250, LEADS)
    assert torch.equal(inputs["input_values"], expected["input_values"])


def test_each_alone() -> None:
    processor = make_processor()
    record = {"signal": SIGNAL[:, :300], "sampling_rate": 250, "leads": LEADS}
    assert set(processor(record)) == {"input_values", "lead_mask", "sample_mask"}
    assert set(processor(signal=SIGNAL, sampling_rate=250, leads=LEADS)) == {"input_values", "lead_mask"}
    assert torch.equal(processor(audio=record)["input_values"], processor(record)["input_values"])
    assert processor(text="atrial fibrillation")["input_ids"].tolist() == [[2, 6, 7, 3]]
    both = processor(record, "normal")
    assert set(both) == set(processor.model_input_names)


@pytest.mark.parametrize("return_tensors", ["np", "pt", None])
def test_tensor_types(return_tensors: str | None) -> None:
    inputs = make_processor()(SIGNAL, "normal", 250, LEADS, return_tensors=return_tensors)
    kind = np.ndarray if return_tensors == "np" else torch.Tensor
    assert all(isinstance(value, kind) for value in inputs.values())


def test_units_reach_the_door() -> None:
    processor = make_processor()
    in_mv = processor(SIGNAL, sampling_rate=250, leads=LEADS)["input_values"]
    in_uv = processor(SIGNAL * 1000.0, sampling_rate=250, leads=LEADS, unit="uV")["input_values"]
    torch.testing.assert_close(in_mv, in_uv)


def test_the_callers_generator_advances() -> None:
    processor, generator = make_processor(), torch.Generator().manual_seed(3)
    crops = [
        processor(SIGNAL, sampling_rate=100, leads=LEADS, crop="random", generator=generator)["input_values"]
        for _ in range(2)
    ]
    assert not torch.equal(*crops)
    generator = torch.Generator().manual_seed(3)
    again = processor(SIGNAL, sampling_rate=100, leads=LEADS, audio_kwargs={"crop": "random", "generator": generator})
    assert torch.equal(again["input_values"], crops[0])


def test_text_is_cut_to_max_text_length() -> None:
    long = " ".join(["sinus"] * 700)
    assert make_processor()(text=[long, "normal"])["input_ids"].shape == (2, 500)
    assert make_processor(max_text_length=7)(text=long)["input_ids"].tolist() == [[2, 4, 4, 4, 4, 4, 3]]
    assert make_processor(max_text_length=7)(text=long, max_length=5)["input_ids"].shape == (1, 5)
    assert make_processor(max_text_length=7)(text=long, truncation=False)["input_ids"].shape == (1, 702)
    small = ESIProcessor(ESIFeatureExtractor(), make_tokenizer(model_max_length=9))
    assert small(text=long)["input_ids"].shape == (1, 9)


def test_tokenizer_options() -> None:
    processor = make_processor()
    padded = processor(text="normal", padding="max_length", max_length=6)
    assert padded["input_ids"].tolist() == [[2, 8, 3, 0, 0, 0]]
    assert torch.equal(
        processor(text="normal", text_kwargs={"padding": "max_length", "max_length": 6})["input_ids"],
        padded["input_ids"],
    )
    assert "token_type_ids" not in padded
    assert "token_type_ids" in processor(text="normal", return_token_type_ids=True)
    assert processor(text="normal", add_special_tokens=False)["input_ids"].tolist() == [[8]]
    words = processor(text=[["sinus", "rhythm"], ["normal"]], is_split_into_words=True)
    assert words["input_ids"].tolist() == [[2, 4, 5, 3], [2, 8, 3, 0]]


def test_decoding_is_the_tokenizers() -> None:
    processor = make_processor()
    ids = processor(text=["sinus rhythm", "normal ecg"])["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["sinus rhythm", "normal ecg"]
    assert processor.decode(ids[0], skip_special_tokens=True) == "sinus rhythm"


def test_refusals() -> None:
    processor = make_processor()
    with pytest.raises(ValueError, match="expected signal, text or both, got neither"):
        processor()
    with pytest.raises(ValueError, match="sampling_rate: expected Hz, got none"):
        processor(SIGNAL, "normal", leads=LEADS)
    with pytest.raises(ValueError, match="got both: pass signal"):
        processor(SIGNAL, audio=SIGNAL, sampling_rate=250, leads=LEADS)
    with pytest.raises(TypeError, match=r"crop, generator, augment, device, return_tensors.*got \['corp'\]"):
        processor(SIGNAL, sampling_rate=250, leads=LEADS, corp="random")
    with pytest.raises(TypeError, match=r"got \['images'\]"):
        processor(text="normal", images=SIGNAL)
    for text in ([], [None], ["normal", 3]):
        with pytest.raises(ValueError, match="text: expected a string or a list of strings"):
            processor(text=text)
    for length in (0, -1, 5.0, True, None):
        with pytest.raises(ValueError, match="max_text_length: expected a positive whole number"):
            make_processor(max_text_length=length)


def test_saved_and_loaded_unchanged(tmp_path: Path) -> None:
    AutoFeatureExtractor.register(ESIConfig, ESIFeatureExtractor, exist_ok=True)
    processor = ESIProcessor(
        ESIFeatureExtractor(sampling_rate=100, duration=2.0, scaling="record"), make_tokenizer(), max_text_length=5
    )
    processor.save_pretrained(tmp_path / "a")
    loaded = ESIProcessor.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert loaded.max_text_length == 5 and loaded.feature_extractor.scaling == "record"
    assert type(loaded.feature_extractor) is ESIFeatureExtractor
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in (tmp_path / "b").iterdir()}
    first, second = ((tmp_path / x / "processor_config.json").read_text() for x in "ab")
    assert first == second
    arguments = ([SIGNAL], ["sinus rhythm normal ecg"], 250, LEADS)
    for name, value in processor(*arguments).items():
        assert torch.equal(loaded(*arguments)[name], value)
    assert AutoTokenizer.from_pretrained(tmp_path / "a").get_vocab() == processor.tokenizer.get_vocab()
    alone = AutoFeatureExtractor.from_pretrained(tmp_path / "a")
    assert alone.to_dict() == loaded.feature_extractor.to_dict()


def test_the_documented_examples() -> None:
    assert doctest.testmod(processing_esi).failed == 0
