"""The changes by name, and embeddings of changed records: each as if recorded so, none that cannot be changed so."""

import numpy as np
import pytest
from datasets import Dataset
from tiny_esi import tiny_esi

from datasets_scripts.records import ECGRecord, record_to_row, row_features, row_to_record
from modeling_esi import ESIFeatureExtractor
from modeling_esi.configuration_esi import LEADS
from modeling_esi.evaluation.changed_records import conditions, embed_changed, refusal
from modeling_esi.evaluation.embedding import embed_ecgs
from modeling_esi.evaluation.perturbations import add_noise, keep_leads

DOOR = ESIFeatureExtractor(sampling_rate=100, duration=2.0)


def record(number: int, leads: tuple[str, ...] = tuple(LEADS)) -> ECGRecord:
    signal = np.random.default_rng(number).normal(size=(len(leads), 500)).astype(np.float32)
    return ECGRecord(signal, leads, 250.0, record_id=f"r{number}")


def rows(records: list[ECGRecord]) -> Dataset:
    return Dataset.from_list([record_to_row(r) for r in records], features=row_features("float32"))


@pytest.fixture(scope="module")
def model():
    return tiny_esi(caption_loss_weight=0.0)


def test_every_condition_has_a_key_and_says_what_the_door_does():
    found = {condition.key: condition for condition in conditions()}
    assert len(found) == 1 + 5 + 4 * 5 + 4 + 4
    assert list(found)[0] == "clean"
    assert {"leads/3", "noise/white/24dB", "noise/powerline/0dB", "sampling_rate/1000Hz", "duration/2.5s"} <= set(found)
    said = found["leads/3"].detail
    assert said == "recorded I II V2; derived III aVR aVL aVF; masked V1 V3 V4 V5 V6"
    assert "derived" not in found["leads/1"].detail
    assert [c.group for c in conditions(["duration"])] == ["clean"] + ["duration"] * 4
    with pytest.raises(ValueError, match="expected some of leads, .*got tempo"):
        list(conditions(["tempo"]))


def test_each_condition_changes_records_as_it_says():
    clean = record(0)
    for condition in conditions():
        changed = condition.change(clean)
        if condition.group == "leads":
            assert changed.num_leads == condition.value
        elif condition.group == "noise":
            noise = changed.signal - clean.signal
            measured = 10 * np.log10(clean.signal.var(axis=1) / noise.var(axis=1))
            np.testing.assert_allclose(measured, condition.value, atol=0.1)
        elif condition.group == "sampling_rate":
            assert changed.sampling_rate == condition.value and changed.duration == pytest.approx(2.0)
        elif condition.group == "duration":
            assert changed.duration == min(2.0, condition.value)
        else:
            assert changed is clean


def test_unchanged_records_have_the_usual_embeddings(model):
    data = rows([record(i) for i in range(5)])
    expected = embed_ecgs(model, DOOR, data)
    for batch_size in (2, 64):
        np.testing.assert_allclose(embed_changed(model, DOOR, data, lambda r: r, batch_size), expected, atol=1e-5)
    windows = embed_changed(model, DOOR, data, lambda r: r, window=0.5)
    np.testing.assert_allclose(windows, embed_ecgs(model, DOOR, data, window=0.5), atol=1e-5)
    assert not np.allclose(windows, expected, atol=1e-4)


def test_changed_records_are_embedded_as_if_they_were_recorded_so(model):
    data = rows([record(i) for i in range(5)])
    for change in (lambda r: add_noise(r, "white", 6, seed=2), lambda r: keep_leads(r, ("I", "V2"))):
        stored = rows([change(row_to_record(row)) for row in data])
        embeds = embed_changed(model, DOOR, data, change, batch_size=3)
        np.testing.assert_allclose(embeds, embed_ecgs(model, DOOR, stored), atol=1e-5)


def test_a_record_that_cannot_be_changed_is_nan_and_says_why(model):
    flat = record(2)
    flat.signal[0] = 0.5  # lead I alone is flat: refused only where nothing else is left
    data = rows([record(0), record(1, ("II", "V1")), flat, record(3)])

    def change(r: ECGRecord) -> ECGRecord:
        return keep_leads(r, ("I",))

    for batch_size in (1, 3, 64):
        embeds = embed_changed(model, DOOR, data, change, batch_size)
        assert np.isnan(embeds).all(axis=1).tolist() == [False, True, True, False]
    alone = embed_changed(model, DOOR, data.select([3]), change)
    np.testing.assert_allclose(embeds[3:], alone, atol=1e-5)
    assert "leave out I" in refusal(record(1, ("II", "V1")), change, DOOR)
    assert "all flat" in refusal(flat, change, DOOR) and refusal(record(0), change, DOOR) is None
    assert np.isnan(embed_changed(model, DOOR, data.select([1, 2]), change)).all()
