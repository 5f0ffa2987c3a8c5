"""Metrics in the form of the library `evaluate`: loaded by path, offline, and equal to others' own."""

import doctest
import importlib
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

FOLDER = Path(str(files("modeling_esi.evaluation.evaluate_modules")))
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.fixture()
def load(tmp_path):
    return lambda name: evaluate.load(str(FOLDER / f"{name}.py"), cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_each_is_true(name, load):
    if name == "report_text":
        pytest.importorskip("sacrebleu", reason="needs the extra eval")
    metric = load(name)
    assert metric.description and "Returns:" in metric.inputs_description
    example = doctest.DocTestParser().get_doctest(metric.inputs_description, {"metric": metric}, name, None, 0)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0


def test_all_load_in_a_process_without_network(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise OSError('no network here')\n"
        "socket.socket.connect = refuse\n"
        "import evaluate\n"
        "for path in sys.argv[1:]: sys.stdout.write(type(evaluate.load(path)).__name__ + ' ')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    paths = [str(FOLDER / f"{name}.py") for name in MODULES]
    done = subprocess.run([sys.executable, "-c", code, *paths], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "ECGIdentification", "ECGTextRetrieval", "MultilabelAuroc", "ReportFindings", "ReportText"
    ]  # fmt: skip


def test_multilabel_equals_scikit_learn_and_names_what_is_left_out(load):
    rng = np.random.default_rng(0)
    targets = (rng.random((57, 3)) < [0.5, 0.2, 0.0]).astype(int)
    scores, thresholds = targets + rng.normal(size=targets.shape), [0.4, 0.6, np.nan]
    metric = load("multilabel_auroc")
    for start in range(0, 57, 20):  # as `evaluate` collects batches
        metric.add_batch(predictions=scores[start : start + 20], references=targets[start : start + 20])
    found = metric.compute(label_names=["NORM", "MI", "never"], thresholds=thresholds, num_resamples=20)
    has = [0, 1]
    assert found["macro_auroc"] == pytest.approx(np.mean([roc_auc_score(targets[:, c], scores[:, c]) for c in has]))
    precisions = [average_precision_score(targets[:, c], scores[:, c]) for c in has]
    assert found["macro_auprc"] == pytest.approx(np.mean(precisions))
    said = scores >= thresholds
    assert found["macro_f1"] == pytest.approx(np.mean([f1_score(targets[:, c], said[:, c]) for c in has]))
    assert found["auroc/never"] is None and found["labels_left_out"] == ["never"]
    assert found["macro_auroc_low"] <= found["macro_auroc"] <= found["macro_auroc_high"]
    assert found["num_positives/MI"] == targets[:, 1].sum() and found["num_records"] == 57


def test_retrieval_and_identification_by_hand(load):
    ecg, text = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], [[0.9, 0.1], [1.0, 0.0], [0.1, 0.9]]
    found = load("ecg_text_retrieval").compute(predictions=ecg, references=text)
    assert found["ecg_to_text/recall@1"] == pytest.approx(1 / 3) and found["text_to_ecg/recall@1"] == pytest.approx(
        2 / 3
    )
    found = load("ecg_text_retrieval").compute(predictions=ecg, references=text, keys=["a", "a", "b"])
    assert found["ecg_to_text/recall@1"] == 1.0
    angles = np.deg2rad([0, 60, 120, 10, 100, 130])  # of a b c enrolled, then of their probes: see test_identification
    found = load("ecg_identification").compute(
        predictions=np.stack([np.cos(angles), np.sin(angles)], axis=1), references=list("abcabc"),
        is_enrolled=[True] * 3 + [False] * 3,
    )  # fmt: skip
    assert found["rank1"] == pytest.approx(2 / 3) and found["equal_error_rate"] == pytest.approx(1 / 6)


def test_reports_word_by_word_and_finding_by_finding(load):
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra eval")
    written = ["sinus rhythm with LBBB and a normal axis", "atrial fibrillation"]
    true = ["Sinus rhythm, LBBB and a normal axis", "atrial flutter"]
    found = load("report_text").compute(predictions=written, references=true)
    expected = sacrebleu.corpus_bleu(written, [true], lowercase=True).score / 100
    assert found["bleu4"] == pytest.approx(expected, abs=1e-9) and expected > 0.3
    prompts = {
        "AFIB": ["atrial fibrillation"],
        "CLBBB": "left bundle branch block",
        "LVH": "left ventricular hypertrophy",
    }
    labels = [["CLBBB"], ["CLBBB"]]
    found = load("report_findings").compute(predictions=written, references=labels, prompts=prompts)
    # said: CLBBB once (of two), AFIB once (of none): 2 * 1 / (2 + 2)
    assert found["label_f1_micro"] == 0.5 and found["label_f1/CLBBB"] == pytest.approx(2 / 3)
    assert found["label_f1_macro"] == pytest.approx(2 / 3) and found["labels_left_out"] == ["AFIB", "LVH"]


def test_each_is_also_a_class_of_the_package():
    for name in MODULES:
        module = importlib.import_module(f"modeling_esi.evaluation.evaluate_modules.{name}")
        assert any(isinstance(value, type) and issubclass(value, evaluate.Metric) for value in vars(module).values())
