"""Large scale jitter (Table 11): an image scaled anew, cut or padded to one size, mirrored or not, and its masks too.

The geometry is torchvision's (`transforms.v2.functional`, as `ScaleJitter`, `FixedSizeCrop` and `RandomHorizontalFlip`
have it). Its transforms themselves draw from torch's global generator, from which the training draws at the same time
in another thread; so the drawing is done here, from a seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.transforms import v2

from frozen_cache.data.supervision import Point
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.input_rule import InputRule

LINEAGE = (1024, 800)
"""Side of the input under this augmentation, and the shorter side without it, where others train with both."""
STEP = 32
"""Sides are multiples of it: the largest stride of a backbone."""
GREY = 114.0
"""Of the padding, where the input rule names no mean."""


def lsj_size(rule: InputRule) -> tuple[int, int]:
    """(height, width) of all inputs: the rule's own where it is one, else a square in the proportion of `LINEAGE`."""
    if rule.size is not None or rule.max_size is not None:
        return rule.size or rule.max_size or (0, 0)
    side = max(1, round((rule.shortest_edge or 0) * LINEAGE[0] / LINEAGE[1] / STEP)) * STEP
    return side, side


@dataclass(frozen=True)
class LargeScaleJitter:
    """One draw for one image."""

    scaled: tuple[int, int]
    """(height, width) of the whole image after scaling."""
    corner: tuple[int, int]
    """(top, left) in the scaled image of what is kept of it; what is missing to the right and below is padding."""
    flip: bool
    size: tuple[int, int]
    """(height, width) of the input."""

    @classmethod
    def draw(
        cls, original: tuple[int, int], *, size: tuple[int, int], scale: tuple[float, float], seed: str
    ) -> LargeScaleJitter:
        """The same for the same arguments.

        Args:
            original: (height, width) of the image in pixels.
            scale: least and greatest, in units of that at which the image just fits into `size`.
        """
        draw = random.Random(f"lsj/{seed}").random
        factor = min(size[0] / original[0], size[1] / original[1]) * (scale[0] + (scale[1] - scale[0]) * draw())
        height, width = (max(1, int(side * factor)) for side in original)
        top, left = (int(draw() * (max(0, side - room) + 1)) for side, room in zip((height, width), size, strict=True))
        return cls(scaled=(height, width), corner=(top, left), flip=draw() < 0.5, size=size)

    @property
    def transform(self) -> ViewTransform:
        """The frame of the view: the input itself, padding included."""
        height, width = self.size
        return ViewTransform(original_size=self.size, crop=(0, 0, width, height), resized_size=self.size)

    def of_image(self, image: Image.Image, rule: InputRule) -> Tensor:
        """(3, H, W) in 0..255, resized as the input rule does; padding becomes 0 when the rule normalises it."""
        fill = [GREY] * 3 if rule.mean is None else [mean / rule.rescale_factor for mean in rule.mean]
        pixels = rule.resize_image(image, self.scaled)
        return self._placed(pixels, fill if pixels.is_floating_point() else [round(value) for value in fill])

    def of_mask(self, rle: dict[str, Any]) -> dict[str, Any]:
        """The compressed RLE of a mask of the original image, of the input's size."""
        mask = torch.from_numpy(coco_mask.decode(rle))[None]
        nearest = v2.InterpolationMode.NEAREST_EXACT
        scaled = v2.functional.resize(mask, list(self.scaled), interpolation=nearest)
        return coco_mask.encode(np.asfortranarray(self._placed(scaled, 0)[0].numpy()))

    def of_point(self, point: Point, original: tuple[int, int]) -> Point | None:
        """A point of the original image, of `original` (height, width), in pixels of the input; None outside of it."""
        (height, width), (top, left) = self.scaled, self.corner
        x, y = point[0] * width / original[1] - left, point[1] * height / original[0] - top
        if not (0 <= x <= self.size[1] and 0 <= y <= self.size[0]):
            return None
        return self.size[1] - x if self.flip else x, y, point[2]

    def _placed(self, values: Tensor, fill: Any) -> Tensor:
        """Cut and padded to the input's size, then mirrored where drawn."""
        (top, left), (height, width) = self.corner, self.size
        kept = v2.functional.crop(
            values, top, left, min(self.scaled[0] - top, height), min(self.scaled[1] - left, width)
        )
        missing = [0, 0, width - kept.shape[-1], height - kept.shape[-2]]
        padded = v2.functional.pad(kept, missing, fill=fill)
        return v2.functional.horizontal_flip(padded) if self.flip else padded
