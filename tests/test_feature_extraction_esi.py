"""The door: physical facts, hand-made numbers, real files, and the same bits alone and in any batch."""

import doctest
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from transformers import AutoFeatureExtractor

from datasets_scripts.records import ECGRecord
from modeling_esi import feature_extraction_esi
from modeling_esi.configuration_esi import LEADS, ESIConfig
from modeling_esi.feature_extraction_esi import ESIFeatureExtractor, bridge_gaps, fold_sum
from modeling_esi.recordings import read_recordings, stack_recordings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MIMIC_ORDER = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
SLOT = {lead: i for i, lead in enumerate(LEADS)}


def ecg(num_samples: int = 1000, seed: int = 0) -> torch.Tensor:
    """Twelve leads whose limb leads obey Einthoven and Goldberger, about 1 mV."""
    noise = torch.randn(12, num_samples, generator=torch.Generator().manual_seed(seed))
    one, two = noise[0], noise[1]
    return torch.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *noise[6:]])


def door(**options: object) -> ESIFeatureExtractor:
    """A small one: two seconds at 100 Hz, in millivolts."""
    return ESIFeatureExtractor(**({"sampling_rate": 100, "duration": 2.0, "scaling": "none"} | options))


# ----- shape and masks -----------------------------------------------------------------------------------------------


def test_contract() -> None:
    inputs = ESIFeatureExtractor()(ecg(5000), sampling_rate=500, leads=LEADS)
    assert set(inputs) == {"input_values", "lead_mask"}
    assert inputs["input_values"].shape == (1, 12, 5000) and inputs["input_values"].dtype == torch.float32
    assert inputs["lead_mask"].shape == (1, 12) and inputs["lead_mask"].dtype == torch.bool
    assert inputs["lead_mask"].all() and not inputs["input_values"].requires_grad


def test_a_short_record_is_padded_at_the_end_and_masked() -> None:
    signal = ecg(137)
    inputs = door()([signal, ecg(400)], sampling_rate=100, leads=LEADS)
    assert torch.equal(inputs["input_values"][0, :, :137], signal)
    assert not inputs["input_values"][0, :, 137:].any()
    assert inputs["sample_mask"].shape == (2, 200) and inputs["sample_mask"].dtype == torch.bool
    assert inputs["sample_mask"].sum(dim=1).tolist() == [137, 200]
    assert inputs["sample_mask"][0, :137].all()
    alone = door().transform(signal[None], 100, LEADS)
    assert torch.equal(alone["sample_mask"][0], inputs["sample_mask"][0])


@pytest.mark.parametrize("scaling", ["none", "fixed", "record", "lead"])
def test_masked_leads_and_padding_are_exactly_zero(scaling: str) -> None:
    signal = ecg(150)[[0, 7, 9]] + 5.0  # an offset that any scaling of zeros would let through
    inputs = door(scaling=scaling)(signal, 100, ["I", "V2", "V4"])
    present = torch.tensor([lead in ("I", "V2", "V4") for lead in LEADS])
    assert torch.equal(inputs["lead_mask"][0], present)
    values = inputs["input_values"][0]
    assert (values[~present] == 0).all() and (values[:, 150:] == 0).all()
    assert (values[present, :150] != 0).all()


def test_numpy_output() -> None:
    inputs = door()(ecg(), 500, LEADS, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in inputs.values())
    assert inputs["input_values"].dtype == np.float32 and inputs["lead_mask"].dtype == np.bool_
    with pytest.raises(ValueError, match="return_tensors: expected one of pt, np, got 'tf'"):
        door()(ecg(), 500, LEADS, return_tensors="tf")


# ----- leads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["fixed", "record", "lead", "none"])
def test_mimic_and_ptb_xl_orders_of_one_signal_are_identical(scaling: str) -> None:
    signal = ecg()
    ptb_names = [lead.upper() for lead in LEADS]
    as_ptb_xl = door(scaling=scaling)(signal, 250, ptb_names)
    as_mimic = door(scaling=scaling)(signal[[SLOT[lead] for lead in MIMIC_ORDER]], 250, MIMIC_ORDER)
    assert torch.equal(as_ptb_xl["input_values"], as_mimic["input_values"])


def test_the_order_of_the_output_is_an_option() -> None:
    signal = ecg(200)
    released = door(leads=MIMIC_ORDER)
    values = released(signal, 100, LEADS)["input_values"][0]
    assert torch.equal(values, signal[[SLOT[lead] for lead in MIMIC_ORDER]])
    two = released(signal[[0, 1]], 100, ["I", "II"])["input_values"][0]
    torch.testing.assert_close(two[4], signal[SLOT["aVF"]])
    torch.testing.assert_close(two[5], signal[SLOT["aVL"]])


def test_einthoven_and_goldberger_survive_the_door() -> None:
    values = door()(ecg(), 250, LEADS)["input_values"][0].double()
    leads = {lead: values[i] for lead, i in SLOT.items()}
    torch.testing.assert_close(leads["II"], leads["I"] + leads["III"], atol=1e-5, rtol=0)
    assert (leads["aVR"] + leads["aVL"] + leads["aVF"]).abs().max() < 1e-5


@pytest.mark.parametrize("pair", list(itertools.combinations(LEADS[:6], 2)))
def test_any_two_limb_leads_give_the_other_four(pair: tuple[str, str]) -> None:
    signal = ecg(200)
    inputs = door()(signal[[SLOT[lead] for lead in pair]], 100, pair)
    assert inputs["lead_mask"][0].tolist() == [True] * 6 + [False] * 6
    torch.testing.assert_close(inputs["input_values"][0, :6], signal[:6], atol=1e-5, rtol=0)


def test_measured_leads_stay_as_measured_and_only_the_missing_is_derived() -> None:
    signal = ecg(200)
    signal[2] += 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(1))  # III contradicts I and II
    given = [lead for lead in LEADS if lead != "aVR"]
    inputs = door()(signal[[SLOT[lead] for lead in given]], 100, given)
    values = inputs["input_values"][0]
    assert inputs["lead_mask"].all()
    for lead in given:
        assert torch.equal(values[SLOT[lead]], signal[SLOT[lead]])
    design = np.array([[1, 0], [0, 1], [-1, 1], [1, -0.5], [-0.5, 1]])
    fit = np.linalg.lstsq(design, signal[[0, 1, 2, 4, 5]].double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(values[SLOT["aVR"]].numpy(), -(fit[0] + fit[1]) / 2, atol=1e-6)


def test_one_limb_lead_gives_no_other() -> None:
    inputs = door()(ecg(200)[[1, 10]], 100, ["II", "V5"])
    assert [lead for lead, there in zip(LEADS, inputs["lead_mask"][0], strict=True) if there] == ["II", "V5"]


@pytest.mark.parametrize("dead", [0.0, 1.5, float("nan")])
def test_dead_leads_are_derived_or_masked(dead: float) -> None:
    signal = ecg(200)
    broken = signal.clone()
    broken[SLOT["aVL"]] = broken[SLOT["V3"]] = dead
    inputs = door()(broken, 100, LEADS)
    assert inputs["lead_mask"][0].sum() == 11 and not inputs["lead_mask"][0, SLOT["V3"]]
    torch.testing.assert_close(inputs["input_values"][0, SLOT["aVL"]], signal[SLOT["aVL"]], atol=1e-5, rtol=0)
    assert not inputs["input_values"][0, SLOT["V3"]].any()


def test_unknown_channels_are_refused_or_left_out() -> None:
    signal = torch.cat([ecg(200), torch.full((2, 200), float("inf"))])
    assert torch.equal(door()(signal, 100, [*LEADS, "vx", "RESP"])["input_values"][0], signal[:12])
    names = [*LEADS, "vx", "what"]
    with pytest.raises(ValueError, match=r"got 'what' \(unknown\).*ignore_unknown_leads=True"):
        door()(signal, 100, names)
    assert torch.equal(door(ignore_unknown_leads=True)(signal, 100, names)["input_values"][0], signal[:12])


# ----- repair and reject ---------------------------------------------------------------------------------------------


def test_a_gap_is_bridged_by_a_straight_line() -> None:
    nan = float("nan")
    rows = torch.tensor(
        [[1.0, nan, nan, 4.0, 5.0], [nan, 2.0, 3.0, nan, nan], [nan, nan, nan, 1.0, 2.0], [nan] * 5, [1.0, 2, 3, 4, 5]]
    )
    bridged = bridge_gaps(rows, 2)
    assert bridged[0].tolist() == [1, 2, 3, 4, 5]
    assert bridged[1].tolist() == [2, 2, 3, 3, 3]
    assert bridged[2:4].isnan().all()
    assert torch.equal(bridged[4], rows[4])


def test_gaps_up_to_max_gap_are_repaired() -> None:
    signal = ecg(200)
    signal[SLOT["V1"], 50:70] = float("nan")  # 0.2 s at 100 Hz
    signal[SLOT["V2"], 50:71] = float("nan")  # one sample more
    signal[SLOT["aVF"], 100:150] = float("nan")
    inputs = door()(signal, 100, LEADS)
    values, mask = inputs["input_values"][0], inputs["lead_mask"][0]
    assert mask[SLOT["V1"]] and not mask[SLOT["V2"]] and mask[SLOT["aVF"]]
    first, last = signal[SLOT["V1"], 49], signal[SLOT["V1"], 70]
    line = first + (last - first) * torch.arange(1, 21) / 21
    torch.testing.assert_close(values[SLOT["V1"], 50:70], line)
    torch.testing.assert_close(values[SLOT["aVF"]], signal[1] - signal[0] / 2)
    assert values.isfinite().all() and not values[SLOT["V2"]].any()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.fill_(0.0), "all flat"),
        (lambda s: s.copy_(torch.arange(12.0)[:, None].expand(12, 200)), "all flat"),
        (lambda s: s.fill_(float("nan")), "all NaN"),
        (lambda s: s[:, 50:100].fill_(float("nan")), "gaps of NaN longer than max_gap=0.2 s"),
        (lambda s: s[7, 3].fill_(float("inf")), "infinite values in V2"),
        (lambda s: (s[7, 3].fill_(float("-inf")), s[7, 9].fill_(float("nan"))), "infinite values in V2"),
        (lambda s: (s[:6].fill_(1.0), s[6:].fill_(float("nan"))), "no usable lead: I, II, III, aVR, aVL, aVF flat, V1"),
    ],
)
def test_rejects_are_named(spoil: object, words: str) -> None:
    bad = ecg(200)
    spoil(bad)
    feature_extractor = door()
    with pytest.raises(ValueError) as error:
        feature_extractor([ecg(200), ecg(300), bad], 100, LEADS)
    assert "record 2: " in str(error.value) and words in str(error.value)
    assert "record 0" not in str(error.value)
    batch = torch.stack([ecg(200), bad])
    with pytest.raises(ValueError, match="record 1: "):
        feature_extractor.transform(batch, 100, LEADS)
    assert words in feature_extractor.reject_reason(bad, 100, LEADS)
    assert feature_extractor.reject_reasons(batch, 100, LEADS)[0] is None
    assert words in feature_extractor.reject_reasons(batch, 100, LEADS)[1]


def test_too_short() -> None:
    with pytest.raises(ValueError, match=r"record 0: too short: 0.99 s, expected at least min_duration=1 s"):
        door()(ecg(99), 100, LEADS)
    assert door(min_duration=0.5).reject_reason(ecg(99), 100, LEADS) is None


def test_all_rejects_are_listed_at_once() -> None:
    records = [torch.zeros(12, 200), ecg(200), ecg(50), torch.full((12, 200), float("nan"))]
    with pytest.raises(ValueError) as error:
        door()(records, 100, LEADS)
    assert all(f"record {i}: " in str(error.value) for i in (0, 2, 3)) and "record 1" not in str(error.value)


def test_reject_reason_raises_nothing_for_bad_records() -> None:
    feature_extractor = door()
    assert feature_extractor.reject_reason(ecg(), 500, LEADS) is None
    assert feature_extractor.reject_reason({"signal": ecg(), "sampling_rate": 500, "leads": LEADS}) is None
    assert "expected 20 to 20000 Hz, got 0" in feature_extractor.reject_reason(ecg(), 0, LEADS)
    assert "ECG 1" in feature_extractor.reject_reason(ecg()[:2], 500, ["ECG 1", "V5"])
    assert "transpose" in feature_extractor.reject_reason(ecg().T, 500, LEADS)


# ----- time ----------------------------------------------------------------------------------------------------------


def test_equal_rates_leave_values_untouched() -> None:
    signal = ecg(200)
    assert torch.equal(door()(signal, 100, LEADS)["input_values"][0], signal)
    assert torch.equal(door()(signal, 1 / 0.01, LEADS)["input_values"][0], signal)


@pytest.mark.parametrize("rate", [500, 257, 360, 1000, 977, 50])
def test_resampling_is_scipys(rate: int) -> None:
    signal = ecg(2 * rate)
    expected = resample_poly(signal.double().numpy(), 100, rate, axis=-1)
    values = door()(signal, rate, LEADS)["input_values"][0]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-6)


def test_the_start_or_a_random_part_of_a_longer_record() -> None:
    signal = torch.arange(12)[:, None] * 1000.0 + torch.arange(1, 501)
    start = door()(signal, 100, LEADS)["input_values"][0]
    assert torch.equal(start, signal[:, :200])

    def crops(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return door()([signal] * 9, 100, LEADS, crop="random", generator=generator)["input_values"]

    parts = crops(0)
    assert torch.equal(parts, crops(0)) and not torch.equal(parts, crops(1))
    first = parts[:, 0, 0].long() - 1
    assert 0 <= first.min() and first.max() <= 300 and len(set(first.tolist())) > 5
    for part, begin in zip(parts, first, strict=True):
        assert torch.equal(part, signal[:, begin : begin + 200])
    with pytest.raises(ValueError, match="crop: expected one of start, random, got 'middle'"):
        door()(signal, 100, LEADS, crop="middle")


def test_both_ends_of_a_record_can_be_drawn() -> None:
    signal = torch.arange(12)[:, None] * 1000.0 + torch.arange(1, 203)
    generator = torch.Generator().manual_seed(0)
    parts = door()([signal] * 60, 100, LEADS, crop="random", generator=generator)["input_values"]
    assert set(parts[:, 0, 0].tolist()) == {1.0, 2.0, 3.0}


def test_random_crops_do_not_depend_on_batching() -> None:
    records = [ecg(1000, 1), ecg(1300, 2), ecg(1000, 3), ecg(150, 4), ecg(1300, 5)]
    rates = [250, 250, 500, 100, 250]
    generator = torch.Generator().manual_seed(7)
    together = door()(records, rates, LEADS, crop="random", generator=generator)["input_values"]
    generator = torch.Generator().manual_seed(7)
    for record, rate, expected in zip(records, rates, together, strict=True):
        alone = door()(record, rate, LEADS, crop="random", generator=generator)["input_values"][0]
        assert torch.equal(alone, expected)
    batch = torch.stack([records[1], records[4]])
    generator, again = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    assert torch.equal(
        door().transform(batch, 250, LEADS, crop="random", generator=generator)["input_values"],
        door()(list(batch), 250, LEADS, crop="random", generator=again)["input_values"],
    )


# ----- scaling -------------------------------------------------------------------------------------------------------


def test_fixed_by_hand() -> None:
    signal = torch.zeros(12, 100)
    signal[:, 0], signal[:, 1], signal[:, 2] = 0.25, -1.0, 1e6
    values = ESIFeatureExtractor(100, 1.0)(signal, 100, LEADS)["input_values"][0]
    # 40 tanh(0.025) = 0.99979, 40 tanh(-0.1) = -3.98672, and never above 40
    torch.testing.assert_close(values[:, 0], torch.full((12,), 0.999792), atol=1e-5, rtol=0)
    torch.testing.assert_close(values[:, 1], torch.full((12,), -3.986720), atol=1e-5, rtol=0)
    assert (values[:, 2] == 40).all() and (values[:, 3:] == 0).all()


@pytest.mark.parametrize("scaling", ["record", "lead"])
def test_z_scores_use_present_leads_and_recorded_samples(scaling: str) -> None:
    signal = 0.3 * ecg(150)[[0, 7, 9]] + torch.tensor([[1.0], [2.0], [-3.0]])
    values = door(scaling=scaling)(signal, 100, ["I", "V2", "V4"])["input_values"][0]
    axis = None if scaling == "record" else 1
    array = signal.double().numpy()
    expected = (array - array.mean(axis, keepdims=True)) / (array.std(axis, keepdims=True) + 1e-6)
    np.testing.assert_allclose(values[[0, 7, 9], :150].numpy(), expected, atol=1e-5)


def test_z_scores_describe_the_crop_not_the_whole_record() -> None:
    signal = torch.cat([ecg(200), 50 * ecg(200)], dim=1)
    values = door(scaling="record")(signal, 100, LEADS)["input_values"]
    torch.testing.assert_close(values.std(correction=0), torch.tensor(1.0))


def test_fixed_keeps_voltage_and_record_hides_it() -> None:
    signal = ecg()
    values = {s: door(scaling=s)([signal, 0.3 * signal], 500, LEADS)["input_values"] for s in ("fixed", "record")}
    assert (values["fixed"][0] - values["fixed"][1]).abs().max() > 1
    torch.testing.assert_close(values["record"][0], values["record"][1], atol=1e-4, rtol=0)


def test_units_and_dtypes_give_the_same() -> None:
    counts = (1000 * ecg(200)).round().to(torch.int16)
    in_uv = door()(counts, 100, LEADS, unit="uV")["input_values"]
    assert torch.equal(in_uv, door()(counts.double() / 1000, 100, LEADS)["input_values"])
    assert torch.equal(in_uv, door()([counts.numpy()], 100, LEADS, unit=["\u00b5V"])["input_values"])
    assert torch.equal(in_uv, door()(counts.double() / 1e6, 100, LEADS, unit="V")["input_values"])
    with pytest.raises(ValueError, match="unit: expected one of"):
        door()(counts, 100, LEADS, unit="ADC")


def test_fold_sum() -> None:
    values = torch.arange(1.0, 38.0, dtype=torch.float64)
    assert fold_sum(values) == 37 * 38 / 2
    assert fold_sum(values[:1]) == 1
    assert fold_sum(values.expand(2, 3, 37)).shape == (2, 3)


# ----- one implementation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["fixed", "record", "lead", "none"])
@pytest.mark.parametrize("rate", [100, 500, 257])
def test_a_record_gives_the_same_bits_alone_and_in_any_batch(scaling: str, rate: int) -> None:
    feature_extractor = door(scaling=scaling)
    records = [ecg(2 * rate + 37, seed) for seed in range(5)]
    records[3][SLOT["aVL"], 5:15] = float("nan")
    records[3][SLOT["II"]] = 0.0
    records[4][SLOT["V6"]] = float("nan")
    alone = [feature_extractor(record, rate, LEADS)["input_values"][0] for record in records]
    of_five = feature_extractor(records, rate, LEADS)["input_values"]
    of_five_tensor = feature_extractor.transform(torch.stack(records), rate, LEADS)["input_values"]
    others = [ecg(150, 9), ecg(555, 8)[[1, 10, 11]], ecg(2 * rate + 37, 7)]
    mixed = feature_extractor(
        [others[0], *records[::-1], *others[1:]],
        [100, *[rate] * 5, 128, rate],
        [LEADS, *[LEADS] * 5, ["II", "V5", "V6"], LEADS],
    )["input_values"]
    for i, expected in enumerate(alone):
        assert torch.equal(of_five[i], expected)
        assert torch.equal(of_five_tensor[i], expected)
        assert torch.equal(mixed[5 - i], expected)


def test_full_size_batches_give_the_same_bits() -> None:
    feature_extractor = ESIFeatureExtractor(scaling="record")
    batch = torch.randn(21, 12, 5000, generator=torch.Generator().manual_seed(0))
    together = feature_extractor.transform(batch, 500, LEADS)["input_values"]
    for i in (0, 8, 20):
        assert torch.equal(feature_extractor(batch[i].numpy(), 500, LEADS)["input_values"][0], together[i])


def stored_records() -> list[ECGRecord]:
    """Records that hold integers: two rates, three lengths, several leads, gaps; one is all gap in a lead."""
    records = []
    for number in range(9):
        leads = (tuple(LEADS), tuple(MIMIC_ORDER), ("II", "V1", "I"))[number % 3]
        rng = np.random.default_rng(number)
        digital = rng.integers(-3000, 3000, (len(leads), (400, 700, 1100)[number % 5 % 3])).astype(np.int16)
        digital[0, 50 : 50 + number * 3] = -32768
        digital[1, :] = -32768 if number == 7 else digital[1]
        gain, offset = rng.uniform(100, 5000, len(leads)), rng.integers(-50, 50, len(leads))
        records.append(ECGRecord.from_digital(digital, gain, offset, leads, (200, 257)[number % 2]))
    return records


@pytest.mark.parametrize("scaling", ["fixed", "lead"])
def test_integers_give_the_bits_of_their_millivolts(scaling: str) -> None:
    records, feature_extractor = stored_records(), door(scaling=scaling, sampling_rate=200, duration=1.8)
    floats = [{"signal": r.signal, "sampling_rate": r.sampling_rate, "leads": r.leads} for r in records]
    mixed = [record if i % 2 else fields for i, (record, fields) in enumerate(zip(records, floats, strict=True))]
    for options in ({}, {"crop": "random"}, {"crop": "random", "augment": lambda values: values * 1.25}):
        expected = feature_extractor(floats, generator=torch.Generator().manual_seed(3), **options)
        for given in (records, mixed):
            inputs = feature_extractor(given, generator=torch.Generator().manual_seed(3), **options)
            assert inputs.keys() == expected.keys()
            assert all(torch.equal(inputs[name], expected[name]) for name in inputs)
    assert [feature_extractor.reject_reason(r) for r in records] == [None] * 9
    assert not expected["lead_mask"].all() and not expected["sample_mask"].all()


def test_the_millivolts_of_a_record_with_integers_are_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_signal(record: ECGRecord, name: str) -> None:
        assert name != "signal", "the millivolts were asked for"
        raise AttributeError(name)

    records = stored_records()
    monkeypatch.setattr(ECGRecord, "__getattr__", no_signal)
    door()(records)
    assert door(min_duration=3).reject_reason(records[0]).startswith("too short: 2 s")


def test_transform_leaves_its_input_alone() -> None:
    batch = torch.stack([ecg(200), ecg(200, 1)])
    batch[0, 3, 5:9] = float("nan")
    batch[1, 4] = 0.0
    before = batch.clone()
    values = door().transform(batch, 100, LEADS)["input_values"]
    values.zero_()
    assert torch.equal(batch.nan_to_num(99), before.nan_to_num(99))


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (torch.zeros(12, 200), "expected a tensor (B, leads, samples), got (12, 200): one record is signal[None]"),
        (np.zeros((1, 12, 200)), "got ndarray"),
        (torch.zeros(0, 12, 200), "got (0, 12, 200)"),
        (torch.zeros(2, 200, 12), "transpose it"),
        (torch.zeros(2, 11, 200), "each of the 11 channels"),
        (torch.zeros(2, 12, 200, dtype=torch.complex64), "real numbers"),
    ],
)
def test_transform_refuses(signal: object, words: str) -> None:
    with pytest.raises(ValueError) as error:
        door().transform(signal, 100, LEADS)
    assert words in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("scaling", ["fixed", "record", "lead", "none"])
def test_the_same_on_a_gpu(scaling: str) -> None:
    batch = torch.stack([ecg(2000, seed) for seed in range(7)])
    batch[2, 3, 100:110] = float("nan")
    on_cpu = door(scaling=scaling).transform(batch, 500, LEADS)
    on_gpu = door(scaling=scaling).transform(batch.cuda(), 500, LEADS)
    torch.testing.assert_close(on_gpu["input_values"].cpu(), on_cpu["input_values"], atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_integers_become_the_same_millivolts_on_a_gpu() -> None:
    recordings = read_recordings(stored_records()[::9], None, None, "mV")
    on_cpu, on_gpu = (stack_recordings(recordings, torch.device(name)).millivolts() for name in ("cpu", "cuda"))
    assert torch.equal(on_cpu.view(torch.int32), on_gpu.cpu().view(torch.int32))


# ----- saving and options --------------------------------------------------------------------------------------------


def test_saved_and_loaded_unchanged(tmp_path: Path) -> None:
    options = {"leads": MIMIC_ORDER, "scaling": "record", "sampling_rate": 250, "duration": 2.5, "max_gap": 0.1}
    feature_extractor = ESIFeatureExtractor(**options, ignore_unknown_leads=True, min_duration=0)
    feature_extractor.save_pretrained(tmp_path / "a")
    loaded = ESIFeatureExtractor.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    first, second = (json.loads((tmp_path / x / "preprocessor_config.json").read_text()) for x in "ab")
    assert first == second == json.loads(feature_extractor.to_json_string())
    assert all(first[name] == value for name, value in options.items())
    assert first["feature_extractor_type"] == "ESIFeatureExtractor" and loaded.num_samples == 625
    assert torch.equal(loaded(ecg(), 500, LEADS)["input_values"], feature_extractor(ecg(), 500, LEADS)["input_values"])
    assert ESIFeatureExtractor.from_pretrained(tmp_path / "a", scaling="lead").scaling == "lead"


def test_found_by_the_auto_class(tmp_path: Path) -> None:
    AutoFeatureExtractor.register(ESIConfig, ESIFeatureExtractor, exist_ok=True)
    door(scaling="lead").save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is ESIFeatureExtractor and loaded.scaling == "lead"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scaling": "zscore"}, "scaling: expected one of fixed, record, lead, none, got 'zscore'"),
        ({"sampling_rate": 0}, "sampling_rate: expected 20 to 20000 Hz"),
        ({"sampling_rate": None}, "sampling_rate: expected Hz"),
        ({"duration": -1}, "duration: expected a positive number, got -1"),
        ({"duration": 0.001}, "duration: expected at least one sample"),
        ({"duration": "10"}, "duration: expected a number, got '10'"),
        ({"fixed_scale_mv": 0}, "fixed_scale_mv: expected a positive number"),
        ({"fixed_clip_mv": float("inf")}, "fixed_clip_mv: expected a positive number"),
        ({"scale_eps": -1e-6}, "scale_eps: expected a non-negative number"),
        ({"max_gap": float("nan")}, "max_gap: expected a non-negative number"),
        ({"min_duration": None}, "min_duration: expected a number"),
        ({"leads": LEADS[:8]}, "leads: expected the twelve"),
        ({"leads": [*LEADS[:11], "V5"]}, "leads: expected the twelve"),
        ({"leads": [*LEADS[:11], None]}, "leads: expected the twelve"),
        ({"ignore_unknown_leads": 1}, "ignore_unknown_leads: expected True or False"),
    ],
)
def test_senseless_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError) as error:
        ESIFeatureExtractor(**options)
    assert words in str(error.value)


def test_the_documented_examples() -> None:
    assert doctest.testmod(feature_extraction_esi).failed == 0


# ----- real files ----------------------------------------------------------------------------------------------------


def real(path: str) -> dict:
    wfdb = pytest.importorskip("wfdb")
    if not (DATA / f"{path}.hea").exists():
        pytest.skip(f"needs the real record {path} of ../shared/data")
    record = wfdb.rdrecord(str(DATA / path))
    return {"signal": record.p_signal.T, "sampling_rate": record.fs, "leads": record.sig_name}


def test_ptb_xl_at_both_rates() -> None:
    fast, slow = real("ptbxl/records500/00000/00001_hr"), real("ptbxl/records100/00000/00001_lr")
    values = ESIFeatureExtractor(sampling_rate=100, scaling="none")([fast, slow])["input_values"]
    assert values.shape == (2, 12, 1000)
    # PTB-XL's own 100 Hz version was made by another filter: alike, not equal
    inner = values[:, :, 20:-20]
    correlation = torch.corrcoef(torch.stack([inner[0].flatten(), inner[1].flatten()]))[0, 1]
    assert correlation > 0.98
    one, two, three = values[0, :3]
    assert (two - one - three).abs().max() < 0.01  # the file holds whole microvolts


@pytest.mark.parametrize("source", ["JS", "E", "S", "Q", "A", "HR"])
def test_physionet_2021(source: str) -> None:
    found = sorted(DATA.glob(f"physionet2021/{source}/*.hea"))
    if not found:
        pytest.skip("needs ../shared/data/physionet2021")
    for header in found[:3]:
        item = real(str(header.relative_to(DATA).with_suffix("")))
        inputs = ESIFeatureExtractor()(item)
        assert inputs["input_values"].shape == (1, 12, 5000) and inputs["input_values"].isfinite().all()
        assert inputs["lead_mask"].sum() >= 11


def test_ptb_with_frank_leads() -> None:
    item = real("formats/wfdb/s0010_re")
    inputs = ESIFeatureExtractor(scaling="none")(item)
    expected = resample_poly(item["signal"][:12].astype(np.float32), 1, 2, axis=-1)[:, :5000]
    np.testing.assert_allclose(inputs["input_values"][0].numpy(), expected, atol=1e-6)


def test_mit_bih_has_a_modified_lead() -> None:
    item = real("formats/wfdb/100")
    item["signal"] = item["signal"][:, : 360 * 20]
    inputs = ESIFeatureExtractor()(item)
    assert inputs["lead_mask"][0].tolist() == [lead == "V5" for lead in LEADS]


def test_every_real_record_of_ptb_xl_passes() -> None:
    headers = sorted(DATA.glob("ptbxl/records500/*/*.hea"))[:20]
    if not headers:
        pytest.skip("needs ../shared/data/ptbxl")
    items = [real(str(header.relative_to(DATA).with_suffix(""))) for header in headers]
    inputs = ESIFeatureExtractor()(items)
    assert inputs["input_values"].shape == (len(items), 12, 5000)
    assert inputs["lead_mask"].all() and inputs["input_values"].isfinite().all()
