"""Weighted sums of `grid_sample`'s samples, of which none is kept for the backward pass.

All samples of a layer are `levels x points` times the size of what it returns: 2.9 GB for eight images of 800 x 1333.
So the backward pass takes the samples of one level after the other once more, which costs less than to keep them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from frozen_cache.precision import wide

BILINEAR, ZEROS = 0, 0
"""Torch's operators know the mode and the padding by number."""


def weighted_samples(value: Tensor, shapes: list[tuple[int, int]], grid: Tensor, shares: Tensor) -> Tensor:
    """Sum over levels and points of share x bilinear sample, in float32 where the maps are half precision.

    Args:
        value: (B, S, heads, D / heads).
        shapes: (H, W) of each of the L levels; S = sum of H * W.
        grid: (B * heads, L, P, N, 2) as x, y in -1..1. Queries come last, as what multiplies samples likes them.
        shares: (B * heads, L, P, N).

    Returns:
        (B * heads, D / heads, N).
    """
    if torch.is_grad_enabled() and any(each.requires_grad for each in (value, grid, shares)):
        return _WeightedSamples.apply(value, shapes, grid, shares)
    return _forward(value, shapes, grid, shares)


class _WeightedSamples(torch.autograd.Function):
    """Keeps what it was given, and nothing else."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: list[tuple[int, int]], grid: Tensor, shares: Tensor) -> Tensor:
        ctx.save_for_backward(value, grid, shares)
        ctx.shapes = shapes
        return _forward(value, shapes, grid, shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        value, grid, shares = ctx.saved_tensors
        batch, _, heads, width = value.shape
        outer = gradient[:, :, None]  # (B * heads, D / heads, 1, N)
        values, places, of_shares = [], [], []
        for image, at, share in _levels(value, ctx.shapes, grid, shares):
            sampled = _sampled(image, at)
            of_shares.append(sampled.mul_(outer).sum(1))
            of_image, of_place = torch.ops.aten.grid_sampler_2d_backward(
                torch.mul(outer, share[:, None], out=sampled), image, at, BILINEAR, ZEROS, False, [True, True]
            )
            values.append(of_image.view(batch, heads, width, -1).permute(0, 3, 1, 2))
            places.append(of_place)
        return (
            torch.cat(values, 1).to(value.dtype),
            None,
            torch.stack(places, 1).to(grid.dtype),
            torch.stack(of_shares, 1).to(shares.dtype),
        )


def _forward(value: Tensor, shapes: list[tuple[int, int]], grid: Tensor, shares: Tensor) -> Tensor:
    out: Tensor | None = None
    for image, at, share in _levels(value, shapes, grid, shares):
        for point in range(at.shape[1]):
            sampled = _sampled(image, at[:, point : point + 1])[:, :, 0]
            weight = share[:, None, point]
            out = sampled * weight if out is None else torch.addcmul(out, sampled, weight)
    assert out is not None, "there is a level and a point"
    return out


def _sampled(image: Tensor, at: Tensor) -> Tensor:
    """(B * heads, D / heads, P, N)."""
    return F.grid_sample(image, at, mode="bilinear", padding_mode="zeros", align_corners=False)


def _levels(
    value: Tensor, shapes: list[tuple[int, int]], grid: Tensor, shares: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each level: (B * heads, D / heads, H, W) map, (B * heads, P, N, 2) places, (B * heads, P, N) shares."""
    batch, _, heads, width = value.shape
    parts = value.split([height * length for height, length in shapes], dim=1)
    for level, (part, (height, length)) in enumerate(zip(parts, shapes, strict=True)):
        image = wide(part).permute(0, 2, 3, 1).reshape(batch * heads, width, height, length)
        yield image, grid[:, level].to(image.dtype), shares[:, level]
