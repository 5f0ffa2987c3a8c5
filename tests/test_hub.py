"""A push is one commit that anybody can load, or an error that says what to do; check finds what is not as it seems."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hub_double import hub_of_this_process
from huggingface_hub import ModelCard
from test_model_card import FACTS, RESULT, code_of, tiny_model, tiny_processor, write_results

from modeling_esi.hub import main, pull_folder, push_folder
from modeling_esi.hub_check import check_folder
from modeling_esi.model_card import write_model_card

NAME = "someone/esi"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # for the processes that a test starts
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it remembers where the Hub was
    with hub_of_this_process(monkeypatch, tmp_path / "hub_cache") as server:
        yield server


@pytest.fixture
def saved(tmp_path) -> Path:
    return save(tmp_path / "esi-ecg")


def save(folder: Path, shift: float = 0.0, **options) -> Path:
    """A model folder as training leaves it, with a result in its card and beside it."""
    model = tiny_model()
    model.ecg_norm.weight.data += shift
    model.save_pretrained(folder, **options)
    tiny_processor().save_pretrained(folder)
    write_model_card(folder, model, **FACTS, results=RESULT)
    (folder / "results.json").write_text(json.dumps({name: RESULT[name] for name in ("trained", "random_weights")}))
    (folder / "checkpoint-7").mkdir(exist_ok=True)
    (folder / "checkpoint-7" / "optimizer.bin").write_bytes(b"1")
    (folder / ".hidden").write_text("x")
    return folder


def push(folder: Path, name: str = NAME, **options) -> str:
    return push_folder(folder, name, token="hf_of_nobody", **options)


def run_elsewhere(code: str, hub, place: Path) -> list[str]:
    """Lines that code printed in a clean interpreter, whose Hub is the double and whose cache is empty."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    blocker = "import sys\nsys.modules['modeling_esi'] = None  # as where it is not installed\n"
    command = [sys.executable, "-P", "-c", blocker + textwrap.dedent(code)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def found_in(folder: Path, **options) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.verdict, finding.detail) for finding in check_folder(folder, **options)}


@pytest.fixture
def no_load(monkeypatch):
    """Looks at files without the other interpreter, which takes seconds."""
    monkeypatch.setattr("modeling_esi.hub_check._strange_code", lambda folder: ["everything"])


# ----- push ----------------------------------------------------------------------------------------------------------


def test_push_is_one_commit_of_all_files(hub, saved):
    local = (saved / "README.md").read_text()
    url = push(saved, "esi", private=True, commit_message="A better one")
    assert url == f"{hub.url}/{NAME}/commit/{1:040x}" and len(hub.commits[NAME]) == 2
    assert hub.private[NAME] and hub.messages == ["A better one"]
    files = hub.files(NAME)
    assert set(files) == {path.name for path in saved.iterdir()} - {"checkpoint-7", ".hidden"}
    assert {"model.safetensors", "config.json", "modeling_esi.py", "pipeline_esi.py"} <= set(files)
    card = files["README.md"].decode()
    assert 'model_id = "someone/esi"  # this folder' in card and "\n# esi\n" in card and "\n- name: esi\n" in card
    assert (saved / "README.md").read_text() == local and 'model_id = "esi-ecg"' in local
    assert files["model.safetensors"] == (saved / "model.safetensors").read_bytes()


def test_a_second_push_leaves_nothing_of_the_first(hub, saved, no_load, tmp_path):
    """Fewer shards and other results: the old ones go in the same commit; what others put there stays."""
    sharded = save(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    (sharded / "results_zero_shot.json").write_text(json.dumps(RESULT))
    (sharded / "NOTICE.txt").write_text("of somebody")
    push(sharded)
    assert "results_zero_shot.json" in hub.files(NAME)
    (saved / "results_old.json").write_text(json.dumps(RESULT | {"weights": {"model.safetensors": "of before"}}))
    push(saved)
    local = {path.name for path in saved.iterdir()} - {"checkpoint-7", ".hidden", "results_old.json"}
    assert set(hub.files(NAME)) == local | {"NOTICE.txt"}
    assert found_in(saved)["results"] == ("fail", "results_old.json: of other weights: delete them, evaluate again")
    assert [len(commit) > 1 for commit in hub.commits[NAME]] == [False, True, True]
    assert found_in(pull_folder(NAME, tmp_path / "pulled"))["weights"][0] == "ok"


def test_paths_of_the_machine_stay_on_it(hub, saved, tmp_path):
    trained = json.loads((saved / "results.json").read_text())
    told = {"settings": {"model": str(tmp_path)}, "notes": [f"read {tmp_path}/x"]}
    (saved / "results.json").write_text(json.dumps(trained | told))
    push(saved)
    assert not [name for name, content in hub.files(NAME).items() if str(tmp_path).encode() in content]
    assert json.loads(hub.files(NAME)["results.json"])["trained"] == trained["trained"]


@pytest.mark.parametrize(("where", "status"), [("PUT /lfs", 403), ("/commit/", 409), ("/preupload/", 400)])
def test_an_interrupted_push_changes_nothing(hub, saved, tmp_path, where, status):
    push(saved)
    hub.refuse_paths = {where: status}
    with pytest.raises((ConnectionError, PermissionError), match=rf"got status {status} .*"):
        push(save(tmp_path / "tuned", shift=1.0))
    hub.refuse_paths = {}
    assert len(hub.commits[NAME]) == 2
    pulled = pull_folder(NAME, tmp_path / "pulled")
    assert (pulled / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_who_pushed_meanwhile_is_not_overwritten(hub, saved):
    push(saved)
    hub.refuse_paths = {"/commit/": 412}
    with pytest.raises(ValueError, match="the repository was changed meanwhile"):
        push(saved)


def test_push_without_permission_says_what_to_do(hub, saved):
    hub.refuse = 401
    with pytest.raises(PermissionError, match=r"got status 401 .* run `hf auth login`"):
        push(saved)
    assert not hub.commits


def test_push_without_network_says_what_to_do(monkeypatch, saved):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConnectionError, match="expected to reach http://127.0.0.1:9, got .*HF_HUB_OFFLINE"):
        push(saved)


def test_push_refuses_what_nobody_should_get(hub, saved):
    with pytest.raises(ValueError, match="Repo id must"):
        push(saved, "not a name/x")
    card = (saved / "README.md").read_text()
    (saved / "README.md").write_text(card.replace("- ecg\n", "- 12\n"))
    with pytest.raises(ValueError, match='"tags" must be texts'):
        push(saved)
    (saved / "README.md").write_text(card)
    (saved / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="pickles: training_args.bin: can run code"):
        push(saved)
    (saved / "training_args.bin").unlink()
    tiny_model("released").save_pretrained(saved)
    with pytest.raises(ValueError, match="hashes: the card describes other weights: write it anew"):
        push(saved)
    (saved / "README.md").write_text(card.replace("license: cc-by-4.0\n", ""))
    with pytest.raises(ValueError, match="license: expected"):
        push(saved)
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match="got none of README.md: model.save_pretrained"):
        push(saved)
    assert not [path for path in hub.asked if "/commit/" in path]


# ----- what others get -----------------------------------------------------------------------------------------------


def test_a_clean_interpreter_loads_what_was_pushed(hub, saved, tmp_path):
    """The issue's proof, and the card's code as it is written: an empty cache, no package, the Hub's names alone."""
    push(saved)
    code = """
        import huggingface_hub
        from huggingface_hub import ModelCard, snapshot_download
        from transformers import AutoModel, AutoProcessor, pipeline

        name = "someone/esi"
        model = AutoModel.from_pretrained(name, trust_remote_code=True)
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
        pipe = pipeline("ecg-feature-extraction", model=name, trust_remote_code=True)
        card = ModelCard.load(name)
        if not huggingface_hub.__version__.startswith("1."):  # asks huggingface.co, whatever the endpoint
            card.validate()
        print(type(model).__name__, type(processor).__name__, type(pipe).__name__, model.num_parameters())
        print(card.data.license, len(card.data.eval_results), float(model.ecg_norm.weight.sum()))
        print("model.safetensors" in __import__("os").listdir(snapshot_download(name)))
    """
    card = tmp_path / "card.md"
    card.write_bytes(hub.files(NAME)["README.md"])
    lines = run_elsewhere(textwrap.dedent(code) + code_of(card), hub, tmp_path)
    assert lines[0] == f"ESIModel ESIProcessor ESIFeatureExtractionPipeline {tiny_model().num_parameters()}"
    assert lines[1:3] == ["cc-by-4.0 2 36.0", "True"]
    assert lines[3].startswith("tensor([[") and "'label': 'sinus rhythm'" in lines[-1]


@pytest.mark.slow
def test_everybody_gets_the_weights_of_a_plain_push_after_fine_tuning(hub, saved, tmp_path):
    push(saved)
    model = tiny_model()
    model.ecg_norm.weight.data += 1.0
    model.push_to_hub(NAME, token="hf_of_nobody")
    code = """
        from huggingface_hub import ModelCard
        from transformers import AutoModel

        model = AutoModel.from_pretrained("someone/esi", trust_remote_code=True)
        before = AutoModel.from_pretrained("someone/esi", revision="0" * 39 + "1", trust_remote_code=True)
        print(float(model.ecg_norm.weight.sum()), float(before.ecg_norm.weight.sum()))
        print(ModelCard.load("someone/esi").data.eval_results)
    """
    assert run_elsewhere(code, hub, tmp_path) == ["72.0 36.0", "None"]


@pytest.mark.slow
def test_a_pushing_process_that_is_killed_changes_nothing(hub, saved, tmp_path):
    push(saved)
    hub.slow_uploads = True
    tuned = save(tmp_path / "tuned", shift=1.0)
    code = f"from modeling_esi.hub import push_folder; push_folder({str(tuned)!r}, {NAME!r}, token='x')"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    pushing = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[1])
    assert hub.uploading.wait(timeout=120)
    pushing.kill()
    pushing.wait()
    hub.slow_uploads = False
    assert len(hub.commits[NAME]) == 2
    code = """
        from transformers import AutoModel
        print(float(AutoModel.from_pretrained("someone/esi", trust_remote_code=True).ecg_norm.weight.sum()))
    """
    assert run_elsewhere(code, hub, tmp_path) == ["36.0"]
    push(tuned)
    assert hub.files(NAME)["model.safetensors"] == (tuned / "model.safetensors").read_bytes()


def test_a_plain_push_has_a_card_of_facts(hub):
    tiny_model().push_to_hub(NAME, token="hf_of_nobody")
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert card.data.license == "other" and "More Information Needed" not in card.text
    assert "trained on last is not stated" in card.text and "Not a medical device" in card.text
    tiny_processor().push_to_hub(NAME, token="hf_of_nobody")  # keeps it
    assert ModelCard(hub.files(NAME)["README.md"].decode()).text == card.text
    assert {"model.safetensors", "modeling_esi.py", "processing_esi.py", "tokenizer.json"} <= set(hub.files(NAME))


# ----- pull ----------------------------------------------------------------------------------------------------------


def test_pull_takes_no_code_and_no_pickle(hub, saved, tmp_path):
    push(saved)
    hub.files(NAME)["pytorch_model.bin"] = pickle.dumps({"a": 1})
    hub.files(NAME)["onnx/model.json"] = b"{}"
    names = {path.name for path in pull_folder(NAME, tmp_path / "pulled").iterdir()}
    flat = {path.name for path in saved.iterdir()} - {"checkpoint-7", ".hidden"}
    assert names == {name for name in flat if not name.endswith(".py")}
    trusted = pull_folder(NAME, tmp_path / "trusted", revision=f"{1:040x}", trust_remote_code=True)
    assert {path.name for path in trusted.iterdir()} == flat
    with pytest.raises(ValueError, match=r"expected none yet, or an empty one"):
        pull_folder(NAME, tmp_path / "pulled")
    with pytest.raises(ValueError, match="pull of someone/nothing: expected a repository and revision"):
        pull_folder("someone/nothing", tmp_path / "x")
    with pytest.raises(ValueError, match="pull of someone/esi: expected a repository and revision"):
        pull_folder(NAME, tmp_path / "x", revision="v9")
    assert sorted(path.name for path in tmp_path.iterdir() if "x" in path.name or path.name.startswith(".")) == []


def test_a_pull_that_was_cut_off_is_no_folder_and_goes_on(hub, saved, tmp_path):
    push(saved)
    hub.refuse_paths = {"tokenizer.json": 403}
    with pytest.raises(PermissionError, match="got status 403"):
        pull_folder(NAME, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    hub.refuse_paths = {}
    assert (pull_folder(NAME, tmp_path / "pulled") / "model.safetensors").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# ----- check ---------------------------------------------------------------------------------------------------------


def test_check_loads_a_whole_folder_in_a_clean_interpreter(saved, tmp_path, capsys):
    assert main(["card", str(saved), "--results", str(write_results(tmp_path / "zero_shot"))]) == 0
    assert main(["check", str(saved)]) == 0
    lines = dict(line.split(None, 2)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("ok"))
    assert lines["results"] == "3 figures of the card are in 2 file(s)"
    assert "ESIModel and ESIProcessor, a record gives (1, 28)" in lines["load"]
    assert "pipelines ecg-feature-extraction, ecg-to-text, zero-shot-ecg-classification" in lines["load"]


@pytest.mark.slow
def test_a_folder_that_lost_a_file_does_not_load(saved):
    (saved / "lead_names.py").unlink()
    verdict, detail = found_in(saved)["load"]
    assert verdict == "fail" and "lead_names" in detail


def test_strange_code_runs_only_when_trusted(saved):
    (saved / "modeling_esi.py").write_text("open('ran', 'w')\n" + (saved / "modeling_esi.py").read_text())
    verdict, detail = found_in(saved)["load"]
    assert verdict == "note" and "it runs modeling_esi.py, not this package's code" in detail


def change_weights(folder: Path, value: float) -> None:
    model = tiny_model()
    model.ecg_norm.weight.data[3] = value
    model.save_pretrained(folder)


def change_result(folder: Path, name: str, value: float) -> None:
    path = folder / "results.json"
    found = json.loads(path.read_text())
    found["trained"][name] = value
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "what", "verdict", "said"),
    [
        (lambda folder: change_weights(folder, 2.0), "hashes", "fail", "describes other weights"),
        (lambda folder: change_weights(folder, float("nan")), "weights", "fail", "ecg_norm.weight"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"1234"), "weights", "fail", "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "weights", "fail", "got none"),
        (lambda folder: torch.save({}, folder / "x.txt"), "pickles", "fail", "x.txt"),
        (lambda folder: (folder / "x.md").write_bytes(pickle.dumps([1])), "pickles", "fail", "x.md"),
        (lambda folder: change_result(folder, "test/macro_auroc", 0.92), "results", "fail", "test/macro_auroc"),
        (lambda folder: change_result(folder, "test/macro_auroc_low", 0.1), "results", "fail", "test/macro_auroc"),
        (lambda folder: change_result(folder, "test/caption_loss", 0.1), "results", "fail", "test/caption_loss"),
        (lambda folder: (folder / "results.json").unlink(), "results", "note", "2 figures of the card cannot be held"),
        (lambda folder: (folder / "results.json").write_text("[]"), "results", "fail", "expected results"),
        (lambda folder: (folder / "README.md").write_text("# Mine\n"), "licence", "fail", "got ''"),
        (lambda folder: (folder / "README.md").unlink(), "hashes", "note", "names none"),
    ],
)
def test_check_finds_it(saved, no_load, change, what, verdict, said):
    before = found_in(saved)
    assert {before[name][0] for name in ("pickles", "weights", "hashes", "licence", "results")} == {"ok"}
    change(saved)
    after = found_in(saved)
    assert after[what][0] == verdict and said in after[what][1], after[what]


def test_shards_of_two_models_are_no_model(tmp_path, no_load):
    sharded = save(tmp_path / "sharded", max_shard_size="100KB")
    assert found_in(sharded)["weights"][0] == "ok"
    first = sorted(sharded.glob("*.safetensors"))[0]
    content = first.read_bytes()
    first.unlink()
    assert f"expected {first.name} of model.safetensors.index.json too" in found_in(sharded)["weights"][1]
    first.write_bytes(content)
    (sharded / "model.safetensors").write_bytes(content)
    assert "model.safetensors: not in model.safetensors.index.json" in found_in(sharded)["weights"][1]


def test_a_repository_is_checked_and_one_with_a_pickle_is_not_even_downloaded(hub, saved, no_load, capsys):
    push(saved)
    assert main(["check", NAME]) == 0
    assert "ok    hashes" in capsys.readouterr().out
    hub.files(NAME)["old/pytorch_model.bin"] = b"1"
    assert main(["check", NAME]) == 1
    assert "old/pytorch_model.bin: can run code when loaded; nothing was downloaded" in capsys.readouterr().out


# ----- command line --------------------------------------------------------------------------------------------------


def test_the_commands(hub, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert main(["push", str(saved), NAME, "--private", "--message", "First"]) == 0
    assert capsys.readouterr().out == f"{hub.url}/{NAME}/commit/{1:040x}\n" and hub.messages == ["First"]
    assert main(["pull", NAME, str(tmp_path / "pulled"), "--trust_remote_code"]) == 0
    assert "model.safetensors, modeling_esi.py" in capsys.readouterr().out
    (tmp_path / "pulled" / "README.md").unlink()
    assert main(["card", str(tmp_path / "pulled")]) == 1
    assert "write one first, with --license" in capsys.readouterr().err
    facts = ["--license", "odbl", "--training_data", "Our records.", "--data_license", "ours", "--label_supervised"]
    assert main(["card", str(tmp_path / "pulled"), *facts]) == 0
    card = ModelCard.load(tmp_path / "pulled" / "README.md")
    assert card.data.license == "odbl" and "Licences of the data: ours" in card.text and "Label-supervised" in card.text
    assert main(["push", str(tmp_path), NAME]) == 1
    assert "expected a saved model with its card, got none of config.json" in capsys.readouterr().err
