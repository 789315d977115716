"""ConvNeXt block (arXiv 2201.03545), for the finest image level (Table 2) or a RoI (Table 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frozen_cache.head.feed_forward import FeedForward
from frozen_cache.head.norm import LayerNorm


class ConvNeXtLayer(nn.Module):
    """Depthwise 7x7, LayerNorm, feed-forward, layer scale, residual. 539,136 parameters at D = 256."""

    # ConvNeXt starts at 1e-6, for networks of dozens of blocks; one or two blocks would long stay the identity.
    INITIAL_SCALE = 0.1

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm(dim)
        self.feed_forward = FeedForward(dim=dim)
        self.scale = nn.Parameter(torch.full((dim,), self.INITIAL_SCALE))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, D, H, W) to (B, D, H, W)."""
        tokens = self.norm(self.depthwise(feature).permute(0, 2, 3, 1))
        return feature + (self.scale * self.feed_forward(tokens)).permute(0, 3, 1, 2)
