"""The training script: its flags, its recipes, what it writes, and that it goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel, BertTokenizer

import train_accelerate
from datasets_scripts import load_ecg_dataset
from modeling_esi.evaluation.embedding import read_records
from modeling_esi.training.batches import Position

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
        (["--gradient_accumulation_steps=4"], "another loss.*--contrastive_chunk_size"),
        (["--dataset=synthetic", "--alignment_weight=1", "--contrastive_chunk_size=2"], "Give one of the two"),
    ],
)
def test_flags_that_make_no_sense_are_refused_with_what_to_do(flags, message):
    with pytest.raises(SystemExit, match=message):
        train_accelerate.parse_arguments(flags)


def test_an_unknown_flag_in_a_recipe_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic\nlearning_rate: 1\n")
    with pytest.raises(SystemExit, match="unknown flags learning_rate"):
        train_accelerate.parse_arguments(["--config", str(tmp_path / "recipe.yaml")])


def test_a_recipe_that_accumulates_is_refused_too(tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic\ngradient_accumulation_steps: 4\n")
    with pytest.raises(SystemExit, match="--contrastive_chunk_size"):
        train_accelerate.parse_arguments(["--config", str(tmp_path / "recipe.yaml")])


def test_the_published_recipe_is_the_published_one():
    """Key by key what the authors' README says (docs/model.md, and the issue): and nothing that it does not say."""
    model, data, training = train_accelerate.parse_arguments(
        ["--config", "recipes/released.yaml", "--meta_path", "table.csv", "--file_path", "signals"]
    )
    assert (model.variant, model.signal_encoder) == ("released", "convnextv2_base")
    assert model.text_encoder == "michiyasunaga/BioLinkBERT-base"
    assert (model.dim, model.projection_dim, model.decoder_layers, model.decoder_heads, model.decoder_head_dim) == (
        768, 768, 6, 8, 64,
    )  # fmt: skip
    assert (model.sampling_rate, model.duration, model.max_text_length, model.scaling) == (500, 10, 500, None)
    assert train_accelerate.VARIANT_SCALING["released"] == "record"
    assert (data.jitter, data.gain_jitter, data.text_augmentation) == (0.003, 0.003, False)
    assert (training.lr, training.batch_size, training.epochs) == (5e-5, 48, 30)
    assert (training.schedule, training.warmup_epochs, training.decay_epochs, training.decay_factor) == (
        "warmup_step_decay", 5, 10, 0.1,
    )  # fmt: skip


def test_the_published_recipe_has_nothing_of_the_method():
    model, data, training = train_accelerate.parse_arguments(["--config", "recipes/released.yaml", "--dataset", "x"])
    assert (model.positives, data.crop_duration) == (None, None)
    assert train_accelerate.ESIConfig.from_variant("released").positives == "pair"
    off = ("amplitude_jitter", "baseline_wander", "muscle_noise", "time_shift", "lead_dropout")
    assert not any(getattr(data, name) for name in off)
    assert not any((training.weight_average, training.masked_frames_weight, training.alignment_weight))


def test_the_published_learning_rate_over_thirty_epochs():
    """What a step of each epoch is given, two steps an epoch, by hand: warm-up for 5 epochs, then x0.1 every 10."""
    training = train_accelerate.parse_arguments(["--config", "recipes/released.yaml", "--dataset", "synthetic"])[2]
    order = train_accelerate.TrainingOrder(96, training.batch_size, training.epochs, training.seed)
    schedule = train_accelerate.build_schedule(training, order)
    rates = [training.lr * schedule.factor(order.schedule_step(position)) for position, _ in order.steps(Position())]
    warmup = [0.5e-5, 1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5, 3.5e-5, 4e-5, 4.5e-5, 5e-5]
    np.testing.assert_allclose(rates, warmup + 20 * [5e-5] + 20 * [5e-6] + 10 * [5e-7])


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_is_understood(recipe):
    train_accelerate.parse_arguments(["--config", f"recipes/{recipe}", "--dataset", "synthetic"])


@pytest.mark.timeout(60)
def test_a_text_encoder_that_cannot_be_fetched_says_what_to_download():
    """With nothing listening where the Hub should be."""
    script = "from modeling_esi.training.text_encoder import load_text_encoder as f; f('nobody/bert-of-nobody')"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 1
    assert "hf download nobody/bert-of-nobody --local-dir bert-of-nobody" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_same_texts_give_the_same_tokenizer_in_every_process():
    """The trainer of tokenizers alone numbers pieces by a hash table, another one in each process."""
    script = (
        "from modeling_esi.training.text_from_scratch import train_tokenizer as t; "
        "print(sorted(t(['sinus rhythm abc', 'rate 72/min', 'left axis'], 60, 20).get_vocab().items()))"
    )
    printed = {subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True).stdout for _ in range(2)}
    assert len(printed) == 1 and b"##" in printed.pop()


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


def test_stopping_early_and_going_on_by_the_same_command_gives_the_same_bits(straight, tmp_path):
    folder, _ = straight
    run("--output_dir", tmp_path / "esi", "--max_steps", 3)
    half_written = tmp_path / "esi" / "checkpoint-5"
    half_written.mkdir()  # no training_state.json in it
    run("--output_dir", tmp_path / "esi")
    expected, got = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "esi"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert not half_written.exists()


def test_chunks_train_as_the_whole_batch_does(straight, tmp_path):
    """Six steps through GradCache: the same weights up to rounding, which Adam's first steps make larger."""
    folder, _ = straight
    run("--output_dir", tmp_path / "esi", "--contrastive_chunk_size", 3, "--max_steps", 1)
    run("--output_dir", tmp_path / "whole", "--max_steps", 1)
    lines = [logged(tmp_path / name)[0]["values"] for name in ("esi", "whole")]
    for name in ("train/loss", "train/contrastive_loss", "train/caption_loss", "train/grad_norm"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-4), name


def logged(folder):
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()[1:]]


def test_health_is_logged(straight):
    folder, _ = straight
    lines = logged(folder)
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 6)]
    values = lines[0]["values"]
    assert {f"train/{name}" for name in (
        "loss", "contrastive_loss", "caption_loss", "grad_norm", "lr", "logit_scale", "records_per_second",
        "tokens_per_second", "step_seconds", "data_wait_share", "ecg_effective_dimension",
        "text_effective_dimension", "memory_gib")} <= values.keys()  # fmt: skip
    assert values["train/logit_scale"] == pytest.approx(1 / 0.07, rel=0.01)
    assert 1 < values["train/ecg_effective_dimension"] < 24


def test_a_step_that_breaks_stops_with_its_records(tmp_path):
    """A learning rate that throws the weights to infinity: the step after it has no finite loss."""
    command = [sys.executable, str(ROOT / "train_accelerate.py"), *TINY, "--lr", "1e38", "--schedule", "linear"]
    command += ["--output_dir", str(tmp_path / "esi"), "--save_steps", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "not finite" in result.stderr and "Traceback" not in result.stderr
    report = next((tmp_path / "esi" / "run").glob("broken-step-*.json"))
    told = json.loads(report.read_text())
    ids = told["processes"][0]["record_ids"]
    assert len(ids) == 4 and all(name.startswith("synthetic-0-train-") for name in ids)
    steps = [int(path.name.split("-")[1]) for path in (tmp_path / "esi").glob("checkpoint-*")]
    assert all(step < told["step"] for step in steps)  # nothing broken was saved


def test_accumulation_set_through_accelerate_is_refused(tmp_path):
    environment = os.environ | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    command = [sys.executable, str(ROOT / "train_accelerate.py"), *TINY, "--output_dir", str(tmp_path / "esi")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "--contrastive_chunk_size" in result.stderr


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
    assert state["num_processes"] == 2 and state["position"] == {"step": 2, "epoch": 0, "examples": 8}
    assert result.stdout.count("held-out test split") == 1  # only the first process speaks
    AutoModel.from_pretrained(tmp_path / "esi")

    # One process goes on from there, at the ninth record of the order, and says what is no longer the same.
    alone = [sys.executable, str(ROOT / "train_accelerate.py"), *flags, "--max_steps", "4"]
    result = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (
        "step 2, epoch 0, record 8" in result.stderr and "Then 2 processes of 2 records, now 1 of 2." in result.stderr
    )
    state = json.loads((tmp_path / "esi" / "checkpoint-4" / "training_state.json").read_text())
    assert state["position"] == {"step": 4, "epoch": 1, "examples": 0}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_at_one_step_when_one_gets_a_signal(tmp_path, number):
    """Only the second process is told; both save, and the run goes on from there to the undisturbed weights."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(ROOT / "train_accelerate.py"), *TINY, "--batch_size", "2", "--epochs", "8"]
    command += ["--save_steps", "999", "--eval_epochs", "99", "--logging_steps", "1"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    folder, whole = tmp_path / "esi", tmp_path / "whole"
    process = subprocess.Popen([*command, "--output_dir", str(folder)], cwd=ROOT, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    deadline = time.monotonic() + 200
    while not (folder / "run" / "log.jsonl").is_file() or not logged(folder):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    first = int((folder / "run" / "lock").read_text())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = next(int(child) for child in children if int(child) != first and is_training(child))
    os.kill(second, number)
    said = process.communicate(timeout=200)[0]
    assert process.returncode != 0 and f"Exit code {128 + number}" in said
    assert len(list(folder.glob("checkpoint-*"))) == 1
    for output in (folder, whole):
        result = subprocess.run([*command, "--output_dir", str(output)], cwd=ROOT, env=environment,
                                capture_output=True, text=True, timeout=300)  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
    assert [line["step"] for line in logged(folder)] == list(range(1, 25))
    losses = [[line["values"]["train/loss"] for line in logged(path)] for path in (folder, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def is_training(process):
    return "train_accelerate.py" in Path(f"/proc/{process}/cmdline").read_text()


@pytest.mark.slow
def test_the_published_recipe_runs_with_a_bert_of_its_size(tmp_path):
    """BioLinkBERT-base is a BERT of 12 layers and width 768 with 28,895 WordPieces; here with random weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sinus", "rhythm", "rate", "normal"]
    vocabulary = {word: number for number, word in enumerate(words + [f"w{i}" for i in range(28895 - len(words))])}
    BertTokenizer(vocab=vocabulary).save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=28895)).save_pretrained(tmp_path / "bert")
    rows = "".join(f"{i},This patient is a 60 year-old Male. ECG Findings: sinus rhythm.\n" for i in range(30))
    (tmp_path / "table.csv").write_text("save_index,prompt\n" + rows)
    for i in range(30):
        np.save(tmp_path / f"ecg_{i}.npy", np.random.default_rng(i).normal(size=(5000, 12)).astype("float32"))
    command = [sys.executable, str(ROOT / "train_accelerate.py"), "--config", "recipes/released.yaml"]
    command += ["--meta_path", str(tmp_path / "table.csv"), "--file_path", str(tmp_path), "--text_encoder"]
    command += [str(tmp_path / "bert"), "--batch_size", "2", "--max_steps", "2", "--output_dir", str(tmp_path / "esi")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-3000:]
    config = json.loads((tmp_path / "esi" / "config.json").read_text())
    assert config["text_config"]["vocab_size"] == 28895
    lines = logged(tmp_path / "esi")
    assert [line["step"] for line in lines] == [2] and lines[0]["values"]["train/loss"] < 50


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


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ptbxl_filtered").is_dir(), reason="no ../shared/data/ptbxl_filtered here")
@pytest.mark.parametrize(("data", "flags"), [("ptbxl_filtered", []), ("ptbxl", ["--scaling", "fixed"])])
def test_the_recipe_of_statements_trains_on_filtered_and_on_published_records(tmp_path, data, flags):
    folder = tmp_path / "esi"
    command = [sys.executable, ROOT / "train_accelerate.py", "--config", "recipes/ptb_xl_statements.yaml", *flags]
    command += ["--data_dir", SHARED / data, "--output_dir", folder, "--max_steps", 3, "--num_reports", 0]
    result = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model.config.positives == "entailed" and processor.feature_extractor.num_samples == 1000
    assert processor.feature_extractor.scaling == ("fixed" if flags else "none")
    trained = json.loads((folder / "results.json").read_text())["trained"]
    assert ("test/macro_auroc" in trained) == (data == "ptbxl")  # the filtered records are of folds 1-8
