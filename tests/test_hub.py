"""The card says facts and nothing else; the code in it runs; a push is one commit, or an error that says what to do."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from modeling_esi import (
    ESIConfig,
    ESIEcgModel,
    ESIFeatureExtractor,
    ESIForECGClassification,
    ESIModel,
    ESIProcessor,
)
from modeling_esi.hub import push_folder, write_model_card
from modeling_esi.model_card import is_hub_id

PAPER_URL = "https://arxiv.org/abs/2405.19366"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sinus", "rhythm", "left", "bundle", "branch", "block"]
TEXT = {
    "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 36, "num_hidden_layers": 1,
    "num_attention_heads": 3, "intermediate_size": 37, "max_position_embeddings": 99,
}  # fmt: skip
ECG = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 40]}
DECODER = {
    "hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16, "bos_token_id": 2,
    "eos_token_id": 3,
}  # fmt: skip
FACTS = {"license": "cc-by-4.0", "training_data": "PTB-XL folds 1-8: 17,084 records, split by patient."}
RESULT = {
    "trained": {
        "test/auroc/AFIB": 0.91, "test/auroc/WPW": None, "test/macro_auroc": 0.91, "test/macro_auroc_low": 0.88,
        "test/macro_auroc_high": 0.93, "test/num_positives/AFIB": 152, "test/num_positives/WPW": 0,
        "test/num_records": 2158, "test/labels_left_out": ["WPW"], "test/ecg_to_text/recall@1": 0.25,
        "test/ln_batch": 3.87,
    },
    "random_weights": {"test/macro_auroc": 0.52, "test/auroc/AFIB": 0.55, "test/ecg_to_text/recall@1": 0.01},
    "dataset": "PTB-XL rhythm",
    "protocol": "zero-shot, own prompts, 200 resamples of patients",
    "seen_in_training": False,
}  # fmt: skip


def tiny_model(variant: str = "esi") -> ESIModel:
    torch.manual_seed(0)
    return ESIModel(
        ESIConfig.from_variant(variant, ecg_config=ECG, text_config=TEXT, decoder_config=DECODER, projection_dim=28)
    )


def tiny_processor() -> ESIProcessor:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    return ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=2.0), tokenizer)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "esi-ecg"


def sections(path: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", ModelCard.load(path).text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# ----- facts ---------------------------------------------------------------------------------------------------------


def test_metadata_round_trip(folder):
    path = write_model_card(
        folder,
        tiny_model(),
        **FACTS,
        base_model="michiyasunaga/BioLinkBERT-base",
        results=RESULT,
        language=["de", "en"],
    )
    data = ModelCard.load(path).data.to_dict()
    assert path == folder / "README.md"
    assert data["license"] == "cc-by-4.0" and data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "feature-extraction" and data["language"] == ["de", "en"]
    assert data["base_model"] == "michiyasunaga/BioLinkBERT-base"
    assert {"ecg", "electrocardiogram", "contrastive-learning"} <= set(data["tags"])
    (index,) = data["model-index"]
    (result,) = index["results"]
    assert index["name"] == "esi-ecg"
    assert result["dataset"] == {"name": "PTB-XL rhythm", "type": "ptb-xl_rhythm", "split": "test"}
    macro = next(metric for metric in result["metrics"] if metric["type"] == "roc_auc")
    assert macro["value"] == 0.91 and macro["name"] == "test/macro_auroc"
    assert macro["args"] == {
        "protocol": RESULT["protocol"], "interval_95_low": 0.88, "interval_95_high": 0.93, "random_weights": 0.52,
    }  # fmt: skip
    assert [metric["name"] for metric in result["metrics"]] == ["test/macro_auroc", "test/ecg_to_text/recall@1"]


def test_results_stand_beside_floor_interval_and_protocol(folder):
    text = sections(write_model_card(folder, tiny_model(), **FACTS, results=RESULT))["Results"]
    assert "| test/macro_auroc | 0.9100 | 0.8800 to 0.9300 | 0.5200 |" in text
    assert "| test/auroc/AFIB | 0.9100 | 0.5500 | 152 |" in text
    assert "not in the mean): WPW." in text and "`test/num_records`: 2,158." in text
    assert "Protocol: zero-shot, own prompts, 200 resamples of patients." in text
    assert "**Leakage.** Trained on: PTB-XL folds 1-8" in text and "PTB-XL rhythm: no." in text
    bare = {"trained": {"macro_auroc": 0.9}}
    text = sections(write_model_card(folder, tiny_model(), **FACTS, results=[bare]))["Results"]
    assert "Data: not stated. Protocol: not stated." in text and "| 0.9000 | not stated | not stated |" in text
    assert "Were the records of the evaluation in training? evaluation data: not stated." in text
    with pytest.raises(ValueError, match=r"expected a mapping with 'trained', .* got \['macro_auroc'\]"):
        write_model_card(folder, tiny_model(), **FACTS, results={"macro_auroc": 0.9})


def test_what_nobody_stated_is_said_to_be_missing(folder):
    path = write_model_card(folder, tiny_model(), license="mit", training_data="")
    text = sections(path)
    assert (
        "training data are not stated" in text["Training data"] and "Started from: not stated." in text["Training data"]
    )
    assert "recipe is not stated" in text["Training recipe"]
    assert "No evaluation results are stated" in text["Results"]
    assert "how the signals were prepared is not stated" in text["Input"]
    assert "Not a medical device" in text["Intended use and limits"]
    assert PAPER_URL in text["Citation"]
    data = ModelCard.load(path).data.to_dict()
    assert not {"model-index", "base_model", "language"} & set(data)


def test_architecture_is_read_off_the_model(folder):
    model = tiny_model()
    tiny_processor().save_pretrained(folder)
    text = sections(
        write_model_card(
            folder, model, **FACTS, recipe={"lr": 5e-5, "warmup": None}, data_licenses={"PTB-XL": "CC BY 4.0"}
        )
    )
    assert f"| parameters | {sum(p.numel() for p in model.parameters()):,} |" in text["Architecture"]
    assert "[8, 16, 24, 40]" in text["Architecture"] and "**Variant `esi`**" in text["Architecture"]
    assert "| sampling_rate | 100 |" in text["Input"] and "| duration | 2.0 |" in text["Input"]
    assert "| lr | 5e-05 |" in text["Training recipe"] and "warmup" not in text["Training recipe"]
    assert "| PTB-XL | CC BY 4.0 |" in text["Training data"]
    assert "Generated reports can be fluent and wrong" in text["Intended use and limits"]


def test_the_released_variant_is_not_said_to_write_reports(folder):
    path = write_model_card(folder, tiny_model("released"), license="gpl-3.0", training_data="published weights")
    text = sections(path)
    assert "**Variant `released`**" in text["Architecture"]
    assert "generate(" not in text["How to use"] and "cannot write reports" in text["Intended use and limits"]
    assert "report-generation" not in ModelCard.load(path).data.tags


@pytest.mark.parametrize("supervised", [True, False])
def test_label_supervised_text_is_a_warning(folder, supervised):
    text = write_model_card(
        folder, tiny_model(), **FACTS, results=RESULT, text_is_label_supervised=supervised
    ).read_text()
    assert ("label-supervised, and not comparable" in text) == supervised


# ----- licence and paths ---------------------------------------------------------------------------------------------


def test_gpl_weights_stay_gpl(folder):
    path = write_model_card(folder, tiny_model(), license="GPL-3.0", training_data="published weights")
    assert ModelCard.load(path).data.license == "gpl-3.0"
    assert "`gpl-3.0`. This is the licence of the weights" in sections(path)["Licence"]


@pytest.mark.parametrize("license", ["", "  ", None, "Apache 2.0", "see below"])
def test_a_licence_that_is_none_is_refused(folder, license):
    with pytest.raises(ValueError, match="license: expected the Hub's identifier"):
        write_model_card(folder, tiny_model(), license=license, training_data="x")
    assert not folder.exists()


def test_no_path_of_this_machine_enters_a_card(folder, tmp_path):
    encoder = tmp_path / "text-encoder"
    encoder.mkdir()
    path = write_model_card(
        folder,
        tiny_model(),
        license="mit",
        training_data=f"records of {tmp_path}/ptbxl/v1.0.3, listed in ~/lists/train.csv and ../shared/more.csv",
        base_model=[str(encoder), "michiyasunaga/BioLinkBERT-base"],
        results=RESULT | {"dataset": f"PTB-XL ({tmp_path}/x)", "protocol": r"split of C:\data\split.csv"},
        recipe={"data_dir": tmp_path, "meta": f"{tmp_path}/a b.csv", "options": {"files": [f"{tmp_path}/c d"]}},
        data_licenses={"PTB-XL": f"CC BY 4.0, https://physionet.org/content/ptb-xl/, {tmp_path}/LICENSE"},
    )
    text = path.read_text()
    for leak in (
        str(tmp_path),
        tmp_path.name,
        "lists",
        "more.csv",
        "split.csv",
        "a b.csv",
        "c d",
        "LICENSE",
        "text-encoder",
    ):
        assert leak not in text, leak
    assert ModelCard.load(path).data.base_model == "michiyasunaga/BioLinkBERT-base"
    assert "https://physionet.org/content/ptb-xl/" in text and PAPER_URL in text
    assert "a local folder, whose origin is not stated" in text


def test_ordinary_slashes_are_no_paths(folder):
    said = "500 Hz and/or 100 Hz, 60/min, I/II, train/validation/test, see https://example.org/a/b, (1)/(2)"
    text = write_model_card(folder, tiny_model(), license="mit", training_data=said).read_text()
    assert said in text


def test_names_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bert").mkdir(parents=True)
    assert is_hub_id("michiyasunaga/BioLinkBERT-base") and is_hub_id("bert-base-uncased")
    for name in ("runs/bert", "./runs/bert", str(tmp_path), "a/b/c", "~", "", None, tmp_path):
        assert not is_hub_id(name)


# ----- the code in the card ------------------------------------------------------------------------------------------


def run_clean(code: str, folder: Path) -> str:
    """Output of code in a new interpreter beside the folder, without this package and with empty caches."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    blocker = "import sys\nsys.modules['modeling_esi'] = None  # as where it is not installed\n"
    done = subprocess.run(
        [sys.executable, "-c", blocker + code], cwd=folder.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_of(path: Path) -> str:
    return re.search(r"```python\n(.*?)```", sections(path)["How to use"], re.DOTALL)[1]


def test_the_code_in_the_card_runs_as_written(folder):
    model = tiny_model()
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    output = run_clean(code_of(write_model_card(folder, model, **FACTS)), folder)
    assert re.match(r"tensor\(\[\[-?\d\.\d+,\s+-?\d\.\d+\]\]\)", output)


@pytest.mark.parametrize("model_class", [ESIModel, ESIEcgModel, ESIForECGClassification])
def test_the_code_runs_with_the_package_too(folder, model_class, monkeypatch, capsys):
    config = tiny_model().config
    config.id2label = {0: "AFIB", 1: "NORM", 2: "LBBB"}
    model = model_class(config.ecg_config if model_class is ESIEcgModel else config)
    model.save_pretrained(folder)
    processor = tiny_processor()
    (processor if model_class is ESIModel else processor.feature_extractor).save_pretrained(folder)
    path = write_model_card(folder, model, **FACTS)
    monkeypatch.chdir(folder.parent)
    exec(code_of(path).replace(", trust_remote_code=True", ""), {})
    expected = {ESIModel: "tensor", ESIEcgModel: "torch.Size([1, 40])", ESIForECGClassification: "{'AFIB': 0."}
    assert expected[model_class] in capsys.readouterr().out
    assert ModelCard.load(path).data.pipeline_tag == (None if "Class" in model_class.__name__ else "feature-extraction")


# ----- push ----------------------------------------------------------------------------------------------------------


class HubDouble(BaseHTTPRequestHandler):
    """As much of the Hub as one push needs; it keeps what was asked and what was committed."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(self.path)
        if self.server.refuse:
            return self.answer({"error": "unauthorized"}, 401)
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.answer({"url": f"{self.server.url}/someone/{json.loads(body)['name']}"})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path.endswith("/commit/main"):
            self.server.commits.append([json.loads(line) for line in body.splitlines()])
            self.answer({"commitUrl": f"{self.server.url}/someone/esi/commit/abc", "commitOid": "abc"})
        else:
            self.answer({"errors": [], "warnings": []})  # validate-yaml

    def do_GET(self):
        self.answer({"error": "not found"}, 404 if not self.server.refuse else 401)

    def answer(self, content, status=200):
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubDouble)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.commits, server.refuse, server.created = [], [], False, None
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def saved(folder) -> Path:
    model = tiny_model()
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    write_model_card(folder, model, **FACTS)
    (folder / "checkpoint-7").mkdir()
    (folder / "checkpoint-7" / "optimizer.bin").write_bytes(b"1")
    (folder / ".hidden").write_text("x")
    return folder


def test_push_is_one_commit_of_all_files(hub, saved):
    local = (saved / "README.md").read_text()
    url = push_folder(saved, "esi", private=True, token="hf_of_nobody", commit_message="A better one")
    assert url.endswith("/someone/esi/commit/abc") and len(hub.commits) == 1
    assert hub.created["name"] == "esi"
    header, *files = hub.commits[0]
    assert header["value"]["summary"] == "A better one"
    content = {file["value"]["path"]: base64.b64decode(file["value"]["content"]) for file in files}
    assert set(content) == {path.name for path in saved.iterdir()} - {"checkpoint-7", ".hidden"}
    assert {"model.safetensors", "config.json", "modeling_esi.py", "processor_config.json"} <= set(content)
    assert 'model_id = "someone/esi"  # this folder' in content["README.md"].decode()
    assert (saved / "README.md").read_text() == local and 'model_id = "esi-ecg"' in local
    assert content["model.safetensors"] == (saved / "model.safetensors").read_bytes()


def test_push_without_permission_says_what_to_do(hub, saved):
    hub.refuse = True
    with pytest.raises(PermissionError, match=r"got status 401 .* run `hf auth login`"):
        push_folder(saved, "someone/esi", token="hf_of_nobody")
    assert not hub.commits


def test_push_without_network_says_what_to_do(monkeypatch, saved):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConnectionError, match="expected to reach http://127.0.0.1:9, got .*HF_HUB_OFFLINE"):
        push_folder(saved, "someone/esi", token="hf_of_nobody")


def test_push_refuses_a_folder_without_card_or_licence(hub, saved):
    with pytest.raises(ValueError, match="Repo id must"):
        push_folder(saved, "not a name/x", token="hf_of_nobody")
    card = (saved / "README.md").read_text()
    (saved / "README.md").write_text(card.replace("license: cc-by-4.0\n", ""))
    with pytest.raises(ValueError, match="license: expected"):
        push_folder(saved, "someone/esi")
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match="got none of README.md: model.save_pretrained"):
        push_folder(saved, "someone/esi")
    assert not hub.asked
