"""Signs of health by hand-made numbers."""

import json
import logging
import math
import time
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from tiny_esi import tiny_config, tiny_esi

from modeling_esi.training.batches import Position, StepBatch, TrainingOrder
from modeling_esi.training.health import (
    CollapseWatch,
    StepMeter,
    contrast_size,
    effective_dimension,
    is_broken,
    stop_at_broken_step,
)


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


# ----- effective dimension -------------------------------------------------------------------------------------------


def test_equal_spread_in_k_directions_has_dimension_k():
    for k in (1, 2, 5):
        cross = torch.cat([torch.eye(k), -torch.eye(k)])
        embeds = torch.cat([cross, torch.zeros(2 * k, 7)], dim=1) + 3.0  # moved away from 0: a mean is no spread
        assert effective_dimension(embeds) == pytest.approx(k)


def test_unequal_spread_by_hand():
    """Variances 3 : 1, so exp(-(0.75 ln 0.75 + 0.25 ln 0.25)) = 1.7548."""
    embeds = torch.tensor([[3**0.5, 0.0], [-(3**0.5), 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_dimension(embeds) == pytest.approx(4 / 3**0.75, abs=1e-5)


def test_one_point_has_no_dimension_and_numbers_that_are_none_give_none():
    assert effective_dimension(torch.full((4, 3), 0.37)) == 0.0
    assert math.isnan(effective_dimension(torch.tensor([[1.0, math.nan], [0.0, 1.0]])))


# ----- meter ---------------------------------------------------------------------------------------------------------


def step_output(loss, embeds):
    return {"loss": torch.tensor(loss), "contrastive_loss": torch.tensor(loss / 2), "ecg_embeds": embeds,
            "text_embeds": embeds[:1].repeat(len(embeds), 1)}  # fmt: skip


def test_the_meter_measures_since_it_was_last_read(accelerator):
    meter, model = StepMeter(), tiny_esi()
    inputs = {"input_values": torch.zeros(4, 12, 50), "attention_mask": torch.tensor([[1, 1, 0]] * 4)}
    for loss, norm in ((2.0, 1.0), (4.0, 3.0)):
        meter.add(inputs, step_output(loss, torch.eye(4)), torch.tensor(norm))
        time.sleep(0.05)
    figures = meter.figures(model, accelerator)
    assert (figures["loss"], figures["contrastive_loss"], figures["grad_norm"]) == (4.0, 2.0, 3.0)  # the last step's
    assert figures["mean_contrastive_loss"] == 1.5
    assert "caption_loss" not in figures and "tokens" not in figures
    assert 0.05 <= figures["step_seconds"] < 0.5
    assert figures["records_per_second"] == pytest.approx(4 / figures["step_seconds"])
    assert figures["tokens_per_second"] == pytest.approx(8 / figures["step_seconds"])
    assert figures["logit_scale"] == pytest.approx(model.get_logit_scale().item())
    assert figures["ecg_effective_dimension"] == pytest.approx(3) and figures["text_effective_dimension"] == 0.0
    assert 0.05 < figures["memory_gib"] < 64
    meter.add(inputs, step_output(7.0, torch.eye(4)), torch.tensor(5.0))
    assert meter.figures(model, accelerator)["mean_contrastive_loss"] == 3.5


def test_waiting_and_pauses_are_told_apart(accelerator):
    meter = StepMeter()

    def slowly():
        for number in range(2):
            time.sleep(0.1)
            yield number

    for _ in meter.waiting(slowly()):
        time.sleep(0.1)
        with meter.paused():
            time.sleep(0.3)
        meter.add({"input_values": torch.zeros(1, 12, 5), "attention_mask": torch.ones(1, 3)},
                  step_output(1.0, torch.eye(2)), torch.tensor(1.0))  # fmt: skip
    figures = meter.figures(tiny_esi(), accelerator)
    assert 0.2 <= figures["step_seconds"] < 0.3
    assert 0.35 < figures["data_wait_share"] < 0.65


# ----- collapse ------------------------------------------------------------------------------------------------------


def test_a_loss_at_ln_batch_after_warmup_warns_once(caplog):
    watch = CollapseWatch(contrast_size=24, warmup_steps=100)
    with caplog.at_level(logging.WARNING):
        watch.look_at_loss(math.log(24), schedule_step=99)  # in warm-up
        watch.look_at_loss(math.log(24) * 1.011, schedule_step=100)
        watch.look_at_loss(math.log(24) * 0.989, schedule_step=100)
        assert not caplog.records
        watch.look_at_loss(math.log(24) * 0.991, schedule_step=100)
        watch.look_at_loss(math.log(24), schedule_step=101)
    assert len(caplog.records) == 1 and "ln(24) = 3.178" in caplog.text


def test_a_batch_of_one_has_nothing_to_collapse(caplog):
    CollapseWatch(contrast_size=1, warmup_steps=0).look_at_loss(0.0, schedule_step=5)
    assert not caplog.records


def test_two_validations_at_chance_warn_once(caplog):
    watch = CollapseWatch(contrast_size=24, warmup_steps=0)
    for value, number in ((0.51, 0), (0.53, 0), (0.49, 0), (0.52, 1), (0.5, 1)):
        watch.look_at_validation({"validation/macro_auroc": value})
        assert len(caplog.records) == number
    watch.look_at_validation({})
    assert "0.520" in caplog.text


def test_how_many_records_are_contrasted():
    order = TrainingOrder(num_records=100, batch_size=6, epochs=1, seed=0, num_processes=4)
    assert contrast_size(tiny_config("esi"), order) == 24
    assert contrast_size(tiny_config("released"), order) == 6
    assert contrast_size(SimpleNamespace(contrastive_loss_type="sigmoid"), order) == 1


# ----- broken steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_broken(bad):
    fine = torch.tensor(1.0)
    assert not is_broken(fine, fine, scales_loss=False)
    assert is_broken(torch.tensor(bad), fine, scales_loss=True)
    assert is_broken(fine, torch.tensor(bad), scales_loss=False)
    assert not is_broken(fine, torch.tensor(bad), scales_loss=True)  # the scaler leaves such a step out


def test_a_broken_step_leaves_its_records(tmp_path):
    records = [SimpleNamespace(record_id=name) for name in ("r7", "r3")]
    step = StepBatch(Position(step=41), records, ["one", "two"], None, 0, 0)
    with pytest.raises(SystemExit, match="Step 42: .*broken-step-42.json"):
        stop_at_broken_step(step, torch.tensor(math.nan), tmp_path, Accelerator(cpu=True))
    told = json.loads((tmp_path / "run" / "broken-step-42.json").read_text())
    assert told == {"step": 42, "processes": [{"loss": "nan", "record_ids": ["r7", "r3"], "texts": ["one", "two"]}]}
