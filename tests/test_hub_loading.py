"""A saved folder loads where this package is not: and again when re-saved."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_esi import tiny_esi
from transformers import AutoModel, AutoProcessor

from modeling_esi import ESIFeatureExtractor, ESIProcessor
from modeling_esi.training.text_from_scratch import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
LEADS = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]

# Runs in the other interpreter: sys.argv is [script, folder, where to re-save].
LOAD_REMOTE = """
    import sys

    class Blocked:  # stands for an interpreter in which this package was never installed
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("modeling_esi", "datasets_scripts", "configuration_esi"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocked())
    import numpy as np
    import torch
    from transformers import (
        AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, AutoProcessor,
    )

    folder, again = sys.argv[1:]
    for place in (folder, again):
        config = AutoConfig.from_pretrained(place, trust_remote_code=True)
        assert config.model_type == "esi", config.model_type
        model = AutoModel.from_pretrained(place, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=True)
        assert type(processor).__name__ == "ESIProcessor", type(processor)
        door = AutoFeatureExtractor.from_pretrained(place, trust_remote_code=True)
        assert type(door).__name__ == "ESIFeatureExtractor", type(door)
        signal = np.load(folder + "/signal.npy", allow_pickle=False)
        leads = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
        inputs = processor(signal, ["sinus rhythm"], sampling_rate=250, leads=leads)
        with torch.no_grad():
            output = model(**inputs, return_loss=True)
            written = model.generate(**door(signal, sampling_rate=250, leads=leads), max_new_tokens=3)
        assert written.shape[1] <= 4
        print("ecg", *output.ecg_embeds[0, :5].tolist())
        classifier = AutoModelForSequenceClassification.from_pretrained(place, num_labels=3, trust_remote_code=True)
        assert classifier.config.num_labels == 3
        if place == folder:
            model.save_pretrained(again)
            processor.save_pretrained(again)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved ESI with its processor, and a signal to try it on."""
    path = tmp_path_factory.mktemp("saved") / "esi-ecg"
    tokenizer = train_tokenizer(["sinus rhythm", "atrial fibrillation"], vocab_size=60, max_text_length=20)
    model = tiny_esi("esi")
    model.config.decoder_config.bos_token_id = tokenizer.cls_token_id
    model.config.decoder_config.eos_token_id = tokenizer.sep_token_id
    model.save_pretrained(path)
    ESIProcessor(ESIFeatureExtractor(sampling_rate=100, duration=5.0), tokenizer).save_pretrained(path)
    np.save(path / "signal.npy", np.random.default_rng(0).normal(size=(8, 1100)).astype(np.float32))
    return path


def expected_embedding(folder):
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    signal = np.load(folder / "signal.npy", allow_pickle=False)
    with torch.no_grad():
        features = model.get_ecg_features(**processor.feature_extractor(signal, sampling_rate=250, leads=LEADS))
    return features[0, :5].numpy()


def check_remote_load(python, folder, tmp_path):
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent(LOAD_REMOTE))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(script), str(folder), str(tmp_path / "again")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("ecg")]
    assert len(lines) == 2
    for values in lines:
        np.testing.assert_allclose(np.array(values, dtype=float), expected_embedding(folder), rtol=1e-4, atol=1e-6)


def test_with_the_package_no_remote_code_is_needed(folder):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model).__module__.startswith("modeling_esi.")
    assert type(processor).__module__.startswith("modeling_esi.")


def test_saved_code_is_flat_and_complete(folder):
    names = {path.name for path in folder.glob("*.py")}
    assert {"modeling_esi.py", "configuration_esi.py", "processing_esi.py", "convnextv2_1d.py"} <= names
    assert not {"hub.py", "convert_released_checkpoint.py", "text_from_scratch.py"} & names


def test_loads_without_the_package(folder, tmp_path):
    check_remote_load(sys.executable, folder, tmp_path)


@pytest.mark.slow
def test_loads_in_a_clean_environment(folder, tmp_path):
    """Nothing installed but torch, transformers, numpy and safetensors (and what they need)."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "torch", "transformers", "numpy"]
    subprocess.run([*install, "safetensors"], check=True, timeout=900)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "datasets" not in listed and "scipy" not in listed and "esi-ecg" not in listed
    check_remote_load(python, folder, tmp_path)
