"""XResNet1d: a bottleneck ResNet along time, with the stem and shortcuts of "bag of tricks".

He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019,
https://arxiv.org/abs/1812.01187; for ECGs: Strodthoff et al. 2020, https://arxiv.org/abs/2004.13701.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_esi import ESIEcgConfig

EXPANSION = 4
STEM_WIDTHS = (32, 32, 64)


class ConvNormAct(nn.Module):
    """Convolution without bias, BatchNorm, and ReLU where asked for; `(B, C, T)` to `(B, C', ceil(T / stride))`."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int,
        stride: int = 1,
        act: bool = True,
        starts_at_zero: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv1d(in_width, out_width, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
        self.norm = nn.BatchNorm1d(out_width)
        self.norm.starts_at_zero = starts_at_zero  # read where weights are initialised
        self.act = act

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        """`frame_mask` is the output's, `(B, ceil(T / stride))`."""
        x = self.norm(self.conv(x))
        return _mask_frames(F.relu(x) if self.act else x, frame_mask)


class XResNetBlock(GradientCheckpointingLayer):
    """Bottleneck of three convolutions around a shortcut that averages where the stride is not 1."""

    def __init__(self, in_width: int, out_width: int, kernel: int, stride: int):
        super().__init__()
        inner = out_width // EXPANSION
        self.stride = stride
        self.convs = nn.ModuleList(
            [
                ConvNormAct(in_width, inner, 1),
                ConvNormAct(inner, inner, kernel, stride=stride),
                ConvNormAct(inner, out_width, 1, act=False, starts_at_zero=True),
            ]
        )
        self.shortcut = ConvNormAct(in_width, out_width, 1, act=False) if in_width != out_width else None

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        out_mask = _every_other(frame_mask) if self.stride == 2 else frame_mask
        y = self.convs[0](x, frame_mask)
        y = self.convs[2](self.convs[1](y, out_mask), out_mask)
        if self.stride == 2:
            x = _mask_frames(_average_pairs(x, frame_mask), out_mask)
        if self.shortcut is not None:
            x = self.shortcut(x, out_mask)
        return F.relu(x + y)


class XResNet1dEncoder(nn.Module):
    """`(B, num_leads, S)` to frames `(B, F, C)` and a pooled vector `(B, 2 C)`, maximum and mean; total stride 32.

    Example:

    ```python
    >>> import torch
    >>> from modeling_esi.configuration_esi import ESIEcgConfig
    >>> from modeling_esi.xresnet1d import XResNet1dEncoder
    >>> encoder = XResNet1dEncoder(ESIEcgConfig(signal_encoder="xresnet1d101")).eval()
    >>> frames, pooled, _, _ = encoder(torch.zeros(1, 12, 500))
    >>> frames.shape, pooled.shape
    (torch.Size([1, 16, 256]), torch.Size([1, 512]))

    ```"""

    def __init__(self, config: ESIEcgConfig):
        super().__init__()
        self.hidden_size = config.hidden_size
        kernel = config.kernel_size
        stem_widths = (config.num_leads, *STEM_WIDTHS)
        self.stem = nn.ModuleList(
            ConvNormAct(stem_widths[i], stem_widths[i + 1], kernel, stride=2 if i == 0 else 1) for i in range(3)
        )
        widths = (STEM_WIDTHS[-1], *config.hidden_sizes)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                XResNetBlock(
                    widths[s] if b == 0 else widths[s + 1], widths[s + 1], kernel, stride=2 if b == 0 and s > 0 else 1
                )
                for b in range(depth)
            )
            for s, depth in enumerate(config.depths)
        )

    def forward(
        self, input_values: torch.Tensor, sample_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """Encode signals.

        Args:
            input_values: `(B, num_leads, S)`, zero wherever `sample_mask` is.
            sample_mask: `(B, S)` bool, true where a sample is real; `None` where all are.

        Returns:
            Frames `(B, F, C)`, pooled `(B, 2 C)`, frame mask `(B, F)` or `None`, and each stage's output
            `(B, F_s, C_s)`.
        """
        frame_mask = _every_other(sample_mask)
        x = input_values
        for layer in self.stem:
            x = layer(x, frame_mask)
        # After ReLU nothing is negative, so the zeros of masked frames never win a maximum.
        x, frame_mask = F.max_pool1d(x, kernel_size=3, stride=2, padding=1), _every_other(frame_mask)
        x, stage_outputs = _mask_frames(x, frame_mask), ()
        for s, blocks in enumerate(self.stages):
            for b, block in enumerate(blocks):
                x = block(x, frame_mask)
                if s > 0 and b == 0:
                    frame_mask = _every_other(frame_mask)
            stage_outputs += (x.transpose(1, 2),)
        pooled = torch.cat([x.amax(dim=-1), _mean_over_frames(x, frame_mask)], dim=-1)
        return stage_outputs[-1], pooled, frame_mask, stage_outputs  # (B, C, F) -> (B, F, C)


def _mask_frames(x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    return x if frame_mask is None else x.masked_fill(~frame_mask.unsqueeze(1), 0.0)


def _every_other(frame_mask: torch.Tensor | None) -> torch.Tensor | None:
    """The frames whose centre is real, as a centred convolution of stride 2 would have made them."""
    return None if frame_mask is None else frame_mask[:, ::2]


def _average_pairs(x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """Average neighbours; a last one without a neighbour, or with a masked one, stands for itself."""
    averaged = F.avg_pool1d(x, kernel_size=2, stride=2, ceil_mode=True)
    if frame_mask is None:
        return averaged
    share = F.avg_pool1d(frame_mask.to(x.dtype).unsqueeze(1), kernel_size=2, stride=2, ceil_mode=True)
    return averaged / share.clamp(min=0.5)


def _mean_over_frames(x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    # One formula for both cases, so that a whole record gives the same bits with and without a mask.
    count = x.shape[-1] if frame_mask is None else frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return x.sum(dim=-1) / count
