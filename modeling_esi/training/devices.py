"""What devices and engines ask of a training: precision, threads, normalisation over processes, whole weights."""

import logging
import os
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from modeling_esi.modeling_esi import ESIModel

from .weight_average import WeightAverage

logger = logging.getLogger(__name__)


def choose_precision(asked: str | None) -> str:
    """As flag or launcher say; where they say nothing, bf16 on a GPU that has it. (A launcher's "no" says nothing.)"""
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    on_gpu = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "yes", "1")
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return asked or ("bf16" if launched == "no" and has_bf16 else launched)


def set_cpu_threads(accelerator: Accelerator, asked: int | None) -> None:
    """Threads of torch on a CPU: as asked, or the cores shared out. (`accelerate launch` leaves one each.)"""
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(asked or max(1, cores // accelerator.num_processes))


def with_shared_batch_norm(model: ESIModel, accelerator: Accelerator) -> ESIModel:
    """On several GPUs, BatchNorm over the records of all; elsewhere a warning, since torch has none for it there."""
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if not has_batch_norm or accelerator.num_processes == 1:
        return model
    if accelerator.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    logger.warning(
        "BatchNorm in %d processes without GPUs: each normalises over its own records, so that the result is not that "
        "of one process with all records. ConvNeXt V2 has no BatchNorm.", accelerator.num_processes,
    )  # fmt: skip
    return model


def compile_parts(model: ESIModel, device: torch.device) -> None:
    """torch.compile for the ECG encoder and the caption decoder, in place: names of weights stay."""
    where = "on a CPU it needs a C++ compiler and gains little" if device.type == "cpu" else device.type
    logger.info(
        "--compile: the first steps, and the first ones with texts of another length, take minutes (%s).", where
    )
    for part in (model.ecg_model.encoder, model.decoder):
        if part is not None:
            part.compile()


def refuse_sharded(accelerator: Accelerator, **weights: float) -> None:
    """End where a part of the training that needs whole weights is asked for (its weight is not 0) under FSDP."""
    asked = [f"--{name}" for name, weight in weights.items() if weight]
    if asked and accelerator.distributed_type == DistributedType.FSDP:
        sys.exit(
            f"{', '.join(asked)}: expected whole weights on every process, got FSDP, which holds shards. Train with "
            "DDP (recipes/accelerate/4_gpus.yaml), or without."
        )


def whole_model(
    accelerator: Accelerator, model: nn.Module, raw_model: ESIModel, average: WeightAverage | None = None
) -> ESIModel:
    """The model to be judged, on every process, also where each holds but a shard of it (FSDP).

    With an `average`, a model with the averaged weights; otherwise the trained one. Every process must call it.
    """
    if average is not None:
        averaged = ESIModel(raw_model.config).to(accelerator.device)
        averaged.load_state_dict(average.weights())
        return averaged.eval()
    if accelerator.distributed_type != DistributedType.FSDP:
        return raw_model
    state = accelerator.get_state_dict(model)  # on the main process
    whole = ESIModel(raw_model.config)
    if accelerator.is_main_process:
        whole.load_state_dict(state)
    whole = whole.to(accelerator.device)
    for tensor in whole.state_dict().values():
        torch.distributed.broadcast(tensor, 0)
    return whole.eval()
