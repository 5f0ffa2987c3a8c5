"""An ECG tower as a file, checked before it gets its name: `.pt2` of torch, or ONNX. A JSON of facts comes last."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from modeling_esi import ESIFeatureExtractor

from .facts import tower_facts
from .millivolts import fewest_samples
from .saved_model import SavedModel
from .tower import INPUT_NAME, MASK_NAME, ECGTower

TOLERANCE = 1e-4  # of outputs, relative to the largest where that is above 1
OLDEST_OPSET = 18  # that torch writes by itself
LARGEST_FILE = 1_500_000_000  # bytes of weights in one ONNX file; protobuf ends at 2 GB
FACTS_NAME = "esi_ecg.json"  # inside a `.pt2`

#: A tower's file, run: `(B, 12, T)` float32 to the output and the lead mask.
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def export_torch(saved: SavedModel, output: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the tower of a model by `torch.export.save`, and `output.json` beside it. Batch and length are dynamic.

    Args:
        saved: the model with its feature extractor.
        output: a name that ends in `.pt2`. The file is a zip archive, with the facts in it too. Loading one is
            `torch.export.load`'s business; take such files only from people you trust.

    Returns:
        The facts of `tower_facts`, and how the file was checked.

    Raises:
        ValueError: another ending, or a folder that is not there.
        RuntimeError: a program that does not compute what the model does.
    """
    target = checked_output(output, ".pt2")
    saved = saved.in_float32()
    program = trace(ECGTower(saved.model, saved.feature_extractor))
    module = program.module()
    facts = tower_facts(saved) | {"torch": torch.__version__}
    facts["checked"] = check(saved, lambda signal: tuple(x.numpy() for x in module(torch.from_numpy(signal))))
    with written_aside(target, facts) as path:
        torch.export.save(program, path, extra_files={FACTS_NAME: json.dumps(facts)})
    return facts


def export_onnx(saved: SavedModel, output: str | os.PathLike[str], opset: int | None = None) -> dict[str, Any]:
    """Write the tower of a model as ONNX, with the facts as metadata, and `output.json` beside it.

    Batch and length are dynamic. Weights of more than 1.5 GB lie in `output.data`: protobuf knows no larger files.

    Args:
        saved: the model with its feature extractor.
        output: a name that ends in `.onnx`.
        opset: of ONNX; by default torch's own.

    Returns:
        The facts of `tower_facts`, and how the file was checked.

    Raises:
        ImportError: without `pip install "esi-ecg[export]"`.
        ValueError: another ending, a folder that is not there, an opset that torch does not write.
        RuntimeError: a file that does not compute under onnxruntime what the model does.
    """
    target = checked_output(output, ".onnx")
    if opset is not None and opset < OLDEST_OPSET:
        raise ValueError(f"opset: expected {OLDEST_OPSET} or newer, got {opset}: leave it out, or choose one of these.")
    check_installed("onnx", "onnxscript", "onnxruntime")
    saved = saved.in_float32()
    tower = ECGTower(saved.model, saved.feature_extractor)
    names = {"input_names": [INPUT_NAME], "output_names": [tower.output_name, MASK_NAME]}
    program = torch.onnx.export(
        trace(tower), dynamo=True, opset_version=opset, dynamic_shapes=_dynamic_shapes(), verbose=False, **names
    )
    facts = tower_facts(saved) | {"torch": torch.__version__, "opset": program.model.opset_imports[""]}
    program.model.metadata_props.update(metadata_of(facts))
    with written_aside(target, facts) as path:
        program.save(path, external_data=sum(weight.nbytes for weight in tower.parameters()) > LARGEST_FILE)
        facts["checked"] = check(saved, onnx_runner(path))
    return facts


def trace(tower: ECGTower) -> ExportedProgram:
    """The tower as `torch.export` sees it, for any number of records and any number of samples."""
    example = torch.zeros(2, len(tower.door.settings.leads), tower.door.settings.num_samples + 3)
    return torch.export.export(tower, (example,), dynamic_shapes=_dynamic_shapes())


def _dynamic_shapes() -> dict[str, Any]:
    return {INPUT_NAME: {0: Dim("batch"), 2: Dim("num_samples")}}


def metadata_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as ONNX holds them: text; what is no text stands as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def onnx_runner(path: str | os.PathLike[str], num_threads: int | None = None) -> Runner:
    """An ONNX tower under onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda signal: tuple(session.run(None, {INPUT_NAME: signal}))


# ----- checks --------------------------------------------------------------------------------------------------------


def check(saved: SavedModel, run: Runner) -> dict[str, Any]:
    """Compares a file with the model behind its feature extractor, on made-up signals.

    They differ in number and length; some have gaps, lack leads, or have nothing that could be accepted.

    Returns:
        `max_difference` of the outputs, `tolerance`, and the `shapes` that were tried.

    Raises:
        RuntimeError: where it is larger than `TOLERANCE`, or leads or refusals differ.
    """
    differences, shapes = [], []
    for signal in check_signals(saved.feature_extractor):
        expected, expected_mask = saved(signal)
        output, lead_mask = run(signal)
        differences.append(_difference(expected, output))
        shapes.append(list(signal.shape))
        if not np.array_equal(expected_mask, lead_mask):
            raise RuntimeError(f"export: for signals {tuple(signal.shape)} the file masks other leads than the model.")
    if not max(differences) <= TOLERANCE:
        raise RuntimeError(
            f"export: expected outputs that differ by at most {TOLERANCE:g}, got {max(differences):.3g} for signals of "
            f"shape {shapes}: nothing was written. Other versions of torch, onnxscript or onnxruntime may help."
        )
    return {"max_difference": max(differences), "tolerance": TOLERANCE, "shapes": shapes}


def _difference(expected: np.ndarray, output: np.ndarray) -> float:
    if not np.array_equal(np.isnan(expected), np.isnan(output)):
        return float("inf")
    scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    return float(np.nanmax(np.abs(expected - output), initial=0.0)) / scale


def check_signals(feature_extractor: ESIFeatureExtractor) -> Iterator[np.ndarray]:
    """Batches `(B, 12, T)` in mV: one as long as the model's window, two longer, three shorter with gaps."""
    generator = torch.Generator().manual_seed(0)
    whole, fewest = feature_extractor.num_samples, fewest_samples(feature_extractor)
    part = max(2, whole * 2 // 3, fewest)
    for shape in ((1, 12, max(whole, fewest)), (2, 12, max(whole, fewest) + 101), (3, 12, part)):
        steps = torch.randn(shape, generator=generator)
        signal = 0.1 * (steps.cumsum(dim=-1) - steps.cumsum(dim=-1).mean(dim=-1, keepdim=True)).clamp(-30, 30)
        if len(signal) == 3:
            signal[0, 1, 5:9] = float("nan")  # a gap
            signal[1, 6:8] = float("nan")  # no V1, no V2 in the usual order
            signal[1, 2:5] = 0.0  # dead leads, which follow from others
            signal[2] = 0.0  # nothing that could be accepted
        yield signal.numpy()


def check_installed(*packages: str) -> None:
    """Raises ImportError where one of the packages of the extra `export` is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'expected {", ".join(missing)}, which is not installed: pip install "esi-ecg[export]".')


# ----- files ---------------------------------------------------------------------------------------------------------


def checked_output(output: str | os.PathLike[str], ending: str) -> Path:
    """The path to write to. Raises ValueError for another ending, or a folder that is not there."""
    target = Path(output)
    if target.suffix != ending:
        raise ValueError(f"output: expected a name that ends in {ending}, got {target.name!r}.")
    if not target.parent.is_dir():
        raise ValueError(f"output: expected a folder that is there, got {target.parent}: make it first.")
    return target


@contextmanager
def written_aside(target: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A path of the same name in a folder beside. If nothing fails, what was written there takes its place.

    The facts as they are then go last, and old ones first: a file without them is not whole.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as aside:
        yield Path(aside) / target.name
        described = facts_path(Path(aside) / target.name)
        described.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        facts_path(target).unlink(missing_ok=True)
        for path in sorted(Path(aside).iterdir(), key=lambda path: path == described):
            path.replace(target.parent / path.name)


def facts_path(target: str | os.PathLike[str]) -> Path:
    """Where the facts of an exported file stand: `tower.onnx.json` beside `tower.onnx`."""
    return Path(f"{os.fspath(target)}.json")
