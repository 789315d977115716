"""RoIAlign as sums over bags of cells, as `attention/bags.py` samples: a fraction of the time that torchvision's takes
on CPUs, and its result lies as convolutions read it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bag_align(feature: Tensor, rois: Tensor, *, size: int, sampling: int) -> Tensor:
    """`torchvision.ops.roi_align(feature, rois, size, sampling_ratio=sampling, aligned=True)`, without gradients.

    Args:
        feature: (B, D, H, W), best in the order `channels_last`: any other is copied.
        rois: (N, 5) number of the map, then xyxy in its cells.
        size: R.
        sampling: samples per bin and axis, at least 1.

    Returns:
        (N, D, R, R), `channels_last`.
    """
    height, width = feature.shape[2:]
    rows, of_y = _axis(rois[:, 2], rois[:, 4], height, size=size, sampling=sampling)
    columns, of_x = _axis(rois[:, 1], rois[:, 3], width, size=size, sampling=sampling)
    rows = rows + rois[:, 0].to(torch.int32)[:, None, None] * height
    cells = (rows * width)[:, :, None, :, None] + columns[:, None, :, None, :]  # (N, R, R, 2 S, 2 S)
    shares = of_y[:, :, None, :, None] * of_x[:, None, :, None, :]
    first = torch.arange(0, cells.numel(), 4 * sampling**2, dtype=torch.int32)
    table = feature.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
    cut = F.embedding_bag(cells.flatten(), table, first, mode="sum", per_sample_weights=shares.flatten())
    return cut.view(len(rois), size, size, -1).permute(0, 3, 1, 2)


def _axis(low: Tensor, high: Tensor, length: int, *, size: int, sampling: int) -> tuple[Tensor, Tensor]:
    """Of boxes from low to high, (N,), on an axis of so many cells: the two cells of each sample of each bin, int32,
    and their shares in the bin's mean, (N, R, 2 S) each. Samples more than a cell outside count nothing."""
    each = ((high - low) / size)[:, None, None]
    bins = torch.arange(size, dtype=low.dtype)[:, None]
    steps = torch.arange(sampling, dtype=low.dtype) + 0.5
    at = (low - 0.5)[:, None, None] + bins * each + steps * each / sampling  # (N, R, S), in torchvision's order
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    before = at.floor()
    after = at - before
    cells = torch.stack([before, (before + 1).clamp(max=length - 1)], dim=-1).to(torch.int32)
    shares = torch.stack([1 - after, after], dim=-1) * (inside.to(low.dtype) / sampling)[..., None]
    return cells.flatten(2), shares.flatten(2)
