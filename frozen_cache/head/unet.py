"""A U-Net over each RoI: a box encoder beyond the paper that sees the whole RoI at the cost of a few convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.head.norm import group_norm


class UNet(nn.Module):
    """R -> R/2 -> R/4 -> R/2 -> R: 3x3 convolutions with GroupNorm and GELU, max-pooling, skip connections.

    Its output is added to its input, so that it starts near what RoIAlign gave.

    Args:
        dim: width D, the same at each scale.
        convs: convolutions per scale, on the way down and up.
    """

    def __init__(self, *, dim: int, convs: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(dim, dim, convs) for _ in range(2))
        self.bottom = _block(dim, dim, convs)
        self.up = nn.ModuleList(_block(2 * dim, dim, convs) for _ in range(2))
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, rois: Tensor) -> Tensor:
        """(N, D, R, R) to (N, D, R, R), R at least 4."""
        skips, feature = [], rois
        for block in self.down:
            skips.append(block(feature))
            feature = F.max_pool2d(skips[-1], 2)
        feature = self.bottom(feature)
        for block in self.up:
            skip = skips.pop()
            raised = F.interpolate(feature, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            feature = block(torch.cat([raised, skip], dim=1))
        return rois + self.out(feature)


def _block(channels: int, dim: int, convs: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for index in range(convs):
        parts += [nn.Conv2d(channels if index == 0 else dim, dim, 3, padding=1), group_norm(dim), nn.GELU()]
    return nn.Sequential(*parts)
