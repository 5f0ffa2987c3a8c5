"""The synthetic corpus: what its reports say is what an independent reader measures in its signals."""

import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from ecg_measurements import measure

from datasets_scripts import sources, synthetic
from datasets_scripts.load_report import LoadReport
from datasets_scripts.synthetic import generate_record, label_names, label_prompts, list_entries, read_entry, tables
from datasets_scripts.synthetic_findings import FINDINGS, NORMAL, RHYTHMS, WORDINGS, exclude_each_other

WIDE = {"left bundle branch block", "right bundle branch block", "premature ventricular beats", "ventricular pacing"}
OTHERS = [name for name in FINDINGS if name not in (*RHYTHMS, NORMAL)]


def iter_records(split="train", **options):
    return sources.iter_records(synthetic, None, split, **options)


def measured(record):
    return measure(record.signal, record.leads, record.sampling_rate)


def stated_rate(record):
    (rate,) = re.findall(r"rate (\d+)/min", record.report, flags=re.IGNORECASE)
    return int(rate)


def held_out(sampling_rate):
    records = iter_records(split="test", num_records=200, sampling_rate=sampling_rate)
    return [(record, set(record.statements), measured(record)) for record in records]


@pytest.fixture(scope="module", params=[500, 100])
def pairs(request):
    return held_out(request.param)


def disagreements(pairs, expected, found):
    return [(r.record_id, r.statements) for r, names, m in pairs if expected(r, names) != found(m)]


# ---------------------------------------------------------------- honesty: 200 held-out records, read by a stranger


def test_rate_is_the_stated_one_within_3_per_minute(pairs):
    for record, _, m in pairs:
        assert abs(m.rate - stated_rate(record)) <= 3, record.record_id
        assert abs(len(m.r_peaks) * 60 / record.duration - stated_rate(record)) <= 3, record.record_id


def test_wide_qrs_exactly_with_bundle_block_ventricular_beats_or_pacing(pairs):
    assert disagreements(pairs, lambda r, names: bool(names & WIDE), lambda m: m.qrs_widest >= 0.12) == []
    steady = WIDE - {"premature ventricular beats"}
    assert disagreements(pairs, lambda r, names: bool(names & steady), lambda m: m.qrs_typical >= 0.12) == []


def test_long_pr_exactly_with_first_degree_block(pairs):
    wrong = disagreements(pairs, lambda r, n: "first-degree AV block" in n, lambda m: m.pr is not None and m.pr > 0.2)
    assert wrong == []


def test_left_axis_exactly_where_named(pairs):
    for axis in (lambda m: m.axis, lambda m: m.axis_by_amplitude):
        found = lambda m, axis=axis: -90 <= axis(m) <= -30  # noqa: E731
        assert disagreements(pairs, lambda r, names: "left axis deviation" in names, found) == []


def test_low_limb_voltage_exactly_where_named(pairs):
    found = lambda m: max(m.limb_voltage.values()) < 0.5  # noqa: E731
    assert disagreements(pairs, lambda r, names: "low voltage" in names, found) == []


def test_irregular_without_p_waves_exactly_with_fibrillation(pairs):
    found = lambda m: m.irregular and not m.has_p  # noqa: E731
    assert disagreements(pairs, lambda r, names: "atrial fibrillation" in names, found) == []
    assert disagreements(pairs, lambda r, names: "atrial fibrillation" not in names, lambda m: m.has_p) == []


def test_margins_leave_room_for_other_rulers(pairs):
    widths = {wide: [m.qrs_typical for _, n, m in pairs if bool(n & WIDE) == wide] for wide in (False, True)}
    assert max(widths[False]) <= 0.105
    steady = [m.qrs_typical for _, n, m in pairs if n & (WIDE - {"premature ventricular beats"})]
    assert min(steady) >= 0.14
    pr = {block: [m.pr for _, n, m in pairs if m.pr and ("first-degree AV block" in n) == block] for block in (0, 1)}
    assert max(pr[0]) <= 0.18
    assert min(pr[1]) >= 0.235
    for _, names, m in pairs:
        assert ("left axis deviation" in names) == (m.axis < -38)
        assert -20 < m.axis or m.axis < -38
        highest = max(m.limb_voltage.values())
        assert highest <= 0.38 if "low voltage" in names else sum(v > 0.7 for v in m.limb_voltage.values()) >= 3


# ---------------------------------------------------------------- physics


def test_limb_leads_obey_einthoven_and_goldberger_between_stored_integers():
    for seed in range(8):
        record = generate_record(seed)
        lead = dict(zip(record.leads, record.digital.astype(int), strict=True))
        assert np.array_equal(lead["II"], lead["I"] + lead["III"])
        assert np.array_equal(2 * lead["aVR"], -(lead["I"] + lead["II"]))
        assert np.array_equal(2 * lead["aVL"], 2 * lead["I"] - lead["II"])
        assert np.array_equal(2 * lead["aVF"], 2 * lead["II"] - lead["I"])


def test_without_noise_all_leads_come_from_one_dipole():
    record = generate_record(3, ["left bundle branch block"], noise_level=0)
    strengths = np.linalg.svd(record.signal.astype(np.float64), compute_uv=False)
    assert strengths[3] < 1e-3 * strengths[0]  # three dimensions; the rest is rounding


@pytest.mark.parametrize("sampling_rate", [500, 100, 257])
def test_60_per_minute_gives_10_r_peaks_in_10_seconds(sampling_rate):
    for seed in range(12):
        record = generate_record(seed, [], heart_rate=60, sampling_rate=sampling_rate)
        assert len(measured(record).r_peaks) == 10
        assert stated_rate(record) == 60


def test_shape_and_units_follow_rate_and_duration():
    record = generate_record(1, sampling_rate=257, duration=7.0)
    assert record.signal.shape == (12, 1799)
    assert record.signal.dtype == np.float32 and record.digital.dtype == np.int16
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert np.array_equal(record.signal, record.digital / np.float32(2000))
    assert 0.3 < np.abs(record.signal).max() < 6


def test_sampling_rates_show_the_same_heart():
    slow = generate_record(5, ["right bundle branch block"], sampling_rate=100, noise_level=0)
    fast = generate_record(5, ["right bundle branch block"], sampling_rate=500, noise_level=0)
    assert np.array_equal(slow.digital, fast.digital[:, ::5])


def test_beats_vary_but_little_in_sinus_rhythm():
    m = measured(generate_record(2, [], heart_rate=75, noise_level=0))
    assert 0.003 < m.rr_variation < 0.05
    signal = generate_record(2, [], heart_rate=75, noise_level=0).signal
    heights = signal[1, m.r_peaks]
    assert 0.005 < heights.std() / heights.mean() < 0.1


def test_noise_is_there_and_small():
    noisy, clean = (generate_record(4, [], noise_level=level).signal for level in (1, 0))
    noise = noisy - clean
    assert 0.003 < np.diff(noise, axis=1).std() / np.sqrt(2) < 0.02  # muscle
    assert 0.01 < np.abs(noise).max() < 0.2  # with the wandering baseline
    assert 10 * np.log10(clean.var() / noise.var()) > 10


# ---------------------------------------------------------------- each finding does what its name says


def wide(m):
    return m.qrs_typical >= 0.12


LOOKS = {
    "sinus rhythm": lambda m: 60 <= m.rate <= 100 and m.has_p and not m.irregular,
    "sinus tachycardia": lambda m: m.rate > 100 and m.has_p and not m.irregular,
    "sinus bradycardia": lambda m: m.rate < 60 and m.has_p and not m.irregular,
    "atrial fibrillation": lambda m: m.irregular and not m.has_p,
    "first-degree AV block": lambda m: m.pr > 0.2,
    "left bundle branch block": lambda m: wide(m) and m.s["V1"] > 0.8 and m.r["V6"] > 0.5 and m.r["V1"] < 0.2,
    "right bundle branch block": lambda m: wide(m) and m.r["V1"] > 0.3 and m.s["I"] > 0.2 and m.s["V6"] > 0.2,
    "left ventricular hypertrophy": lambda m: not wide(m) and m.s["V1"] + max(m.r["V5"], m.r["V6"]) > 3.5,
    "inferior ST elevation": lambda m: min(m.st[x] for x in ("II", "III", "aVF")) >= 0.2 and m.st["aVL"] < -0.05,
    "anterior ST elevation": lambda m: min(m.st[x] for x in ("V1", "V2", "V3", "V4")) >= 0.2,
    "T wave inversion": lambda m: max(m.t[x] for x in ("I", "V4", "V5", "V6")) < -0.05 and not wide(m),
    "left axis deviation": lambda m: -90 <= m.axis <= -30,
    "premature ventricular beats": lambda m: m.qrs_widest > 0.12 > m.qrs_typical and m.irregular and m.has_p,
    "long QT interval": lambda m: m.qt / np.sqrt(60 / m.rate) > 0.48,
    "low voltage": lambda m: max(m.limb_voltage.values()) < 0.5,
}


@pytest.mark.parametrize("finding", LOOKS)
def test_a_finding_alone_shows_itself_and_a_normal_heart_does_not(finding):
    for seed in range(4):
        assert LOOKS[finding](measured(generate_record(seed, [finding]))), seed
        if finding != "sinus rhythm":
            assert not LOOKS[finding](measured(generate_record(seed, []))), seed


def test_paced_beats_follow_a_spike():
    for seed in range(4):
        paced = generate_record(seed, ["ventricular pacing"])
        blocked = generate_record(seed, ["left bundle branch block"])
        m = measured(paced)
        assert m.qrs_typical > 0.12
        steps = [np.abs(np.diff(r.signal[:, :], axis=1)).max(axis=0) for r in (paced, blocked)]
        jumps = np.flatnonzero(steps[0] > 1.5 * steps[1].max())
        after = m.r_peaks[np.searchsorted(m.r_peaks, jumps).clip(max=len(m.r_peaks) - 1)] - jumps
        assert len(np.unique(np.searchsorted(m.r_peaks, jumps))) == len(m.r_peaks)
        assert np.all((after > 0) & (after < 0.14 * 500))


def test_the_other_findings_leave_st_and_qt_alone(pairs):
    for _, names, m in pairs:
        if names & WIDE:
            continue
        if "inferior ST elevation" not in names:
            assert min(m.st[x] for x in ("II", "III", "aVF")) < 0.1
        if "anterior ST elevation" not in names:
            assert min(m.st[x] for x in ("V1", "V2", "V3", "V4")) < 0.1
        qtc = m.qt / np.sqrt(60 / m.rate)
        assert qtc > 0.48 if "long QT interval" in names else qtc < 0.46


# ---------------------------------------------------------------- findings, reports, texts


def test_every_finding_is_frequent_and_a_quarter_is_normal():
    records = list(iter_records(split="train", num_records=1200, sampling_rate=50, duration=5))
    counts = Counter(name for record in records for name in record.labels)
    assert set(counts) == set(label_names())
    assert min(counts.values()) >= 0.06 * len(records), counts
    assert 0.18 < counts[NORMAL] / len(records) < 0.3
    assert sum(len(record.labels) > 2 for record in records) > 0.2 * len(records)  # findings together
    for record in records:
        for first, second in combinations(record.labels, 2):
            assert not exclude_each_other(first, second)
        assert len(set(record.labels) & set(RHYTHMS)) == 1
        assert (NORMAL in record.labels) == (set(record.labels) <= {"sinus rhythm", NORMAL})
        assert 18 <= record.age <= 92 and record.sex in ("male", "female")


def said(report):
    """The findings whose wordings make up the report; the rest must be the rate."""
    names, rest = set(), []
    for sentence in report.rstrip(".").split(". "):
        found = [name for name, wordings in WORDINGS.items() if sentence in wordings]
        names.update(found)
        rest += [] if found else [sentence]
    assert len(rest) == 1 and re.fullmatch(r"(Rate|Heart rate|Ventricular rate) \d+/min", rest[0]), report
    return names


def test_reports_say_all_findings_and_no_other():
    reports = set()
    for record in iter_records(split="validation", num_records=300, sampling_rate=50, duration=5):
        assert said(record.report) == set(record.statements) == set(record.labels)
        assert record.text.endswith(f"ECG Findings: {', '.join(record.statements)}.")
        reports.add(re.sub(r"\d+", "", record.report))
    assert len(reports) > 150  # varied wording


def test_prompts_name_every_label_in_several_ways():
    prompts = label_prompts()
    assert list(prompts) == label_names() and len(prompts) >= 17
    everything = [prompt for variants in prompts.values() for prompt in variants]
    assert len(everything) == len(set(everything))
    for name, variants in prompts.items():
        assert f"ECG Findings: {name}." in variants and len(variants) >= 4


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_what_may_stand_together_can_be_made(rhythm):
    made = 0
    for first, second in combinations(OTHERS, 2):
        if any(exclude_each_other(a, b) for a, b in combinations((rhythm, first, second), 2)):
            continue
        record = generate_record(made, [rhythm, first, second], sampling_rate=100)
        assert {rhythm, first, second} == set(record.labels)
        assert np.isfinite(record.signal).all()
        made += 1
    assert made >= 3


@pytest.mark.parametrize(
    ("findings", "heart_rate", "message"),
    [
        (["atrial fibrillation", "first-degree AV block"], None, "cannot stand in one record"),
        (["left ventricular hypertrophy", "low voltage"], None, "cannot stand in one record"),
        (["sinus rhythm", "sinus tachycardia"], None, "cannot stand in one record"),
        (["normal ECG", "long QT interval"], None, "stands only beside"),
        (["palpitations"], None, "expected names among"),
        (["sinus tachycardia"], 70, "expected 101 to"),
        (["long QT interval"], 99, "expected 60 to 85"),
    ],
)
def test_impossible_wishes_are_refused(findings, heart_rate, message):
    with pytest.raises(ValueError, match=message):
        generate_record(0, findings, heart_rate=heart_rate)


def test_a_rate_alone_names_the_rhythm():
    for rate, rhythm in (
        (45, "sinus bradycardia"),
        (60, "sinus rhythm"),
        (100, "sinus rhythm"),
        (101, "sinus tachycardia"),
    ):
        for seed in range(6):
            record = generate_record(seed, heart_rate=rate, sampling_rate=100)
            assert record.statements[0] == rhythm
            assert stated_rate(record) == rate


# ---------------------------------------------------------------- seeds, splits, patients


def test_same_seed_same_bits_other_seed_other_bits():
    first, again, other = (
        list(iter_records(split="test", num_records=5, seed=s, sampling_rate=100)) for s in (3, 3, 4)
    )
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a.digital, b.digital)
        assert (a.report, a.text, a.record_id, a.age) == (b.report, b.text, b.record_id, b.age)
        assert not np.array_equal(a.digital, c.digital)
    assert np.array_equal(generate_record(9).digital, generate_record(np.random.default_rng(9)).digital)


def test_same_seed_same_bits_in_another_process():
    code = (
        "import hashlib; from datasets_scripts.synthetic import generate_record as g;"
        "print(hashlib.sha256(g(11, sampling_rate=100).digital.tobytes()).hexdigest())"
    )
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(digests) == 1


def test_a_record_does_not_depend_on_how_many_are_made():
    few, more = (list(iter_records(num_records=n, sampling_rate=100)) for n in (4, 7))
    assert all(np.array_equal(a.digital, b.digital) for a, b in zip(few, more, strict=False))


def test_splits_share_no_patient_and_patients_keep_who_they_are():
    by_split = {
        s: list(iter_records(split=s, num_records=60, sampling_rate=50)) for s in ("train", "validation", "test")
    }
    for one, other in combinations(by_split.values(), 2):
        assert not {r.patient_id for r in one} & {r.patient_id for r in other}
        assert not any(np.array_equal(a.digital, b.digital) for a, b in zip(one, other, strict=True))
    everyone = [record for records in by_split.values() for record in records]
    assert len({record.record_id for record in everyone}) == len(everyone)
    assert set(Counter(r.patient_id for r in everyone).values()) == {1, 2}
    known = {}
    for record in everyone:
        same = (record.age, record.sex, record.statements)
        assert known.setdefault(record.patient_id, same) == same
    assert len(list(iter_records(split=None, num_records=2, sampling_rate=50))) == 6


def test_entries_name_the_record_and_no_file():
    entries = list(list_entries(num_records=4, seed=5))
    assert [entry.split for entry in entries] == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
    assert not any(entry.files or entry.problem for entry in entries)
    for entry in (entries[2], entries[9]):
        record = read_entry(entry, seed=5, num_records=4, sampling_rate=100)
        assert (entry.record_id, entry.fields["patient_id"]) == (record.record_id, record.patient_id)
        assert entry.path == f"synthetic/{record.record_id}" and entry.index in (1, 2)
    report = LoadReport("synthetic", "test")
    assert len(list(iter_records("test", num_records=3, sampling_rate=50, report=report))) == report.num_read == 3
    assert synthetic.FACTS.reports_are_labels and "synthetic_beats.py" in {path.name for path in tables()}


def test_the_corpus_is_that_of_the_first_release():
    """A change of the generator changes every published figure: it must be meant."""
    record = list(iter_records("test", num_records=3, seed=3, sampling_rate=100))[2]
    assert (record.record_id, record.patient_id) == ("synthetic-3-test-000002", "synthetic-3-test-p000001")
    assert record.report == "Sinus rhythm. Rate 73/min. Normal ECG."
    np.testing.assert_allclose(record.digital[1, :6], [58, 50, 2, 2, 34, 10], atol=1)  # 1: rounding on another machine


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: expected a whole number"),
        ({"num_records": 2.5}, "num_records: expected a whole number"),
        ({"sampling_rate": 20}, "sampling_rate: expected at least 50 Hz"),
        ({"duration": 2}, "duration: expected at least 5 seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        list_entries(**options)
    with pytest.raises(ValueError, match="expected one of train, validation, test"):
        next(iter_records("dev"))


def test_the_corpus_loads_neither_torch_nor_the_model():
    code = (
        "import sys, datasets_scripts.synthetic_findings, datasets_scripts.synthetic_beats, "
        "datasets_scripts.synthetic_signal, datasets_scripts.synthetic_rhythm, datasets_scripts.synthetic;"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('torch', 'modeling_esi')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
