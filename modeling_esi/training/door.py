"""From the records and texts of a step to what the model sees of them: cropped, augmented, tokenised, on its device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
from modeling_esi.processing_esi import ESIProcessor

from .augmentation import SignalAugmentation, drop_leads
from .batches import StepBatch


def training_processor(processor: ESIProcessor, crop_duration: float | None) -> ESIProcessor:
    """The saved processor, with a door that lets in `crop_duration` seconds; itself where that is `None`.

    Short crops of a record are different examples of one text; the encoder takes any length, so what is saved keeps
    its own duration. Crops of 2.5 s as in Strodthoff et al. 2021, https://arxiv.org/abs/2004.13701.

    Raises:
        ValueError: for a crop that is longer than what the saved door lets in, or no positive number.
    """
    door = processor.feature_extractor
    if crop_duration is None:
        return processor
    if crop_duration > door.duration:
        raise ValueError(
            f"--crop_duration: expected at most --duration, {door.duration:g} s, got {crop_duration:g} s: a model is "
            "not judged on less than it was trained on. Raise --duration."
        )
    cropping = ESIFeatureExtractor.from_dict(door.to_dict() | {"duration": crop_duration})
    return ESIProcessor(cropping, processor.tokenizer, max_text_length=processor.max_text_length)


@dataclass(frozen=True)
class TrainingDoor:
    """Model inputs of a training batch: random crop, augmented signal, dropped leads, tokens, what is positive.

    Every draw comes from the step's own seed: crops from the batch's generator, the rest from torch's.

    Attributes:
        processor: of `training_processor`.
        augmentation: of signals in mV, before they are scaled.
        lead_dropout: chance of a record to lose leads (`drop_leads`).
        device: where the inputs are made and stay.

    Raises:
        ValueError: for a chance outside 0..1.
    """

    processor: ESIProcessor
    augmentation: SignalAugmentation
    lead_dropout: float
    device: torch.device

    def __post_init__(self) -> None:
        if not 0 <= self.lead_dropout <= 1:
            raise ValueError(f"--lead_dropout: expected a probability from 0 to 1, got {self.lead_dropout!r}.")

    def __call__(self, batch: StepBatch) -> dict[str, torch.Tensor]:
        """Arguments of `ESIModel.forward`, each with the batch's records as rows."""
        inputs = self.processor(
            batch.records,
            batch.texts,
            crop="random",
            generator=batch.crop_generator(),
            augment=self.augmentation.bind(self.processor.feature_extractor.sampling_rate),
            device=self.device,
        )
        if self.lead_dropout:
            dropped = drop_leads(inputs["input_values"], inputs["lead_mask"], self.lead_dropout)
            inputs["input_values"], inputs["lead_mask"] = dropped
        positives = {name: torch.as_tensor(value).to(self.device, non_blocking=True)
                     for name, value in batch.positives().items()}  # fmt: skip
        return {**inputs, **positives}
