"""Copy-paste views: objects of another image of the data set laid over an image before the detector sees it (Simple
Copy-Paste, Ghiasi et al. 2021: a random subset of the objects of one random image, which is mirrored, scaled and moved
as a whole; no blending)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.coco import CocoImage

SHARE = 0.5
"""Of the views beyond the plain one that get pasted objects."""
SCALES = (0.8 / 1.25, 1.25 / 0.8)
"""Of the other image, beyond what fits it into this one: the ratio of two images scaled by 0.8 to 1.25 each (the
paper's standard jitter)."""
LEAST_LEFT = 0.1
"""Of an object's pixels: with less left of it, it is no object any more."""


@dataclass(frozen=True)
class Paste:
    """Objects of one other image, and how that image comes to lie over the one that they are pasted into."""

    source: CocoImage
    annotations: tuple[CocoAnnotation, ...]
    """Of `source`: those pasted."""
    size: tuple[int, int]
    """(height, width) in pixels that the whole of `source` is resized to."""
    flip: bool
    corner: tuple[int, int]
    """x, y in pixels of the image below: where the upper left corner of `source` comes to lie, maybe outside."""

    def masks(self, frame: tuple[int, int]) -> list[np.ndarray]:
        """(height, width) bool of each of `annotations` in a frame of that size; nothing of it where it is outside."""
        whole = (Image.fromarray(255 * coco_mask.decode(annotation.rle)) for annotation in self.annotations)
        return [np.asarray(self.laid(mask, frame)) >= 128 for mask in whole]

    def laid(self, picture: Image.Image, frame: tuple[int, int]) -> Image.Image:
        """The picture of `source`, or a mask of it, in its place in a frame of (height, width), black around it."""
        resized = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
        canvas = Image.new(picture.mode, frame[::-1])
        canvas.paste(resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else resized, self.corner)
        return canvas


@dataclass(frozen=True)
class Pasted:
    """An image with the annotations that it has once objects are pasted."""

    image: CocoImage
    added: int = 0
    """Objects."""
    covered: int = 0
    """Objects dropped, as too little is left of them."""


def paste_sources(images: Sequence[CocoImage]) -> list[CocoImage]:
    """The images that have objects to paste, by rising id."""
    return sorted((image for image in images if _objects(image)), key=lambda image: image.id)


def is_pasted(image_id: int, view_index: int, *, seed: int = 0) -> bool:
    """Whether a view gets pasted objects, as far as there are any. The plain view never does."""
    return view_index > 0 and _draws(image_id, view_index, seed)() < SHARE


def draw_paste(image: CocoImage, sources: Sequence[CocoImage], *, view_index: int, seed: int = 0) -> Paste | None:
    """What is pasted into one view; it depends on its arguments alone.

    Args:
        sources: of `paste_sources`.
    """
    if not is_pasted(image.id, view_index, seed=seed) or not sources:
        return None
    draw = _draws(image.id, view_index, seed)
    draw()  # that of `is_pasted`
    place = int(draw() * len(sources))
    source = sources[place] if sources[place].id != image.id else sources[place - 1]
    if source.id == image.id:  # it alone has objects
        return None
    objects = _objects(source)
    number = 1 + int(draw() * len(objects))
    order = [draw() for _ in objects]
    chosen = sorted(sorted(range(len(objects)), key=order.__getitem__)[:number])
    flip = draw() < 0.5
    fitting = min(image.height / source.height, image.width / source.width)
    scale = fitting * SCALES[0] * (SCALES[1] / SCALES[0]) ** draw()
    size = max(1, round(scale * source.height)), max(1, round(scale * source.width))
    corner = _place(image.width - size[1], draw()), _place(image.height - size[0], draw())
    return Paste(source=source, annotations=tuple(objects[at] for at in chosen), size=size, flip=flip, corner=corner)


def pasted_picture(picture: Image.Image, paste: Paste, other: Image.Image) -> Image.Image:
    """An RGB image with the objects of the picture `other` of `paste.source` laid over it."""
    frame = picture.height, picture.width
    over = np.logical_or.reduce(paste.masks(frame))
    return Image.composite(paste.laid(other, frame), picture, Image.fromarray(255 * over.astype(np.uint8)))


def pasted_objects(image: CocoImage, paste: Paste) -> Pasted:
    """Pasted objects added, and what they cover cut away from those below, crowd regions too. Boxes and areas of what
    has changed are those of the masks."""
    masks = paste.masks((image.height, image.width))
    over = np.logical_or.reduce(masks)
    below = [_behind(annotation, over) for annotation in image.annotations]
    added = [_with_mask(each, mask) for each, mask in zip(paste.annotations, masks, strict=True) if mask.any()]
    left = [annotation for annotation in below if annotation is not None]
    return Pasted(replace(image, annotations=left + added), added=len(added), covered=len(below) - len(left))


def _objects(image: CocoImage) -> list[CocoAnnotation]:
    return [annotation for annotation in image.annotations if not annotation.crowd]


def _draws(image_id: int, view_index: int, seed: int) -> Callable[[], float]:
    return random.Random(f"paste/{seed}/{image_id}/{view_index}").random


def _place(room: int, draw: float) -> int:
    """Where a side begins that leaves so much room: within it, or (less than none) so that it covers the whole."""
    return int(draw * (room + 1)) if room >= 0 else -int(draw * (1 - room))


def _behind(annotation: CocoAnnotation, over: np.ndarray) -> CocoAnnotation | None:
    """What is left of an annotation; None where that is too little (of a crowd: nothing)."""
    before = coco_mask.decode(annotation.rle).astype(bool)
    left = before & ~over
    if left.sum() == before.sum():
        return annotation
    least = 1 if annotation.crowd else LEAST_LEFT * before.sum()
    return _with_mask(annotation, left) if left.sum() >= max(1, least) else None


def _with_mask(annotation: CocoAnnotation, mask: np.ndarray) -> CocoAnnotation:
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return replace(annotation, rle=rle, area=float(coco_mask.area(rle)), bbox=tuple(coco_mask.toBbox(rle).tolist()))
