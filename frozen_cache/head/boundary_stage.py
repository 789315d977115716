"""The boundary stage: finer masks, predicted anew only where the coarse one is unsure (PointRend, arXiv 1912.08193)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.precision import wide

TRAINED_POINTS = 196
"""Points a RoI in training, as published."""
REFINED_POINTS = 784
"""Cells a RoI that are predicted anew in each doubling, as published."""


class BoundaryStage(nn.Module):
    """What is added to a coarse mask's logit at a point, from F there, the RoI's features there, and that logit.

    Three linear layers, (2 D + 1) D + D + D^2 + D + D + 1 parameters: 49,665 at D = 128. It starts by adding nothing.

    Args:
        dim: width D.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(2 * dim + 1, dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, fine: Tensor, features: Tensor, logits: Tensor) -> Tensor:
        """F (N, P, D), RoI features (N, P, D) and coarse logits (N, P) at P points, to (N, P) logits."""
        hidden = torch.cat([fine, features, logits[..., None].to(features.dtype)], dim=-1)
        hidden = F.gelu(self.second(F.gelu(self.first(hidden))))
        return logits + wide(self.out(hidden)[..., 0])


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of maps (N, D, H, W) at points (N, P, 2), x, y in 0..1 of each map, held at its border:
    (N, P, D)."""
    grid = (2 * points - 1).to(maps.dtype)[:, None]
    found = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def subdivided(logits: Tensor, *, side: int, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Masks of `side` x `side` cells, doubled as often as it takes; each time the least certain cells are predicted.

    Args:
        logits: (N, R, R).
        side: of the result; R and more leaves them as they are.
        predict: points (N, P, 2), x, y in 0..1 of the RoIs, to logits (N, P).

    Returns:
        (N, side, side) logits.
    """
    while (before := logits.shape[-1]) < side:
        now = min(2 * before, side)
        finer = F.interpolate(logits[:, None], size=(now, now), mode="bilinear", align_corners=False)[:, 0].flatten(1)
        chosen = (-finer.abs()).topk(min(REFINED_POINTS, now * now), dim=1).indices
        places = torch.stack([chosen % now, chosen // now], dim=-1)
        points = (places.to(logits.dtype) + 0.5) / now
        logits = finer.scatter(1, chosen, predict(points)).unflatten(1, (now, now))
    return logits
