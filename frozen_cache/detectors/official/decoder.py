"""What the decoders of H-DETR and DINO share: the layer, the box head, the inverse sigmoid."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.attention import MSDeformAttn
from frozen_cache.detectors.official.config import OfficialConfig
from frozen_cache.detectors.official.pyramid import Pyramid


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., sizes[-1]) of (..., sizes[0])."""
        for layer in list(self.layers)[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DecoderLayer(nn.Module):
    """Self-attention of the queries, deformable cross-attention, FFN; post-norm."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        dim = config.dim
        self.cross_attn = MSDeformAttn(dim=dim, levels=config.levels, heads=config.heads, points=config.points)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.ffn)
        self.linear2 = nn.Linear(config.ffn, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, positions: Tensor, references: Tensor, memory: Tensor, pyramid: Pyramid
    ) -> Tensor:
        """(B, Q, D) of queries and positions (B, Q, D), references (B, Q, L, 4) and memory (B, S, D)."""
        placed = queries + positions
        queries = self.norm2(queries + self.self_attn(placed, placed, queries, need_weights=False)[0])
        padding = pyramid.padding if pyramid.any_padding else None
        attended = self.cross_attn(queries + positions, references, memory, pyramid.shapes, padding)
        queries = self.norm1(queries + attended)
        return self.norm3(queries + self.linear2(F.relu(self.linear1(queries))))


def inverse_sigmoid(x: Tensor, *, eps: float) -> Tensor:
    """log(x / (1 - x)) with both sides at least `eps` (1e-5 in H-DETR, 1e-3 in DINO)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def level_references(boxes: Tensor, pyramid: Pyramid) -> Tensor:
    """(B, Q, L, 4) of boxes (B, Q, 4) cxcywh in 0..1 of the valid image: in 0..1 of each level's padded size.

    No gradient goes through them: each layer refines the boxes that it is given (Deformable DETR).
    """
    return boxes.detach()[:, :, None] * pyramid.valid_ratios.repeat(1, 1, 2)[:, None]
