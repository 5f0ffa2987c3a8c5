"""What devices ask of a training, as far as it can be told without them."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_esi import XRESNET, tiny_batch, tiny_esi
from torch import nn

from modeling_esi.training.devices import (
    choose_precision,
    compile_parts,
    set_cpu_threads,
    whole_model,
    with_shared_batch_norm,
)


def accelerator(device="cpu", num_processes=1, **fields):
    return SimpleNamespace(device=torch.device(device), num_processes=num_processes, is_main_process=True, **fields)


@pytest.mark.parametrize(
    ("asked", "launched", "cuda", "on_cpu", "expected"),
    [
        (None, None, True, "", "bf16"),
        (None, "no", True, "", "bf16"),
        (None, "fp16", True, "", "fp16"),
        ("no", "no", True, "", "no"),
        ("fp16", "bf16", True, "", "fp16"),
        (None, "no", True, "true", "no"),
        (None, None, False, "", "no"),
    ],
)
def test_precision_is_as_asked_and_bf16_where_nobody_asks_on_a_gpu(
    monkeypatch, asked, launched, cuda, on_cpu, expected
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    monkeypatch.setenv("ACCELERATE_USE_CPU", on_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda and not including_emulation)
    assert choose_precision(asked) == expected


def test_threads_are_shared_out(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    try:
        for num_processes, asked, expected in ((2, None, 3), (8, None, 1), (2, 1, 1)):
            set_cpu_threads(accelerator(num_processes=num_processes), asked)
            assert torch.get_num_threads() == expected
        set_cpu_threads(accelerator("cuda"), 5)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_batch_norm_is_shared_over_gpus_and_warned_of_elsewhere(caplog):
    model = tiny_esi(ecg=XRESNET)
    names = list(model.state_dict())
    assert with_shared_batch_norm(model, accelerator("cuda", 1)) is model and not caplog.records
    assert with_shared_batch_norm(model, accelerator("cpu", 2)) is model
    assert "each normalises over its own records" in caplog.text
    shared = with_shared_batch_norm(model, accelerator("cuda", 2))
    kinds = {type(module) for module in shared.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm} and list(shared.state_dict()) == names
    caplog.clear()
    with_shared_batch_norm(tiny_esi(), accelerator("cpu", 2))  # ConvNeXt V2 has none
    assert not caplog.records


@pytest.mark.slow
def test_compiled_parts_compute_the_same_and_keep_their_names(monkeypatch):
    """Traced, forward and backward, but not turned into C++, which takes minutes."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="aot_eager"))
    plain, compiled, batch = tiny_esi(), tiny_esi(), tiny_batch()
    compile_parts(compiled, torch.device("cpu"))
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for _ in range(2):
        expected, got = (model(**batch, return_loss=True) for model in (plain, compiled))
        torch.testing.assert_close(got.loss, expected.loss, rtol=1e-4, atol=1e-5)
        batch = tiny_batch(num_tokens=14)  # another length
    got.loss.backward()
    assert all(parameter.grad is not None for parameter in compiled.parameters())


def test_a_whole_model_is_itself_and_a_sharded_one_is_put_together(monkeypatch):
    model = tiny_esi()
    assert whole_model(accelerator(distributed_type=DistributedType.MULTI_CPU), None, model) is model
    sent = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, source: sent.append(source))
    sharded = accelerator(distributed_type=DistributedType.FSDP, get_state_dict=lambda wrapped: wrapped.state_dict())
    whole = whole_model(sharded, model, tiny_esi())
    assert whole is not model and not whole.training and len(sent) == len(model.state_dict())
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())
