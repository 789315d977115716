"""Parameter-free position embeddings, and reference points of a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine(values: Tensor, dim: int, *, temperature: float = 10_000.0) -> Tensor:
    """DETR's sine embedding of numbers in 0..1: sines and cosines in turn. (...,) to (..., dim); dim is even."""
    scale = 2 * math.pi * values[..., None]
    frequency = torch.arange(dim // 2, dtype=values.dtype, device=values.device) * (2 / dim)
    angle = scale / temperature**frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def box_sine(boxes: Tensor, dim: int) -> Tensor:
    """(N, 4) cxcywh in 0..1 to (N, dim), dim / 4 for each of cx, cy, w, h (H-DETR's order)."""
    return sine(boxes, dim // 4).flatten(-2)


def grid_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(H * W, 2) x, y in 0..1 of the cells' centres, row by row, with the dtype and device of `like`."""
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def grid_sine(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """(H * W, dim) sine embedding of the cells' centres: dim / 2 for y, then dim / 2 for x, as DETR orders them."""
    x, y = grid_centres(height, width, like).unbind(-1)
    half = dim // 2
    return torch.cat([sine(y, half - half % 2), sine(x, dim - (half - half % 2))], dim=-1)
