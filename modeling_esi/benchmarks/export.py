"""Exported ECG towers beside the model that they come from: speed, agreement and size, float32 and 8-bit.

Each implementation takes the same millivolts, 12 leads at the model's rate, one thread; the model is called behind its
feature extractor. All are called in turn in one process, a process for each model; times are medians of processor
time. Agreement is with the model itself: the cosine of the outputs, and that of the outputs less their mean over the
records, which is what tells records from each other. `8-bit` has matrix products in integers, `8-bit, all`
convolutions too. Records are synthetic, or files of a folder; of weights that nothing trained, agreement says little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets_scripts.records import ECGRecord, read_record
from datasets_scripts.synthetic import generate_record
from modeling_esi import ESIConfig, ESIEcgModel, ESIFeatureExtractor
from modeling_esi.benchmarks.comparison import enliven
from modeling_esi.benchmarks.machine import describe
from modeling_esi.benchmarks.measured import measured, working_folder
from modeling_esi.benchmarks.scaling import markdown
from modeling_esi.export.files import Runner, export_onnx, onnx_runner, trace
from modeling_esi.export.int8 import PRODUCTS, agreement, write_int8
from modeling_esi.export.saved_model import SavedModel
from modeling_esi.export.tower import ECGTower
from modeling_esi.lead_names import match_leads
from modeling_esi.resampling import resample

MODULE = "modeling_esi.benchmarks.export"
PRESETS = ("convnextv2_base", "xresnet1d101")
HEAD = [
    "model", "implementation", "ms for an ECG", "speed / model", "MB", "largest difference", "cosine, mean",
    "cosine, least", "centred, mean", "centred, least",
]  # fmt: skip


@dataclass(frozen=True)
class ExportSettings:
    """A preset (random weights) or folder of a model, records to measure on, and how often."""

    model: str = "convnextv2_base"
    records: str | None = None
    num_records: int = 32
    batch_size: int = 8
    rounds: int = 5


def run(settings: ExportSettings, models: Sequence[str] = PRESETS) -> Generator[str, None, dict[str, Any]]:
    """Lines of the table, a process for each model; returns all figures."""
    told: dict[str, Any] = {"machine": describe("cpu", num_threads=1), "models": {}}
    yield f"{settings.num_records} records, batches of {settings.batch_size}, one thread, median of {settings.rounds}"
    yield f"{told['machine']['cpu']}, torch {told['machine']['torch']}\n"
    yield from markdown(HEAD, [])
    for number, model in enumerate(models, 1):
        found = measured(MODULE, "measure", asdict(replace(settings, model=model)))
        name = model if model in PRESETS else f"folder {number}"
        told["models"][name] = found
        yield from markdown(HEAD, [table_row(name, row, found["rows"][0]) for row in found["rows"]])[2:]
    return told


def table_row(name: str, row: dict[str, Any], of_model: dict[str, Any]) -> list[str]:
    cosines = ("cosine_mean", "cosine_least", "centred_cosine_mean", "centred_cosine_least")
    return [
        name, row["implementation"], f"{1000 * row['seconds']:.1f}", f"{of_model['seconds'] / row['seconds']:.2f}",
        f"{row['bytes'] / 1e6:.1f}", f"{row['max_difference']:.1e}", *(f"{row[cosine]:.4f}" for cosine in cosines),
    ]  # fmt: skip


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """A row for every implementation of one model; for a process of its own."""
    told = ExportSettings(**settings)
    torch.set_num_threads(1)
    saved = find_model(told.model)
    signals = millivolts(read(told, saved.feature_extractor), saved.feature_extractor)
    tower = ECGTower(saved.model, saved.feature_extractor)
    with working_folder(None) as folder:
        arms, sizes = implementations(saved, tower, folder)
        outputs = {name: np.concatenate(outputs_of(run, signals, told.batch_size)) for name, run in arms.items()}
        seconds = seconds_for_a_record(arms, signals[: told.batch_size], told.rounds)
    reference = outputs["model"]
    rows = [
        {"implementation": name, "seconds": seconds[name], "bytes": sizes[name]} | agreement(reference, outputs[name])
        for name in arms
    ]
    return {"rows": rows, "output": tower.output_name}


def find_model(model: str) -> SavedModel:
    """A saved model, or a preset whose weights are random."""
    if Path(model).is_dir():
        return SavedModel.load(model)
    torch.manual_seed(0)
    ecg_model = ESIEcgModel(ESIConfig.from_variant("esi", signal_encoder=model).ecg_config).eval()
    with torch.no_grad():
        return SavedModel(enliven(ecg_model), ESIFeatureExtractor())


def read(settings: ExportSettings, feature_extractor: ESIFeatureExtractor) -> list[ECGRecord]:
    """As many records as told, that the feature extractor accepts, without gaps and as long as its window."""
    if settings.records is None:
        rate = feature_extractor.sampling_rate
        return [generate_record(seed, sampling_rate=rate) for seed in range(settings.num_records)]
    found: list[ECGRecord] = []
    for path in sorted(Path(settings.records).rglob("*.hea")):
        record = read_record(path)
        is_long = record.signal.shape[1] >= feature_extractor.duration * record.sampling_rate
        if is_long and np.isfinite(record.signal).all() and feature_extractor.reject_reason(record) is None:
            found.append(record)
        if len(found) == settings.num_records:
            return found
    raise ValueError(f"records: expected {settings.num_records} that fit the model, got {len(found)}: ask for fewer.")


def millivolts(records: Sequence[ECGRecord], feature_extractor: ESIFeatureExtractor) -> np.ndarray:
    """`(B, 12, S)` float32 as a tower takes them: the model's leads, at its rate, the first seconds of its window."""
    rate, length = feature_extractor.sampling_rate, feature_extractor.num_samples
    rows = np.full((len(records), len(feature_extractor.leads), length), np.nan, dtype=np.float32)
    for row, record in zip(rows, records, strict=True):
        for channel, lead in zip(record.signal, match_leads(tuple(record.leads), True), strict=True):
            if lead is not None:
                samples = resample(
                    torch.from_numpy(np.array(channel, dtype=np.float32))[None], record.sampling_rate, rate
                )
                row[feature_extractor.leads.index(lead)] = samples[0, :length].numpy()
    return rows


def implementations(saved: SavedModel, tower: ECGTower, folder: Path) -> tuple[dict[str, Runner], dict[str, int]]:
    """What is compared, by name, and the bytes of its weights or file."""
    export_onnx(saved, folder / "tower.onnx")
    files = {"onnxruntime": folder / "tower.onnx"}
    for name, operators in (("8-bit", PRODUCTS), ("8-bit, all", (*PRODUCTS, "Conv"))):
        files[f"onnxruntime, {name}"] = folder / f"{name}.onnx"
        write_int8(folder / "tower.onnx", files[f"onnxruntime, {name}"], operators)
    weights = sum(weight.nbytes for weight in tower.parameters())
    arms: dict[str, Runner] = {"model": saved, "torch.export": run_module(trace(tower).module())}
    sizes = {"model": weights, "torch.export": weights} | {name: path.stat().st_size for name, path in files.items()}
    return arms | {name: onnx_runner(path, num_threads=1) for name, path in files.items()}, sizes


def run_module(module: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Runner:
    """A module of torch, on arrays of NumPy."""

    @torch.no_grad()
    def called(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output, lead_mask = module(torch.from_numpy(signal))
        return output.numpy(), lead_mask.numpy()

    return called


def outputs_of(run: Runner, signals: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [run(signals[start : start + batch_size])[0] for start in range(0, len(signals), batch_size)]


def seconds_for_a_record(arms: dict[str, Runner], signals: np.ndarray, rounds: int) -> dict[str, float]:
    """Processor seconds for one record, all implementations in turn; each has run before."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, run in arms.items():
            started = time.process_time()
            run(signals)
            found[name].append((time.process_time() - started) / len(signals))
    return {name: statistics.median(seconds) for name, seconds in found.items()}
