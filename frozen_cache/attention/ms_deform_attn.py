"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, Eq. 3).

Parameters are named as in the official checkpoints. Sampling runs through `grid_sample`, so it works on every device;
kernels of optional packages take its place where `backends.py` says so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from frozen_cache.attention.backends import fast_sampling
from frozen_cache.attention.samples import weighted_samples
from frozen_cache.precision import wide


class MSDeformAttn(nn.Module):
    """Each query samples P points on each of L levels per head.

    Args:
        dim: width D of queries and values.
        levels: L.
        heads: number of heads; must divide dim.
        points: P sampled points per head and level.
    """

    def __init__(self, *, dim: int, levels: int, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not a multiple of {heads} heads")
        self.dim, self.levels, self.heads, self.points = dim, levels, heads, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Deformable DETR's start: offsets on a grid of directions, uniform attention."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        grid = torch.stack([angles.cos(), angles.sin()], -1)
        grid = grid / grid.abs().max(-1, keepdim=True).values
        grid = grid.view(self.heads, 1, 1, 2).repeat(1, self.levels, self.points, 1)
        grid = grid * torch.arange(1, self.points + 1, dtype=torch.float32).view(1, 1, -1, 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(grid.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value: Tensor,
        shapes: list[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, N, D), position embedding already added.
            reference_points: (B, N, L, 2) as x, y in 0..1 of each level, or (B, N, L, 4) as cx, cy, w, h in 0..1.
            value: (B, S, D), the levels flattened and concatenated, S = sum of H * W.
            shapes: (H, W) of each level.
            padding_mask: (B, S) bool, True where `value` is padding (set to zero after its projection).

        Returns:
            (B, N, D).
        """
        batch, count, _ = query.shape
        value = self.value_proj(value)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.view(batch, -1, self.heads, self.dim // self.heads)
        # Places and the weighted sum are float32 also under autocast: half precision would misplace the samples.
        weights = wide(self.attention_weights(query)).view(batch, count, self.heads, self.levels * self.points)
        weights = short_softmax(weights).view(batch, count, self.heads, self.levels, self.points)
        locations = self._locations(query, reference_points, shapes)
        return self.output_proj(deformable_sampling(value, shapes, locations, weights))

    def _locations(self, query: Tensor, reference_points: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """(B, N, heads, L, P, 2) as x, y in 0..1."""
        batch, count, _ = query.shape
        offsets = wide(self.sampling_offsets(query)).view(batch, count, self.heads, self.levels, self.points, 2)
        if reference_points.shape[-1] == 2:
            # Filled in on the device: copying numbers over from the host would wait for it. One row of all that a query
            # divides by: a short last axis is slow to go along.
            lengths = [length for h, w in shapes for length in (w, h)]
            sizes = torch.cat([offsets.new_full((1,), length) for length in lengths]).view(-1, 1, 2)
            sizes = sizes.expand(self.heads, -1, self.points, -1)[None].flatten(1)
            moved = (offsets.flatten(2) / sizes).view_as(offsets)
            return reference_points[:, :, None, :, None, :] + moved
        centre, extent = reference_points[..., :2], reference_points[..., 2:]
        return centre[:, :, None, :, None, :] + offsets / self.points * extent[:, :, None, :, None, :] * 0.5


def short_softmax(scores: Tensor) -> Tensor:
    """`scores.softmax(-1)`, in inference on CPUs by its parts: for few numbers in a row PyTorch's own takes seven times
    as long."""
    if torch.is_grad_enabled() or torch.compiler.is_exporting() or scores.device.type != "cpu":
        return scores.softmax(-1)
    shares = (scores - scores.amax(-1, keepdim=True)).exp_()
    return shares.div_(shares.sum(-1, keepdim=True))


def deformable_sampling(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples, zero outside, pixel centres at half-integers.

    Args:
        value: (B, S, heads, D / heads).
        shapes: (H, W) of each of the L levels; S = sum of H * W.
        locations: (B, N, heads, L, P, 2) as x, y in 0..1.
        weights: (B, N, heads, L, P).

    Returns:
        (B, N, D).
    """
    fast = fast_sampling(value, shapes, locations, weights)
    if fast is not None:
        return fast
    grid = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B * heads, L, P, N, 2)
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B * heads, L, P, N)
    out = weighted_samples(value, shapes, grid, shares)
    return out.reshape(value.shape[0], -1, locations.shape[1]).transpose(1, 2)
