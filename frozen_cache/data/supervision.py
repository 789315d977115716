"""What is known of an object: its mask, points in and outside of it, or its box alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.data.numbers import is_finite_number

Point = tuple[float, float, int]
"""x, y in pixels, 1 inside of the object or 0 outside."""


class Kind(IntEnum):
    """The most that is known of an object; all have a box."""

    MASK = 0
    POINTS = 1
    BOX = 2


NO_POINT = -1
"""In place of inside or outside, where an object has fewer points than others."""


@dataclass(frozen=True)
class Supervision:
    """Of G objects. The `masks` of those without one are their filled boxes."""

    kinds: np.ndarray
    """(G,) int64 of `Kind`."""
    points: np.ndarray
    """(G, P, 3) float32: x, y in pixels of the crop frame; 1 inside, 0 outside, `NO_POINT` for none."""

    @classmethod
    def of(cls, kinds: Sequence[Kind], points: Sequence[Sequence[Point]], *, room: int | None = None) -> Supervision:
        """Of lists with an entry for each object; `room` is P, None for as many as the most."""
        places = max(map(len, points), default=0) if room is None else room
        table = np.zeros((len(kinds), places, 3), dtype=np.float32)
        table[..., 2] = NO_POINT
        for row, given in zip(table, points, strict=True):
            row[: len(given)] = np.array(given, dtype=np.float32).reshape(-1, 3)
        return cls(np.array(kinds, dtype=np.int64), table)

    @property
    def masked(self) -> np.ndarray:
        """(G,) bool: objects with a mask."""
        return self.kinds == Kind.MASK

    def listed(self) -> list[list[Any]]:
        """Kind and points of each object in plain values, however much room there is."""
        there = self.points[..., 2] != NO_POINT
        return [
            [int(kind), points[known].tolist()]
            for kind, points, known in zip(self.kinds, self.points, there, strict=True)
        ]

    def with_room(self, room: int) -> Supervision:
        """The same with P = `room`."""
        table = np.tile(np.array([0, 0, NO_POINT], dtype=np.float32), (len(self.kinds), room, 1))
        table[:, : self.points.shape[1]] = self.points
        return Supervision(self.kinds, table)

    def to_array(self, room: int) -> np.ndarray:
        """(G, 1 + 3 room) float32: the kind, then x, y and inside of each point."""
        points = self.with_room(room).points.reshape(len(self.kinds), 3 * room)
        return np.concatenate([self.kinds[:, None].astype(np.float32), points], axis=1)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Supervision:
        """From `to_array`; ValueError where it holds what that does not write."""
        kinds, points = array[:, 0], array[:, 1:].reshape(len(array), array.shape[1] // 3, 3)
        if not np.isin(kinds, list(Kind)).all() or not np.isin(points[..., 2], (NO_POINT, 0, 1)).all():
            raise ValueError("its objects have masks, points or boxes of a kind that is not known")
        if not np.isfinite(points).all():
            raise ValueError("a point of its objects is nowhere")
        return cls(kinds.astype(np.int64), points.copy())


def points_room(objects: Iterable[tuple[Kind, Sequence[Point]]]) -> int | None:
    """The most points of an object; None where all objects have masks."""
    weak = [len(points) for kind, points in objects if kind != Kind.MASK]
    return max(weak, default=None)


def all_masks(objects: int, room: int = 0) -> Supervision:
    """Of objects that all have masks."""
    return Supervision.of([Kind.MASK] * objects, [[]] * objects, room=room)


def filled_box(box: tuple[float, float, float, float], *, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of a box (x, y, width, height in pixels), its edges rounded, at least a pixel within the image."""
    x, y, box_width, box_height = box
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right, bottom = (min(max(round(end), start + 1), size) for end, start, size in
                     ((x + box_width, left, width), (y + box_height, top, height)))  # fmt: skip
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return coco_mask.encode(mask)


def read_points(entry: dict[str, Any], *, height: int, width: int) -> list[Point]:
    """The points of an annotation, as PointSup has them: `point_coords` [[x, y] ...] and `point_labels` [0 or 1 ...].

    Raises:
        ValueError: they are malformed, and how.
    """
    places, labels = entry.get("point_coords"), entry.get("point_labels")
    if places is None and labels is None:
        return []
    if not isinstance(places, list) or not isinstance(labels, list) or len(places) != len(labels):
        raise ValueError("its point_coords and point_labels are not two lists of one length")
    points: list[Point] = []
    for place, label in zip(places, labels, strict=True):
        if not isinstance(place, list | tuple) or len(place) != 2 or not all(map(is_finite_number, place)):
            raise ValueError(f"its point_coords hold {place!r:.60}, which is no [x, y]")
        x, y = map(float, place)
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"its point ({x:g}, {y:g}) lies outside of the image of {height} x {width} pixels")
        if label not in (0, 1):
            raise ValueError(f"its point_labels hold {label!r:.60}, neither 0 nor 1")
        points.append((x, y, int(label)))
    return points
