"""Weights of an ONNX tower as 8-bit integers, measured against the file that they come from.

Dynamic quantisation of onnxruntime: weights of matrix products are rounded once, with a scale for each column; what
they are multiplied with is rounded on the way, with a scale for the whole batch. Everything else stays float32.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .files import Runner, check_installed, checked_output, facts_path, metadata_of, onnx_runner, written_aside

PRODUCTS = ("MatMul", "Gemm")  # what becomes integers; convolutions of integers are slower than of float32 there
NUM_SIGNALS, ROUNDS = 8, 5


def int8_name(path: str | os.PathLike[str]) -> str:
    """`tower.int8.onnx` for `tower.onnx`."""
    return str(Path(path).with_suffix(".int8.onnx"))


def quantise_onnx(
    source: str | os.PathLike[str], output: str | os.PathLike[str], signals: np.ndarray | None = None
) -> dict[str, Any]:
    """Write an 8-bit twin of an ONNX tower, with its metadata and a JSON, and measure it against the tower.

    Args:
        source: of `export_onnx`, with its JSON.
        output: a name that ends in `.onnx`.
        signals: `(B, 12, T)` float32 in mV to measure on; by default 8 made-up ones, which show speed, and agreement
            only roughly.

    Returns:
        The facts, with `int8`: what `compare` gives, and `size_ratio`.

    Raises:
        ImportError: without `pip install "esi-ecg[export]"`.
        ValueError: another ending, a folder or a JSON that is not there, or an XResNet, which is all convolutions.
    """
    target = checked_output(output, ".onnx")
    check_installed("onnx", "onnxruntime")
    facts = _facts_beside(source)
    with written_aside(target, facts) as path:
        write_int8(source, path)
        signals = made_up_signals(facts) if signals is None else signals
        facts["int8"] = compare(onnx_runner(source, 1), onnx_runner(path, 1), signals)
        facts["int8"]["size_ratio"] = _size(path) / _size(source)
        _tell(path, facts)
    return facts


def compare(reference: Runner, other: Runner, signals: np.ndarray, rounds: int = ROUNDS) -> dict[str, Any]:
    """Agreement and speed of two runners of one tower, called in turn on the same signals `(B, 12, T)`.

    Returns:
        What `agreement` gives; `seconds` of the reference and `seconds_other`, medians of this process's processor
        time; `speed_ratio`, above 1 where the other is faster.

    Raises:
        ValueError: as `agreement`.
    """
    agreed = agreement(reference(signals)[0], other(signals)[0])
    seconds: dict[Runner, list[float]] = {reference: [], other: []}
    for _ in range(rounds):
        for run, measured in seconds.items():
            started = time.process_time()
            run(signals)
            measured.append(time.process_time() - started)
    of_reference, of_other = (statistics.median(measured) for measured in seconds.values())
    return agreed | {"seconds": of_reference, "seconds_other": of_other, "speed_ratio": of_reference / of_other}


def agreement(expected: np.ndarray, output: np.ndarray) -> dict[str, Any]:
    """How near the outputs `(B, P)` of two files for the same records are.

    Returns:
        `cosine_mean` and `cosine_least` over the rows; the same less the expected mean row (`centred_...`), which is
        what tells records from each other; `max_difference`; `num_signals`. Rows that are NaN are left out.

    Raises:
        ValueError: fewer than two rows to compare.
    """
    kept = ~np.isnan(expected).any(axis=1)
    expected, output = expected[kept].astype(np.float64), output[kept].astype(np.float64)
    if len(expected) < 2:
        raise ValueError(f"signals: expected at least two that the model accepts, got {len(expected)}.")
    cosines = _cosines(expected, output)
    centred = _cosines(expected - expected.mean(axis=0), output - expected.mean(axis=0))
    return {
        "num_signals": len(expected),
        "cosine_mean": float(cosines.mean()), "cosine_least": float(cosines.min()),
        "centred_cosine_mean": float(centred.mean()), "centred_cosine_least": float(centred.min()),
        "max_difference": float(np.abs(expected - output).max()),
    }  # fmt: skip


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)


def made_up_signals(facts: dict[str, Any], num_signals: int = NUM_SIGNALS, seed: int = 0) -> np.ndarray:
    """`(B, 12, S)` float32 in mV: spikes at heart rates from 45 to 130, one size for each lead, and noise. No ECGs."""
    rng = np.random.default_rng(seed)
    clock = np.arange(facts["num_samples"]) / facts["sampling_rate"]
    rates = np.linspace(45, 130, num_signals)[:, None, None] / 60
    spikes = np.exp(-(((clock * rates) % 1 - 0.5) ** 2) / 1e-3)  # (B, 1, S)
    sizes = rng.normal(0.5, 0.7, (num_signals, len(facts["leads"]), 1))
    return (spikes * sizes + rng.normal(0, 0.03, (num_signals, len(facts["leads"]), len(clock)))).astype(np.float32)


# ----- files ---------------------------------------------------------------------------------------------------------


def _facts_beside(source: str | os.PathLike[str]) -> dict[str, Any]:
    path = facts_path(source)
    if not path.is_file():
        raise ValueError(f"{source}: expected {path.name} beside it, as export_onnx writes it: export the model anew.")
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts["encoder_type"] != "convnextv2":
        raise ValueError(
            f"int8: expected a convnextv2 encoder, whose work is matrix products, got {facts['encoder_type']}: it is "
            "all convolutions, which onnxruntime computes more slowly in integers. The float32 file is there."
        )
    return facts


def write_int8(source: str | os.PathLike[str], path: Path, operators: Sequence[str] = PRODUCTS) -> None:
    """Write an ONNX file with the constant weights of these operators as 8-bit integers, unmeasured."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # onnxruntime recommends a step that changes nothing here, on the root logger
    try:
        quantize_dynamic(
            Path(source), path, op_types_to_quantize=list(operators), per_channel=True, weight_type=QuantType.QInt8,
            use_external_data_format=_size(source) > files.LARGEST_FILE,
        )  # fmt: skip
    finally:
        logger.setLevel(level)


def _tell(path: Path, facts: dict[str, Any]) -> None:
    """Writes the facts into the file too, without reading its weights."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, metadata_of(facts))
    path.write_bytes(model.SerializeToString())


def _size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file and of the weights beside it."""
    return sum(Path(name).stat().st_size for name in (path, f"{os.fspath(path)}.data") if Path(name).is_file())
