"""Export: the traced door is the feature extractor, files compute what the model does, nothing half written stays."""

import importlib.util
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_esi import ENCODERS, randomise, tiny_config, tiny_esi
from transformers import BertTokenizerFast

from datasets_scripts.records import read_record
from modeling_esi import LEADS, MIMIC_LEADS, ESIFeatureExtractor, ESIForECGClassification, ESIProcessor
from modeling_esi import feature_extraction_esi as feature_extraction
from modeling_esi.benchmarks import export as benchmark
from modeling_esi.export import files
from modeling_esi.export.__main__ import main
from modeling_esi.export.facts import tower_facts, weights_digest
from modeling_esi.export.files import check, export_onnx, export_torch, onnx_runner, trace
from modeling_esi.export.int8 import compare, made_up_signals, quantise_onnx
from modeling_esi.export.millivolts import MillivoltDoor, bridge_gaps
from modeling_esi.export.saved_model import SavedModel, license_of
from modeling_esi.export.tower import ECGTower

RATE, WINDOW = 100, 5.0
RECORDS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ptbxl"
missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f'{missing} not installed: pip install "esi-ecg[export]"')


def extractor(**options) -> ESIFeatureExtractor:
    return ESIFeatureExtractor(**{"sampling_rate": RATE, "duration": WINDOW} | options)


def signals(batch: int, num_samples: int, seed: int = 0) -> torch.Tensor:
    steps = torch.randn(batch, 12, num_samples, generator=torch.Generator().manual_seed(seed))
    return 0.1 * (steps + steps.roll(1, -1))


def damaged(num_samples: int, seed: int) -> torch.Tensor:
    """Records with runs of NaN of any length, dead leads, missing leads, and now and then infinity."""
    rng, signal = np.random.default_rng(seed), signals(24, num_samples, seed)
    for record in signal:
        for lead in rng.choice(12, rng.integers(0, 12), replace=False):
            start, length = rng.integers(0, num_samples), rng.choice([1, 3, 19, 20, 21, 60])
            what = rng.choice(["gap", "ends", "dead", "missing", "missing"])
            if what == "gap":
                record[lead, start : start + length] = torch.nan
            elif what == "ends":
                record[lead, :length] = record[lead, -length:] = torch.nan
            else:
                record[lead] = torch.nan if what == "missing" else float(rng.normal())
    signal[5], signal[6], signal[7, 3, 11] = torch.nan, 0.25, torch.inf
    return signal


def embeddings(model, feature_extractor, signal: torch.Tensor) -> np.ndarray:
    """What the model itself says of a batch, through its own feature extractor."""
    with torch.no_grad():
        return model.get_ecg_features(**feature_extractor(signal, RATE, feature_extractor.leads)).numpy()


# ----- the door ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leads", [LEADS, MIMIC_LEADS])
@pytest.mark.parametrize("scaling", ["fixed", "record", "lead", "none"])
def test_the_traced_door_is_the_feature_extractor(scaling, leads):
    feature_extractor = extractor(scaling=scaling, leads=leads)
    door = MillivoltDoor(feature_extractor)
    for seed, num_samples in enumerate((333, 500, 733)):
        signal = damaged(num_samples, seed)
        values, lead_mask, sample_mask, accepted = door(signal)
        reasons = feature_extractor.reject_reasons(signal, RATE, leads)
        assert accepted.tolist() == [reason is None for reason in reasons]
        assert 1 < accepted.sum() < len(signal)
        expected = feature_extractor(signal[accepted], RATE, leads)
        torch.testing.assert_close(values[accepted], expected["input_values"], rtol=1e-5, atol=1e-6)
        assert torch.equal(lead_mask[accepted], expected["lead_mask"])
        assert torch.equal(sample_mask[accepted].all(), torch.tensor("sample_mask" not in expected))
        assert sample_mask[0].sum() == min(num_samples, 500)


def test_a_record_too_short_is_not_accepted():
    door = MillivoltDoor(extractor(min_duration=1.0))
    assert door(signals(2, 100))[3].all() and not door(signals(2, 99))[3].any()


def test_every_pair_of_limb_leads_gives_the_other_four():
    signal = signals(1, 300)
    signal[:, 2] = signal[:, 1] - signal[:, 0]  # III = II - I
    signal[:, 3] = -(signal[:, 0] + signal[:, 1]) / 2
    signal[:, 4] = signal[:, 0] - signal[:, 1] / 2
    signal[:, 5] = signal[:, 1] - signal[:, 0] / 2
    door = MillivoltDoor(extractor(scaling="none"))
    for kept in ((a, b) for a in range(6) for b in range(a)):
        given = signal.clone()
        given[:, [lead for lead in range(6) if lead not in kept]] = torch.nan
        values, lead_mask, _, _ = door(given)
        assert lead_mask.all()
        torch.testing.assert_close(values[..., :300], signal, rtol=0, atol=1e-5)


@pytest.mark.parametrize("longest", [0, 1, 7, 20, 64])
def test_gaps_are_bridged_as_the_feature_extractor_does(longest):
    signal = signals(1, 61)[0]
    signal[torch.rand(signal.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = torch.nan
    signal[3, :8] = signal[4, -8:] = signal[5, 20:41] = torch.nan
    signal[6] = torch.nan
    expected = feature_extraction.bridge_gaps(signal, longest)
    bridged = bridge_gaps(signal[None], longest)[0]
    whole = ~bridged.isnan().any(dim=-1)  # a row with a longer gap is all NaN there, and has NaN here
    assert torch.equal(whole, ~expected.isnan().any(dim=-1))
    assert torch.equal(bridged[whole], expected[whole])


# ----- the tower -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["esi", "released"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_tower_is_the_model(variant, encoder):
    model, feature_extractor = tiny_esi(variant, ecg=ENCODERS[encoder]), extractor()
    tower = ECGTower(model, feature_extractor)
    for batch, num_samples in ((1, 500), (2, 801), (3, 299)):
        signal = signals(batch, num_samples)
        output, lead_mask = tower(signal)
        np.testing.assert_allclose(output.numpy(), embeddings(model, feature_extractor, signal), atol=1e-6)
        assert lead_mask.shape == (batch, 12) and lead_mask.all()


def test_what_would_be_refused_is_nan_and_disturbs_no_other():
    tower = ECGTower(tiny_esi(), extractor())
    signal = signals(3, 500)
    alone = tower(signal[::2])[0]
    signal[1] = 0.0
    output, lead_mask = tower(signal)
    assert output[1].isnan().all() and not lead_mask[1].any() and lead_mask[0].all()
    torch.testing.assert_close(output[::2], alone, rtol=0, atol=1e-6)


def test_a_classifier_gives_logits_and_an_encoder_its_pooled_vector():
    classifier = randomise(ESIForECGClassification(tiny_config(num_labels=3))).eval()
    feature_extractor, signal = extractor(), signals(2, 444)
    inputs = feature_extractor(signal, RATE, LEADS)
    for model, name in ((classifier, "logits"), (classifier.ecg_model, "pooler_output")):
        tower = ECGTower(model, feature_extractor)
        assert tower.output_name == name
        torch.testing.assert_close(tower(signal)[0], getattr(model(**inputs), name), rtol=1e-5, atol=1e-5)
    facts = tower_facts(SavedModel(classifier, feature_extractor))
    assert facts["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"] and facts["license"] == "not stated"


def test_a_model_in_training_or_of_half_the_digits_is_exported_in_float32():
    model = tiny_esi().to(torch.bfloat16).train()
    saved, signal = SavedModel(model, extractor()), signals(3, 500)
    assert saved.in_float32().in_float32().model.dtype == torch.float32
    tower = ECGTower(model, saved.feature_extractor)
    np.testing.assert_allclose(tower(signal)[0].numpy(), saved.in_float32()(signal.numpy())[0], atol=1e-6)
    assert model.training and model.dtype == torch.bfloat16


def test_a_batch_without_a_record_for_the_model_is_told():
    with pytest.raises(ValueError, match="expected a record that the feature extractor accepts"):
        SavedModel(tiny_esi(), extractor())(np.zeros((2, 12, 500), np.float32))


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="expected an ESIModel.*got Linear"):
        ECGTower(torch.nn.Linear(2, 3), extractor())


def test_the_digest_is_of_the_weights():
    model = tiny_esi()
    digest = weights_digest(model)
    assert digest == weights_digest(tiny_esi()) and len(digest) == 64
    with torch.no_grad():
        model.ecg_model.encoder.norm.bias[0] += 1e-3
    assert weights_digest(model) != digest


# ----- torch ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_torch_file_computes_what_the_model_does(tmp_path):
    model, feature_extractor = tiny_esi(), extractor()
    facts = export_torch(SavedModel(model, feature_extractor), tmp_path / "tower.pt2")
    assert facts["checked"]["max_difference"] <= 1e-5
    assert json.loads((tmp_path / "tower.pt2.json").read_text()) == facts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tower.pt2", "tower.pt2.json"]
    assert zipfile.is_zipfile(tmp_path / "tower.pt2")
    told = {files.FACTS_NAME: ""}
    module = torch.export.load(tmp_path / "tower.pt2", extra_files=told).module()
    assert json.loads(told[files.FACTS_NAME]) == facts
    for batch, num_samples in ((1, 444), (5, 777)):
        signal = signals(batch, num_samples)
        expected = embeddings(model, feature_extractor, signal)
        np.testing.assert_allclose(module(signal)[0].numpy(), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["esi", "released"])
def test_an_xresnet_is_traced_for_any_batch_and_length(variant):
    model, feature_extractor = tiny_esi(variant, ecg=ENCODERS["xresnet1d"]), extractor(scaling="record")
    module = trace(ECGTower(model, feature_extractor)).module()
    for batch, num_samples in ((1, 444), (5, 777)):
        signal = signals(batch, num_samples)
        expected = embeddings(model, feature_extractor, signal)
        np.testing.assert_allclose(module(signal)[0].numpy(), expected, atol=1e-5)


# ----- ONNX ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model with its processor and a card that names a licence."""
    place = tmp_path_factory.mktemp("model")
    words = place / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(94))]))
    tiny_esi().save_pretrained(place / "esi-ecg")
    ESIProcessor(extractor(), BertTokenizerFast(str(words)), max_text_length=37).save_pretrained(place / "esi-ecg")
    (place / "esi-ecg" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# A model\n")
    return place / "esi-ecg"


@pytest.fixture(scope="module")
def exported(folder) -> Path:
    """What `onnx --int8` writes of it."""
    assert main(["onnx", str(folder), str(folder.parent / "tower.onnx"), "--int8"]) == 0
    return folder.parent


@needs_onnx
def test_an_onnx_file_computes_what_the_model_does(folder, exported):
    saved, run = SavedModel.load(folder), onnx_runner(exported / "tower.onnx", num_threads=1)
    for batch, num_samples in ((1, 444), (5, 777)):
        signal = signals(batch, num_samples)
        output, lead_mask = run(signal.numpy())
        expected = embeddings(saved.model, saved.feature_extractor, signal)
        np.testing.assert_allclose(output, expected, atol=1e-5)
        assert output.dtype == np.float32 and lead_mask.dtype == bool
    signal = damaged(640, 3)
    refused = [reason is not None for reason in saved.feature_extractor.reject_reasons(signal, RATE, LEADS)]
    assert np.isnan(run(signal.numpy())[0]).all(axis=1).tolist() == refused


@needs_onnx
def test_an_onnx_file_says_what_it_is(exported):
    import onnx

    facts = json.loads((exported / "tower.onnx.json").read_text())
    model = onnx.load(exported / "tower.onnx")
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["leads"]) == facts["leads"] == list(LEADS)
    assert float(told["sampling_rate"]) == RATE and told["scaling"] == "fixed" and told["license"] == "cc-by-4.0"
    assert told["weights_sha256"] == facts["weights_sha256"] == weights_digest(tiny_esi())
    assert facts["opset"] == model.opset_import[0].version
    assert [[d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input] == [
        ["batch", 12, "num_samples"]
    ]
    assert [output.name for output in model.graph.output] == ["ecg_embeds", "lead_mask"]


@needs_onnx
def test_an_8_bit_file_is_smaller_and_near(exported):
    facts = json.loads((exported / "tower.int8.onnx.json").read_text())
    assert facts["int8"]["cosine_least"] > 0.99 and facts["int8"]["num_signals"] == 8
    sizes = [(exported / name).stat().st_size for name in ("tower.int8.onnx", "tower.onnx")]
    assert facts["int8"]["size_ratio"] == pytest.approx(sizes[0] / sizes[1], rel=0.05) and sizes[0] < sizes[1]
    import onnx

    model = onnx.load(exported / "tower.int8.onnx")
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["int8"]) == facts["int8"]


@needs_onnx
@pytest.mark.skipif(not RECORDS.is_dir(), reason="the folder of records beside the checkout is not there")
def test_real_files_give_the_same_under_onnxruntime(folder, exported):
    saved, run = SavedModel.load(folder), onnx_runner(exported / "tower.onnx", num_threads=1)
    records = [read_record(path) for path in sorted(RECORDS.rglob("*_lr.hea"))[:20]]
    assert records and {record.sampling_rate for record in records} == {RATE}
    with torch.no_grad():
        expected = saved.model.get_ecg_features(**saved.feature_extractor(records)).numpy()
    assert {tuple(name.upper() for name in record.leads) for record in records} == {tuple(map(str.upper, LEADS))}
    output, _ = run(np.stack([record.signal for record in records]))
    np.testing.assert_allclose(output, expected, atol=1e-5)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("variant", ["esi", "released"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_both_encoders_and_variants_become_onnx(variant, encoder, tmp_path):
    model = tiny_esi(variant, ecg=ENCODERS[encoder])
    feature_extractor = extractor(scaling="record" if variant == "released" else "lead", leads=MIMIC_LEADS)
    facts = export_onnx(SavedModel(model, feature_extractor), tmp_path / "tower.onnx", opset=18)
    assert facts["opset"] == 18 and facts["encoder_type"] == encoder and facts["variant"] == variant
    run = onnx_runner(tmp_path / "tower.onnx", num_threads=1)
    for batch, num_samples in ((1, 444), (5, 777)):
        signal = signals(batch, num_samples)
        expected = embeddings(model, feature_extractor, signal)
        np.testing.assert_allclose(run(signal.numpy())[0], expected, atol=1e-5)


@needs_onnx
@pytest.mark.slow
def test_a_classifier_becomes_onnx(tmp_path):
    model = randomise(ESIForECGClassification(tiny_config(num_labels=3))).eval()
    model.save_pretrained(tmp_path / "classifier")
    extractor().save_pretrained(tmp_path / "classifier")
    assert main(["onnx", str(tmp_path / "classifier"), str(tmp_path / "tower.onnx")]) == 0
    signal = signals(4, 600)
    with torch.no_grad():
        expected = model(**extractor()(signal, RATE, LEADS)).logits.numpy()
    run = onnx_runner(tmp_path / "tower.onnx", num_threads=1)
    np.testing.assert_allclose(run(signal.numpy())[0], expected, rtol=1e-4, atol=1e-4)


@needs_onnx
@pytest.mark.slow
def test_weights_too_large_for_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_FILE", 1000)
    model, feature_extractor = tiny_esi(), extractor()
    export_onnx(SavedModel(model, feature_extractor), tmp_path / "tower.onnx")
    facts = quantise_onnx(tmp_path / "tower.onnx", tmp_path / "tower.int8.onnx")
    expected = {f"tower{kind}.onnx{part}" for kind in ("", ".int8") for part in ("", ".data", ".json")}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert facts["int8"]["cosine_least"] > 0.99
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    signal = signals(2, 600)
    for name, tolerance in (("tower.onnx", 1e-5), ("tower.int8.onnx", 0.1)):
        output, _ = onnx_runner(moved / name, num_threads=1)(signal.numpy())
        np.testing.assert_allclose(output, embeddings(model, feature_extractor, signal), atol=tolerance)


@needs_onnx
@pytest.mark.slow
def test_the_benchmark_holds_every_file_against_the_model(folder):
    settings = benchmark.ExportSettings(str(folder), num_records=3, batch_size=2, rounds=1)
    found = benchmark.measure(asdict(settings))
    rows = {row["implementation"]: row for row in found["rows"]}
    assert list(rows) == ["model", "torch.export", "onnxruntime", "onnxruntime, 8-bit", "onnxruntime, 8-bit, all"]
    assert found["output"] == "ecg_embeds" and all(row["num_signals"] == 3 for row in rows.values())
    assert rows["model"]["max_difference"] == 0
    assert max(rows[name]["max_difference"] for name in ("torch.export", "onnxruntime")) < 1e-5
    assert 1e-5 < rows["onnxruntime, 8-bit"]["max_difference"] < 0.1
    assert len(benchmark.table_row("tiny", rows["onnxruntime"], rows["model"])) == len(benchmark.HEAD)


@pytest.mark.skipif(not RECORDS.is_dir(), reason="the folder of records beside the checkout is not there")
def test_the_benchmark_arranges_leads_and_rates_as_the_feature_extractor_does():
    feature_extractor = extractor(leads=MIMIC_LEADS, scaling="none", sampling_rate=125)
    settings = benchmark.ExportSettings(records=str(RECORDS / "records100"), num_records=2)
    records = benchmark.read(settings, feature_extractor)
    expected = feature_extractor(records)["input_values"]
    values, *_ = MillivoltDoor(feature_extractor)(torch.from_numpy(benchmark.millivolts(records, feature_extractor)))
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="expected 3 that fit the model, got 0"):
        benchmark.read(replace(settings, num_records=3), extractor(duration=20.0))


# ----- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "told"), [("tower.bin", r"ends in \.pt2, got 'tower\.bin'"), ("no/tower.pt2", "folder that is there")]
)
def test_an_output_that_cannot_be_is_told(tmp_path, output, told):
    with pytest.raises(ValueError, match=told):
        export_torch(SavedModel(tiny_esi(), extractor()), tmp_path / output)


def test_what_is_wrong_is_one_sentence(folder, tmp_path, capsys, monkeypatch):
    assert main(["onnx", str(folder), str(tmp_path / "tower.onnx"), "--opset", "11"]) == 1
    assert "opset: expected 18 or newer, got 11" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["onnx", str(folder), str(tmp_path / "tower.onnx")]) == 1
    assert 'pip install "esi-ecg[export]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused():
    saved = SavedModel(tiny_esi(), extractor())

    def shifted(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output, lead_mask = saved(signal)
        return output + 2e-4, lead_mask

    def without_refusals(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output, lead_mask = saved(signal)
        return np.nan_to_num(output), lead_mask

    for run in (shifted, without_refusals):
        with pytest.raises(RuntimeError, match="expected outputs that differ by at most 0.0001"):
            check(saved, run)
    with pytest.raises(RuntimeError, match="masks other leads"):
        check(saved, lambda signal: (saved(signal)[0], np.zeros(signal.shape[:2], bool)))


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "tower.pt2").write_text("the old one")
    (tmp_path / "tower.pt2.json").write_text("{}")
    monkeypatch.setattr(files, "trace", lambda tower: SimpleNamespace(module=lambda: tower))
    monkeypatch.setattr(torch.export, "save", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_torch(SavedModel(tiny_esi(), extractor()), tmp_path / "tower.pt2")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "tower.pt2": "the old one", "tower.pt2.json": "{}"
    }  # fmt: skip


@needs_onnx
def test_an_xresnet_is_not_made_slower(tmp_path):
    (tmp_path / "tower.onnx.json").write_text(json.dumps({"encoder_type": "xresnet1d"}))
    for name, told in (("tower.onnx", "expected a convnextv2 encoder.*got xresnet1d"), ("other.onnx", "beside it")):
        with pytest.raises(ValueError, match=told):
            quantise_onnx(tmp_path / name, tmp_path / "tower.int8.onnx")


def test_agreement_is_counted_by_hand():
    rows = np.array([[3.0, 4.0], [4.0, 3.0], [np.nan, np.nan]])
    turned = np.array([[4.0, 3.0], [4.0, 3.0], [0.0, 0.0]])
    mask = np.ones((3, 12), bool)
    found = compare(lambda signal: (rows, mask), lambda signal: (turned, mask), np.zeros((3, 12, 5)), rounds=1)
    assert found["cosine_least"] == pytest.approx(24 / 25) and found["cosine_mean"] == pytest.approx(49 / 50)
    assert found["centred_cosine_least"] == pytest.approx(-1) and found["max_difference"] == 1.0
    assert found["num_signals"] == 2
    with pytest.raises(ValueError, match="at least two that the model accepts, got 0"):
        compare(lambda signal: (rows[2:], mask), lambda signal: (rows[2:], mask), np.zeros((1, 12, 5)), rounds=1)


def test_made_up_signals_are_accepted_and_beat_as_they_should():
    facts = {"num_samples": 1000, "sampling_rate": 100, "leads": list(LEADS)}
    signal = made_up_signals(facts)
    assert signal.shape == (8, 12, 1000) and signal.dtype == np.float32
    assert not any(extractor(duration=10.0).reject_reasons(torch.from_numpy(signal), 100, LEADS))
    slowest = np.abs(signal[0]).sum(axis=0)  # 45 beats a minute: 7.5 in 10 s, each in the middle of its period
    peaks = [
        i for i in range(30, 970) if slowest[i] == slowest[i - 30 : i + 31].max() and slowest[i] > slowest.max() / 2
    ]
    assert len(peaks) in (7, 8)


def test_a_licence_comes_from_the_card(folder, tmp_path):
    assert license_of(folder) == "cc-by-4.0" and license_of(tmp_path) == "not stated"
