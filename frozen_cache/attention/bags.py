"""Deformable attention as sums over bags of rows: what CPUs are fast at.

A head of a query adds up `levels x points x 4` rows of D / heads numbers, which lie in the values as they are: that is
`embedding_bag`. Each level gets a border of zeros first, so samples beyond the edge are samples like others. All four
corners of a sample follow from its upper left one: the other three are the same bags over rows further down. Nothing
is kept for the backward pass but what was given. Measured in docs/decisions/007.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MOST_TOKENS = 32_768
"""Queries, or cells, that are sampled at once: the memory of the rest is that of this many."""
FAR = 2.0**30
"""No map is so wide; what lies beyond would overflow an integer."""

with warnings.catch_warnings():  # PyTorch says once in a process that such tensors are in beta: let that be now
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), size=(1, 1))


def bag_sampling(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_sampling` of tensors of one float type, float32 or float64, on the CPU."""
    if torch.is_grad_enabled() and any(each.requires_grad for each in (value, locations, weights)):
        return _Bags.apply(value, shapes, locations, weights)
    return _forward(value, shapes, locations, weights)


class _Bags(torch.autograd.Function):
    """Keeps what it was given, and nothing else."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes = shapes
        return _forward(value, shapes, locations, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        value, locations, weights = kept = ctx.saved_tensors
        found = [torch.zeros_like(each, memory_format=torch.contiguous_format) for each in kept]
        for part in _parts(value, locations):
            given = (value[part], ctx.shapes, locations[part], weights[part], gradient[part])
            for of_all, of_part in zip(found, _backward(*given), strict=True):
                of_all[part] = of_part
        return found[0], None, found[1], found[2]


def _parts(value: Tensor, locations: Tensor) -> Iterator[slice]:
    """Images, or RoIs, that are sampled together; none where nothing is sampled."""
    step = max(1, MOST_TOKENS // max(value.shape[1], locations.shape[1], 1))
    return (slice(first, first + step) for first in range(0, len(value) if locations.numel() else 0, step))


@dataclass
class _Samples:
    """Of B images, N queries, H heads and K = levels x points; (B * N, H * K) each where nothing else is said."""

    upper: Tensor
    """(B * N * H * K,) int32 row of each sample's upper left cell."""
    lower: Tensor
    """That of the cell below."""
    right: int
    """From a cell's row to that of its right neighbour."""
    x: Tensor
    """Share of the right cells."""
    y: Tensor
    """Share of the lower cells."""
    moves: Tensor | None
    """(B * N, H * K * 2) 1 where a sample moves with its place, 0 beyond the border; for gradients."""
    sizes: Tensor
    """(H * K * 2,) width and height of the level of each sample."""
    weights: Tensor

    def corners(self) -> list[tuple[Tensor, int, Tensor]]:
        """Rows, what is added to them, and weights (B * N * H * K,): upper left and right, lower left and right."""
        low = self.weights * self.y
        low_right = low * self.x
        low_left = low - low_right
        high = self.weights - low
        high_right = high * self.x
        high_left = high - high_right
        return [
            (self.upper, 0, high_left.flatten()),
            (self.upper, self.right, high_right.flatten()),
            (self.lower, 0, low_left.flatten()),
            (self.lower, self.right, low_right.flatten()),
        ]


def _samples(shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor, *, gradients: bool = False) -> _Samples:
    batch, count, heads, levels, points, _ = locations.shape
    first, total = _first_rows(shapes)
    per_sample = (levels, points)
    sizes = locations.new_tensor([(width, height) for height, width in shapes])
    sizes = sizes[:, None].expand(*per_sample, 2).flatten().repeat(heads)
    pitch = torch.tensor([width + 2 for _, width in shapes], dtype=torch.int32)
    # Of the cell at 0, 0 in each level, which is the second of the second line, and of each head.
    origin = torch.tensor(first, dtype=torch.int32) + pitch + 1
    head = torch.arange(heads, dtype=torch.int32)[:, None]
    origin = (origin[:, None].expand(per_sample).flatten() * heads + head).flatten()
    pitch = (pitch[:, None].expand(per_sample).flatten() * heads).repeat(heads)

    at = (locations.reshape(batch * count, -1) * sizes).sub_(0.5).clamp_(-2, FAR)
    cell = at.floor().to(torch.int32).clamp_(min=-1)
    cell = torch.minimum(cell, sizes.to(torch.int32) - 1, out=cell)
    inside = at.sub_(cell)
    moves = (inside >= 0) & (inside < 1) if gradients else None
    x, y = inside.clamp_(0, 1).view(batch * count, -1, 2).unbind(-1)
    column, line = cell.view(batch * count, -1, 2).unbind(-1)
    upper = torch.addcmul(origin, line, pitch).add_(column, alpha=heads)
    if batch > 1:
        image = torch.arange(batch, dtype=torch.int32) * (total * heads)
        upper = upper.view(batch, -1).add_(image[:, None]).view(batch * count, -1)
    return _Samples(
        upper=upper.flatten(),
        lower=(upper + pitch).flatten(),
        right=heads,
        x=x.contiguous(),
        y=y.contiguous(),
        moves=moves,
        sizes=sizes,
        weights=weights.reshape(batch * count, -1),
    )


def _first_rows(shapes: list[tuple[int, int]]) -> tuple[list[int], int]:
    """Where each level begins among the bordered cells of an image, and how many there are."""
    first, total = [], 0
    for height, width in shapes:
        first.append(total)
        total += (height + 2) * (width + 2)
    return first, total


def _inner(bordered: Tensor, shapes: list[tuple[int, int]], *, up: int = 0, left: int = 0) -> Iterator[Tensor]:
    """(B, height, width, H, C) of each level of (B, bordered cells, H, C), or what lies so much further up and left."""
    for first, (height, width) in zip(_first_rows(shapes)[0], shapes, strict=True):
        level = bordered[:, first : first + (height + 2) * (width + 2)].unflatten(1, (height + 2, width + 2))
        yield level[:, 1 - up : height + 1 - up, 1 - left : width + 1 - left]


def _rows(value: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
    """(B, S, H, C) to (B * bordered cells * H, C)."""
    batch, _, heads, width = value.shape
    bordered = value.new_zeros(batch, _first_rows(shapes)[1], heads, width)
    levels = value.split([height * length for height, length in shapes], dim=1)
    for inner, level, shape in zip(_inner(bordered, shapes), levels, shapes, strict=True):
        inner.copy_(level.unflatten(1, shape))
    return bordered.view(-1, width)


def _bags(rows: Tensor, of: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows: bag i is rows `of[first[i]]` up to that before `of[first[i + 1]]`."""
    return F.embedding_bag(of, rows, first, mode="sum", per_sample_weights=weights)


def _forward(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    batch, count, heads, levels, points, _ = locations.shape
    per_bag = levels * points
    found = []
    for part in _parts(value, locations):
        samples, rows = _samples(shapes, locations[part], weights[part]), _rows(value[part], shapes)
        # One bag for all four corners: twice as fast as four, and what makes it takes less than adding them up.
        corners = samples.corners()
        cells = torch.stack([cells.view(-1, per_bag) + further for cells, further, _ in corners], dim=1).flatten()
        shares = torch.stack([shares.view(-1, per_bag) for *_, shares in corners], dim=1).flatten()
        found.append(_bags(rows, cells, torch.arange(0, len(cells), 4 * per_bag, dtype=torch.int32), shares))
    if not found:
        return value.new_zeros(batch, count, heads * value.shape[3])
    return (found[0] if len(found) == 1 else torch.cat(found)).view(batch, count, -1)


def _backward(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights."""
    per_bag = locations.shape[3] * locations.shape[4]
    samples, rows = _samples(shapes, locations, weights, gradients=True), _rows(value, shapes)
    assert samples.moves is not None
    corners = samples.corners()
    outer = gradient.reshape(-1, value.shape[3])

    high_left, high_right, low_left, low_right = (
        _dots(outer, rows[further:], cells, per_bag).view_as(samples.weights) for cells, further, _ in corners
    )
    high, low = high_left.lerp(high_right, samples.x), low_left.lerp(low_right, samples.x)
    of_weights = high.lerp(low, samples.y)
    of_y = low.sub_(high).mul_(samples.weights)
    of_x = high_right.sub_(high_left).lerp_(low_right.sub_(low_left), samples.y).mul_(samples.weights)
    of_locations = torch.stack([of_x, of_y], dim=-1).flatten(1).mul_(samples.sizes).mul_(samples.moves)

    # The values' gradient: bags of the queries that a cell was sampled by, found by sorting the samples by cell.
    cells, order = samples.upper.sort()
    every_cell = torch.arange(len(rows), dtype=torch.int32)
    first = torch.searchsorted(cells, every_cell, out_int32=True)
    bag = order.div(per_bag, rounding_mode="floor").to(torch.int32)
    of_value = torch.zeros_like(value, memory_format=torch.contiguous_format)
    for at, (_, _, shares) in enumerate(corners):
        found = _bags(outer, bag, first, shares.index_select(0, order)).view(len(value), -1, *value.shape[2:])
        levels = of_value.split([height * length for height, length in shapes], dim=1)
        moved = _inner(found, shapes, up=at // 2, left=at % 2)
        for level, shape, inner in zip(levels, shapes, moved, strict=True):
            level.unflatten(1, shape).add_(inner)
    return of_value, of_locations.view_as(locations), of_weights.view_as(weights)


def _dots(left: Tensor, right: Tensor, at: Tensor, per_row: int) -> Tensor:
    """Dot products of each row of `left` with `per_row` rows of `right`, which `at` names."""
    first = torch.arange(0, len(at) + 1, per_row, dtype=torch.int32)
    size = (len(left), len(right))
    pattern = torch.sparse_csr_tensor(first, at, left.new_zeros(len(at)), size=size, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()
