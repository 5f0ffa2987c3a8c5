"""What training sees of its records: short random crops, augmented, with leads missing; and nothing of it is saved."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from datasets_scripts.records import ECGRecord
from modeling_esi import ESIFeatureExtractor, ESIProcessor
from modeling_esi.configuration_esi import LEADS
from modeling_esi.training.augmentation import SignalAugmentation
from modeling_esi.training.batches import Position, StepBatch
from modeling_esi.training.door import TrainingDoor, training_processor

OFF = {"jitter": 0.0, "gain": 0.0}
STRONG = ({"amplitude": 0.2}, {"wander": 0.5}, {"muscle": 0.2}, {"shift": 1.0}, {"jitter": 0.1}, {"gain": 0.1})


@pytest.fixture(scope="module")
def processor():
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "sinus": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    door = ESIFeatureExtractor(sampling_rate=100, duration=10.0, scaling="none", max_gap=0.1)
    return ESIProcessor(door, tokenizer, max_text_length=7)


def a_batch(seed=5, num_records=4):
    """Ramps: each sample says where in the record it stood, and in which lead."""
    ramp = (np.arange(1000) + 1e4 * np.arange(1, 13)[:, None]).astype(np.float32)
    records = [ECGRecord(ramp, LEADS, 100, text="sinus", record_id=str(number)) for number in range(num_records)]
    return StepBatch(Position(), records, ["sinus"] * num_records, np.arange(num_records), seed=1, crop_seed=seed)


def seen(processor, lead_dropout=0.0, crop_duration=2.5, seed=5, **augmentation):
    door = TrainingDoor(
        training_processor(processor, crop_duration), SignalAugmentation(**OFF | augmentation), lead_dropout,
        torch.device("cpu"),
    )  # fmt: skip
    torch.manual_seed(1)
    return door(a_batch(seed))


def test_training_sees_crops_and_the_saved_processor_whole_records(processor):
    values = seen(processor)["input_values"]
    assert values.shape == (4, 12, 250)
    starts = values[:, 0, 0] - 1e4
    assert len(starts.unique()) > 1 and (starts >= 0).all() and (starts <= 750).all()
    assert torch.equal(values - values[:, :, :1], torch.arange(250.0).expand(4, 12, 250))  # one piece, all leads alike
    assert torch.equal(values[:, 1] - values[:, 0], torch.full((4, 250), 1e4))
    assert processor(a_batch().records)["input_values"].shape == (4, 12, 1000)
    cropping = training_processor(processor, 2.5)
    assert (cropping.feature_extractor.max_gap, cropping.max_text_length) == (0.1, 7)  # all else is the same
    assert training_processor(processor, None) is processor
    assert seen(processor, crop_duration=None)["input_values"].shape == (4, 12, 1000)


def test_crops_come_from_the_batchs_own_seed(processor):
    one, again, other = (seen(processor, seed=seed)["input_values"] for seed in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("part", STRONG, ids=lambda part: next(iter(part)))
def test_each_part_changes_the_signal_and_repeats_with_the_seed(processor, part):
    one, again, plain = seen(processor, **part), seen(processor, **part), seen(processor)
    assert torch.equal(one["input_values"], again["input_values"])
    assert not torch.equal(one["input_values"], plain["input_values"])
    assert one["lead_mask"].all()


def test_dropped_leads_are_zero_and_masked(processor):
    inputs = seen(processor, lead_dropout=1.0)
    assert 0 < inputs["lead_mask"].sum() < 48 and inputs["lead_mask"].any(dim=1).all()
    assert torch.equal(inputs["input_values"].abs().sum(dim=2) > 0, inputs["lead_mask"])


def test_what_is_positive_goes_with_the_batch(processor):
    assert seen(processor)["text_key"].tolist() == [0, 1, 2, 3]
    batch = a_batch(num_records=2)
    batch.text_statements, batch.ecg_statements = torch.tensor([[3], [-1]]), torch.tensor([[3, 8], [8, -1]])
    inputs = TrainingDoor(processor, SignalAugmentation(), 0.0, torch.device("cpu"))(batch)
    assert inputs["text_statements"].tolist() == [[3], [-1]] and inputs["ecg_statements"].tolist() == [[3, 8], [8, -1]]


def test_what_makes_no_sense_is_refused(processor):
    with pytest.raises(ValueError, match="--crop_duration: expected at most --duration, 10 s, got 11 s"):
        training_processor(processor, 11)
    with pytest.raises(ValueError, match="--lead_dropout: expected a probability from 0 to 1, got 1.5"):
        TrainingDoor(processor, SignalAugmentation(), 1.5, torch.device("cpu"))
