"""The card says facts and nothing else, and the code in it runs; results come in, other weights make it another."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

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
from modeling_esi.card_changes import add_results, card_before_push, new_card
from modeling_esi.card_results import read_results
from modeling_esi.model_card import hashes_in, is_hub_id, weight_hashes, write_model_card

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
    assert text.startswith("\nTrained on: PTB-XL folds 1-8") and "### PTB-XL rhythm\n" in text
    assert "**Leakage.** Were the records of the evaluation in training? No." in text
    bare = {"trained": {"macro_auroc": 0.9}}
    text = sections(write_model_card(folder, tiny_model(), **FACTS, results=[bare]))["Results"]
    assert "Data: not stated. Protocol: not stated." in text and "| 0.9000 | not stated | not stated |" in text
    assert "Were the records of the evaluation in training? Not stated." in text
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
    assert "How the signals were prepared is not stated" in text["Input"]
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
    """The card's code blocks, one after the other."""
    return "".join(re.findall(r"```python\n(.*?)```", sections(path)["How to use"], re.DOTALL))


@pytest.mark.slow  # the code of a pushed card runs in test_hub
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


# ----- what changes in a card ----------------------------------------------------------------------------------------

EVALUATED = {
    "name": "zero_shot", "dataset": "ptb_xl/test", "protocol": "What was done.", "task_type": "zero-shot",
    "trained": {"form/macro_auroc": 0.75, "form/macro_auroc_low": 0.7, "form/macro_auroc_high": 0.8},
    "random_weights": {"form/macro_auroc": 0.51}, "left_out": {"WPW": "no positives"}, "seen_in_training": False,
    "leakage": "ptb_xl is not among them.", "notes": ["Read ~/notes/x.txt."],
}  # fmt: skip


@pytest.fixture
def saved(folder) -> Path:
    """A model with its card, and one result in it."""
    model = tiny_model()
    model.save_pretrained(folder)
    write_model_card(folder, model, **FACTS, results=RESULT, recipe={"lr": 5e-5})
    return folder


def write_results(place: Path, **changes) -> Path:
    place.mkdir(exist_ok=True)
    (place / "results.json").write_text(json.dumps(EVALUATED | changes | {"settings": {"data_dir": str(place)}}))
    return place


def test_results_of_an_evaluation_come_into_the_card_and_stay_beside_it(saved, tmp_path):
    place = write_results(tmp_path / "zero_shot")
    assert add_results(saved, [place]) == ["results_zero_shot_on_ptb_xl_test.json"]
    text, card = sections(saved / "README.md")["Results"], ModelCard.load(saved / "README.md")
    assert "### PTB-XL rhythm\n" in text and "### zero_shot on ptb_xl/test\n" in text
    assert "| form/macro_auroc | 0.7500 | 0.7000 to 0.8000 | 0.5100 |" in text
    assert "Left out, no positives: WPW." in text and "training? No: ptb_xl is not among them." in text
    found = {entry.metric_name: entry for entry in card.data.eval_results}
    assert set(found) == {"test/macro_auroc", "test/ecg_to_text/recall@1", "form/macro_auroc"}
    assert found["form/macro_auroc"].metric_args["evaluation"] == "zero_shot"
    kept = (saved / "results_zero_shot_on_ptb_xl_test.json").read_text()
    assert str(tmp_path) not in kept and "notes/x" not in kept + text and "settings" not in kept
    assert read_results(saved / "results_zero_shot_on_ptb_xl_test.json")["weights"] == weight_hashes(saved)


def test_a_later_result_replaces_the_earlier_one_of_its_kind(saved, tmp_path):
    add_results(saved, [write_results(tmp_path / "a"), write_results(tmp_path / "b", name="linear_probe")])
    before = (saved / "README.md").read_text()
    add_results(saved, [write_results(tmp_path / "b", name="linear_probe")])
    assert (saved / "README.md").read_text() == before
    add_results(saved, [write_results(tmp_path / "a", trained={"form/macro_auroc": 0.99})])
    text = sections(saved / "README.md")["Results"]
    assert text.count("### zero_shot on ptb_xl/test") == 1 and text.count("### linear_probe on ptb_xl/test") == 1
    values = [entry.metric_value for entry in ModelCard.load(saved / "README.md").data.eval_results]
    assert sorted(values) == [0.25, 0.75, 0.91, 0.99]


def test_what_is_no_result_is_refused(saved, tmp_path):
    with pytest.raises(FileNotFoundError):
        add_results(saved, [tmp_path])
    (tmp_path / "results.json").write_text('{"figures": 1}')
    with pytest.raises(ValueError, match=r"results.json: expected results of an evaluation, got .*'trained'"):
        add_results(saved, [tmp_path])
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match="expected README.md, got none: write one first, with --license"):
        add_results(saved, [write_results(tmp_path)])


def test_a_licence_is_corrected_and_the_rest_stays(saved):
    before = (saved / "README.md").read_text()
    new_card(saved, license="GPL-3.0", training_data="")
    after = (saved / "README.md").read_text()
    assert before.replace("license: cc-by-4.0", "license: gpl-3.0").replace("`cc-by-4.0`", "`gpl-3.0`") == after


def test_a_card_of_other_weights_says_nothing_of_these(saved):
    torch.manual_seed(1)
    model = tiny_model()
    model.ecg_norm.weight.data.fill_(2.0)
    model.save_pretrained(saved)
    assert hashes_in((saved / "README.md").read_text()) != weight_hashes(saved)
    with pytest.raises(ValueError, match="its card describes other weights: write it anew first"):
        add_results(saved, [])
    new_card(saved, license="mit", training_data="500 records of ours.", base_model="someone/esi")
    text, card = sections(saved / "README.md"), ModelCard.load(saved / "README.md")
    assert hashes_in((saved / "README.md").read_text()) == weight_hashes(saved)
    assert "500 records of ours." in text["Training data"] and card.data.base_model == "someone/esi"
    assert "No evaluation results are stated." in text["Results"] and card.data.eval_results is None
    with pytest.raises(ValueError, match="expected a model of this package, config.json says no class"):
        (saved / "config.json").write_text("{}")
        new_card(saved, license="mit", training_data="x")


def test_the_card_of_a_plain_push(saved, tmp_path):
    """That of transformers is replaced; one that people wrote stays; of old weights only words are taken over."""
    model, place = tiny_model(), tmp_path / "tmpx1"
    model.save_pretrained(place)
    (place / "README.md").write_text("---\ntags: []\n---\nThis model card has been automatically generated.")
    card_before_push(model, place, "someone/tuned")
    text, card = sections(place / "README.md"), ModelCard.load(place / "README.md")
    assert card.data.license == "other" and 'model_id = "someone/tuned"' in text["How to use"]
    assert "# tuned\n" in card.text and "trained on last is not stated" in text["Training data"]
    mine = "---\nlicense: mit\n---\n# Mine\n"
    (place / "README.md").write_text(mine)
    card_before_push(model, place, "someone/tuned")
    assert (place / "README.md").read_text() == mine
    (place / "README.md").write_text((saved / "README.md").read_text())
    card_before_push(model, place, "someone/tuned")  # the same weights: it stays
    assert "### PTB-XL rhythm" in (place / "README.md").read_text()
    model.ecg_norm.weight.data.fill_(2.0)
    model.save_pretrained(place)
    card_before_push(model, place, "someone/tuned")
    text, card = sections(place / "README.md"), ModelCard.load(place / "README.md")
    assert card.data.eval_results is None and card.data.license == "cc-by-4.0"
    assert "The card of the weights before them, under the licence `cc-by-4.0`, said:" in text["Training data"]
    assert "> PTB-XL folds 1-8: 17,084 records, split by patient." in text["Training data"]
