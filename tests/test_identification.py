"""Who is found in a gallery: by hand, over persons, from split files, and never among those trained on."""

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from tiny_esi import tiny_esi

from datasets_scripts.records import ECGRecord, record_to_row, row_features
from modeling_esi import ESIFeatureExtractor
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.enrolment import Enrolment
from modeling_esi.evaluation.identification import identification, run


def directions(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def noisy_persons(num_persons: int, noise: float, seed: int = 0, width: int = 16) -> tuple[np.ndarray, list[str]]:
    """Two recordings of each person, one after the other: a direction of its own, and noise."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(size=(num_persons, width)), 2, axis=0)
    return own + noise * rng.normal(size=own.shape), [f"p{row // 2}" for row in range(2 * num_persons)]


def pairs_of(num_persons: int) -> Enrolment:
    return Enrolment(np.arange(0, 2 * num_persons, 2), np.arange(1, 2 * num_persons, 2))


# ----- by hand -------------------------------------------------------------------------------------------------------


def test_by_hand():
    # enrolled at 0, 60 and 120 degrees. The probe of a at 10 is right; that of b at 100 is nearer to c; c's is right.
    embeds = directions([0, 60, 120, 10, 100, 130]) * 3  # lengths do not count
    people = ["a", "b", "c", "a", "b", "c"]
    result = identification(embeds, people, Enrolment([0, 1, 2], [3, 4, 5]), num_resamples=0, prefix="v/")
    expected = {"v/rank1": 2 / 3, "v/rank5": 1.0, "v/num_persons": 3, "v/num_gallery": 3, "v/num_probes": 3}
    expected |= {"v/num_genuine_pairs": 3, "v/num_impostor_pairs": 6, "v/chance_rank1": 1 / 3}
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    # genuine at 10, 10 and 40 degrees, impostors at 20, 50, 70, 100, 110 and 130: from 20 to 40 degrees one of six
    # impostors is in, and of the genuine pairs outside one third becomes none: the line at 1/6 is crossed there
    assert result["v/equal_error_rate"] == pytest.approx(1 / 6)


def test_a_person_enrolled_twice_counts_by_its_best_recording_and_takes_one_rank():
    embeds = directions([0, 40, 41, 90, 42, 5])
    people = ["a", "b", "b", "c", "a", "c"]
    # the probe of a at 42 is near both recordings of b, then a (42 degrees off) before c (48 off): second of persons
    one = identification(embeds, people, Enrolment([0, 1, 2, 3], [4]), num_resamples=0)
    assert (one["rank1"], one["rank5"], one["num_enrolled_persons"]) == (0.0, 1.0, 3)


def test_embeddings_that_tell_nothing_apart_give_chance():
    result = identification(np.ones((40, 3)), [f"p{i // 2}" for i in range(40)], pairs_of(20), num_resamples=50)
    assert result["rank1"] == pytest.approx(1 / 20) and result["rank5"] == pytest.approx(5 / 20)
    assert result["equal_error_rate"] == 0.5 == result["equal_error_rate_low"] == result["equal_error_rate_high"]


def test_random_embeddings_lie_within_the_interval_of_chance():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(10):
        result = identification(rng.normal(size=(60, 8)), [f"p{i // 2}" for i in range(60)], pairs_of(30), 100, seed)
        covered += result["equal_error_rate_low"] <= 0.5 <= result["equal_error_rate_high"]
    assert covered >= 7


def test_the_same_recording_twice_is_found_without_error():
    embeds, people = noisy_persons(15, noise=0.0)
    result = identification(embeds, people, pairs_of(15), num_resamples=30)
    assert (result["rank1"], result["rank5"], result["equal_error_rate"]) == (1.0, 1.0, 0.0)
    assert (result["rank1_low"], result["equal_error_rate_high"]) == (1.0, 0.0)


def test_intervals_hold_the_figures_and_narrow_with_more_persons():
    widths = []
    for num_persons in (20, 180):
        embeds, people = noisy_persons(num_persons, noise=1.0)
        result = identification(embeds, people, pairs_of(num_persons), num_resamples=100)
        for name in ("rank1", "rank5", "equal_error_rate"):
            assert result[f"{name}_low"] <= result[name] <= result[f"{name}_high"]
        widths.append(result["equal_error_rate_high"] - result["equal_error_rate_low"])
    assert widths[1] < 0.6 * widths[0]


def test_too_few_persons_have_no_interval_and_the_reason_is_told():
    embeds, people = noisy_persons(9, noise=0.5)
    result = identification(embeds, people, pairs_of(9))
    assert "9 persons" in result["rank1_note"] and "rank1_low" not in result


@pytest.mark.parametrize(
    ("people", "enrolment", "match"),
    [
        (["a", "a", "b"], Enrolment([0], [1]), "for each of 4 embeddings, got 3"),
        (["a", "a", "b", "b"], Enrolment([0, 1], [1]), "record 1 as both"),
        (["a", "a", "b", "b"], Enrolment([0], [1, 3]), r"of which 1 of persons not enrolled \(b\)"),
        (["a", None, "b", "b"], Enrolment([0], [1]), r"not enrolled \(None\)"),
        (["a", "a", "b", "b"], Enrolment([0], []), "got 0 probes"),
    ],
)
def test_what_makes_no_sense_is_refused(people, enrolment, match):
    with pytest.raises(ValueError, match=match):
        identification(np.ones((4, 2)), people, enrolment)


# ----- the protocol --------------------------------------------------------------------------------------------------


class Door:
    """A processor that only reads ECGs."""

    feature_extractor = ESIFeatureExtractor(sampling_rate=100, duration=2.0, scaling="none")


def rows(persons: range, seed: int = 0, per_person: int = 3) -> Dataset:
    """Recordings of persons: a waveform of their own, and a little noise."""
    stored = []
    for person in persons:
        own = np.random.default_rng([7, person]).normal(size=(2, 200))
        for number in range(per_person):
            noise = 0.02 * np.random.default_rng([seed, person, number]).normal(size=own.shape)
            names = {"record_id": f"{person}-{number}", "patient_id": f"person {person}"}
            names["sex"] = "female" if person % 3 else "male"
            stored.append(record_to_row(ECGRecord((own + noise).astype(np.float32), ("I", "II"), 100, **names)))
    return Dataset.from_list(stored, features=row_features("float32"))


@pytest.fixture(scope="module")
def model():
    return tiny_esi(caption_loss_weight=0.0)


def context(model, test: Dataset, train: Dataset | None = None, **settings) -> EvaluationContext:
    splits = {"test": test} | ({} if train is None else {"train": train})
    return EvaluationContext(model, Door(), "toy", dataset_rows=splits, num_resamples=20, **settings)


def test_the_protocol_finds_persons_and_tells_what_was_checked(model):
    result = run(context(model, rows(range(12)), train=rows(range(20, 22))))
    assert result.trained["rank1"] == 1.0 and result.trained["equal_error_rate"] < 0.05
    assert (result.trained["num_gallery"], result.trained["num_probes"]) == (12, 24)
    assert {"rank1", "rank5", "equal_error_rate"} <= result.random_weights.keys() <= result.trained.keys()
    assert "None of the 12 persons is in the data set's training split (checked)" in result.protocol
    told = result.to_text().splitlines()
    assert "12 persons, 24 probes, 12 enrolled recordings" in told
    assert "None of the 12 persons is in the data set's training split (checked)." in told
    groups = {row["group"]: row for row in result.tables["Subgroups"]}
    assert (groups["female"]["num_records"], groups["male"]["num_patients"]) == (16, 4)
    assert groups["male"]["rank1"] == 1.0 and "patients 4, at least 10" in groups["male"]["note"]
    one = run(context(model, rows(range(12)), train=rows(range(20, 22))), probes="one", layer="pooled")
    assert one.trained["num_probes"] == 12 and "pooled" in one.protocol


def test_a_second_model_is_compared_in_pairs(model):
    other = tiny_esi(caption_loss_weight=0.0, projection_dim=20)
    result = run(context(model, rows(range(12)), rows(range(20, 21)), compare=(other, Door())))
    for name in ("rank1", "equal_error_rate"):
        difference = result.compared[f"{name}/difference"]
        assert difference == result.trained[name] - result.compared[f"{name}/other"]
        assert result.compared[f"{name}/difference_low"] <= difference <= result.compared[f"{name}/difference_high"]


def test_a_planted_patient_of_the_training_is_caught(model):
    with pytest.raises(ValueError, match="got 1 of 12 that are among the training's: person 4"):
        run(context(model, rows(range(12)), train=rows(range(4, 5), seed=9)))


def test_given_training_patients_are_compared(model, tmp_path):
    (tmp_path / "trained.txt").write_text("person 3\nperson 77\n")
    with pytest.raises(ValueError, match="person 3"):
        run(context(model, rows(range(12))), training_patients=str(tmp_path / "trained.txt"))
    (tmp_path / "trained.txt").write_text("person 77\n")
    result = run(context(model, rows(range(12))), training_patients=str(tmp_path / "trained.txt"))
    assert "None of the 12 persons is among the given training patients (checked)" in result.protocol
    assert result.seen_in_training is False and "(checked)" in result.leakage


def test_what_cannot_be_checked_is_said_or_refused(model, monkeypatch):
    whole = context(model, rows(range(12)), split="all")
    whole.dataset_rows["all"] = whole.dataset_rows.pop("test")
    assert "could NOT be checked" in run(whole).protocol
    card = "## Training data\n\necg_id: all recordings\n"
    trained_on = context(model, rows(range(12)), split="all", card=card)
    trained_on.dataset, trained_on.dataset_rows["all"] = "ecg_id", trained_on.dataset_rows["test"]
    with pytest.raises(ValueError, match="Say whom it was trained on"):
        run(trained_on)


def test_persons_of_the_training_split_are_not_taken_for_held_out_where_all_splits_are_judged(model, tmp_path):
    card = "## Training data\n\necg_id: 6 train, 36 test records, split by patient.\n"
    test, train = rows(range(12)), rows(range(20, 22))
    judged = context(model, test, train, split="all", card=card)
    judged.dataset, judged.dataset_rows["all"] = "ecg_id", concatenate_datasets([test, train])
    with pytest.raises(ValueError, match="records of its training split are among the judged ones"):
        run(judged)
    (tmp_path / "gallery.csv").write_text("record_id\n0-2\n1-0\n")
    (tmp_path / "probe.csv").write_text("record_id\n0-0\n1-1\n")
    result = run(judged, split_dir=str(tmp_path))  # these are all of the test split
    assert result.seen_in_training is False and "its test split is stated as held out" in result.leakage


def test_split_files_choose_the_recordings(model, tmp_path):
    (tmp_path / "toy_gallery.csv").write_text("record_id\n0-2\n1-0\n2-1\n9-9\n")
    (tmp_path / "toy_probe.csv").write_text("record_id\n0-0\n1-1\n1-2\n")
    result = run(context(model, rows(range(12)), rows(range(20, 21))), split_dir=str(tmp_path))
    assert (result.trained["num_gallery"], result.trained["num_probes"], result.trained["rank1"]) == (3, 3, 1.0)
    assert result.left_out == {"1 recordings (9-9)": "in the split files, not among the records at hand"}
