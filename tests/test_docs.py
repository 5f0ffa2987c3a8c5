"""Pages are whole: every block of code is run or parsed, every page is in the index, every public name is explained."""

import argparse
import ast
import configparser
import importlib
import importlib.util
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import test_readme
import yaml
from accelerate.commands.launch import launch_command_parser
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

import datasets_scripts
import modeling_esi
import train_accelerate

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
API_PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SHELLS, SHOWN = {"bash", "sh", "shell", "console"}, {"text", "csv", "bibtex"}
PROGRAMS = {"cd", "export", "git", "hf", "pytest", "ruff", "source", ".", "tensorboard", "wget", "docker"}
GIVEN_BY_A_PROTOCOL = {"context"}  # `run(context, *, options)`: its other arguments are flags, and explained as such


class Block(NamedTuple):
    """A fenced block: where it stands, what its fence says it is, and what is in it."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The page's fenced blocks, read line by line: a fence opens, the next one closes."""
    opened, inside = None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            inside.append(line)
        elif opened is None:
            opened, inside = (number, line.strip().strip("`")), []
        else:
            yield Block(page, opened[0], opened[1], "\n".join(inside) + "\n")
            opened = None
    assert opened is None, f"{page.name}:{opened[0]}: this block has no end"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_in(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as its words; none where the block is something else, such as a file tree."""
    lines = lines_of(block)
    if block.language not in SHELLS and not all(map(starts_a_program, lines)):
        return []
    parts = [part for line in lines for part in re.split(r"\s(?:&&|\|)\s", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    return [[word for word in command if not re.fullmatch(r"\w+=.*", word)] for command in words if command]


def lines_of(block: Block) -> list[str]:
    joined = block.code.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.strip()]


def starts_a_program(line: str) -> bool:
    return is_program(re.sub(r"^(\w+=\S* )+", "", line).split(" ")[0])


def is_program(word: str) -> bool:
    known = PROGRAMS | {"python", "python3", "pip", "accelerate", "torchrun"}
    return word in known or word.startswith("#") or bool(re.fullmatch(r"(\./)?recipes/\w+\.sh", word))


# ----- blocks --------------------------------------------------------------------------------------------------------


def test_every_block_says_what_it_is():
    known = {"", "python", "json", "yaml"} | SHELLS | SHOWN
    assert not [f"{block.place}: {block.language}" for block in BLOCKS if block.language not in known]
    for block in BLOCKS:
        if block.language == "":
            assert not re.search(r"^(import|from) \w|^\w+ = \w+\(", block.code, re.MULTILINE), (
                f"{block.place}: Python that no test runs: write ```python, or ```text for what is only shown"
            )
            assert commands_in(block) or not any(map(starts_a_program, lines_of(block))), (
                f"{block.place}: a command among other things, which no test parses: give it a block of its own"
            )


def test_every_block_of_python_is_among_those_that_run():
    run = [parameters.values[0] for parameters in test_readme.code_with_package()]
    for block in BLOCKS:
        if block.language == "python":
            assert block.code in run or "trust_remote" in block.code, f"{block.place}: no test runs it"


def test_shown_settings_can_be_read():
    for block in BLOCKS:
        if block.language in ("json", "yaml"):
            (json.loads if block.language == "json" else yaml.safe_load)(block.code)


class Parsed(BaseException):
    """The command line was understood: nothing more is done."""


@pytest.fixture
def only_parse(monkeypatch):
    """`argparse` that stops behind parsing, so that a command can be tried without being run."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.chdir(ROOT)


def try_command(words: list[str], monkeypatch) -> None:
    """Fails where a command names a program, module, script, extra or flag that there is not."""
    program, *rest = words
    if program.startswith(("recipes/", "./recipes/")):
        assert (ROOT / program).is_file()
    elif program == "accelerate" and rest[0] == "launch":
        launched, unknown = launch_command_parser().parse_known_args(rest[1:])
        assert not unknown and launched.training_script == "train_accelerate.py"
        train_accelerate.parse_arguments(launched.training_script_args)
    elif program == "pip":
        known = configparser.ConfigParser()
        known.read(ROOT / "setup.cfg")
        for extra in re.findall(r"(?:esi-ecg|\.)\[(.*?)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(known["options.extras_require"]), extra
    elif program in ("python", "python3"):
        try_python(rest, monkeypatch)
    else:
        assert is_program(program), program


def try_python(words: list[str], monkeypatch) -> None:
    is_module = words[0] == "-m"
    name, *arguments = words[1:] if is_module else words
    if is_module and name.split(".")[0] not in ("modeling_esi", "datasets_scripts"):
        assert importlib.util.find_spec(name), name
        return
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises((Parsed, SystemExit)) as stopped:
        runpy.run_module(name, run_name="__main__") if is_module else runpy.run_path(name, run_name="__main__")
    assert stopped.type is Parsed or stopped.value.code == 0, f"{shlex.join(words)} does not parse"


SHELL_BLOCKS = [pytest.param(block, id=block.place) for block in BLOCKS if commands_in(block)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy: a module that is imported already
@pytest.mark.parametrize("block", SHELL_BLOCKS)
def test_commands_parse(block, only_parse, monkeypatch, capsys):
    for words in commands_in(block):
        try_command(words, monkeypatch)


def test_a_command_that_does_not_parse_is_found(only_parse, monkeypatch, capsys):
    script = "train_accelerate.py"
    wrong = "python -m modeling_esi.plotting a.hea --output b --outlet c"
    for command in (wrong, f"accelerate launch {script} --flag 1", f"accelerate launch --flag 1 {script}"):
        with pytest.raises((AssertionError, SystemExit, ValueError)):
            try_command(shlex.split(command), monkeypatch)
    with pytest.raises(AssertionError):
        try_command(["pip", "install", "esi-ecg[nothing]"], monkeypatch)


# ----- the index -----------------------------------------------------------------------------------------------------


def test_the_index_lists_every_page_once():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\S+\.md)\]\(\1\)", index, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES[1:] if page.name != "README.md")
    assert "(docs/README.md)" in PAGES[0].read_text(encoding="utf-8")


# ----- public names --------------------------------------------------------------------------------------------------


def public_names() -> list[str]:
    """The names of docs/api.md, in order."""
    rows = [line for line in API_PAGE.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`((?:modeling_esi|datasets_scripts)\.[\w.]+)`", row)]


def find(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def callables_of(name: str) -> Iterator[tuple[str, Callable, str]]:
    """What can be called of a public name, with all that is said of it: functions, constructors, public methods."""
    value = find(name)
    if inspect.isfunction(value):
        yield name, value, inspect.getdoc(value) or ""
    if not inspect.isclass(value):
        return
    about = inspect.getdoc(value) or ""
    if is_ours(value.__init__):
        yield f"{name}()", value.__init__, f"{about}\n{value.__init__.__doc__ or ''}"
    for attribute, member in vars(value).items():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and (attribute == "__call__" or not attribute.startswith("_")):
            said = inspect.getdoc(getattr(value, attribute)) or ""
            if said or not is_of_transformers(value, attribute):
                yield f"{name}.{attribute}", function, said and f"{said}\nOf the class: {about}"


def is_of_transformers(value: type, attribute: str) -> bool:
    """Whether a method stands for one of the library's own, which says what it is for."""
    return any(hasattr(base, attribute) for base in value.__mro__ if base.__module__.startswith("transformers."))


def is_ours(function: Callable) -> bool:
    return inspect.isfunction(function) and function.__module__.split(".")[0] in ("modeling_esi", "datasets_scripts")


def arguments_of(function: Callable) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return [name for name, parameter in parameters if name not in ("self", "cls") and parameter.kind not in kinds]


def raises(function: Callable) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in nodes_of(function))


def gives_something(function: Callable) -> bool:
    return any(isinstance(node, ast.Return) and node.value is not None for node in nodes_of(function))


def nodes_of(function: Callable) -> list[ast.AST]:
    try:
        source = inspect.getsource(function)
    except OSError:  # the __init__ that a dataclass writes
        return []
    return list(ast.walk(ast.parse(textwrap.dedent(source))))


@cache
def words_explained_elsewhere() -> set[str]:
    """Arguments that mean the same everywhere: the words of docs/architecture.md, and those of transformers."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    own = re.findall(r"\w+", text.split("## Words")[1].split("## Habits")[0])
    settings = inspect.signature(PreTrainedConfig).parameters
    outputs = (field.name for field in fields(BaseModelOutputWithPooling))
    return {*own, *settings, *outputs, "tie_word_embeddings", "model_outputs"}


def test_every_name_that_the_packages_export_is_in_the_reference():
    packages = (modeling_esi, datasets_scripts)
    exported = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    names = public_names()
    assert exported <= set(names), f"docs/api.md: give a line to {sorted(exported - set(names))}"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_explained(name):
    """A docstring; each argument named in it; what is raised; types for all that goes in and out."""
    value = find(name)
    if not callable(value):
        return
    assert inspect.getdoc(value), f"{name}: no docstring"
    for what, function, said in callables_of(name):
        assert said, f"{what}: no docstring"
        if not is_ours(function):
            continue
        listed = set(re.findall(r"\b\w+\b", said)) | GIVEN_BY_A_PROTOCOL | words_explained_elsewhere()
        missing = [argument for argument in arguments_of(function) if argument not in listed]
        refers = re.search(r"\b[Aa]rguments\b|\b[Aa]s (in|of|for|there|`)|`[\w.]*load\w*`", said)
        has_list = "Args:" in said.split("Of the class:")[0]
        excused = len(missing) if refers else 0 if has_list else 1  # one is what the sentence is about
        assert len(missing) <= excused, f"{what}: what is {', '.join(missing)}?"
        assert not raises(function) or re.search(r"Raises|[Ee]rror|[Rr]efuse", said), f"{what}: when does it raise?"
        is_typed = inspect.signature(function).return_annotation is not inspect.Signature.empty
        assert is_typed or not gives_something(function), f"{what}: gives what?"


@pytest.mark.parametrize("name", public_names())
def test_arguments_that_are_explained_exist(name):
    for what, function, _ in callables_of(name):
        own = inspect.getdoc(find(name) if what.endswith("()") else function) or ""
        section = re.search(r"^Args:\n((?:(?: .*)?\n?)+)", own, re.MULTILINE)
        if section and is_ours(function):
            entries = re.findall(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*):", section[1], re.MULTILINE)
            explained = {argument.lstrip("*") for entry in entries for argument in entry.split(", ")}
            unknown = explained - set(inspect.signature(function).parameters)
            has_more = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
            assert has_more or not unknown, f"{what}: there is no argument {', '.join(unknown)}"


# ----- the reference -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build_api():
    """The script as a module."""
    pytest.importorskip("pdoc", reason="the API reference needs pdoc (extra docs)")
    spec = importlib.util.spec_from_file_location("build_api", ROOT / "docs" / "build_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_shows_what_a_class_takes_and_what_calling_it_does(build_api, tmp_path):
    build_api.build(tmp_path, ["modeling_esi.training.fine_tuning"])
    page = (tmp_path / "modeling_esi" / "training" / "fine_tuning.html").read_text(encoding="utf-8")
    for name in ("ECGCollator", "ECGCollator.__init__", "ECGCollator.__call__", "ECGRecords.__init__", "ECGMetrics"):
        assert f'id="{name}"' in page, name
    assert "<strong>processor:</strong>" in page and "&gt;&gt;&gt; " in page and "_check_records" not in page
    assert_needs_no_network(tmp_path)


def test_a_module_whose_package_is_missing_is_named(build_api, tmp_path, monkeypatch):
    (tmp_path / "room_with_a_need.py").write_text("import not_installed_anywhere.deep\n")
    monkeypatch.syspath_prepend(tmp_path)
    found, missing = build_api.importable(["room_with_a_need", "modeling_esi.losses"])
    assert found == ["modeling_esi.losses"] and missing == {"room_with_a_need": "not_installed_anywhere"}
    with pytest.raises(ModuleNotFoundError):
        build_api.importable(["modeling_esi.not_there"])


def assert_needs_no_network(folder: Path) -> None:
    for page in folder.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(?:https?:)?//|@import', text), page.name


@pytest.mark.slow
def test_the_reference_is_whole(build_api, tmp_path):
    """The command as a user gives it; then every module has a page, and every public name a place on it."""
    done = subprocess.run(
        [sys.executable, "docs/build_api.py", tmp_path / "api"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    left_out = set(re.findall(r"^(\S+): left out, needs", done.stderr, re.MULTILINE))
    search = (tmp_path / "api" / "search.js").read_text(encoding="utf-8")
    for name in set(build_api.module_names()) - left_out:
        page = (tmp_path / "api" / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        for attribute in documented(importlib.import_module(name)):
            assert f'id="{attribute}"' in page, f"{name}.{attribute}"
        assert f'"{name}"' in search, name
    assert_needs_no_network(tmp_path / "api")


def documented(module: types.ModuleType) -> Iterator[str]:
    """Names of a module's own public classes and functions that have a docstring."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    for name in names:
        value = getattr(module, name)
        has_place = inspect.isclass(value) or inspect.isfunction(value)
        if has_place and value.__module__ == module.__name__ and value.__doc__:
            yield name
