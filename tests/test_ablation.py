"""The ablation's runner on a few synthetic records, and its arithmetic by hand; the real records where they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_scripts import synthetic
from datasets_scripts.report_text import normalise_statement
from datasets_scripts.sources import iter_records
from modeling_esi.benchmarks import ablation, ablation_arms, ablation_data, ablation_judging, ablation_table
from modeling_esi.benchmarks.ablation_training import Arm, build, cosine, described, embed, step_loss, train

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"
has_records = pytest.mark.skipif(
    not (SHARED / "ptbxl_filtered").is_dir(), reason="the folder ../shared/data/ptbxl_filtered is absent"
)
PROMPTS = {"several": {name: [f"ECG Findings: {name}."] for name in ablation_data.SUPERCLASSES}}
TINY = {"ecg_config.signal_encoder": None, "ecg_config.depths": [1, 1, 1, 1], "ecg_config.hidden_sizes": [8, 8, 16, 24]}
EVERYTHING = Arm(
    overrides=TINY, epochs=1, batch_size=8, crop=2.5, lead_dropout=0.5, positives="entailed", average=0.9, masked=0.5,
    alignment=0.5, stem_bias_std=0.1, signal=ablation_arms.NOISE,
)  # fmt: skip


@pytest.fixture(scope="module")
def records():
    some = iter_records(synthetic, split="train", sampling_rate=100)
    labels = [("NORM",), ("MI", "CD"), ("HYP",), ("STTC",)]
    return ablation_data.record_set([replace(next(some), labels=labels[i % 4]) for i in range(20)])


def test_records_in_memory(records):
    assert records.signals.shape == (20, 12, 1000) and records.targets.shape == (20, 5)
    assert records.targets.sum(axis=0).tolist() == [5, 5, 5, 5, 5]
    assert all(record.text.endswith(".") and "ECG Findings: " in record.text for record in records.records)
    assert len(records + records) == 40 and len(records.patients()) == 20
    with pytest.raises(ValueError, match="expected at least one, got none"):
        ablation_data.record_set([])


def test_the_filter_takes_wander_and_hum_and_standardises():
    clock = np.arange(5000) / 500
    heart = np.sin(2 * np.pi * 8 * clock)
    signal = np.stack([heart + 3 * np.sin(2 * np.pi * 0.1 * clock) + np.sin(2 * np.pi * 100 * clock), 5 + 7 * heart])
    made = ablation_data.filter_and_standardise(signal, 500)
    assert made.shape == (2, 1000) and made.dtype == np.float32
    inner = slice(200, 800)
    expected = np.sqrt(2) * heart[::5]
    np.testing.assert_allclose(made[1, inner], expected[inner], atol=0.1)
    np.testing.assert_allclose(made[0, inner], expected[inner], atol=0.1)
    assert not ablation_data.filter_and_standardise(np.zeros((1, 500)), 500).any()
    with pytest.raises(ValueError, match="expected a multiple of 100 Hz, got 360"):
        ablation_data.filter_and_standardise(signal, 360)


def test_cosine_by_hand():
    assert [cosine(step, 20) for step in (0, 1, 2, 11)] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert cosine(19, 20) == pytest.approx(0.5 * (1 + np.cos(np.pi * 17 / 18)))


def test_a_step_follows_from_its_seed_and_every_part_is_in_the_loss(records):
    model, processor = build(EVERYTHING, records.records, 0)
    heads = torch.nn.ModuleDict()
    chosen, keys = np.arange(8), torch.arange(20)
    plain = replace(EVERYTHING, masked=0.0, alignment=0.0)
    one, other = (step_loss(plain, model, processor, heads, records, keys, {}, chosen, [0, 3]) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, step_loss(plain, model, processor, heads, records, keys, {}, chosen, [0, 4]))
    for change in ({"positives": "pair"}, {"lead_dropout": 0.0}, {"signal": {}}, {"text_augmentation": False}):
        assert not torch.equal(
            one, step_loss(replace(plain, **change), model, processor, heads, records, keys, {}, chosen, [0, 3])
        )


def test_descriptions_stand_behind_the_statements_that_they_describe(records):
    statement = records.records[0].statements[0]
    told = described(records, {normalise_statement(statement): "Wide QRS."}).records
    assert told[0].text == f"{records.records[0].text}\nPotential ECG waveforms:\nWide QRS."
    without = [i for i, record in enumerate(records.records) if statement not in record.statements]
    assert without and all(told[i].text == records.records[i].text for i in without)


def test_a_run_repeats_itself_and_windows_are_averaged(records):
    model, processor, losses = train(EVERYTHING, records, 0)
    again, _, same_losses = train(EVERYTHING, records, 0)
    assert losses == same_losses and len(losses) == 1 and not model.training
    pooled, embeds = embed(model, processor, records.signals)
    assert pooled.shape == (20, 24) and embeds.shape == (20, 128)
    np.testing.assert_array_equal(pooled, embed(again, processor, records.signals)[0])
    windows = [records.signals[:2, :, start : start + 250] for start in range(0, 751, 125)]
    by_hand = np.mean([model.ecg_model(window).pooler_output.detach().numpy() for window in windows], axis=0)
    np.testing.assert_allclose(pooled[:2], by_hand, atol=1e-5)


def test_a_finished_run_is_not_repeated_and_the_table_pairs_seeds(records, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "load_stage", lambda *_: (records, records))
    monkeypatch.setattr(ablation, "prompt_sets", lambda _: PROMPTS)
    arms = {"esi": EVERYTHING, "longer": replace(EVERYTHING, epochs=2)}
    for module in (ablation, ablation_arms):
        monkeypatch.setattr(module, "ARMS", arms)
    results = tmp_path / "results.jsonl"
    command = ["run", "--data_dir", "nowhere", "--results", str(results), "--arms", *arms, "--curve_epochs", "1"]
    assert ablation.main(command) == 0
    first = results.read_text()
    assert ablation.main(command) == 0 and results.read_text() == first
    lines = [json.loads(line) for line in first.splitlines()]
    assert [(line["arm"], line["seed"], line["stage"]) for line in lines] == [
        ("esi", 0, "choose"),
        ("longer", 0, "choose"),
    ]
    assert lines[1]["curve"].keys() == {"1"} and lines[1]["settings"]["epochs"] == 2
    made = ablation_table.table(results, "choose", "esi", "several").splitlines()
    assert len(made) == 4 and made[2].startswith("| esi | 1 | ") and " to " in made[3]
    with pytest.raises(ValueError, match="expected lines of stage 'report', got none"):
        ablation_table.table(results, "report", "esi", "several")


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="expected one of choose, confirm, report, got 'peek'"):
        ablation.load_stage(Path("nowhere"), "peek")


def test_no_stage_judges_on_folds_that_another_stage_chose_on_or_its_own_training_used():
    stages = ablation_data.STAGES
    assert not set(stages["confirm"][1] + stages["report"][1]) & set(stages["choose"][1])
    for trained, judged in stages.values():
        assert not set(trained) & set(judged)


def test_a_probe_learns_what_is_linear_and_macro_is_the_mean():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 8))
    targets = features[:, :5] + 0.1 * rng.normal(size=(300, 5)) > 0.5
    scores = ablation_judging.probe_scores(features[:200], targets[:200], features[200:], (0.1,))[0.1]
    assert ablation_judging.macro(scores, targets[200:]) > 98
    assert ablation_judging.macro(np.zeros((100, 5)), targets[200:]) == 50


def test_zero_shot_scores_are_cosines_with_the_mean_prompt(monkeypatch):
    monkeypatch.setattr(ablation_judging, "class_embeddings", lambda *_: np.eye(2)[:, ::-1])
    scores = ablation_judging.zero_shot_scores(None, None, np.array([[3.0, 4.0]]), {})
    np.testing.assert_allclose(scores, [[0.8, 0.6]])


def test_the_strength_comes_from_validation():
    lines = [
        {"stage": stage, "arm": "esi", "figures": {"probe/0.1": low, "probe/0.01": high, "zero_shot/several": 99.0}}
        for stage, low, high in (("choose", 80, 81), ("choose", 80, 83), ("report", 95, 60))
    ]
    assert ablation_table.best_strength(lines, "esi") == ablation_table.best_strength(lines, "other") == "probe/0.01"
    with pytest.raises(ValueError, match="chosen on validation"):
        ablation_table.best_strength(lines[2:], "esi")
    assert ablation_table.mean_and_spread([80.0, 82.0]) == "81.0 ± 1.4"


# ---------------------------------------------------------------- real records


@has_records
def test_splits_of_the_real_records_share_no_patient():
    parts = [ablation_data.load_filtered(SHARED / "ptbxl_filtered", (fold,)) for fold in (6, 7)]
    parts.append(ablation_data.load_raw(SHARED / "ptbxl", (9,)))
    patients = [set(part.patients()) for part in parts]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    for part in parts:
        assert part.signals.std(dim=2).median() == pytest.approx(1, abs=0.01)
        assert part.targets.any(axis=1).all() and part.signals.shape[1:] == (12, 1000)


@has_records
def test_prompts_of_all_codes_include_every_diagnostic_code():
    prompts = ablation_judging.prompt_sets(SHARED / "ptbxl")
    assert {name: tuple(some) for name, some in prompts.items()} == dict.fromkeys(
        ("one", "several", "codes"), ablation_data.SUPERCLASSES
    )
    assert sum(len(texts) for texts in prompts["codes"].values()) == 44
    assert all(len(texts) == 1 for texts in prompts["one"].values())
