"""The training script: its flags, its schedules, its data order, what it writes, and that a resumed run is the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

import train_accelerate
from datasets_scripts import load_ecg_dataset
from modeling_esi.evaluation.embedding import read_records

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
TINY = (
    "--config recipes/demo.yaml --limit 12 --batch_size 4 --epochs 2 --lr 1e-3 --decoder_layers 1 --scratch_layers 1 "
    "--eval_batch 4 --cpu_threads 1 --num_reports 1 --seed 7"
).split()


def run(*flags):
    """Run the script in a process of its own, as users do, and return what it printed."""
    command = [sys.executable, str(ROOT / "train_accelerate.py"), *TINY, *map(str, flags)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def training_arguments(**fields):
    return train_accelerate.TrainingArguments(**fields)


# ----- flags ---------------------------------------------------------------------------------------------------------


def test_a_bare_call_is_the_demo():
    model, data, training = train_accelerate.parse_arguments([])
    assert (data.dataset, model.signal_encoder, model.text_encoder) == ("synthetic", "convnextv2_atto", "scratch")
    assert training.output_dir == "esi-ecg"


def test_flags_override_the_recipe():
    flags = ["--config", "recipes/demo.yaml", "--lr", "0.25", "--dataset_options", '{"num_records": 5}']
    _, data, training = train_accelerate.parse_arguments(flags)
    assert training.lr == 0.25
    assert data.dataset_options == {"num_records": 5}
    assert data.text == yaml.safe_load((ROOT / "recipes/demo.yaml").read_text())["text"]


def test_the_authors_flags_and_defaults():
    model, data, training = train_accelerate.parse_arguments(["--meta_path", "table.csv", "--file_path", "signals"])
    assert (model.dim, training.lr, training.batch_size) == (768, 5e-5, 8)
    assert (data.dataset, data.dataset_options) == ("esi_csv", {"meta_path": "table.csv", "file_path": "signals"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpu_ids", "0,1"], "accelerate launch --gpu_ids"),
        (["--lr", "1e-4"], "--dataset: none given"),
        (["--config", "recipes/none.yaml"], "no file recipes/none.yaml"),
        (["--dataset", "synthetic", "--push_to_hub"], "--hub_model_id"),
    ],
)
def test_flags_that_make_no_sense_are_refused_with_what_to_do(flags, message):
    with pytest.raises(SystemExit, match=message):
        train_accelerate.parse_arguments(flags)


def test_an_unknown_flag_in_a_recipe_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic\nlearning_rate: 1\n")
    with pytest.raises(SystemExit, match="unknown flags learning_rate"):
        train_accelerate.parse_arguments(["--config", str(tmp_path / "recipe.yaml")])


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_is_understood(recipe):
    train_accelerate.parse_arguments(["--config", f"recipes/{recipe}", "--dataset", "synthetic"])


@pytest.mark.timeout(60)
def test_a_text_encoder_that_cannot_be_fetched_says_what_to_download():
    """With nothing listening where the Hub should be."""
    script = "import train_accelerate; train_accelerate.load_text_encoder('nobody/bert-of-nobody')"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 1
    assert "hf download nobody/bert-of-nobody --local-dir bert-of-nobody" in result.stderr
    assert "Traceback" not in result.stderr


# ----- schedules -----------------------------------------------------------------------------------------------------


def factors(training, steps_per_epoch, epochs):
    total = steps_per_epoch * epochs
    return [train_accelerate.lr_factor(step, training, steps_per_epoch, total) for step in range(total)]


def test_warmup_step_decay_by_hand():
    training = training_arguments(schedule="warmup_step_decay", warmup_epochs=2, decay_epochs=3, decay_factor=0.1)
    expected = [0.25, 0.5, 0.75, 1.0] + 6 * [1.0] + 6 * [0.1] + 2 * [0.01]
    np.testing.assert_allclose(factors(training, 2, 9), expected)


def test_the_published_schedule_over_thirty_epochs():
    """Warm-up for 5 epochs, then x0.1 every 10: epoch by epoch, one step each."""
    got = factors(training_arguments(), 1, 30)
    np.testing.assert_allclose(got, [0.2, 0.4, 0.6, 0.8, 1.0] + 10 * [1.0] + 10 * [0.1] + 5 * [0.01])


def test_linear_and_cosine_by_hand():
    linear = factors(training_arguments(schedule="linear", warmup_ratio=0.2), 10, 1)
    np.testing.assert_allclose(linear, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = factors(training_arguments(schedule="cosine", warmup_ratio=0.0), 4, 1)
    np.testing.assert_allclose(cosine, [1.0, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5])
    with pytest.raises(ValueError, match="expected warmup_step_decay, linear or cosine, got 'constant'"):
        factors(training_arguments(schedule="constant"), 1, 1)


def test_the_same_texts_give_the_same_tokenizer_in_every_process():
    """The trainer of tokenizers alone numbers pieces by a hash table, another one in each process."""
    script = (
        "from modeling_esi.training.text_from_scratch import train_tokenizer as t; "
        "print(sorted(t(['sinus rhythm abc', 'rate 72/min', 'left axis'], 60, 20).get_vocab().items()))"
    )
    printed = {subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True).stdout for _ in range(2)}
    assert len(printed) == 1 and b"##" in printed.pop()


# ----- data order ----------------------------------------------------------------------------------------------------


def test_an_epoch_visits_each_record_at_most_once_and_ranks_share_it():
    alone = train_accelerate.epoch_batches(23, 6, epoch=1, seed=3, rank=0, world=1)
    parts = [train_accelerate.epoch_batches(23, 3, epoch=1, seed=3, rank=rank, world=2) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == alone
    seen = sum(alone, [])
    assert len(seen) == len(set(seen)) == 18
    assert alone != train_accelerate.epoch_batches(23, 6, epoch=2, seed=3, rank=0, world=1)


def test_a_rejected_record_is_named_and_left_out(caplog, tmp_path):
    dataset = load_ecg_dataset("synthetic", split="test", limit=3, cache_dir=tmp_path, sampling_rate=100)
    door = train_accelerate.ESIFeatureExtractor(sampling_rate=100, min_duration=11.0)
    with caplog.at_level("WARNING"):
        kept = train_accelerate.drop_rejected(dataset, door, "test")
    assert len(kept) == 0
    assert dataset[1]["record_id"] in caplog.text and "too short" in caplog.text and "3 of 3" in caplog.text


# ----- whole runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Six steps in one go, with a checkpoint after each second one."""
    folder = tmp_path_factory.mktemp("straight") / "esi"
    printed = run("--output_dir", folder, "--save_steps", 2, "--save_total_limit", 9)
    return folder, printed


def test_a_run_writes_a_folder_that_loads(straight):
    folder, printed = straight
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    dataset = load_ecg_dataset("synthetic", split="test", limit=2, sampling_rate=100)
    inputs = processor(read_records(dataset, range(2)), ["sinus rhythm", "LBBB"])
    assert model(**inputs).logits_per_ecg.shape == (2, 2)
    assert not list(folder.glob("*.bin")) and (folder / "model.safetensors").is_file()
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and "label" in card.text
    results = json.loads((folder / "results.json").read_text())
    assert {"test/contrastive_excess", "test/macro_auroc"} <= results["trained"].keys() & results[
        "random_weights"
    ].keys()
    for words in ("held-out test split", "macro_auroc", "contrastive_excess", "generated:", "true:"):
        assert words in printed


def test_resume_in_a_new_process_gives_the_same_bits(straight, tmp_path):
    folder, _ = straight
    run("--output_dir", tmp_path / "esi", "--resume_from_checkpoint", folder / "checkpoint-4")
    expected, got = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "esi"))
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_stopping_early_and_going_on_with_latest_gives_the_same_bits(straight, tmp_path):
    folder, _ = straight
    run("--output_dir", tmp_path / "esi", "--max_steps", 3)
    half_written = tmp_path / "esi" / "checkpoint-5"
    half_written.mkdir()  # no training_state.json in it: a process died while it was written
    run("--output_dir", tmp_path / "esi", "--resume_from_checkpoint", "latest")
    expected, got = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "esi"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_half_written_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    training = training_arguments(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with pytest.raises(SystemExit, match="not a whole checkpoint"):
        train_accelerate.load_checkpoint(None, training)


def test_processes_that_would_train_apart_are_stopped(tmp_path):
    """Two were started, but without a GPU and without being told accelerate makes each of them a world of its own."""
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "-1"}
    command = [sys.executable, str(ROOT / "train_accelerate.py"), *TINY, "--output_dir", str(tmp_path / "esi")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "2 processes were started" in result.stderr


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        str(ROOT / "train_accelerate.py"),
    ]
    flags = [*TINY, "--batch_size", "2", "--output_dir", str(tmp_path / "esi"), "--max_steps", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(command + flags, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    state = json.loads((tmp_path / "esi" / "checkpoint-2" / "training_state.json").read_text())
    assert state["num_processes"] == 2
    assert result.stdout.count("held-out test split") == 1  # only the first process speaks
    AutoModel.from_pretrained(tmp_path / "esi")


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="real PTB-XL records (../shared/data/ptbxl) are not here")
def test_the_ptb_xl_recipe_trains_on_real_records_and_loads_back(tmp_path):
    folder = tmp_path / "esi-ptb-xl"
    command = [sys.executable, ROOT / "train_accelerate.py", "--config", "recipes/ptb_xl.yaml"]
    flags = ["--data_dir", SHARED / "ptbxl", "--output_dir", folder, "--max_steps", 4, "--num_reports", 1]
    result = subprocess.run([*map(str, command + flags)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    dataset = load_ecg_dataset("ptb_xl", SHARED / "ptbxl", split="test", limit=3)
    inputs = processor.feature_extractor(read_records(dataset, range(3)))
    assert torch.isfinite(model.get_ecg_features(**inputs)).all()
    assert "auroc/NORM" in result.stdout
