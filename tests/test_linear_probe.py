"""Probes against scikit-learn; nothing is learned or chosen on test records: a planted leak is caught."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as ScikitLearn
from sklearn.model_selection import train_test_split
from test_context import processor as processor  # noqa: F401  a fixture
from test_context import record, stored
from tiny_esi import tiny_esi

from modeling_esi.benchmarks.probe import embedded_records
from modeling_esi.evaluation import linear_probe
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.label_tasks import LabelTask, TaskRows, check_no_leak
from modeling_esi.evaluation.linear_probe import fit_logistic, fit_probe, share_of
from modeling_esi.evaluation.logistic import LogisticRegression
from modeling_esi.evaluation.metrics import auroc
from modeling_esi.evaluation.probe_file import read_probe
from modeling_esi.evaluation.probe_training import train_linear
from modeling_esi.evaluation.task_results import empty_result, leave_out_empty
from modeling_esi.evaluation.task_sources import load_tasks


def correlated_case(num_records: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_records, 17)) @ rng.normal(size=(17, 17)) + 5
    targets = features @ rng.normal(size=(17, 4)) * 0.2 + rng.logistic(size=(num_records, 4))
    return features, targets > np.quantile(targets, [0.5, 0.8, 0.97, 0.3], axis=0).diagonal()


@pytest.mark.parametrize("inverse", [1e-3, 0.1, 10.0])
def test_logistic_regression_equals_scikit_learn(inverse):
    features, targets = correlated_case()
    scores = next(LogisticRegression(features, targets).path([1 / (inverse * 300)])).scores(features)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    for column in range(4):
        reference = ScikitLearn(C=inverse, tol=1e-8, max_iter=9999).fit(standard, targets[:, column])
        wrong = scores[:, column] - reference.decision_function(standard)
        assert np.sqrt((wrong**2).mean()) < 1e-3 and np.abs(wrong).max() < 5e-3


def test_a_path_ends_where_a_fit_of_its_last_strength_does():
    features, targets = correlated_case(seed=1)
    records = LogisticRegression(features, targets)
    *_, last = records.path([1.0, 0.1, 0.01])
    np.testing.assert_allclose(last.scores(features), next(records.path([0.01])).scores(features), atol=0.02)


def test_a_class_without_both_labels_gets_a_constant_and_disturbs_no_other():
    features, targets = correlated_case(seed=2)
    with_none = np.concatenate([targets, np.zeros((300, 1), bool)], axis=1)
    model = next(LogisticRegression(features, with_none).path([0.1]))
    assert np.ptp(model.scores(features)[:, 4]) < 1e-3
    alone = next(LogisticRegression(features, targets).path([0.1]))
    np.testing.assert_allclose(model.scores(features)[:, :4], alone.scores(features), atol=0.01)
    with pytest.raises(ValueError, match="finite numbers"):
        LogisticRegression(np.full((3, 2), np.nan), np.zeros((3, 1)))


def test_shares_are_scikit_learns():
    expected = train_test_split(np.arange(340), train_size=0.01, random_state=42)[0]
    assert share_of(340, 0.01, 42).tolist() == expected.tolist() and len(expected) == 3
    assert share_of(7, 1.0, 3).tolist() == list(range(7))


def test_the_strength_is_chosen_on_validation_and_told():
    features, targets = correlated_case(400, seed=3)
    model, chosen = fit_logistic(features[:200], targets[:200], features[200:], targets[200:])
    found = auroc(model.scores(features[200:]), targets[200:]).mean()
    assert found == pytest.approx(chosen["validation_macro_auroc"]) and found > 0.7
    assert chosen["C"] in linear_probe.INVERSE_STRENGTHS and not chosen["is_at_edge"]


def test_merls_probe_learns_and_takes_the_best_epoch():
    features, targets = correlated_case(400, seed=4)
    features = (features - features.mean(axis=0)) / features.std(axis=0)

    def judge(model):
        return float(auroc(model.scores(features[300:]), targets[300:]).mean())

    model, epoch, value = train_linear(features[:300], targets[:300], judge, epochs=30)
    assert value > 0.7 and 1 <= epoch <= 30 and judge(model) == value
    again = train_linear(features[:300], targets[:300], judge, epochs=30)[0]
    np.testing.assert_array_equal(again.weight, model.weight)


# ----- leaks ---------------------------------------------------------------------------------------------------------


def chosen_without_test(fit_of) -> bool:
    """Whether all that is chosen stays the same when the test records and their labels are replaced by noise."""
    found = []
    for seed in (0, 1):
        embeds = dict(zip(("train", "validation"), np.split(correlated_case(400, seed=5)[0], 2), strict=True))
        targets = dict(zip(("train", "validation"), np.split(correlated_case(400, seed=5)[1], 2), strict=True))
        embeds["test"], targets["test"] = correlated_case(200, seed=10 + seed)
        probe = fit_of(embeds, targets)
        found.append((probe.model.weight, probe.model.bias, probe.thresholds, probe.chosen["C"]))
    return all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_nothing_is_learned_or_chosen_on_test_records_and_a_planted_leak_is_caught():
    rows = np.arange(200)
    assert chosen_without_test(lambda embeds, targets: fit_probe(embeds, targets, rows, fit_logistic, 0))

    def scaled_on_all(embeds, targets):  # the leak: standardising on test records, too
        scale = np.concatenate(list(embeds.values())).std(axis=0)
        return fit_probe({split: e / scale for split, e in embeds.items()}, targets, rows, fit_logistic, 0)

    def chosen_on_test(embeds, targets):  # the leak: strength and thresholds from test records
        swapped = [part | {"validation": part["test"]} for part in (embeds, targets)]
        return fit_probe(*swapped, rows, fit_logistic, 0)

    assert not chosen_without_test(scaled_on_all)
    assert not chosen_without_test(chosen_on_test)


@pytest.fixture()
def context(processor) -> EvaluationContext:  # noqa: F811
    rng = np.random.default_rng(0)
    rows = {
        split: stored(
            [
                record(i, labels=tuple(name for name in ("AFIB", "NORM") if rng.random() < 0.5), sex="male", age=50.0)
                for i in range(first, first + number)
            ]
        )
        for split, first, number in (("train", 0, 30), ("validation", 100, 16), ("test", 200, 20))
    }
    return EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows=rows, num_resamples=20)


def test_a_test_record_in_training_is_refused_and_a_shared_patient_told(context):
    targets = np.zeros((3, 1), bool)
    splits = {
        "train": TaskRows("train", np.arange(3), targets),
        "validation": TaskRows("validation", np.arange(3), targets),
        "test": TaskRows("test", np.arange(3), targets),
    }
    task = LabelTask("t", ("a",), splits)
    assert check_no_leak(context, task) == []
    leaking = replace(task, splits=splits | {"test": TaskRows("train", np.array([2, 5]), targets[:2])})
    with pytest.raises(ValueError, match="no test record in train, got 1: r2"):
        check_no_leak(context, leaking)
    same_patient = replace(task, splits=splits | {"test": TaskRows("train", np.array([3, 9]), targets[:2])})
    assert check_no_leak(context, same_patient) == ["t: 1 of 2 test patients are also in training or validation"]
    with pytest.raises(ValueError, match="got none to validation"):
        check_no_leak(context, replace(task, splits={"train": splits["train"], "test": splits["test"]}))


# ----- the protocol --------------------------------------------------------------------------------------------------


def test_the_protocol_gives_figures_of_each_share_with_floor_and_choice(context, tmp_path):
    result = linear_probe.run(context, fractions=(0.5, 1.0), seeds=(42, 43))
    for share in ("50%", "100%"):
        for key in ("macro_auroc", "macro_auprc", "macro_f1", "auroc/AFIB", "num_positives/NORM"):
            assert f"tiny/{share}/{key}" in result.trained
        assert f"tiny/{share}/macro_auroc_low" in result.trained
        assert f"tiny/{share}/macro_auroc" in result.random_weights
    assert result.trained["tiny/50%/num_train_records"] == 15
    roles, shares = ("trained", "random_weights"), ("50%", "100%")
    assert set(result.settings["chosen"]) == {f"tiny/{share}/{role}" for share in shares for role in roles}
    assert [row["attribute"] for row in result.tables["tiny/100%: subgroups"]] == ["all", "sex", "age"]
    assert not result.pictures
    result.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["seeds"] == [42, 43]


def test_the_whole_protocol_is_sane():
    """Embeddings that are the labels give 1, labels of other records one half, and the floor is that of its own."""
    context = embedded_records(600, 7, 3)
    context.num_resamples = 100
    options = {"fractions": (1.0,), "subgroups": False}
    task, key = load_tasks(context)[0], "random/100%/macro_auroc"
    labels = {split: rows.targets.astype(np.float32) for split, rows in task.splits.items()}
    first = linear_probe.run(context, **options)
    context.embeds["trained"] = labels
    exact = linear_probe.run(context, **options)
    assert [exact.trained[key], exact.trained[f"{key}_low"], exact.trained[f"{key}_high"]] == [1.0, 1.0, 1.0]
    assert exact.random_weights[key] == first.random_weights[key] < first.trained[key] < 1.0
    rng = np.random.default_rng(0)
    context.embeds["trained"] = {split: rng.permutation(of_split) for split, of_split in labels.items()}
    permuted = linear_probe.run(context, **options)
    assert permuted.trained[f"{key}_low"] < 0.5 < permuted.trained[f"{key}_high"]


def test_pictures_and_the_probe_of_the_largest_share_are_kept_and_linked(context, tmp_path):
    context.output = tmp_path
    result = linear_probe.run(context, fractions=(0.5, 1.0), seeds=(42,), subgroups=False)
    assert list(result.pictures.values()) == ["roc_tiny_100.png", "calibration_tiny_100.png"]
    result.save(tmp_path)
    page = (tmp_path / "results.md").read_text()
    for name in ("roc_tiny_100", "calibration_tiny_100"):
        assert (tmp_path / f"{name}.png").is_file() and (tmp_path / f"{name}.svg").is_file()
        assert f"({name}.png)" in page and f"({name}.svg)" in page
    saved = read_probe(tmp_path / "probe_tiny.npz", ["NORM", "AFIB"])
    embeds, targets = context.ecg_embeds("test", layer="pooled"), context.rows("test")["labels"]
    area = auroc(saved.model.scores(embeds), np.array([["NORM" in held, "AFIB" in held] for held in targets]))
    assert saved.layer == "pooled" and area[0] == pytest.approx(result.trained["tiny/100%/auroc/NORM"])


def test_too_small_a_share_is_left_out_and_told(context):
    result = linear_probe.run(context, fractions=(0.01, 1.0), seeds=(42,), method="merl", epochs=2, subgroups=False)
    assert "too few training records (30)" in result.left_out["tiny/1%"]
    assert "tiny/100%/macro_auroc" in result.trained and "2 epochs" in result.protocol
    with pytest.raises(ValueError, match="method: expected one of logistic, merl"):
        linear_probe.run(context, method="svm")


def test_a_second_model_is_compared_in_pairs(context):
    context.compare = (tiny_esi(), context.processor)
    result = linear_probe.run(context, fractions=(1.0,), seeds=(42,), subgroups=False)
    assert result.compared["tiny/100%/macro_auroc/difference"] == 0.0
    assert result.compared["tiny/100%/macro_auroc/difference_high"] == 0.0
    assert result.to_text().endswith("other model: other model; leakage: " + result.compared_leakage)
    context.compare_name, context.compare_card = "theirs", "## Training data\n\nPTB-XL\n"
    told = empty_result(replace(context, dataset="ptb_xl"), "linear_probe", "")
    assert told.compared_model == "theirs" and "take these figures as seen in training" in told.compared_leakage


def test_tasks_without_records_are_left_out_and_told_unless_they_were_named(context):
    task = load_tasks(context)[0]
    nothing = TaskRows("test", np.zeros(0, np.int64), np.zeros((0, 2), bool))
    form = replace(task, name="form", splits=dict(task.splits) | {"validation": nothing, "test": nothing})
    result, splits = empty_result(context, "linear_probe", ""), ("train", "validation", "test")
    assert leave_out_empty(result, [task, form], splits, are_named=False) == [task]
    assert result.left_out == {"form": "no labelled record in validation and test"}
    assert leave_out_empty(result, [task, form], splits, are_named=True) == [task, form]
    assert leave_out_empty(result, [form], splits, are_named=False) == [form]
    with pytest.raises(ValueError, match="form: expected training, validation and test records, got none to val"):
        check_no_leak(context, form)
