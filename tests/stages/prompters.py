"""What the tests of prompted models share: one that answers with the truth, data whose masks are no boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

Folder = tuple[Path, Path]
Change = Callable[[np.ndarray], np.ndarray]


def write_ellipses(folder: Folder) -> tuple[Path, Path]:
    """The folder's annotations with ellipses as masks (crowds as they are), and the same with boxes alone."""
    content = json.loads(folder[1].read_text())
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            mask = ellipse(entry["bbox"], sizes[entry["image_id"]])
            rle = coco_mask.encode(np.asfortranarray(mask))
            assert coco_mask.toBbox(rle).tolist() == entry["bbox"]
            entry["segmentation"] = {"size": list(mask.shape), "counts": rle["counts"].decode()}
            entry["area"] = int(mask.sum())
    masks, boxes = (folder[1].with_name(f"{name}.json") for name in ("masks", "boxes"))
    masks.write_text(json.dumps(content))
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            del entry["segmentation"], entry["area"]
    boxes.write_text(json.dumps(content))
    return masks, boxes


def ellipse(box: list[float], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: the ellipse that touches all sides of a box of whole pixels, its upper left quarter missing."""
    x, y, w, h = box
    down, right = np.mgrid[: size[0], : size[1]]
    across, along = (right + 0.5 - x) / w * 2 - 1, (down + 0.5 - y) / h * 2 - 1
    inside = (across**2 + along**2 <= 1) & ~((across < 0) & (along < 0))
    inside |= (abs(across) <= 1) & (abs(along) <= 1) & (abs(across - along) < 4 / min(w, h))
    return inside.astype(np.uint8)


class TruePrompter:
    """Knows the images by their pixels, and answers with the mask of the object whose box it was asked for, to a
    tenth of a pixel.

    Args:
        change: what is done to each mask.
        iou: that it says it has.
    """

    name, sha256, parameters = "hf:truth", "5" * 64, 12

    def __init__(
        self, folder: Path, annotations: Path, *, change: Change = lambda mask: mask, iou: float = 0.9
    ) -> None:
        content = json.loads(annotations.read_text())
        self.change, self.iou, self.asked = change, iou, []  # type: ignore[var-annotated]
        self.images: dict[bytes, int] = {}
        self.objects: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for entry in content["images"]:
            with Image.open(folder / entry["file_name"]) as image:
                self.images[image.convert("RGB").tobytes()] = entry["id"]
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            box = np.array([x, y, x + w, y + h], dtype=np.float32)
            if not entry["iscrowd"]:
                known = self.objects.setdefault(entry["image_id"], [])
                known.append((box, coco_mask.decode(entry["segmentation"])))

    def __call__(self, picture: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        image = self.images[picture.tobytes()]
        self.asked.append(image)
        for start in range(0, len(boxes), 2):
            part = boxes[start : start + 2]
            masks = [self.change(self._mask(image, box)) for box in part]
            logits = torch.from_numpy(np.stack(masks)).float() * 2 - 1
            yield logits, torch.full((len(part),), self.iou)

    def _mask(self, image: int, box: np.ndarray) -> np.ndarray:
        [found] = [mask for known, mask in self.objects[image] if np.abs(known - box).max() < 0.1]
        return found


def use(monkeypatch: pytest.MonkeyPatch, prompter: Any, *stages: str) -> None:
    """Let stages load this prompter, whatever they are told."""
    for stage in stages:
        monkeypatch.setattr(f"frozen_cache.stages.{stage}.load_prompted", lambda source, *, device: prompter)
