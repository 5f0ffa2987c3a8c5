"""Implementations side by side: called in turn in one process, by number type, each beside the plain baseline."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_esi.benchmarks.machine import MATRIX_PRODUCTS, MATRIX_SIZE, allocated_peak, num_cores, synchronize

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BASELINE, PACKAGE = "baseline", "modeling_esi"
MIN_SECONDS = 0.2  # quick calls are repeated for at least so long, and their mean is one measurement


@dataclass(frozen=True)
class Arm:
    """One implementation in one number type."""

    implementation: str
    dtype: str
    compiled: bool = False


class Seconds(NamedTuple):
    """Of one call: by the clock, and this process's time on all cores.

    Where all work is done on one core of a calm machine, both are equal; where the second is much less, other processes
    took the rest, and the clock tells little.
    """

    clock: float
    cpu: float


@dataclass(frozen=True)
class Settings:
    """What every comparison is told.

    Attributes:
        variant: `released`, which the baseline computes too, or `esi`.
        num_samples: of the 12 leads' signals.
        dtypes: names of `DTYPES`.
        device: `cpu`, `cuda` or `cuda:N`.
        num_threads: of torch on the CPU.
        rounds: measurements of each arm; the median counts.
        compile: also measure both implementations under `torch.compile`.
        matrix_size: of the products that give the machine's own rate.

    Raises:
        ValueError: A number type that is not known, or a number that is not positive.
    """

    variant: str = "released"
    num_samples: int = 5000
    dtypes: tuple[str, ...] = ("float32", "bf16")
    device: str = "cpu"
    num_threads: int = field(default_factory=num_cores)
    rounds: int = 5
    compile: bool = False
    matrix_size: int = MATRIX_SIZE

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise ValueError(f"dtypes: expected names of {', '.join(DTYPES)}, got {dtype!r}.")
        for name in ("num_samples", "num_threads", "rounds", "matrix_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")


# ----- what is measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurable:
    """What is measured of one arm.

    Attributes:
        call: is timed.
        kept: the same call with all gradients held throughout; its memory is measured.
        held_bytes: of weights, gradients and optimizer state, asked after `kept`.
    """

    call: Callable[[], object]
    kept: Callable[[], object]
    held_bytes: Callable[[], int]


@dataclass(frozen=True)
class Trained:
    """A model with its optimizer, fused AdamW."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def all_of(cls, models: Mapping[Any, nn.Module]) -> dict[Any, Trained]:
        """Models that share their weights, trained by one optimizer."""
        optimizer = torch.optim.AdamW(next(iter(models.values())).parameters(), lr=5e-5, fused=True)
        return {name: cls(model.train(), optimizer) for name, model in models.items()}

    def step(self, loss: Callable[[], torch.Tensor], dtype: str, keep_gradients: bool = False) -> torch.Tensor:
        """Forward, backward and update; weights are float32, other types go through autocast.

        With `keep_gradients` they are zeroed in place, not freed: all of them are then held all the time, so that
        memory above weights, gradients and optimizer state is that of activations.
        """
        self.optimizer.zero_grad(set_to_none=not keep_gradients)
        with autocast(next(self.model.parameters()).device, dtype):
            value = loss()
        value.backward()
        self.optimizer.step()
        return value.detach()

    def held_bytes(self) -> int:
        """Weights, buffers, gradients and the optimizer's state, as they are after a step that kept gradients."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        return weight_bytes(self.model) + tensor_bytes(gradients) + tensor_bytes(state)


def autocast(device: torch.device, dtype: str) -> torch.autocast:
    """Products in `dtype`; for float32, none of it."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32")


def share_weights(model: nn.Module, other: nn.Module) -> None:
    """`other` computes with the very parameters of `model`, which have the same names; its own are dropped.

    So two implementations fit where one does: weights, gradients and optimizer state are there once.
    """
    other.load_state_dict(model.state_dict(keep_vars=True), assign=True)


def copy_with_shared_weights(model: nn.Module) -> nn.Module:
    """Modules of its own, to be compiled, around the same parameters."""
    return copy.deepcopy(model, memo={id(parameter): parameter for parameter in model.parameters()})


def weight_bytes(model: nn.Module) -> int:
    return tensor_bytes(model.parameters()) + tensor_bytes(model.buffers())


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@torch.no_grad()
def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Small random values where a fresh model has zeros (GRN, biases), so that two implementations can differ there."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


# ----- how -----------------------------------------------------------------------------------------------------------


def compare(
    arms: Mapping[Arm, Measurable], settings: Settings, batch_size: int, flops: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row for every arm: speed, then memory, then ratios to the baseline.

    Args:
        flops: of one call.
        rates: the machine's own, in operations per second, by number type.
    """
    device = torch.device(settings.device)
    seconds = seconds_in_turn({arm: one.call for arm, one in arms.items()}, settings.rounds, device)
    rows = []
    for arm, one in arms.items():
        activations = allocated_peak(one.kept, device)
        row = figures(arm, seconds[arm], batch_size, flops, rates[arm.dtype])
        rows.append(row | {"activation_bytes": activations, "peak_bytes": one.held_bytes() + activations})
    return beside_the_baseline(rows)


def seconds_in_turn(
    calls: Mapping[Arm, Callable[[], object]], rounds: int, device: torch.device
) -> dict[Arm, list[Seconds]]:
    """Seconds of one call of each arm, `rounds` times: A B A B, so that what disturbs the machine meets all.

    Every arm is called once before, unmeasured.
    """
    for call in calls.values():
        call()
    seconds: dict[Arm, list[Seconds]] = {arm: [] for arm in calls}
    for _ in range(rounds):
        for arm, call in calls.items():
            seconds[arm].append(_mean_seconds(call, device))
    return seconds


def _mean_seconds(call: Callable[[], object], device: torch.device) -> Seconds:
    synchronize(device)
    started, cpu_started, num_calls = time.perf_counter(), time.process_time(), 0
    while num_calls == 0 or time.perf_counter() - started < MIN_SECONDS:
        call()
        num_calls += 1
    synchronize(device)
    return Seconds((time.perf_counter() - started) / num_calls, (time.process_time() - cpu_started) / num_calls)


def figures(arm: Arm, seconds: list[Seconds], batch_size: int, flops: float, rate: float) -> dict[str, Any]:
    """Speed of one arm, by the clock, from the seconds of a call by round."""
    by_clock = [of_round.clock for of_round in seconds]
    median = statistics.median(by_clock)
    return {
        "implementation": arm.implementation,
        "dtype": arm.dtype,
        "compiled": arm.compiled,
        "batch_size": batch_size,
        "seconds": median,
        "seconds_by_round": by_clock,
        "cpu_seconds": statistics.median(of_round.cpu for of_round in seconds),
        "per_second": batch_size / median,
        "tflops": flops / median / 1e12,
        "share_of_matrix_rate": flops / median / rate,
    }


def beside_the_baseline(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with three ratios to the baseline that is not compiled, `None` where it was not measured.

    `time_ratio` and `activation_ratio` are to the baseline in the same number type, `float32_time_ratio` to float32's.
    """
    plain = {row["dtype"]: row for row in rows if row["implementation"] == BASELINE and not row["compiled"]}

    def ratio(row: dict[str, Any], name: str, dtype: str) -> float | None:
        return row[name] / plain[dtype][name] if dtype in plain and plain[dtype][name] else None

    return [
        row
        | {
            "time_ratio": ratio(row, "seconds", row["dtype"]),
            "float32_time_ratio": ratio(row, "seconds", "float32"),
            "activation_ratio": ratio(row, "activation_bytes", row["dtype"]),
        }
        for row in rows
    ]


# ----- words ---------------------------------------------------------------------------------------------------------


def cell(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def arm_name(row: Mapping[str, Any]) -> str:
    return f"{row['implementation']}{', compiled' if row['compiled'] else ''}"


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine in one line."""
    gpu = f"{machine['gpu']} (driver {machine['driver']}, CUDA {machine['cuda']}), " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['cpu']} ({machine['cpu_capability']}), {machine['num_threads']} of {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{machine['malloc']}"
    )


def disturbance(rows: Iterable[Mapping[str, Any]], device: str) -> Iterator[str]:
    """One line where other processes took over a tenth of a core's time from an arm: the clock then tells little."""
    least = min((row["cpu_seconds"] / row["seconds"] for row in rows), default=1.0)
    if torch.device(device).type == "cpu" and least < 0.9:
        yield f"NOT CALM: an arm had {least:.0%} of one core's time. Repeat where nothing else runs, or go by CPU time."


def rate_line(rates: Mapping[str, float], size: int) -> str:
    """The machine's own rates in one line."""
    told = ", ".join(f"{dtype} {rate / 1e12:,.3f}" for dtype, rate in rates.items())
    return f"matrix rate, TFLOP/s (best of {MATRIX_PRODUCTS} products of {size} x {size}): {told}"
