"""Masks that cover one box, sampled on the cells of another: how masks of several sides or boxes meet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cell_centres(boxes_cxcywh: Tensor, side: int) -> Tensor:
    """(N, side, side, 2) x, y of the centres of the cells of N boxes, in the boxes' own unit."""
    steps = (torch.arange(side, dtype=boxes_cxcywh.dtype, device=boxes_cxcywh.device) + 0.5) / side - 0.5
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    return boxes_cxcywh[:, None, None, :2] + offsets * boxes_cxcywh[:, None, None, 2:]


def resampled(masks: Tensor, boxes_cxcywh: Tensor, *, onto_cxcywh: Tensor, side: int) -> Tensor:
    """What masks are at the cells of other boxes: bilinear, 0 outside of the boxes that they cover.

    Args:
        masks: (N, R, R).
        boxes_cxcywh: (N, 4) that the masks cover.
        onto_cxcywh: (N, 4) in the same unit.
        side: of the result.

    Returns:
        (N, side, side).
    """
    if masks.shape[-1] == side and torch.equal(boxes_cxcywh, onto_cxcywh):
        return masks
    if len(masks) == 0:
        return masks.new_zeros(0, side, side)
    boxes = boxes_cxcywh[:, None, None]
    tiny = torch.finfo(boxes.dtype).tiny
    grid = 2 * (cell_centres(onto_cxcywh, side) - boxes[..., :2]) / boxes[..., 2:].clamp(min=tiny)  # -1..1 within
    # Held at the border, as the outermost half cell lies beyond all centres; what is outside is cut off after that.
    values = F.grid_sample(
        masks[:, None], grid.to(masks.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[:, 0] * (grid.abs() <= 1).all(-1)
