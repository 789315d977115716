"""Box forms. cxcywh in 0..1 of a view is what the cache holds; xyxy in pixels of the crop frame is what masks need."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert

from frozen_cache.data.view import ViewTransform


def to_pixels(boxes_cxcywh: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 4) cxcywh in 0..1 to xyxy in pixels of a frame of `size` = (height, width)."""
    height, width = size
    return box_convert(boxes_cxcywh, "cxcywh", "xyxy") * boxes_cxcywh.new_tensor([width, height, width, height])


def to_unit(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 4) xyxy in pixels of a frame of `size` = (height, width) to cxcywh in 0..1."""
    height, width = size
    return box_convert(boxes_xyxy / boxes_xyxy.new_tensor([width, height, width, height]), "xyxy", "cxcywh")


def carried(boxes_cxcywh: Tensor, to: ViewTransform) -> Tensor:
    """(N, 4) cxcywh in 0..1 of an image's plain view to those of another view of it; they may leave 0..1."""
    height, width = to.original_size
    x0, y0, x1, y1 = to.crop
    scale = boxes_cxcywh.new_tensor([width / (x1 - x0), height / (y1 - y0)])
    corner = boxes_cxcywh.new_tensor([x0 / width, y0 / height])
    centre = (boxes_cxcywh[:, :2] - corner) * scale
    if to.flip:
        centre = torch.stack([1 - centre[:, 0], centre[:, 1]], dim=1)
    return torch.cat([centre, boxes_cxcywh[:, 2:] * scale], dim=1)


def carried_back(boxes_cxcywh: Tensor, of: ViewTransform) -> Tensor:
    """(N, 4) cxcywh in 0..1 of a view to those of its image's plain view: the inverse of `carried`."""
    height, width = of.original_size
    x0, y0, x1, y1 = of.crop
    scale = boxes_cxcywh.new_tensor([(x1 - x0) / width, (y1 - y0) / height])
    corner = boxes_cxcywh.new_tensor([x0 / width, y0 / height])
    centre = boxes_cxcywh[:, :2]
    if of.flip:
        centre = torch.stack([1 - centre[:, 0], centre[:, 1]], dim=1)
    return torch.cat([centre * scale + corner, boxes_cxcywh[:, 2:] * scale], dim=1)


def enlarged(boxes_cxcywh: Tensor, factor: float) -> Tensor:
    """(N, 4) boxes with both sides times `factor` about the same centres; they may leave 0..1."""
    return torch.cat([boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] * factor], dim=1)


def jittered(boxes_cxcywh: Tensor, *, amount: float, generator: torch.Generator) -> Tensor:
    """(N, 4) boxes moved by up to `amount` of their size and scaled by up to a factor 1 + `amount` either way."""
    noise = torch.rand(boxes_cxcywh.shape, generator=generator) * 2 - 1
    centre = boxes_cxcywh[:, :2] + noise[:, :2] * amount * boxes_cxcywh[:, 2:]
    extent = boxes_cxcywh[:, 2:] * (1 + amount) ** noise[:, 2:]
    return torch.cat([centre, extent], dim=1)
