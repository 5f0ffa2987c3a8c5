"""The plan for the paper's size: its counts are the model's own, and the document shows what the code computes."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_esi import ESIModel
from modeling_esi.benchmarks.scaling import (
    AUTHORS_ENCODER_RATE,
    EPOCHS,
    NUM_PAIRS,
    SETUPS,
    activation_bytes,
    bytes_between_nodes,
    encoder_batch_flops,
    forward_flops,
    model_config,
    num_parameters,
    record_bytes,
    run,
    state_bytes,
    training_flops,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model():
    """The base model without memory: shapes only."""
    with torch.device("meta"):
        return ESIModel(model_config()).train()


def signals(num_samples=5000):
    return torch.empty(1, 12, num_samples, device="meta")


def test_the_document_shows_what_the_code_prints():
    assert "\n".join(run()) in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("num_samples", "num_tokens"), [(5000, 300), (1000, 57)])
def test_operations_are_those_that_the_model_runs(model, num_samples, num_tokens):
    tokens = torch.zeros(1, num_tokens, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False, depth=2) as counter:
        model(signals(num_samples), input_ids=tokens)
    counted = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    told = forward_flops(model.config, num_samples, num_tokens)
    of_encoder = told["ECG encoder"] + encoder_batch_flops(model.config)
    assert of_encoder == pytest.approx(counted["ESIModel.ecg_model"], rel=1e-3)
    assert told["text encoder"] == pytest.approx(counted["ESIModel.text_model"], rel=1e-3)
    assert sum(told.values()) == pytest.approx(counted["Global"], rel=0.01)


def test_parameters_are_the_models(model):
    counts = num_parameters(model.config)
    assert sum(counts.values()) == model.num_parameters()
    assert counts["ECG encoder"] == 85_558_528  # as published: 85.56 M
    assert counts["vocabulary"] == 768 * 28_895


def test_the_encoders_activations_are_what_its_backward_pass_keeps(model):
    """Counted where autograd packs them, weights apart."""
    encoder, kept = model.ecg_model, {}
    half = encoder.to(torch.bfloat16)
    weights = {parameter.untyped_storage()._cdata for parameter in half.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other takes its address
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = half(signals().bfloat16())
    finally:
        encoder.float()
    measured = sum(storage.nbytes() for storage in kept.values())
    assert output.pooler_output.requires_grad
    assert 0.95 * measured <= activation_bytes(model.config)["ECG encoder"] <= 1.05 * measured


def test_hours_by_hand():
    """519 GFLOP a pair, 19.8 million pairs: 1.03e19 operations; four A100 at 30 % give 3.744e14 in a second."""
    flops = training_flops(model_config())
    assert flops == pytest.approx(519e9, rel=1e-3)
    assert SETUPS[1].hours(flops, "A100", 0.30) == pytest.approx(NUM_PAIRS * EPOCHS * flops / 3.744e14 / 3600, rel=1e-3)
    assert [setup.num_steps for setup in SETUPS] == [412_500, 103_110, 51_540, 25_770]
    assert NUM_PAIRS * EPOCHS / AUTHORS_ENCODER_RATE / 3600 == pytest.approx(64.7, abs=0.05)


def test_bytes_by_hand():
    assert record_bytes() == 120_000
    assert sum(state_bytes(10, 1, sharded=False).values()) == 180
    assert sum(state_bytes(10, 4, sharded=False).values()) == 220
    assert sum(state_bytes(10, 4, sharded=True).values()) == 45
    assert bytes_between_nodes(100, SETUPS[-1]) == 2 * 15 / 16 * 400 and bytes_between_nodes(100, SETUPS[0]) == 0
