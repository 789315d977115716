"""Objects without masks: what a batch knows of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.data.supervision import NO_POINT, Kind, all_masks
from frozen_cache.data.truth import GroundTruth
from frozen_cache.training.colours import STEPS, alike
from frozen_cache.training.config import LossConfig
from frozen_cache.training.guess import guessed_masks
from frozen_cache.training.told_points import Points


@dataclass(frozen=True)
class WeakTargets:
    """What is known of the N RoIs of a batch in whose data some objects lack masks. The host knows the numbers of rows:
    a step does not wait for them."""

    masked: Tensor
    """(M,) int64 RoIs of objects with masks."""
    boxed: Tensor
    """(B,) int64 RoIs of objects without masks; each has a box, and so a projection."""
    guess: Tensor | None
    """(B, R, R) probabilities of their masks (`guess.guessed_masks`); None where no loss asks for them."""
    alike: Tensor | None
    """(B, 4, R, R) bool pairs of cells of these that look alike (`colours.alike`); None without pictures."""
    pointed: Tensor
    """(Q,) int64 RoIs of objects with points."""
    points: Tensor
    """(Q, P, 2) x, y in 0..1 of the RoI."""
    inside: Tensor
    """(Q, P) float32, 1 in the object, 0 outside."""
    known: Tensor
    """(Q, P) float32, 1 where there is a point and the RoI shows it."""

    def each(self, change: Callable[[Tensor], Tensor]) -> WeakTargets:
        """The same with every tensor changed."""
        there = {name: change(value) for name, value in vars(self).items() if value is not None}
        return replace(self, **there)

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [value for value in vars(self).values() if value is not None]


class WeakCollector:
    """Collects what is known of the RoIs of a batch, view by view.

    Args:
        room: P, points that an object can have.
        pictures: whether the views' pixels can be had.
        colours: whether pairs of cells are compared by colour.
        guesses: whether masks are guessed.
        side: R.
    """

    def __init__(self, *, room: int, pictures: bool, colours: bool, side: int, guesses: bool = True) -> None:
        self._room, self._colours, self._guesses = room, colours and pictures, guesses
        self._pictures = pictures and (colours or guesses)
        self._kinds = [np.zeros(0, dtype=np.int64)]
        self._points = [Points(torch.zeros(0, room, 2), torch.zeros(0, room), torch.zeros(0, room))]
        self._alike = [torch.zeros(0, len(STEPS), side, side, dtype=torch.bool)]
        self._guess = [torch.zeros(0, side, side)]
        self._side = side

    def add(
        self,
        truth: GroundTruth,
        objects: Tensor,
        *,
        rois: Tensor,
        corners: Tensor,
        targets: Tensor,
        pixels: Callable[[], Tensor | None],
    ) -> None:
        """Take in the n RoIs of a view.

        Args:
            truth: of the view.
            objects: (n,) int64 index into it.
            rois: (n, 4) cxcywh in 0..1 of the view, as large as the head cuts them.
            corners: (n, 4) the same, xyxy in pixels of the crop frame.
            targets: (n, R, R), of objects without masks their boxes.
            pixels: gives the view, (3, H, W) RGB in 0..255.
        """
        known = truth.supervision or all_masks(len(truth.boxes), self._room)
        kinds = known.kinds[objects.numpy()]
        self._kinds.append(kinds)
        points = shown_points(torch.from_numpy(known.with_room(self._room).points[objects.numpy()]), corners)
        self._points.append(points)
        boxed = torch.from_numpy(np.flatnonzero(kinds != Kind.MASK))
        view = pixels() if self._pictures and len(boxed) else None
        if self._colours and view is not None:
            self._alike.append(alike(view, rois[boxed], targets[boxed]))
        if self._guesses:
            boxes = within(torch.from_numpy(truth.boxes)[objects[boxed]], corners[boxed])
            guess = guessed_masks(view, rois=rois[boxed], boxes=boxes, side=self._side, points=points.take(boxed))
            self._guess.append(guess)

    def targets(self) -> WeakTargets:
        """Of all RoIs that were taken in, in their order."""
        kinds = np.concatenate(self._kinds)
        masked, boxed, pointed = (
            torch.from_numpy(np.flatnonzero(chosen))
            for chosen in (kinds == Kind.MASK, kinds != Kind.MASK, kinds == Kind.POINTS)
        )
        points = Points.joined(self._points).take(pointed)
        return WeakTargets(
            masked=masked,
            boxed=boxed,
            guess=torch.cat(self._guess) if self._guesses else None,
            alike=torch.cat(self._alike) if self._colours else None,
            pointed=pointed,
            points=points.at,
            inside=points.inside,
            known=points.known,
        )


def weak_collector(
    attributes: CacheAttributes, config: LossConfig, *, side: int, pictures: bool
) -> WeakCollector | None:
    """For what is known of objects without masks; None where all objects have them.

    Args:
        attributes: of the cache that the views come from.
        side: R.
        pictures: whether the views' pixels can be had.
    """
    room = attributes.data.points
    if room is None:
        return None
    return WeakCollector(room=room, pictures=pictures, colours=config.pairwise > 0, guesses=config.guess > 0, side=side)


def shown_points(points: Tensor, corners: Tensor) -> Points:
    """Points (N, P, 3) of objects, as `Supervision` has them, in RoIs, xyxy in the same pixels."""
    at = within(points[..., :2], corners[:, None])
    known = (points[..., 2] != NO_POINT) & (at >= 0).all(-1) & (at <= 1).all(-1)
    return Points(at, (points[..., 2] == 1).float(), known.float())


def within(places: Tensor, corners: Tensor) -> Tensor:
    """Points x, y, or boxes xyxy, as they lie in the boxes `corners`, xyxy: in 0..1 of these."""
    corner, far = corners[..., :2], corners[..., 2:]
    pairs = places.unflatten(-1, (-1, 2))
    return ((pairs - corner[..., None, :]) / (far - corner)[..., None, :]).flatten(-2)
