"""Pipelines: what they say is what the model says, for any way to pass a recording, alone and in any batch."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from datasets import Dataset
from tiny_esi import tiny_config, tiny_esi
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, pipeline

from datasets_scripts.records import ECGRecord, read_record, record_to_row
from modeling_esi import ESIEcgModel, ESIFeatureExtractor, ESIForECGClassification, ESIProcessor, pipeline_inputs
from modeling_esi.benchmarks import pipeline as benchmark
from modeling_esi.benchmarks.measured import anonymous_memory
from modeling_esi.training.text_from_scratch import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
LABELS = ["sinus rhythm", "atrial fibrillation", "rhythm"]
TASKS = ("zero-shot-ecg-classification", "ecg-classification", "ecg-feature-extraction", "ecg-to-text")
OPTIONS = {
    "zero-shot-ecg-classification": {"candidate_labels": LABELS},
    "ecg-classification": {"aggregation": "max"},
    "ecg-feature-extraction": {},
    "ecg-to-text": {"max_new_tokens": 5},
}


@pytest.fixture(scope="module")
def model():
    return tiny_esi("esi")


@pytest.fixture(scope="module")
def processor(model):
    tokenizer = train_tokenizer(["sinus rhythm", "atrial fibrillation"], vocab_size=60, max_text_length=20)
    model.config.decoder_config.bos_token_id = tokenizer.cls_token_id
    model.config.decoder_config.eos_token_id = tokenizer.sep_token_id
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=5.0), tokenizer)


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "esi-ecg"
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(3)
    model = ESIForECGClassification(tiny_config(id2label={0: "NORM", 1: "MI", 2: "HYP"})).eval()
    with torch.no_grad():
        model.classifier.weight.normal_()
    return model


@pytest.fixture(scope="module")
def pipes(model, classifier, processor):
    """Every pipeline by its task."""
    models = {task: classifier if task == "ecg-classification" else model for task in TASKS}
    return {task: pipeline(task, model=models[task], processor=processor, device="cpu") for task in TASKS}


def signal_of(seconds, rate=100, seed=0, num_leads=8):
    return np.random.default_rng(seed).normal(size=(num_leads, round(seconds * rate))).astype(np.float32)


def record_of(seconds, rate=100, seed=0, **fields):
    return ECGRecord(signal_of(seconds, rate, seed), LEADS, rate, **fields)


def inputs_of(processor, record):
    return processor.feature_extractor(record)


def vectors(pipe, *args, **kwargs):
    return pipe(*args, return_tensors=True, **kwargs)


# ----- what a pipeline says is what the model says -------------------------------------------------------------------


@torch.no_grad()
def test_zero_shot_is_the_cosine_of_ecg_and_label(pipes, model, processor):
    record = record_of(5)
    texts = processor(text=[f"ECG Findings: {label}." for label in LABELS])
    cosines = (model.get_ecg_features(**inputs_of(processor, record)) @ model.get_text_features(**texts).T)[0]
    results = pipes["zero-shot-ecg-classification"](record, candidate_labels=LABELS)
    assert [result["score"] for result in results] == sorted((r["score"] for r in results), reverse=True)
    by_label = {result["label"]: result for result in results}
    for label, cosine in zip(LABELS, cosines.tolist(), strict=True):
        assert by_label[label]["similarity"] == pytest.approx(cosine, abs=1e-6)
        assert by_label[label]["score"] == pytest.approx((1 + cosine) / 2, abs=1e-6)
    assert results == pipes["zero-shot-ecg-classification"](record, "sinus rhythm, atrial fibrillation,rhythm")


@torch.no_grad()
def test_one_of_the_labels_is_true_where_they_exclude_each_other(pipes, model):
    results = pipes["zero-shot-ecg-classification"](record_of(5), LABELS, multi_label=False)
    cosines = torch.tensor([result["similarity"] for result in results])
    expected = (model.get_logit_scale() * cosines).softmax(-1)
    assert [result["score"] for result in results] == pytest.approx(expected.tolist(), abs=1e-6)


@torch.no_grad()
def test_templates_are_averaged_on_the_sphere(pipes, model, processor):
    templates = ["{}", "The ECG shows {}."]
    results = pipes["zero-shot-ecg-classification"](record_of(5), ["rhythm"], hypothesis_template=templates)
    texts = model.get_text_features(**processor(text=["rhythm", "The ECG shows rhythm."]))
    ecg = model.get_ecg_features(**inputs_of(processor, record_of(5)))
    assert results[0]["similarity"] == pytest.approx((ecg @ F.normalize(texts.mean(0), dim=-1)).item(), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("reference", "texts"), [("No {}.", ["No a.", "No b."]), ("ECG.", ["ECG.", "ECG."])])
def test_a_label_is_compared_with_its_reference(pipes, model, processor, reference, texts):
    results = pipes["zero-shot-ecg-classification"](record_of(5), ["a", "b"], reference=reference)
    ecg = model.get_ecg_features(**inputs_of(processor, record_of(5)))
    of_reference = (ecg @ model.get_text_features(**processor(text=texts)).T)[0]
    for result in results:
        margin = result["similarity"] - of_reference["ab".index(result["label"])]
        assert result["score"] == pytest.approx((model.get_logit_scale() * margin).sigmoid().item(), abs=1e-5)


def test_a_model_trained_by_sigmoids_has_a_level_of_its_own(processor):
    model = tiny_esi("esi", contrastive_loss_type="sigmoid")
    pipe = pipeline("zero-shot-ecg-classification", model=model, processor=processor, device="cpu")
    for result in pipe(record_of(5), LABELS):
        logit = model.get_logit_scale().item() * result["similarity"] + model.logit_bias.item()
        assert result["score"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_texts_are_embedded_once_for_a_call(pipes, model, monkeypatch):
    calls = []
    plain = model.get_text_features
    monkeypatch.setattr(model, "get_text_features", lambda **inputs: calls.append(1) or plain(**inputs))
    for _ in range(2):
        pipes["zero-shot-ecg-classification"]([record_of(5, seed=seed) for seed in range(5)], LABELS, batch_size=2)
    assert len(calls) == 2


@torch.no_grad()
def test_classification_gives_named_scores(pipes, classifier, processor):
    record = record_of(5)
    logits = classifier(**inputs_of(processor, record)).logits[0]
    results = pipes["ecg-classification"](record)
    expected = dict(zip(["NORM", "MI", "HYP"], logits.sigmoid().tolist(), strict=True))
    assert {result["label"]: result["score"] for result in results} == pytest.approx(expected)
    assert pipes["ecg-classification"](record, top_k=1) == results[:1]
    probabilities = pipes["ecg-classification"](record, function_to_apply="softmax")
    assert sum(result["score"] for result in probabilities) == pytest.approx(1)
    assert max(logits.tolist()) == pytest.approx(
        pipes["ecg-classification"](record, function_to_apply="none")[0]["score"]
    )


def test_thresholds_and_the_kind_of_problem_come_from_the_configuration(pipes, classifier, monkeypatch):
    plain = {result["label"]: result["score"] for result in pipes["ecg-classification"](record_of(5))}
    monkeypatch.setattr(
        classifier.config, "label_thresholds", {"NORM": plain["NORM"], "MI": plain["MI"] + 1e-3}, raising=False
    )
    told = {result["label"]: result.get("above_threshold") for result in pipes["ecg-classification"](record_of(5))}
    assert told == {"NORM": True, "MI": False, "HYP": None}
    monkeypatch.setattr(classifier.config, "problem_type", "single_label_classification")
    results = pipes["ecg-classification"](record_of(5))
    assert sum(result["score"] for result in results) == pytest.approx(1)
    assert not any("above_threshold" in result for result in results)


@torch.no_grad()
def test_features_are_the_models(pipes, model, processor):
    record, pipe = record_of(3.3), pipes["ecg-feature-extraction"]
    inputs = inputs_of(processor, record)
    torch.testing.assert_close(vectors(pipe, record), model.get_ecg_features(**inputs)[0])
    output = model.ecg_model(**inputs)
    torch.testing.assert_close(vectors(pipe, record, features="pooled"), output.pooler_output[0])
    frames = vectors(pipe, record, features="frames")
    torch.testing.assert_close(frames, output.last_hidden_state[0, : len(frames)])
    assert len(frames) == output.frame_mask.sum() < output.last_hidden_state.shape[1]
    assert np.array(pipe(record)).shape == (28,) and np.array(pipe([record] * 3)).shape == (3, 28)


def test_an_encoder_alone_and_a_classifier_have_pooled_features(classifier, processor):
    for model in (ESIEcgModel(tiny_config().ecg_config).eval(), classifier):
        pipe = pipeline("ecg-feature-extraction", model=model, processor=processor, device="cpu")
        assert vectors(pipe, record_of(5)).shape == (40,)
        with pytest.raises(ValueError, match="features: expected pooled, frames of ESI"):
            pipe(record_of(5), features="embeds")


def test_reports_are_those_of_generate(pipes, model, processor):
    record = record_of(5)
    expected = model.generate(**inputs_of(processor, record), max_new_tokens=5, num_beams=2)
    text = processor.batch_decode(expected, skip_special_tokens=True)[0]
    pipe = pipes["ecg-to-text"]
    assert pipe(record, max_new_tokens=5, num_beams=2) == [{"generated_text": text}]
    assert pipe(record, num_beams=2, generate_kwargs={"max_new_tokens": 5}) == [{"generated_text": text}]
    several = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2}
    singles = [pipe(one, **several) for one in (record, record_of(3, seed=5), record)]
    assert [len(texts) for texts in singles] == [2, 2, 2]
    assert pipe([record, record_of(3, seed=5), record], batch_size=2, **several) == singles


def test_options_are_those_of_the_call_or_of_the_pipeline(pipes, model, processor):
    options = {"model": model, "processor": processor, "device": "cpu"}
    ask = pipeline("zero-shot-ecg-classification", candidate_labels=LABELS, multi_label=False, **options)
    plain = pipes["zero-shot-ecg-classification"]
    assert ask(record_of(5)) == plain(record_of(5), LABELS, multi_label=False)
    assert ask(record_of(5), ["a"], multi_label=True) == plain(record_of(5), ["a"])
    write = pipeline("ecg-to-text", max_new_tokens=5, num_beams=2, **options)
    assert write(record_of(5), num_beams=1) == pipes["ecg-to-text"](record_of(5), max_new_tokens=5)
    embed = pipeline("ecg-feature-extraction", batch_size=2, num_workers=1, **options)
    assert_equal_results(embed([record_of(5)] * 3), [pipes["ecg-feature-extraction"](record_of(5))] * 3)


# ----- every way to pass a recording ---------------------------------------------------------------------------------


def test_every_form_of_a_recording_gives_the_same(pipes, tmp_path):
    pipe, signal = pipes["ecg-feature-extraction"], signal_of(4, 250)
    counts = np.round(signal * 1000).astype(np.int16)
    record = ECGRecord.from_digital(counts, np.full(8, 1000.0), np.zeros(8), LEADS, 250.0)
    described = {"sampling_rate": 250, "leads": LEADS}
    wfdb.wrsamp("one", fs=250, units=["mV"] * 8, sig_name=list(LEADS), d_signal=counts.T.astype(np.int64),
                fmt=["16"] * 8, adc_gain=[1000.0] * 8, baseline=[0] * 8, write_dir=str(tmp_path))  # fmt: skip
    np.save(tmp_path / "one.npy", record.signal)
    expected = vectors(pipe, record)
    mapping = {"signal": record.signal, **described}
    for one in (str(tmp_path / "one"), tmp_path / "one.hea", mapping, {"array": record.signal, **described},
                record_to_row(record)):  # fmt: skip
        torch.testing.assert_close(vectors(pipe, one), expected, rtol=0, atol=1e-6)
    for one in (record.signal, torch.from_numpy(record.signal), record.signal.tolist(), tmp_path / "one.npy"):
        torch.testing.assert_close(vectors(pipe, one, **described), expected, rtol=0, atol=1e-6)
    microvolts = vectors(pipe, record.signal * 1000, **described, unit="uV")
    torch.testing.assert_close(microvolts, expected, rtol=0, atol=1e-6)


def test_every_way_to_pass_several_gives_the_same(pipes):
    pipe = pipes["ecg-feature-extraction"]
    records = [record_of(5, seed=seed) for seed in range(3)]
    expected = torch.stack([vectors(pipe, record) for record in records])
    rows = Dataset.from_list([record_to_row(record) for record in records])
    described = {"sampling_rate": 100, "leads": LEADS}
    array = np.stack([record.signal for record in records])
    for several, kwargs in ((records, {}), (tuple(records), {}), (array, described), (list(array), described)):
        results = vectors(pipe, several, **kwargs)
        assert isinstance(results, list)
        torch.testing.assert_close(torch.stack(results), expected, rtol=0, atol=1e-5)

    class OfTorch(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return records[index]

    for lazy in ((record for record in records), rows, rows.to_iterable_dataset(), OfTorch()):
        results = vectors(pipe, lazy, batch_size=2)
        assert not isinstance(results, list)
        torch.testing.assert_close(torch.stack(list(results)), expected, rtol=0, atol=1e-5)
    assert pipe([]) == []


def test_a_generator_is_read_as_results_are_asked_for(pipes):
    read = []
    results = pipes["ecg-feature-extraction"](read.append(seed) or record_of(5, seed=seed) for seed in range(100))
    next(iter(results))
    assert len(read) < 10


@pytest.mark.parametrize("task", TASKS)
def test_batched_equals_single(pipes, task):
    """Lengths from one second to four windows, three rates, and a recording without chest leads."""
    records = [record_of(seconds, rate, seed=seed) for seed, (seconds, rate) in enumerate(
        [(5, 100), (1.2, 250), (23.7, 100), (5.003, 500), (12, 250), (3.3, 100), (5, 100)])]  # fmt: skip
    records += [{"signal": signal_of(7, seed=9, num_leads=2), "leads": ["II", "I"], "sampling_rate": 100}]
    pipe, options = pipes[task], OPTIONS[task]
    singles = [pipe(record, **options) for record in records]
    for batch_size in (1, 3, 16):
        assert_equal_results(pipe(records, batch_size=batch_size, **options), singles)


def assert_equal_results(results, expected):
    """Numbers to 1e-5, words exactly."""
    if isinstance(expected, dict):
        assert results.keys() == expected.keys()
        results, expected = list(results.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(results) == len(expected)
        if expected and isinstance(expected[0], float):
            np.testing.assert_allclose(results, expected, rtol=0, atol=1e-5)
            return
        if expected and isinstance(expected[0], dict) and "label" in expected[0]:  # a tie may change places
            results, expected = (sorted(listed, key=lambda one: one["label"]) for listed in (results, expected))
        for result, one in zip(results, expected, strict=True):
            assert_equal_results(result, one)
    elif isinstance(expected, float):
        assert results == pytest.approx(expected, abs=1e-5)
    else:
        assert results == expected


# ----- long and short ------------------------------------------------------------------------------------------------


def parts_of(record):
    """The windows of 5 s of a recording of 12 s, without overlap: the last one ends where the recording ends."""
    return [{"signal": record.signal[:, start : start + 500], "leads": LEADS, "sampling_rate": 100}
            for start in (0, 500, 700)]  # fmt: skip


def test_a_long_recording_is_the_mean_of_its_windows(pipes):
    record, pipe = record_of(12), pipes["ecg-feature-extraction"]
    embeds = torch.stack(vectors(pipe, parts_of(record)))
    torch.testing.assert_close(vectors(pipe, record), F.normalize(embeds.mean(0), dim=-1), rtol=0, atol=1e-6)
    pooled = torch.stack(vectors(pipe, parts_of(record), features="pooled"))
    torch.testing.assert_close(vectors(pipe, record, features="pooled"), pooled.mean(0), rtol=0, atol=1e-5)
    frames = torch.cat(vectors(pipe, parts_of(record), features="frames"))
    torch.testing.assert_close(vectors(pipe, record, features="frames"), frames, rtol=0, atol=1e-5)
    assert not torch.allclose(vectors(pipe, record, overlap=0.5), vectors(pipe, record), atol=1e-5)


@pytest.mark.parametrize(("aggregation", "together"), [("mean", np.mean), ("max", np.max)])
def test_scores_of_windows_are_put_together_as_told(pipes, aggregation, together):
    record = record_of(12)
    for task, names in (("ecg-classification", ["score"]), ("zero-shot-ecg-classification", ["score", "similarity"])):
        options = OPTIONS[task] | {"aggregation": aggregation}
        windows = [{r["label"]: r for r in results} for results in pipes[task](parts_of(record), **options)]
        for result in pipes[task](record, **options):
            for name in names:
                expected = together([window[result["label"]][name] for window in windows])
                assert result[name] == pytest.approx(expected, abs=1e-5)


def test_the_report_of_a_long_recording_is_that_of_its_first_window_or_of_each(pipes):
    record, pipe, options = record_of(12), pipes["ecg-to-text"], OPTIONS["ecg-to-text"]
    of_each = [texts[0]["generated_text"] for texts in pipe(parts_of(record), **options)]
    assert pipe(record, **options) == [{"generated_text": of_each[0]}]
    told = pipe(record, windows="all", **options)
    assert [window["generated_text"] for window in told] == of_each
    assert [(window["start"], window["end"]) for window in told] == [(0, 5), (5, 10), (7, 12)]


def test_a_window_without_signal_is_left_out_and_told(pipes, caplog):
    record = record_of(15, record_id="holter-7")
    record.signal[:, 500:1000] = 0.0
    pipe = pipes["ecg-feature-extraction"]
    halves = [{"signal": half, "leads": LEADS, "sampling_rate": 100} for half in (record.signal[:, :500],
                                                                                  record.signal[:, 1000:])]  # fmt: skip
    expected = F.normalize(torch.stack(vectors(pipe, halves)).mean(0), dim=-1)
    with caplog.at_level("WARNING", logger="modeling_esi.ecg_pipeline"):
        torch.testing.assert_close(vectors(pipe, record), expected, rtol=0, atol=1e-6)
    assert "holter-7: all flat" in caplog.text and "left out 5 to 10 s" in caplog.text


# ----- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "inputs", "kwargs", "message"),
    [
        (TASKS[2], np.zeros((8, 500)), {}, "^leads: expected one name per channel, got none"),
        (TASKS[2], signal_of(5), {"leads": LEADS}, "^sampling_rate: expected Hz, got none"),
        (
            TASKS[2],
            [record_of(5), record_of(0.5)],
            {},
            r"^recording 1: too short: 0.5 s, expected at least min_duration=1 s$",
        ),
        (TASKS[2], record_of(0.5, record_id="p7"), {}, "^p7: too short"),
        (TASKS[2], record_of(5), {"sampling_rate": 250}, "the record says 100.0, the call 250"),
        (TASKS[2], 5, {}, "^leads: expected"),
        (TASKS[2], record_of(5), {"overlap": -1}, "overlap: expected a share"),
        (TASKS[2], record_of(5), {"features": "all"}, "features: expected embeds, pooled, frames of ESIModel"),
        (TASKS[0], record_of(5), {}, "candidate_labels: expected texts"),
        (TASKS[0], record_of(5), {"candidate_labels": []}, "candidate_labels: expected texts"),
        (TASKS[0], record_of(5), {"candidate_labels": ["a"], "hypothesis_template": "ECG."}, "where the label goes"),
        (TASKS[0], record_of(5), {"candidate_labels": ["a"], "aggregation": "sum"}, "expected 'mean' or 'max'"),
        (TASKS[1], record_of(5), {"top_k": 0}, "top_k: expected a positive whole number"),
        (TASKS[1], record_of(5), {"function_to_apply": "tanh"}, "expected one of sigmoid, softmax, none"),
        (TASKS[3], record_of(5), {"windows": "last"}, "windows: expected 'first' or 'all', got 'last'"),
    ],
)
def test_errors_are_one_sentence(pipes, task, inputs, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        pipes[task](inputs, **kwargs)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_told(pipes):
    with pytest.raises(TypeError, match="ecg-to-text: expected sampling_rate, .*, generate_kwargs, got beams"):
        pipes["ecg-to-text"](record_of(5), beams=3)


def test_files_that_cannot_be_read_are_told(pipes, tmp_path, monkeypatch):
    (tmp_path / "bad.hea").write_text("nonsense")
    with pytest.raises(ValueError, match=r"^recording 0: .*bad\.hea"):
        pipes["ecg-feature-extraction"]([tmp_path / "bad.hea"])
    with pytest.raises(FileNotFoundError, match="nothing"):
        pipes["ecg-feature-extraction"](tmp_path / "nothing")
    monkeypatch.setattr(pipeline_inputs, "read_record", None)
    with pytest.raises(ImportError, match="pip install esi-ecg"):
        pipes["ecg-feature-extraction"](tmp_path / "bad.hea")


def test_models_that_do_not_fit_are_refused(model, classifier, processor):
    for task, wrong, message in (
        ("ecg-classification", model, "expected ESIForECGClassification, got ESIModel"),
        ("ecg-to-text", classifier, "expected ESIModel, got ESIForECGClassification"),
        ("ecg-to-text", tiny_esi("released"), "expected a model that can write"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline(task, model=wrong, processor=processor, device="cpu")
    with pytest.raises(ValueError, match="expected the feature extractor beside the model, got none"):
        pipeline("ecg-feature-extraction", model=model, device="cpu")


# ----- saved folders -------------------------------------------------------------------------------------------------


def test_a_folder_names_its_pipelines_and_needs_no_code_where_the_package_is(folder, classifier, processor, tmp_path):
    written = (folder / "config.json").read_text()
    assert all(f'"{task}"' in written for task in TASKS if task != "ecg-classification")
    assert '"ecg-classification"' not in written and (folder / "pipeline_esi.py").exists()
    assert not hasattr(AutoConfig.from_pretrained(folder), "custom_pipelines")
    pipe = pipeline("ecg-feature-extraction", model=str(folder), device="cpu")
    assert type(pipe).__module__ == "modeling_esi.pipeline_esi"

    own = pipeline("ecg-classification", model=classifier, processor=processor, device="cpu")
    own.save_pretrained(tmp_path / "classifier")
    again = pipeline("ecg-classification", model=str(tmp_path / "classifier"), device="cpu")
    assert_equal_results(again(record_of(5)), own(record_of(5)))
    with pytest.raises(ValueError, match="got one of ESIForECGClassification, which holds no text encoder"):
        pipeline("ecg-feature-extraction", model=str(tmp_path / "classifier"), device="cpu")


def test_what_a_model_serves_is_what_is_saved(model, classifier):
    from modeling_esi.pipeline_esi import pipelines_of

    assert list(pipelines_of(model)) == [TASKS[0], TASKS[2], TASKS[3]]
    assert list(pipelines_of(tiny_esi("released"))) == [TASKS[0], TASKS[2]]
    assert list(pipelines_of(classifier)) == [TASKS[1]]
    assert list(pipelines_of(ESIEcgModel(tiny_config().ecg_config))) == [TASKS[2]]


# Runs in the other interpreter: sys.argv is [script, folder, where to re-save].
RUN_REMOTE = """
    import sys

    class Blocked:  # stands for an interpreter in which this package was never installed
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("modeling_esi", "datasets_scripts", "configuration_esi"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocked())
    import numpy as np
    from transformers import pipeline

    folder, again = sys.argv[1:]
    recording = {"signal": np.load(folder + "/signal.npy", allow_pickle=False), "sampling_rate": 250,
                 "leads": ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]}
    for place in (folder, again):
        options = {"model": place, "trust_remote_code": True, "device": "cpu"}
        features = pipeline("ecg-feature-extraction", **options)
        print("embeds", *features([recording, recording], batch_size=2)[1][:5])
        labels = pipeline("zero-shot-ecg-classification", **options)(recording, ["sinus rhythm", "rhythm"])
        print("scores", *(result["score"] for result in labels))
        print("text", pipeline("ecg-to-text", **options)(recording, max_new_tokens=5)[0]["generated_text"])
        if place == folder:
            features.save_pretrained(again)
    try:
        features("a/file.hea")
    except ImportError as error:
        print("error", error)
"""


def test_pipelines_run_where_the_package_is_not(folder, tmp_path):
    recording = {"signal": signal_of(7, 250), "leads": LEADS, "sampling_rate": 250}
    np.save(folder / "signal.npy", recording["signal"])
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(RUN_REMOTE))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(script), str(folder), str(tmp_path / "again")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [line.split(" ", 1) for line in done.stdout.splitlines()]
    here = {task: pipeline(task, model=str(folder), device="cpu") for task in TASKS if task != "ecg-classification"}
    for name, words in told[:6]:
        if name == "text":
            assert words == here["ecg-to-text"](recording, max_new_tokens=5)[0]["generated_text"]
            continue
        labels = here["zero-shot-ecg-classification"](recording, ["sinus rhythm", "rhythm"])
        scores = [result["score"] for result in labels]
        expected = here["ecg-feature-extraction"](recording)[:5] if name == "embeds" else scores
        np.testing.assert_allclose(np.array(words.split(), dtype=float), expected, rtol=0, atol=1e-5)
    assert [name for name, _ in told] == ["embeds", "scores", "text"] * 2 + ["error"]
    assert "pip install esi-ecg" in told[6][1]
    assert type(AutoModel.from_pretrained(tmp_path / "again")).__module__ == "modeling_esi.modeling_esi"


# ----- real files, many files ----------------------------------------------------------------------------------------


def shared_files():
    """Every recording of the data folder, once."""
    if not SHARED.is_dir():
        pytest.skip("needs the data folder ../shared/data")
    headers = sorted(SHARED.rglob("*.hea"))
    return [*headers, *sorted(SHARED.rglob("*.dcm")), *sorted(SHARED.rglob("aecg/*.xml"))]


def readable_by(door, paths):
    """Paths of what the door takes, and the others."""
    taken, refused = [], []
    for path in paths:
        try:
            record = read_record(path)
        except (ValueError, ImportError) as error:
            refused.append((path, str(error)))
            continue
        reason = door.reject_reason(record)
        taken.append(path) if reason is None else refused.append((path, reason))
    return taken, refused


def check_on_files(pipe, task, paths, door):
    taken, refused = readable_by(door, paths)
    singles = [pipe(path, **OPTIONS[task]) for path in taken]
    assert_equal_results(pipe(taken, batch_size=16, **OPTIONS[task]), singles)
    for path, _ in refused:
        with pytest.raises((ValueError, ImportError), match=path.stem):
            pipe(path, **OPTIONS[task])
    return taken, refused


@pytest.mark.parametrize("task", TASKS)
def test_real_files(pipes, processor, task):
    paths = shared_files()
    some = [
        *paths[5::400],
        *(path for path in paths if path.parent.name in ("dicom", "aecg") or path.stem == "s0010_re"),
    ]
    taken, _ = check_on_files(pipes[task], task, some, processor.feature_extractor)
    assert len(taken) >= 10


@pytest.mark.slow
@pytest.mark.timeout(2400)  # two thousand files, one by one and in batches: under a minute on a calm core
@pytest.mark.parametrize("task", TASKS)
def test_every_real_file(pipes, processor, task):
    taken, refused = check_on_files(pipes[task], task, shared_files(), processor.feature_extractor)
    assert len(taken) > 2000 and len(refused) < 10, refused


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_thousand_recordings_take_no_more_memory_than_two_hundred(pipes, task):
    """Recordings of many lengths, each made when it is asked for, results dropped; after what caches fill once."""

    def recordings(number):
        return (record_of(2 + seed % 13, 100 + 25 * (seed % 3), seed=seed) for seed in range(number))

    memory = []
    for number in (200, 1000):
        for _ in pipes[task](recordings(number), batch_size=8, **OPTIONS[task]):
            pass
        memory.append(anonymous_memory())
    assert memory[1] - memory[0] < 16, memory  # MB


def test_the_benchmark_compares_the_pipeline_with_the_bare_encoder(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "PRESETS", ("convnextv2_atto",))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(benchmark, "measured", lambda module, name, *arguments: getattr(benchmark, name)(*arguments))
    *told, last = benchmark.run(3, str(tmp_path))
    assert told[0].startswith("3 files") and last.startswith("convnextv2_atto")
    assert float(last.split()[3]) > 0.5
