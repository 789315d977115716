"""What points in and outside of objects tell of the places around them: kriging (Gaussian process regression) of log
odds. A point counts for places that are near, and more where the colours are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ODDS = 3.0
"""Log odds that a point tells: in the object by this, outside by minus this."""
VARIANCE = 8.0
"""Of the log odds that were guessed before the points were seen."""
NOISE = 3.0
"""Variance of what a point tells."""
REACH = 0.22
"""Standard deviation of what counts as near, in sides of the object's box."""
LIKENESS = 10.0
"""Standard deviation, in CIELAB, of what counts as alike."""
ANY_COLOUR = 0.3
"""Share of what a point tells that holds whatever the colours."""
MOST = 12.0
"""Log odds beyond it, as outside of the box, are no surer."""


@dataclass(frozen=True)
class Places:
    """Where something is known, or asked, of N objects."""

    at: Tensor
    """(N, C, 2) x, y in 0..1 of their RoIs."""
    odds: Tensor
    """(N, C) log odds to be of the object, as far as they are known."""
    colours: Tensor
    """(N, C, 3) CIELAB, or (N, C, 0) where all is alike."""


@dataclass(frozen=True)
class Points:
    """In and outside of N objects."""

    at: Tensor
    """(N, P, 2) x, y in 0..1 of the RoI."""
    inside: Tensor
    """(N, P) float32, 1 in the object, 0 outside."""
    known: Tensor
    """(N, P) float32, 1 where there is a point and the RoI shows it."""

    @classmethod
    def none(cls, objects: int) -> Points:
        """P = 0."""
        return cls(torch.zeros(objects, 0, 2), torch.zeros(objects, 0), torch.zeros(objects, 0))

    @classmethod
    def joined(cls, parts: Sequence[Points]) -> Points:
        """One after the other; of equal P."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("at", "inside", "known")))

    def take(self, rows: Tensor) -> Points:
        """Of the objects (M,) int64."""
        return Points(self.at[rows], self.inside[rows], self.known[rows])


def told(cells: Places, spots: Places, points: Points, *, boxes: Tensor) -> Tensor:
    """(N, C) log odds of `cells` once the points are seen; an object without any keeps its own.

    Args:
        spots: the places of the points.
        boxes: (N, 4) of the objects, xyxy in 0..1 of the RoIs.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)[:, None]
    known = points.known
    news = (ODDS * (2 * points.inside - 1) - spots.odds.clamp(-MOST, MOST)) * known
    among = _kernel(spots, spots, sides) * known[:, None] * known[:, :, None]
    shares = torch.linalg.solve(among + NOISE * torch.eye(known.shape[1]), news[..., None])
    return cells.odds + (_kernel(cells, spots, sides) @ shares)[..., 0]


def _kernel(one: Places, other: Places, sides: Tensor) -> Tensor:
    """(N, C, P) covariances of the odds of places."""
    alike = ANY_COLOUR + (1 - ANY_COLOUR) * nearness(one.colours, other.colours, LIKENESS)
    return VARIANCE * nearness(one.at / sides, other.at / sides, REACH) * alike


def nearness(one: Tensor, other: Tensor, deviation: float) -> Tensor:
    """(N, C, S) Gaussian of the distances of places or colours (N, C, D) and (N, S, D): 1 where they are equal."""
    return torch.cdist(one, other).div_(deviation).square_().mul_(-0.5).exp_()
