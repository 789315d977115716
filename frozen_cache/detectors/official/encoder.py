"""The deformable encoder, the same in H-DETR and DINO: post-norm layers, no final norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.attention import MSDeformAttn
from frozen_cache.detectors.official.config import OfficialConfig
from frozen_cache.detectors.official.pyramid import Pyramid


class EncoderLayer(nn.Module):
    """Deformable self-attention, then FFN with ReLU, each followed by its LayerNorm."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = MSDeformAttn(dim=dim, levels=config.levels, heads=config.heads, points=config.points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.ffn)
        self.linear2 = nn.Linear(config.ffn, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        references: Tensor,
        shapes: list[tuple[int, int]],
        padding: Tensor | None,
    ) -> Tensor:
        """(B, S, D) of tokens (B, S, D) with positions (B, S, D) and references (B, S, L, 2)."""
        tokens = self.norm1(tokens + self.self_attn(tokens + positions, references, tokens, shapes, padding))
        return self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config=config) for _ in range(config.encoder_layers))

    def forward(self, pyramid: Pyramid, positions: Tensor, keep: tuple[int, ...]) -> tuple[Tensor, dict[int, Tensor]]:
        """Encode.

        Args:
            pyramid: the levels.
            positions: (B, S, D), the level embedding already added.
            keep: layers to keep, counted from 1.

        Returns:
            The last layer's tokens (B, S, D), and those of each kept layer.
        """
        tokens, kept = pyramid.tokens, {}
        references = reference_points(pyramid)
        padding = pyramid.padding if pyramid.any_padding else None
        for number, layer in enumerate(self.layers, 1):
            tokens = layer(tokens, positions, references, pyramid.shapes, padding)
            if number in keep:
                kept[number] = tokens
        return tokens, kept


def reference_points(pyramid: Pyramid) -> Tensor:
    """(B, S, L, 2): each token's own centre as x, y in 0..1 of the padded size of every level."""
    device, points = pyramid.tokens.device, []
    for level, (height, width) in enumerate(pyramid.shapes):
        rows = torch.linspace(0.5, height - 0.5, height, dtype=torch.float32, device=device)
        columns = torch.linspace(0.5, width - 0.5, width, dtype=torch.float32, device=device)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        ratios = pyramid.valid_ratios[:, None, level]
        y = y.reshape(-1)[None] / (ratios[..., 1] * height)
        x = x.reshape(-1)[None] / (ratios[..., 0] * width)
        points.append(torch.stack((x, y), -1))
    return torch.cat(points, 1)[:, :, None] * pyramid.valid_ratios[:, None]
