"""A first guess at the mask of an object that has a box, and perhaps points: where its colours are more those of the
middle of the box than those around it, as GrabCut has it (Rother, Kolmogorov, Blake 2004), without its cuts; of colours
near by more than of all."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, roi_align

from frozen_cache.boxes import enlarged
from frozen_cache.masks.points import sample_points
from frozen_cache.training.colours import lab
from frozen_cache.training.told_points import Places, Points, nearness, told

CONTEXT = 1.5
"""Side of the window whose colours are looked at, in RoIs."""
SAMPLES = 20
"""Cells of it along a side."""
LIKENESS = 5.0
"""Standard deviation, in CIELAB, of what counts as one colour."""
REACH = 0.25
"""Standard deviation of what counts as near, in sides of the object's box."""
EVERYWHERE = 0.5
"""What colours tell wherever they are, by what those near by tell: these alone leave a part of the surroundings to the
object where its box shows nothing else near."""
STEEPNESS = 2.0
"""Log odds of the middle of a box to be its object; those of the ellipse that touches its sides are 0."""
ROUNDS = 8
"""How often the colours of object and surroundings are estimated anew."""


def guessed_masks(
    pixels: Tensor | None,
    *,
    rois: Tensor,
    boxes: Tensor,
    side: int,
    points: Points | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """Probabilities that the cells of RoIs are their objects; 0 outside of the boxes.

    Args:
        pixels: (3, H, W) RGB of the view in 0..255; None leaves the ellipses, and what points tell of them.
        rois: (N, 4) cxcywh in 0..1 of the view.
        boxes: (N, 4) of the objects, xyxy in 0..1 of their RoIs; may leave them.
        side: R.
        points: in and outside of the objects; None for none.
        prior: (N, S, S) log odds of the RoIs' cells, where more is known of the objects than their boxes: in place of
            the ellipses.

    Returns:
        (N, R, R) float32.
    """
    if not len(rois):
        return torch.zeros(0, side, side)
    points = Points.none(len(rois)) if points is None else points
    inner, around = _colours(pixels, rois, side), _colours(pixels, enlarged(rois, CONTEXT), SAMPLES)
    cells = _places(boxes, _grid(side).expand(len(rois), -1, -1), inner, prior)
    spots = _places(boxes, points.at, _at(inner, points.at, side=side), prior)
    window = _places(boxes, ((_grid(SAMPLES) - 0.5) * CONTEXT + 0.5).expand(len(rois), -1, -1), around, prior)
    if pixels is not None:
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)[:, None]
        before, like = told(window, spots, points, boxes=boxes), _Likeness(window, window, sides)
        inside = before.sigmoid()
        for _ in range(ROUNDS):
            inside = (before + like.told(inside)).sigmoid()
        cells, spots = (
            replace(each, odds=each.odds + _Likeness(each, window, sides).told(inside)) for each in (cells, spots)
        )
    return told(cells, spots, points, boxes=boxes).sigmoid().view(-1, side, side)


class _Likeness:
    """How much C places of N objects are like S others, `sides` (N, 1, 2) being those of the objects' boxes."""

    def __init__(self, one: Places, other: Places, sides: Tensor) -> None:
        self._alike = nearness(one.colours, other.colours, LIKENESS)  # (N, C, S)
        self._near = self._alike * nearness(one.at / sides, other.at / sides, REACH)

    def told(self, inside: Tensor) -> Tensor:
        """(N, C) log odds: of the colours near by, and of all; `inside` (N, S) of the others."""
        shares = torch.stack([inside, 1 - inside], dim=2)
        near = _log_ratio(self._near @ shares)
        return near + EVERYWHERE * _log_ratio(self._alike @ (shares / shares.sum(1, keepdim=True).clamp(min=1e-6)))


def _log_ratio(densities: Tensor) -> Tensor:
    """(N, C) of densities (N, C, 2) in the object and around it."""
    of_object, of_rest = (densities + 1e-6).log().unbind(2)
    return of_object - of_rest


def _places(boxes: Tensor, at: Tensor, colours: Tensor, prior: Tensor | None) -> Places:
    """(N, C, 2) places of RoIs, likely of their objects, xyxy in 0..1 of them, by the ellipses in the boxes, or by what
    is known before: minus infinity outside of the boxes."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    off = (at - centre[:, None]) / half[:, None].clamp(min=1e-6)
    odds = STEEPNESS * (1 - off.square().sum(-1)) if prior is None else sample_points(prior, at)
    return Places(at, odds.masked_fill((off.abs() > 1).any(-1), -torch.inf), colours)


def _colours(pixels: Tensor | None, rois: Tensor, side: int) -> Tensor:
    """(N, side side, 3) CIELAB; without pictures (N, side side, 0), so that all is alike."""
    if pixels is None:
        return rois.new_zeros(len(rois), side * side, 0)
    height, width = pixels.shape[-2:]
    corners = box_convert(rois, "cxcywh", "xyxy") * rois.new_tensor([width, height, width, height])
    return lab(roi_align(pixels[None].float(), [corners], output_size=side, aligned=True)).flatten(2).transpose(1, 2)


def _at(cells: Tensor, points: Tensor, *, side: int) -> Tensor:
    """(N, P, 3) of (N, side side, 3) at points (N, P, 2), x, y in 0..1."""
    if not cells.shape[2]:
        return cells.new_zeros(*points.shape[:2], 0)
    maps = cells.transpose(1, 2).unflatten(2, (side, side))
    found = F.grid_sample(maps, 2 * points[:, None] - 1, padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def _grid(side: int) -> Tensor:
    """(side side, 2) x, y in 0..1 of the centres of cells."""
    places = (torch.arange(side) + 0.5) / side
    return torch.stack([places.repeat(side), places.repeat_interleave(side)], dim=1)
