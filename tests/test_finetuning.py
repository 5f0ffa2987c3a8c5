"""Fine-tuning by transformers' `Trainer` on a prepared data set, and adapters by peft: they learn, save and load."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_esi import ENCODERS, tiny_batch, tiny_config, tiny_esi
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForSequenceClassification,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

from datasets_scripts import load_ecg_dataset
from modeling_esi import ESIFeatureExtractor, ESIForECGClassification, ESIProcessor
from modeling_esi.training.fine_tuning import ECGCollator, ECGMetrics, ECGRecords, ECGTextCollator

PAGE = Path(__file__).resolve().parent.parent / "docs" / "finetuning.md"
LABELS = ["sinus bradycardia", "sinus tachycardia", "ventricular pacing"]
ENCODER = pytest.mark.parametrize("encoder", ["convnextv2", pytest.param("xresnet1d", marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """60 synthetic records of 5 s at 100 Hz."""
    cache = tmp_path_factory.mktemp("cache")
    return load_ecg_dataset("synthetic", num_records=60, sampling_rate=100, duration=5.0, cache_dir=cache)


@pytest.fixture
def feature_extractor():
    return ESIFeatureExtractor(sampling_rate=100, duration=5.0)


def config_of(labels=LABELS, **fields):
    return tiny_config(id2label=dict(enumerate(labels)), **fields)


def trainer_of(model, rows, collator, folder, **settings):
    fields = {"learning_rate": 3e-3, "num_train_epochs": 4, "per_device_train_batch_size": 15, "seed": 3}
    fields |= {"logging_strategy": "epoch", "save_strategy": "no", "report_to": [], "disable_tqdm": True}
    fields |= {"use_cpu": True, "dataloader_pin_memory": False}
    arguments = TrainingArguments(str(folder / "runs"), **fields | settings)
    return Trainer(model, arguments, data_collator=collator, train_dataset=ECGRecords(rows))


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ----- records, batches, figures -------------------------------------------------------------------------------------


def test_records_come_one_by_one_at_once_and_to_another_process(rows):
    records = ECGRecords(rows.select([5, 3, 9]))
    names = rows[[5, 3, 9]]["record_id"]
    assert len(records) == 3 and records[1].record_id == names[1]
    travelled = pickle.loads(pickle.dumps(records)).__getitems__([2, 0])
    assert [record.record_id for record in travelled] == [names[2], names[0]]


def test_a_batch_is_the_door_and_the_labels_by_name(rows, feature_extractor):
    records = ECGRecords(rows).__getitems__(list(range(8)))
    batch = ECGCollator(feature_extractor, config_of())(records)
    torch.testing.assert_close(batch["input_values"], feature_extractor(records)["input_values"])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[float(name in record.labels) for name in LABELS] for record in records]


def test_one_label_to_each_record_is_a_number_and_none_or_two_are_refused(rows, feature_extractor):
    records = [record.with_metadata(labels=("b",)) for record in ECGRecords(rows).__getitems__([0, 1])]
    collate = ECGCollator(feature_extractor, config_of("abc", problem_type="single_label_classification"))
    assert collate(records)["labels"].tolist() == [1, 1]
    for labels in ((), ("a", "b")):
        wrong = records[0].with_metadata(labels=labels, record_id="r7")
        with pytest.raises(ValueError, match=f"'r7': expected one of the labels a, b, c, got {len(labels)}"):
            collate([records[1], wrong])


def test_what_is_no_task_or_no_record_is_refused_with_what_to_do(rows, feature_extractor):
    with pytest.raises(ValueError, match="id2label: expected the labels of the data set, got .*LABEL_0"):
        ECGCollator(feature_extractor, tiny_config(num_labels=3))
    with pytest.raises(ValueError, match="problem_type: expected one of .* got 'regression'"):
        ECGMetrics(config_of(problem_type="regression"))
    with pytest.raises(ValueError, match="pass ECGRecords"):
        ECGCollator(feature_extractor, config_of())([rows[0]])


def test_figures_by_hand():
    """Three records: class a orders one of two pairs rightly, b all, c has no positive."""
    logits = np.array([[0.2, -1.0, 0.0], [0.1, 2.0, 0.0], [0.3, 1.0, 0.0]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    figures = ECGMetrics(config_of("abc"))(EvalPrediction(logits, labels))
    assert figures == {"auroc/a": 0.5, "auroc/b": 1.0, "macro_auroc": 0.75}
    single = ECGMetrics(config_of("abc", problem_type="single_label_classification"))
    figures = single(EvalPrediction(logits, np.array([0, 1, 0])))
    assert figures["accuracy"] == pytest.approx(2 / 3) and figures["auroc/b"] == 1.0 and "auroc/c" not in figures


# ----- Trainer -------------------------------------------------------------------------------------------------------


@ENCODER
def test_a_pretrained_folder_is_fine_tuned_saved_and_loaded(encoder, rows, feature_extractor, tmp_path):
    tiny_esi(ecg=ENCODERS[encoder]).save_pretrained(tmp_path / "pretrained")
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "pretrained", id2label=dict(enumerate(LABELS))
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    trainer = trainer_of(model, rows, ECGCollator(feature_extractor, model.config), tmp_path)
    trainer.compute_metrics = ECGMetrics(model.config)
    trainer.train()
    losses = losses_of(trainer)
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    judged = trainer.evaluate(ECGRecords(rows))
    assert {"eval_loss", "eval_macro_auroc", *(f"eval_auroc/{name}" for name in LABELS)} <= set(judged)

    model.save_pretrained(tmp_path / "tuned")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert again.config.id2label == dict(enumerate(LABELS))
    predicted = trainer.predict(ECGRecords(rows)).predictions
    inputs = feature_extractor(ECGRecords(rows).__getitems__(list(range(len(rows)))))
    with torch.no_grad():
        np.testing.assert_allclose(predicted, again.eval()(**inputs).logits, atol=1e-5)
    feature_extractor.save_pretrained(tmp_path / "tuned")
    found = pipeline("ecg-classification", model=str(tmp_path / "tuned"))(ECGRecords(rows)[7])
    expected = dict(zip(LABELS, torch.tensor(predicted[7]).sigmoid().tolist(), strict=True))
    assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_it_learns_what_a_heart_does(rows, feature_extractor, tmp_path):
    """On records it has not seen, slow, fast and paced hearts are told apart."""
    set_seed(0)
    more = {"num_records": 240, "sampling_rate": 100, "duration": 5.0, "cache_dir": tmp_path}
    train, test = (load_ecg_dataset("synthetic", split=split, **more) for split in ("train", "test"))
    model = ESIForECGClassification(config_of())
    collator = ECGCollator(feature_extractor, model.config)
    trainer = trainer_of(model, train, collator, tmp_path, num_train_epochs=15)
    trainer.compute_metrics = ECGMetrics(model.config)
    trainer.train()
    assert trainer.evaluate(ECGRecords(test))["eval_macro_auroc"] > 0.8


@pytest.mark.slow
def test_accumulated_steps_weigh_as_one(rows, feature_extractor, tmp_path):
    """The logged loss of an epoch is a mean over records, in however many parts a step comes."""
    found = []
    for parts in (1, 3):
        set_seed(0)
        model = ESIForECGClassification(config_of())
        collator = ECGCollator(feature_extractor, model.config)
        sizes = {"per_device_train_batch_size": 15 // parts, "gradient_accumulation_steps": parts}
        trainer = trainer_of(model, rows, collator, tmp_path, num_train_epochs=1, **sizes)
        trainer.train()
        found.append(losses_of(trainer)[0])
    assert found[1] == pytest.approx(found[0], rel=0.01)


def text_processor(feature_extractor):
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "sinus": 4, "rhythm": 5, "tachycardia": 6, "low": 7}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    return ESIProcessor(feature_extractor, fast, max_text_length=40)


def test_texts_that_are_equal_have_equal_keys_and_none_is_missing(rows, feature_extractor):
    collate, records = ECGTextCollator(text_processor(feature_extractor)), ECGRecords(rows).__getitems__([0, 1, 2])
    twins = collate([records[0], records[1].with_metadata(text=records[0].text), records[2]])
    keys = twins["text_key"].tolist()
    assert keys[0] == keys[1] != keys[2] and twins["return_loss"] and twins["input_ids"].shape[0] == 3
    with pytest.raises(ValueError, match="got none in r9"):
        collate([records[0].with_metadata(text="", record_id="r9")])


@pytest.mark.slow
def test_both_encoders_learn_from_pairs(rows, feature_extractor, tmp_path):
    set_seed(0)
    model, collator = tiny_esi(), ECGTextCollator(text_processor(feature_extractor))
    trainer = trainer_of(model, rows, collator, tmp_path, num_train_epochs=3)
    trainer.train()
    assert losses_of(trainer)[-1] < losses_of(trainer)[0]


# ----- adapters ------------------------------------------------------------------------------------------------------


def patterns() -> dict[str, str]:
    """The table of docs/finetuning.md: what can be adapted, by part."""
    rows = re.findall(r"^\| (.+?) \| `((?:ecg_model|text_model|decoder)\\..*)` \|$", PAGE.read_text(), re.MULTILINE)
    return {part.split(",")[0]: pattern.replace("\\|", "|") for part, pattern in rows}


@pytest.mark.parametrize("part", ["ConvNeXt V2", "XResNet", "text encoder", "caption decoder"])
def test_every_adapter_of_the_page_learns(part):
    """A part beside the layer starts at zero and gets a gradient: so does each that the layer goes through."""
    peft = pytest.importorskip("peft", reason="LoRA needs peft (extra peft)")
    model = tiny_esi(ecg=ENCODERS["xresnet1d" if part == "XResNet" else "convnextv2"]).train()
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=patterns()[part]))
    adapted(**tiny_batch(), return_loss=True).loss.backward()
    gradients = {name: weight.grad for name, weight in adapted.named_parameters() if "lora_B" in name}
    assert gradients and all(grad is not None and grad.abs().sum() > 0 for grad in gradients.values())
    assert not [name for name, weight in adapted.named_parameters() if weight.requires_grad and "lora_" not in name]


@ENCODER
def test_an_adapter_is_stored_alone_and_merges_into_an_ordinary_folder(encoder, rows, feature_extractor, tmp_path):
    peft = pytest.importorskip("peft", reason="LoRA needs peft (extra peft)")
    set_seed(0)
    tiny_esi(ecg=ENCODERS[encoder]).save_pretrained(tmp_path / "pretrained")
    labels = dict(enumerate(LABELS))

    def fresh():
        torch.manual_seed(1)  # the head is new
        return AutoModelForSequenceClassification.from_pretrained(tmp_path / "pretrained", id2label=labels)

    model = fresh()
    kept = ["classifier", "norm"] if encoder == "xresnet1d" else ["classifier"]
    pattern = patterns()["XResNet" if encoder == "xresnet1d" else "ConvNeXt V2"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=pattern, modules_to_save=kept))
    collator = ECGCollator(feature_extractor, model.config)
    trainer = trainer_of(adapted, rows, collator, tmp_path, num_train_epochs=2, learning_rate=1e-2)
    trainer.compute_metrics = ECGMetrics(model.config)
    trainer.train()
    assert losses_of(trainer)[-1] < losses_of(trainer)[0]
    assert "eval_macro_auroc" in trainer.evaluate(ECGRecords(rows))

    adapted.save_pretrained(tmp_path / "adapter")
    stored = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert "adapter_model.safetensors" in stored and "model.safetensors" not in stored
    inputs = feature_extractor(ECGRecords(rows).__getitems__([0, 1, 2]))
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits
        again = peft.PeftModel.from_pretrained(fresh(), tmp_path / "adapter").eval()
        torch.testing.assert_close(again(**inputs).logits, expected)
        again.merge_and_unload().save_pretrained(tmp_path / "merged")
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
    assert set(merged.state_dict()) == set(fresh().state_dict()) and merged.config.id2label == labels
