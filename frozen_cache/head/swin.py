"""Swin Transformer layer (arXiv 2103.14030), for the finest image level (Table 2) or a RoI (Table 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.head.attention import attend
from frozen_cache.head.feed_forward import FeedForward
from frozen_cache.head.norm import LayerNorm, attention_heads

IMAGE_WINDOW = 14
"""The window that fits the paper's parameter count in the image encoder."""
ROI_WINDOW = 8
"""The same for RoIs of 32 x 32."""


class SwinLayer(nn.Module):
    """LayerNorm, window attention with relative position bias, LayerNorm, feed-forward; pre-norm residuals.

    Maps of any size: cells added to fill the last window are never seen by real ones. Where one window covers the
    map, it is not shifted. 795,592 parameters at D = 256 and window 14, 791,560 at window 8.

    Args:
        dim: width D.
        window: side of a window, in cells.
        shifted: windows are moved by half their side; every second layer of an encoder.
    """

    def __init__(self, *, dim: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, window // 2 if shifted else 0, attention_heads(dim)
        self.attention_norm = LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.feed_forward_norm = LayerNorm(dim)
        self.feed_forward = FeedForward(dim=dim)
        self.register_buffer("pairs", _relative_index(window), persistent=False)

    pairs: Tensor

    def forward(self, feature: Tensor) -> Tensor:
        """(B, D, H, W) to (B, D, H, W)."""
        tokens = feature.permute(0, 2, 3, 1)
        tokens = tokens + self._attend(self.attention_norm(tokens))
        tokens = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return tokens.permute(0, 3, 1, 2)

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, height, width, _ = tokens.shape
        side = self.window
        shift = (self.shift if height > side else 0, self.shift if width > side else 0)
        padding = (0, 0, 0, -width % side, 0, -height % side)
        padded = F.pad(tokens, padding).roll((-shift[0], -shift[1]), (1, 2))
        windows = _windows(padded, side)  # (B * windows, side^2, D)
        query, key, value = self.qkv(windows).chunk(3, dim=-1)
        bias = self.position_bias[self.pairs].permute(2, 0, 1)[None]  # (1, heads, side^2, side^2)
        if any(shift) or any(padding):
            region = _windows(_regions(height, width, side, shift, tokens.device), side)  # (windows, side^2, 1)
            apart = torch.zeros((), dtype=bias.dtype, device=bias.device).masked_fill(
                region != region.transpose(1, 2), -1e4
            )
            bias = bias + apart.repeat(batch, 1, 1)[:, None]
        attended = self.out(attend(query, key, value, heads=self.heads, bias=bias))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        merged = attended.view(batch, rows, columns, side, side, -1).transpose(2, 3).reshape(padded.shape)
        return merged.roll(shift, (1, 2))[:, :height, :width]


def _windows(tokens: Tensor, side: int) -> Tensor:
    """(B, H, W, D) to (B * windows, side^2, D)."""
    batch, height, width, dim = tokens.shape
    cut = tokens.view(batch, height // side, side, width // side, side, dim).transpose(2, 3)
    return cut.reshape(-1, side * side, dim)


def _relative_index(window: int) -> Tensor:
    """(window^2, window^2) row of the bias table for each pair of cells."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)


def _regions(height: int, width: int, side: int, shift: tuple[int, int], device: torch.device) -> Tensor:
    """(1, H', W', 1) numbers of the regions of a padded, rolled map; cells of different regions are not neighbours."""
    parts = []
    for length, moved in ((height, shift[0]), (width, shift[1])):
        padded = length + -length % side
        part = torch.zeros(padded, dtype=torch.int64, device=device)
        part[padded - moved :] = 1  # rolled round from the other end
        part[length - moved : padded - moved] = 2  # padding
        parts.append(part)
    return (3 * parts[0][:, None] + parts[1])[None, ..., None]
