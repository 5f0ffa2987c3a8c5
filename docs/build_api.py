"""The API reference, made from the docstrings: pages that need no network.

    pip install "esi-ecg[docs]"
    python docs/build_api.py        # then open build/api/index.html

Every module of both packages gets a page, with a search over all of them. What has no docstring is no part of it;
command lines (`__main__`) and benchmarks are described by `--help`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pdoc

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "docs" / "api_template"
PACKAGES = ("datasets_scripts", "modeling_esi")
APART = {"__main__", "benchmarks"}


def module_names() -> list[str]:
    """Dotted names of all modules of the reference, in order."""
    files = [path.relative_to(ROOT).with_suffix("") for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    dotted = {".".join(path.parts).removesuffix(".__init__") for path in files if not APART & set(path.parts)}
    return sorted(dotted)


def importable(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that can be imported here, and for the others the optional package that they need.

    Raises:
        ModuleNotFoundError: for a module of this project that is not there.
    """
    found, missing = [], {}
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] in PACKAGES:
                raise
            missing[name] = error.name
        else:
            found.append(name)
    return found, missing


def build(output: Path, names: Sequence[str]) -> None:
    """Write `index.html`, a page for each module and the search's index into a folder.

    Args:
        output: the folder; pages of an earlier call are overwritten.
        names: dotted names of modules that can be imported.
    """
    pdoc.render.configure(
        docformat="google", include_undocumented=False, show_source=False, template_directory=TEMPLATES
    )  # fmt: skip
    pdoc.pdoc(*names, output_directory=output)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the reference; 0, and on stderr what was left out because an optional package is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", default="build/api", help="folder for the pages (default: build/api)")
    output = Path(parser.parse_args(argv).output)
    sys.path.insert(0, str(ROOT))
    names, missing = importable(module_names())
    for name, package in missing.items():
        sys.stderr.write(f"{name}: left out, needs {package}\n")
    build(output, names)
    sys.stdout.write(f"Wrote {len(names)} pages: {output / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
