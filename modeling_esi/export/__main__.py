"""Export the ECG tower of a saved model, its door inside: a file that takes millivolts.

    python -m modeling_esi.export onnx esi-ecg tower.onnx             # any batch, any length; checked under onnxruntime
    python -m modeling_esi.export onnx esi-ecg tower.onnx --int8      # and tower.int8.onnx, measured against it
    python -m modeling_esi.export torch esi-ecg tower.pt2             # torch.export

A JSON of the same name and `.json` beside each file says what it takes and gives.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from .files import export_onnx, export_torch
from .int8 import int8_name, quantise_onnx
from .saved_model import SavedModel


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if the file is there, 1 with one sentence on stderr if not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that are not needed
    arguments = parser_of().parse_args(argv)
    try:
        for line in _export(arguments):
            sys.stdout.write(f"{line}\n")
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def parser_of() -> argparse.ArgumentParser:
    """The two formats and their flags."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m modeling_esi.export", description=__doc__, formatter_class=formatter)
    formats = parser.add_subparsers(dest="format", required=True)
    for name, ending in (("onnx", ".onnx"), ("torch", ".pt2")):
        one = formats.add_parser(name)
        one.add_argument("model", help="folder or Hub name of an ESI model")
        one.add_argument("output", help=f"file to write, NAME{ending}")
        if name == "onnx":
            one.add_argument("--opset", type=int, help="of ONNX; default: torch's own")
            one.add_argument("--int8", action="store_true", help="also write NAME.int8.onnx, and measure it")
    return parser


def _export(arguments: argparse.Namespace) -> list[str]:
    saved = SavedModel.load(arguments.model)
    if arguments.format == "torch":
        return [_told(arguments.output, export_torch(saved, arguments.output))]
    lines = [_told(arguments.output, export_onnx(saved, arguments.output, arguments.opset))]
    if arguments.int8:
        output = int8_name(arguments.output)
        measured = quantise_onnx(arguments.output, output)["int8"]
        lines.append(
            f"{output}: cosine with float32 {measured['cosine_mean']:.4f} on average, {measured['cosine_least']:.4f} "
            f"at least, over {measured['num_signals']} made-up signals; {measured['speed_ratio']:.2f} times as fast, "
            f"{measured['size_ratio']:.2f} times the size. Judge it on records of your own."
        )
    return lines


def _told(output: str, facts: dict[str, Any]) -> str:
    checked, outputs = facts["checked"], ", ".join(facts["outputs"])
    return (
        f"{output}: {outputs} from {facts['input']['unit']} at {facts['sampling_rate']:g} Hz; differs from the model "
        f"by {checked['max_difference']:.1e} at most, {checked['tolerance']:g} allowed; licence of the weights: "
        f"{facts['license']}"
    )


if __name__ == "__main__":
    sys.exit(main())
