"""FSDP2 (`fully_shard`) in two processes gives what one process gives with the union batch."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_losses_distributed import BATCH, MODELS, gap, model_batch, rows_of, tiny_model, train_step
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from modeling_esi.training.gradient_cache import cached_backward

pytestmark = pytest.mark.slow

WORLD = 2
SHARDS = {"even": [3, 3], "uneven": [4, 2]}
#: As in recipes/accelerate.
BLOCKS = ("ConvNeXtV2Block", "BertLayer", "ESIDecoderLayer")


def sharded(model):
    """Every block, then the rest, as accelerate does it; each parameter is held in halves."""
    mesh = init_device_mesh("cpu", (WORLD,))
    blocks = [module for module in model.modules() if type(module).__name__ in BLOCKS]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule) and len(blocks) == 5 + 2 + 2
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def whole(model) -> dict[str, torch.Tensor]:
    return {f"grad_{name}": parameter.grad.full_tensor() for name, parameter in model.named_parameters()}


def plain(model, batch: dict) -> dict[str, torch.Tensor]:
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    return whole(model) | {"loss": loss.detach()}


def cached(model, batch: dict) -> dict[str, torch.Tensor]:
    loss = cached_backward(model, batch, 2, torch.Tensor.backward).loss
    return whole(model) | {"loss": loss}


def work(rank: int) -> dict:
    results = {"world_size": dist.get_world_size()}
    for name, fields in MODELS.items():
        for split, shards in SHARDS.items():
            batch = model_batch(rows=rows_of(shards, rank))
            results[f"{name} {split} plain"] = plain(sharded(tiny_model(**fields)), batch)
            if split == "even":  # every process must have as many chunks, here 2 + 1 records
                results[f"{name} {split} cached"] = cached(sharded(tiny_model(**fields)), batch)
    return results


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=patience)
    torch.save(work(rank), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(process, args=(str(folder),), nprocs=WORLD)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    assert [part["world_size"] for part in found] == [2, 2]
    return found


@pytest.mark.parametrize("case", ["even plain", "uneven plain", "even cached"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sharded_step_is_a_step_on_the_union(both, name, case):
    union = train_step(tiny_model(**MODELS[name]), model_batch())
    loss = union.pop("loss")
    parts = [dict(part[f"{name} {case}"]) for part in both]
    torch.testing.assert_close(sum(part.pop("loss") for part in parts) / WORLD, loss, rtol=1e-9, atol=0)
    for part in parts:
        assert gap(part, union, torch.float64) <= 1e-9
    assert len(model_batch()["input_ids"]) == BATCH == sum(SHARDS["uneven"])
