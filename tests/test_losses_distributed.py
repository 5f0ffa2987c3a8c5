"""Two processes with half of the batch each give what one process gives with the whole batch."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_esi import TEXT, tiny_batch, tiny_esi
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from modeling_esi.losses import caption_loss, contrastive_loss, gather_with_grad, mean_over_processes

WORLD, BATCH = 2, 6  # records of the union
KEYS = torch.tensor([4, 9, 7, 9, 9, 4])  # positives of both kinds: in one process, and across
PAD = 0


def leaves(seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of the whole batch, float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"ecg": (BATCH, 5), "text": (BATCH, 5), "logits": (BATCH, 4, 11)}
    tensors = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    tensors["log_scale"] = torch.tensor([2.3], dtype=torch.float64)
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def caption_targets() -> torch.Tensor:
    targets = torch.randint(1, 11, (BATCH, 4), generator=torch.Generator().manual_seed(1))
    targets[1, 1:], targets[2, 3:], targets[5, 2:] = PAD, PAD, PAD  # 8 targets in one half, 10 in the other
    return targets


def losses(inputs: dict, keys: torch.Tensor | None, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    embeds = (F.normalize(inputs[name], dim=-1) for name in ("ecg", "text"))
    num_targets = mean_over_processes((targets != PAD).sum())
    return {
        "contrastive": contrastive_loss(*embeds, inputs["log_scale"].exp(), text_key=keys, gather=True),
        "caption": caption_loss(inputs["logits"], targets, PAD, num_targets),
    }


def gradients_of(inputs: dict, keys: torch.Tensor | None, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = losses(inputs, keys, targets)
    sum(parts.values()).backward()
    return {name: loss.detach() for name, loss in parts.items()} | {
        f"grad_{name}": tensor.grad for name, tensor in inputs.items()
    }


def tiny_model(**kwargs):
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny_esi(text=TEXT | no_dropout, **kwargs).double().train()


def train_two_steps(model, batch: dict) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first step, and the weights after the second."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=1e-2), {}
    for step in range(2):
        loss = model(**batch, return_loss=True).loss
        loss.backward()
        parameters = {name.removeprefix("module."): value for name, value in model.named_parameters()}
        if step == 0:
            found = {f"grad_{name}": parameter.grad.clone() for name, parameter in parameters.items()}
            found["loss"] = loss.detach()
        optimizer.step()
        optimizer.zero_grad()
    return found | {name: parameter.detach() for name, parameter in parameters.items()}


def model_batch() -> dict[str, torch.Tensor]:
    batch = tiny_batch(batch=BATCH, num_samples=320)
    return batch | {"input_values": batch["input_values"].double(), "text_key": KEYS}


def sum_of_two_gathers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Both receive one gradient tensor from the sum: neither may change it for the other."""
    first, second = (tensors[name].detach().clone().requires_grad_() for name in ("ecg", "text"))
    weights = torch.arange(BATCH * 5, dtype=torch.float64).reshape(BATCH, 5)
    (weights * (gather_with_grad(first) + gather_with_grad(second))).sum().backward()
    return {"first": first.grad, "second": second.grad}


def alone_in_evaluation(rank: int) -> torch.Tensor:
    """The first process evaluates while the other one does not: nothing may wait for it."""
    if rank != 0:
        return torch.tensor(0.0)
    with torch.no_grad():
        return tiny_model().eval()(**model_batch(), return_loss=True).loss


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=patience)
    half = slice(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD)
    mine = {name: t.detach()[half if len(t) == BATCH else slice(None)].clone() for name, t in leaves().items()}
    batch = {name: tensor[half] for name, tensor in model_batch().items()}
    results = {"world_size": dist.get_world_size(), "evaluation": alone_in_evaluation(rank)}
    dist.barrier()
    for name, keys in {"pairs": None, "keys": KEYS[half]}.items():
        inputs = {name: tensor.clone().requires_grad_() for name, tensor in mine.items()}
        results[name] = gradients_of(inputs, keys, caption_targets()[half])
    results["gathers"] = sum_of_two_gathers(mine)
    local = tiny_model(negatives="local")(**batch, return_loss=True)
    results["local"] = local.contrastive_loss.detach()
    results["model"] = train_two_steps(DistributedDataParallel(tiny_model()), batch)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(process, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_there_are_two_processes(both):
    assert [found["world_size"] for found in both] == [2, 2]


@pytest.mark.parametrize("case", ["pairs", "keys"])
def test_losses_and_gradients_are_those_of_the_union(both, case):
    union = gradients_of(leaves(), KEYS if case == "keys" else None, caption_targets())
    for name in ("contrastive", "caption"):
        mean = sum(found[case][name] for found in both) / WORLD
        torch.testing.assert_close(mean, union[name], rtol=1e-9, atol=1e-9)
    for name in ("grad_ecg", "grad_text", "grad_logits"):  # averaging over processes divides by their number
        joined = torch.cat([found[case][name] for found in both]) / WORLD
        torch.testing.assert_close(joined, union[name], rtol=1e-9, atol=1e-9)
    mean = sum(found[case]["grad_log_scale"] for found in both) / WORLD
    torch.testing.assert_close(mean, union["grad_log_scale"], rtol=1e-9, atol=1e-9)


def test_halves_on_their_own_would_not_do(both):
    """The comparison above can fail: local negatives, and a mean of two means, are something else."""
    union = {name: loss.item() for name, loss in losses(leaves(), None, caption_targets()).items()}
    halves = [slice(0, 3), slice(3, 6)]
    parts = [
        losses({name: t[half if len(t) == BATCH else slice(None)] for name, t in leaves().items()}, None, targets)
        for half in halves
        for targets in [caption_targets()[half]]
    ]
    for name, whole in union.items():
        assert sum(part[name].item() for part in parts) / WORLD != pytest.approx(whole, rel=1e-3)


def test_two_gathers_do_not_disturb_each_other(both):
    weights = torch.arange(BATCH * 5, dtype=torch.float64).reshape(BATCH, 5)
    for rank, found in enumerate(both):
        for gradient in found[
            "gathers"
        ].values():  # both processes weigh alike, so gradients add up to twice the weights
            assert torch.equal(gradient, WORLD * weights[3 * rank : 3 * rank + 3])


def test_training_in_two_processes_is_training_on_the_union(both):
    """Through DistributedDataParallel, which also stops at the second step if a parameter has no gradient."""
    union = train_two_steps(tiny_model(), model_batch())
    mean_loss = sum(found["model"].pop("loss") for found in both) / WORLD
    torch.testing.assert_close(mean_loss, union.pop("loss"), rtol=1e-9, atol=1e-9)
    for found in both:
        assert set(found["model"]) == set(union)
        for name, expected in union.items():
            torch.testing.assert_close(
                found["model"][name], expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: n + m
            )


def test_local_negatives_are_the_process_own(both):
    batch = model_batch()
    for rank, found in enumerate(both):
        half = slice(3 * rank, 3 * rank + 3)
        own = tiny_model(negatives="local")(**{name: t[half] for name, t in batch.items()}, return_loss=True)
        torch.testing.assert_close(found["local"], own.contrastive_loss.detach())


def test_evaluation_in_one_process_alone_neither_waits_nor_gathers(both):
    with torch.no_grad():
        expected = tiny_model().eval()(**model_batch(), return_loss=True).loss
    torch.testing.assert_close(both[0]["evaluation"], expected)
