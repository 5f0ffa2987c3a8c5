"""Recipes: their flags are known, accelerate takes its configurations, and both scripts run, stop and go on."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import wfdb
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_multi_gpu_env
from test_hub import hub  # noqa: F401  (the double that a pushed model needs)
from tiny_esi import TEXT, tiny_batch, tiny_esi
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import train_accelerate
from datasets_scripts.loading import open_prepared
from modeling_esi.benchmarks.scaling import SETUPS
from modeling_esi.evaluation.__main__ import parser_of

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
SCRIPTS = ("paper.sh", "open_ptb_xl.sh")
PROTOCOLS = ("zero_shot", "linear_probe", "fine_tune", "identification")
CONFIGS = sorted((RECIPES / "accelerate").glob("*.yaml"))
FSDP = [path for path in CONFIGS if path.stem.startswith("fsdp2")]
TINY = (
    "--signal_encoder convnextv2_atto --text_encoder scratch --dim 32 --projection_dim 32 --decoder_layers 1 "
    "--decoder_heads 2 --decoder_head_dim 16 --scratch_layers 1 --sampling_rate 100 --duration 2 --batch_size 2 "
    "--epochs 3 --cpu_threads 1 --num_reports 0 --mixed_precision no"
)


# ----- recipes of flags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_name_in_a_recipe_is_a_flag_and_every_value_is_read_as_it_stands(path):
    arguments = train_accelerate.parse_arguments(["--config", str(path), "--dataset", "synthetic"])
    known = {name: value for part in arguments for name, value in vars(part).items()}
    for name, value in yaml.safe_load(path.read_text()).items():
        if name != "dataset":
            assert known[name] == value, f"{name}: {value!r} is read as {known[name]!r}"


def test_the_papers_recipe_is_the_published_one_but_for_the_method():
    paper, released = (yaml.safe_load((RECIPES / f"{name}.yaml").read_text()) for name in ("paper", "released"))
    sizes = ("signal_encoder", "text_encoder", "dim", "projection_dim", "sampling_rate", "duration", "max_text_length")
    schedule = ("lr", "batch_size", "epochs", "schedule", "warmup_epochs", "decay_epochs", "decay_factor")
    for name in (*sizes, *schedule):
        assert paper[name] == released[name], name
    assert (paper["variant"], released["variant"]) == ("esi", "released")


# ----- configurations of accelerate ----------------------------------------------------------------------------------


def launch_arguments(path, *flags):
    """What `accelerate launch` makes of a configuration."""
    arguments = launch_command_parser().parse_args(["--config_file", str(path), *flags, "train_accelerate.py"])
    return _validate_launch_command(arguments)[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_takes_every_configuration(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16" and not config.use_cpu
    assert config.num_processes == 8 * config.num_machines or config.num_machines == 1
    arguments = launch_arguments(path)
    assert (arguments.num_processes, arguments.num_machines) == (config.num_processes, config.num_machines)
    assert arguments.use_fsdp == (path in FSDP) and arguments.mixed_precision == "bf16"
    assert f"recipes/accelerate/{path.name}" in path.read_text()


def test_the_plan_counts_the_processes_of_the_configurations():
    for setup in SETUPS:
        config = load_config_from_file(str(RECIPES / "accelerate" / setup.config_file))
        assert (config.num_processes, config.num_machines) == (setup.num_gpus, setup.num_nodes)
        assert (config.distributed_type == DistributedType.NO) == (setup.num_gpus == 1)


@pytest.mark.parametrize("path", [path for path in CONFIGS if "2_nodes" in path.stem], ids=lambda path: path.stem)
@pytest.mark.parametrize("rank", [0, 1])
def test_both_nodes_start_eight_processes_that_find_each_other(path, rank):
    flags = ("--main_process_ip", "10.0.0.1", "--machine_rank", str(rank), "--main_process_port", "29613")
    arguments = launch_arguments(path, *flags)
    environment = prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", rank)
    assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("static", "10.0.0.1:29613")
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


def plugin_of(path, monkeypatch):
    """The FSDP plugin that a launched process builds from its environment."""
    flags = ("--main_process_ip", "10.0.0.1", "--main_process_port", "29614")
    environment = prepare_multi_gpu_env(launch_arguments(path, *flags))
    for name, value in environment.items():
        if name.startswith("FSDP_") or name == "ACCELERATE_USE_FSDP":
            monkeypatch.setenv(name, value)
    return FullyShardedDataParallelPlugin()


@pytest.mark.parametrize("path", FSDP, ids=lambda path: path.stem)
def test_the_layers_that_fsdp2_wraps_are_this_models(path, monkeypatch):
    plugin, model = plugin_of(path, monkeypatch), tiny_esi()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is (path.stem == "fsdp2_8_gpus")
    assert str(plugin.state_dict_type).endswith("SHARDED_STATE_DICT") and not plugin.cpu_ram_efficient_loading
    is_wrapped = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [type(module).__name__ for module in model.modules() if is_wrapped(module)]
    assert {name: wrapped.count(name) for name in wrapped} == {
        "ConvNeXtV2Block": 5, "BertLayer": 2, "ESIDecoderLayer": 2
    }  # fmt: skip


def no_dropout_model():
    return tiny_esi(text=TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}).double().train()


def four_pairs():
    batch = tiny_batch(batch=4, num_samples=320)
    batch["input_values"] = batch["input_values"].double()
    return batch | {"text_key": torch.tensor([4, 9, 9, 4])}


def loss_and_gradients(model, batch):
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()}


def sharded_rank(rank, layers, address, folder):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = no_dropout_model()
    for module in [module for module in model.modules() if type(module).__name__ in layers]:
        fully_shard(module, reshard_after_forward=True)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    batch = {name: tensor[2 * rank : 2 * rank + 2] for name, tensor in four_pairs().items()}
    torch.save(loss_and_gradients(model, batch), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_sharded_by_these_layers_give_the_gradients_of_one(tmp_path):
    """`fully_shard` over gloo: accelerate itself takes FSDP2 to GPUs only."""
    layers = yaml.safe_load(FSDP[0].read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    expected = loss_and_gradients(no_dropout_model(), four_pairs())
    address = (tmp_path / "meeting").as_uri()
    mp.spawn(sharded_rank, args=(layers, address, str(tmp_path)), nprocs=2)
    most = max(gradient.abs().max() for gradient in expected.values())
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert got.keys() == expected.keys()
        assert max((got[name] - expected[name]).abs().max() for name in got) <= 1e-9 * most


# ----- records as published, written here ----------------------------------------------------------------------------

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
SCP = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior myocardial infarction,1.0,,,MI,IMI
SR,sinus rhythm,,,1.0,,
"""
FOLDS = {number: 1 for number in range(1, 9)} | {9: 9, 10: 9, 11: 9, 12: 10, 13: 10, 14: 10, 15: 10}
SECOND_RECORDINGS = {13: 12, 15: 14}  # two persons have two, so that there is someone to be identified


def write_wfdb(path, rate, seed):
    """Two seconds in all twelve leads, the limb leads as Einthoven's and Goldberger's laws have them."""
    rng = np.random.default_rng(seed)
    one, two = rng.integers(-400, 400, size=(2, 2 * rate)) * 2
    limb = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    samples = np.stack([*limb, *rng.integers(-900, 900, size=(6, 2 * rate))], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        path.name, fs=rate, units=["mV"] * 12, sig_name=LEADS, d_signal=samples, fmt=["16"] * 12,
        adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(path.parent),
    )  # fmt: skip


def write_ptb_xl(folder):
    rows = ["ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    for number, fold in FOLDS.items():
        code, said = ("NORM", "sinusrhythmus normales ekg") if number % 2 else ("IMI", "inferiorer infarkt")
        codes = f"\"{{'{code}': 100.0, 'SR': 0.0}}\""
        patient = SECOND_RECORDINGS.get(number, number)
        rows.append(f"{number},{patient}.0,50,0,{said},{codes},{fold},lr/{number},hr/{number}")
        write_wfdb(folder / "lr" / str(number), 100, number)
        write_wfdb(folder / "hr" / str(number), 500, number)
    (folder / "ptbxl_database.csv").write_text("\n".join(rows) + "\n")
    (folder / "scp_statements.csv").write_text(SCP)
    return folder


def write_mimic(folder, num_patients=40):
    """A recording for each patient, some in every split."""
    places = {n: f"files/p{str(10**7 + n)[:4]}/p{10**7 + n}/s{n}/{n}" for n in range(num_patients)}
    for number, place in places.items():
        write_wfdb(folder / place, 500, 100 + number)
    said = [["Sinus rhythm", "Normal ECG"], ["Atrial fibrillation", "Abnormal ECG"]]
    with (folder / "record_list.csv").open("w", newline="") as file:
        head = ["subject_id", "study_id", "file_name", "ecg_time", "path"]
        rows = [[10**7 + n, n, n, "2180-07-23 08:44:00", place] for n, place in places.items()]
        csv.writer(file).writerows([head, *rows])
    with (folder / "machine_measurements.csv").open("w", newline="") as file:
        head = ["subject_id", "study_id", "cart_id", "ecg_time", *(f"report_{i}" for i in range(18))]
        rows = [[10**7 + n, n, 1, "2180-07-23 08:44:00", *said[n % 2], *[""] * 16] for n in places]
        csv.writer(file).writerows([head, *rows])
    with (folder / "patients.csv").open("w", newline="") as file:
        rows = [[10**7 + n, "FM"[n % 2], 40 + n, 2178] for n in places]
        csv.writer(file).writerows([["subject_id", "gender", "anchor_age", "anchor_year"], *rows])
    return folder


# ----- the scripts ---------------------------------------------------------------------------------------------------


def environment(**variables):
    """As a user's shell with the environment activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NUM_WORKERS": "1", "ACCELERATE_USE_CPU": "true"}
    return os.environ | quiet | {"PATH": path} | {name: str(value) for name, value in variables.items()}


def call(script, *flags, cwd=None, **variables):
    return subprocess.run(
        [str(RECIPES / script), *flags], env=environment(**variables), cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_variable_and_step(script):
    told = call(script, "--help")
    assert told.returncode == 0 and "Usage" not in told.stderr
    code = (RECIPES / script).read_text() + (RECIPES / "steps.sh").read_text()
    of_the_other = {"MIMIC_IV_ECG", "PATIENTS"} if script == "open_ptb_xl.sh" else set()
    for name in set(re.findall(r"\$\{([A-Z_]+):-", code)) - {"STEPS", "PYTHON"} - of_the_other:
        assert re.search(rf"\b{name}\b", told.stdout), name
    assert "prepare -> describe -> train -> evaluate -> card -> push" in told.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (("--only", "bake"), {}, "no step bake; expected some of: prepare describe train evaluate card push"),
        ((), {"STEPS": "train bake"}, "no step bake"),
        (("train",), {}, "expected --from STEP, --only STEP or --help, got train"),
        (("--from",), {}, "--from: expected a step"),
        (("--only", "prepare"), {}, "is not set"),
        (("--only", "card"), {}, "train writes it at its end"),
    ],
)
def test_what_makes_no_sense_is_told(script, flags, variables, words, tmp_path):
    done = call(script, *flags, OUTPUT=tmp_path / "out", **variables)
    assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_push_to_nowhere_is_said_and_skipped(script, tmp_path):
    done = call(script, STEPS="push", OUTPUT=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "push: HUB_MODEL_ID is not set: skipped" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("ptb_xl", ["ptb-xl/1.0.3", ""])
def test_evaluate_asks_for_each_protocol_by_flags_that_there_are(script, ptb_xl, tmp_path):
    """A stand-in for Python keeps the commands."""
    for folder in ("model", "ptb_xl"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    (tmp_path / "out" / "model" / "config.json").write_text("{}")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/commands\n')
    python.chmod(0o755)
    done = call(script, "--only", "evaluate", OUTPUT="out", PTB_XL=ptb_xl, PYTHON=python, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "commands").read_text().splitlines()
    for command, protocol in zip(commands, PROTOCOLS, strict=True):
        module, *words = command.removeprefix("-m ").split()
        flags = parser_of(protocol).parse_args(words)
        assert (module, flags.protocol) == ("modeling_esi.evaluation", protocol)
        assert (flags.model, flags.dataset, flags.data_dir) == ("out/model", "out/ptb_xl", ptb_xl or None)
        assert flags.output == f"out/results/{protocol}" and flags.split == "test"


@pytest.mark.parametrize(("script", "data"), [("paper.sh", "mimic_iv_ecg"), ("open_ptb_xl.sh", "ptb_xl")])
def test_descriptions_go_from_describe_to_train(script, data, tmp_path):
    """A stand-in for Python and the launcher keeps the commands, and writes what describe would."""
    (tmp_path / "out" / data).mkdir(parents=True)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/commands\n[ "$2" != datasets_scripts.cqa ] || echo {{}} >"$7"\n'
    )
    python.chmod(0o755)
    settings = {"STEPS": "describe train", "OUTPUT": "out", "PYTHON": python, "LAUNCH": python, "DESCRIBED": "yes"}
    done = call(script, cwd=tmp_path, DESCRIBE_FLAGS="--limit 3", **settings)
    assert done.returncode == 0, done.stderr
    describe, train = (tmp_path / "commands").read_text().splitlines()
    assert describe == f"-m datasets_scripts.cqa describe --dataset out/{data} --output out/waveforms.json --limit 3"
    assert f"--dataset out/{data} " in train and '--dataset_options {"waveforms": "out/waveforms.json"}' in train
    given = call(script, cwd=tmp_path, **settings | {"OUTPUT": "other", "WAVEFORMS": "own.json"})
    assert "describe: WAVEFORMS is given: skipped" in given.stdout
    assert "waveforms.json" not in (tmp_path / "commands").read_text().splitlines()[-1]


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    holder = subprocess.Popen(["flock", str(tmp_path / "lock"), "sleep", "30"])
    try:
        time.sleep(0.3)
        done = call("paper.sh", "--only", "describe", OUTPUT=tmp_path)
        assert done.returncode == 2 and "another run" in done.stderr
    finally:
        holder.terminate()
        holder.wait()


@pytest.mark.slow
def test_the_paper_from_published_folders_to_a_pushed_model(tmp_path, hub):  # noqa: F811
    """The Hub refuses first: the second call pushes, and does nothing else again."""
    mimic, ptb_xl = write_mimic(tmp_path / "mimic"), write_ptb_xl(tmp_path / "ptb_xl")
    (tmp_path / "waveforms.json").write_text('{"sinus rhythm": "A P wave before every QRS."}')
    settings = {
        "MIMIC_IV_ECG": mimic, "PATIENTS": mimic / "patients.csv", "PTB_XL": ptb_xl, "OUTPUT": "out", "LIMIT": 8,
        "HF_HOME": tmp_path / "hf", "WAVEFORMS": tmp_path / "waveforms.json", "LICENSE": "odbl",
        "TRAIN_FLAGS": f"{TINY} --max_steps 2",
        "HUB_MODEL_ID": "someone/esi-tiny", "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    hub.refuse = 401
    refused = call("paper.sh", cwd=tmp_path, **settings)
    assert refused.returncode == 2 and "expected a token" in refused.stderr, refused.stderr[-3000:]
    marks = {path.name for path in (tmp_path / "out" / "done").iterdir()}
    assert {"prepare-mimic_iv_ecg", "prepare-ptb_xl", "train", *map("evaluate-{}".format, PROTOCOLS)} <= marks
    assert "push" not in marks
    assert_judged(tmp_path / "out")
    text = open_prepared(tmp_path / "out" / "mimic_iv_ecg")[0]["text"][0]
    assert re.match(r"This patient is a \d+ year-old (Fem|M)ale\. ECG Findings: ", text)

    hub.refuse = None
    done = call("paper.sh", cwd=tmp_path, **settings)
    assert done.returncode == 0 and done.stdout.count("done before") == len(marks), done.stderr[-3000:]
    pushed = hub.files("someone/esi-tiny")
    assert {"model.safetensors", "config.json", "README.md", "modeling_esi.py"} <= set(pushed)
    assert {f"results_{protocol}_on_ptb_xl_test.json" for protocol in PROTOCOLS} <= set(pushed)
    assert all(f"### {protocol} on ptb_xl/test".encode() in pushed["README.md"] for protocol in PROTOCOLS)
    assert "license: odbl" in (tmp_path / "out" / "model" / "README.md").read_text()

    again = call("paper.sh", cwd=tmp_path, **settings)
    assert again.stdout.count("done before") == len(marks) + 1 and len(hub.messages) == 1
    assert "by another command" not in again.stdout
    changed = call("paper.sh", "--only", "train", cwd=tmp_path, **settings | {"TRAIN_FLAGS": "--lr 1"})
    assert "train: by another command than now; to do it again: rm out/done/train" in changed.stdout


def assert_judged(output):
    """Every protocol has written its figures, with those of random weights beside them."""
    for protocol in PROTOCOLS:
        found = json.loads((output / "results" / protocol / "results.json").read_text())
        assert found["name"] == protocol and found["dataset"] == "ptb_xl/test"
        assert found["trained"] and found["random_weights"]


def start(script, **variables):
    return subprocess.Popen(
        [str(RECIPES / script)], env=environment(**variables), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(pattern, folder, run, seconds=120):
    deadline = time.time() + seconds
    while not list(folder.glob(pattern)):
        assert run.poll() is None and time.time() < deadline, f"{pattern} did not come"
        time.sleep(0.02)


def kill_session(session):
    """SIGKILL for every process of a session: the script and all it started."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            os.kill(int(status.parent.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_ptb_xl_alone_goes_on_where_it_was_stopped(tmp_path, how):
    """Stopped while it trains, then called again: nothing that was done is done again."""
    out = tmp_path / "out"
    settings = {"PTB_XL": write_ptb_xl(tmp_path / "ptb_xl"), "OUTPUT": out, "LICENSE": "cc-by-4.0",
                "HF_HOME": tmp_path / "hf",
                "TRAIN_FLAGS": f"{TINY} --epochs 300 --save_steps 2 --eval_epochs 300"}  # fmt: skip
    if how == "terminated":  # once is enough to judge
        settings |= {"STEPS": "prepare train"}
    run = start("open_ptb_xl.sh", **settings)
    wait_for("model/checkpoint-*/training_state.json", out, run)
    if how == "killed":
        kill_session(run.pid)
    else:
        run.terminate()
    said = run.communicate(timeout=60)[0]
    assert run.returncode == (-signal.SIGKILL if how == "killed" else 143), said[-2000:]
    assert how == "killed" or "the same command goes on from here" in said
    assert (out / "done" / "prepare-ptb_xl").exists() and not (out / "done" / "train").exists()
    shards = {path: path.stat().st_mtime_ns for path in (out / "ptb_xl").iterdir()}
    steps = max(int(path.name.split("-")[1]) for path in (out / "model").glob("checkpoint-*"))

    short = settings | {"TRAIN_FLAGS": f"{settings['TRAIN_FLAGS']} --max_steps {steps + 40}"}
    done = call("open_ptb_xl.sh", **short)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "prepare-ptb_xl: done before" in done.stdout and "Resumed from" in done.stderr
    assert shards == {path: path.stat().st_mtime_ns for path in (out / "ptb_xl").iterdir()}
    assert (out / "model" / "results.json").exists() and (out / "done" / "train").exists()
    if how == "killed":
        assert_judged(out)


def launch_command(folder, name, *flags, **changes):
    """`accelerate launch` of two steps by a configuration of recipes/accelerate, with `changes` for this machine."""
    config = yaml.safe_load((RECIPES / "accelerate" / name).read_text()) | {"mixed_precision": "no"} | changes
    (folder / name).write_text(yaml.safe_dump(config))
    accelerate = Path(sys.executable).with_name("accelerate")
    train = f"--config recipes/demo.yaml --limit 12 {TINY} --max_steps 2 --output_dir {folder / 'model'}"
    return [accelerate, "launch", "--config_file", folder / name, *flags, ROOT / "train_accelerate.py", *train.split()]


def assert_two_processes_trained(folder):
    """The script itself counts them."""
    state = yaml.safe_load((folder / "model" / "checkpoint-2" / "training_state.json").read_text())
    assert state["num_processes"] == 2
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_start_from_a_configuration_like_these(tmp_path):
    command = launch_command(tmp_path, "4_gpus.yaml", num_processes=2, main_process_port=0)
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_two_processes_trained(tmp_path)


@pytest.mark.slow
def test_two_nodes_meet_by_the_commands_of_the_configuration(tmp_path):
    """Both on this machine, with one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = [("--main_process_ip", "127.0.0.1", "--main_process_port", port, "--machine_rank", rank) for rank in "01"]
    nodes = [
        subprocess.Popen(
            launch_command(tmp_path, "2_nodes.yaml", *flag, num_processes=2), cwd=ROOT, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for flag in flags
    ]  # fmt: skip
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(text[-2000:] for text in said)
    assert_two_processes_trained(tmp_path)
