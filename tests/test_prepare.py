"""Preparing: nothing is lost, nothing is done twice, and a kill at any moment changes nothing."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datasets_scripts import ptb_xl
from datasets_scripts.load_report import LoadReport
from datasets_scripts.loading import NoRecordsError, load_ecg_dataset_with_report, open_prepared
from datasets_scripts.preparation.prepare import SETTINGS_FILE, Settings, prepare_dataset, read_manifest, read_report
from datasets_scripts.records import row_to_record
from datasets_scripts.sources import iter_records

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT / "shared") / "data"

SCP = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
SR,sinus rhythm,,,1.0,,
"""
HEAD = "ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr\n"
CODES = "\"{'NORM': 100.0, 'SR': 0.0}\""
LEADS = ["I", "II", "III"]


def write(folder, name, samples):
    wfdb.wrsamp(
        name, fs=100, units=["mV"] * 3, sig_name=LEADS, d_signal=samples, fmt=["16"] * 3, adc_gain=[1000.0] * 3,
        baseline=[3] * 3, write_dir=str(folder),
    )  # fmt: skip


def einthoven(seed, num_samples=137):
    first, second = np.random.default_rng(seed).integers(-900, 900, size=(2, num_samples))
    return np.stack([first, second, second - first + 3], axis=1)


@pytest.fixture
def folder(tmp_path):
    """Fourteen records: 1-8 train (4 absent, 5 cut short, 6 flat, 7 = 1), 9-11 validation, 12-14 test (14 = 1)."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "scp_statements.csv").write_text(SCP)
    folds = {**dict.fromkeys(range(1, 9), 1), **dict.fromkeys(range(9, 12), 9), **dict.fromkeys(range(12, 15), 10)}
    rows = [f"{i},{i // 2}.0,50,0,befund {i},{CODES},{fold},{i},\n" for i, fold in folds.items()]
    (data / "ptbxl_database.csv").write_text(HEAD + "".join(rows))
    for i in folds:
        if i != 4:
            write(data, str(i), np.full((137, 3), 11) if i == 6 else einthoven(1 if i in (7, 14) else i))
    cut = data / "5.dat"
    cut.write_bytes(cut.read_bytes()[:-100])
    return data


def settings_for(folder, **changes):
    return Settings("ptb_xl", str(folder), **{"options": {"sampling_rate": 100}, "records_per_shard": 3} | changes)


def content(folder):
    """Everything in a prepared folder, times apart."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    for name in ("manifest.json", "report.json"):
        values = json.loads((folder / name).read_text())
        files[name] = {key: value for key, value in values.items() if key not in ("seconds", "finished")}
    return files


def test_every_record_is_in_the_data_set_or_in_the_report(folder, tmp_path):
    report = prepare_dataset(settings_for(folder), tmp_path / "out")
    train = report.splits["train"]
    assert (train.num_read, train.num_kept, len(train.rejected)) == (8, 5, 3)
    reasons = {rejection.record_id: rejection.reason for rejection in train.rejected}
    assert "no such file" in reasons["4"] and "cut short" in reasons["5"] and "flat" in reasons["6"]
    assert all(Path(rejection.path).parent == folder for rejection in train.rejected)
    assert report.duplicates == [["train/1", "train/7", "test/14"]]
    assert report.duplicates_across_splits() == report.duplicates
    assert report.num_patients == {"train": 4, "validation": 2, "test": 2}
    assert report.patients_in_several_splits == ["4"]  # records 8 and 9
    assert read_report(tmp_path / "out") == report
    assert report.lead_statistics["I"]["records"] == 11 and report.lead_statistics["V1"]["missing"] == 11
    text = "\n".join(report.summary())
    for said in ("8 records read, 5 kept, 3 rejected", "more than one split: 4", "train/1 = train/7", "over several"):
        assert said in text


def test_rows_are_the_records_in_the_sources_order(folder, tmp_path):
    prepare_dataset(settings_for(folder), tmp_path / "out")
    for split in ("train", "validation", "test"):
        report = LoadReport("ptb_xl", split)
        records = [record for record in iter_records(ptb_xl, folder, split, report=report, sampling_rate=100)
                   if record.record_id != "6"]  # fmt: skip
        rows, _ = open_prepared(tmp_path / "out", split)
        assert rows["record_id"] == [record.record_id for record in records]
        for row, record in zip(rows, records, strict=True):
            assert row_to_record(row).signal.tobytes() == record.signal.tobytes()
            assert row["text"] == record.report and row["patient_id"] == record.patient_id
    everything, _ = open_prepared(tmp_path / "out", None)
    assert everything["record_id"] == ["1", "2", "3", "7", "8", "9", "10", "11", "12", "13", "14"]


def test_the_manifest_names_every_shard_with_its_digest(folder, tmp_path):
    prepare_dataset(settings_for(folder), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert [(part["file"], part["num_rows"]) for part in manifest["shards"]] == [
        ("train-00000.arrow", 3), ("train-00001.arrow", 0), ("train-00002.arrow", 2), ("validation-00000.arrow", 3),
        ("test-00000.arrow", 3),
    ]  # fmt: skip
    for part in manifest["shards"]:
        assert hashlib.sha256((tmp_path / "out" / part["file"]).read_bytes()).hexdigest() == part["sha256"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".arrow") == [
        "README.md", "manifest.json", "report.json",
    ]  # fmt: skip


def test_several_workers_give_the_same_bytes_as_one(folder, tmp_path):
    prepare_dataset(settings_for(folder), tmp_path / "one")
    prepare_dataset(settings_for(folder), tmp_path / "two", num_workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_finished_shards_are_not_done_again(folder, tmp_path, monkeypatch):
    """Killed before the end: the parts that are there are kept, the others are built, the result is the same."""
    prepare_dataset(settings_for(folder), tmp_path / "undisturbed")
    import datasets_scripts.preparation.prepare as prepare

    built = []
    build = prepare.build_shard

    def build_two(job):
        if len(built) == 2:
            raise KeyboardInterrupt
        built.append(job.file)
        build(job)

    monkeypatch.setattr(prepare, "build_shard", build_two)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(settings_for(folder), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="not finished: run it again"):
        open_prepared(tmp_path / "out")
    monkeypatch.setattr(prepare, "build_shard", lambda job: (built.append(job.file), build(job)))
    prepare_dataset(settings_for(folder), tmp_path / "out")
    assert sorted(built) == [
        "test-00000.arrow", "train-00000.arrow", "train-00001.arrow", "train-00002.arrow", "validation-00000.arrow"
    ]  # fmt: skip
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_a_kill_before_the_settings_stood_leaves_a_folder_to_go_on_with(folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / f"{SETTINGS_FILE}.building-4711").write_text('{"settings": {"na')
    prepare_dataset(settings_for(folder), output)
    prepare_dataset(settings_for(folder), tmp_path / "undisturbed")
    assert content(output) == content(tmp_path / "undisturbed")


def test_a_shard_of_other_entries_is_built_again(folder, tmp_path, monkeypatch):
    import datasets_scripts.preparation.prepare as prepare

    finish = prepare._finish
    monkeypatch.setattr(prepare, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(settings_for(folder), tmp_path / "out")
    monkeypatch.setattr(prepare, "_finish", finish)
    table = folder / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("befund 2", "another report").rpartition("13,6.0")[0])
    prepare_dataset(settings_for(folder), tmp_path / "out")
    prepare_dataset(settings_for(folder), tmp_path / "undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    assert open_prepared(tmp_path / "out")[0]["report"][1] == "another report"


def test_a_finished_folder_is_left_as_it_is_and_others_are_refused(folder, tmp_path):
    report = prepare_dataset(settings_for(folder), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare_dataset(settings_for(folder), tmp_path / "out") == report
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ValueError, match="text: 'report_else_statements' there, 'statements' now"):
        prepare_dataset(settings_for(folder, text="statements"), tmp_path / "out")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        prepare_dataset(settings_for(folder), folder)


def test_limit_text_splits_and_waveforms(folder, tmp_path):
    prepare_dataset(settings_for(folder, limit=4, splits=("train",), text="statements"), tmp_path / "out")
    rows, report = open_prepared(tmp_path / "out")
    assert rows["record_id"] == ["1", "2", "3", "7"] and report.num_kept == 4
    assert report.text_is_label_supervised
    with pytest.raises(ValueError, match="expected one of the splits train, got 'test'"):
        open_prepared(tmp_path / "out", "test")
    waveforms = {"sinus rhythm": "A P wave before every QRS."}
    prepare_dataset(settings_for(folder, text="statements", waveforms=waveforms), tmp_path / "described")
    text = open_prepared(tmp_path / "described")[0]["text"][0]
    assert text.splitlines()[1:] == ["Potential ECG waveforms:", "A P wave before every QRS."]


def test_a_reader_that_fails_does_not_end_the_work(folder, tmp_path, monkeypatch):
    read = ptb_xl.read_entry

    def read_or_fail(entry, **options):
        if entry.record_id == "2":
            raise ZeroDivisionError("a defect")
        return read(entry, **options)

    monkeypatch.setattr(ptb_xl, "read_entry", read_or_fail)
    report = prepare_dataset(settings_for(folder), tmp_path / "out").splits["train"]
    reasons = {rejection.record_id: rejection.reason for rejection in report.rejected}
    assert "its reader failed with ZeroDivisionError: a defect; please report this" in reasons["2"]
    assert (report.num_read, report.num_kept) == (8, 4)


def test_no_record_at_all_is_told_with_reasons(folder, tmp_path):
    for path in folder.glob("*.dat"):
        path.unlink()
    report = prepare_dataset(settings_for(folder), tmp_path / "out")
    assert report.num_kept == 0 and len(report.splits["train"].rejected) == 8
    with pytest.raises(NoRecordsError, match="got none of 8; first reasons: 1: .*no such file"):
        open_prepared(tmp_path / "out")


def test_loading_a_prepared_folder_by_its_path(folder, tmp_path):
    prepare_dataset(settings_for(folder), tmp_path / "out")
    rows, _ = load_ecg_dataset_with_report(tmp_path / "out", split="train", limit=2)
    assert rows["record_id"] == ["1", "2"]
    with pytest.raises(ValueError, match="was prepared with text='report_else_statements', got text='report'"):
        load_ecg_dataset_with_report(tmp_path / "out", text="report")
    with pytest.raises(ValueError, match="is prepared already, so data_dir, task cannot change it"):
        load_ecg_dataset_with_report(tmp_path / "out", folder, task="all")
    with pytest.raises(FileNotFoundError, match="prepare it first"):
        load_ecg_dataset_with_report(tmp_path / "nothing")


def test_shards_of_different_shapes_become_one_column(folder, tmp_path):
    write(folder, "2", einthoven(2, 200))
    prepare_dataset(settings_for(folder), tmp_path / "out")
    assert {tuple(part["layout"]) for part in read_manifest(tmp_path / "out")["shards"]} == {("int16", None)}
    rows, _ = open_prepared(tmp_path / "out")
    assert rows["num_samples"] == [137, 200, 137, 137, 137]
    assert row_to_record(rows[1]).signal.shape == (3, 200)
    write(folder, "2", einthoven(2))
    prepare_dataset(settings_for(folder), tmp_path / "alike")  # with an empty shard among them
    assert {tuple(part["layout"]) for part in read_manifest(tmp_path / "alike")["shards"]} == {("int16", 411)}


# ----- the command line, and kills -----------------------------------------------------------------------------------


def command(output, *flags):
    return [
        sys.executable, "-m", "datasets_scripts", "prepare", "--source", "synthetic", "--output", str(output),
        "--num_records", "240", "--sampling_rate", "100", "--records_per_shard", "20", "--num_workers", "2", *flags,
    ]  # fmt: skip


def test_the_command_line_prepares_and_reports(folder, tmp_path):
    base = [sys.executable, "-m", "datasets_scripts"]
    flags = ["--source", "ptb_xl", "--data_dir", str(folder), "--sampling_rate", "100", "--num_workers", "1"]
    run = subprocess.run([*base, "prepare", *flags, "--output", str(tmp_path / "out")], cwd=ROOT, text=True,
                         capture_output=True)  # fmt: skip
    assert run.returncode == 0 and "8 records read, 5 kept, 3 rejected" in run.stdout, run.stderr
    again = subprocess.run([*base, "report", str(tmp_path / "out")], cwd=ROOT, text=True, capture_output=True)
    assert again.stdout in run.stdout
    wrong = subprocess.run([*base, "prepare", "--source", "ptb_xl", "--data_dir", str(tmp_path), "--output",
                            str(tmp_path / "x")], cwd=ROOT, text=True, capture_output=True)  # fmt: skip
    assert wrong.returncode == 1 and len(wrong.stderr.strip().splitlines()[-1:]) == 1
    assert "no such file" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_worker_does_not_outlive_a_killed_parent(tmp_path):
    run = subprocess.Popen(command(tmp_path / "out", "--num_records", "4000"), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not list(tmp_path.glob("out/parts/*.json")) and time.time() < deadline:
        time.sleep(0.05)
    workers = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    run.kill()
    run.wait()
    assert workers
    deadline = time.time() + 20
    while any(alive(pid) for pid in workers) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path):
    started = time.time()
    subprocess.run(command(tmp_path / "undisturbed"), cwd=ROOT, check=True, capture_output=True)
    lasted = time.time() - started
    chance = random.Random(0)
    kills = finished = 0
    while kills < 20:
        output = tmp_path / f"killed-{finished}"
        while not (output / "manifest.json").exists() and kills < 20:
            run = subprocess.Popen(command(output), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                run.wait(chance.uniform(0.3, 1.0) * lasted)
            except subprocess.TimeoutExpired:
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
                kills += 1
        subprocess.run(command(output), cwd=ROOT, check=True, capture_output=True)
        assert content(output) == content(tmp_path / "undisturbed")
        finished += 1


@pytest.mark.skipif(not (SHARED / "ptbxl").is_dir(), reason="the folder with real ECGs is not beside the checkout")
def test_the_real_ptb_xl_records(tmp_path):
    report = prepare_dataset(Settings("ptb_xl", str(SHARED / "ptbxl")), tmp_path / "out")
    assert {split: load.num_kept for split, load in report.splits.items()} == {
        "train": 169, "validation": 52, "test": 39
    }  # fmt: skip
    assert not report.patients_in_several_splits and not report.duplicates_across_splits()
