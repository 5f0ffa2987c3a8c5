"""Descriptions in the texts of rows that are there already: only the texts change, and nothing is prepared again."""

import json
import re

import numpy as np
import pytest
from tiny_prepared import tiny_record, write_prepared

from datasets_scripts import RecordReader, load_ecg_dataset_with_report
from datasets_scripts.__main__ import main
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
    assert report.num_described == 3 and "with descriptions behind statements: 3 records" in report.summary()
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


SCP = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1,,,NORM,NORM
"""


def tables_with_reports(folder):
    """PTB-XL's tables, with a report for each record; refused before a recording is looked for."""
    folder.mkdir()
    (folder / "scp_statements.csv").write_text(SCP)
    head = "ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr\n"
    (folder / "ptbxl_database.csv").write_text(f"{head}1,1.0,50,0,befund,{{'NORM': 100.0}},1,lr/1,hr/1\n")
    return folder


@pytest.fixture
def prepare(tmp_path, capsys):
    """The command prepare with a file of waveforms: its exit code, and what it wrote to stdout and stderr."""

    def prepared(source, *flags, waveforms=WAVEFORMS):
        (tmp_path / "waveforms.json").write_text(json.dumps(waveforms))
        named = ["--output", str(tmp_path / "out"), "--waveforms", str(tmp_path / "waveforms.json"), *map(str, flags)]
        code = main(["prepare", "--source", source, "--sampling_rate", "100", "--num_workers", "1", *named])
        return code, *capsys.readouterr()

    return prepared


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("report", "expected text='statements', got 'report'"),
        ("none", "expected text='statements', got 'none'"),
        ("report_else_statements", "every record of ptb_xl has a report, .* give text='statements'"),
    ],
)
def test_descriptions_are_refused_where_every_text_is_a_report(prepare, tmp_path, text, told):
    code, _, error = prepare("ptb_xl", "--data_dir", tables_with_reports(tmp_path / "ptb_xl"), "--text", text)
    assert code == 1 and re.search(told, error) and not (tmp_path / "out").exists()


def test_prepare_tells_how_many_texts_tell_descriptions(prepare, tmp_path):
    code, out, _ = prepare("synthetic", "--num_records", 30, "--text", "statements")
    count = load_ecg_dataset_with_report(tmp_path / "out")[1].num_described
    assert code == 0 and count > 0 and f"with descriptions behind statements: {count} records" in out


@pytest.mark.parametrize(
    ("text", "waveforms"), [("report_else_statements", WAVEFORMS), ("statements", {"no such statement": "Nothing."})]
)
def test_prepare_warns_where_no_text_tells_a_description(prepare, caplog, text, waveforms):
    code, out, _ = prepare("synthetic", "--num_records", 3, "--text", text, waveforms=waveforms)
    assert code == 0 and "none of the texts tells a description" in caplog.text and "descriptions behind" not in out


def test_the_synthetic_source_tells_descriptions_too(tmp_path):
    rows, report = load_ecg_dataset_with_report(
        "synthetic", split="train", cache_dir=tmp_path, num_records=9, sampling_rate=100, waveforms=WAVEFORMS
    )
    in_sinus = [text for text in rows["text"] if "sinus rhythm" in text]
    assert in_sinus and all(text.splitlines()[1:3] == [
        "Potential ECG waveforms:", "A P wave before every QRS."] for text in in_sinus)  # fmt: skip
    assert report.text == "statements" and report.num_statement_texts == 9
