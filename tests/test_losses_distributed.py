"""Processes with shards of a batch, even or not, give what one process gives with the whole batch."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_esi import TEXT, tiny_batch, tiny_esi
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from modeling_esi.losses import (
    caption_loss,
    contrastive_loss,
    gather_with_grad,
    mean_over_processes,
    rows_of_processes,
    sigmoid_contrastive_loss,
)
from modeling_esi.training.gradient_cache import cached_backward

BATCH = 6  # records of the union
SHARDS = {2: {"even": [3, 3], "uneven": [4, 2]}, 3: {"even": [2, 2, 2], "uneven": [1, 3, 2]}}  # by number of processes
KEYS = torch.tensor([4, 9, 7, 9, 9, 4])  # positives of both kinds: in one process, and across
SAID = torch.tensor([[3, -1], [3, 8], [-1, -1], [8, -1], [5, 3], [6, -1]])  # true of several ECGs, of one, of none
FOUND = torch.tensor([[3, -1, -1], [8, 3, -1], [9, -1, -1], [3, 5, 8], [5, 3, -1], [8, -1, -1]])
PAD = 0
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def rows_of(shards: list[int], rank: int) -> slice:
    return slice(sum(shards[:rank]), sum(shards[: rank + 1]))


def gap(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> float:
    """How far gradients are apart: max|dg| / max|g| in float64, ||dg|| / ||g|| in float32."""
    assert found.keys() == expected.keys()
    joined = [torch.cat([tensors[name].flatten() for name in expected]) for tensors in (found, expected)]
    order = torch.inf if dtype == torch.float64 else 2
    return (torch.dist(*joined, p=order) / joined[1].norm(order)).item()


LIMIT = {torch.float64: 1e-9, torch.float32: 1e-5}


# ---------------------------------------------------------------------------------------------------------------------
# The losses as functions


def leaves(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Inputs of the whole batch; the two scalars belong to all processes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"ecg": (BATCH, 5), "text": (BATCH, 5), "logits": (BATCH, 4, 11)}
    tensors = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
    return tensors | {"log_scale": torch.tensor([2.3], dtype=dtype), "bias": torch.tensor([-1.7], dtype=dtype)}


def caption_targets() -> torch.Tensor:
    targets = torch.randint(1, 11, (BATCH, 4), generator=torch.Generator().manual_seed(1))
    targets[1, 1:], targets[2, 3:], targets[5, 2:] = PAD, PAD, PAD  # 18 targets: 8 and 10 in halves
    return targets


def cut(statements: torch.Tensor, rows: slice) -> torch.Tensor:
    """As a process has them: as wide as its own longest row."""
    mine = statements[rows]
    return mine[:, : int((mine >= 0).sum(dim=1).max())]


#: What is positive beside the pair, for the records of some rows.
POSITIVES = {
    "pairs": lambda rows: {},
    "keys": lambda rows: {"text_key": KEYS[rows]},
    "entailed": lambda rows: {"text_statements": cut(SAID, rows), "ecg_statements": cut(FOUND, rows)},
}


def losses_and_gradients(
    inputs: dict, case: str, targets: torch.Tensor, rows: slice = slice(None)
) -> dict[str, torch.Tensor]:
    """The three losses of some rows (a process's own) and `grad_` of everything."""
    shared = ("log_scale", "bias")
    mine = {name: (t if name in shared else t[rows]).clone().requires_grad_() for name, t in inputs.items()}
    targets, positives = targets[rows], POSITIVES[case](rows)
    embeds, scale = [F.normalize(mine[name], dim=-1) for name in ("ecg", "text")], mine["log_scale"].exp()
    losses = {
        "contrastive": contrastive_loss(*embeds, scale, gather=True, **positives),
        "sigmoid": sigmoid_contrastive_loss(*embeds, scale, mine["bias"], gather=True, **positives),
        "caption": caption_loss(mine["logits"], targets, PAD, mean_over_processes((targets != PAD).sum())),
    }
    found = {name: loss.detach() for name, loss in losses.items()}
    for name in ("contrastive", "sigmoid"):  # each on its own, so that neither hides behind the other
        gradients = torch.autograd.grad(losses[name], list(mine.values()), retain_graph=True, allow_unused=True)
        pairs = zip(mine, gradients, strict=True)
        found |= {f"grad_{name}_{of}": gradient for of, gradient in pairs if gradient is not None}
    return found | {"grad_caption_logits": torch.autograd.grad(losses["caption"], mine["logits"])[0]}


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What averaging over processes makes of their results: rows one after another, or the mean of what is shared."""
    rows = ("_ecg", "_text", "_logits")
    return {
        name: (torch.cat if name.endswith(rows) else sum)([part[name] for part in parts]) / len(parts)
        for name in parts[0]
    }


# ---------------------------------------------------------------------------------------------------------------------
# The whole model

MODELS = {
    "esi": {"variant": "esi"}, "released": {"variant": "released", "negatives": "global"},
    "esi entailed": {"variant": "esi", "positives": "entailed"},
}  # fmt: skip


def tiny_model(dtype: torch.dtype = torch.float64, **kwargs):
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny_esi(text=TEXT | no_dropout, **kwargs).to(dtype).train()


def model_batch(dtype: torch.dtype = torch.float64, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    batch = tiny_batch(batch=BATCH, num_samples=320)
    batch |= {"input_values": batch["input_values"].to(dtype), "text_key": KEYS}
    statements = {"text_statements": cut(SAID, rows), "ecg_statements": cut(FOUND, rows)}
    return {name: tensor[rows] for name, tensor in batch.items()} | statements


def train_step(model, batch: dict) -> dict[str, torch.Tensor]:
    """Loss, and gradients as the optimizer would see them."""
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    parameters = model.named_parameters()
    return {f"grad_{name.removeprefix('module.')}": parameter.grad.clone() for name, parameter in parameters} | {
        "loss": loss.detach()
    }


def cached_step(model, batch: dict) -> dict[str, torch.Tensor]:
    """As `train_step`, through GradCache."""
    loss = cached_backward(model, batch, 2, torch.Tensor.backward).loss
    found = {f"grad_{name.removeprefix('module.')}": parameter.grad for name, parameter in model.named_parameters()}
    return found | {"loss": loss}


def train_two_steps(model, batch: dict) -> dict[str, torch.Tensor]:
    """The weights after two steps; DDP stops at the second one if a parameter had no gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        model(**batch, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name.removeprefix("module."): parameter.detach() for name, parameter in model.named_parameters()}


def alone_in_evaluation(rank: int) -> torch.Tensor:
    """The first process evaluates while the others do not: nothing may wait for them."""
    if rank != 0:
        return torch.tensor(0.0)
    with torch.no_grad():
        return tiny_model().eval()(**model_batch(), return_loss=True).loss


# ---------------------------------------------------------------------------------------------------------------------
# What each process does


def sum_of_two_gathers(rows: slice) -> dict[str, torch.Tensor]:
    """Both receive one gradient tensor from the sum: neither may change it for the other."""
    first, second = (leaves()[name][rows].clone().requires_grad_() for name in ("ecg", "text"))
    weights = torch.arange(BATCH * 5, dtype=torch.float64).reshape(BATCH, 5)
    (weights * (gather_with_grad(first) + gather_with_grad(second))).sum().backward()
    return {"first": first.grad, "second": second.grad}


def work(rank: int, world: int) -> dict:
    results = {"world_size": dist.get_world_size(), "evaluation": alone_in_evaluation(rank)}
    dist.barrier()
    for split, shards in SHARDS[world].items():
        rows = rows_of(shards, rank)
        results[f"{split} counts"] = rows_of_processes(torch.zeros(shards[rank]))
        results[f"{split} gathers"] = sum_of_two_gathers(rows)
        for dtype_name, dtype in DTYPES.items():
            for case in POSITIVES:
                found = losses_and_gradients(leaves(dtype), case, caption_targets(), rows)
                results[f"{split} {dtype_name} {case}"] = found
            for name, fields in MODELS.items():
                model = DistributedDataParallel(tiny_model(dtype, **fields))
                results[f"{split} {dtype_name} {name}"] = train_step(model, model_batch(dtype, rows))
        model = DistributedDataParallel(tiny_model(**MODELS["esi entailed"]))
        results[f"{split} in chunks"] = cached_step(model, model_batch(rows=rows))
    even = rows_of(SHARDS[world]["even"], rank)
    results["local"] = tiny_model(negatives="local")(**model_batch(rows=even), return_loss=True).contrastive_loss
    results["two steps"] = train_two_steps(DistributedDataParallel(tiny_model()), model_batch(rows=even))
    return results


def process(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    torch.save(work(rank, world), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)], ids="{}_processes".format)
def every(request, tmp_path_factory) -> list[dict]:
    """What each process found."""
    folder, world = tmp_path_factory.mktemp("processes"), request.param
    mp.spawn(process, args=(world, str(folder)), nprocs=world)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]
    assert [part["world_size"] for part in found] == [world] * world
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Comparison with one process


@pytest.mark.parametrize("split", ["even", "uneven"])
def test_shards_are_what_they_say(every, split):
    world = len(every)
    assert [part[f"{split} counts"] for part in every] == [SHARDS[world][split]] * world
    assert len(set(SHARDS[world][split])) == (1 if split == "even" else world)


@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("case", POSITIVES)
@pytest.mark.parametrize("split", ["even", "uneven"])
def test_losses_and_gradients_are_those_of_the_union(every, split, case, dtype_name):
    dtype = DTYPES[dtype_name]
    union = losses_and_gradients(leaves(dtype), case, caption_targets())
    found = joined([part[f"{split} {dtype_name} {case}"] for part in every])
    for name, expected in union.items():
        assert expected.dtype == dtype
        assert gap({name: found[name]}, {name: expected}, dtype) <= LIMIT[dtype], name


@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("split", ["even", "uneven"])
def test_a_step_of_the_model_is_a_step_on_the_union(every, split, name, dtype_name):
    dtype = DTYPES[dtype_name]
    union = train_step(tiny_model(dtype, **MODELS[name]), model_batch(dtype))
    loss = union.pop("loss")
    parts = [dict(part[f"{split} {dtype_name} {name}"]) for part in every]
    mean_loss = sum(part.pop("loss") for part in parts) / len(parts)
    assert abs(mean_loss - loss) <= LIMIT[dtype] * abs(loss)
    for part in parts:
        assert gap(part, union, dtype) <= LIMIT[dtype]


@pytest.mark.parametrize("split", ["even", "uneven"])
def test_chunks_with_entailed_positives_are_a_step_on_the_union(every, split):
    union = train_step(tiny_model(**MODELS["esi entailed"]), model_batch())
    parts = [dict(part[f"{split} in chunks"]) for part in every]
    mean_loss, loss = sum(part.pop("loss") for part in parts) / len(parts), union.pop("loss")
    assert abs(mean_loss - loss) <= 1e-9 * abs(loss)
    assert all(gap(part, union, torch.float64) <= 1e-9 for part in parts)


def test_the_processes_statements_are_not_equally_many():
    widths = {split: [cut(some, rows_of(SHARDS[2][split], rank)).shape[1] for rank in (0, 1) for some in (SAID, FOUND)]
              for split in ("even", "uneven")}  # fmt: skip
    assert widths == {"even": [2, 2, 2, 3], "uneven": [2, 3, 2, 2]}
    values = {losses_and_gradients(leaves(), case, caption_targets())["contrastive"].item() for case in POSITIVES}
    assert len(values) == 3


def test_two_steps_through_ddp_are_two_steps_on_the_union(every):
    union = train_two_steps(tiny_model(), model_batch())
    for part in every:
        for name, expected in union.items():
            torch.testing.assert_close(
                part["two steps"][name], expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: n + m
            )


def test_shards_on_their_own_would_not_do():
    """The comparisons above can fail: local negatives, and a mean of means, are something else."""
    union = losses_and_gradients(leaves(), "pairs", caption_targets())
    halves = [losses_and_gradients(leaves(), "pairs", caption_targets(), rows_of([4, 2], rank)) for rank in (0, 1)]
    parts = joined(halves)
    for name in ("contrastive", "sigmoid", "caption"):
        assert parts[name].item() != pytest.approx(union[name].item(), rel=1e-3)
    gradients = [{name: t[name] for name in union if name.startswith("grad_contrastive")} for t in (parts, union)]
    assert gap(*gradients, torch.float32) > 0.1


@pytest.mark.parametrize("split", ["even", "uneven"])
def test_two_gathers_do_not_disturb_each_other(every, split):
    weights = torch.arange(BATCH * 5, dtype=torch.float64).reshape(BATCH, 5)
    world = len(every)
    for rank, part in enumerate(every):  # all processes weigh alike, so gradients add up to so many times the weights
        for gradient in part[f"{split} gathers"].values():
            assert torch.equal(gradient, world * weights[rows_of(SHARDS[world][split], rank)])


def test_local_negatives_are_the_process_own(every):
    for rank, part in enumerate(every):
        rows = rows_of(SHARDS[len(every)]["even"], rank)
        own = tiny_model(negatives="local")(**model_batch(rows=rows), return_loss=True)
        torch.testing.assert_close(part["local"], own.contrastive_loss)


def test_evaluation_in_one_process_alone_neither_waits_nor_gathers(every):
    with torch.no_grad():
        expected = tiny_model().eval()(**model_batch(), return_loss=True).loss
    torch.testing.assert_close(every[0]["evaluation"], expected)
