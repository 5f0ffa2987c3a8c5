"""Transformers' own common tests, taken from its source distribution (they are not in the wheel).

The distribution of the installed version is looked for in `ESI_TRANSFORMERS_SOURCE` (an unpacked folder), else
downloaded by pip into the user's cache. Three modules that the distribution leaves out are replaced by empty ones.
"""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import transformers

PACKAGE = "transformers_common_tests"
CONFIG_COMMON_KWARGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["BertModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
LEFT_OUT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": CONFIG_COMMON_KWARGS},
}


def find_tests() -> Path | None:
    """Folder with the tests of the installed transformers, or `None` where they cannot be had."""
    name = f"transformers-{transformers.__version__}"
    given = os.environ.get("ESI_TRANSFORMERS_SOURCE")
    cache = Path(given) if given else Path.home() / ".cache" / "esi-ecg" / name
    if not (cache / "tests" / "test_modeling_common.py").is_file() and not given:
        _download(name, cache.parent)
    tests = cache / "tests"
    return tests if (tests / "test_modeling_common.py").is_file() else None


def _download(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    requirement = name.replace("-", "==", 1)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--no-binary", ":all:", "-d", folder]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
    archive = folder / f"{name}.tar.gz"
    if result.returncode == 0 and archive.is_file():
        with tarfile.open(archive) as source:
            source.extractall(folder, filter="data")


def load(module: str) -> types.ModuleType:
    """Import one of the distribution's test modules under a package name that cannot clash with ours."""
    tests = find_tests()
    if tests is None:
        raise ImportError(
            f"transformers {transformers.__version__}: its source distribution could not be downloaded. "
            "Set ESI_TRANSFORMERS_SOURCE to an unpacked one."
        )
    if PACKAGE not in sys.modules:
        _register_package(tests)
    return importlib.import_module(f"{PACKAGE}.{module}")


def _register_package(tests: Path) -> None:
    (tests / "__init__.py").touch()  # test_configuration_common loads it by path
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tests)]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    for name, members in LEFT_OUT.items():
        folder = name.split(".")[0]
        if (tests / f"{name.replace('.', '/')}.py").is_file():
            continue
        for part, content in ((folder, {}), (name, members)):
            module = types.ModuleType(f"{PACKAGE}.{part}")
            module.__path__ = []
            vars(module).update(content)
            sys.modules[module.__name__] = module
