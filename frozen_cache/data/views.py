"""The views of an image: view 0 is the plain resize, further ones are augmentations drawn once and for all."""

from __future__ import annotations

import random

from PIL import Image
from torch import Tensor

from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.input_rule import InputRule, shortest_edge_size

_SCALES = [edge / 800 for edge in range(480, 801, 32)]
_SCALES_BEFORE_CROP = [400 / 800, 500 / 800, 600 / 800]
_CROP_RANGE = (384 / 800, 600 / 800)
"""Deformable DETR's sizes, in units of its shorter side of 800."""


def make_view(
    rule: InputRule, original_size: tuple[int, int], *, image_id: int, view_index: int, seed: int = 0
) -> ViewTransform:
    """The transform of one view; it depends on its arguments alone, never on annotations or earlier draws.

    Args:
        rule: the detector's input rule.
        original_size: (height, width) in pixels.
        view_index: 0 for the plain resize. Others flip with p 0.5 and, for `shortest_edge`, follow Deformable DETR
            (resize to one of 480, 512 ... 800, with p 0.5 after a crop of 384 to 600 pixels); for `stretch` they crop
            0.3 to 1 of the area, its aspect changed by at most 4/3. `fit` is taken as the `shortest_edge` whose edges
            are those of view 0.
    """
    height, width = original_size
    full = (0, 0, width, height)
    plain = not_empty(rule.resized_size(height=height, width=width))
    if view_index == 0:
        return ViewTransform(original_size=original_size, crop=full, resized_size=plain)
    draw = random.Random(f"view/{seed}/{image_id}/{view_index}").random
    flip = draw() < 0.5
    if rule.size is not None:
        area, aspect = 0.3 + 0.7 * draw(), (4 / 3) ** (2 * draw() - 1)
        crop = _area_crop(height, width, area=area, aspect=aspect, at=(draw(), draw()))
        return ViewTransform(original_size=original_size, crop=crop, flip=flip, resized_size=rule.size)
    edge, longest = (rule.shortest_edge, rule.longest_edge) if rule.shortest_edge else (min(plain), max(plain))
    crop = full
    if draw() < 0.5:
        scale = _SCALES_BEFORE_CROP[int(draw() * len(_SCALES_BEFORE_CROP))]
        before = shortest_edge_size(height=height, width=width, shortest_edge=round(scale * edge), longest_edge=None)
        low, high = (share * edge for share in _CROP_RANGE)
        sides = [min(size, round(low + draw() * (high - low))) for size in before]
        crop_height = max(1, round(sides[0] * height / before[0]))
        crop_width = max(1, round(sides[1] * width / before[1]))
        crop = _place(height, width, crop_height, crop_width, at=(draw(), draw()))
    scale = _SCALES[int(draw() * len(_SCALES))]
    resized = shortest_edge_size(
        height=crop[3] - crop[1], width=crop[2] - crop[0], shortest_edge=round(scale * edge), longest_edge=longest
    )
    return ViewTransform(original_size=original_size, crop=crop, flip=flip, resized_size=not_empty(resized))


def apply_view(image: Image.Image, view: ViewTransform, rule: InputRule, *, scale: int = 1) -> Tensor:
    """(3, scale H, scale W) uint8 of the view of an RGB image of `view.original_size`."""
    height, width = view.resized_size
    return rule.resize_image(in_frame(image, view), (scale * height, scale * width))


def in_frame(image: Image.Image, view: ViewTransform) -> Image.Image:
    """What a view shows of an RGB image of `view.original_size`, mirrored as it is, in the original's own pixels."""
    height, width = view.original_size
    if view.crop != (0, 0, width, height):
        image = image.crop(view.crop)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else image


def not_empty(size: tuple[int, int]) -> tuple[int, int]:
    """An image one pixel wide and thousands high would lose its width to the limit on the longer side."""
    return max(1, size[0]), max(1, size[1])


def _area_crop(
    height: int, width: int, *, area: float, aspect: float, at: tuple[float, float]
) -> tuple[int, int, int, int]:
    crop_height = min(height, max(1, round(height * (area / aspect) ** 0.5)))
    crop_width = min(width, max(1, round(width * (area * aspect) ** 0.5)))
    return _place(height, width, crop_height, crop_width, at=at)


def _place(
    height: int, width: int, crop_height: int, crop_width: int, *, at: tuple[float, float]
) -> tuple[int, int, int, int]:
    crop_height, crop_width = min(crop_height, height), min(crop_width, width)
    y0 = int(at[0] * (height - crop_height + 1))
    x0 = int(at[1] * (width - crop_width + 1))
    return x0, y0, x0 + crop_width, y0 + crop_height
