"""Pictures for a page: predictions beside the ground truth, the worst and best images, one example of each mistake."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.evaluate import Evaluation
from frozen_cache.evaluation.mistakes import THRESHOLD, ImageVerdict, Judged
from frozen_cache.report.colours import class_colours
from frozen_cache.report.overlay import draw_instances
from frozen_cache.report.page import Picture
from frozen_cache.report.photographs import Photographs

SIDE = 640
"""Longest side of a picture in a page, in pixels."""
CLOSE_UP = 480
"""Longest side of the surroundings of a mistake, in pixels: they are enlarged before anything is drawn on them."""
CLOSE_UP_LETTERS = 0.042
"""Height of its letters in parts of its side: close-ups are shown smaller than pictures."""
MISTAKES = ("missed", "double", "wrong class", "bad mask", "bad box", "nothing there")


@dataclass(frozen=True)
class Gallery:
    """Draws what an evaluation found."""

    evaluation: Evaluation
    photographs: Photographs

    def found(self, image_id: int) -> list[dict[str, Any]]:
        """The mask results of an image, in the order that its verdict counts them in."""
        return self.evaluation.results.of_image(image_id)

    def ranked(self) -> list[ImageVerdict]:
        """Images with objects, the worst mean IoU first."""
        known = [verdict for verdict in self.evaluation.verdicts if verdict.mean_iou is not None]
        return sorted(known, key=lambda verdict: (verdict.mean_iou, verdict.image_id))

    def beside_truth(self, image_id: int) -> Image.Image:
        """Prediction on the left, ground truth on the right."""
        shown = [result for result in self.found(image_id) if result["score"] >= THRESHOLD]
        truth = self.evaluation.truth.imgToAnns[image_id]
        left, right = self.drawn(image_id, shown), self.drawn(image_id, truth)
        gap = max(4, left.width // 100)
        sheet = Image.new("RGB", (left.width * 2 + gap, left.height), (128, 128, 128))
        sheet.paste(left, (0, 0))
        sheet.paste(right, (left.width + gap, 0))
        return sheet

    def drawn(self, image_id: int, things: list[dict[str, Any]]) -> Image.Image:
        """The picture, no larger than a page needs, with results or annotations on it."""
        picture = self.picture(image_id)
        return self._on(picture, [_mask(thing, picture.size) for thing in things], things)

    def _on(
        self, picture: Image.Image, masks: list[np.ndarray], things: list[dict[str, Any]], letters: float = 0.026
    ) -> Image.Image:
        """`picture` with masks of its own size on it, named after `things`."""
        names = self.names
        return draw_instances(
            picture,
            masks=np.array(masks, dtype=bool).reshape(len(things), picture.height, picture.width),
            names=[names[thing["category_id"]] for thing in things],
            scores=[thing["score"] for thing in things] if things and "score" in things[0] else None,
            colours=class_colours(list(names.values())),
            letters=letters,
        )

    def mistake(self, verdict: ImageVerdict, judged: Judged, kind: str) -> Image.Image:
        """The surroundings of one mistake: the detection and the object that it is about."""
        truth = self.evaluation.truth.imgToAnns[verdict.image_id]
        things = [(truth if kind == "missed" else self.found(verdict.image_id))[judged.index]]
        others = [] if judged.partner is None or kind == "missed" else [truth[judged.partner]]
        whole = self._whole(verdict.image_id)
        boxes = np.array([coco_mask.toBbox(thing["segmentation"]) for thing in things + others])
        x0, y0 = boxes[:, :2].min(axis=0)
        x1, y1 = (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
        margin = max(1.0, 0.08 * max(whole.size), 0.35 * max(x1 - x0, y1 - y0))
        crop = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        x0, y0, x1, y1 = (round(min(max(value, 0), whole.size[at % 2])) for at, value in enumerate(crop))
        window = (x0, y0, x1, y1)
        size = _within(CLOSE_UP, (x1 - x0, y1 - y0))
        picture = whole.crop(window).resize(size, Image.Resampling.LANCZOS)
        return self._on(picture, [_mask(thing, size, window) for thing in things], things, CLOSE_UP_LETTERS)

    def mistakes_of(self, kind: str) -> list[tuple[ImageVerdict, Judged]]:
        """All of one kind: the surest detections first; of missed objects the largest."""
        if kind == "missed":
            pairs = [(v, j) for v in self.evaluation.verdicts for j in v.objects if j.kind == kind]
            areas = self.evaluation.truth.imgToAnns
            return sorted(pairs, key=lambda pair: -areas[pair[0].image_id][pair[1].index]["area"])
        pairs = [(v, j) for v in self.evaluation.verdicts for j in v.detections if j.kind == kind]
        return sorted(pairs, key=lambda pair: -pair[1].score)

    def describe(self, verdict: ImageVerdict, judged: Judged, kind: str) -> str:
        """One mistake in words."""
        truth = self.evaluation.truth.imgToAnns[verdict.image_id]
        if kind == "missed":
            return f"{self.names[truth[judged.index]['category_id']]} missed in image {verdict.image_id}"
        result = self.found(verdict.image_id)[judged.index]
        text = f"{self.names[result['category_id']]} {result['score']:.2f} in image {verdict.image_id}"
        if kind == "wrong class" and judged.partner is not None:
            text += f"; it is a {self.names[truth[judged.partner]['category_id']]}"
        return text if judged.partner is None else f"{text}, mask IoU {judged.iou:.2f}"

    def picture(self, image_id: int) -> Image.Image:
        """The photograph, reduced to at most SIDE pixels."""
        whole = self._whole(image_id)
        return whole.resize(_within(min(SIDE, max(whole.size)), whole.size), Image.Resampling.LANCZOS)

    def _whole(self, image_id: int) -> Image.Image:
        entry = self.evaluation.truth.imgs[image_id]
        return self.photographs.load(image_id, (entry["height"], entry["width"]))

    @property
    def names(self) -> dict[int, str]:
        """Category id to name."""
        return {key: value["name"] for key, value in self.evaluation.truth.cats.items()}


def as_picture(image: Image.Image, *, alt: str, caption: str = "", quality: int = 80) -> Picture:
    """A JPEG within the page itself."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Picture(source, image.size, alt, caption or alt)


def _within(side: int, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the shape of `size` whose longest side is `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _mask(thing: dict[str, Any], size: tuple[int, int], window: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """The mask, or what lies in `window` = x0, y0, x1, y1 of it, at `size` = (width, height) pixels."""
    mask = Image.fromarray(coco_mask.decode(thing["segmentation"]) * 255)
    if window is not None:
        mask = mask.crop(window)
    enlarged = size[0] > mask.width
    return np.asarray(mask.resize(size, Image.Resampling.BILINEAR if enlarged else Image.Resampling.BOX)) >= 128
