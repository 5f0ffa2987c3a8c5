"""The same task on changed records: figures, paired changes, what is left out, tables and pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers.feature_extraction_utils import BatchFeature

from datasets_scripts.records import ECGRecord, record_to_row, row_features
from modeling_esi import ESIFeatureExtractor
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.linear_probe import run as linear_probe
from modeling_esi.evaluation.robustness import run


class PlaneConfig:
    """Just enough of a configuration for a model to be built again, and hashed."""

    def to_json_string(self) -> str:
        return "plane"


class PlaneModel(nn.Module):
    """Says "big" of an ECG by how strong lead V1 is against lead II; random weights: by a random sum of the two."""

    def __init__(self, config: PlaneConfig):
        super().__init__()
        self.config = config
        self.mix = nn.Parameter(torch.randn(2, 2))

    def get_ecg_features(self, input_values, lead_mask=None, sample_mask=None):
        strength = input_values.square().mean(dim=-1).sqrt()  # (B, 12)
        ratio = strength[:, 6] / (strength[:, 1] + 1e-9)  # 0 where V1 is masked
        return nn.functional.normalize(torch.stack([torch.ones_like(ratio), ratio], dim=-1) @ self.mix, dim=-1)

    def ecg_model(self, **inputs):
        return SimpleNamespace(pooler_output=self.get_ecg_features(**inputs))

    def get_text_features(self, input_ids, attention_mask=None):
        return nn.functional.one_hot(input_ids[:, 0], 2).float()


class Words:
    """A processor: each text is a number."""

    max_text_length = 5

    def __init__(self):
        self.feature_extractor = ESIFeatureExtractor(sampling_rate=100, duration=2.0, scaling="none")

    def __call__(self, text, return_tensors=None):
        return BatchFeature({"input_ids": torch.tensor([[int(t == "big")] for t in text])})


def rows(number: int = 60) -> Dataset:
    """Records of two patients each; "big" where V1 is strong."""
    rng = np.random.default_rng(0)
    stored = []
    for i in range(number):
        is_big = bool(rng.random() < 0.5)
        strength = np.array([1.0, 1.0, 1.6 if is_big else 1.0])[:, None] * rng.uniform(0.9, 1.1, (3, 1))
        signal = (strength * rng.normal(size=(3, 250))).astype(np.float32)
        names = {
            "record_id": f"r{i}",
            "patient_id": f"p{i // 2}",
            "sex": ("female", "male")[i % 4 // 2],
            "labels": ("big",) if is_big else ("small",),
        }
        stored.append(record_to_row(ECGRecord(signal, ("I", "II", "V1"), 125.0, **names)))
    return Dataset.from_list(stored, features=row_features("float32"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    path.write_text('{"big": "big", "small": "small"}')
    return str(path)


def context(tmp_path, **settings) -> EvaluationContext:
    model = PlaneModel(PlaneConfig()).eval()
    with torch.no_grad():
        model.mix.copy_(torch.eye(2))
    return EvaluationContext(
        model, Words(), "toy", dataset_rows={"test": rows()}, num_resamples=20, output=tmp_path, **settings
    )


def test_figures_changes_and_what_is_left_out(tmp_path, prompts):
    judged = context(tmp_path, cache_dir=tmp_path / "cache")
    result = run(judged, changes=("leads", "noise", "duration"), prompts=prompts)
    table = {(row["kind"], row["value"]): row for row in result.tables["Robustness"]}
    clean = table["clean", 0.0]
    assert clean["macro_auroc"] > 0.95 and clean["change"] == 0.0 and clean["num_records"] == 60
    # lead V1 is what tells: without it every record looks the same
    assert table["leads", 2]["macro_auroc"] == 0.5 and table["leads", 2]["num_records"] == 60
    assert table["leads", 2]["change"] == pytest.approx(0.5 - clean["macro_auroc"])
    assert table["leads", 2]["change_high"] < 0
    # the records have no V2: no figure, and the reason
    assert table["leads", 3]["macro_auroc"] is None and table["leads", 3]["num_records"] == 0
    reason = result.left_out["leads/3, 60 of 60 records"]
    assert "leave out V2" in reason
    # as much noise as signal in every lead leaves their ratio
    assert table["white", 24]["macro_auroc"] == pytest.approx(clean["macro_auroc"], abs=0.02)
    assert table["duration", 10.0]["change"] == 0.0
    task = "toy"
    assert result.trained[f"{task}/clean/macro_auroc"] == clean["macro_auroc"]
    assert result.trained[f"{task}/noise/white/24dB/macro_auroc_low"] <= table["white", 24]["macro_auroc"]
    assert result.random_weights.keys() <= result.trained.keys()
    assert "toy/clean/macro_auroc" in result.random_weights
    assert (tmp_path / "robustness.png").stat().st_size > 5000 and (tmp_path / "robustness.svg").is_file()
    result.save(tmp_path)
    assert "noise/powerline/0dB" in (tmp_path / "results.md").read_text()
    assert "noise/powerline/0dB" in result.to_text()


def test_embeddings_of_changed_records_are_kept(tmp_path, prompts, monkeypatch):
    first = run(context(tmp_path, cache_dir=tmp_path / "cache"), changes=("duration",), prompts=prompts)
    monkeypatch.setattr(PlaneModel, "get_ecg_features", None)  # a second time nothing is computed
    again = run(context(tmp_path, cache_dir=tmp_path / "cache"), changes=("duration",), prompts=prompts)
    assert again.trained == first.trained


def test_a_probe_of_unchanged_embeddings_is_judged(tmp_path):
    np.savez(
        tmp_path / "probe.npz", coef=[[1.0, -1.0], [-1.0, 1.0]], intercept=[0.0, 0.3], label_names=["small", "big"]
    )
    result = run(context(tmp_path), changes=("duration",), probe=str(tmp_path / "probe.npz"))
    assert result.trained["toy/clean/macro_auroc"] > 0.95 and not result.random_weights
    assert "linear probe" in result.protocol


def test_a_second_model_is_compared_in_pairs_on_each_change(tmp_path, prompts):
    other = PlaneModel(PlaneConfig()).eval()
    with torch.no_grad():
        other.mix.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # says "big" of what is small
    result = run(context(tmp_path, compare=(other, Words())), changes=("duration",), prompts=prompts)
    clean = result.trained["toy/clean/macro_auroc"]
    assert result.compared["toy/clean/macro_auroc/other"] == pytest.approx(1 - clean)
    assert result.compared["toy/clean/macro_auroc/difference"] == pytest.approx(2 * clean - 1)
    assert result.compared["toy/duration/5s/macro_auroc/difference_low"] > 0.5
    assert not [key for key in result.compared if "auprc" in key]


def test_subgroups_of_each_change_hold_their_counts(tmp_path, prompts):
    result = run(context(tmp_path), changes=("leads",), prompts=prompts, subgroups=True, floor=False)
    table = {(row["change"], row["attribute"], row["group"]): row for row in result.tables["Subgroups"]}
    women, men = (table["clean", "sex", sex] for sex in ("female", "male"))
    assert women["num_records"] + men["num_records"] == table["clean", "all", "all"]["num_records"] == 60
    assert women["macro_auroc_low"] <= women["macro_auroc"] <= women["macro_auroc_high"]
    assert table["leads/2", "sex", "male"]["macro_auroc"] == 0.5
    assert not [row for row in result.tables["Subgroups"] if row["change"] == "leads/3"]  # no record could be changed


def splits() -> dict[str, Dataset]:
    stored = rows(120)
    return {name: stored.select(range(40 * i, 40 * i + 40)) for i, name in enumerate(("train", "validation", "test"))}


def test_a_probe_is_fitted_on_unchanged_training_records_for_each_model(tmp_path):
    judged = context(tmp_path, compare=(PlaneModel(PlaneConfig()).eval(), Words()))
    judged.dataset_rows = splits()
    result = run(judged, changes=("leads",), probe="fit")
    assert result.trained["toy/clean/macro_auroc"] > 0.95 and result.settings["probe"] == "fit"
    assert result.trained["toy/leads/2/macro_auroc"] == 0.5  # without V1 every record is the same to the probe, too
    assert "toy/clean/macro_auroc" in result.random_weights and "toy/clean/macro_auroc/difference" in result.compared
    judged.dataset_rows = {"test": judged.dataset_rows["test"]}
    with pytest.raises(ValueError, match="got none to train, validation"):
        run(EvaluationContext(judged.model, Words(), "toy", dataset_rows=judged.dataset_rows), probe="fit")


@pytest.mark.parametrize("layer", ["pooled", "projected"])
def test_the_probe_that_linear_probe_keeps_is_judged_on_its_own_layer(tmp_path, layer):
    judged = context(tmp_path)
    judged.dataset_rows = splits()
    probed = linear_probe(judged, fractions=(1.0,), seeds=(42,), layer=layer)
    path = tmp_path / "probe_toy.npz"
    result = run(judged, changes=("duration",), probe=str(path))
    assert result.trained["toy/clean/macro_auroc"] == probed.trained["toy/100%/macro_auroc"]
    assert str(tmp_path) not in str(result.settings)
    judged.compare = (judged.model, Words())
    with pytest.raises(ValueError, match="expected 'fit' with --compare"):
        run(judged, probe=str(path))
    judged.compare = None
    np.savez(path, coef=np.ones((2, 3)), intercept=[0.0, 0.0], label_names=["big", "small"])
    with pytest.raises(ValueError, match="embeddings 2 wide, got one for 3"):
        run(judged, changes=("duration",), probe=str(path))
