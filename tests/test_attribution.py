"""Attribution by toys whose answer is known, and by what must hold for the real models."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_esi import ENCODERS, tiny_config, tiny_esi
from torch import nn

from modeling_esi import LEADS, ESIFeatureExtractor, ESIForECGClassification
from modeling_esi.attribution import METHODS, attribute

RATE = 50.0
DOOR = ESIFeatureExtractor(sampling_rate=RATE, duration=7.0, scaling="none")
METHOD = pytest.mark.parametrize("method", METHODS)


class OneSecond(nn.Module):
    """The score is the sum of `power` of one second of one lead, times `weight`."""

    def __init__(self, lead: int, second: int, weight: float = 1.0, power: int = 1):
        super().__init__()
        self.lead, self.part, self.power = lead, slice(int(second * RATE), int((second + 1) * RATE)), power
        self.weight = nn.Parameter(torch.tensor(weight))
        self.config = SimpleNamespace(id2label={0: "nothing", 1: "planted"})
        self.batch_sizes: list[int] = []

    def forward(self, input_values, lead_mask=None, sample_mask=None):
        assert lead_mask.shape == (len(input_values), 12) and not self.training
        self.batch_sizes.append(len(input_values))
        score = self.weight * input_values[:, self.lead, self.part].pow(self.power).sum(dim=-1)
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(score), score], dim=-1))


class TinyProcessor:
    """A door and a tokenizer that numbers letters."""

    def __init__(self, feature_extractor: ESIFeatureExtractor):
        self.feature_extractor, self.tokenizer = feature_extractor, object()

    def __call__(self, text):
        ids = torch.tensor([[2, *(ord(letter) % 90 + 4 for letter in text[0]), 3]])
        tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return SimpleNamespace(to=lambda device: tokens)


def noise(seconds: float = 7.0, num_leads: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_leads, round(seconds * RATE))).astype(np.float32)


def of_toy(model: nn.Module, signal: np.ndarray, leads=LEADS, **options):
    return attribute(model, DOOR, signal, 1, sampling_rate=RATE, leads=list(leads), **options)


# ----- toys ----------------------------------------------------------------------------------------------------------


@METHOD
def test_the_planted_second_of_the_planted_lead_is_found_exactly(method):
    signal = noise()
    signal[7, 200:250] += 0.8
    found = of_toy(OneSecond(lead=7, second=4, weight=2.0), signal, method=method)
    mean = signal[7].mean(dtype=np.float64)
    expected = np.zeros((12, 7))
    expected[7, 4] = 2.0 * (signal[7, 200:250].sum(dtype=np.float64) - 50 * mean)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)
    assert np.count_nonzero(found.values) == 1 and found.values[7, 4] > 50
    assert found.score == pytest.approx(2.0 * signal[7, 200:250].sum(), rel=1e-4)
    assert (found.leads, found.window, found.duration, found.method) == (LEADS, 1.0, 7.0, method)


def test_what_lowers_the_score_is_negative():
    signal = noise()
    signal[2, 50:100] += 3.0
    found = of_toy(OneSecond(lead=2, second=1, weight=-1.0), signal)
    assert found.values[2, 1] < -100


def test_methods_differ_as_they_must_on_a_square():
    signal = noise()
    by = {method: of_toy(OneSecond(5, 3, power=2), signal, method=method).values[5, 3] for method in METHODS}
    x, mean = signal[5, 150:200].astype(np.float64), signal[5].mean(dtype=np.float64)
    assert by["occlusion"] == pytest.approx((x**2 - mean**2).sum(), rel=1e-4)
    assert by["integrated_gradients"] == pytest.approx((x**2 - mean**2).sum(), rel=1e-4)
    assert by["gradient"] == pytest.approx((2 * x * (x - mean)).sum(), rel=1e-4)


@METHOD
def test_windows_may_be_of_any_length_and_the_last_is_shorter(method):
    signal = noise()
    parts = {window: of_toy(OneSecond(5, 6), signal, window=window, method=method).values for window in (7, 1.5, 0.3)}
    assert [values.shape for values in parts.values()] == [(12, 1), (12, 5), (12, 24)]
    whole = parts[7][5, 0]
    assert whole == pytest.approx(signal[5, 300:].sum() - 50 * signal[5].mean(), rel=1e-3)
    for window in (1.5, 0.3):  # linear: windows add up
        assert parts[window][5].sum() == pytest.approx(whole, rel=1e-3)


def test_a_lead_that_was_not_seen_is_nan_and_a_derived_one_is_seen():
    found = of_toy(OneSecond(LEADS.index("aVF"), 2), noise(num_leads=3), leads=["II", "V5", "I"])
    seen = [lead for lead, row in zip(LEADS, found.values, strict=True) if np.isfinite(row).all()]
    assert seen == [*LEADS[:6], "V5"]
    assert np.isnan(found.values[LEADS.index("V1")]).all()
    assert np.argmax(np.abs(np.nan_to_num(found.values))) == LEADS.index("aVF") * 7 + 2


def test_padding_is_no_window():
    found = of_toy(OneSecond(3, 1), noise(seconds=3.3))
    assert found.values.shape == (12, 4) and found.duration == pytest.approx(3.3)


def test_records_are_asked_for_in_batches():
    model = OneSecond(3, 1)
    of_toy(model, noise(), batch_size=25)
    assert sum(model.batch_sizes) == 12 * 7 + 2 and max(model.batch_sizes) == 25


# ----- the real models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENCODERS)
def esi(request):
    return tiny_esi(ecg=ENCODERS[request.param])


def test_a_sentence_scored_by_esi(esi):
    signal, processor = noise(), TinyProcessor(DOOR)
    found = attribute(esi, processor, signal, "Left bundle branch block.", sampling_rate=RATE, leads=list(LEADS))
    inputs = DOOR(signal, sampling_rate=RATE, leads=list(LEADS))
    text = processor(["Left bundle branch block."]).to("cpu")
    with torch.no_grad():
        score = esi(**inputs, **text).logits_per_ecg.item()
        inputs["input_values"][0, 4, 100:150] = inputs["input_values"][0, 4].mean()
        without = esi(**inputs, **text).logits_per_ecg.item()
    assert found.score == pytest.approx(score, abs=1e-4)
    assert found.values[4, 2] == pytest.approx(score - without, abs=1e-4)
    assert np.ptp(found.values) > 1e-3


def test_integrated_gradients_add_up_to_the_score_minus_that_of_the_means(esi):
    signal = noise(num_leads=8, seconds=5.2)
    leads = ["I", "II", *LEADS[6:]]
    asked = {"method": "integrated_gradients", "num_steps": 200, "sampling_rate": RATE, "leads": leads}
    found = attribute(esi, TinyProcessor(DOOR), signal, "Sinus rhythm.", **asked)
    inputs = DOOR(signal, sampling_rate=RATE, leads=leads)
    real = inputs["sample_mask"][0]
    means = inputs["input_values"].clone()
    means[..., real] = means[..., real].mean(dim=-1, keepdim=True)
    text = TinyProcessor(DOOR)(["Sinus rhythm."]).to("cpu")
    with torch.no_grad():
        of_means = esi(**{**inputs, "input_values": means}, **text).logits_per_ecg.item()
    assert abs(found.score - of_means) > 0.05
    assert found.values.sum() == pytest.approx(found.score - of_means, rel=0.02)


def test_a_label_of_a_classifier_by_number_and_by_name():
    labels = ["NORM", "MI", "STTC", "CD", "HYP"]
    config = tiny_config(num_labels=5, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
    torch.manual_seed(0)
    model = ESIForECGClassification(config).train()
    model.requires_grad_(False)
    by_number, by_name = (
        attribute(model, DOOR, noise(), target, "gradient", sampling_rate=RATE, leads=list(LEADS))
        for target in (3, "CD")
    )
    assert by_number.target == by_name.target == "CD" and by_number.values.any()
    np.testing.assert_array_equal(by_number.values, by_name.values)
    assert model.training and model.ecg_model.training


def test_no_gradient_is_left_behind():
    model = OneSecond(3, 1)
    of_toy(model, noise(), method="integrated_gradients")
    assert model.weight.grad is None


# ----- what is refused -----------------------------------------------------------------------------------------------


def test_refusals_say_what_was_expected(esi):
    toy = OneSecond(0, 0)
    for options, message in (
        ({"method": "shap"}, "method: expected one of occlusion"),
        ({"window": 0.001}, "window: expected at least one sample, 0.02 s"),
        ({"window": float("nan")}, "window"),
        ({"num_steps": 0}, "num_steps: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            of_toy(toy, noise(), **options)
    described = {"sampling_rate": RATE, "leads": list(LEADS)}
    with pytest.raises(ValueError, match="expected one record, got 2"):
        attribute(toy, DOOR, noise()[None].repeat(2, axis=0), 1, **described)
    for target in (2, "absent", True):
        with pytest.raises(ValueError, match="0 nothing, 1 planted"):
            attribute(toy, DOOR, noise(), target, **described)
    with pytest.raises(ValueError, match="expected a sentence"):
        attribute(esi, TinyProcessor(DOOR), noise(), 3, **described)
    with pytest.raises(ValueError, match="with its tokenizer"):
        attribute(esi, DOOR, noise(), "Sinus rhythm.", **described)


def test_what_comes_back_can_be_written_down():
    found = of_toy(OneSecond(0, 0), noise())
    written = json.loads(json.dumps(vars(found) | {"values": found.values.tolist()}))
    assert written["target"] == "planted" and len(written["values"]) == 12
