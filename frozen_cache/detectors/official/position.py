"""Sine embeddings of positions and boxes (H-DETR `models/position_encoding.py`, DINO `models/dino/utils.py`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine(values: Tensor, *, width: int, temperature: float) -> Tensor:
    """(..., width) of (...): sin and cos, interleaved, of values / temperature^(2 floor(i / 2) / width)."""
    index = torch.arange(width, dtype=torch.float32, device=values.device)
    periods = temperature ** (2 * (index // 2) / width)
    angles = values[..., None] / periods
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), -1).flatten(-2)


def sine_map(padding: Tensor, *, width: int, temperature: float, half_pixel: bool) -> Tensor:
    """Position embedding of a map, rows first.

    Args:
        padding: (B, H, W) bool, True on padding.
        width: channels D of the result.
        temperature: 10,000 in H-DETR, 20 in DINO.
        half_pixel: positions are pixel centres (H-DETR) or one-based indices (DINO), over the valid size.

    Returns:
        (B, H, W, D) float32.
    """
    rows = (~padding).cumsum(1, dtype=torch.float32)
    columns = (~padding).cumsum(2, dtype=torch.float32)
    shift = 0.5 if half_pixel else 0.0
    rows = (rows - shift) / (rows[:, -1:, :] + 1e-6) * (2 * math.pi)
    columns = (columns - shift) / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
    return torch.cat([sine(each, width=width // 2, temperature=temperature) for each in (rows, columns)], -1)


def token_positions(
    level_padding: list[Tensor], level_embed: Tensor, *, temperature: float, half_pixel: bool
) -> Tensor:
    """Position of every token, all levels one after the other: sine embedding plus the level's own.

    Args:
        level_padding: (B, H, W) bool of each level, True on padding.
        level_embed: (L, D).

    Returns:
        (B, S, D).
    """
    width = level_embed.shape[1]
    return torch.cat(
        [
            sine_map(padding, width=width, temperature=temperature, half_pixel=half_pixel).flatten(1, 2) + embedding
            for padding, embedding in zip(level_padding, level_embed, strict=True)
        ],
        1,
    )


def sine_boxes(boxes: Tensor, *, width: int, order: tuple[int, int, int, int]) -> Tensor:
    """(B, N, 4 * width) embedding of boxes (B, N, 4) cxcywh in 0..1, the coordinates taken in `order`."""
    return sine(boxes[..., list(order)] * (2 * math.pi), width=width, temperature=10000).flatten(-2)
