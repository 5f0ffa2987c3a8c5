"""What training takes at the paper's size, by arithmetic: hours, memory, disk and bandwidth.

    python -m modeling_esi.benchmarks.scaling

Nothing is measured here. Matrix products are counted from the configuration (2 m n k operations; the backward pass has
two products for each one of the forward pass), and divided by peak rates and by the share of them that is assumed.
`docs/scaling.md` holds the tables that this prints, and says what they mean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from modeling_esi import ESIConfig, ESIModel

NUM_PAIRS, EPOCHS = 660_000, 30  # ESI, arXiv 2405.19366
NUM_SAMPLES, NUM_TOKENS, NUM_LEADS = 5000, 300, 12
BATCH_SIZE = 48  # on each GPU, as the authors' example has it
#: Dense bf16 operations in a second (NVIDIA's data sheets of A100 and H100 SXM), and GB of the larger version.
PEAK = {"A100": 312e12, "H100": 989e12}
CAPACITY = {"A100": 80, "H100": 80}
SHARES = (0.30, 0.45)  # of the peak that a whole training step is assumed to reach
#: ECG/s of the authors' base encoder, training on one A100: a third party's measurement.
AUTHORS_ENCODER_RATE = 85
BYTES_PER_SAMPLE = 2  # int16 shards
PARQUET_SHARE = 0.37  # of the shards' size, on real records
BF16, FLOAT32 = 2, 4


@dataclass(frozen=True)
class Setup:
    """A number of GPUs on a number of nodes, and the accelerate configuration that starts them."""

    name: str
    num_gpus: int
    num_nodes: int
    config_file: str

    @property
    def global_batch(self) -> int:
        return BATCH_SIZE * self.num_gpus

    @property
    def num_steps(self) -> int:
        return EPOCHS * (NUM_PAIRS // self.global_batch)

    def hours(self, flops: float, gpu: str, share: float) -> float:
        """Hours of the whole training, where a pair takes `flops` operations."""
        return self.num_steps * self.step_seconds(flops, gpu, share) / 3600

    def step_seconds(self, flops: float, gpu: str, share: float) -> float:
        return BATCH_SIZE * flops / (share * PEAK[gpu])


SETUPS = (
    Setup("1 GPU", 1, 1, "1_gpu.yaml"),
    Setup("4 GPUs, as published", 4, 1, "4_gpus.yaml"),
    Setup("8 GPUs", 8, 1, "8_gpus.yaml"),
    Setup("2 nodes x 8 GPUs", 16, 2, "2_nodes.yaml"),
)


def model_config(signal_encoder: str = "convnextv2_base") -> ESIConfig:
    """The `esi` variant at the paper's size: BERT-base with 28,895 tokens, six decoder layers, width 768."""
    return ESIConfig.from_variant("esi", ecg_config={"signal_encoder": signal_encoder})


# ----- operations ----------------------------------------------------------------------------------------------------


def forward_flops(config: ESIConfig, num_samples: int = NUM_SAMPLES, num_tokens: int = NUM_TOKENS) -> dict[str, float]:
    """Operations of the matrix products and convolutions of one pair, by part of the model."""
    num_frames = frames_of_stages(config, num_samples)[-1]
    return {
        "ECG encoder": encoder_flops(config, num_samples),
        "text encoder": bert_flops(config, num_tokens),
        "caption decoder": decoder_flops(config, num_tokens - 1, num_frames),
        "vocabulary": 2 * (num_tokens - 1) * config.decoder_config.hidden_size * config.decoder_config.vocab_size,
    }


def frames_of_stages(config: ESIConfig, num_samples: int) -> list[int]:
    """Frames in each of the encoder's four stages: 1250, 625, 312, 156 of 5000 samples."""
    first = num_samples // config.ecg_config.patch_size
    return [first // 2**stage for stage in range(4)]


def encoder_flops(config: ESIConfig, num_samples: int) -> float:
    """ConvNeXt V2: stem, downsampling, and blocks of a depthwise convolution and two products C x 4C."""
    ecg = config.ecg_config
    widths, frames = ecg.hidden_sizes, frames_of_stages(config, num_samples)
    patches = [ecg.patch_size * ecg.num_leads, *(2 * width for width in widths[:-1])]
    projections = sum(2 * f * patch * width for f, patch, width in zip(frames, patches, widths, strict=True))
    blocks = sum(
        depth * f * (2 * ecg.kernel_size * width + 2 * 2 * width * 4 * width)
        for depth, f, width in zip(ecg.depths, frames, widths, strict=True)
    )
    return projections + blocks


def encoder_batch_flops(config: ESIConfig) -> float:
    """Beside these, once a batch and not in the tables: GRN's beta through each block's second product."""
    ecg = config.ecg_config
    return sum(8.0 * width**2 * depth for width, depth in zip(ecg.hidden_sizes, ecg.depths, strict=True))


def bert_flops(config: ESIConfig, num_tokens: int) -> float:
    """Query, key, value and output, the feed-forward, and both products of attention over all tokens."""
    text = config.text_config
    linear = 4 * text.hidden_size**2 + 2 * text.hidden_size * text.intermediate_size
    attention = 2 * num_tokens * text.hidden_size
    return text.num_hidden_layers * 2 * num_tokens * (linear + attention)


def decoder_flops(config: ESIConfig, num_tokens: int, num_frames: int) -> float:
    """Both steps of every layer; attention over all tokens, though a causal kernel may leave out half of them."""
    decoder = config.decoder_config
    width, inner, heads = decoder.hidden_size, decoder.intermediate_size, decoder.num_attention_heads * decoder.head_dim
    feed_forward, queries_and_output = 3 * width * inner, 2 * width * heads
    keys_and_values = 2 * width * decoder.head_dim
    per_token = 2 * (feed_forward + queries_and_output) + keys_and_values + 2 * heads * (num_tokens + num_frames)
    return 2 * decoder.num_hidden_layers * (num_tokens * per_token + num_frames * keys_and_values)


def training_flops(config: ESIConfig) -> float:
    """Operations of one pair, forward and backward."""
    return 3 * sum(forward_flops(config).values())


# ----- memory --------------------------------------------------------------------------------------------------------


def num_parameters(config: ESIConfig) -> dict[str, int]:
    """Parameters by part, from a model without memory."""
    with torch.device("meta"):
        model = ESIModel(config)
    parts = {"ECG encoder": model.ecg_model, "text encoder": model.text_model, "vocabulary": model.decoder.lm_head}
    counts = {name: part.num_parameters() if name != "vocabulary" else part.weight.numel()
              for name, part in parts.items()}  # fmt: skip
    counts["caption decoder"] = model.decoder.num_parameters() - counts["vocabulary"]
    counts["heads and projections"] = model.num_parameters() - sum(counts.values())
    return counts


def activation_bytes(config: ESIConfig) -> dict[str, float]:
    """What the backward pass of one pair needs from the forward pass, in bf16, with attention that keeps no matrix.

    ConvNeXt V2 block: three tensors of width C (input, depthwise output, normed) and one of width 4C (before GELU; what
    follows is computed again), and as much as half of one of width C for norms, downsampling and sums over time. BERT
    layer: 17 values of width D for each token (34 bytes: Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198,
    section 4.1, without the matrix that flash attention does not keep). Decoder step: residual and norm (2 D), queries
    and attention output (3 heads wide), both sides of SwiGLU (2 x 4D). The loss goes through the vocabulary in chunks
    and keeps no logits; with all of them it would keep `logits_bytes`.
    """
    ecg, text, decoder = config.ecg_config, config.text_config, config.decoder_config
    frames = frames_of_stages(config, NUM_SAMPLES)
    blocks = sum(d * f * width * 7.5 for d, f, width in zip(ecg.depths, frames, ecg.hidden_sizes, strict=True))
    step = 2 * decoder.hidden_size + 3 * decoder.num_attention_heads * decoder.head_dim + 2 * decoder.intermediate_size
    return {
        "ECG encoder": BF16 * blocks,
        "text encoder": BF16 * text.num_hidden_layers * NUM_TOKENS * 17 * text.hidden_size,
        "caption decoder": BF16 * decoder.num_hidden_layers * NUM_TOKENS * 2 * step,
        "vocabulary": 0.0,
    }


def logits_bytes(config: ESIConfig) -> float:
    """Logits of one pair kept whole: once in bf16, once in float32, and their gradient in bf16."""
    return NUM_TOKENS * config.decoder_config.vocab_size * (BF16 + FLOAT32 + BF16)


def state_bytes(parameters: int, num_gpus: int, sharded: bool) -> dict[str, float]:
    """Bytes on each GPU under bf16 autocast: float32 weights, gradients and both AdamW moments, and bf16 copies.

    DDP sums gradients in buckets of their own; FSDP2 leaves each GPU its share of everything.
    """
    parts = {"weights": FLOAT32, "bf16 copies": BF16, "gradients": FLOAT32, "AdamW": 2 * FLOAT32}
    if num_gpus > 1 and not sharded:
        parts["DDP buckets"] = FLOAT32
    share = num_gpus if sharded else 1
    return {name: parameters * size / share for name, size in parts.items()}


def checkpoint_bytes(parameters: int) -> float:
    """Weights and both AdamW moments in float32."""
    return 3 * FLOAT32 * parameters


# ----- disk and bandwidth --------------------------------------------------------------------------------------------


def record_bytes() -> int:
    """Samples of one record in a shard."""
    return NUM_LEADS * NUM_SAMPLES * BYTES_PER_SAMPLE


def bytes_between_nodes(parameters: int, setup: Setup) -> float:
    """What a ring all-reduce of float32 gradients sends out of each node in a step."""
    if setup.num_nodes == 1:
        return 0.0
    return 2 * (setup.num_gpus - 1) / setup.num_gpus * FLOAT32 * parameters


# ----- tables --------------------------------------------------------------------------------------------------------


def run(num_records: int | None = None, folder: str | None = None) -> Iterator[str]:
    """Lines of all tables, in Markdown; both arguments are there for the command line that all benchmarks share."""
    config = model_config()
    for title, table in (
        ("One pair: 12 leads x 5000 samples, 300 tokens", pair_table(config)),
        (f"Hours for {NUM_PAIRS:,} pairs x {EPOCHS} epochs, {BATCH_SIZE} pairs on each GPU", hours_table(config)),
        (f"GB on each GPU, {BATCH_SIZE} pairs, bf16 autocast", memory_table()),
        ("Bandwidth that training does not wait for, at 45 % of the peak", bandwidth_table(config)),
        ("Disk", disk_table(config)),
    ):
        yield from (f"**{title}**", "", *table, "")


def pair_table(config: ESIConfig) -> list[str]:
    flops, parameters, activations = forward_flops(config), num_parameters(config), activation_bytes(config)
    rows = [
        [name, parameters[name] / 1e6, flops.get(name, 0) / 1e9, 3 * flops.get(name, 0) / 1e9,
         activations.get(name, 0) / 1e6]
        for name in (*flops, "heads and projections")
    ]  # fmt: skip
    total = ["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])]
    head = ["part", "parameters, M", "forward, GFLOP", "forward and backward, GFLOP", "activations, MB"]
    return markdown(head, [[row[0], *(f"{value:,.1f}" for value in row[1:])] for row in [*rows, total]])


def hours_table(config: ESIConfig) -> list[str]:
    flops = training_flops(config)
    cases = [(gpu, share) for gpu in PEAK for share in SHARES]
    per_gpu = [f"{share * PEAK[gpu] / flops:,.0f}" for gpu, share in cases]
    rows = [["pairs/s on one GPU", "", "", *per_gpu]]
    for setup in SETUPS:
        hours = [f"{setup.hours(flops, gpu, share):.1f}" for gpu, share in cases]
        rows.append([setup.name, f"{setup.global_batch}", f"{setup.num_steps:,}", *hours])
    head = ["", "global batch", "steps", *(f"{gpu} at {share:.0%}" for gpu, share in cases)]
    encoder = encoder_flops(config, NUM_SAMPLES)
    share = AUTHORS_ENCODER_RATE * 3 * encoder / PEAK["A100"]
    alone = NUM_PAIRS * EPOCHS / AUTHORS_ENCODER_RATE / 3600
    slow = SETUPS[1].hours(flops, "A100", share)
    return [
        *markdown(head, rows),
        "",
        f"The authors' encoder, measured at {AUTHORS_ENCODER_RATE} ECG/s on an A100, is at {share:.1%} of the peak: "
        f"{alone:.0f} h on one GPU for the encoder alone, and {slow:.0f} h on four if all parts ran like that.",
    ]


def memory_table() -> list[str]:
    cases = [("convnextv2_base", 1, False), ("convnextv2_base", 8, False), ("convnextv2_base", 8, True)]
    cases += [("convnextv2_huge", 8, False), ("convnextv2_huge", 8, True)]
    rows = [memory_row(*case) for case in cases]
    head = ["encoder", "engine", "weights", "bf16 copies", "gradients", "AdamW", "DDP buckets", "activations", "sum"]
    logits = logits_bytes(model_config())
    return [
        *markdown([*head, "pairs that 80 GB hold"], rows),
        "",
        f"Logits kept whole would add {logits / 1e6:.0f} MB for each pair, {BATCH_SIZE * logits / 1e9:.1f} GB for "
        f"{BATCH_SIZE}.",
    ]


def memory_row(signal_encoder: str, num_gpus: int, sharded: bool) -> list[str]:
    config = model_config(signal_encoder)
    state = state_bytes(sum(num_parameters(config).values()), num_gpus, sharded)
    pair = sum(activation_bytes(config).values())
    engine = "one GPU" if num_gpus == 1 else f"{'FSDP2' if sharded else 'DDP'}, {num_gpus} GPUs"
    names = ("weights", "bf16 copies", "gradients", "AdamW", "DDP buckets")
    values = [*(state.get(name, 0) for name in names), BATCH_SIZE * pair]
    most = int((0.9 * CAPACITY["A100"] * 1e9 - sum(state.values())) / pair)  # a tenth for kernels and fragments
    return [signal_encoder, engine, *(f"{value / 1e9:.1f}" for value in [*values, sum(values)]), str(most)]


def bandwidth_table(config: ESIConfig) -> list[str]:
    flops, parameters = training_flops(config), sum(num_parameters(config).values())
    rows = []
    for setup in SETUPS:
        cells = [setup.name]
        for gpu in PEAK:
            seconds = setup.step_seconds(flops, gpu, SHARES[-1])
            read = setup.global_batch / setup.num_nodes / seconds * record_bytes()
            network = 8 * bytes_between_nodes(parameters, setup) / seconds
            cells += [f"{seconds:.3f}", f"{read / 1e6:,.0f}", f"{network / 1e9:,.0f}" if network else "-"]
        rows.append(cells)
    names = ("step, s", "reading, MB/s a node", "network, Gbit/s a node")
    return markdown(["", *(f"{gpu}: {name}" for gpu in PEAK for name in names)], rows)


def disk_table(config: ESIConfig) -> list[str]:
    shards, checkpoint = NUM_PAIRS * record_bytes(), checkpoint_bytes(sum(num_parameters(config).values()))
    rows = [
        ["one record, 12 x 5000 int16", f"{record_bytes() / 1e6:.2f} MB"],
        [f"shards, {NUM_PAIRS:,} records", f"{shards / 1e9:.0f} GB"],
        ["the same as Parquet on the Hub", f"{PARQUET_SHARE * shards / 1e9:.0f} GB"],
        ["read in all epochs", f"{EPOCHS * shards / 1e12:.2f} TB"],
        ["one checkpoint", f"{checkpoint / 1e9:.1f} GB"],
        ["two kept, one being written", f"{3 * checkpoint / 1e9:.1f} GB"],
    ]
    return markdown(["what", "size"], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in run())
