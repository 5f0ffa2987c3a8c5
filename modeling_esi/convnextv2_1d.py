"""ConvNeXt V2 along time, for 12-lead ECGs.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023,
https://arxiv.org/abs/2301.00808, with one-dimensional convolutions.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_esi import ESIEcgConfig
from .feed_forward import linear_gelu_grn_linear


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its energy over time relative to all channels' (ConvNeXt V2, section 3.3).

    It stands between a linear layer with GELU and another linear layer, and is computed with both.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(
        self, x: torch.Tensor, before: nn.Module, after: nn.Module, frame_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`after(grn(gelu(before(x))))`, `(B, F, C)` to `(B, F, C')`."""
        return linear_gelu_grn_linear(x, before, self.gamma, self.beta, after, self.eps, frame_mask)


class TimeNorm(nn.Module):
    """Standardise each channel over time: the published weights' norm in stem and downsampling.

    The epsilon is added to the (unbiased) standard deviation, not to the variance.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums over time, and counts, need its digits
        seen = torch.ones_like(x[:, :, :1]) if frame_mask is None else frame_mask.unsqueeze(-1).to(x.dtype)
        count = seen.sum(dim=1, keepdim=True)
        mean = (x * seen).sum(dim=1, keepdim=True) / count.clamp(min=1)
        centred = (x - mean) * seen
        variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
        std = variance.clamp(min=torch.finfo(x.dtype).tiny).sqrt()  # the slope of sqrt at 0 is infinite
        return (centred * (self.weight / (std + self.eps)) + self.bias).to(self.weight.dtype)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over channels, at each time step on its own, as ConvNeXt has it."""

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x)


NORMS = {"channel": ChannelNorm, "time": TimeNorm}


class PatchConv(nn.Module):
    """Norm and strided convolution, in the order given; frames that are not whole are masked."""

    def __init__(self, config: ESIEcgConfig, in_width: int, out_width: int, stride: int, norm_first: bool):
        super().__init__()
        norm_width = in_width if norm_first else out_width
        self.norm_first = norm_first
        self.norm = NORMS[config.norm_type](norm_width, eps=config.layer_norm_eps)
        self.conv = nn.Conv1d(in_width, out_width, kernel_size=stride, stride=stride)

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.norm_first:
            x = _mask_frames(self.norm(x, frame_mask), frame_mask)
        x = self._project_patches(x)
        frame_mask = _whole_frames(frame_mask, self.conv.stride[0])
        if not self.norm_first:
            x = self.norm(x, frame_mask)
        return _mask_frames(x, frame_mask), frame_mask

    def _project_patches(self, x: torch.Tensor) -> torch.Tensor:
        # Kernel and stride are equal, so the convolution is a matrix product over patches that do not overlap.
        stride, weight = self.conv.stride[0], self.conv.weight
        frames = x.shape[1] // stride
        patches = x[:, : frames * stride].reshape(x.shape[0], frames, stride * x.shape[2])  # (B, F k, C) -> (B, F, k C)
        return F.linear(patches, weight.transpose(1, 2).flatten(1), self.conv.bias)


class ConvNeXtV2Block(GradientCheckpointingLayer):
    """Depthwise convolution, then a feed-forward with GRN, around a residual; no layer scale."""

    def __init__(self, config: ESIEcgConfig, width: int, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        kernel = config.kernel_size
        self.dwconv = nn.Conv1d(width, width, kernel_size=kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = GlobalResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        y = self.norm(self._depthwise(x))
        y = self.grn(y, self.pwconv1, self.pwconv2, frame_mask)
        return _mask_frames(x + self._drop_path(y), frame_mask)

    def _depthwise(self, x: torch.Tensor) -> torch.Tensor:
        # (B, F, C) is a channels-last image of height 1: as such it is convolved in place, without two transposes.
        image = x.unsqueeze(1).permute(0, 3, 1, 2)  # (B, F, C) -> (B, C, 1, F)
        conv = self.dwconv
        padding = (0, conv.padding[0])
        y = F.conv2d(image, conv.weight.unsqueeze(2), conv.bias, padding=padding, groups=conv.groups)
        return y.permute(0, 2, 3, 1).squeeze(1)  # (B, C, 1, F) -> (B, F, C)

    def _drop_path(self, y: torch.Tensor) -> torch.Tensor:
        if self.drop_path_rate == 0.0 or not self.training:
            return y
        kept = torch.rand(y.shape[0], 1, 1, device=y.device) >= self.drop_path_rate
        return y * kept / (1.0 - self.drop_path_rate)


class ConvNeXtV2Encoder1d(nn.Module):
    """`(B, num_leads, S)` to frames `(B, F, H)` and a pooled vector `(B, H)`; total stride 32.

    Example:

    ```python
    >>> import torch
    >>> from modeling_esi.configuration_esi import ESIEcgConfig
    >>> from modeling_esi.convnextv2_1d import ConvNeXtV2Encoder1d
    >>> encoder = ConvNeXtV2Encoder1d(ESIEcgConfig(depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 37]))
    >>> frames, pooled, _, _ = encoder(torch.zeros(2, 12, 500))
    >>> frames.shape, pooled.shape
    (torch.Size([2, 15, 37]), torch.Size([2, 37]))

    ```"""

    def __init__(self, config: ESIEcgConfig):
        super().__init__()
        self.hidden_size = config.hidden_size
        widths = config.hidden_sizes
        self.downsamples = nn.ModuleList(
            [PatchConv(config, config.num_leads, widths[0], config.patch_size, norm_first=False)]
            + [PatchConv(config, widths[i], widths[i + 1], 2, norm_first=True) for i in range(3)]
        )
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist())
        self.stages = nn.ModuleList(
            nn.ModuleList(ConvNeXtV2Block(config, width, next(rates)) for _ in range(depth))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=config.layer_norm_eps)

    def forward(
        self, input_values: torch.Tensor, sample_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """Encode signals.

        Args:
            input_values: `(B, num_leads, S)`, zero wherever `sample_mask` is.
            sample_mask: `(B, S)` bool, true where a sample is real; `None` where all are.

        Returns:
            Frames `(B, F, H)`, pooled `(B, H)`, frame mask `(B, F)` or `None`, and each stage's output
            `(B, F_s, C_s)`.
        """
        x, frame_mask, stage_outputs = input_values.transpose(1, 2), sample_mask, ()  # (B, C, S) -> (B, S, C)
        for downsample, blocks in zip(self.downsamples, self.stages, strict=True):
            x, frame_mask = downsample(x, frame_mask)
            for block in blocks:
                x = block(x, frame_mask)
            stage_outputs += (x,)
        return x, self.norm(_mean_over_frames(x, frame_mask)), frame_mask, stage_outputs


def _mask_frames(x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    x = x.contiguous()  # one layout with and without a mask: sums then run in one order, to the same bits
    return x if frame_mask is None else x.masked_fill(~frame_mask.unsqueeze(-1), 0.0)


def _whole_frames(frame_mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    """`(B, F)` to `(B, F // stride)`: a frame counts only where all it is made of does, as without padding."""
    return None if frame_mask is None else frame_mask.unfold(1, stride, stride).all(dim=-1)


def _mean_over_frames(x: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    # One formula for both cases, so that a whole record gives the same bits with and without a mask.
    count = x.shape[1] if frame_mask is None else frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return x.sum(dim=1) / count
