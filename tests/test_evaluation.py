"""Metrics against scikit-learn and hand-made numbers; evaluators with models whose answers can be computed by hand."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.feature_extraction_utils import BatchFeature

from datasets_scripts.records import ECGRecord, record_to_row, row_features, row_to_record
from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIModel, ESIProcessor
from modeling_esi.evaluation import retrieval as retrieval_module
from modeling_esi.evaluation.embedding import ecg_vectors, embed_ecgs, embed_texts, read_records
from modeling_esi.evaluation.metrics import (
    RareClassError,
    auroc,
    auroc_per_class,
    bootstrap_interval,
    macro,
    macro_auroc,
    recall_at_k,
)
from modeling_esi.evaluation.retrieval import retrieval
from modeling_esi.evaluation.zero_shot import zero_shot

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sinus", "rhythm", "left", "bundle", "block", "atrial", "fibrillation"]


# ----- area under the ROC curve --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_records", [2, 3, 17, 400])
@pytest.mark.parametrize("num_levels", [2, 5, 10_000])  # few levels: many ties
@pytest.mark.parametrize("seed", range(5))
def test_auroc_equals_scikit_learn_with_ties(seed, num_levels, num_records):
    rng = np.random.default_rng([seed, num_levels, num_records])
    scores = rng.integers(0, num_levels, (num_records, 5)) / 7
    targets = rng.integers(0, 2, (num_records, 5))
    for area, column, labels in zip(auroc(scores, targets), scores.T, targets.T, strict=True):
        if labels.min() == labels.max():
            assert np.isnan(area)
        else:
            assert area == pytest.approx(roc_auc_score(labels, column), abs=1e-12)


def test_auroc_by_hand():
    # positives 0.9 and 0.3, negatives 0.3 and 0.1: pairs won 1, 1, a tie (half), 1
    assert auroc(np.array([[0.9], [0.3], [0.3], [0.1]]), np.array([[1], [1], [0], [0]]))[0] == 3.5 / 4


def test_scores_that_are_the_labels_give_one_and_constant_scores_one_half():
    targets = np.random.default_rng(0).integers(0, 2, (31, 3))
    assert auroc(targets.astype(float), targets).tolist() == [1.0, 1.0, 1.0]
    assert auroc(-targets.astype(float), targets).tolist() == [0.0, 0.0, 0.0]
    assert auroc(np.ones((31, 3)), targets).tolist() == [0.5, 0.5, 0.5]


def test_a_class_without_both_labels_is_none_and_keeps_its_place():
    scores = np.random.default_rng(1).normal(size=(9, 4))
    targets = np.array([[0, 1, 1, 0]] * 4 + [[1, 1, 0, 0]] * 5)
    areas = auroc_per_class(scores, targets, ["NORM", "always", "MI", "never"])
    assert list(areas) == ["NORM", "always", "MI", "never"]
    assert areas["always"] is None and areas["never"] is None
    assert macro(areas) == pytest.approx((areas["NORM"] + areas["MI"]) / 2)
    assert macro([None, None]) is None


@pytest.mark.parametrize(
    ("scores", "targets", "names", "match"),
    [
        (np.zeros((3, 2)), np.zeros((2, 3)), ["a", "b"], r"got \(3, 2\), \(2, 3\)"),
        (np.zeros((3, 2)), np.zeros((3, 2)), ["a"], "each of the 2 classes, got 1"),
        (np.full((3, 1), np.nan), np.zeros((3, 1)), ["a"], "finite numbers, got 3"),
        (np.zeros((3, 1)), np.full((3, 1), 2), ["a"], "expected 0 and 1"),
    ],
)
def test_auroc_refuses_what_makes_no_sense(scores, targets, names, match):
    with pytest.raises(ValueError, match=match):
        auroc_per_class(scores, targets, names)


# ----- intervals -----------------------------------------------------------------------------------------------------


def test_macro_auroc_of_a_resample_equals_scikit_learn_on_the_drawn_records():
    rng = np.random.default_rng(2)
    scores, targets = rng.integers(0, 9, (80, 3)) / 3, rng.integers(0, 2, (80, 3))
    indices = rng.integers(0, 80, 80)
    expected = np.mean([roc_auc_score(targets[indices, c], scores[indices, c]) for c in range(3)])
    assert macro_auroc(scores, targets)(indices) == pytest.approx(expected, abs=1e-12)


def test_permuted_labels_give_one_half_within_the_interval():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        scores, targets = rng.normal(size=(150, 3)), rng.integers(0, 2, (150, 3))
        low, high = bootstrap_interval(macro_auroc(scores, targets), range(150), targets, num_resamples=100)
        covered += low <= 0.5 <= high
    assert covered >= 34  # 38 expected of 40; fewer than 34 has a chance of 1 %


def test_the_interval_of_a_mean_is_the_known_one():
    values = np.random.default_rng(4).normal(size=400)
    low, high = bootstrap_interval(lambda i: values[i].mean(), range(400), num_resamples=2000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_whole_patients_are_drawn():
    patients = np.repeat(np.arange(50), 4)
    drawn = []
    values = np.random.default_rng(5).normal(size=50)[patients]  # four equal recordings of each patient

    def statistic(indices):
        drawn.append(np.bincount(indices, minlength=200).reshape(50, 4))
        return values[indices].mean()

    low, high = bootstrap_interval(statistic, patients.tolist(), num_resamples=400)
    assert all((counts == counts[:, :1]).all() and counts.sum() == 200 for counts in drawn)
    single = bootstrap_interval(lambda i: values[::4][i].mean(), range(50), num_resamples=400)
    assert (low, high) == pytest.approx(single)  # four copies of a patient are no more evidence than one
    by_record = bootstrap_interval(lambda i: values[i].mean(), range(200), num_resamples=400)
    assert (by_record[1] - by_record[0]) < 0.65 * (high - low)  # half as wide: what record-wise drawing would claim


def test_a_resample_without_one_of_the_labels_is_drawn_again():
    targets = np.zeros((20, 3), int)
    targets[7, 0] = targets[:19, 1] = 1  # one positive; one negative; and a class without positives
    seen = []
    bootstrap_interval(lambda i: seen.append(i) or 0.0, range(20), targets, num_resamples=150)
    assert len(seen) == 150
    assert all(7 in indices and 19 in indices for indices in seen)


def test_classes_too_rare_to_be_drawn_together_are_an_error():
    with pytest.raises(RareClassError, match="of 60 patients, the rarest labels are carried by only 1, 1, 1, 1, 1"):
        bootstrap_interval(lambda i: 0.0, range(60), np.eye(60), num_resamples=20)


def test_bootstrap_depends_on_the_seed_alone_and_refuses_nonsense():
    def mean(indices):
        return float(indices.mean())

    assert bootstrap_interval(mean, range(30), seed=1) == bootstrap_interval(mean, range(30), seed=1)
    assert bootstrap_interval(mean, range(30), seed=1) != bootstrap_interval(mean, range(30), seed=2)
    for arguments in ({"num_resamples": 0}, {"level": 1.0}, {"targets": np.zeros((29, 1))}):
        with pytest.raises(ValueError, match="expected"):
            bootstrap_interval(mean, range(30), **arguments)


# ----- retrieval -----------------------------------------------------------------------------------------------------


def test_recall_by_hand_with_and_without_equal_statements():
    similarity = np.array([[0.2, 0.9, 0.5], [0.1, 0.3, 0.8], [0.4, 0.1, 0.6]])
    # ranks of the own column: 3, 2, 1. Records 0 and 1 say the same: then row 0 is right at once, row 1 still at 2.
    assert recall_at_k(similarity, k=(1, 2, 3)) == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})
    assert recall_at_k(similarity, keys=["a", "a", "b"], k=(1, 2)) == pytest.approx({1: 2 / 3, 2: 1.0})


def test_a_model_that_tells_nothing_apart_gets_the_chance_level():
    assert recall_at_k(np.zeros((20, 20)), k=(1, 5, 10)) == pytest.approx({1: 0.05, 5: 0.25, 10: 0.5})
    keys = [i // 2 for i in range(20)]  # two right of 20: 1 - 18/20 * 17/19 of two draws
    assert recall_at_k(np.zeros((20, 20)), keys, k=(1, 2)) == pytest.approx({1: 0.1, 2: 1 - 18 * 17 / 380})
    assert recall_at_k(np.zeros((3, 3)), k=(10,)) == {10: 1.0}


def test_retrieval_both_ways_and_in_parts(monkeypatch):
    ecg = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    text = np.array([[0.9, 0.1], [1.0, 0.0], [0.1, 0.9]]) * 3  # cosine: lengths do not count
    expected = {"v/ecg_to_text/recall@1": 1 / 3, "v/text_to_ecg/recall@1": 2 / 3, "v/num_candidates": 3}
    result = retrieval(ecg, text, prefix="v/")
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert result["v/ecg_to_text/recall@5"] == 1.0
    assert retrieval(ecg, text, keys=["a", "a", "b"])["ecg_to_text/recall@1"] == 1.0
    monkeypatch.setattr(retrieval_module, "_ROWS_AT_ONCE", 2)
    assert retrieval(ecg, text, prefix="v/") == pytest.approx(result)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: recall_at_k(np.zeros((2, 3))), r"got \(2, 3\)"),
        (lambda: recall_at_k(np.zeros((2, 2)), keys=["a"]), "each of the 2 records, got 1"),
        (lambda: recall_at_k(np.zeros((2, 2)), k=(0,)), "from 1"),
        (lambda: recall_at_k(np.full((2, 2), np.nan)), "NaN"),
        (lambda: retrieval(np.ones((3, 2)), np.ones((2, 2))), "as many texts as ECGs"),
        (lambda: retrieval(np.ones((2, 2)), np.zeros((2, 2))), "length 0.0 in row 0"),
    ],
)
def test_retrieval_refuses_what_makes_no_sense(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# ----- embedding -----------------------------------------------------------------------------------------------------


def rows(records: list[ECGRecord]) -> Dataset:
    return Dataset.from_list([record_to_row(r, "float32") for r in records], features=row_features("float32"))


def record(i: int, rate: int = 100, seconds: float = 2.0, **metadata) -> ECGRecord:
    signal = np.random.default_rng(i).normal(size=(12, int(rate * seconds))).astype(np.float32)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    return ECGRecord(signal, leads, rate, record_id=f"r{i}", **metadata)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Eleven records of different rates and lengths."""
    return rows([record(i, rate=(100, 250)[i % 2], seconds=(2.0, 1.5, 3.0)[i % 3]) for i in range(11)])


@pytest.fixture(scope="module")
def processor() -> ESIProcessor:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=2.0), tokenizer, max_text_length=9)


@pytest.fixture(scope="module")
def model() -> ESIModel:
    torch.manual_seed(0)
    text = {
        "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 36, "num_hidden_layers": 1,
        "num_attention_heads": 3, "intermediate_size": 37, "max_position_embeddings": 13,
    }  # fmt: skip
    ecg = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 40]}
    return ESIModel(ESIConfig(ecg_config=ecg, text_config=text, projection_dim=28, caption_loss_weight=0.0)).eval()


def test_decoded_records_are_the_stored_bits(dataset):
    for read, i in zip(read_records(dataset, [7, 2]), (7, 2), strict=True):
        expected = row_to_record(dataset[i])
        assert read.record_id == f"r{i}" and read.leads == expected.leads
        np.testing.assert_array_equal(read.signal, expected.signal)
    digital = np.arange(-30, 30, dtype=np.int16).reshape(2, 30)
    stored = ECGRecord.from_digital(digital, np.array([200, 100]), np.array([5, 0]), ("I", "II"), 100, record_id="d")
    whole = Dataset.from_list([record_to_row(stored)], features=row_features("int16"))
    np.testing.assert_array_equal(read_records(whole, [0])[0].signal, stored.signal)
    assert read_records(whole, [0])[0].signal[1, 29] == np.float32(0.29)


def test_stored_integers_give_the_embeddings_of_their_millivolts(model, processor):
    leads = ("I", "II", "V1")
    digital = np.random.default_rng(0).integers(-500, 500, (5, 3, 200)).astype(np.int16)
    digital[2, 1, 7:9] = -32768
    records = [
        ECGRecord.from_digital(d, [200, 150, 1000], [3, 0, -1], leads, 100, record_id=str(i))
        for i, d in enumerate(digital)
    ]
    integers = Dataset.from_list([record_to_row(r) for r in records], features=row_features("int16"))
    embeds = embed_ecgs(model, processor.feature_extractor, integers, batch_size=2)
    np.testing.assert_array_equal(embeds, embed_ecgs(model, processor.feature_extractor, rows(records), batch_size=2))
    rearranged = embed_ecgs(model, processor.feature_extractor, integers.select([4, 2, 0]))
    np.testing.assert_allclose(rearranged, embeds[[4, 2, 0]], atol=1e-5)


def test_ecg_embeddings_do_not_depend_on_the_batch_size(model, processor, dataset):
    door = processor.feature_extractor
    one_by_one = embed_ecgs(model, door, dataset, batch_size=1)
    assert one_by_one.shape == (11, 28) and one_by_one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-6)
    for batch_size in (4, 64):
        np.testing.assert_allclose(embed_ecgs(model, door, dataset, batch_size=batch_size), one_by_one, atol=1e-5)
    reversed_rows = dataset.select(range(10, -1, -1))
    np.testing.assert_allclose(embed_ecgs(model, door, reversed_rows, 3), one_by_one[::-1], atol=1e-5)


@pytest.mark.parametrize("layer", ["projected", "pooled"])
def test_the_mean_of_windows_by_hand(model, processor, dataset, layer):
    door = processor.feature_extractor
    embeds = embed_ecgs(model, door, dataset, 4, layer=layer, window=1.0)
    for row, seconds in ((0, 2.0), (1, 1.5)):
        inputs = door([read_records(dataset, [row])[0]])
        starts, shares = (0, 50, 100), (1.0, 1.0, 1.0 if seconds == 2.0 else 0.5)
        total = 0.0
        for start, share in zip(starts, shares, strict=True):
            real = round(100 * share)  # without its padding a window is a shorter ECG
            part = {name: inputs[name] for name in ("input_values", "lead_mask")}
            part["input_values"] = part["input_values"][..., start : start + real]
            total = total + share * ecg_vectors(model, part, layer)
        mean = (total / sum(shares))[0].detach().numpy()
        mean = mean / np.linalg.norm(mean) if layer == "projected" else mean
        np.testing.assert_allclose(embeds[row], mean, atol=2e-5)
    assert not np.allclose(embeds, embed_ecgs(model, door, dataset, layer=layer), atol=1e-4)


def test_a_window_as_long_as_the_input_changes_nothing_and_a_senseless_one_is_refused(model, processor, dataset):
    door = processor.feature_extractor
    np.testing.assert_array_equal(embed_ecgs(model, door, dataset, window=2.0), embed_ecgs(model, door, dataset))
    for window in (0.0, -1.0, float("nan"), 0.001):
        with pytest.raises(ValueError, match=r"window: expected seconds, at least one sample \(0.01 s\), got"):
            embed_ecgs(model, door, dataset, window=window)


def test_windows_of_padding_alone_are_not_seen(model, processor):
    door = processor.feature_extractor
    short = rows([record(0, rate=100, seconds=1.0), record(1, rate=100, seconds=2.0)])
    embeds = embed_ecgs(model, door, short, window=0.5)
    alone = embed_ecgs(model, door, short.select([0]), window=0.5)
    np.testing.assert_allclose(embeds[:1], alone, atol=1e-5)
    assert np.isfinite(embeds).all()


def test_text_embeddings_come_back_in_order(model, processor):
    texts = ["left bundle block", "sinus", "atrial fibrillation with left bundle block", "sinus rhythm", "sinus"]
    embeds = embed_texts(model, processor, texts, batch_size=2)
    alone = np.concatenate([embed_texts(model, processor, [text]) for text in texts])
    assert embeds.shape == (5, 28) and embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, alone, atol=1e-5)
    assert (embeds[1] == embeds[4]).all() and not np.allclose(embeds[1], embeds[0], atol=1e-3)


def test_texts_are_cut_to_the_processors_length(model, processor):
    long, cut = "sinus " * 50, "sinus " * 7  # nine tokens with [CLS] and [SEP]; the model knows 13 positions
    np.testing.assert_array_equal(embed_texts(model, processor, [long]), embed_texts(model, processor, [cut]))


def test_each_module_gets_its_own_mode_back(model, processor, dataset):
    model.train()
    model.text_model.eval()  # frozen by the caller
    before = {name: module.training for name, module in model.named_modules()}
    embeds = embed_ecgs(model, processor.feature_extractor, dataset)
    embed_texts(model, processor, ["sinus"])
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()
    np.testing.assert_array_equal(embed_ecgs(model, processor.feature_extractor, dataset), embeds)
    with pytest.raises(ValueError, match="at least one string"):
        embed_texts(model.train(), processor, [])
    assert model.training
    model.eval()


def test_a_record_that_the_door_rejects_is_named(model, processor):
    flat = ECGRecord(np.zeros((2, 300)), ("I", "II"), 100, record_id="flat-one")
    with pytest.raises(ValueError, match="flat-one: all flat"):
        embed_ecgs(model, processor.feature_extractor, rows([record(0), flat]))


def test_embedding_refuses_empty_data_and_wrong_batch_sizes(model, processor, dataset):
    with pytest.raises(ValueError, match="at least one record, got none"):
        embed_ecgs(model, processor.feature_extractor, dataset.select([]))
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        embed_ecgs(model, processor.feature_extractor, dataset, batch_size=0)
    with pytest.raises(ValueError, match="got 3 in it"):
        embed_texts(model, processor, ["sinus", 3])


# ----- zero-shot -----------------------------------------------------------------------------------------------------


class PlaneModel(nn.Module):
    """Embeds an ECG as the first two samples of its signal, and a text as the direction its name says."""

    DIRECTIONS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "north-east": (0.6, 0.8), "west": (-1.0, 0.0)}

    def get_ecg_features(self, input_values):
        return nn.functional.normalize(input_values, dim=-1)

    def get_text_features(self, input_ids, attention_mask=None):
        return torch.tensor(list(self.DIRECTIONS.values()))[input_ids[:, 0]]


class PlaneProcessor:
    def __call__(self, text, return_tensors):
        return BatchFeature({"input_ids": torch.tensor([[list(PlaneModel.DIRECTIONS).index(name)] for name in text])})

    def feature_extractor(self, records, device, return_tensors):
        return {"input_values": torch.stack([torch.from_numpy(r.signal[0, :2]) for r in records])}


def plane_records(points, labels, patients=None) -> Dataset:
    patients = patients or [None] * len(points)
    return rows(
        [
            ECGRecord(np.array([point]), ("I",), 100, labels=held, record_id=f"r{i}", patient_id=patient)
            for i, (point, held, patient) in enumerate(zip(points, labels, patients, strict=True))
        ]
    )


def test_zero_shot_by_hand():
    # cosines with east: 1, 0.6, -1, 0; with north: 0, 0.8, 0, 1
    data = plane_records([(2, 0), (3, 4), (-1, 0), (0, 5)], [("E",), ("E", "N"), (), ("N",)], ["a", "b", "c", "d"])
    prompts = {"E": "east", "N": ["north"], "W": "west"}
    result = zero_shot(PlaneModel(), PlaneProcessor(), data, prompts, batch_size=3, num_resamples=50, prefix="test/")
    assert list(result) == [
        "test/auroc/E", "test/auroc/N", "test/auroc/W", "test/macro_auroc", "test/macro_auroc_low",
        "test/macro_auroc_high", "test/num_positives/E", "test/num_positives/N", "test/num_positives/W",
        "test/num_records", "test/labels_left_out",
    ]  # fmt: skip
    assert result["test/auroc/E"] == result["test/auroc/N"] == result["test/macro_auroc"] == 1.0
    assert (result["test/macro_auroc_low"], result["test/macro_auroc_high"]) == (1.0, 1.0)
    assert result["test/auroc/W"] is None and result["test/labels_left_out"] == ["W"]
    assert [result[f"test/num_positives/{label}"] for label in "ENW"] == [2, 2, 0]
    assert result["test/num_records"] == 4
    assert json.loads(json.dumps(result)) == result  # plain numbers, ready for results.json


def test_the_prompts_of_a_class_are_averaged():
    # the mean of east (1, 0) and north (0, 1) points to (1, 1): the record at 45 degrees is nearest
    data = plane_records([(1, 1), (1, 0), (0, 1)], [("both",), (), ()])
    averaged = zero_shot(PlaneModel(), PlaneProcessor(), data, {"both": ["east", "north"]}, num_resamples=5)
    assert averaged["auroc/both"] == 1.0
    assert zero_shot(PlaneModel(), PlaneProcessor(), data, {"both": "east"}, num_resamples=5)["auroc/both"] == 0.5


def test_zero_shot_reuses_embeddings_and_scores_each_class_alone():
    points = [(1, 0), (0.9, 0.1), (0.2, 1), (0, 1)]
    data = plane_records(points, [("E",), ("E",), (), ()])
    embeds = np.array(points) * 7
    result = zero_shot(PlaneModel(), PlaneProcessor(), data, {"E": "east"}, ecg_embeds=embeds)
    assert result["auroc/E"] == 1.0
    with_other = zero_shot(PlaneModel(), PlaneProcessor(), data, {"E": "east", "N": "north-east"}, ecg_embeds=embeds)
    assert with_other["auroc/E"] == result["auroc/E"]
    with pytest.raises(ValueError, match="each of 4 records, got 3"):
        zero_shot(PlaneModel(), PlaneProcessor(), data, {"E": "east"}, ecg_embeds=embeds[:3])
    for prompts in ({}, {"E": []}):
        with pytest.raises(ValueError, match="prompts: expected at least one text for each class"):
            zero_shot(PlaneModel(), PlaneProcessor(), data, prompts)


def test_zero_shot_resamples_patients():
    rng = np.random.default_rng(6)
    points = np.repeat(rng.normal(size=(30, 2)), 3, axis=0)
    labels = [("E",) if x + rng.normal() > 0 else () for x, _ in points]
    labels = [labels[3 * (i // 3)] for i in range(90)]
    widths = []
    for patients in ([f"p{i // 3}" for i in range(90)], None):
        data = plane_records(points, labels, patients)
        result = zero_shot(PlaneModel(), PlaneProcessor(), data, {"E": "east"}, batch_size=30)
        widths.append(result["macro_auroc_high"] - result["macro_auroc_low"])
    assert widths[0] > 1.3 * widths[1]  # sqrt(3) where three recordings of a patient are one piece of evidence


def test_zero_shot_says_why_there_is_no_interval(caplog):
    names = [f"class{i}" for i in range(40)]
    data = plane_records(np.random.default_rng(7).normal(size=(40, 2)), [(name,) for name in names])
    result = zero_shot(PlaneModel(), PlaneProcessor(), data, {name: "north" for name in names}, num_resamples=10)
    assert result["macro_auroc"] is not None and result["macro_auroc_low"] is None
    assert "of 40 patients" in result["macro_auroc_note"] and "no interval" in caplog.text
    nothing = zero_shot(PlaneModel(), PlaneProcessor(), data, {"absent": "north"})
    assert nothing["macro_auroc"] is None and nothing["labels_left_out"] == ["absent"]
    assert nothing["macro_auroc_note"] == "no class has both labels"
