"""Descriptions in the texts of rows that are there already: only the texts change, and nothing is prepared again."""

import json

import numpy as np
import pytest
from tiny_prepared import tiny_record, write_prepared

from datasets_scripts import RecordReader, load_ecg_dataset_with_report
from datasets_scripts.preparation import described_rows
from datasets_scripts.report_text import augment_text, findings_text, told_waveforms

WAVEFORMS = {"Sinus rhythm.": "A P wave before\n every QRS.", "LBBB": "A broad notched R in V6."}
SAID = [("sinus rhythm", "LBBB"), (), ("LBBB",), ("something else",), ("SINUS RHYTHM",)]
EXPECTED = [
    findings_text(SAID[0], None, "male", ["A P wave before every QRS.", "A broad notched R in V6."]),
    findings_text(SAID[2], 50.0, None, ["A broad notched R in V6."]),
    findings_text(SAID[3], None, "male"),
    findings_text(SAID[4], 50.0, "female", ["A P wave before every QRS."]),
]


@pytest.fixture
def folder(tmp_path):
    """Five records in two shards, with reports as texts, made of these statements."""
    records = [tiny_record(number).with_metadata(statements=said) for number, said in enumerate(SAID)]
    return write_prepared(tmp_path / "data", {"train-00000": records[:3], "train-00001": records[3:]})


@pytest.fixture
def load(folder, tmp_path):
    def loaded(**options):
        options = {"waveforms": WAVEFORMS, "cache_dir": tmp_path / "cache", **options}
        return load_ecg_dataset_with_report(folder, split="train", **options)

    return loaded


def test_texts_tell_descriptions_and_all_else_is_as_it_was(folder, load):
    plain, _ = load_ecg_dataset_with_report(folder, split="train")
    told, report = load()
    assert told.column_names == plain.column_names and told["text"] == EXPECTED
    kept = [0, 2, 3, 4]
    others = [name for name in plain.column_names if name != "text"]
    assert [{name: row[name] for name in others} for row in told] == [
        {name: plain[row][name] for name in others} for row in kept
    ]
    records = RecordReader(told).records(range(4))
    assert [record.text for record in records] == EXPECTED
    for record, row in zip(records, kept, strict=True):
        np.testing.assert_array_equal(record.digital, RecordReader(plain).records([row])[0].digital)


def test_the_report_counts_what_has_nothing_to_say_and_that_statements_are_labels(load):
    _, report = load()
    assert (report.num_kept, report.num_empty_text, report.num_statement_texts, report.text) == (4, 1, 4, "statements")
    assert [(one.record_id, one.reason) for one in report.rejected] == [("1", "no statements")]
    assert report.text_is_label_supervised and "label-supervised text" in " ".join(report.summary())


def test_texts_are_written_once_for_a_dictionary(load, tmp_path, monkeypatch):
    first, _ = load()
    (kept,) = (tmp_path / "cache").iterdir()
    (tmp_path / "waveforms.json").write_text(json.dumps(WAVEFORMS))
    monkeypatch.setattr(described_rows, "_write_texts", None)
    again, _ = load(waveforms=str(tmp_path / "waveforms.json"))
    assert again["text"] == first["text"] and list((tmp_path / "cache").iterdir()) == [kept]
    monkeypatch.undo()
    other, _ = load(waveforms=WAVEFORMS | {"LBBB": "Another picture."})
    assert "Another picture." in other["text"][0] and len(list((tmp_path / "cache").iterdir())) == 2


def test_varied_texts_keep_the_descriptions_of_what_they_say(load):
    rows, _ = load()
    records = RecordReader(rows).records(range(4))
    waveforms = told_waveforms([record.text for record in records], [record.statements for record in records])
    rng = np.random.default_rng(3)
    texts = {augment_text(records[0], rng, waveforms=waveforms) for _ in range(60)}
    assert any("LBBB" in text and "notched" in text and "sinus" not in text for text in texts)
    assert not any("notched" in text and "LBBB" not in text for text in texts)


def test_limit_is_of_the_rows_that_tell_something(load):
    assert load(limit=2)[0]["text"] == EXPECTED[:2]


@pytest.mark.parametrize("text", ["report", "report_else_statements", "none"])
def test_other_texts_have_no_place_for_descriptions(load, text):
    with pytest.raises(ValueError, match=f"expected text='statements' .*got '{text}'"):
        load(text=text)


def test_a_data_set_without_statements_is_refused(tmp_path):
    folder = write_prepared(tmp_path / "silent", {"train-00000": [tiny_record(1)]})
    with pytest.raises(
        ValueError, match="expected at least one record, got none of 1; first reasons: 1: no statements"
    ):
        load_ecg_dataset_with_report(folder, waveforms=WAVEFORMS, cache_dir=tmp_path / "cache")


def test_the_synthetic_source_tells_descriptions_too(tmp_path):
    rows, report = load_ecg_dataset_with_report(
        "synthetic", split="train", cache_dir=tmp_path, num_records=9, sampling_rate=100, waveforms=WAVEFORMS
    )
    in_sinus = [text for text in rows["text"] if "sinus rhythm" in text]
    assert in_sinus and all(text.splitlines()[1:3] == [
        "Potential ECG waveforms:", "A P wave before every QRS."] for text in in_sinus)  # fmt: skip
    assert report.text == "statements" and report.num_statement_texts == 9
