"""Results on a terminal and in files; flags made from signatures; the leakage line."""

import argparse
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from modeling_esi.card_results import results_text
from modeling_esi.evaluation.leakage import leakage_of, named_datasets
from modeling_esi.evaluation.protocols import PROTOCOLS, Option, add_flags, find_protocol, options_of
from modeling_esi.evaluation.results import Result, plain


def result() -> Result:
    trained = {
        "superdiagnostic/auroc/MI": np.float64(0.75), "superdiagnostic/auroc/LAFB/LPFB": None,
        "superdiagnostic/num_positives/MI": 7, "superdiagnostic/num_positives/LAFB/LPFB": 0,
        "superdiagnostic/macro_auroc": 0.75, "superdiagnostic/macro_auroc_low": 0.7,
        "superdiagnostic/macro_auroc_high": 0.8, "superdiagnostic/num_records": 31,
        "superdiagnostic/macro_f1": 0.5, "superdiagnostic/macro_f1_note": "no validation split",
    }  # fmt: skip
    return Result(
        "zero_shot", "What was done.", "ptb_xl/test", "esi", trained,
        {"superdiagnostic/macro_auroc": 0.51, "superdiagnostic/auroc/MI": 0.5},
        {"Subgroups": [{"sex": "female", "macro_auroc": 0.7}, {"sex": "male", "macro_auroc": None}]},
        {"LAFB/LPFB": "no positives"}, False, "not among them.",
    )  # fmt: skip


def test_rows_hold_value_interval_floor_and_positives_side_by_side():
    rows = {row["figure"]: row for row in result().rows()}
    assert list(rows) == [
        f"superdiagnostic/{name}" for name in ("auroc/MI", "auroc/LAFB/LPFB", "macro_auroc", "macro_f1")
    ]
    mean = rows["superdiagnostic/macro_auroc"]
    assert (mean["value"], mean["low"], mean["high"], mean["floor"]) == (0.75, 0.7, 0.8, 0.51)
    assert rows["superdiagnostic/auroc/LAFB/LPFB"]["num_positives"] == 0
    assert rows["superdiagnostic/auroc/MI"]["num_positives"] == 7
    assert rows["superdiagnostic/macro_f1"]["note"] == "no validation split"


def test_files_are_whole_and_the_model_card_takes_them_over(tmp_path):
    result().save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json", "results.md"]
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["trained"]["superdiagnostic/auroc/MI"] == 0.75 and written["random_weights"]
    card = results_text([written], "MIMIC-IV-ECG.", False)
    assert "0.7000 to 0.8000" in card and "0.5100" in card and "Were the records of the evaluation in training?" in card
    page = (tmp_path / "out" / "results.md").read_text()
    for said in ("0.7000 to 0.8000", "## Subgroups", "female", "no positives: LAFB/LPFB", "leakage: not among them."):
        assert said in page


def test_the_terminal_table_has_equal_columns():
    text = result().to_text()
    lines = text.splitlines()[1:5]
    assert "95 % interval" in lines[0] and len({line.index("0.") for line in lines[1:]}) == 1
    assert all(line.index("0.7500") == lines[1].index("0.7500") for line in lines if "0.7500" in line)


def test_numbers_become_plain():
    assert plain({"a": np.float32(0.5), "b": np.arange(2), "c": math.nan, "d": (True, None), "e": np.bool_(True)}) == {
        "a": 0.5, "b": [0, 1], "c": None, "d": [True, None], "e": True,
    }  # fmt: skip


# ----- flags ---------------------------------------------------------------------------------------------------------


def run(context, *, prompts: str | None = None, fractions: Sequence[float] = (0.01, 1.0), softmax: bool = False):
    """A protocol.

    Args:
        prompts: a JSON file of
            own prompts, 100 % of them.
        fractions: shares of the labels.
        softmax: over the labels.

    Returns:
        A result.
    """


def test_flags_are_made_from_the_signature():
    options = options_of(run)
    assert options[0] == Option("prompts", str, None, False, "a JSON file of own prompts, 100 % of them.")
    parser = argparse.ArgumentParser()
    add_flags(parser, options)
    parsed = parser.parse_args(["--fractions", "0.1", "0.5", "--softmax"])
    assert vars(parsed) == {"prompts": None, "fractions": [0.1, 0.5], "softmax": True}
    assert parser.parse_args([]).fractions == (0.01, 1.0)
    assert "100 % of them" in parser.format_help()


def test_a_protocol_that_is_none_is_told():
    with pytest.raises(ValueError, match="expected one of zero_shot, linear_probe"):
        find_protocol("guessing")
    assert list(PROTOCOLS)[0] == "zero_shot"


# ----- leakage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "dataset", "split", "seen", "line"),
    [
        ("MIMIC-IV-ECG 1.0, 771,693 records.", "ptb_xl", "test", False, "ptb_xl is not among them"),
        ("ptb_xl: 169 train, 52 validation records, split by patient.", "ptb_xl", "test", False, "held out by patient"),
        ("ptb_xl: 169 train, 52 validation records, split by patient.", "ptb_xl", "train", True, "seen in training"),
        ("ptb_xl: 169 train, 52 validation records, split by patient.", "ptb_xl", "all", True, "of its training split"),
        ("ptb_xl: 9 train, split by patient.\nPhysioNet 2021", "ptb_xl", "test", True, "shares records with physionet"),
        ("synthetic: 9 train, split by patient.\nPTB-XL", "ptb_xl", "test", True, "that the test split was held out"),
        ("ptb_xl: 9 train, split by patient.\nThe encoder before: PTB-XL", "ptb_xl", "test", True, "was held out"),
        ("ptb_xl: 9 train, split by patient.\n\n| ptb_xl | by |", "ptb_xl", "test", False, "held out by patient"),
        ("csn: 9 train, 3 test records, split by patient.", "cpsc2018", "test", False, "cpsc2018 is not among them"),
        ("PTB-XL", "files", "test", None, "one's own files, are of these is not known"),
        ("All of PTB-XL and CODE-15.", "ptb_xl", "test", True, "is among them"),
        ("PhysioNet/CinC Challenge 2021", "cpsc2018", "test", True, "shares records with physionet2021"),
        ("PTB-XL", "physionet2021", "test", True, "shares records with ptb_xl"),
        ("The training data are not stated.", "ptb_xl", "test", None, "not known"),
        ("Our own hospital.", "ptb_xl", "test", None, "names no known data set"),
    ],
)
def test_the_leakage_line(said, dataset, split, seen, line):
    leakage = leakage_of(f"# Model\n\n## Training data\n\n{said}\n\n## Results\n\nptb_xl\n", dataset, split)
    assert leakage.seen is seen and line in leakage.line


def test_no_card_is_not_innocence():
    assert leakage_of("", "ptb_xl").seen is None and "no model card" in leakage_of("", "ptb_xl").line
    assert named_datasets("MIMIC-IV (notes), ECG-ID and LUDB") == ("mimic_iv_ecg", "ecg_id", "ludb")


def test_pictures_are_linked_in_the_page_and_named_on_the_terminal(tmp_path):
    shown = result()
    shown.pictures = {"ROC curves of superdiagnostic": "roc_superdiagnostic.png"}
    shown.save(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "![ROC curves of superdiagnostic](roc_superdiagnostic.png)" in page
    assert "[roc_superdiagnostic.svg](roc_superdiagnostic.svg)" in page
    assert "pictures: roc_superdiagnostic.png" in shown.to_text()
    assert json.loads((tmp_path / "results.json").read_text())["pictures"] == shown.pictures


def test_a_second_model_stands_below_and_classes_without_a_figure_are_only_named(tmp_path):
    shown = result()
    key = "superdiagnostic/macro_auroc"
    shown.compared = {f"{key}/other": 0.7, f"{key}/difference": 0.05, f"{key}/difference_low": -0.01,
                      f"{key}/difference_high": 0.11}  # fmt: skip
    lines = shown.to_text().splitlines()
    below = next(place for place, line in enumerate(lines) if "this less other" in line)
    assert lines[below + 1].split() == [key, "0.7000", "0.0500", "-0.0100", "to", "0.1100"]
    assert not [line for line in lines if line.startswith("superdiagnostic/auroc/LAFB/LPFB")]
    assert "left out, no positives: LAFB/LPFB" in lines
    assert f"| {key} | 0.7000 | 0.0500 | -0.0100 to 0.1100 |" in shown.to_markdown()
