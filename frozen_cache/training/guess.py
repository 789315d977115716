"""A first guess at the mask of an object that has a box alone: where its colours are more those of the middle of the
box than those around it, as GrabCut has it (Rother, Kolmogorov, Blake 2004), without its cuts."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert, roi_align

from frozen_cache.boxes import enlarged
from frozen_cache.training.colours import lab

CONTEXT = 1.5
"""Side of the window whose colours are looked at, in RoIs."""
SAMPLES = 20
"""Cells of it along a side."""
LIKENESS = 6.0
"""Standard deviation, in CIELAB, of what counts as one colour."""
STEEPNESS = 2.0
"""Log odds of the middle of a box to be its object; those of the ellipse that touches its sides are 0."""
ROUNDS = 3
"""How often the colours of object and surroundings are estimated anew."""


def guessed_masks(pixels: Tensor | None, *, rois: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Probabilities that the cells of RoIs are their objects; 0 outside of the boxes.

    Args:
        pixels: (3, H, W) RGB of the view in 0..255; None leaves the ellipses alone.
        rois: (N, 4) cxcywh in 0..1 of the view.
        boxes: (N, 4) of the objects, xyxy in 0..1 of their RoIs; may leave them.
        side: R.

    Returns:
        (N, R, R) float32.
    """
    odds = _ellipses(boxes, _places(side))
    if pixels is not None and len(rois):
        odds = odds + _colour_odds(pixels, rois=rois, boxes=boxes, side=side)
    return odds.sigmoid().view(-1, side, side)


def _colour_odds(pixels: Tensor, *, rois: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(N, R R) log odds that colours are the object's, by their densities in it and around it."""
    around = _colours(pixels, enlarged(rois, CONTEXT), SAMPLES)
    kernel = _alikeness(around, around)
    prior = _ellipses(boxes, (_places(SAMPLES) - 0.5) * CONTEXT + 0.5)
    inside = prior.sigmoid()
    for _ in range(ROUNDS):
        inside = (prior + _log_ratio(kernel, inside)).sigmoid()
    return _log_ratio(_alikeness(_colours(pixels, rois, side), around), inside)


def _log_ratio(kernel: Tensor, inside: Tensor) -> Tensor:
    """(N, C) log of the density of colours in the object over that around it; `kernel` (N, C, S), `inside` (N, S)."""
    shares = torch.stack([inside, 1 - inside], dim=2)
    of_object, of_rest = (kernel @ (shares / shares.sum(1, keepdim=True).clamp(min=1e-6))).unbind(2)
    return ((of_object + 1e-6) / (of_rest + 1e-6)).log()


def _alikeness(colours: Tensor, others: Tensor) -> Tensor:
    """(N, C, S) of colours (N, C, 3) and (N, S, 3)."""
    return torch.cdist(colours, others).div_(LIKENESS).square_().mul_(-0.5).exp_()


def _colours(pixels: Tensor, rois: Tensor, side: int) -> Tensor:
    """(N, side side, 3) CIELAB."""
    height, width = pixels.shape[-2:]
    corners = box_convert(rois, "cxcywh", "xyxy") * rois.new_tensor([width, height, width, height])
    return lab(roi_align(pixels[None].float(), [corners], output_size=side, aligned=True)).flatten(2).transpose(1, 2)


def _places(side: int) -> Tensor:
    """(side,) centres of cells in 0..1."""
    return (torch.arange(side) + 0.5) / side


def _ellipses(boxes: Tensor, places: Tensor) -> Tensor:
    """(N, P P) log odds of cells at rows and columns (P,) in 0..1 of the RoIs; minus infinity outside of the boxes."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = ((places - centre[:, axis, None]) / half[:, axis, None].clamp(min=1e-6) for axis in (0, 1))
    odds = STEEPNESS * (1 - x.square()[:, None] - y.square()[:, :, None])
    outside = (x.abs() > 1)[:, None] | (y.abs() > 1)[:, :, None]
    return odds.masked_fill(outside, -torch.inf).flatten(1)
