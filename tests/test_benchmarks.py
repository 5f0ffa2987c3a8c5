"""Benchmarks of encoders and of the training step: what is counted, by hand; and that what differs is refused."""

import json
import math

import pytest
import torch
from tiny_esi import tiny_batch, tiny_esi
from torch import nn

from modeling_esi import ESIEcgConfig
from modeling_esi.benchmarks import comparison, encoder, loading, machine, preparing, scale, scaling, step
from modeling_esi.benchmarks.__main__ import main
from modeling_esi.benchmarks.baseline import Baseline
from modeling_esi.benchmarks.comparison import Arm, Seconds, Trained, beside_the_baseline, figures, seconds_in_turn

CPU = torch.device("cpu")
TINY = {"num_samples": 341, "dtypes": ("float32", "bf16"), "num_threads": 1, "rounds": 1, "matrix_size": 31}
TINY_FLAGS = ["--num_samples", "341", "--num_threads", "1", "--rounds", "1", "--matrix_size", "31"]
TINY_STEP = TINY | {"size": "demo", "batch_size": 3, "min_tokens": 5, "max_tokens": 13}


@pytest.fixture
def calm(monkeypatch):
    """Calls measured once, and in this process, whose threads stay as they are."""
    monkeypatch.setattr(comparison, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


# ----- the machine ---------------------------------------------------------------------------------------------------


def test_the_peak_counts_what_is_held_at_once_and_nothing_from_before():
    kept = [torch.empty(999_999)]

    def call():
        first, second = torch.empty(1000), torch.empty(500)
        del first
        kept.append(torch.empty(300))
        return second

    for _ in range(2):  # what the first call left behind is not the second one's
        assert machine.allocated_peak(call, CPU) == 4 * 1500
    assert machine.allocated_peak(kept.clear, CPU) == 0


def test_the_matrix_rate_is_the_best_products(monkeypatch):
    clock = iter([0.0, 4.0, 10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    assert machine.matrix_rate(torch.float32, CPU, size=10, num_products=3) == 2 * 10**3 / 0.5


def test_the_machine_is_described(monkeypatch):
    told = machine.describe("cpu", num_threads=3)
    assert told["num_threads"] == 3 and told["torch"] == torch.__version__ and told["cpu"] and "gpu" not in told
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.driver_version() == "unknown"
    gpu = told | {"gpu": "H100", "driver": "570.1", "cuda": "12.8"}
    assert comparison.machine_line(gpu).startswith("H100 (driver 570.1, CUDA 12.8), ")


# ----- comparison ----------------------------------------------------------------------------------------------------


def test_figures_by_hand():
    seconds = [Seconds(clock, cpu) for clock, cpu in ((4.0, 1.5), (1.0, 3.0), (2.0, 3.5))]
    row = figures(Arm("modeling_esi", "bf16"), seconds, batch_size=6, flops=8e12, rate=16e12)
    assert row["seconds"] == 2 and row["cpu_seconds"] == 3 and row["per_second"] == 3 and row["tflops"] == 4
    assert row["share_of_matrix_rate"] == 0.25 and row["seconds_by_round"] == [4.0, 1.0, 2.0]


def test_ratios_are_to_the_baseline_that_is_not_compiled():
    def row(implementation, dtype, seconds, activations, compiled=False):
        of = {"implementation": implementation, "dtype": dtype, "compiled": compiled}
        return of | {"seconds": seconds, "activation_bytes": activations}

    rows = beside_the_baseline([
        row("baseline", "float32", 10.0, 800),
        row("modeling_esi", "float32", 6.0, 200),
        row("baseline", "bf16", 5.0, 400),
        row("modeling_esi", "bf16", 4.0, 300),
        row("baseline", "bf16", 1.0, 1, compiled=True),
        row("modeling_esi", "fp16", 2.0, 100),
    ])  # fmt: skip
    names = ("time_ratio", "float32_time_ratio", "activation_ratio")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1, 1, 1), (0.6, 0.6, 0.25), (1, 0.5, 1), (0.8, 0.4, 0.75), (0.2, 0.1, 0.0025), (None, 0.2, None),
    ]  # fmt: skip


def test_a_machine_that_is_not_calm_is_told():
    rows = [{"seconds": 2.0, "cpu_seconds": 2.0}, {"seconds": 4.0, "cpu_seconds": 1.0}]
    (line,) = comparison.disturbance(rows, "cpu")
    assert line.startswith("NOT CALM: an arm had 25% of one core's time.")
    assert not list(comparison.disturbance(rows[:1], "cpu")) and not list(comparison.disturbance(rows, "cuda"))


def test_arms_are_called_in_turn_once_more_than_they_are_measured(monkeypatch):
    monkeypatch.setattr(comparison, "MIN_SECONDS", 0.0)
    called = []
    arms = {Arm(name, "float32"): lambda name=name: called.append(name) for name in "AB"}
    seconds = seconds_in_turn(arms, 3, CPU)
    assert called == list("ABABABAB")
    assert [len(of_arm) for of_arm in seconds.values()] == [3, 3]


def test_a_quick_call_is_repeated_and_its_mean_taken(monkeypatch):
    clock, cpu_clock = iter([0.0, 0.07, 0.14, 0.21, 0.24]), iter([5.0, 5.3])
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(comparison.time, "process_time", lambda: next(cpu_clock))
    called = []
    assert comparison._mean_seconds(lambda: called.append(1), CPU) == pytest.approx((0.08, 0.1))
    assert len(called) == 3


@pytest.mark.parametrize("keep", [False, True])
def test_a_step_trains_and_holds_weights_gradients_and_moments(keep):
    model, signals = nn.Linear(3, 2), torch.randn(5, 3)
    before = model.weight.clone()
    trained = Trained.all_of({"one": model})["one"]
    for _ in range(2):
        trained.step(lambda: model(signals).square().mean(), "float32", keep)
    expected = model.weight.grad.clone()
    model.zero_grad()
    assert not torch.equal(model.weight, before)
    trained.step(lambda: model(signals).square().mean(), "float32", keep)
    assert (model.weight.grad - expected).abs().max() < 1e-2  # a step's gradient, not the sum of all
    assert trained.held_bytes() == 4 * 8 * 4 + 2 * 4  # eight weights, four times; a step counter for each tensor


def test_implementations_share_weights_gradients_and_optimizer():
    model = tiny_esi("released")
    baseline, copied = Baseline(model.config), comparison.copy_with_shared_weights(model)
    comparison.share_weights(model, baseline)
    trained = Trained.all_of({"baseline": baseline, "copied": copied, "modeling_esi": model})
    parameters = dict(model.named_parameters())
    for one in trained.values():
        assert all(parameter is parameters[name] for name, parameter in one.model.named_parameters())
        assert one.optimizer is trained["baseline"].optimizer
    assert copied.ecg_model is not model.ecg_model


def test_nothing_of_a_fresh_model_stays_zero():
    model = comparison.enliven(nn.LayerNorm(7))
    assert torch.equal(model.weight, torch.ones(7)) and model.bias.all()


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (encoder.EncoderSettings, {"dtypes": ("float64",)}, r"dtypes: expected names of float32.*got 'float64'"),
        (encoder.EncoderSettings, {"rounds": 0}, r"rounds: expected at least 1, got 0"),
        (step.StepSettings, {"size": "huge"}, r"size: expected one of base, demo, got 'huge'"),
        (step.StepSettings, {"max_tokens": 700}, r"<= max_tokens <= 512.*got 100 and 700"),
        (step.StepSettings, {"dtypes": ("fp16",)}, r"fp16 needs a scaled loss"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)


# ----- encoder -------------------------------------------------------------------------------------------------------


def test_an_encoders_operations_are_those_of_the_arithmetic():
    counted = encoder.forward_flops(ESIEcgConfig(signal_encoder="convnextv2_atto"), 5000)
    config = scaling.model_config("convnextv2_atto")
    expected = scaling.encoder_flops(config, 5000) + scaling.encoder_batch_flops(config)
    assert counted == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("preset", "batch_sizes", "dtypes", "names"),
    [
        ("convnextv2_atto", (3,), ("float32", "bf16", "fp16"), ("baseline", "modeling_esi")),
        ("xresnet1d101", (1, 3), ("bf16",), ("modeling_esi",)),  # which has no baseline
    ],
)
def test_every_mode_and_type_of_an_encoder_is_measured(calm, preset, batch_sizes, dtypes, names):
    told = encoder.measure(TINY | {"preset": preset, "batch_sizes": batch_sizes, "dtypes": dtypes})
    expected = [
        (mode, batch_size, dtype, name)
        for mode in encoder.MODES
        for batch_size in batch_sizes
        for dtype in dtypes
        if (mode, dtype) != ("training", "fp16")
        for name in names
    ]
    assert [(r["mode"], r["batch_size"], r["dtype"], r["implementation"]) for r in told["rows"]] == expected
    assert all(row["per_second"] > 0 and row["activation_bytes"] > 0 for row in told["rows"])
    training, inference = (
        next(r for r in told["rows"] if (r["mode"], r["implementation"]) == (mode, "modeling_esi"))
        for mode in ("training", "inference")
    )
    assert training["tflops"] * training["seconds"] == pytest.approx(3 * inference["tflops"] * inference["seconds"])
    assert training["peak_bytes"] > inference["peak_bytes"]
    assert len(encoder.table_row(training)) == len(encoder.HEAD)


def test_encoders_that_compute_something_else_are_refused():
    config = ESIEcgConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 37])
    models = encoder.build(config, encoder.EncoderSettings(**TINY), CPU)
    signals = torch.randn(2, 12, 341)
    encoder.check_outputs(*models.values(), signals)
    models["baseline", False].stages[2][0].grn.gamma = nn.Parameter(torch.ones(4 * 24))
    with pytest.raises(RuntimeError, match="outputs of model and baseline: expected a difference of at most 0.0001"):
        encoder.check_outputs(*models.values(), signals)


# ----- step ----------------------------------------------------------------------------------------------------------


def test_texts_have_uniform_lengths_and_no_padding_inside():
    settings = step.StepSettings(**TINY_STEP | {"batch_size": 2000})
    batch = step.draw_batch(step.model_config(settings), settings)
    lengths = batch["attention_mask"].sum(dim=1)
    assert lengths.min() == 5 and lengths.max() == 13 and lengths.double().mean() == pytest.approx(9, abs=0.2)
    assert torch.equal(batch["input_ids"] != 0, batch["attention_mask"].bool())
    assert batch["attention_mask"].diff(dim=1).max() == 0  # padding last
    again = step.draw_batch(step.model_config(settings), settings)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_the_base_size_is_the_papers():
    config = step.model_config(step.StepSettings())
    assert config.variant == "released" and config.ecg_config.signal_encoder == "convnextv2_base"
    assert (config.text_config.vocab_size, config.text_config.hidden_size, config.hidden_size) == (28895, 768, 768)
    assert config.decoder_config.num_hidden_layers == 6 and config.text_config.hidden_dropout_prob == 0


def test_a_steps_operations_are_those_of_the_arithmetic():
    config = scaling.model_config("convnextv2_atto")
    told = scaling.forward_flops(config, 1000, 57)
    assert step.forward_flops(config, 1000, 57) == pytest.approx(sum(told.values()), rel=0.01)


@pytest.mark.parametrize("variant", ["released", "esi"])
def test_every_type_of_a_step_is_measured(calm, variant):
    told = step.measure(TINY_STEP | {"variant": variant})
    names = ("baseline", "modeling_esi") if variant == "released" else ("modeling_esi",)
    expected = [(dtype, name) for dtype in ("float32", "bf16") for name in names]
    for rows in (told["rows"], told["losses"]):
        assert [(row["dtype"], row["implementation"]) for row in rows] == expected
    for of in told["losses"]:
        assert of["loss"] == pytest.approx(of["contrastive_loss"] + of["caption_loss"], abs=1e-4)
    assert told["losses"][0]["caption_loss"] == pytest.approx(math.log(1000), abs=1.5)
    weights = 4 * told["num_parameters"]
    for row in told["rows"]:
        assert 3.9 * weights < row["peak_bytes"] - row["activation_bytes"] < 4.1 * weights
        assert row["tflops"] * row["seconds"] == pytest.approx(told["flops"] / 1e12)
        assert len(step.table_row(row)) == len(step.HEAD)
    assert len(told["num_tokens"]) == 3 and json.dumps(told)


def test_the_baseline_leaves_a_shared_configuration_alone():
    model = tiny_esi("released")
    Baseline(model.config)
    assert model.config.text_config._attn_implementation == "sdpa"
    losses = step.compute_losses(model, tiny_batch())
    assert len(losses) == 3


@pytest.mark.parametrize("wrong", [2.0002, math.nan])
def test_losses_that_differ_are_refused(wrong):
    def of(implementation, dtype, caption):
        losses = {"loss": 1.0, "contrastive_loss": 0.0, "caption_loss": caption}
        return {"implementation": implementation, "dtype": dtype} | losses

    fine = [of("baseline", "float32", 2.0), of("modeling_esi", "float32", 2.00005), of("modeling_esi", "bf16", 2.1)]
    step.check_losses(fine)
    with pytest.raises(RuntimeError, match="caption_loss in float32: expected a difference of at most 0.0001"):
        step.check_losses([fine[0], of("modeling_esi", "float32", wrong)])


# ----- the command line ----------------------------------------------------------------------------------------------


def test_a_step_by_one_command(capsys, tmp_path):
    """In a process of its own, as it is used."""
    path, flags = tmp_path / "figures.json", ["--size", "demo", "--min_tokens", "5", "--max_tokens", "13"]
    assert main(["step", *flags, *TINY_FLAGS, "--dtypes", "float32", "--json", str(path)]) == 0
    told, tables = json.loads(path.read_text()), table_lines(capsys.readouterr().out)
    assert told["benchmark"] == "step" and told["machine"]["num_threads"] == 1
    assert [row["implementation"] for row in told["rows"]] == ["baseline", "modeling_esi"]
    for line, row in zip(tables[-2:], told["rows"], strict=True):
        assert line.startswith(f"| float32 | {row['implementation']} | {row['seconds']:.3f} |")
    assert f"{told['losses'][1]['caption_loss']:.6f}" in tables[3]


def test_encoders_by_one_command(calm, monkeypatch, capsys, tmp_path):
    path, presets = tmp_path / "figures.json", ["convnextv2_atto", "xresnet1d101"]
    monkeypatch.setattr(encoder, "measured", lambda module, function, settings: encoder.measure(settings))
    flags = ["--presets", *presets, "--modes", "inference", "--dtypes", "float32", "--batch_sizes", "2"]
    assert main(["encoder", *flags, *TINY_FLAGS, "--json", str(path)]) == 0
    told, tables = json.loads(path.read_text()), table_lines(capsys.readouterr().out)
    assert list(told["encoders"]) == presets and told["machine"]["device"] == "cpu"
    assert [line.split(" | ")[0] for line in tables[2:]] == [f"| {presets[0]}", f"| {presets[0]}", f"| {presets[1]}"]
    assert tables[-1].endswith("| - | - |")


def table_lines(printed):
    return [line for line in printed.splitlines() if line.startswith("|")]


def test_records_benchmarks_return_what_they_print(monkeypatch, tmp_path):
    numbers = {"records_per_second": 7.0, "megabytes_per_record": 0.5, "opening": 0.25, "grown": 3.0}
    for module in (preparing, loading, scale):
        monkeypatch.setattr(module, "measured", lambda *arguments: numbers)
    assert figures_of(preparing.run(3, str(tmp_path / "a")))["records_per_second"]["prepare_2"] == 7
    assert figures_of(loading.run(64, str(tmp_path / "b")))["records_per_second"]["memmap"] == 7
    rows = figures_of(scale.run(1000, str(tmp_path / "c")))["rows"]
    assert rows[0]["num_records"] == 1000 and rows[0]["grown"] == 3


def figures_of(lines):
    while True:
        try:
            next(lines)
        except StopIteration as end:
            return end.value


def test_the_arithmetic_is_listed_too(capsys):
    assert main(["scaling"]) == 0
    assert "\n".join(scaling.run()) in capsys.readouterr().out


def test_a_wrong_flag_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["step", "--min_tokens", "90", "--max_tokens", "80"])
    assert ended.value.code == 2 and "expected 3 <= min_tokens <= max_tokens <= 512" in capsys.readouterr().err
