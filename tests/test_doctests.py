"""The examples in the docstrings of both packages run, and give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("modeling_esi", "datasets_scripts")


def module_names() -> list[str]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in dotted if not name.endswith(".__main__")]


@pytest.mark.parametrize("name", module_names())
def test_examples_run(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in PACKAGES:
            raise
        pytest.skip(f"{name} needs the optional package {error.name}")
    monkeypatch.chdir(tmp_path)  # what an example writes does not land in the checkout
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples in {name} failed, see the output"


def test_there_are_examples_to_run():
    finder, modules = doctest.DocTestFinder(), ("configuration_esi", "modeling_esi", "convnextv2_1d", "xresnet1d")
    for name in modules:
        found = finder.find(importlib.import_module(f"modeling_esi.{name}"))
        assert any(test.examples for test in found), f"modeling_esi.{name} has no example"
