"""The ECG tower with its door inside: one module that takes millivolts, in operations that can be traced."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from modeling_esi import ESIEcgModel, ESIFeatureExtractor, ESIForECGClassification, ESIModel
from modeling_esi.convnextv2_1d import ConvNeXtV2Block

from .millivolts import MillivoltDoor

INPUT_NAME, MASK_NAME = "signal", "lead_mask"


class ECGTower(nn.Module):
    """ECGs `(B, 12, T)` in mV, float32, at the model's rate, with leads in its order, to what the model says of them.

    `output_name` says what that is: `ecg_embeds` `(B, P)` of an `ESIModel`, L2-normalised; `logits` `(B, num_labels)`
    of an `ESIForECGClassification`; `pooler_output` `(B, H)` of an `ESIEcgModel`. NaN marks samples that were not
    recorded; a lead that is missing is all NaN, or constant. The weights are copied, in float32.

    Args:
        model: on any device, in any dtype.
        feature_extractor: its door.

    >>> import torch
    >>> from modeling_esi import ESIEcgConfig, ESIEcgModel, ESIFeatureExtractor
    >>> model = ESIEcgModel(ESIEcgConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 37]))
    >>> tower = ECGTower(model, ESIFeatureExtractor(sampling_rate=100, duration=5.0))
    >>> output, lead_mask = tower(torch.randn(2, 12, 777))
    >>> tower.output_name, output.shape, lead_mask.shape
    ('pooler_output', torch.Size([2, 37]), torch.Size([2, 12]))
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: ESIFeatureExtractor):
        super().__init__()
        self.output_name, head = head_of(model)
        self.door = MillivoltDoor(feature_extractor)
        self.ecg_model = copy.deepcopy(ecg_model_of(model))
        self.head = copy.deepcopy(head)
        for name, module in list(self.ecg_model.named_modules()):
            if isinstance(module, ConvNeXtV2Block):
                self.ecg_model.set_submodule(name, PlainBlock(module))
        self.requires_grad_(False).to("cpu", torch.float32).eval()

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and `lead_mask (B, 12)`, true where a lead was measured or derived.

        Of a record that the feature extractor would refuse, the output is NaN and the mask false throughout.
        """
        values, lead_mask, sample_mask, accepted = self.door(signal)
        ecg = self.ecg_model(values, lead_mask=lead_mask, sample_mask=sample_mask, return_dict=True)
        output = self.head(ecg.pooler_output)
        return output.masked_fill(~accepted[:, None], float("nan")), lead_mask & accepted[:, None]


class PlainBlock(nn.Module):
    """`ConvNeXtV2Block` in plain operations: the one in training loops over records, which would fix their number."""

    def __init__(self, block: ConvNeXtV2Block):
        super().__init__()
        self.dwconv, self.norm, self.pwconv1, self.pwconv2 = block.dwconv, block.norm, block.pwconv1, block.pwconv2
        self.gamma, self.beta, self.eps = block.grn.gamma, block.grn.beta, block.grn.eps

    def forward(self, x: Tensor, frame_mask: Tensor | None) -> Tensor:
        """`(B, F, C)` to `(B, F, C)`; masked frames come in as 0 and stay so."""
        y = self.dwconv(x.transpose(1, 2)).transpose(1, 2)  # (B, F, C) -> (B, C, F) -> (B, F, C)
        h = F.gelu(self.pwconv1(self.norm(y)))
        seen = h if frame_mask is None else h * frame_mask.unsqueeze(-1)
        energy = seen.square().sum(dim=1, keepdim=True).sqrt()
        scale = 1 + self.gamma * energy / (energy.mean(dim=-1, keepdim=True) + self.eps)
        x = x + self.pwconv2(h * scale + self.beta)
        return x if frame_mask is None else x.masked_fill(~frame_mask.unsqueeze(-1), 0.0)


class _Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


def ecg_model_of(model: PreTrainedModel) -> ESIEcgModel:
    """The encoder inside a model, which may be itself."""
    return model if isinstance(model, ESIEcgModel) else model.ecg_model


def head_of(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """The output's name, as the model itself calls it, and what makes it of the pooled vector."""
    if isinstance(model, ESIEcgModel):
        return "pooler_output", nn.Identity()
    if isinstance(model, ESIForECGClassification):
        return "logits", model.classifier
    if isinstance(model, ESIModel):
        return "ecg_embeds", nn.Sequential(model.ecg_head, model.ecg_norm, model.ecg_projection, _Normalise())
    raise ValueError(
        f"model: expected an ESIModel, ESIEcgModel or ESIForECGClassification, got {type(model).__name__}."
    )
