"""Norms in float32, also under autocast; GroupNorm and head counts that fit any width."""

from __future__ import annotations

from torch import Tensor, nn

from frozen_cache.precision import wide

MAX_GROUPS = 32
MAX_HEADS = 8


class LayerNorm(nn.LayerNorm):
    """LayerNorm that takes and gives float32 where it is handed half precision."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return super().forward(wide(input))


class GroupNorm(nn.GroupNorm):
    """GroupNorm that takes and gives float32 where it is handed half precision."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, D, H, W) to (B, D, H, W)."""
        return super().forward(wide(input))


def group_norm(channels: int) -> GroupNorm:
    """GroupNorm with at most 32 groups that divide the channels, each of two channels or more.

    A group of one channel would have nothing to normalise over in a map of one pixel.
    """
    most = min(MAX_GROUPS, max(1, channels // 2))
    return GroupNorm(max(groups for groups in range(1, most + 1) if channels % groups == 0), channels)


def attention_heads(dim: int) -> int:
    """The largest number of attention heads, up to the paper's 8, that divides the width."""
    return max(heads for heads in range(1, MAX_HEADS + 1) if dim % heads == 0)
