"""Reading a COCO instances file: validated once, so that everything after it can trust what it holds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from frozen_cache.data.segmentation import check_segmentation
from frozen_cache.errors import UserError


@dataclass(frozen=True)
class CocoAnnotation:
    """One annotated object, as the file has it."""

    id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels."""
    area: float | None
    """In pixels; None where the file gives none."""
    crowd: bool
    segmentation: Any
    """Polygons or RLE, checked."""


@dataclass(frozen=True)
class CocoImage:
    """One image and its objects."""

    id: int
    file_name: str
    height: int
    width: int
    annotations: list[CocoAnnotation] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class CocoDataset:
    """Images by rising id; categories by rising id."""

    path: Path
    images: list[CocoImage]
    categories: dict[int, str]
    """Category id to name."""


def read_coco(path: Path) -> CocoDataset:
    """Read and validate an instances file; UserError names the file and the entry at fault."""
    content = _load_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not a COCO instances file: it has no list `{key}`")
    categories: dict[int, str] = {}
    for entry in content["categories"]:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            raise UserError(f"{path}: a category has no whole number as its id: {_short(entry)}")
        if entry["id"] in categories:
            raise UserError(f"{path}: two categories have the id {entry['id']}")
        categories[entry["id"]] = str(entry.get("name", entry["id"]))
    if not categories:
        raise UserError(f"{path}: its list `categories` is empty")
    images: dict[int, CocoImage] = {}
    for entry in content["images"]:
        image = _image(path, entry)
        if image.id in images:
            raise UserError(f"{path}: two images have the id {image.id}")
        images[image.id] = image
    if not images:
        raise UserError(f"{path}: its list `images` is empty")
    seen: set[int] = set()
    for entry in content["annotations"]:
        _add_annotation(path, entry, images, categories, seen)
    return CocoDataset(
        path=path, images=[images[key] for key in sorted(images)], categories=dict(sorted(categories.items()))
    )


def _load_json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"there is no annotation file {path}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a COCO instances file: it is not JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _image(path: Path, entry: Any) -> CocoImage:
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        raise UserError(f"{path}: an image has no whole number as its id: {_short(entry)}")
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{path}: image {entry['id']} has no file name")
    height, width = entry.get("height"), entry.get("width")
    if not (_is_id(height) and _is_id(width) and height > 0 and width > 0):
        raise UserError(f"{path}: image {entry['id']} ({name}) has no height and width: {height} x {width}")
    return CocoImage(id=entry["id"], file_name=name, height=height, width=width)


def _add_annotation(
    path: Path, entry: Any, images: dict[int, CocoImage], categories: dict[int, str], seen: set[int]
) -> None:
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        raise UserError(f"{path}: an annotation has no whole number as its id: {_short(entry)}")
    where = f"{path}: annotation {entry['id']}"
    if entry["id"] in seen:
        raise UserError(f"{path}: two annotations have the id {entry['id']}")
    seen.add(entry["id"])
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    image = images.get(image_id) if _is_id(image_id) else None
    if image is None:
        raise UserError(f"{where} belongs to image {_short(image_id)}, which is not in the list `images`")
    if not _is_id(category_id) or category_id not in categories:
        raise UserError(f"{where} has the category {_short(category_id)}, which is not in the list `categories`")
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise UserError(f"{where} has no bbox of four numbers: {_short(bbox)}")
    area = entry.get("area")
    if area is not None and not _is_number(area):
        raise UserError(f"{where} has an area that is not a number: {_short(area)}")
    try:
        check_segmentation(entry.get("segmentation"), height=image.height, width=image.width)
    except ValueError as error:
        raise UserError(f"{where} (image {image.id}) is malformed: {error}") from None
    image.annotations.append(
        CocoAnnotation(
            id=entry["id"],
            category_id=category_id,
            bbox=(float(bbox[0]), float(bbox[1]), float(bbox[2]), float(bbox[3])),
            area=None if area is None else float(area),
            crowd=bool(entry.get("iscrowd", 0)),
            segmentation=entry["segmentation"],
        )
    )


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
