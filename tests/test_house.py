"""The plan in docs/architecture.md holds: who may import whom, what ships with the weights, which names are allowed."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "docs" / "architecture.md"
PACKAGES = ("modeling_esi", "datasets_scripts")
PACKAGE_FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
CODE_FILES = [*sorted(ROOT.glob("*.py")), *PACKAGE_FILES]
TEST_FILES = sorted((ROOT / "tests").glob("*.py"))
FLAT = {path.stem: path for path in sorted((ROOT / "modeling_esi").glob("*.py"))}

# what an Auto class is registered for: the ways into the code that travels with the weights
ENTRANCES = ("configuration_esi", "feature_extraction_esi", "processing_esi", "modeling_esi")
STAY_HOME = {
    "__init__", "attribution", "card_changes", "card_results", "convert_released_checkpoint", "ecg_page", "hub",
    "hub_check", "model_card", "plotting",
}  # fmt: skip
THERE_ANYWAY = {"torch", "transformers", "numpy", "safetensors", "huggingface_hub"}  # where weights are loaded
READ_FILES = {"plotting", "pipeline_inputs"}  # that a user names: inside functions
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}
NAMED_AFTER_TRANSFORMERS = {"test_transformers_common.py"}
PARTS_OF_LAYERS = {"feed_forward", "texts_by_length"}  # what encoder and decoder may share
MODELS_ON_REQUEST = {"dense", "local_generator"}  # of the query assistant: inside functions
LONGEST_FILE = 600


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """`(level, module)` of every import, also of those inside functions; level 0 is absolute."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def roots_of(path: Path) -> set[str]:
    """The packages that a file imports by absolute name."""
    return {module.split(".")[0] for level, module in imports_of(path) if level == 0}


def siblings_of(path: Path) -> set[str]:
    """The modules that a file of the flat floor imports from its own package, in whatever way."""
    relative = {module for level, module in imports_of(path) if level == 1}
    absolute = {module for level, module in imports_of(path) if level == 0 and module.startswith("modeling_esi.")}
    return relative | {module.removeprefix("modeling_esi.") for module in absolute}


def shipped() -> set[str]:
    """The flat modules that travel with the weights: the entrances and all that they import."""
    found, waiting = set(), list(ENTRANCES)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += siblings_of(FLAT[name])
    return found


def relative_names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def parse_file_tree(block: str) -> dict[str, str]:
    """Paths of a file tree in a code block, each with the remark behind it.

    A line holds one name, or several with single spaces between; two or more spaces part them from the remark. What
    is indented deeper lies in the folder above it, whose name ends in `/`.
    """
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, block.splitlines()):
        names, _, remark = line.strip().partition("  ")
        depth = len(line) - len(line.lstrip())
        folders = [(indent, folder) for indent, folder in folders if indent < depth]
        prefix = folders[-1][1] if folders else ""
        for name in names.split():
            found[prefix + name] = remark.strip()
        if names.endswith("/"):
            folders.append((depth, prefix + names))
    return found


def plan() -> dict[str, str]:
    """The floor plan of docs/architecture.md: its first code block."""
    return parse_file_tree(re.search(r"```\n(.*?)```", PLAN.read_text(encoding="utf-8"), re.DOTALL)[1])


# ----- the plan and the tree -----------------------------------------------------------------------------------------


def test_a_file_tree_is_read_as_it_is_drawn():
    drawn = "a.py        one\nroom/       two\n    b.py c.py   three\n    inner/  four\n        d.py\ne.py  five\n"
    expected = {"a.py": "one", "room/": "two", "room/b.py": "three", "room/c.py": "three", "room/inner/": "four"}
    assert parse_file_tree(drawn) == expected | {"room/inner/d.py": "", "e.py": "five"}


def test_what_the_plan_shows_stands_and_what_it_plans_does_not():
    rooms = plan()
    assert len(rooms) > len(PACKAGE_FILES)
    for path, remark in rooms.items():
        planned = remark.startswith("(planned)")
        assert (ROOT / path).exists() != planned, f"{path}: {'built: drop (planned)' if planned else 'is not there'}"


def test_every_module_is_in_the_plan():
    missing = [name for name in relative_names(PACKAGE_FILES) if name not in plan() and "__init__" not in name]
    assert not missing, f"docs/architecture.md: give a room in the floor plan to {', '.join(missing)}"


def test_every_test_file_has_a_room():
    """It is named after a module, a folder or a script, or stands in the plan's list of tests across rooms."""
    rooms = {path.stem for path in CODE_FILES} | {path.parent.name for path in PACKAGE_FILES}
    text = PLAN.read_text(encoding="utf-8")
    for path in TEST_FILES:
        about = path.stem.removeprefix("test_")
        has_room = path.stem.startswith("test_") and about in rooms
        assert has_room or f"`{path.name}`" in text, f"{path.name}: name it after a room, or list it in {PLAN.name}"


# ----- doors open one way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "datasets_scripts").rglob("*.py")), ids=lambda path: path.stem)
def test_records_know_no_model(path):
    models = {"torch", "transformers"} if path.stem in MODELS_ON_REQUEST else set()
    assert not roots_of(path) & {"torch", "transformers", "accelerate", "modeling_esi", "configuration_esi"} - models


@pytest.mark.parametrize("name", FLAT)
def test_the_flat_floor_knows_no_records_and_no_judges(name):
    files = {"datasets_scripts"} if name in READ_FILES else set()
    assert not roots_of(FLAT[name]) & {"datasets_scripts", "datasets", "pyarrow", "wfdb", "pandas"} - files
    assert not {sibling for sibling in siblings_of(FLAT[name]) if sibling.startswith("evaluation")}


def test_nothing_imports_the_training_script():
    importers = [path for path in CODE_FILES if "train_accelerate" in roots_of(path)]
    assert not importers, relative_names(importers)


@pytest.mark.parametrize("name", ["convnextv2_1d", "xresnet1d", "caption_decoder", "losses"])
def test_encoders_decoder_and_losses_do_not_know_each_other(name):
    assert siblings_of(FLAT[name]) <= {"configuration_esi", *PARTS_OF_LAYERS}


def test_public_names_are_only_gathered_in_the_package_file():
    defined = [node for node in tree_of(FLAT["__init__"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not defined


# ----- what ships with the weights -----------------------------------------------------------------------------------


def test_every_flat_module_ships_or_stays_home():
    assert not shipped() & STAY_HOME
    assert shipped() | STAY_HOME == set(FLAT), "a new module: let a shipped one import it, or add it to STAY_HOME"


def test_transformers_finds_the_same_files():
    found = {Path(file).stem for name in ENTRANCES for file in get_relative_import_files(FLAT[name])} | set(ENTRANCES)
    assert found == shipped()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_files_import_siblings_by_name_and_nothing_optional(name):
    for level, module in imports_of(FLAT[name]):
        by_name = level == 1 and re.fullmatch(r"\w+", module)
        assert level == 0 or by_name, f"expected `from .name import X`, got {'.' * level}{module}"
    assert not roots_of(FLAT[name]) & {"modeling_esi", "configuration_esi"}
    assert set(get_imports(FLAT[name])) - sys.stdlib_module_names <= THERE_ANYWAY


# ----- habits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*CODE_FILES, *TEST_FILES], ids=lambda path: path.name)
def test_files_are_short_and_have_a_name(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= LONGEST_FILE, f"{path.name}: {num_lines} lines; split it by what it is about"
    if path.name not in NAMED_AFTER_TRANSFORMERS:
        assert not set(path.stem.split("_")) & NAMELESS, f"{path.name}: what has no name has no room"


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda path: path.stem)
def test_packages_print_nothing(path):
    assert "print" not in {call for call, _ in calls_of(path)}


@pytest.mark.parametrize("path", CODE_FILES, ids=lambda path: path.stem)
def test_no_file_is_read_that_could_run_code(path):
    for call, keywords in calls_of(path):
        what = f"{path.name}: {call}"
        assert call not in {"eval", "exec", "load", "loads", "yaml.load", "joblib.load"}, what
        assert call not in {"pickle.load", "pickle.loads", "pickle.Unpickler"}, what
        assert call.split(".")[-1] not in {"read_pickle", "unsafe_load", "full_load"}, what
        assert keywords.get("allow_pickle", False) is False, what
        if call == "torch.load":
            assert keywords.get("weights_only") is True, what


@pytest.mark.parametrize("path", CODE_FILES, ids=lambda path: path.stem)
def test_no_error_is_swallowed(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno}: name the error"
            assert not isinstance(node.body[0], ast.Pass), f"{path.name}:{node.lineno}: say what happened"


@pytest.mark.parametrize("path", CODE_FILES, ids=lambda path: path.stem)
def test_a_sampling_rate_is_called_so(path):
    names = [node.arg for node in ast.walk(tree_of(path)) if isinstance(node, ast.arg | ast.keyword)]
    assert not set(names) & {"fs", "sample_rate", "freq"}


def test_no_path_of_a_machine_is_written_down():
    texts = [ROOT / "README.md", ROOT / "setup.cfg", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    texts += [*CODE_FILES, *TEST_FILES, *sorted((ROOT / "docs").glob("*.md"))]
    texts += sorted(filter(Path.is_file, (ROOT / "recipes").rglob("*")))
    own_places = re.compile(r"(?<![\w.:/~-])/(?:home|Users|root|work|tmp|mnt|scratch|var)/\w")
    found = [path for path in texts if own_places.search(path.read_text(encoding="utf-8"))]
    assert not found, relative_names(found)


def calls_of(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Every call as `(dotted name, its keywords)`; what is no constant stands as its source."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            values = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else ast.unparse(k.value)
                      for k in node.keywords}  # fmt: skip
            yield ast.unparse(node.func), values
