"""A COCO instances document, put together image by image, with boxes and areas that come from the masks."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.walk import files_below
from frozen_cache.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class CocoBuilder:
    """Collects images and objects; `document` is the COCO file. Categories get ids from 1 on, as they appear."""

    def __init__(self, *, categories: list[str] | None = None) -> None:
        self._categories: dict[str, int] = {}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self.left_out: Counter[str] = Counter()
        """Why -> number of objects that could not be taken."""
        self.notes: list[str] = []
        """What else to say."""
        for name in categories or []:
            self.category(name)

    def category(self, name: str) -> int:
        """The id of a category, made if it is new."""
        return self._categories.setdefault(name, len(self._categories) + 1)

    def add_image(self, file_name: str, *, height: int, width: int) -> int:
        """Add an image and return its id."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        return image_id

    def add_polygons(self, image_id: int, category: str, polygons: list[list[float]]) -> None:
        """Add an object of one or more flat x, y polygons in pixels; those of less than three points are left out."""
        polygons = [polygon for polygon in polygons if len(polygon) >= 6 and np.isfinite(polygon).all()]
        if not polygons:
            self.left_out["polygons of fewer than three points"] += 1
            return
        image = self._images[image_id - 1]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, image["height"], image["width"]))
        self._add(image_id, category, polygons, rle)

    def add_mask(self, image_id: int, category: str, mask: np.ndarray) -> None:
        """Add an object by its (height, width) bool mask."""
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        self._add(image_id, category, {"size": rle["size"], "counts": rle["counts"].decode("ascii")}, rle)

    def _add(self, image_id: int, category: str, segmentation: Any, rle: dict[str, Any]) -> None:
        if not coco_mask.area(rle):
            self.left_out["masks of no pixels"] += 1
            return
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": image_id,
                "category_id": self.category(category),
                "segmentation": segmentation,
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": int(coco_mask.area(rle)),
                "iscrowd": 0,
            }
        )

    @property
    def document(self) -> dict[str, Any]:
        """The COCO instances file as plain JSON data."""
        categories = [{"id": key, "name": name} for name, key in self._categories.items()]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}


def images_below(folder: Path) -> list[Path]:
    """Image files under a folder, by name."""
    return sorted(files_below(folder, IMAGE_SUFFIXES))


def read_pixels(path: Path, *, colours: bool = False) -> np.ndarray:
    """(height, width) int64 values of a mask file: grey and palette values as stored, colours as r << 16 | g << 8 | b.

    Args:
        colours: take a palette's colours instead of its indices.
    """
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            one_channel = opened.mode in ("1", "L", "P", "I", "I;16") and not (colours and opened.mode == "P")
            pixels = np.asarray(opened if one_channel else opened.convert("RGB")).astype(np.int64)
    except Exception as error:
        raise UserError(f"{path} is not an image that can be read: {error}") from None
    return pixels if pixels.ndim == 2 else pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def inside(folder: Path, name: str, *, named_by: Path) -> Path:
    """`folder / name`, which must stay in the folder; `..` on the way is taken out."""
    whole = os.path.normpath(folder.absolute())
    path = Path(os.path.normpath(whole / Path(name.replace("\\", "/"))))
    if "\0" in name or not path.is_relative_to(whole):
        raise UserError(f"{named_by}: the file name {name} leads out of the folder {folder}")
    return folder / path.relative_to(whole)


def is_coco(content: Any) -> bool:
    """Whether a JSON document is a COCO instances file."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not text that can be read: {error}") from None


def image_of(folder: Path, stem: str) -> Path | None:
    """The image `stem` with whatever suffix it has in the folder; None where there is none."""
    found = [folder / f"{stem}{suffix}" for suffix in (*IMAGE_SUFFIXES, *(s.upper() for s in IMAGE_SUFFIXES))]
    return next((path for path in found if path.is_file()), None)
