"""Losses of training alone, with small heads of their own: none of it travels with the weights.

They read what `ESIModel` gives out: frames, frame mask, text states, logits. All are scalars, computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ----- several true pairs for a text ----------------------------------------------------------------------------------


def multi_positive_loss(logits_per_text: Tensor, positives: Tensor) -> Tensor:
    """Symmetric cross-entropy where a text may be true of several ECGs, which share its target equally.

    As the supervised contrastive loss, https://arxiv.org/abs/2004.11362, over two kinds of embeddings.

    Args:
        logits_per_text: `(texts, ECGs)`, scaled cosines.
        positives: `(texts, ECGs)` bool, at least one in every row and column (`losses.positive_pairs`).
    """
    logits, targets = logits_per_text.float(), positives.float()
    of_text = F.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True))
    of_ecg = F.cross_entropy(logits.T, (targets / targets.sum(dim=0, keepdim=True)).T)
    return (of_text + of_ecg) / 2


class PairwiseSigmoid(nn.Module):
    """Is a text true of an ECG, for each text and each ECG on its own: SigLIP's loss, https://arxiv.org/abs/2303.15343.

    Args:
        bias: What is added to the scaled cosines, at the start; it is learned. SigLIP's -10 belongs to one positive in
            a batch; where texts are true of many ECGs, more.
    """

    def __init__(self, bias: float = -10.0):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([float(bias)]))

    def forward(self, logits_per_text: Tensor, positives: Tensor) -> Tensor:
        """Sum over texts, mean over ECGs; arguments as in `multi_positive_loss`."""
        logits = logits_per_text.float() + self.bias
        return -F.logsigmoid(torch.where(positives, logits, -logits)).sum() / logits.shape[1]


# ----- masked frames -------------------------------------------------------------------------------------------------


class MaskedFrames(nn.Module):
    """Hide spans of the signal from the encoder, and tell the hidden samples from its frames.

    Masked modelling as in ConvNeXt V2 (https://arxiv.org/abs/2301.00808) and ST-MEM (https://arxiv.org/abs/2402.09450),
    with one linear layer as decoder and the joint model's own encoder pass.

    Args:
        hidden_size: width H of the frames.
        num_leads: of the signal.
        stride: samples in a frame.
        ratio: share of the frames that are hidden.
        span: hidden frames in a row.
    """

    def __init__(self, hidden_size: int, num_leads: int = 12, stride: int = 32, ratio: float = 0.3, span: int = 2):
        super().__init__()
        if not 0 < ratio < 1 or span < 1:
            raise ValueError(f"expected 0 < ratio < 1 and span >= 1, got {ratio!r} and {span!r}.")
        self.stride, self.ratio, self.span = stride, ratio, span
        self.head = nn.Linear(hidden_size, num_leads * stride)

    def hide(self, input_values: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The signals with hidden frames at zero, and which `(B, F)` bool are hidden."""
        batch, _, samples = input_values.shape
        num_frames = samples // self.stride
        starts = torch.rand((batch, num_frames), device=input_values.device, generator=generator)
        first = (starts < self.ratio / self.span).float().unsqueeze(1)
        padded = F.pad(first, (self.span - 1, 0))
        hidden = F.max_pool1d(padded, self.span, stride=1).squeeze(1) > 0
        gone = hidden.repeat_interleave(self.stride, dim=1)
        gone = F.pad(gone, (0, samples - gone.shape[1]))
        return input_values.masked_fill(gone.unsqueeze(1), 0.0), hidden

    def forward(
        self,
        frames: Tensor,
        input_values: Tensor,
        hidden: Tensor,
        lead_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Squared error on the hidden samples of present leads, each frame of a lead in units of its own spread.

        Mean over the samples of a record, then over records, of which those without a hidden frame count as 0: so
        chunks of a batch add up to the batch.

        `frames (B, F, H)` of the hidden signals; `input_values (B, 12, S)` before hiding; `hidden (B, F)`; `lead_mask
        (B, 12)` and `frame_mask (B, F)`, true where there is something to tell.
        """
        batch, leads, samples = input_values.shape
        num_frames = min(frames.shape[1], samples // self.stride)
        patches = input_values[..., : num_frames * self.stride].unflatten(2, (num_frames, self.stride))
        targets = patches.permute(0, 2, 1, 3).float()  # (B, leads, F, stride) -> (B, F, leads, stride)
        targets = (targets - targets.mean(-1, keepdim=True)) / (targets.var(-1, keepdim=True) + 1e-2).sqrt()
        guess = self.head(frames[:, :num_frames]).float().view(batch, num_frames, leads, self.stride)
        errors = (guess - targets).square().mean(-1)
        counted = hidden[:, :num_frames, None].expand_as(errors)
        if lead_mask is not None:
            counted = counted & lead_mask[:, None, :]
        if frame_mask is not None:
            counted = counted & frame_mask[:, :num_frames, None]
        return ((errors * counted).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)).mean()


# ----- tokens and frames ---------------------------------------------------------------------------------------------


class TokenFrameAlignment(nn.Module):
    """Contrast by parts: a token finds its nearest frame, a frame its nearest token (FILIP,
    https://arxiv.org/abs/2111.07783).

    Args:
        ecg_width, text_width: of frames and token states.
        width: of the space in which they meet.
        scale: factor on cosines.
    """

    def __init__(self, ecg_width: int, text_width: int, width: int = 128, scale: float = 10.0):
        super().__init__()
        self.scale = scale
        self.ecg_projection = nn.Linear(ecg_width, width, bias=False)
        self.text_projection = nn.Linear(text_width, width, bias=False)

    def logits_per_text(
        self, frames: Tensor, frame_mask: Tensor | None, text_states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """`(texts, ECGs)`: the mean over tokens of the best cosine among frames, and the same from frames, averaged."""
        frames = F.normalize(self.ecg_projection(frames).float(), dim=-1)
        tokens = F.normalize(self.text_projection(text_states).float(), dim=-1)
        if frame_mask is None:
            frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        real = attention_mask.bool()[:, None, :, None] & frame_mask.bool()[None, :, None, :]
        cosines = torch.einsum("itd,jfd->ijtf", tokens, frames).masked_fill(~real, -1.0)
        of_tokens = _mean_over(cosines.amax(dim=3), attention_mask.bool()[:, None, :])
        of_frames = _mean_over(cosines.amax(dim=2), frame_mask.bool()[None, :, :])
        return self.scale * (of_tokens + of_frames) / 2

    def forward(
        self,
        frames: Tensor,
        frame_mask: Tensor | None,
        text_states: Tensor,
        attention_mask: Tensor,
        positives: Tensor | None = None,
    ) -> Tensor:
        """Symmetric contrastive loss of `logits_per_text`; `positives` as in `multi_positive_loss`, or the pair."""
        logits = self.logits_per_text(frames, frame_mask, text_states, attention_mask)
        if positives is None:
            positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        return multi_positive_loss(logits, positives)


def _mean_over(values: Tensor, counted: Tensor) -> Tensor:
    counted = counted.expand_as(values)
    return (values * counted).sum(-1) / counted.sum(-1).clamp(min=1)
