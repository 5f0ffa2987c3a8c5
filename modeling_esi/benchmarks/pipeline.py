"""What the pipeline costs beside its encoder: embedding a folder of WFDB files, 12 leads, 10 s at 500 Hz.

The pipeline reads each file, passes it through the door, batches and embeds. The bare encoder embeds batches of the
same size that are tensors already. Both run in one process, in turn; one thread, page cache warm. CPU seconds stand
beside wall seconds: they are what remains on a machine that does other things as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from datasets_scripts.records import read_record
from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIModel
from modeling_esi.benchmarks.measured import malloc_setting, measured, working_folder
from modeling_esi.benchmarks.preparing import write_mimic

MODULE = "modeling_esi.benchmarks.pipeline"
PRESETS = ("convnextv2_base", "convnextv2_tiny", "convnextv2_atto")
NUM_RECORDS, BATCH_SIZE, ROUNDS = 64, 8, 3
SMALL_TEXT = {"model_type": "bert", "vocab_size": 99, "hidden_size": 36, "num_hidden_layers": 1,
              "num_attention_heads": 3, "intermediate_size": 37}  # fmt: skip


def run(num_records: int | None = None, folder: str | None = None) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table, a process for each preset; returns the figures."""
    number = num_records or NUM_RECORDS
    figures: dict[str, Any] = {}
    yield f"{number} files of 12 x 5000, batches of {BATCH_SIZE}, one thread, median of {ROUNDS}; {malloc_setting()}"
    yield f"{'ms for each record':20}{'encoder':>12}{'pipeline':>12}{'ratio':>8}{'CPU ratio':>12}"
    with working_folder(folder) as room:
        write_mimic(room / "files", number)
        for preset in PRESETS:
            found = figures[preset] = measured(MODULE, "pipeline_seconds", str(room / "files"), preset, ROUNDS)
            bare, whole = (1000 * found[f"{name}, wall"] / number for name in ("encoder", "pipeline"))
            yield f"{preset:20}{bare:12.2f}{whole:12.2f}{found['ratio']:8.2f}{found['CPU ratio']:12.2f}"
    return figures


@torch.no_grad()
def pipeline_seconds(folder: str, preset: str, rounds: int) -> dict[str, float]:
    """Wall and CPU seconds of all records of a folder through the pipeline and through the bare encoder.

    Raises AssertionError where the two give different embeddings.
    """
    torch.manual_seed(0)
    config = ESIConfig(ecg_config={"signal_encoder": preset}, text_config=SMALL_TEXT, caption_loss_weight=0)
    model, door = ESIModel(config).eval(), ESIFeatureExtractor()
    pipe = pipeline("ecg-feature-extraction", model=model, feature_extractor=door, device="cpu")
    paths = sorted(Path(folder).rglob("*.hea"))
    values = torch.cat([door(record)["input_values"] for record in map(read_record, paths)])

    def embed() -> torch.Tensor:
        return torch.cat([model.get_ecg_features(batch) for batch in values.split(BATCH_SIZE)])

    def embed_files() -> torch.Tensor:
        return torch.stack(pipe(paths, batch_size=BATCH_SIZE, return_tensors=True))

    torch.testing.assert_close(embed_files(), embed(), rtol=0, atol=1e-5)
    times = {"encoder": [], "pipeline": []}
    for _ in range(rounds):
        times["encoder"].append(_seconds(embed))
        times["pipeline"].append(_seconds(embed_files))
    found = {
        f"{name}, {clock}": statistics.median(pair[index] for pair in pairs)
        for name, pairs in times.items()
        for index, clock in enumerate(("wall", "CPU"))
    }
    for name, clock in (("ratio", "wall"), ("CPU ratio", "CPU")):
        found[name] = found[f"pipeline, {clock}"] / found[f"encoder, {clock}"]
    return found


def _seconds(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu
