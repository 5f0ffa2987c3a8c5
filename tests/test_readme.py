"""README and docs are true: commands, code, file trees, flags, fields and links."""

import ast
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import wfdb
from test_house import parse_file_tree

from datasets_scripts import Settings, load_ecg_dataset_with_report, prepare_dataset, sources
from datasets_scripts.synthetic import generate_record
from datasets_scripts.synthetic_findings import FINDINGS
from modeling_esi import (
    ENCODER_PRESETS,
    ESIConfig,
    ESIEcgConfig,
    ESIEcgModel,
    ESIFeatureExtractor,
    ESIForECGClassification,
    ESIModel,
    ESIProcessor,
)
from modeling_esi.configuration_esi import VARIANT_SCALING, VARIANTS
from modeling_esi.evaluation import protocols
from modeling_esi.training.text_from_scratch import small_bert_config, train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
GIVEN_BY_LAUNCH = {"gpu_ids", "multi_gpu", "num_processes", "mixed_precision", "nproc_per_node", "cpu"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_blocks(path: Path, language: str = "") -> list[str]:
    """The page's code blocks of a language, in order; without a language: commands, trees and formulas."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), re.DOTALL | re.MULTILINE)


def table_rows(text: str) -> Iterator[list[str]]:
    """Cells of every row of the tables, without backticks around a cell."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|-"):
            yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def flags() -> dict[str, object]:
    """Every flag of the training script with its default, in order, read off its dataclasses without running it."""
    classes = [node for node in ast.parse(read(ROOT / "train_accelerate.py")).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node in classes:
        if node.name in ("ModelArguments", "DataArguments", "TrainingArguments"):
            for field in (line for line in node.body if isinstance(line, ast.AnnAssign)):
                defaults = [keyword.value for keyword in field.value.keywords if keyword.arg == "default"]
                found[field.target.id] = ast.literal_eval(defaults[0])
    return found


# ----- the two commands ----------------------------------------------------------------------------------------------


def test_readme_starts_with_the_two_commands():
    train, tests = code_blocks(README)[:2]
    install = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
    assert train == f"{install}. && accelerate launch train_accelerate.py\n"
    assert tests == f'{install}".[test]" && pytest\n'
    start = read(README).index(tests)
    assert "\n## " not in read(README)[:start] and start < 1000
    assert (ROOT / "constraints.txt").is_file() and "\ntest =\n" in read(ROOT / "setup.cfg")


def test_ci_runs_the_second_command():
    pattern = re.search(r"grep -m1 -E '(.*?)' README\.md", read(ROOT / ".ci" / "run"))[1]
    found = next(line for line in read(README).splitlines() if re.search(pattern, line))
    assert found == code_blocks(README)[1].strip()


def test_commands_name_flags_and_files_that_there_are():
    for page in PAGES:
        for line in "".join(code_blocks(page)).splitlines():
            if not line.startswith(("accelerate", "python -m", "torchrun")):
                continue
            module = re.search(r"train_accelerate|datasets_scripts(?:\.cqa)?|modeling_esi\.\w+", line)[0]
            parser = set(flags()) | {"config"} if module == "train_accelerate" else options_of(module)
            if source := re.search(r"--source (\w+)", line):
                parser |= set(sources.known_options(sources.find_source(source[1])))
            if protocol := re.search(r"modeling_esi\.evaluation (\w+)", line):
                parser |= {option.name for option in protocols.options_of(protocols.find_protocol(protocol[1]))}
            unknown = set(re.findall(r"--(?:no-)?(\w+)", line)) - parser - GIVEN_BY_LAUNCH
            assert not unknown, f"{page.name}: {line}"
            for recipe in re.findall(r"recipes/\w+\.yaml", line):
                assert (ROOT / recipe).is_file(), f"{page.name}: {recipe}"


def options_of(module: str) -> set[str]:
    path = ROOT / module.replace(".", "/")
    script = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return set(re.findall(r'add_argument\(\s*"--(\w+)"', read(script))) | {"help"}


# ----- file tree and links -------------------------------------------------------------------------------------------


def test_the_file_tree_is_true():
    section = read(README).split("## What is where")[1]
    tree = parse_file_tree(re.search(r"```\n(.*?)```", section, re.DOTALL)[1])
    missing = [path for path in tree if not (ROOT / path).exists()]
    assert not missing, f"README.md: not there: {missing}"
    modules = {f"{folder}/{path.name}" for folder in ("modeling_esi", "datasets_scripts")
               for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"}  # fmt: skip
    assert not modules - set(tree), f"README.md: not in the file tree: {sorted(modules - set(tree))}"
    in_git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if in_git.returncode == 0:  # elsewhere nothing tells the project's files from those that lie around
        tops = {re.sub(r"/.*", "/", name) for name in in_git.stdout.splitlines() if not name.startswith(".")}
        assert not tops - set(tree) - {"README.md"}, "README.md: give these a line in the file tree"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", read(page)):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_is_left_to_do():
    assert not [page.name for page in PAGES if re.search(r"\b(TODO|FIXME|XXX)\b", read(page))]


# ----- code ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside_the_folder(tmp_path_factory) -> Path:
    """A temporary folder: tiny `esi-ecg/`, `hospital_arrow/` and its `esi-ecg-hospital/`, and `record.hea`."""
    place = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    reports = [generate_record(seed, sampling_rate=100).report for seed in range(20)]
    tokenizer = train_tokenizer(reports, vocab_size=150, max_text_length=60)
    text = small_bert_config(tokenizer, hidden_size=64, num_layers=1)
    decoder = {"hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 3, "head_dim": 10,
               "bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
               "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    ecg = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 37]}
    config = ESIConfig.from_variant("esi", ecg_config=ecg, text_config=text, decoder_config=decoder, projection_dim=28)
    ESIModel(config).save_pretrained(place / "esi-ecg")
    ESIForECGClassification.from_pretrained(place / "esi-ecg").save_pretrained(place / "esi-ecg-hospital")
    feature_extractor = ESIFeatureExtractor(sampling_rate=100, duration=5.0)
    for folder in ("esi-ecg", "esi-ecg-hospital"):
        ESIProcessor(feature_extractor, tokenizer, max_text_length=60).save_pretrained(place / folder)
    records = Settings("synthetic", options={"num_records": 24, "sampling_rate": 100, "duration": 5.0})
    prepare_dataset(records, place / "hospital_arrow")
    record = generate_record(3)
    samples = record.signal.T.astype(float)
    wfdb.wrsamp("record", fs=500, units=["mV"] * 12, sig_name=list(record.leads), p_signal=samples, fmt=["16"] * 12,
                write_dir=str(place))  # fmt: skip
    return place


def code_with_package() -> list:
    blocks = [(page, i, code) for page in PAGES for i, code in enumerate(code_blocks(page, "python"))]
    return [pytest.param(code, id=f"{page.stem}-{i}") for page, i, code in blocks if "trust_remote" not in code]


@pytest.mark.parametrize("code", code_with_package())
def test_code_runs_as_written(code, beside_the_folder, monkeypatch):
    monkeypatch.chdir(beside_the_folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", beside_the_folder / "cache")
    if "from peft import" in code:
        pytest.importorskip("peft", reason="LoRA needs peft (extra peft)")
    exec(code, {"__name__": "page"})


def test_use_gives_what_readme_says(beside_the_folder, monkeypatch):
    monkeypatch.chdir(beside_the_folder)
    names = {}
    exec(code_blocks(README, "python")[0], names)
    torch.testing.assert_close(names["ecg_embeds"].norm(dim=-1), torch.ones(1))
    assert names["scores"].shape == (1, 2) and names["scores"].abs().max() <= 1
    assert len(names["report"]) == 1 and isinstance(names["report"][0], str)


def test_code_that_needs_no_package_runs_without(beside_the_folder):
    blocks = [code for page in PAGES for code in code_blocks(page, "python") if "trust_remote" in code]
    assert len(blocks) == 2
    blocker = "import sys\nsys.modules['modeling_esi'] = None  # as where it is not installed\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(beside_the_folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", blocker + "".join(blocks)], cwd=beside_the_folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_source_of_your_own_loads(tmp_path, monkeypatch):
    """The module that docs/data.md shows, on two records written here, one of which is not there."""
    code = next(code for code in code_blocks(ROOT / "docs" / "data.md", "python") if "def list_entries" in code)
    source = types.ModuleType("datasets_scripts.own_source")
    exec(code, vars(source))
    monkeypatch.setitem(sys.modules, source.__name__, source)
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, "own_source"))
    wave = np.sin(np.linspace(0, 60, 500))[:, None] * [1.0, 0.5]
    wfdb.wrsamp("one", fs=100, units=["mV", "mV"], sig_name=["I", "II"], p_signal=wave, fmt=["16", "16"],
                write_dir=str(tmp_path))  # fmt: skip
    table = "id,patient,year,file,report\n1,a,2020,one,Sinus rhythm.\n2,a,2020,two,Sinus rhythm.\n3,a,2020,one,\n"
    (tmp_path / "table.csv").write_text(table)
    rows, report = load_ecg_dataset_with_report("own_source", tmp_path, cache_dir=tmp_path / "cache")
    assert rows["record_id"] == ["1"] and rows["text"] == ["Sinus rhythm."] and rows["patient_id"] == ["a"]
    assert [rejection.record_id for rejection in report.rejected] == ["2", "3"]
    _, report = load_ecg_dataset_with_report("own_source", tmp_path, cache_dir=tmp_path / "cache", year="2020")
    assert report.num_kept == 1


# ----- flags and fields ----------------------------------------------------------------------------------------------


def test_every_flag_is_explained_with_its_default():
    section = read(ROOT / "docs" / "training.md").split("## Flags")[1].split("## Recipes")[0]
    told = {cells[0].removeprefix("--"): cells[1] for cells in table_rows(section) if cells[0].startswith("--")}
    assert list(told) == list(flags()), "docs/training.md: expected every flag once, in the script's order"
    for name, default in flags().items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert float(told[name]) == default, name
        else:
            assert told[name] == str(default).lower().replace("biolinkbert", "BioLinkBERT"), name


def test_every_field_of_the_variants_is_told_with_its_value():
    rows = {cells[0]: cells[1:3] for cells in table_rows(read(ROOT / "docs" / "model.md"))}
    for name in VARIANTS["esi"]:
        expected = [VARIANTS[variant][name] for variant in ("esi", "released")]
        assert rows[name] == [f"{v:.4f}" if v == VARIANTS["esi"]["logit_scale_init_value"] else str(v).lower()
                              for v in expected], name  # fmt: skip
    assert rows["scaling` (feature extractor)"] == [VARIANT_SCALING["esi"], VARIANT_SCALING["released"]]


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_every_encoder_is_told_with_its_sizes(name):
    rows = {cells[0]: cells[2:] for cells in table_rows(read(ROOT / "docs" / "model.md")) if len(cells) == 6}
    with torch.device("meta"):
        model = ESIEcgModel(ESIEcgConfig(signal_encoder=name))
    config = model.config
    sizes = [" ".join(map(str, config.depths)), " ".join(map(str, config.hidden_sizes)), str(config.hidden_size)]
    assert rows[name] == [*sizes, f"{model.num_parameters():,}"]


@pytest.mark.parametrize("name", sources.SOURCES)
def test_every_source_is_told_with_its_options(name):
    told = {cells[0]: cells[2] for cells in table_rows(read(ROOT / "docs" / "data.md")) if len(cells) == 4}
    said = re.sub(r"\(.*?\)", "", told[name])
    assert set(re.findall(r"[a-z_]{3,}", said)) == set(sources.known_options(sources.find_source(name)))


def test_every_finding_is_told():
    text = " ".join(read(ROOT / "docs" / "data.md").split())
    assert not [finding for finding in FINDINGS if finding not in text]
