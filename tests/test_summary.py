"""What is said of results: only what there is, each figure beside its floor."""

from types import SimpleNamespace

import pytest

from modeling_esi.training.summary import (
    card_facts,
    is_split_by_patient,
    results_table,
    summary_line,
    written_reports,
)

RESULTS = {"test/macro_auroc": 0.9123, "test/num_records": 7.0, "test/labels": ["a"], "test/new": 2.0}


def test_a_line_tells_what_was_measured():
    results = {"validation/macro_auroc": 0.81249, "validation/ln_batch": 3.0, "validation/auroc/x": 0.5}
    assert summary_line(4, results) == "epoch 4: ln_batch 3.000, macro_auroc 0.812"


def test_the_table_has_the_floor_beside_each_figure():
    head, *lines = results_table(RESULTS, {"test/macro_auroc": 0.5}).strip().splitlines()
    assert head.split() == ["held-out", "test", "split", "trained", "random"]
    assert [line.split() for line in lines] == [["macro_auroc", "0.912", "0.500"], ["new", "2.000"]]


def test_without_a_test_split_that_is_said():
    assert "no held-out test split" in results_table({}, {})


def test_a_model_that_cannot_write_writes_nothing():
    assert written_reports(SimpleNamespace(decoder=None), None, [1], 3) == ""
    released = SimpleNamespace(decoder_config=SimpleNamespace(input_states="text_encoder"))
    assert written_reports(SimpleNamespace(decoder=object(), config=released), None, [1], 3) == ""


@pytest.mark.parametrize(("license", "told"), [("mit", "mit"), (None, "other")])
def test_the_card_gets_facts(license, told, caplog):
    train = SimpleNamespace(name="ptb_xl", num_kept=1200, text_is_label_supervised=True)
    flags = {"license": license, "text_encoder": "scratch", "lr": 0.1}
    facts = card_facts(flags, {"train": train, "validation": None, "test": train}, RESULTS, {}, is_by_patient=True)
    assert facts["license"] == told and facts["base_model"] is None and facts["text_is_label_supervised"]
    assert facts["training_data"] == "ptb_xl: 1,200 train, 1,200 test records, split by patient."
    assert facts["data_licenses"] == {"ptb_xl": "cc-by-4.0"}
    assert facts["results"]["trained"] == RESULTS and facts["recipe"]["lr"] == 0.1
    assert bool(caplog.records) == (license is None)


def test_without_results_the_card_has_none_and_claims_no_split():
    train = SimpleNamespace(name="cpsc2018", num_kept=3, text_is_label_supervised=True)
    facts = card_facts({"license": "mit", "text_encoder": "x"}, {"train": train}, {}, {}, is_by_patient=False)
    assert facts["results"] is None and facts["training_data"] == "cpsc2018: 3 train records."


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [("ab", "cd", True), ("ab", "bc", False), (["a", ""], "c", False), (["a", None], "c", False), ("ab", None, True)],
)
def test_a_split_is_by_patient_where_each_is_named_and_in_one(train, test, expected):
    rows = {"train": {"patient_id": list(train)}, "test": None if test is None else {"patient_id": list(test)}}
    assert is_split_by_patient(rows) is expected
