"""The whole training step (forward, backward, fused AdamW) beside the plain implementation in `baseline`.

Both have the same random weights and no dropout, and see the same batch, texts of lengths drawn uniformly, padded to
the longest; their losses must agree before anything is timed. Speed and memory are those of one configuration. FLOPs
are those of the products and convolutions of a forward pass over real tokens, counted on `ESIModel` with all logits,
three times for a step, for both implementations: what one computes beside (padding, or again) counts as time.
Activation memory is what torch's allocator gives out at most in a step above weights, gradients and optimizer state.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modeling_esi import ESIConfig, ESIModel
from modeling_esi.benchmarks.baseline import Baseline
from modeling_esi.benchmarks.comparison import (
    BASELINE,
    DTYPES,
    PACKAGE,
    Arm,
    Measurable,
    Settings,
    Trained,
    arm_name,
    autocast,
    cell,
    compare,
    copy_with_shared_weights,
    disturbance,
    enliven,
    machine_line,
    rate_line,
    share_weights,
)
from modeling_esi.benchmarks.machine import describe, matrix_rate, use
from modeling_esi.benchmarks.measured import measured
from modeling_esi.benchmarks.scaling import markdown

MODULE = "modeling_esi.benchmarks.step"
TOLERANCE = 1e-4  # of losses in float32, in nats
LOSSES = ("loss", "contrastive_loss", "caption_loss")
#: `base` is the paper's: BioLinkBERT-base's shape, six decoder layers, 768 wide. `demo` is that of recipes/demo.yaml.
SIZES: dict[str, dict[str, Any]] = {
    "base": {"ecg_config": {"signal_encoder": "convnextv2_base"}, "text_config": {"vocab_size": 28895}},
    "demo": {
        "ecg_config": {"signal_encoder": "convnextv2_atto"},
        "text_config": {
            "vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 512,
        },
        "decoder_config": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32},
        "projection_dim": 128,
    },
}  # fmt: skip
HEAD = [
    "type", "implementation", "step, s", "CPU time, s", "pairs/s", "TFLOP/s", "of the matrix rate",
    "activations, MB", "peak, MB", "time / baseline", "time / float32 baseline", "activations / baseline",
]  # fmt: skip


@dataclass(frozen=True)
class StepSettings(Settings):
    """`Settings`, the model's size (a name of `SIZES`), pairs in a batch, and the shortest and longest text in tokens.

    Raises:
        ValueError: As `Settings`; texts longer than the text encoder's positions; fp16, which needs a scaled loss.
    """

    size: str = "base"
    batch_size: int = 4
    min_tokens: int = 100
    max_tokens: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise ValueError(f"size: expected one of {', '.join(SIZES)}, got {self.size!r}.")
        if "fp16" in self.dtypes:
            raise ValueError("dtypes: fp16 needs a scaled loss, which no step here has; expected float32 or bf16.")
        positions = model_config(self).text_config.max_position_embeddings
        if not 3 <= self.min_tokens <= self.max_tokens <= positions:
            raise ValueError(
                f"min_tokens and max_tokens: expected 3 <= min_tokens <= max_tokens <= {positions}, the text encoder's "
                f"positions, got {self.min_tokens} and {self.max_tokens}."
            )


def run(settings: StepSettings) -> Generator[str, None, dict[str, Any]]:
    """Lines of losses and table, measured in a process of its own; returns all figures."""
    told = measured(MODULE, "measure", asdict(settings))
    yield (
        f"{settings.variant}, {settings.size}: {told['num_parameters'] / 1e6:,.1f} M parameters; {settings.batch_size} "
        f"pairs, 12 x {settings.num_samples} samples, texts of {', '.join(map(str, told['num_tokens']))} tokens; "
        f"median of {settings.rounds} rounds"
    )
    yield machine_line(told["machine"])
    yield rate_line(told["matrix_rates"], settings.matrix_size)
    yield f"{told['flops'] / 1e12:,.3f} TFLOP a step\n"
    losses = [
        [of["dtype"], of["implementation"], *(f"{of[name]:.6f}" for name in LOSSES)]
        for of in told["losses"]
    ]  # fmt: skip
    yield from markdown(["type", "implementation", *LOSSES], losses)
    yield ""
    yield from markdown(HEAD, [table_row(row) for row in told["rows"]])
    yield from disturbance(told["rows"], settings.device)
    return told


def table_row(row: dict[str, Any]) -> list[str]:
    return [
        row["dtype"], arm_name(row), cell(row["seconds"], 3), cell(row["cpu_seconds"], 3), cell(row["per_second"], 3),
        cell(row["tflops"], 3), f"{row['share_of_matrix_rate']:.0%}", cell(row["activation_bytes"] / 1e6, 0),
        cell(row["peak_bytes"] / 1e6, 0),
        *(cell(row[name]) for name in ("time_ratio", "float32_time_ratio", "activation_ratio")),
    ]  # fmt: skip


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """The machine, its rates, losses, and a row for every arm; for a process of its own.

    Raises:
        RuntimeError: Losses of the two implementations that differ.
    """
    told = StepSettings(**settings)
    device, config = use(told.device, told.num_threads), model_config(told)
    rates = {dtype: matrix_rate(DTYPES[dtype], device, told.matrix_size) for dtype in told.dtypes}
    batch = {name: value.to(device) for name, value in draw_batch(config, told).items()}
    num_tokens = batch["attention_mask"].sum(dim=1).tolist()
    flops = 3 * sum(forward_flops(config, told.num_samples, length) for length in num_tokens)
    models = build(config, device)
    losses = losses_of(models, batch, told.dtypes)
    check_losses(losses)
    return {
        "machine": describe(told.device, told.num_threads),
        "settings": asdict(told),
        "matrix_rates": rates,
        "num_parameters": sum(parameter.numel() for parameter in models[PACKAGE].parameters()),
        "num_tokens": num_tokens,
        "flops": flops,
        "losses": losses,
        "rows": compare(training_arms(models, batch, told), told, told.batch_size, flops, rates),
    }


def model_config(settings: StepSettings) -> ESIConfig:
    """Without dropout: two implementations draw different masks, and their losses could not be compared."""
    fields = copy.deepcopy(SIZES[settings.size])
    fields["text_config"] |= {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return ESIConfig.from_variant(settings.variant, **fields)


def draw_batch(config: ESIConfig, settings: StepSettings) -> dict[str, torch.Tensor]:
    """Pairs of noise and of random tokens: lengths uniform from `min_tokens` to `max_tokens`, padding last."""
    generator = torch.Generator().manual_seed(settings.seed)
    span = (settings.min_tokens, settings.max_tokens + 1)
    lengths = torch.randint(*span, (settings.batch_size,), generator=generator)
    pad = config.decoder_config.pad_token_id
    shape = (settings.batch_size, int(lengths.max()))
    attention_mask = (torch.arange(shape[1]) < lengths[:, None]).long()
    input_ids = torch.randint(pad + 1, config.text_config.vocab_size, shape, generator=generator)
    signal_shape = (settings.batch_size, config.ecg_config.num_leads, settings.num_samples)
    return {
        "input_values": torch.randn(signal_shape, generator=generator),
        "input_ids": input_ids.where(attention_mask.bool(), pad),
        "attention_mask": attention_mask,
    }


def build(config: ESIConfig, device: torch.device) -> dict[str, nn.Module]:
    """The implementations around the same random weights; the baseline, first, where it computes the variant."""
    torch.manual_seed(0)
    model = enliven(ESIModel(config)).to(device).train()
    if config.variant != "released":
        return {PACKAGE: model}
    baseline = Baseline(config).to(device).train()
    share_weights(model, baseline)
    return {BASELINE: baseline, PACKAGE: model}


def compute_losses(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """`LOSSES` of either implementation, as training computes them."""
    if isinstance(model, Baseline):
        return model(**batch)
    output = model(**batch, return_loss=True)
    return tuple(output[name] for name in LOSSES)


@torch.no_grad()
def losses_of(
    models: dict[str, nn.Module], batch: dict[str, torch.Tensor], dtypes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Losses of every implementation in float32 and in every number type asked for."""
    told = []
    for dtype in dict.fromkeys(("float32", *dtypes)):
        for name, model in models.items():
            with autocast(batch["input_values"].device, dtype):
                values = [value.item() for value in compute_losses(model, batch)]
            told.append({"implementation": name, "dtype": dtype} | dict(zip(LOSSES, values, strict=True)))
    return told


def check_losses(losses: list[dict[str, Any]]) -> None:
    """RuntimeError where the implementations' float32 losses differ by more than `TOLERANCE`, or are no numbers."""
    exact = [of for of in losses if of["dtype"] == "float32"]
    for name in LOSSES:
        values = {of["implementation"]: of[name] for of in exact}
        if not all(abs(value - exact[0][name]) <= TOLERANCE for value in values.values()):
            raise RuntimeError(
                f"{name} in float32: expected a difference of at most {TOLERANCE}, got {values}. "
                "They do not compute the same, so their speeds cannot be compared."
            )


def training_arms(
    models: dict[str, nn.Module], batch: dict[str, torch.Tensor], settings: StepSettings
) -> dict[Arm, Measurable]:
    """A training step of every implementation in every number type; all share weights and optimizer."""
    built = {(name, False): model for name, model in models.items()}
    if settings.compile:
        built |= {(name, True): compiled_copy(model) for name, model in models.items()}
    all_trained, arms = Trained.all_of(built), {}
    for dtype in settings.dtypes:
        for (name, compiled), one in all_trained.items():
            loss = partial(first_loss, one.model, batch)
            call, kept = (partial(one.step, loss, dtype, keep) for keep in (False, True))
            arms[Arm(name, dtype, compiled)] = Measurable(call, kept, one.held_bytes)
    return arms


def first_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return compute_losses(model, batch)[0]


def compiled_copy(model: nn.Module) -> nn.Module:
    """Parts are compiled as `train_accelerate.py --compile` has them; of the baseline, all of it."""
    copied = copy_with_shared_weights(model)
    for part in (copied.ecg_model.encoder, copied.decoder) if isinstance(copied, ESIModel) else (copied,):
        part.compile()
    return copied


def forward_flops(config: ESIConfig, num_samples: int, num_tokens: int) -> int:
    """Operations of one pair's forward pass without padding, with all logits, counted on a model without memory."""
    with torch.device("meta"):
        model = ESIModel(config).eval()
        signals = torch.empty(1, config.ecg_config.num_leads, num_samples)
        tokens = torch.empty(1, num_tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(signals, input_ids=tokens)
    return counter.get_total_flops()
