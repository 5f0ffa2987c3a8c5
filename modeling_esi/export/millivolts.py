"""The door as a graph: millivolts to `input_values` in operations that can be traced for any batch and any length.

It computes what `ESIFeatureExtractor` does to records that have the model's sampling rate and all twelve leads in the
model's order. A graph cannot raise an error: a record that the feature extractor would refuse is told as such.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
from modeling_esi.lead_names import LIMB_LEADS, limb_lead_weights


class MillivoltDoor(nn.Module):
    """`(B, 12, T)` float32 in mV, NaN where there is no sample, to what an ECG encoder reads.

    Gaps are bridged, dead leads masked, limb leads derived; the first `duration` seconds are scaled and padded.

    Args:
        feature_extractor: whose settings are taken over.

    >>> from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
    >>> door = MillivoltDoor(ESIFeatureExtractor(sampling_rate=100, duration=2.0))
    >>> values, lead_mask, sample_mask, accepted = door(torch.randn(3, 12, 150))
    >>> values.shape, lead_mask.all().item(), sample_mask.sum(dim=1).tolist(), accepted.tolist()
    (torch.Size([3, 12, 200]), True, [150, 150, 150], [True, True, True])
    """

    def __init__(self, feature_extractor: ESIFeatureExtractor):
        super().__init__()
        rate = feature_extractor.sampling_rate
        self.settings = feature_extractor
        self.longest_gap = int(feature_extractor.max_gap * rate + 1e-6)
        self.fewest_samples = fewest_samples(feature_extractor)
        order = list(feature_extractor.leads)
        limb = [order.index(lead) for lead in LIMB_LEADS]
        others = [slot for slot in range(len(order)) if slot not in limb]
        arranged = limb + others
        self.register_buffer("limb_first", torch.tensor(arranged), persistent=False)
        self.register_buffer("as_before", torch.tensor(arranged).argsort(), persistent=False)
        self.register_buffer("bits", 2 ** torch.arange(len(LIMB_LEADS)), persistent=False)
        self.register_buffer("weights_by_pattern", _limb_weights_by_pattern(), persistent=False)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns `input_values (B, 12, S)`, `lead_mask (B, 12)`, `sample_mask (B, S)`, and whether accepted `(B,)`."""
        num_samples = torch.ones_like(signal[:, 0]).sum(dim=-1, keepdim=True)  # (B, 1): a number in the graph
        infinite = signal.isinf().any(dim=-1)
        values = bridge_gaps(signal, self.longest_gap)
        gappy = values.isnan().any(dim=-1)
        values = values.masked_fill((infinite | gappy)[..., None], 0.0)
        present = values.amin(dim=-1) < values.amax(dim=-1)  # a lead that never changes is a dead one
        values = values.masked_fill(~present[..., None], 0.0)
        accepted = present.any(dim=1) & ~infinite.any(dim=1) & (num_samples[:, 0] >= self.fewest_samples)

        values, lead_mask = self._derive_limb_leads(values, present)
        length = self.settings.num_samples
        values = F.pad(values, (0, length))[..., :length]  # (B, 12, T) -> (B, 12, S)
        sample_mask = torch.arange(length, device=signal.device) < num_samples
        return self._scale(values, lead_mask, sample_mask), lead_mask, sample_mask, accepted

    def _derive_limb_leads(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Each record's limb leads from those it has, by the row of a table that its pattern of leads chooses."""
        count = len(LIMB_LEADS)
        values, present = values[:, self.limb_first], present[:, self.limb_first]
        limb_present = present[:, :count]
        pattern = (limb_present * self.bits).sum(dim=-1)
        limb = self.weights_by_pattern[pattern] @ values[:, :count]
        limb_present = limb_present | (limb_present.sum(dim=-1, keepdim=True) >= 2)
        values = torch.cat([limb, values[:, count:]], dim=1)[:, self.as_before]
        return values, torch.cat([limb_present, present[:, count:]], dim=1)[:, self.as_before]

    def _scale(self, values: Tensor, lead_mask: Tensor, sample_mask: Tensor) -> Tensor:
        settings = self.settings
        if settings.scaling == "none":
            return values
        if settings.scaling == "fixed":
            bend, unit = settings.fixed_clip_mv, settings.fixed_scale_mv
            return torch.tanh(values / bend) * (bend / unit)
        seen = (lead_mask[..., None] & sample_mask[:, None]).double()
        axes = (-1,) if settings.scaling == "lead" else (1, 2)
        values, count = values.double(), seen.sum(dim=axes, keepdim=True).clamp(min=1)
        centred = (values - (values * seen).sum(dim=axes, keepdim=True) / count) * seen
        deviation = (centred.square().sum(dim=axes, keepdim=True) / count).sqrt()
        return (centred / (deviation + settings.scale_eps)).float()


def fewest_samples(feature_extractor: ESIFeatureExtractor) -> int:
    """Samples of the shortest record that is accepted."""
    return math.ceil(feature_extractor.min_duration * feature_extractor.sampling_rate)


def bridge_gaps(signal: Tensor, longest: int) -> Tensor:
    """Bridges runs of NaN of at most `longest` samples, as the feature extractor does, without a look at the data.

    Args:
        signal: `(B, leads, T)`.
        longest: in samples.

    Returns:
        The same shape. Longer runs come back as NaN, in part at least.
    """
    num_samples = signal.shape[-1]
    clock = torch.arange(num_samples, device=signal.device).expand(signal.shape)
    known = ~signal.isnan()
    # Further away than `longest`, nothing known can be the end of a run that is to be bridged: T stands for none.
    before = _last_known(known, clock, longest)
    after = num_samples - 1 - _last_known(known.flip(-1), clock, longest).flip(-1)
    is_long = (after - before - 1 > longest) & ~known

    left = torch.where(before < 0, after, before).clamp(max=num_samples - 1)
    right = torch.where(after >= num_samples, before, after).clamp(min=0)
    left_value, right_value = signal.gather(-1, left), signal.gather(-1, right)
    share = (clock - left) / (right - left).clamp(min=1)
    bridged = torch.where(known, signal, left_value + (right_value - left_value) * share)
    return bridged.masked_fill(is_long, float("nan"))


def _last_known(known: Tensor, clock: Tensor, longest: int) -> Tensor:
    """The position of the last known sample at most `longest` before each sample (itself counts), -1 for none."""
    found = torch.where(known, clock, -1)
    seen = 1  # samples that each position has looked at; doubled until it is `longest + 1`
    while seen <= longest:
        step = min(seen, longest + 1 - seen)
        found = torch.maximum(found, F.pad(found, (step, 0), value=-1)[..., : known.shape[-1]])
        seen += step
    return found


def _limb_weights_by_pattern() -> Tensor:
    """`(64, 6, 6)`: for each pattern of limb leads (bit i: lead i is there) the six leads from those that are there."""
    count = len(LIMB_LEADS)
    table = torch.zeros(2**count, count, count)
    for pattern in range(2**count):
        there = [i for i in range(count) if pattern >> i & 1]
        table[pattern, there, there] = 1.0
        if len(there) < 2:
            continue
        for lead, weights in limb_lead_weights(tuple(LIMB_LEADS[i] for i in there)).items():
            table[pattern, LIMB_LEADS.index(lead), there] = torch.tensor(weights)
    return table
