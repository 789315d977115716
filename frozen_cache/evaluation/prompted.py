"""The baseline that needs no training: a prompted model's masks of the boxes that the detector found."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.evaluation.segmenters import Segmentation
from frozen_cache.prompted.model import Prompter

SIDE = 64
"""Cells to a side of the probabilities that pictures show; the masks themselves have the image's own pixels."""


class PromptedSegmenter:
    """Masks of plain views as the model gives them, wherever they lie, with the scores of their boxes.

    Args:
        prompter: the model.
        picture: image id, (height, width) -> the RGB picture, or None where there is none.
    """

    encoder_layer: int | None = None
    device: torch.device | None = None
    zooms = False

    def __init__(self, prompter: Prompter, picture: Callable[[int, tuple[int, int]], Image.Image | None]) -> None:
        self.prompter, self._picture = prompter, picture
        self._last: tuple[int, Image.Image] | None = None
        self._seconds, self._images = 0.0, 0

    @property
    def seconds_an_image(self) -> float | None:
        """What the model took for an image's detections, by the clock, encoding it included; None for no image."""
        return self._seconds / self._images if self._images else None

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the plain view's selected pairs.

        Raises:
            UserError: its picture is not at hand.
            NotFiniteError: a logit.
        """
        first = self._last is None or self._last[0] != view.image_id
        picture = self._picture_of(view)
        started = time.perf_counter()
        height, width = view.transform.crop_size
        corners = to_pixels(view.boxes[: view.selected], (height, width))
        corners = corners.clamp(torch.zeros(4), torch.tensor([width, height, width, height]))
        boxes, place = corners.unique(dim=0, return_inverse=True)  # a query can be selected with several labels
        rles: list[dict[str, Any]] = []
        cells: list[Tensor] = [torch.zeros(0, SIDE, SIDE)]
        for logits, _ in self.prompter(picture, boxes.numpy()):
            if not torch.isfinite(logits).all():
                raise NotFiniteError(f"image {view.image_id}: masks of {self.prompter.name} are not finite")
            rles += _encoded(logits)
            part = boxes[len(rles) - len(logits) : len(rles)]
            rois = torch.cat([torch.arange(len(part))[:, None].float(), part], dim=1)
            cells.append(roi_align(logits[:, None], rois, SIDE, sampling_ratio=1, aligned=True)[:, 0])
        if first:
            self._seconds += time.perf_counter() - started
            self._images += 1
        return Segmentation(
            masks=torch.cat(cells).sigmoid()[place],
            boxes=view.boxes[: view.selected],
            scores=view.scores[: view.selected],
            whole=[rles[at] for at in place.tolist()],
        )

    def _picture_of(self, view: CachedView) -> Image.Image:
        if self._last is None or self._last[0] != view.image_id:
            picture = self._picture(view.image_id, view.transform.original_size)
            if picture is None:
                raise UserError(
                    f"--baseline prompted reads the pictures, and image {view.image_id} is not at hand: give --images "
                    "FOLDER"
                )
            self._last = view.image_id, picture
        return self._last[1]


def _encoded(logits: Tensor) -> list[dict[str, Any]]:
    """Compressed RLEs, their counts text, of (n, H, W) logits."""
    found = coco_mask.encode(np.asfortranarray((logits > 0).permute(1, 2, 0).numpy().astype(np.uint8)))
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in found]
