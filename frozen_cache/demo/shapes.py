"""Outlines of the demo's eight classes.

An outline is a float array `(V, 2)` of x, y vertices in a unit frame: the shape about fits the disc of radius 1 around
the origin (the horseshoe's legs stick out by 0.13). Each shape leaves much of its bounding box empty, so that a filled
box is a poor mask.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]


def arc(*, radius: float, start: float, stop: float, steps: int = 48) -> Outline:
    """Points `(steps, 2)` on a circle around the origin, from angle `start` to `stop` (degrees)."""
    angles = np.radians(np.linspace(start, stop, steps))
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def ring() -> Outline:
    # A slit of no width joins the two circles, so a ring is a single closed outline like all others.
    return np.concatenate([arc(radius=1.0, start=0, stop=360), arc(radius=0.62, start=360, stop=0)])


def star() -> Outline:
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    return radii * arc(radius=1.0, start=0, stop=324, steps=10)


def cross() -> Outline:
    arm, tip = 0.24, 0.96
    corner = np.array([[tip, -arm], [tip, arm], [arm, arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([corner @ np.linalg.matrix_power(turn, quarter) for quarter in range(4)])


def crescent() -> Outline:
    # The inner arc belongs to a circle of radius 0.9 around (0.55, 0), cut where the two circles meet.
    meet = np.degrees(np.arccos((1.0 + 0.55**2 - 0.9**2) / (2 * 0.55)))
    outer = arc(radius=1.0, start=meet, stop=360 - meet)
    inner_half = np.degrees(np.arctan2(np.sin(np.radians(meet)), np.cos(np.radians(meet)) - 0.55))
    inner = arc(radius=0.9, start=360 - inner_half, stop=inner_half) + np.array([0.55, 0.0])
    return np.concatenate([outer, inner])


def heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, 2.5 - y], axis=1) / 19.6


def arrow() -> Outline:
    half = np.array([[1.0, 0.0], [0.22, 0.72], [0.22, 0.24], [-0.95, 0.24]])
    return np.concatenate([half, half[:0:-1] * np.array([1.0, -1.0])])


def bolt() -> Outline:
    return np.array([[0.1, -1.0], [-0.52, 0.16], [-0.06, 0.16], [-0.3, 0.95], [0.56, -0.3], [0.1, -0.3], [0.52, -0.85]])


def horseshoe() -> Outline:
    outer, inner = arc(radius=0.84, start=180, stop=360), arc(radius=0.44, start=360, stop=180)
    legs = np.array([[0.84, 0.86], [0.44, 0.86]])
    return np.concatenate([outer, legs, inner, legs[::-1] * np.array([-1.0, 1.0])]) - np.array([0.0, 0.1])


SHAPES: dict[str, Callable[[], Outline]] = {
    "ring": ring,
    "star": star,
    "cross": cross,
    "crescent": crescent,
    "heart": heart,
    "arrow": arrow,
    "bolt": bolt,
    "horseshoe": horseshoe,
}

# COCO's own category ids have holes; ours too, so that code which takes an index for an id fails on the demo.
CATEGORY_IDS: dict[str, int] = dict(zip(SHAPES, (1, 2, 3, 5, 7, 8, 11, 13), strict=True))


def placed(*, name: str, centre: tuple[float, float], radius: float, degrees: float) -> Outline:
    """Outline `(V, 2)` of the class `name` in image pixels: x right, y down, turned by `degrees`."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return radius * SHAPES[name]() @ np.array([[cos, sin], [-sin, cos]]) + np.array(centre)
