"""Bilinear sampling without the operators GridSample and RoiAlign: floor, clamp, gather, multiply, add.

Some runtimes place the samples of GridSample or RoiAlign elsewhere, or lack them; they all gather alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class GatherSampling(TorchFunctionMode):
    """Context manager: every `grid_sample` of the code that runs within is `grid_sample_by_gather`.

    It reaches the deformable attention of transformers' models too, which call `nn.functional.grid_sample`.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        replacement = grid_sample_by_gather if func is F.grid_sample else func
        return replacement(*args, **(kwargs or {}))


def grid_sample_by_gather(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """`F.grid_sample` of maps: bilinear, zero outside, pixel centres at half-integers.

    Args:
        input: (N, C, H, W).
        grid: (N, P, Q, 2) as x, y in -1..1 of the map.

    Returns:
        (N, C, P, Q).

    Raises:
        NotImplementedError: for other modes.
    """
    if (mode, padding_mode, bool(align_corners)) != ("bilinear", "zeros", False):
        raise NotImplementedError(f"grid_sample by gather: {mode}, {padding_mode}, align_corners={align_corners}")
    height, width = input.shape[2], input.shape[3]
    x = (grid[..., 0] + 1) * width / 2 - 0.5
    y = (grid[..., 1] + 1) * height / 2 - 0.5
    left, top = x.floor(), y.floor()
    image = torch.arange(input.shape[0], device=input.device)[:, None, None]
    sampled = torch.zeros((), dtype=input.dtype, device=input.device)
    for row, of_row in ((top, top + 1 - y), (top + 1, y - top)):
        for column, of_column in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = of_row * of_column * inside.to(of_row.dtype)
            sampled = sampled + weight[..., None] * _cells(input, image, row, column)
    return sampled.permute(0, 3, 1, 2)


def roi_align_by_gather(feature: Tensor, image: Tensor, corners: Tensor, *, size: int, sampling: int) -> Tensor:
    """torchvision's `roi_align` with `aligned=True` and a fixed number of samples.

    Args:
        feature: (B, D, H, W).
        image: (N,) int64 in 0..B-1.
        corners: (N, 4) xyxy in cells of `feature`.
        size: R.
        sampling: samples per bin and axis, from 1.

    Returns:
        (N, D, R, R).
    """
    low, extent = corners[:, :2] - 0.5, corners[:, 2:] - corners[:, :2]
    steps = (torch.arange(size * sampling, dtype=feature.dtype, device=feature.device) + 0.5) / (size * sampling)
    x, y = (low[:, None] + extent[:, None] * steps[None, :, None]).unbind(-1)  # (N, R * sampling) each
    columns, rows = _axis(x, feature.shape[3]), _axis(y, feature.shape[2])
    sampled = torch.zeros((), dtype=feature.dtype, device=feature.device)
    for row, of_row in rows:
        for column, of_column in columns:
            weight = of_row[:, :, None] * of_column[:, None, :]
            cells = _cells(feature, image[:, None, None], row[:, :, None], column[:, None, :])
            sampled = sampled + weight[..., None] * cells  # (N, R * sampling, R * sampling, D)
    bins = sampled.unflatten(2, (size, sampling)).unflatten(1, (size, sampling)).mean((2, 4))
    return bins.permute(0, 3, 1, 2)


def _axis(at: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The two neighbours of each sample on an axis and their weights; samples beyond one cell outside count nothing."""
    inside = ((at >= -1) & (at <= length)).to(at.dtype)
    at = at.clamp(min=0)
    before = at.floor().clamp(max=length - 1)
    share = (at - before).clamp(max=1) * (before < length - 1).to(at.dtype)
    return [(before, (1 - share) * inside), ((before + 1).clamp(max=length - 1), share * inside)]


def _cells(maps: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(..., C) of maps (N, C, H, W) at whole rows and columns, held to the map; the three indices broadcast."""
    height, width = maps.shape[2], maps.shape[3]
    row, column = (axis.clamp(0, side - 1).to(torch.int64) for axis, side in ((row, height), (column, width)))
    index = (image * height + row) * width + column
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2)  # (N * H * W, C)
    return rows[index]
