"""The training step that is fast gives the losses and gradients of the plain one: all rows together, all logits."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_esi import TEXT, tiny_batch, tiny_esi
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from modeling_esi.modeling_esi import ESIPreTrainedModel

LOSSES = ("loss", "contrastive_loss", "caption_loss")
VARIANT = pytest.mark.parametrize("variant", ["esi", "released"])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny_model(variant: str, **kwargs):
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny_esi(variant, text=TEXT | no_dropout, **kwargs).train()


def plain_model(variant: str, **kwargs):
    """The same weights; texts in one batch, attention written out."""
    return tiny_model(variant, attn_implementation="eager", text_groups=1, **kwargs)


def step(model, batch: dict, **kwargs) -> dict[str, torch.Tensor]:
    output = model(**batch, return_loss=True, **kwargs)
    output.loss.backward()
    losses = {name: output[name].detach().float() for name in LOSSES}
    return losses | {f"grad_{name}": parameter.grad for name, parameter in model.named_parameters()}


def plain_step(model, batch: dict) -> dict[str, torch.Tensor]:
    return step(model, batch, output_caption_logits=True)


def apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest of: how far each loss is off, and `||dg|| / ||g||` over all gradients."""
    assert found.keys() == expected.keys() and all(value is not None for value in found.values())
    losses = [torch.dist(found[name], expected[name]).item() for name in LOSSES]
    names = [name for name in expected if name.startswith("grad_")]
    ours, plain = (torch.cat([values[name].flatten().float() for name in names]) for values in (found, expected))
    return max(*losses, (torch.dist(ours, plain) / plain.norm()).item())


def with_short_texts(batch: dict) -> dict:
    """The second text is its start token alone, the third has one token more."""
    batch["input_ids"][1, 1:] = batch["attention_mask"][1, 1:] = 0
    batch["input_ids"][2, 2:] = batch["attention_mask"][2, 2:] = 0
    return batch


def without(batch: dict, name: str) -> dict:
    return {key: value for key, value in batch.items() if key != name}


BATCHES = {
    "padding": lambda: tiny_batch(batch=5),
    "one record": lambda: tiny_batch(batch=1),
    "two records": lambda: {name: tensor[1:] for name, tensor in tiny_batch(batch=3).items()},
    "texts of one token": lambda: with_short_texts(tiny_batch(batch=4)),
    "no mask": lambda: without(tiny_batch(batch=3), "attention_mask"),
    "padded records": lambda: tiny_batch() | {"sample_mask": torch.arange(677) < torch.tensor([[677], [512], [99]])},
}


@VARIANT
@pytest.mark.parametrize("name", BATCHES)
def test_losses_and_gradients_are_those_of_the_plain_step(name, variant):
    assert apart(step(tiny_model(variant), BATCHES[name]()), plain_step(plain_model(variant), BATCHES[name]())) <= 1e-5


@VARIANT
def test_in_double_precision_nothing_but_rounding_is_left(variant):
    batch = tiny_batch(batch=5)
    batch["input_values"] = batch["input_values"].double()
    assert (
        apart(step(tiny_model(variant).double(), batch), plain_step(plain_model(variant).double(), batch)) <= 1e-6
    )  # rotary angles and the norms over time are float32


@VARIANT
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_with_either_contrastive_loss(variant, loss):
    batch = tiny_batch(batch=4) | {"text_key": torch.tensor([3, 1, 3, 2])}
    models = (build(variant, contrastive_loss_type=loss) for build in (tiny_model, plain_model))
    ours, plain = step(next(models), batch), plain_step(next(models), batch)
    assert apart(ours, plain) <= 1e-5 and (loss == "softmax" or ours["grad_logit_bias"].abs() > 0)


@VARIANT
def test_gradient_checkpointing(variant):
    model = tiny_model(variant)
    model.gradient_checkpointing_enable()
    assert apart(step(model, tiny_batch(batch=5)), plain_step(plain_model(variant), tiny_batch(batch=5))) <= 1e-5


@VARIANT
def test_bf16_autocast_is_as_near_to_float32_as_the_plain_step_is(variant):
    batch, found = tiny_batch(batch=5), []
    exact = plain_step(plain_model(variant), batch)
    for run, model in ((step, tiny_model(variant)), (plain_step, plain_model(variant))):
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate does it
        found.append(apart(run(model, batch), exact))
    assert 0 < found[0] <= 1.5 * found[1] < 0.15


@VARIANT
def test_all_logits_come_where_they_are_asked_for(variant):
    model, batch = tiny_model(variant), tiny_batch()
    assert model(**batch, return_loss=True).caption_logits is None
    assert model(**batch).caption_logits is not None and model(**batch, return_loss=False).caption_logits is None
    asked = model(**batch, return_loss=True, output_caption_logits=True)
    evaluated = model.eval()(**batch, return_loss=True)
    real = batch["attention_mask"][:, -asked.caption_logits.shape[1] :].bool()
    torch.testing.assert_close(asked.caption_logits[real], evaluated.caption_logits[real], rtol=1e-4, atol=1e-4)


@VARIANT
def test_a_part_of_a_batch_has_its_share_of_the_caption_loss(variant):
    model, batch = tiny_model(variant), tiny_batch(batch=4)
    whole = model(**batch, return_loss=True).caption_loss
    count = (batch["attention_mask"].sum(1) - (1 if variant == "esi" else 2)).sum()
    parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(0, 1), slice(1, 4))]
    outputs = [model(**part, num_caption_targets=count) for part in parts]
    torch.testing.assert_close(sum(output.caption_loss for output in outputs), whole, rtol=1e-5, atol=1e-5)
    assert all(output.loss is None and output.caption_logits is None for output in outputs)


# ---------------------------------------------------------------------------------------------------------------------
# What engines wrap


def test_modules_that_are_not_split_exist():
    built = [
        type(module).__name__
        for ecg in ({}, {"encoder_type": "xresnet1d", "depths": [1] * 4, "hidden_sizes": [12, 20, 28, 44]})
        for module in tiny_esi(**({"ecg": ecg} if ecg else {})).modules()
    ]
    assert set(ESIPreTrainedModel._no_split_modules) <= set(built)


@pytest.fixture
def one_process(tmp_path: Path):
    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@VARIANT
def test_fsdp2_wraps_the_modules_that_are_not_split(variant, one_process):
    """A weight that is used outside of the forward of its module would still be sharded there."""
    expected, model, batch = step(tiny_model(variant), tiny_batch()), tiny_model(variant), tiny_batch()
    for module in [m for m in model.modules() if type(m).__name__ in model._no_split_modules]:
        fully_shard(module, mesh=one_process)
    fully_shard(model, mesh=one_process)
    assert "BertLayer" in model._no_split_modules
    found = step(model, batch)
    gathered = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in found.items()}
    assert apart(gathered, expected) <= 1e-6


@VARIANT
def test_meta_tensors_have_a_caption_loss(variant):
    model = tiny_model(variant).to("meta")
    batch = {name: tensor.to("meta") for name, tensor in without(tiny_batch(), "attention_mask").items()}
    assert model(**batch, num_caption_targets=torch.tensor(9, device="meta")).caption_loss.is_meta


# ---------------------------------------------------------------------------------------------------------------------
# Compiled


@pytest.mark.slow
@VARIANT
def test_compiled_it_is_the_same_step(variant):
    model = tiny_model(variant)
    for part in (model.ecg_model.encoder, model.decoder):  # as `train_accelerate.py --compile` has them
        part.compile()
    assert apart(step(model, tiny_batch(batch=5)), plain_step(plain_model(variant), tiny_batch(batch=5))) <= 1e-5
