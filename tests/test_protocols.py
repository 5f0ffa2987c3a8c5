"""Protocols by name: each runs on the synthetic corpus; docs/evaluation.md: commands, flags, an own protocol."""

import json
import re
import shlex
import types
from pathlib import Path

import numpy as np
import pytest
from test_context import processor as processor  # noqa: F401  a fixture
from test_context import record, stored
from tiny_esi import tiny_esi

from datasets_scripts.preparation.prepare import Settings, prepare_dataset
from modeling_esi.evaluation.__main__ import main, parser_of
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.protocols import PROTOCOLS, find_protocol, options_of

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("python -m modeling_esi")]


@pytest.mark.parametrize("command", [command for command in commands() if "--help" not in command])
def test_each_command_of_the_page_parses(command):
    words = shlex.split(command)[3:]
    assert words[0] in PROTOCOLS
    assert parser_of(words[0]).parse_args(words).protocol == words[0]


def test_each_protocol_has_a_command_and_each_of_its_flags_is_told():
    assert {shlex.split(command)[3] for command in commands()} == set(PROTOCOLS)
    for protocol in PROTOCOLS:
        assert f"\n### {protocol}\n" in PAGE and f"| `{protocol}` |" in PAGE
        for option in options_of(find_protocol(protocol)):
            assert option.help, f"{protocol}: {option.name} has no sentence in the docstring"
            told = re.search(rf"--(no-)?{option.name}\b", PAGE)
            assert told, f"docs/evaluation.md: say what --{option.name} of {protocol} is"


def test_the_protocol_of_ones_own_runs_and_has_flags(processor, tmp_path):  # noqa: F811
    code = next(
        code for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if "def run" in code
    )
    module = types.ModuleType("nearest_neighbours")
    exec(code, vars(module))
    rng = np.random.default_rng(0)
    rows = {
        split: stored(
            [
                record(first + i, labels=tuple(name for name in ("AFIB", "NORM") if rng.random() < 0.5))
                for i in range(12)
            ]
        )
        for split, first in (("train", 0), ("validation", 100), ("test", 200))
    }
    context = EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows=rows, num_resamples=5, output=tmp_path)
    result = module.run(context, neighbours=3)
    assert "windows" not in result.protocol
    context.window = 0.5
    assert module.run(context).protocol.endswith(" Each ECG is the mean of half-overlapping windows of 0.5 s.")
    assert {"tiny/macro_auroc", "tiny/auroc/AFIB"} <= result.trained.keys() & result.random_weights.keys()
    assert "tiny: subgroups" in result.tables and list(result.pictures.values()) == ["roc_tiny.png"]
    assert [(option.name, option.kind, option.default) for option in options_of(module.run)] == [("neighbours", int, 5)]
    assert options_of(module.run)[0].help == "how many training records are asked."


# ----- on the synthetic corpus, by command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, processor):  # noqa: F811
    """A saved model with random weights, and the synthetic corpus as a prepared folder."""
    place = tmp_path_factory.mktemp("corpus")
    tiny_esi().save_pretrained(place / "model")
    processor.save_pretrained(place / "model")
    options = {"num_records": 40, "sampling_rate": 100, "duration": 5.0}
    prepare_dataset(Settings("synthetic", options=options), place / "synthetic")
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "flags", "figure"),
    [
        ("zero_shot", "", "synthetic/macro_auroc"),
        ("linear_probe", "--fractions 0.5 1 --seeds 42 43", "synthetic/100%/macro_auroc"),
        ("linear_probe", "--method merl --epochs 3 --fractions 1 --seeds 42", "synthetic/100%/macro_auroc"),
        ("fine_tune", "--fractions 1 --epochs 2", "synthetic/100%/macro_auroc"),
        ("identification", "", "rank1"),
        ("retrieval", "", "ecg_to_text/recall@10"),
        ("captioning", "--max_new_tokens 9", "rouge_l"),
        ("robustness", "--changes leads noise --probe fit", "synthetic/noise/white/0dB/macro_auroc"),
    ],
)
def test_each_protocol_runs_on_the_synthetic_corpus(corpus, tmp_path, capsys, protocol, flags, figure):
    words = [protocol, "--model", f"{corpus}/model", "--dataset", f"{corpus}/synthetic", "--output", str(tmp_path)]
    words += ["--num_resamples", "20", "--quiet", "--cache_dir", f"{corpus}/cache", "--compare", f"{corpus}/model"]
    assert main([*words, *flags.split()]) == 0
    told, saved = capsys.readouterr().out, json.loads((tmp_path / "results.json").read_text())
    assert told.startswith(f"{protocol} on synthetic/test\n") and (tmp_path / "results.md").is_file()
    assert f"{figure} " in told and "leakage: not known whether synthetic was in the training" in told
    assert saved["trained"][figure] is not None and saved["random_weights"][figure] is not None
    assert f"{figure}_low" in saved["trained"] or f"{figure}_note" in saved["trained"]
    assert saved["compared"][f"{figure}/difference"] == 0.0  # the same model
    assert str(corpus) not in json.dumps(saved)  # no path of this machine
