"""ECG encoders, inference and training step, by preset and number type, beside the plain encoder of `baseline`.

Inference runs with weights in the number type; a training step (forward, backward, fused AdamW) with float32 weights
under autocast. FLOPs are those of the products and convolutions of one forward pass, counted on `ESIEcgModel`; a
training step counts three times as many, whatever is computed again. XResNet has no baseline; fp16 is not trained in.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modeling_esi import ESIConfig, ESIEcgConfig, ESIEcgModel
from modeling_esi.benchmarks.baseline import Encoder
from modeling_esi.benchmarks.comparison import (
    BASELINE,
    DTYPES,
    PACKAGE,
    Arm,
    Measurable,
    Settings,
    Trained,
    arm_name,
    cell,
    compare,
    copy_with_shared_weights,
    disturbance,
    enliven,
    machine_line,
    rate_line,
    share_weights,
    weight_bytes,
)
from modeling_esi.benchmarks.machine import describe, matrix_rate, use
from modeling_esi.benchmarks.measured import measured
from modeling_esi.benchmarks.scaling import markdown

MODULE = "modeling_esi.benchmarks.encoder"
PRESETS = (
    *(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large")),
    "xresnet1d101",
)
MODES = ("inference", "training")
BATCH_SIZE = {"cpu": 4, "cuda": 64}
TOLERANCE = 1e-4  # of the largest output, in float32
HEAD = [
    "encoder", "mode", "batch", "type", "implementation", "ms", "ECG/s", "TFLOP/s", "of the matrix rate",
    "peak memory, MB", "speed / baseline", "speed / float32 baseline",
]  # fmt: skip


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """`Settings`, the preset, batch sizes, and modes: `inference`, `training`."""

    preset: str = "convnextv2_base"
    batch_sizes: tuple[int, ...] = (4,)
    modes: tuple[str, ...] = MODES


def run(settings: EncoderSettings, presets: Sequence[str] = PRESETS) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table, a process for each preset; returns all figures."""
    told: dict[str, Any] = {"encoders": {}}
    for preset in presets:
        of_preset = measured(MODULE, "measure", asdict(replace(settings, preset=preset)))
        if not told["encoders"]:
            told["machine"] = of_preset["machine"]
            yield f"12 leads x {settings.num_samples} samples, {settings.variant}, median of {settings.rounds} rounds"
            yield f"{machine_line(told['machine'])}\n"
            yield from markdown(HEAD, [])
        told["encoders"][preset] = {name: of_preset[name] for name in ("matrix_rates", "rows")}
        yield from markdown(HEAD, [table_row(row) for row in of_preset["rows"]])[2:]
    yield ""
    for preset, of_preset in told["encoders"].items():
        yield f"{preset}: {rate_line(of_preset['matrix_rates'], settings.matrix_size)}"
        yield from disturbance(of_preset["rows"], settings.device)
    return told


def table_row(row: dict[str, Any]) -> list[str]:
    speeds = [None if row[name] is None else 1 / row[name] for name in ("time_ratio", "float32_time_ratio")]
    return [
        row["preset"], row["mode"], str(row["batch_size"]), row["dtype"], arm_name(row),
        cell(1000 * row["seconds"], 1), cell(row["per_second"], 1), cell(row["tflops"], 3),
        f"{row['share_of_matrix_rate']:.0%}", cell(row["peak_bytes"] / 1e6, 0), *map(cell, speeds),
    ]  # fmt: skip


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """The machine, its rates, and a row for every mode, batch size and arm of one preset; for a process of its own.

    Raises:
        RuntimeError: Outputs of the two implementations that differ.
    """
    told = EncoderSettings(**settings)
    device = use(told.device, told.num_threads)
    rates = {dtype: matrix_rate(DTYPES[dtype], device, told.matrix_size) for dtype in told.dtypes}
    config = ESIConfig.from_variant(told.variant, signal_encoder=told.preset).ecg_config
    flops = forward_flops(config, told.num_samples)
    rows = []
    for mode in told.modes:
        models = MODELS_OF_MODE[mode](config, told, device)
        for batch_size in told.batch_sizes:
            signals = torch.randn(batch_size, config.num_leads, told.num_samples, device=device)
            arms = {arm: model.measurable(signals) for arm, model in models.items()}
            work = batch_size * flops * (3 if mode == "training" else 1)
            compared = compare(arms, told, batch_size, work, rates)
            rows += [{"preset": told.preset, "mode": mode} | row for row in compared]
    return {"machine": describe(told.device, told.num_threads), "matrix_rates": rates, "rows": rows}


@dataclass(frozen=True)
class InferenceModel:
    """Weights and signals in one number type."""

    model: nn.Module

    def measurable(self, signals: torch.Tensor) -> Measurable:
        call = partial(infer, self.model, signals)
        return Measurable(call, call, partial(weight_bytes, self.model))


@dataclass(frozen=True)
class TrainingModel:
    """Float32 weights and their optimizer, trained under autocast to one number type."""

    trained: Trained
    dtype: str

    def measurable(self, signals: torch.Tensor) -> Measurable:
        loss = partial(mean_square, self.trained.model, signals)
        call, kept = (partial(self.trained.step, loss, self.dtype, keep) for keep in (False, True))
        return Measurable(call, kept, self.trained.held_bytes)


def inference_models(config: ESIEcgConfig, settings: EncoderSettings, device: torch.device) -> dict[Arm, Any]:
    """Every implementation in every number type."""
    return {
        Arm(name, dtype, compiled): InferenceModel(model.to(DTYPES[dtype]))
        for dtype in settings.dtypes
        for (name, compiled), model in build(config, settings, device).items()
    }


def training_models(config: ESIEcgConfig, settings: EncoderSettings, device: torch.device) -> dict[Arm, Any]:
    """Every implementation in every number type but fp16; all share weights and optimizer."""
    trained = Trained.all_of(build(config, settings, device))
    return {
        Arm(name, dtype, compiled): TrainingModel(one, dtype)
        for dtype in settings.dtypes
        if dtype != "fp16"
        for (name, compiled), one in trained.items()
    }


MODELS_OF_MODE = {"inference": inference_models, "training": training_models}


@torch.inference_mode()
def infer(model: nn.Module, signals: torch.Tensor) -> torch.Tensor:
    return pooled(model, signals.to(next(model.parameters()).dtype))


def mean_square(model: nn.Module, signals: torch.Tensor) -> torch.Tensor:
    """A loss that asks nothing of the machine."""
    return pooled(model, signals).float().square().mean()


def pooled(model: nn.Module, signals: torch.Tensor) -> torch.Tensor:
    """Pooled vectors `(B, H)` of either implementation."""
    return model(signals).pooler_output if isinstance(model, ESIEcgModel) else model(signals)


def build(config: ESIEcgConfig, settings: EncoderSettings, device: torch.device) -> dict[tuple[str, bool], nn.Module]:
    """The implementations around the same random weights, the baseline first, by name and whether compiled.

    Raises:
        RuntimeError: Outputs that differ by more than `TOLERANCE` of the largest.
    """
    torch.manual_seed(0)
    model = enliven(ESIEcgModel(config)).to(device).eval()
    models: dict[str, nn.Module] = {PACKAGE: model}
    if config.encoder_type == "convnextv2":
        baseline = Encoder(config).to(device).eval()
        share_weights(model.encoder, baseline)
        check_outputs(baseline, model, torch.randn(2, config.num_leads, settings.num_samples, device=device))
        models = {BASELINE: baseline, PACKAGE: model}
    built = {(name, False): one for name, one in models.items()}
    if settings.compile:
        built |= {(name, True): compiled_copy(one) for name, one in models.items()}
    return built


def compiled_copy(model: nn.Module) -> nn.Module:
    copied = copy_with_shared_weights(model)
    (copied.encoder if isinstance(copied, ESIEcgModel) else copied).compile()
    return copied


def check_outputs(baseline: nn.Module, model: nn.Module, signals: torch.Tensor) -> None:
    expected, got = infer(baseline, signals), infer(model, signals)
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"outputs of model and baseline: expected a difference of at most {TOLERANCE} of the largest value, "
            f"got {difference:.1e}. They do not compute the same, so their speeds cannot be compared."
        )


def forward_flops(config: ESIEcgConfig, num_samples: int) -> int:
    """Operations of one record's forward pass, counted on a model without memory."""
    with torch.device("meta"):
        model = ESIEcgModel(config).eval()
        signals = torch.empty(1, config.num_leads, num_samples)
    with FlopCounterMode(display=False) as counter:
        model(signals)
    return counter.get_total_flops()
