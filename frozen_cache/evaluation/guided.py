"""Masks that take over the edges of the pictures (`frozen_cache.masks.guided`), around any segmenter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.evaluation.segmenters import AroundSegmenter, Segmentation, Segmenter


class GuidedSegmenter(AroundSegmenter):
    """A segmenter's masks, to be pasted by the guided filter. Scores stay what they are.

    Args:
        segmenter: of plain views.
        picture: image id, (height, width) -> the RGB picture, or None where there is none.
    """

    def __init__(self, segmenter: Segmenter, picture: Callable[[int, tuple[int, int]], Image.Image | None]) -> None:
        super().__init__(segmenter)
        self._picture = picture
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the plain view's selected pairs.

        Raises:
            UserError: its picture is not at hand.
        """
        return replace(self.segmenter(view), guide=self._guide(view))

    def _guide(self, view: CachedView) -> np.ndarray:
        last = self._last  # threads share it
        if last is None or last[0] != view.image_id:
            picture = self._picture(view.image_id, view.transform.original_size)
            if picture is None:
                raise UserError(
                    f"--guided reads the pictures, and image {view.image_id} is not at hand: give --images FOLDER"
                )
            self._last = last = view.image_id, colour_planes(picture)
        return last[1]


def colour_planes(picture: Image.Image) -> np.ndarray:
    """(3, H, W) uint8 of an RGB picture, one colour after the other."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0))
