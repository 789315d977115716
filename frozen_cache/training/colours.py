"""Which neighbouring cells of a RoI look alike: the pairs that BoxInst (arXiv 2012.02310) takes for one thing."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert, roi_align

DILATION = 2
"""Cells between neighbours, as published."""
STEPS = ((0, DILATION), (DILATION, 0), (DILATION, DILATION), (DILATION, -DILATION))
"""(down, right) from a cell to its partners: half of its eight neighbours, as each pair counts once."""
LEAST_SIMILARITY = 0.3
"""From which exp(-distance / 2) on, the distance being that in CIELAB, two cells look alike, as published."""
TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)


def lab(rgb: Tensor) -> Tensor:
    """CIELAB (D65, 2 degrees) of sRGB: (..., 3, H, W) in 0..255 to L in 0..100, a, b."""
    share = rgb / 255
    linear = torch.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    xyz = torch.einsum("ij,...jhw->...ihw", rgb.new_tensor(TO_XYZ), linear) / rgb.new_tensor(WHITE)[:, None, None]
    bent = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = bent.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def partners(values: Tensor) -> Tensor:
    """(..., R, R) to (..., 4, R, R): each cell's partner in each of `STEPS`; 0 outside."""
    padded = torch.nn.functional.pad(values, (DILATION,) * 4)
    height, width = values.shape[-2:]
    parts = [
        padded[..., DILATION + down : DILATION + down + height, DILATION + right : DILATION + right + width]
        for down, right in STEPS
    ]
    return torch.stack(parts, dim=-3)


def alike(pixels: Tensor, boxes: Tensor, inside: Tensor) -> Tensor:
    """The pairs of cells that look alike and begin in the object's box.

    Args:
        pixels: (3, H, W) RGB of the view in 0..255.
        boxes: (N, 4) the RoIs, cxcywh in 0..1 of the view.
        inside: (N, R, R) share of each cell in the object's box.

    Returns:
        (N, 4, R, R) bool.
    """
    side = inside.shape[-1]
    height, width = pixels.shape[-2:]
    corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    cells = roi_align(pixels[None].float(), [corners], output_size=side, aligned=True)
    colours = lab(cells)
    distance = (partners(colours).transpose(1, 2) - colours[:, None]).norm(dim=2)
    there = partners(torch.ones_like(inside)) > 0
    return (torch.exp(-distance / 2) >= LEAST_SIMILARITY) & there & (inside[:, None] >= 0.5)
