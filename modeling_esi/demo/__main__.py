"""Serve the demo app of a model, on this machine.

    python -m modeling_esi.demo --model esi-ecg
    python -m modeling_esi.demo --model esi-ecg --index archive --port 7861
    python -m modeling_esi.demo --model someone/esi-ecg --space my-space

The last one writes a folder for a Space of the Hub instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when it was stopped, 1 with one sentence on stderr where it cannot start."""
    arguments = _parse(argv)
    try:
        if arguments.space:
            _write_space(arguments)
        else:
            _serve(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    _need_gradio()
    from .answers import ECGAnswers

    sys.stdout.write(f"Loading {arguments.model} ...\n")
    answers = ECGAnswers.load(arguments.model, arguments.index, arguments.device, arguments.template)
    from .app import build_app, launch_app  # Gradio, which takes seconds: only where there is something to show

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # as ctrl-c: the folder below goes either way
    with TemporaryDirectory(prefix="esi-ecg-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads lie here until they are read; it goes with the server
        launch_app(build_app(answers), arguments.port, arguments.share)


def _write_space(arguments: argparse.Namespace) -> None:
    _need_gradio()
    from .space import write_space

    folder = write_space(arguments.space, arguments.model, arguments.template)
    sys.stdout.write(f"Wrote {folder}: hf upload --repo-type space NAME {folder}\n")


def _need_gradio() -> None:
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise ImportError('The demo needs Gradio: pip install "esi-ecg[demo]"')


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modeling_esi.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="esi-ecg", help="folder or Hub name of an ESI model; default: esi-ecg")
    parser.add_argument("--index", help="folder of an index of modeling_esi.search, to compare with")
    parser.add_argument("--template", default="{}.", help="sentence of a label; default: {}. as reports say it")
    parser.add_argument("--device", default="cpu", help="where the model computes")
    parser.add_argument("--port", type=int, help="default: 7860, or the next that is free")
    parser.add_argument("--share", action="store_true", help="a public link through Gradio's servers; default: no")
    parser.add_argument("--space", metavar="FOLDER", help="write a folder for a Space instead of serving")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
