"""The frame of the protocols: one context, embeddings computed once, results in files, flags from signatures."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_esi import CONVNEXT, tiny_esi
from transformers import BertTokenizerFast

from datasets_scripts.records import ECGRecord, record_to_row, row_features
from modeling_esi import ESIFeatureExtractor, ESIProcessor
from modeling_esi.evaluation import context as context_module
from modeling_esi.evaluation.classifier_training import new_classifier
from modeling_esi.evaluation.context import EvaluationContext, load_model, parse_options, read_card
from modeling_esi.evaluation.embedding_cache import cached_array, records_digest, weights_digest

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def record(i: int, **fields) -> ECGRecord:
    digital = np.random.default_rng(i).integers(-500, 500, (12, 220)).astype(np.int16)
    fields = {"record_id": f"r{i}", "patient_id": f"p{i // 2}"} | fields
    return ECGRecord.from_digital(digital, np.full(12, 200), np.zeros(12), LEADS, 100, **fields)


def stored(records) -> Dataset:
    return Dataset.from_list([record_to_row(r) for r in records], features=row_features("int16"))


@pytest.fixture(scope="module")
def processor(tmp_path_factory) -> ESIProcessor:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(94))]))
    return ESIProcessor(
        ESIFeatureExtractor(sampling_rate=100, duration=2.0), BertTokenizerFast(str(path)), max_text_length=37
    )


@pytest.fixture()
def context(processor, tmp_path) -> EvaluationContext:
    rows = {"test": stored([record(i) for i in range(7)]), "train": stored([record(i) for i in range(20, 25)])}
    return EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows=rows, cache_dir=tmp_path, batch_size=3)


def test_embeddings_are_computed_once_and_kept_for_the_same_weights_and_records(context, processor, monkeypatch):
    calls = []
    real = context_module.embed_ecgs
    monkeypatch.setattr(context_module, "embed_ecgs", lambda *a, **k: calls.append(k["layer"]) or real(*a, **k))
    first = context.ecg_embeds()
    assert context.ecg_embeds() is first and calls == ["projected"]
    again = EvaluationContext(
        tiny_esi(), processor, "elsewhere", cache_dir=context.cache_dir, batch_size=7,
        dataset_rows={"validation": stored([record(i) for i in range(7)])}, split="validation",
    )  # fmt: skip
    np.testing.assert_array_equal(again.ecg_embeds(), first)
    assert calls == ["projected"]  # the same weights, records and door: read from disk, whatever they are called
    assert context.ecg_embeds(layer="pooled").shape == (7, CONVNEXT["hidden_sizes"][-1])
    assert context.ecg_embeds("train").shape == (5, 28)
    assert calls == ["projected", "pooled", "projected"]


def test_embeddings_of_windows_are_others_and_kept_apart(context):
    whole = context.ecg_embeds()
    context.window = 0.5
    windows = context.ecg_embeds()
    assert windows.shape == whole.shape and not np.allclose(windows, whole, atol=1e-4)
    assert context.settings()["window"] == 0.5
    context.window = None
    assert context.ecg_embeds() is whole


def test_another_weight_record_or_door_is_another_key(context, processor):
    model = tiny_esi()
    before = weights_digest(model)
    with torch.no_grad():
        model.ecg_projection.weight[3, 5] += 1e-6
    assert weights_digest(model) != before == weights_digest(tiny_esi())
    rows = [record(i) for i in range(4)]
    changed = record(3)
    changed.digital.setflags(write=True)
    changed.digital[11, 219] += 1
    assert records_digest(stored(rows)) == records_digest(stored([*rows, record(9)]).select(range(4)))
    assert records_digest(stored(rows)) != records_digest(stored([*rows[:3], changed]))
    assert records_digest(stored(rows)) != records_digest(stored(rows[::-1]))


def test_half_a_cache_file_is_never_taken(tmp_path):
    with pytest.raises(RuntimeError):
        cached_array(tmp_path, "key", lambda: (_ for _ in ()).throw(RuntimeError("killed")))
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(cached_array(tmp_path, "key", lambda: np.arange(3)), np.arange(3))
    np.testing.assert_array_equal(cached_array(tmp_path, "key", lambda: np.zeros(3)), np.arange(3))


def test_the_twin_has_the_same_configuration_other_weights_and_leaves_the_random_numbers_alone(context):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    twin = context.twin
    torch.testing.assert_close(torch.rand(3), expected)
    assert twin.config.to_dict() == context.model.config.to_dict() and not twin.training
    assert not torch.equal(twin.ecg_projection.weight, context.model.ecg_projection.weight)
    assert list(context.models()) == ["trained", "random_weights"]
    assert not np.allclose(context.ecg_embeds(role="random_weights"), context.ecg_embeds())


def test_records_that_the_door_refuses_are_counted_and_named(processor, caplog):
    flat = ECGRecord(np.zeros((12, 220)), LEADS, 100, record_id="flat-one")
    rows = Dataset.from_list([record_to_row(r, "float32") for r in (record(0), flat)], features=row_features("float32"))
    rows = rows.map(lambda row: row | {"repairs": ["nan_samples"]})  # what preparing would have told
    context = EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows={"test": rows})
    assert context.rows()["record_id"] == ["r0"]
    assert list(context.refused["test"]) == ["flat-one"] and "1 of 2 records refused" in caplog.text
    assert context.settings()["refused_records"] == {"test": ["flat-one"]}


def test_a_saved_model_is_loaded_with_its_card(tmp_path, processor):
    tiny_esi().save_pretrained(tmp_path / "esi")
    processor.save_pretrained(tmp_path / "esi")
    model, loaded = load_model(tmp_path / "esi")
    assert not model.training and loaded.feature_extractor.sampling_rate == 100
    assert read_card(tmp_path / "esi") == ""
    (tmp_path / "esi" / "README.md").write_text("## Training data\n\nptb_xl: 5 train records\n")
    loaded = EvaluationContext.load(tmp_path / "esi", "ptb_xl", compare=tmp_path / "esi", device="cpu", cache_dir=None)
    assert loaded.name == "esi" and list(loaded.models())[-1] == "compared"
    assert loaded.leakage().named == ("ptb_xl",) and loaded.leakage().seen
    assert loaded.compare_name == "esi" and loaded.compared_leakage() == loaded.leakage()
    assert loaded.source == "ptb_xl"


def test_a_part_of_a_model_is_refused_instead_of_filled_with_random_weights(tmp_path, processor):
    new_classifier(tiny_esi(), ["NORM"]).save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match="got ESIModel without weights for .*text_model.* in .*classifier: name the"):
        load_model(tmp_path / "classifier")
    tiny_esi().ecg_model.save_pretrained(tmp_path / "tower")
    with pytest.raises(ValueError, match="expected a whole ESIModel, encoders and projections, got ESIEcgModel in"):
        load_model(tmp_path / "tower")


def test_options_of_a_source_are_a_mapping():
    assert parse_options('{"sampling_rate": 100}') == {"sampling_rate": 100} and parse_options(None) == {}
    with pytest.raises(ValueError, match="expected a JSON mapping"):
        parse_options("[1]")
