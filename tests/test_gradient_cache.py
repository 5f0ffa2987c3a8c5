"""GradCache gives the gradients of the whole batch in the memory of a chunk: in one process, and in two."""

import datetime
import functools
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_esi import TEXT, XRESNET, tiny_batch, tiny_esi
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modeling_esi.training.gradient_cache import (
    cached_backward,
    chunk_rows,
    get_random_state,
    set_random_state,
    unwrapped,
)

BATCH, WORLD = 6, 2
DTYPES = {"float64": torch.float64, "float32": torch.float32}
LIMIT = {torch.float64: 1e-9, torch.float32: 1e-5}
MODELS = {"esi": {"variant": "esi"}, "released": {"variant": "released", "negatives": "global"}}
ECG_DROPOUT = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 40], "drop_path_rate": 0.4}


def tiny_model(dtype: torch.dtype = torch.float64, dropout: float = 0.0, **kwargs):
    text = TEXT | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    kwargs |= {"ecg": ECG_DROPOUT} if dropout else {}
    return tiny_esi(text=text, **kwargs).to(dtype).train()


def model_batch(dtype: torch.dtype = torch.float64, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    """Pairs with repeated texts, missing leads, short records and texts of different lengths."""
    batch = tiny_batch(batch=BATCH, num_samples=320)
    batch["input_values"] = batch["input_values"].to(dtype)
    batch["text_key"] = torch.tensor([4, 9, 7, 9, 9, 4])
    batch["lead_mask"] = torch.arange(12) != torch.arange(BATCH)[:, None]
    batch["sample_mask"] = torch.arange(320) < 320 - 32 * torch.arange(BATCH)[:, None]
    return {name: tensor[rows] for name, tensor in batch.items()}


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): parameter.grad.clone() for name, parameter in model.named_parameters()}


def plain_step(model, batch: dict) -> tuple[dict, dict[str, torch.Tensor]]:
    output = model(**batch, return_loss=True)
    output.loss.backward()
    return output, gradients(model)


def cached_step(model, batch: dict, chunk_size: int, **kwargs) -> tuple[dict, dict[str, torch.Tensor]]:
    output = cached_backward(model, batch, chunk_size, torch.Tensor.backward, **kwargs)
    return output, gradients(model)


def gap(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> float:
    """How far gradients are apart: max|dg| / max|g| in float64, ||dg|| / ||g|| in float32."""
    assert found.keys() == expected.keys()
    joined = [torch.cat([tensors[name].flatten() for name in expected]) for tensors in (found, expected)]
    order = torch.inf if dtype == torch.float64 else 2
    return (torch.dist(*joined, p=order) / joined[1].norm(order)).item()


# ---------------------------------------------------------------------------------------------------------------------
# One process, no dropout


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk_size", [1, 2, 4, 6, 99])
def test_gradients_are_those_of_the_whole_batch(chunk_size, name):
    (expected, plain), (output, cached) = (
        plain_step(tiny_model(**MODELS[name]), model_batch()),
        cached_step(tiny_model(**MODELS[name]), model_batch(), chunk_size),
    )
    assert gap(cached, plain, torch.float64) <= 1e-9
    for part in ("loss", "contrastive_loss", "caption_loss", "ecg_embeds", "text_embeds"):
        torch.testing.assert_close(output[part], expected[part].detach(), rtol=1e-9, atol=1e-9)
        assert not output[part].requires_grad


def test_float32_differs_by_rounding_alone():
    plain = plain_step(tiny_model(torch.float32), model_batch(torch.float32))[1]
    cached = cached_step(tiny_model(torch.float32), model_batch(torch.float32), 2)[1]
    assert 0 < gap(cached, plain, torch.float32) <= 1e-5


@pytest.mark.parametrize(
    "fields",
    [
        {"caption_loss_weight": 0.0},
        {"caption_loss_weight": 0.3, "contrastive_loss_weight": 1.9},
        {"positives": "pair"},
        {"logit_scale_max": 11.0, "logit_scale_init_value": 2.0},
    ],
    ids=str,
)
def test_the_configuration_decides_what_the_loss_is(fields):
    (expected, plain), (output, cached) = (
        plain_step(tiny_model(**fields), model_batch()),
        cached_step(tiny_model(**fields), model_batch(), 4),
    )
    assert gap(cached, plain, torch.float64) <= 1e-9
    torch.testing.assert_close(output.loss, expected.loss.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_the_sigmoid_loss_has_a_bias_to_train(name):
    fields = MODELS[name] | {"contrastive_loss_type": "sigmoid", "logit_bias_init_value": -3}
    plain = plain_step(tiny_model(**fields), model_batch())[1]
    cached = cached_step(tiny_model(**fields), model_batch(), 4)[1]
    assert gap(cached, plain, torch.float64) <= 1e-9
    assert cached["logit_bias"].abs() > 0


def test_logits_of_all_tokens_are_never_made():
    model, made = tiny_model(), []
    model.decoder.lm_head.register_forward_hook(lambda *_: made.append(1))
    cached_step(model, model_batch(), 2)
    assert made == []


def test_inputs_may_be_few():
    batch = {name: model_batch()[name] for name in ("input_values", "input_ids")} | {"sample_mask": None}
    plain, cached = plain_step(tiny_model(), batch)[1], cached_step(tiny_model(), batch, 4)[1]
    assert gap(cached, plain, torch.float64) <= 1e-9


def naive_accumulation(model, batch: dict, chunk_size: int) -> dict[str, torch.Tensor]:
    for rows in chunk_rows(batch, chunk_size):
        chunk = {name: value[rows] for name, value in batch.items()}
        loss = model(**chunk, return_loss=True).contrastive_loss
        (loss * (rows.stop - rows.start) / BATCH).backward()
    return gradients(model)


def test_adding_up_chunks_is_not_the_loss_of_the_batch():
    """What GradCache is for: without it, gradients of these random weights are off by their own length (0.89, 1.01)."""
    build = functools.partial(tiny_model, caption_loss_weight=0.0)
    plain = plain_step(build(), model_batch())[1]
    for chunk_size in (2, 3):
        naive = naive_accumulation(build(), model_batch(), chunk_size)
        assert gap(naive, plain, torch.float32) > 0.5
        assert gap(cached_step(build(), model_batch(), chunk_size)[1], plain, torch.float32) < 1e-12
    alone = naive_accumulation(build(), model_batch(), 1)  # contrasted with nothing, a record teaches nothing
    assert all(gradient.abs().max() < 1e-12 for gradient in alone.values())


def test_further_terms_count_by_their_records():
    values = torch.linspace(0.5, 2.0, BATCH, dtype=torch.float64)

    def term(output, rows: slice) -> torch.Tensor:
        return (output.ecg_state.square().sum(-1) * values[rows]).mean()

    plain_model = tiny_model()
    expected = plain_model(**model_batch(), return_loss=True)
    (expected.loss + term(expected, slice(None))).backward()
    output, cached = cached_step(tiny_model(), model_batch(), 4, extra_terms=term)
    assert gap(cached, gradients(plain_model), torch.float64) <= 1e-9
    torch.testing.assert_close(output.loss, (expected.loss + term(expected, slice(None))).detach())


# ---------------------------------------------------------------------------------------------------------------------
# Dropout, precision, memory


@contextmanager
def embeddings_of_every_call(model: nn.Module):
    """`(with gradients, ECG embeddings, text embeddings)` of each forward pass."""
    calls = []

    def remember(module, inputs, output):
        calls.append((torch.is_grad_enabled(), output.ecg_embeds.detach(), output.text_embeds.detach()))

    handle = model.register_forward_hook(remember)
    yield calls
    handle.remove()


def test_both_passes_leave_out_the_same():
    torch.manual_seed(3)
    model = tiny_model(dropout=0.3)
    with embeddings_of_every_call(model) as calls:
        cached_step(model, model_batch(), 2)
    first, second = ([call[1:] for call in calls if call[0] is grad] for grad in (False, True))
    assert len(first) == len(second) == 3
    for without, with_gradients in zip(first, second, strict=True):
        assert all(map(torch.equal, without, with_gradients))
    again = model.get_text_features(model_batch()["input_ids"][:2], model_batch()["attention_mask"][:2])
    assert not torch.allclose(again, first[0][1], atol=1e-2)  # dropout is on, and another mask is another embedding


def test_with_dropout_the_gradients_are_those_of_one_graph_with_the_same_masks():
    """The whole batch as one graph, its chunks drawn from the same random states."""
    torch.manual_seed(3)
    states = []
    model, batch = tiny_model(dropout=0.3), model_batch()
    handle = model.register_forward_pre_hook(lambda *_: states.append(get_random_state(torch.device("cpu"))))
    output, cached = cached_step(model, batch, 4)
    handle.remove()
    model.zero_grad()
    outputs = []
    for rows, state in zip(chunk_rows(batch, 4), states, strict=False):
        set_random_state(state, torch.device("cpu"))
        outputs.append(model(**{name: value[rows] for name, value in batch.items() if name != "text_key"}))
    one_graph(model, batch, outputs).backward()
    assert gap(cached, gradients(model), torch.float64) <= 1e-9


def one_graph(model, batch: dict, outputs: list) -> torch.Tensor:
    """The two losses written out again, over outputs of chunks."""
    ecg, text, logits = (
        torch.cat([o[name] for o in outputs]) for name in ("ecg_embeds", "text_embeds", "caption_logits")
    )
    same = (batch["text_key"][:, None] == batch["text_key"]).double()
    targets, similarities = same / same.sum(1, keepdim=True), model.get_logit_scale() * text @ ecg.T
    contrastive = -(targets * (similarities.log_softmax(0) + similarities.log_softmax(1))).sum() / 2 / BATCH
    real = batch["attention_mask"][:, 1:].bool()
    caption = -logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)[real].mean()
    return contrastive + caption


def test_one_chunk_draws_what_the_plain_step_draws():
    torch.manual_seed(3)
    plain = plain_step(tiny_model(dropout=0.3), model_batch())[1]
    after_plain = torch.rand(1)
    torch.manual_seed(3)
    cached = cached_step(tiny_model(dropout=0.3), model_batch(), BATCH)[1]
    assert gap(cached, plain, torch.float64) <= 1e-9
    assert torch.equal(after_plain, torch.rand(1))  # and so does what comes after it


@pytest.mark.parametrize("around", [True, False], ids=["autocast_around_the_step", "autocast_in_the_model"])
def test_mixed_precision_trains_every_weight(around):
    """A weight cast without gradients must not be taken from autocast's cache in the second pass."""
    autocast = torch.autocast("cpu", torch.bfloat16)
    plain_model, model = tiny_model(torch.float32), tiny_model(torch.float32)
    with autocast:
        plain = plain_step(plain_model, model_batch(torch.float32))[1]
    if not around:
        model.forward = autocast(model.forward)  # as accelerate does it
    with autocast if around else nullcontext():
        cached = cached_step(model, model_batch(torch.float32), 2)[1]
    assert all(gradient.abs().max() > 0 for gradient in cached.values())
    assert gap(cached, plain, torch.float32) < 0.03  # bfloat16 has 8 bits


def test_loss_scaling_reaches_every_gradient():
    plain = plain_step(tiny_model(), model_batch())[1]
    model = tiny_model()
    cached_backward(model, model_batch(), 2, lambda loss: (1024 * loss).backward())
    scaled = {name: gradient / 1024 for name, gradient in gradients(model).items()}
    assert gap(scaled, plain, torch.float64) <= 1e-9


def test_only_one_chunk_is_held_for_the_backward_pass():
    held, weights = {"now": 0, "most": 0}, set()

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        held["now"] += 0 if tensor.untyped_storage()._cdata in weights else tensor.nbytes
        held["most"] = max(held["most"], held["now"])
        return tensor

    def backward(loss: torch.Tensor) -> None:
        loss.backward()
        held["now"] = 0

    most = []
    batch = tiny_batch(batch=8, num_samples=1024)
    for chunk_size in (8, 1):
        held |= {"now": 0, "most": 0}
        model = tiny_model(torch.float32)
        weights |= {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            cached_backward(model, batch, chunk_size, backward)
        most.append(held["most"])
    assert most[1] < most[0] / 6


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_batch_norm_is_refused_unless_it_is_frozen():
    model = tiny_model(ecg=XRESNET)
    with pytest.raises(ValueError, match=r"ecg_model\.encoder.*BatchNorm.*ConvNeXt V2"):
        cached_step(model, model_batch(), 2)
    frozen = tiny_model(ecg=XRESNET), tiny_model(ecg=XRESNET)
    for each in frozen:
        each.ecg_model.eval()
    before = {name: buffer.clone() for name, buffer in frozen[1].named_buffers()}
    plain, cached = plain_step(frozen[0], model_batch())[1], cached_step(frozen[1], model_batch(), 4)[1]
    assert gap(cached, plain, torch.float64) <= 1e-9
    assert all(torch.equal(before[name], buffer) for name, buffer in frozen[1].named_buffers())


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="chunk_size: expected at least 1, got 0"):
        cached_step(tiny_model(), model_batch(), 0)
    with pytest.raises(ValueError, match="as many rows.*'text_key': 5"):
        cached_step(tiny_model(), model_batch() | {"text_key": torch.zeros(5)}, 2)
    with pytest.raises(ValueError, match="one or more"):
        cached_step(tiny_model(), model_batch(rows=slice(0, 0)), 2)
    with pytest.raises(ValueError, match="expected an ESIModel or a wrapper around one, got Linear"):
        unwrapped(nn.Linear(1, 1))


# ---------------------------------------------------------------------------------------------------------------------
# Two processes through DDP

SHARDS = {"even": [3, 3], "uneven": [5, 1]}


def rows_of(shards: list[int], rank: int) -> slice:
    return slice(sum(shards[:rank]), sum(shards[: rank + 1]))


def two_cached_steps(model, batch: dict, chunk_size: int) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first step; DDP stops at the second one if a parameter had no gradient."""
    output, found = cached_step(model, batch, chunk_size)
    model.zero_grad()
    cached_step(model, batch, chunk_size)
    return found | {"loss": output.loss}


def local_model():
    return tiny_model(negatives="local", caption_loss_weight=0.0)


def work(rank: int) -> dict:
    results = {"world_size": dist.get_world_size()}
    for split, shards in SHARDS.items():
        for dtype_name, dtype in DTYPES.items():
            batch = model_batch(dtype, rows_of(shards, rank))
            for name, fields in MODELS.items():
                for chunk_size in (1, 2):  # 5 records are 2 + 2 + 1: three chunks here, one there
                    model = DistributedDataParallel(tiny_model(dtype, **fields))
                    results[f"{split} {dtype_name} {name} {chunk_size}"] = two_cached_steps(model, batch, chunk_size)
    results["local"] = cached_step(
        DistributedDataParallel(local_model()), model_batch(rows=rows_of(SHARDS["even"], rank)), 2
    )[1]
    return results


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=patience)
    torch.save(work(rank), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(process, args=(str(folder),), nprocs=WORLD)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    assert [part["world_size"] for part in found] == [2, 2]
    return found


@functools.cache
def union_step(dtype_name: str, name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    dtype = DTYPES[dtype_name]
    output, found = plain_step(tiny_model(dtype, **MODELS[name]), model_batch(dtype))
    return output.loss.detach(), found


@pytest.mark.parametrize("chunk_size", [1, 2])
@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("split", SHARDS)
def test_chunks_in_two_processes_are_a_step_on_the_union(both, split, name, dtype_name, chunk_size):
    dtype = DTYPES[dtype_name]
    loss, union = union_step(dtype_name, name)
    parts = [dict(part[f"{split} {dtype_name} {name} {chunk_size}"]) for part in both]
    mean_loss = sum(part.pop("loss") for part in parts) / WORLD
    assert abs(mean_loss - loss) <= LIMIT[dtype] * abs(loss)
    for part in parts:
        assert gap(part, union, dtype) <= LIMIT[dtype]


def test_local_negatives_stay_local(both):
    """Each process contrasts its own records, in chunks as well: the mean of two models of three records each."""
    parts = [plain_step(local_model(), model_batch(rows=rows_of(SHARDS["even"], rank)))[1] for rank in range(WORLD)]
    mean = {name: sum(part[name] for part in parts) / WORLD for name in parts[0]}
    for part in both:
        assert gap(part["local"], mean, torch.float64) <= 1e-9
