"""A model as it was saved, with its feature extractor and licence; and what it says of millivolts itself."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass

import numpy as np
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

import modeling_esi  # noqa: F401  registers the Auto classes: no code of the folder is run
from modeling_esi import ESIFeatureExtractor
from modeling_esi.evaluation.context import read_card

from .tower import head_of

NOT_STATED = "not stated"


@dataclass(frozen=True)
class SavedModel:
    """A model, its feature extractor, and the licence of its weights: what an export starts from.

    Attributes:
        model: `ESIModel`, `ESIForECGClassification` or `ESIEcgModel`.
        feature_extractor: its door.
        license: as the Hub writes it.
    """

    model: PreTrainedModel
    feature_extractor: ESIFeatureExtractor
    license: str = NOT_STATED

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> SavedModel:
        """What a folder or a repository of the Hub holds, as the class it was saved as. Raises OSError, ValueError."""
        architectures = AutoConfig.from_pretrained(name).architectures or []
        classifies = "ESIForECGClassification" in architectures
        model = (AutoModelForSequenceClassification if classifies else AutoModel).from_pretrained(name)
        return cls(model.eval(), ESIFeatureExtractor.from_pretrained(name), license_of(name))

    def in_float32(self) -> SavedModel:
        """The same on the CPU, in evaluation mode and in float32: itself, where it is so already."""
        model = self.model
        if model.training or {(weight.device.type, weight.dtype) for weight in model.parameters()} != {
            ("cpu", torch.float32)
        }:
            model = copy.deepcopy(model).to("cpu", torch.float32).eval()
        return SavedModel(model, self.feature_extractor, self.license)

    @torch.no_grad()
    def __call__(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What an exported tower must give: output and lead mask, NaN and false for a record that is refused.

        Args:
            signal: `(B, 12, T)` float32 in mV, at the feature extractor's rate and with leads in its order.
        """
        door, given = self.feature_extractor, torch.from_numpy(signal)
        reasons = door.reject_reasons(given, door.sampling_rate, door.leads)
        accepted = torch.tensor([reason is None for reason in reasons])
        if not accepted.any():
            raise ValueError(f"signal: expected a record that the feature extractor accepts, got {reasons}.")
        inputs = door.transform(given[accepted], door.sampling_rate, door.leads)
        found = self._output(**inputs)
        output = torch.full((len(signal), found.shape[1]), torch.nan)
        lead_mask = torch.zeros(signal.shape[:2], dtype=torch.bool)
        output[accepted], lead_mask[accepted] = found, inputs["lead_mask"]
        return output.numpy(), lead_mask.numpy()

    def _output(self, **inputs: torch.Tensor) -> torch.Tensor:
        name, _ = head_of(self.model)
        if name == "ecg_embeds":
            return self.model.get_ecg_features(**inputs)
        return self.model(**inputs)[name]


def license_of(name: str | os.PathLike[str]) -> str:
    """The licence that the card of a folder or repository names; "not stated" where there is none."""
    card = read_card(name)
    return (card and ModelCard(card).data.to_dict().get("license")) or NOT_STATED
