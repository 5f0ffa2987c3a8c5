"""Every figure is logged once for its step, also where a killed run did its last steps again."""

import json

import pytest
from accelerate import Accelerator

from modeling_esi.training.training_log import TrainingLog

SETTINGS = {"lr": 0.1, "dataset_options": {"sampling_rate": 100}}


def open_log(folder, step=0, settings=SETTINGS, asked="auto", report_to="none"):
    accelerator = Accelerator(cpu=True, log_with=None if report_to == "none" else report_to, project_dir=folder)
    flags = {
        "output_dir": str(folder),
        "resume_from_checkpoint": asked,
        "report_to": report_to,
        "lr": 0.1,
        "text": None,
    }
    return TrainingLog(accelerator, flags, settings, step), accelerator


def write(log, steps, kind="train", value=1.0):
    for step in steps:
        log.write(kind, step, {f"{kind}/loss": value * step})


def logged(folder):
    head, *lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return head, [(line["kind"], line["step"], line["values"][f"{line['kind']}/loss"]) for line in lines]


def test_a_resumed_run_logs_no_step_twice(tmp_path):
    log, _ = open_log(tmp_path)
    write(log, [10, 20, 30])
    log.write("validation", 20, {"validation/loss": 0.5})
    head, before = logged(tmp_path)
    log, _ = open_log(tmp_path, step=15)  # the last checkpoint was at 15
    write(log, [20, 30, 40])
    log.write("validation", 20, {"validation/loss": 0.5})
    assert logged(tmp_path) == (head, [*before, ("train", 40, 40.0)])


def test_a_line_that_was_half_written_is_written_again(tmp_path):
    log, _ = open_log(tmp_path)
    write(log, [10, 20])
    path = tmp_path / "run" / "log.jsonl"
    path.write_text(path.read_text()[:-9])
    log, _ = open_log(tmp_path, step=5)
    write(log, [10, 20])
    assert logged(tmp_path)[1] == [("train", 10, 10.0), ("train", 20, 20.0)]


def test_other_settings_go_on_from_the_checkpoint_alone(tmp_path):
    log, _ = open_log(tmp_path)
    write(log, [10, 20, 30])
    log, _ = open_log(tmp_path, step=15, settings={"lr": 0.2}, asked="latest")
    write(log, [20], value=7.0)
    head, lines = logged(tmp_path)
    assert lines == [("train", 10, 10.0), ("train", 20, 140.0)] and head["settings"] == {"lr": 0.2}


def test_a_run_that_begins_anew_forgets(tmp_path):
    log, _ = open_log(tmp_path)
    write(log, [10])
    first = logged(tmp_path)[0]["run_id"]
    log, _ = open_log(tmp_path, asked="none")
    assert logged(tmp_path)[1] == [] and logged(tmp_path)[0]["run_id"] != first


def test_tensorboard_shows_each_step_once(tmp_path):
    """Three parts of one run, the second of which did steps 20 and 30 again; then others of other settings."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step, steps, lr in ((0, [10, 20, 30], 0.1), (15, [20, 30, 40], 0.1), (35, [40, 50], 0.2)):
        log, accelerator = open_log(tmp_path, step, {"lr": lr}, "latest", "tensorboard")
        write(log, steps, value=lr)
        accelerator.end_training()
    shown = events.EventAccumulator(str(tmp_path / "esi-ecg")).Reload().Scalars("train/loss")
    assert [event.step for event in shown] == [10, 20, 30, 40, 50]
    assert shown[3].value == pytest.approx(8.0)
