"""Data sets by name: what is kept, what is told, and a cache that never serves what has changed or is half built."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import (
    LoadReport,
    label_names,
    label_prompts,
    load_ecg_dataset,
    load_ecg_dataset_with_report,
    loading,
    read_record,
)
from datasets_scripts import load_report as load_report_module
from datasets_scripts.preparation import prepare
from datasets_scripts.records import ROW_FORMAT_VERSION, row_to_record

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"

SCP = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
SR,sinus rhythm,,,1.0,,
"""
HEAD = "ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr\n"
CODES = "\"{'NORM': 100.0, 'SR': 0.0}\""


def write(folder, name, samples, fmt="16"):
    wfdb.wrsamp(
        name,
        fs=100,
        units=["mV"] * 2,
        sig_name=["I", "II"],
        d_signal=samples,
        fmt=[fmt] * 2,
        adc_gain=[1000.0] * 2,
        baseline=[3] * 2,
        write_dir=str(folder),
    )


@pytest.fixture
def folder(tmp_path):
    """Six records: 1 and 2 good (2 without report), 3 without any text, 4 flat, 5 absent, 6 good."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "scp_statements.csv").write_text(SCP)
    rows = [
        f"1,7.0,50,0,sinusrhythmus,{CODES},1,1,",
        f"2,7.0,50,1,,{CODES},1,2,",
        "3,8.0,50,1,,{},1,3,",
        f"4,8.0,50,1,x,{CODES},1,4,",
        f"5,8.0,50,1,x,{CODES},1,5,",
        f"6,9.0,50,1,y,{CODES},9,6,",
    ]
    (data / "ptbxl_database.csv").write_text(HEAD + "\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    for name in "1236":
        write(data, name, rng.integers(-900, 900, size=(37, 2)))
    write(data, "4", np.full((37, 2), 11))
    return data


def load(folder, tmp_path, **options):
    options = {"split": "train", "sampling_rate": 100} | options
    return load_ecg_dataset_with_report("ptb_xl", folder, cache_dir=tmp_path / "cache", **options)


def test_rows_are_the_records(folder, tmp_path):
    dataset, report = load(folder, tmp_path)
    assert dataset["record_id"] == ["1", "2"] and dataset.features["signal"].feature.dtype == "int16"
    for row in dataset:
        expected = read_record(folder / row["record_id"])
        assert row_to_record(row).signal.tobytes() == expected.signal.tobytes()
        assert (row["num_samples"], row["leads"], row["labels"]) == (37, ["I", "II"], ["NORM"])
    assert dataset["text"] == [
        "sinusrhythmus",
        "This patient is a 50 year-old Female. ECG Findings: normal ECG, sinus rhythm.",
    ]
    assert dataset[0]["text_key"] == dataset[1]["text_key"] and dataset[0]["patient_id"] == "7"
    assert dataset.cache_files[0]["filename"].startswith(str(tmp_path / "cache"))


def test_report_names_every_record_and_survives_the_cache(folder, tmp_path, caplog):
    _, report = load(folder, tmp_path)
    _, again = load(folder, tmp_path)
    assert again == report and json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert (report.num_read, report.num_kept, report.num_empty_text, report.num_statement_texts) == (5, 2, 1, 1)
    reasons = {rejection.record_id: (Path(rejection.path).name, rejection.reason) for rejection in report.rejected}
    assert reasons["3"] == ("3", "no report, no statements")
    assert reasons["4"] == ("4", "every lead is flat or missing (NaN)")
    assert reasons["5"][0] == "5" and "no such file" in reasons["5"][1]
    assert report.text_is_label_supervised
    dataset = load_ecg_dataset("ptb_xl", folder, cache_dir=tmp_path / "cache", sampling_rate=100)
    assert "5 records read, 2 kept, 3 rejected" in caplog.text and "label-supervised text" in caplog.text
    assert "label-supervised text" in dataset.info.description


def test_choice_of_text_limit_and_splits(folder, tmp_path):
    dataset, report = load(folder, tmp_path, text="report")
    assert dataset["text"] == ["sinusrhythmus"] and not report.text_is_label_supervised
    assert [r.reason for r in report.rejected if r.record_id in "23"] == ["no report", "no report"]
    dataset, report = load(folder, tmp_path, text="statements")
    assert all("ECG Findings: " in text for text in dataset["text"]) and report.num_statement_texts == 2
    assert len(load(folder, tmp_path, limit=1)[0]) == 1
    assert load(folder, tmp_path, split=None)[0]["record_id"] == ["1", "2", "6"]
    assert load(folder, tmp_path, split="validation")[0].split == "validation"
    with pytest.raises(ValueError, match="ptb_xl/test: expected at least one record, got none of 0"):
        load(folder, tmp_path, split="test")


def test_all_rejected_is_an_error_with_the_first_reasons(folder, tmp_path):
    for path in folder.glob("*.dat"):
        path.write_bytes(b"\0")
    with pytest.raises(ValueError, match="got none of 5; first reasons: 1: .*holds only 0"):
        load(folder, tmp_path)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_wide_integers_make_the_whole_set_float(folder, tmp_path):
    write(folder, "2", np.random.default_rng(5).integers(-90000, 90000, size=(37, 2)), fmt="32")
    dataset, _ = load(folder, tmp_path)
    assert dataset.features["signal"].feature.dtype == "float32" and len(dataset) == 2
    for row in dataset:
        assert row_to_record(row).signal.tobytes() == read_record(folder / row["record_id"]).signal.tobytes()


@pytest.mark.parametrize("change", ["table", "statements", "signal", "new file", "row format"])
def test_what_has_changed_is_never_served_from_the_cache(folder, tmp_path, change, monkeypatch):
    first, _ = load(folder, tmp_path)
    if change == "table":
        path = folder / "ptbxl_database.csv"
        path.write_text(path.read_text().replace("sinusrhythmus", "rhythmussinus"))  # the same size
    elif change == "statements":
        (folder / "scp_statements.csv").write_text(SCP.replace("normal ECG", "NORMAL ecg"))
    elif change == "signal":
        write(folder, "1", np.random.default_rng(9).integers(-900, 900, size=(37, 2)))
    elif change == "new file":
        write(folder, "5", np.random.default_rng(9).integers(-900, 900, size=(37, 2)))
    else:
        monkeypatch.setattr(prepare, "ROW_FORMAT_VERSION", ROW_FORMAT_VERSION + 1)
    second, _ = load(folder, tmp_path)
    assert second.cache_files != first.cache_files
    assert (second.to_list() != first.to_list()) == (change != "row format")


def test_the_cache_is_used_when_nothing_changed(folder, tmp_path, monkeypatch):
    first, _ = load(folder, tmp_path)
    monkeypatch.setattr(loading, "prepare_dataset", None)
    second, _ = load(folder, tmp_path)
    assert first.cache_files == second.cache_files and first._fingerprint == second._fingerprint


KILLED = """
import sys, time
from datasets_scripts import loading
from datasets_scripts.preparation import shards
write = shards.record_to_row
def slow(record, dtype):
    if record.record_id == "2":
        print("half way", flush=True)
        time.sleep(60)
    return write(record, dtype)
shards.record_to_row = slow
loading.load_ecg_dataset("ptb_xl", sys.argv[1], cache_dir=sys.argv[2], sampling_rate=100)
"""


def test_a_killed_build_is_never_taken_for_a_data_set(folder, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    assert process.stdout.readline() == "half way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (left,) = (tmp_path / "cache").glob("*/*.building-*")
    start = time.monotonic()
    dataset, _ = load(folder, tmp_path)
    assert len(dataset) == 2 and not left.exists() and time.monotonic() - start < 10  # nor does its lock remain


def test_esi_csv_by_name(tmp_path):
    prompts = [f"ECG Findings: finding {index}." for index in range(3)]
    table = "save_index,prompt\n" + "".join(f"{index},{prompt}\n" for index, prompt in enumerate(prompts))
    (tmp_path / "meta.csv").write_text(table)
    arrays = {index: np.random.default_rng(index).normal(size=(37, 12)).astype(np.float32) for index in range(3)}
    arrays[1][:] = np.nan
    arrays[2][3, 4] = np.inf
    for index, array in arrays.items():
        np.save(tmp_path / f"ecg_{index}.npy", array)
    dataset, report = load_ecg_dataset_with_report("esi_csv", tmp_path, split=None, cache_dir=tmp_path / "cache")
    assert dataset["text"] == prompts[:1] and dataset.features["signal"].feature.dtype == "float32"
    np.testing.assert_array_equal(row_to_record(dataset[0]).signal, arrays[0].T)
    assert [r.reason for r in report.rejected] == [
        "every lead is flat or missing (NaN)",
        "infinite values in the signal",
    ]
    assert not report.text_is_label_supervised and dataset.split is None


def test_synthetic_by_name(tmp_path):
    options = {"cache_dir": tmp_path, "num_records": 5, "sampling_rate": 100}
    dataset, report = load_ecg_dataset_with_report("synthetic", split="test", text="statements", **options)
    assert len(dataset) == 5 and report.text_is_label_supervised and report.num_read == 5
    assert set(dataset[0]["labels"]) <= set(label_names("synthetic")) == set(label_prompts("synthetic"))
    other, _ = load_ecg_dataset_with_report("synthetic", split="test", text="statements", seed=1, **options)
    assert other[0]["signal"] != dataset[0]["signal"]
    assert len(load_ecg_dataset_with_report("synthetic", split=None, **options)[0]) == 15


def test_names_and_options_that_do_not_exist(folder, tmp_path):
    for arguments, message in (
        ({"name": "mimic"}, "expected one of code15, cpsc2018, .*, ptb_xl, synthetic"),
        ({"split": "dev"}, "train, validation, test"),
        ({"text": "labels"}, "report_else_statements"),
        ({"limit": 0}, "at least 1"),
        ({"sampling_rte": 100}, "expected options among.*sampling_rate"),
        ({"data_dir": None}, "data_dir"),
    ):
        arguments = {"name": "ptb_xl", "data_dir": folder, "cache_dir": tmp_path / "c"} | arguments
        with pytest.raises(ValueError, match=message):
            load_ecg_dataset(**arguments)


def test_examples_and_summary():
    import doctest

    assert doctest.testmod(load_report_module).failed == 0
    report = LoadReport("x", None)
    for index in range(7):
        report.look_at(f"/folder/{index}.hea")
        report.reject(str(index), f"/folder/{index}.hea: announces {index} samples")
    assert report.summary() == [
        "x/all: 7 records read, 0 kept, 7 rejected",
        "rejected 7, such as 0 (/folder/0.hea): /folder/0.hea: announces 0 samples",
    ]


def test_the_package_imports_neither_torch_nor_the_model():
    code = (
        "import sys, datasets_scripts, datasets_scripts.ptb_xl, datasets_scripts.esi_csv, datasets_scripts.synthetic\n"
    )
    code += "print([name for name in ('torch', 'modeling_esi', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="the folder ../shared/data/ptbxl is absent")
def test_real_records_at_both_rates(tmp_path):
    counts = {}
    for rate in (100, 500):
        dataset, report = load_ecg_dataset_with_report(
            "ptb_xl", SHARED / "ptbxl", "test", cache_dir=tmp_path, sampling_rate=rate
        )
        counts[rate] = len(dataset)
        assert set(dataset["num_samples"]) == {10 * rate} and report.num_read == 39
    assert counts == {100: 39, 500: 39}
    dataset, report = load_ecg_dataset_with_report(
        "ptb_xl", SHARED / "ptbxl_filtered", None, text="report", cache_dir=tmp_path, sampling_rate=100
    )
    assert (len(dataset), report.num_empty_text, report.num_read) == (714, 728, 1442)
