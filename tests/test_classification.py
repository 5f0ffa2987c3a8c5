"""A head on the ECG encoder: loads from a pretrained ESI's folder or its own, and learns."""

import json

import pytest
import torch
from tiny_esi import ENCODERS, tiny_batch, tiny_config, tiny_esi
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from modeling_esi import ESIForECGClassification

ENCODER = pytest.mark.parametrize("encoder", ENCODERS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path):
    """Folder of a pretrained ESI and the model itself."""
    model = tiny_esi()
    model.save_pretrained(tmp_path)
    return tmp_path, model


@ENCODER
def test_the_encoder_is_the_pretrained_one_and_the_head_is_new(encoder, tmp_path):
    pretrained = tiny_esi(ecg=ENCODERS[encoder])
    pretrained.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=7, output_loading_info=True
    )  # fmt: skip
    assert type(model) is ESIForECGClassification
    expected = pretrained.ecg_model.state_dict()
    assert set(model.ecg_model.state_dict()) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(model.ecg_model.state_dict()[name], tensor), name
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["mismatched_keys"]
    width = pretrained.config.ecg_config.hidden_size
    assert model.classifier.weight.shape == (7, width)
    assert 0.01 < model.classifier.weight.std() < 0.03


def test_logits_are_the_head_on_the_pooled_vector(folder):
    path, pretrained = folder
    model = ESIForECGClassification.from_pretrained(path, num_labels=5)
    x = tiny_batch()["input_values"]
    pooled = pretrained.ecg_model(x).pooler_output
    torch.testing.assert_close(model(x).logits, pooled @ model.classifier.weight.T + model.classifier.bias)
    assert model(x).loss is None


def test_multi_label_loss_by_hand_takes_integers_too():
    model, x = ESIForECGClassification(tiny_config(num_labels=5)).eval(), tiny_batch()["input_values"]
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    output = model(x, labels=labels)
    p = output.logits.sigmoid()
    expected = -torch.where(labels == 1, p, 1 - p).log().mean()
    torch.testing.assert_close(output.loss, expected)


def test_single_label_loss_where_the_configuration_says_so():
    config = tiny_config(num_labels=5, problem_type="single_label_classification")
    model, x, labels = ESIForECGClassification(config).eval(), tiny_batch()["input_values"], torch.tensor([4, 0, 2])
    output = model(x, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))


@ENCODER
def test_masks_reach_the_encoder(encoder):
    model = ESIForECGClassification(tiny_config(ecg=ENCODERS[encoder], num_labels=5)).eval()
    x = tiny_batch()["input_values"]
    lead_mask, sample_mask = torch.ones(3, 12, dtype=torch.bool), torch.ones(3, 677, dtype=torch.bool)
    lead_mask[1, 4] = sample_mask[2, 400:] = False
    clean = model(x, lead_mask=lead_mask, sample_mask=sample_mask).logits
    noisy = torch.where(lead_mask[:, :, None] & sample_mask[:, None], x, torch.nan)
    assert torch.equal(model(noisy, lead_mask=lead_mask, sample_mask=sample_mask).logits, clean)


def test_it_learns_from_a_pretrained_encoder(folder):
    """The label is the sign of lead II: a few steps on the whole model find it."""
    path, _ = folder
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    sign = torch.tensor([1.0, -1.0]).repeat(8)
    x = 0.1 * torch.randn(16, 12, 128)
    x[:, 1] += sign[:, None]
    labels = torch.stack([sign > 0, sign < 0], dim=1).float()
    losses = []
    for _ in range(30):
        loss = model(x, labels=labels).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert ((model(x).logits > 0) == labels.bool()).all()


def test_saving_keeps_head_and_label_names(folder, tmp_path):
    path, _ = folder
    names = {0: "NORM", 1: "MI", 2: "STTC"}
    model = ESIForECGClassification.from_pretrained(
        path, id2label=names, label2id={name: i for i, name in names.items()}
    )  # fmt: skip
    model.save_pretrained(tmp_path / "classifier")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    x = tiny_batch()["input_values"]
    assert again.config.id2label == names
    torch.testing.assert_close(again(x).logits, model(x).logits)
    content = json.loads((tmp_path / "classifier" / "config.json").read_text())
    assert content["architectures"] == ["ESIForECGClassification"]
    assert content["auto_map"]["AutoModelForSequenceClassification"] == "modeling_esi.ESIForECGClassification"
    again.save_pretrained(tmp_path / "again")
    third = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(third(x).logits, model(x).logits)


def test_no_text_encoder_and_no_decoder_are_built():
    model = ESIForECGClassification(tiny_config())
    assert {name.split(".")[0] for name in model.state_dict()} == {"ecg_model", "classifier"}
