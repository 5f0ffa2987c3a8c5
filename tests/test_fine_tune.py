"""Fine-tuning: which layer learns at which rate, what is chosen on what, and that no test label is looked at before."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hub_double import hub_of_this_process
from huggingface_hub import ModelCard
from scipy.special import expit
from sklearn.metrics import f1_score
from test_context import LEADS, stored
from test_context import processor as processor  # noqa: F401  a fixture
from tiny_esi import ENCODERS, tiny_config, tiny_esi
from transformers import AutoModelForSequenceClassification, AutoProcessor

from datasets_scripts.records import ECGRecord
from modeling_esi import ESIForECGClassification
from modeling_esi.evaluation import classifier_training, fine_tune
from modeling_esi.evaluation.classifier_training import (
    LabelledRecords,
    TrainingSettings,
    class_scores,
    mean_auroc,
    new_classifier,
    precision_on,
    train_classifier,
)
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.label_tasks import target_matrix
from modeling_esi.evaluation.layer_decay import layer_of, parameter_groups
from modeling_esi.evaluation.leakage import training_text
from modeling_esi.evaluation.protocols import find_protocol, options_of
from modeling_esi.evaluation.saved_classifier import chosen_license, save_classifier
from modeling_esi.hub import push_folder

ENCODER = pytest.mark.parametrize("encoder", ENCODERS)
QUICK = TrainingSettings(epochs=3, batch_size=8, lr=3e-3, head_lr=3e-3, drop_path_rate=0.0, warmup_ratio=0.0)
LABELS = ("II_UP", "V5_UP")
CARD = """---
license: cc-by-nc-4.0
---

# esi

## Training data

code15: 9 train records, split by patient.

| data | licence |
| --- | --- |
| code15 | cc-by-4.0 |

## Results
"""
FEW = {"fractions": (1.0,), "epochs": 2, "train_batch_size": 8, "subgroups": False}


def record(number: int, labels: tuple[str, ...] | None = None) -> ECGRecord:
    """2.2 s of noise; II_UP where lead II lies above zero, V5_UP where V5 does. Other `labels` on demand."""
    rng = np.random.default_rng(number)
    held = tuple(name for name in LABELS if rng.random() < 0.5)
    digital = rng.integers(-40, 40, (12, 220))
    digital[1] += 300 if "II_UP" in held else -300
    digital[10] += 300 if "V5_UP" in held else -300
    return ECGRecord.from_digital(
        digital.astype(np.int16), np.full(12, 200), np.zeros(12), LEADS, 100, record_id=f"r{number}",
        patient_id=f"p{number}", sex="male", age=50.0, labels=held if labels is None else labels,
    )  # fmt: skip


def records(first: int, count: int) -> Dataset:
    return stored([record(number) for number in range(first, first + count)])


def labelled(first: int, count: int) -> LabelledRecords:
    dataset = records(first, count)
    return LabelledRecords(dataset, target_matrix(dataset["labels"], LABELS))


@pytest.fixture()
def context(processor) -> EvaluationContext:  # noqa: F811
    rows = {"train": records(0, 40), "validation": records(100, 16), "test": records(200, 24)}
    return EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows=rows, num_resamples=20)


# ----- a rate for each layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depths", "part", "layer"),
    [
        ([3, 3, 27, 3], "downsamples.0.conv.weight", 0),
        ([3, 3, 27, 3], "stages.0.2.dwconv.bias", 1),
        ([3, 3, 27, 3], "downsamples.2.norm.weight", 3),
        ([3, 3, 27, 3], "stages.2.2.grn.gamma", 3),
        ([3, 3, 27, 3], "stages.2.3.grn.gamma", 4),
        ([3, 3, 27, 3], "stages.2.26.pwconv1.weight", 11),
        ([3, 3, 27, 3], "stages.3.0.pwconv2.weight", 12),
        ([3, 3, 27, 3], "norm.weight", 12),
        ([3, 4, 23, 3], "stem.2.conv.weight", 0),
        ([3, 4, 23, 3], "stages.1.2.convs.0.norm.weight", 2),
        ([3, 4, 23, 3], "stages.1.3.convs.0.conv.weight", 3),
        ([3, 4, 23, 3], "stages.2.22.convs.2.conv.weight", 11),
        ([3, 4, 23, 3], "stages.3.0.shortcut.conv.weight", 12),
    ],
)
def test_a_layer_is_up_to_three_blocks_of_a_stage(depths, part, layer):
    assert layer_of(f"ecg_model.encoder.{part}", depths) == layer
    assert layer_of("classifier.weight", depths) == 13


RATES = {  # the last layer 0.8, each one below half of it; the tiny encoders have a layer for each stage
    "convnextv2": {
        "downsamples.0.conv.weight": 0.05, "downsamples.0.norm.weight": 0.05, "downsamples.1.conv.weight": 0.2,
        "stages.0.0.dwconv.weight": 0.1, "stages.1.0.grn.beta": 0.2, "stages.2.0.pwconv1.weight": 0.4,
        "stages.2.1.pwconv1.weight": 0.4, "downsamples.3.norm.bias": 0.8, "stages.3.0.norm.bias": 0.8,
        "norm.weight": 0.8,
    },
    "xresnet1d": {
        "stem.0.conv.weight": 0.05, "stem.2.norm.bias": 0.05, "stages.0.0.convs.1.conv.weight": 0.1,
        "stages.1.0.convs.0.conv.weight": 0.2, "stages.1.1.convs.2.norm.weight": 0.2,
        "stages.2.0.shortcut.conv.weight": 0.4, "stages.3.0.convs.0.norm.bias": 0.8,
    },
}  # fmt: skip


@ENCODER
def test_each_parameter_gets_the_rate_of_its_layer_and_matrices_alone_decay(encoder):
    model = ESIForECGClassification(tiny_config(ecg=ENCODERS[encoder], num_labels=3))
    groups = parameter_groups(model, lr=0.8, layer_decay=0.5, head_lr=7.0, weight_decay=0.3)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    named = dict(model.named_parameters())
    for name, rate in RATES[encoder].items():
        group = found[id(named[f"ecg_model.encoder.{name}"])]
        assert group["lr"] == pytest.approx(rate), name
    assert found[id(model.classifier.weight)]["lr"] == found[id(model.classifier.bias)]["lr"] == 7.0
    for name, parameter in named.items():
        assert found[id(parameter)]["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0), name
    even = parameter_groups(model, lr=0.8, layer_decay=1.0, head_lr=0.8, weight_decay=0.3)
    assert {group["lr"] for group in even} == {0.8}


def test_a_parameter_of_no_known_layer_is_refused_and_so_is_a_decay_above_one():
    with pytest.raises(ValueError, match="got 'ecg_model.encoder.tokens.weight'"):
        layer_of("ecg_model.encoder.tokens.weight", [1, 1, 1, 1])
    with pytest.raises(ValueError, match="layer_decay: expected above 0 and at most 1, got 1.5"):
        parameter_groups(ESIForECGClassification(tiny_config()), 1e-3, 1.5, 1e-3, 0.0)


def test_rates_warm_up_and_fall_by_half_a_cosine():
    classifier = ESIForECGClassification(tiny_config(num_labels=2))
    settings = replace(QUICK, epochs=3, warmup_ratio=1 / 3, head_lr=0.01)
    stepper = classifier_training._Stepper.of(classifier, settings, steps_per_epoch=2)
    rates = []
    for _ in range(6):
        rates.append(stepper.optimizer.param_groups[-1]["lr"])
        stepper.step({"input_values": torch.randn(2, 12, 128)}, torch.eye(2))
    expected = [0.5, 1.0, *(0.5 + 0.5 * np.cos(np.pi * step / 4) for step in range(4))]
    np.testing.assert_allclose(rates, 0.01 * np.array(expected))


# ----- one classifier ------------------------------------------------------------------------------------------------


def test_a_new_classifier_has_the_models_encoder_a_seeded_head_and_the_names():
    model = tiny_esi()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other, third = (new_classifier(model, ["NORM", "MI", "CD"], 0.25, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in model.ecg_model.state_dict().items():
        assert torch.equal(one.ecg_model.state_dict()[name], tensor), name
        assert one.ecg_model.state_dict()[name].data_ptr() != tensor.data_ptr()
    assert torch.equal(one.classifier.weight, other.classifier.weight)
    assert not torch.equal(one.classifier.weight, third.classifier.weight)
    assert one.config.id2label == {0: "NORM", 1: "MI", 2: "CD"} and one.config.label2id["CD"] == 2
    assert one.config.num_labels == 3 and one.config.problem_type == "multi_label_classification"
    assert one.config.ecg_config.drop_path_rate == 0.25 and model.config.ecg_config.drop_path_rate == 0.0
    assert one.ecg_model.encoder.stages[3][0].drop_path_rate == 0.25


@ENCODER
def test_it_learns_and_the_same_seed_gives_the_same_weights(encoder, processor):  # noqa: F811
    model, door = tiny_esi(ecg=ENCODERS[encoder]), processor.feature_extractor
    train, validation, test = labelled(0, 40), labelled(100, 16), labelled(200, 24)
    settings = replace(QUICK, epochs=8, drop_path_rate=0.1)
    found = []
    for seed in (3, 3, 4):
        classifier = new_classifier(model, LABELS, settings.drop_path_rate, seed)
        before = mean_auroc(class_scores(classifier, door, train.dataset), train.targets)
        torch.manual_seed(5)
        choice = train_classifier(classifier, door, train, validation, settings, seed)
        drawn = torch.rand(1).item()
        found.append((classifier, choice, drawn))
    (one, choice, drawn), (same, *_), (other, _, drawn_after_other) = found
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.classifier.weight, other.classifier.weight) and drawn == drawn_after_other
    after = mean_auroc(class_scores(one, door, train.dataset), train.targets)
    assert after > max(0.95, before) and choice.losses[-1] < 0.7 * choice.losses[0]
    assert mean_auroc(class_scores(one, door, test.dataset), test.targets) > 0.9
    stem, fresh = one.get_input_embeddings().weight, model.ecg_model.get_input_embeddings().weight
    assert not torch.equal(stem, fresh) and not one.training  # the whole encoder learns


def test_the_last_of_the_best_epochs_is_taken(processor, monkeypatch):  # noqa: F811
    areas, weights = iter([0.5, 0.9, 0.9, 0.7]), []
    classifier, door = new_classifier(tiny_esi(), LABELS), processor.feature_extractor

    def judged(scores, targets):
        weights.append(classifier.classifier.weight.detach().clone())
        return next(areas)

    monkeypatch.setattr(classifier_training, "mean_auroc", judged)
    validation = labelled(100, 5)
    choice = train_classifier(classifier, door, labelled(0, 9), validation, replace(QUICK, epochs=4))
    assert (choice.epoch, choice.macro_auroc, len(choice.losses)) == (3, 0.9, 4)
    assert torch.equal(classifier.classifier.weight, weights[2]) and not torch.equal(weights[2], weights[3])
    np.testing.assert_allclose(class_scores(classifier, door, validation.dataset), choice.scores, atol=1e-5)


def test_scores_are_the_logits_of_each_record_whatever_the_batch(processor):  # noqa: F811
    classifier, door = new_classifier(tiny_esi(), LABELS).train(), processor.feature_extractor
    scores = class_scores(classifier, door, records(0, 5), batch_size=2)
    assert scores.shape == (5, 2) and scores.dtype == np.float32 and classifier.training
    np.testing.assert_allclose(scores, class_scores(classifier, door, records(0, 5), batch_size=5), atol=1e-5)
    alone = classifier.eval()(**door(record(3))).logits
    np.testing.assert_allclose(scores[3:4], alone.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights(precision, processor):  # noqa: F811
    classifier = new_classifier(tiny_esi(), LABELS)
    settings = replace(QUICK, precision=precision)
    choice = train_classifier(classifier, processor.feature_extractor, labelled(0, 12), labelled(100, 6), settings)
    assert np.isfinite(choice.losses).all() and choice.scores.dtype == np.float32
    assert {tensor.dtype for tensor in classifier.parameters()} == {torch.float32}
    assert precision_on("cpu") == "no"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epochs": 0}, "epochs: expected more than 0, got 0"),
        ({"lr": -1.0}, "lr: expected more than 0, got -1.0"),
        ({"crop": "middle"}, "crop: expected one of start, random, got 'middle'"),
        ({"precision": "int8"}, "precision: expected one of no, bf16, fp16, got 'int8'"),
        ({"warmup_ratio": 2.0}, "warmup_ratio: expected 0 to 1, got 2.0"),
    ],
)
def test_settings_that_make_no_sense_are_told(changed, words):
    with pytest.raises(ValueError, match=words):
        TrainingSettings(**changed)


def test_no_records_and_divergence_are_told(processor):  # noqa: F811
    classifier, door = new_classifier(tiny_esi(), LABELS), processor.feature_extractor
    nothing = LabelledRecords(records(0, 1).select([]), np.zeros((0, 2), bool))
    with pytest.raises(ValueError, match="expected training and validation records, got 4 and 0"):
        train_classifier(classifier, door, labelled(0, 4), nothing, QUICK)
    with pytest.raises(ValueError, match="not finite after epoch 1, with lr 1e\\+30"):
        train_classifier(classifier, door, labelled(0, 8), labelled(100, 4), replace(QUICK, lr=1e30))


# ----- the protocol --------------------------------------------------------------------------------------------------


def test_the_protocol_gives_figures_of_each_share_with_floor_choice_and_seeds(context, tmp_path):
    options = {"epochs": 2, "train_batch_size": 8, "seeds": (42, 43), "drop_path_rate": 0.0}
    context.output = tmp_path
    result = fine_tune.run(context, fractions=(0.01, 0.5, 1.0), **options)
    for share in ("50%", "100%"):
        for key in ("macro_auroc", "macro_auprc", "macro_f1", "auroc/V5_UP", "num_positives/II_UP"):
            assert f"tiny/{share}/{key}" in result.trained
        assert f"tiny/{share}/macro_auroc_low" in result.trained
        assert 0 <= result.random_weights[f"tiny/{share}/macro_auroc"] <= 1
        assert f"tiny/{share}/macro_auroc_std_of_seeds" in result.trained
    assert result.trained["tiny/50%/num_train_records"] == 20
    assert result.left_out["tiny/1%"].startswith("too few training records (40)")
    chosen = result.settings["chosen"]
    assert set(chosen) == {f"tiny/{share}/{role}" for share in ("50%", "100%") for role in context.models()}
    assert chosen["tiny/100%/trained"]["epoch"] in (1, 2)
    assert set(chosen["tiny/100%/trained"]["thresholds_of_logits"]) == set(LABELS)
    assert result.settings["floor"] in result.protocol and "starts from random weights" in result.settings["floor"]
    assert [row["attribute"] for row in result.tables["tiny/100%: subgroups"]] == ["all", "sex", "age"]
    assert "tiny/50%: subgroups" not in result.tables
    assert {path.name for path in tmp_path.glob("*.png")} == {"roc_tiny_100.png", "calibration_tiny_100.png"}
    result.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["precision"] == "no"
    again = fine_tune.run(context, fractions=(0.5,), **options)
    figures = {key: value for key, value in result.trained.items() if key.startswith("tiny/50%/")}
    assert figures == again.trained


def test_classes_without_positives_are_told(context):
    names = {"train": ("BOTH", "TESTED"), "validation": ("BOTH",), "test": ("BOTH", "LEARNED")}
    context.dataset_rows = {
        split: stored([record(first + n, labels=held[n % 2 :] if n % 2 < len(held) else ()) for n in range(12)])
        for (split, held), first in zip(names.items(), (0, 100, 200), strict=True)
    }
    result = fine_tune.run(context, **FEW)
    assert result.trained["tiny/100%/auroc/TESTED"] is None and result.trained["tiny/100%/num_positives/TESTED"] == 0
    assert result.left_out["tiny/TESTED"] == "no record has it"
    assert "tiny/100%: none of 12 training records has LEARNED: nothing to learn them from" in result.notes


def test_test_labels_change_the_last_figures_and_nothing_else(context, tmp_path):
    """Weights, epochs and thresholds stay what they are when the labels of the test records are permuted."""
    results = []
    for number in range(2):
        rows = context.dataset_rows["test"]
        labels = list(np.roll(np.array(rows["labels"], dtype=object), 5 * number))
        shuffled = rows.remove_columns("labels").add_column("labels", labels, feature=rows.features["labels"])
        changed = replace(context, dataset_rows=context.dataset_rows | {"test": shuffled})
        results.append(fine_tune.run(changed, save=str(tmp_path / str(number)), **FEW | {"epochs": 4}))
    one, other = results
    assert one.settings == other.settings  # with all that was chosen
    weights = [(tmp_path / str(number) / "model.safetensors").read_bytes() for number in range(2)]
    assert weights[0] == weights[1]
    assert one.trained["tiny/100%/auroc/II_UP"] > 0.8 > other.trained["tiny/100%/auroc/II_UP"]


def test_windows_are_refused_since_training_sees_records_at_once(context):
    context.window = 0.5
    with pytest.raises(ValueError, match="window: expected none with fine_tune, which sees ECGs at once, got 0.5"):
        fine_tune.run(context, **FEW)


def test_a_test_record_among_the_training_records_is_refused(context):
    context.dataset_rows["test"] = stored([record(number) for number in (200, 201, 7)])
    with pytest.raises(ValueError, match="expected no test record in train, got 1: r7"):
        fine_tune.run(context, **FEW)


def test_the_saved_model_is_the_judged_one_and_loads_by_its_auto_class(context, tmp_path):
    folder = tmp_path / "model"
    result = fine_tune.run(context, save=str(folder), **FEW | {"fractions": (0.5, 1.0)})
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(model) is ESIForECGClassification and model.config.id2label == {0: "II_UP", 1: "V5_UP"}
    door = AutoProcessor.from_pretrained(folder).feature_extractor
    rows = context.dataset_rows["validation"]
    targets = target_matrix(rows["labels"], LABELS)
    told = result.settings["chosen"]["tiny/100%/trained"]
    assert mean_auroc(class_scores(model, door, rows), targets) == pytest.approx(told["validation_macro_auroc"])
    assert (folder / "modeling_esi.py").exists() and [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(ValueError, match="save: expected a new folder"):
        fine_tune.run(context, save=str(folder), **FEW)
    with pytest.raises(ValueError, match="save: expected a new folder"):
        save_classifier(model, context.processor, folder, {}, {})


def test_the_saved_model_says_from_where_on_a_label_holds(context, tmp_path):
    """The thresholds in its configuration give the F1 that was judged, from probabilities and without this package."""
    folder = tmp_path / "model"
    context.dataset_rows["test"] = context.dataset_rows["validation"]  # on the records of the choice F1 is the best one
    context.dataset_rows["validation"] = records(200, 24)
    result = fine_tune.run(context, save=str(folder), **FEW)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    door, rows = AutoProcessor.from_pretrained(folder).feature_extractor, context.dataset_rows["test"]
    probabilities = expit(class_scores(model, door, rows).astype(np.float64))
    said = probabilities >= [model.config.label_thresholds[name] for name in model.config.id2label.values()]
    f1 = f1_score(target_matrix(rows["labels"], LABELS), said, average="macro")
    assert result.trained["tiny/100%/macro_f1"] == pytest.approx(f1)


def test_a_saved_model_has_a_card_with_its_figures_and_its_start_and_is_pushed(context, monkeypatch, tmp_path):
    context.name, context.card = "someone/esi", CARD
    result = fine_tune.run(context, save=str(tmp_path / "esi-tiny"), **FEW)
    card = ModelCard.load(tmp_path / "esi-tiny" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and card.data.base_model == "someone/esi"
    figures = {entry.metric_name: entry.metric_value for entry in card.data.eval_results}
    assert figures["tiny/100%/macro_auroc"] == result.trained["tiny/100%/macro_auroc"]
    assert "# esi-tiny" in card.text and "AutoModelForSequenceClassification" in card.text
    told = training_text(card.content)
    assert told.startswith("tiny: 40 train, 16 validation, 24 test records, split by patient; labels: tiny.\n")
    assert "The encoder before that (esi): code15: 9 train records, split by patient." in told
    assert "label_thresholds" in card.text and "V5_UP: 0." in card.text
    saved = json.loads((tmp_path / "esi-tiny" / "results.json").read_text())
    assert saved["trained"] == json.loads(json.dumps(result.to_dict()["trained"]))
    with hub_of_this_process(monkeypatch, tmp_path / "hub_cache") as hub:
        push_folder(tmp_path / "esi-tiny", "someone/esi-tiny", token="hf_of_nobody")
        pushed = json.loads(hub.files("someone/esi-tiny")["config.json"])
        assert set(pushed["label_thresholds"]) <= set(LABELS) and "README.md" in hub.files("someone/esi-tiny")
    fine_tune.run(context, save=str(tmp_path / "other"), license="CC-BY-4.0", **FEW)
    assert ModelCard.load(tmp_path / "other" / "README.md").data.license == "cc-by-4.0"
    with pytest.raises(ValueError, match="license: expected the Hub's identifier"):
        fine_tune.run(context, save=str(tmp_path / "third"), license="as you like", **FEW)
    with pytest.raises(ValueError, match="license: expected with save"):
        fine_tune.run(context, license="cc-by-4.0", **FEW)


@pytest.mark.parametrize("card", ["", "# A card without metadata"])
def test_without_a_known_licence_the_card_says_other(card, caplog):
    assert chosen_license(None, card) == "other" and "no --license" in caplog.text


def test_a_model_to_be_saved_needs_a_single_task(context, monkeypatch, tmp_path):
    task = fine_tune.load_tasks(context)[0]
    monkeypatch.setattr(fine_tune, "load_tasks", lambda *_: [task, replace(task, name="form")])
    with pytest.raises(ValueError, match="save: expected a single task, got 2: tiny, form. Choose one with --tasks"):
        fine_tune.run(context, save=str(tmp_path / "model"))


def test_a_second_model_is_compared_in_pairs_and_wrong_shares_are_told(context):
    context.compare = (tiny_esi(), context.processor)
    result = fine_tune.run(context, **FEW)
    assert result.compared["tiny/100%/macro_auroc/difference"] == 0.0  # the same weights, seed and records
    with pytest.raises(ValueError, match="expected shares above 0 and at most 1"):
        fine_tune.run(context, fractions=(0.0,))


def test_every_option_is_a_flag_with_its_help():
    options = options_of(find_protocol("fine_tune"))
    assert all(option.help for option in options)
    assert {"layer_decay", "head_lr", "save", "fractions"} <= {option.name for option in options}
    assert next(option for option in options if option.name == "save").kind is str
