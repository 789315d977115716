"""LabelMe: one JSON file an image, with polygons, circles and masks."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.convert.builder import CocoBuilder, inside, is_coco
from frozen_cache.data.images import plain_reader
from frozen_cache.data.segmentation import segmentation_to_rle
from frozen_cache.data.walk import files_below
from frozen_cache.errors import UserError


def is_labelme(source: Path) -> bool:
    """Whether a folder holds LabelMe's files."""
    for file in files_below(source, (".json",)) if source.is_dir() else ():
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        if not is_coco(content):
            return isinstance(content, dict) and "shapes" in content and "imagePath" in content
    return False


def read_labelme(source: Path) -> dict[str, tuple[Path, CocoBuilder]]:
    """The folder's files as one split. Shapes of one label with one `group_id` are one object.

    COCO files in the folder, such as those of an earlier conversion, are passed over.
    """
    builder = CocoBuilder()
    for file in files_below(source, (".json",)):
        content = _load(file)
        if is_coco(content):
            continue
        image = _image(source, file, content["imagePath"].replace("\\", "/"))
        height, width = plain_reader().size(image)
        image_id = builder.add_image(image.relative_to(source).as_posix(), height=height, width=width)
        groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
        for number, shape in enumerate(content["shapes"]):
            group = shape.get("group_id")
            groups.setdefault((str(shape.get("label")), ("alone", number) if group is None else group), []).append(
                shape
            )
        for (label, _), shapes in groups.items():
            _add_object(builder, image_id, label, shapes, size=(height, width), file=file)
    return {"instances": (source, builder)}


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
        if is_coco(content) or (isinstance(content["shapes"], list) and isinstance(content["imagePath"], str)):
            return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{file} is not a file of LabelMe: it has no `shapes` and `imagePath`")


def _image(source: Path, file: Path, name: str) -> Path:
    """The image that a file names, relative to itself; for a path of another computer, the one beside the file."""
    beside = file.parent / PurePosixPath(name).name
    if (name.startswith("/") or name[1:3] == ":/") and beside.is_file():
        return beside
    return inside(source, (file.parent.relative_to(source) / name).as_posix(), named_by=file)


def _add_object(
    builder: CocoBuilder,
    image_id: int,
    label: str,
    shapes: list[dict[str, Any]],
    *,
    size: tuple[int, int],
    file: Path,
) -> None:
    try:
        masks = [_mask(shape, size) for shape in shapes if shape.get("shape_type") == "mask"]
        polygons = [_polygon(shape) for shape in shapes if shape.get("shape_type") != "mask"]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{file}: a shape of `{label}` is malformed ({error})") from None
    drawn = [polygon for polygon in polygons if polygon is not None]
    builder.left_out["boxes, lines and points without a mask"] += len(polygons) - len(drawn)
    if masks:
        whole = np.logical_or.reduce(masks)
        if drawn:
            rle = segmentation_to_rle(drawn, height=size[0], width=size[1])
            whole = whole | coco_mask.decode(rle).astype(bool)
        builder.add_mask(image_id, label, whole)
    elif drawn:
        builder.add_polygons(image_id, label, drawn)


def _polygon(shape: dict[str, Any]) -> list[float] | None:
    """The flat polygon of a shape; None for kinds that show no region."""
    kind = shape.get("shape_type", "polygon")
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "polygon":
        return [value for point in points for value in point]
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        angles = [2 * math.pi * step / 64 for step in range(64)]
        return [value for a in angles for value in (x + radius * math.cos(a), y + radius * math.sin(a))]
    return None


def _mask(shape: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool of a shape whose PNG lies at its first point."""
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"]) as opened:
        part = np.asarray(opened.convert("L")) > 0
    x, y = (round(float(value)) for value in shape["points"][0])
    mask = np.zeros(size, dtype=bool)
    target = mask[max(y, 0) : y + part.shape[0], max(x, 0) : x + part.shape[1]]
    target |= part[max(-y, 0) :, max(-x, 0) :][: target.shape[0], : target.shape[1]]
    return mask
