"""CVAT's own export, `CVAT for images 1.1`: one `annotations.xml` with polygons, ellipses and masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse

from frozen_cache.data.convert.builder import CocoBuilder, inside
from frozen_cache.errors import UserError


def find_xml(source: Path) -> Path | None:
    """The `annotations.xml` of an export: `source` itself, or in it."""
    path = source if source.is_file() else source / "annotations.xml"
    return path if path.suffix == ".xml" and path.is_file() else None


def read_cvat(source: Path) -> dict[str, tuple[Path, CocoBuilder]]:
    """The export as one split. Shapes of one label with one `group_id` are one object; boxes are left out and counted.

    The images lie in `images/` beside the file, or directly beside it.
    """
    file = find_xml(source)
    if file is None:
        raise UserError(f"{source} is no export of CVAT: there is no annotations.xml in it")
    try:
        root = parse(file).getroot()
    except (ParseError, DefusedXmlException, OSError) as error:
        raise UserError(f"{file} is not XML that can be read: {error}") from None
    if root.find("track") is not None and root.find("image") is None:
        raise UserError(f"{file} is of `CVAT for video`: export the task as `CVAT for images 1.1`")
    folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    builder = CocoBuilder(categories=[label.findtext("name") or "" for label in root.iter("label")])
    for image in root.iter("image"):
        try:
            _add_image(builder, image, folder, file)
        except (KeyError, ValueError) as error:
            raise UserError(f"{file}: image {image.get('name')} is malformed ({error})") from None
    return {"instances": (folder, builder)}


def _add_image(builder: CocoBuilder, image: Any, folder: Path, file: Path) -> None:
    height, width = int(image.attrib["height"]), int(image.attrib["width"])
    path = inside(folder, image.attrib["name"], named_by=file)
    image_id = builder.add_image(path.relative_to(folder).as_posix(), height=height, width=width)
    groups: dict[tuple[str, Any], list[list[float]]] = {}
    for number, shape in enumerate(image):
        label = shape.get("label", "")
        group = shape.get("group_id", "0")
        if shape.tag == "polygon":
            polygon = [float(value) for point in shape.attrib["points"].split(";") for value in point.split(",")]
        elif shape.tag == "ellipse":
            polygon = _ellipse({key: float(shape.get(key, 0)) for key in ("cx", "cy", "rx", "ry", "rotation")})
        elif shape.tag == "mask":
            builder.add_mask(image_id, label, _mask(shape, height=height, width=width))
            continue
        else:
            builder.left_out["boxes, lines, points and tags without a mask"] += 1
            continue
        groups.setdefault((label, ("alone", number) if group == "0" else group), []).append(polygon)
    for (label, _), polygons in groups.items():
        builder.add_polygons(image_id, label, polygons)


def _ellipse(shape: dict[str, float]) -> list[float]:
    turn = math.radians(shape["rotation"])
    polygon = []
    for step in range(64):
        angle = 2 * math.pi * step / 64
        x, y = shape["rx"] * math.cos(angle), shape["ry"] * math.sin(angle)
        polygon += [
            shape["cx"] + x * math.cos(turn) - y * math.sin(turn),
            shape["cy"] + x * math.sin(turn) + y * math.cos(turn),
        ]
    return polygon


def _mask(shape: Any, *, height: int, width: int) -> np.ndarray:
    """(height, width) bool. CVAT's RLE: lengths of runs, zeros first, row by row within the mask's own box."""
    left, top, box_width, box_height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    if not (left >= 0 and top >= 0 and left + box_width <= width and top + box_height <= height):
        raise ValueError("a mask leaves the image")
    runs = np.array([int(run) for run in shape.attrib["rle"].split(",")])
    if (runs < 0).any() or runs.sum() != box_width * box_height:
        raise ValueError(f"a mask's runs cover {runs.sum()} pixels of {box_width * box_height}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + box_height, left : left + box_width] = values.reshape(box_height, box_width)
    return mask
