"""Ultralytics' YOLO segmentation data sets: `data.yaml`, and one text file of normalised polygons an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from frozen_cache.data.convert.builder import CocoBuilder, images_below, inside, read_lines
from frozen_cache.data.images import plain_reader
from frozen_cache.errors import UserError

SPLITS = ("train", "val", "test")


def find_yaml(source: Path) -> Path | None:
    """The `data.yaml` of a YOLO data set: `source` itself, or a file in it with `names` and a split."""
    for path in [source] if source.is_file() else sorted([*source.glob("*.yaml"), *source.glob("*.yml")]):
        if path.suffix in (".yaml", ".yml"):
            content = _load(path)
            if "names" in content and any(split in content for split in SPLITS):
                return path
    return None


def read_yolo(source: Path) -> dict[str, tuple[Path, CocoBuilder]]:
    """Split -> (image folder, its COCO document).

    A line of a label file is `class x y x y ...` in 0..1 of the image. Lines of a class and four numbers are boxes;
    they have no mask and are left out and counted.
    """
    file = find_yaml(source)
    if file is None:
        raise UserError(f"{source} is no YOLO data set: there is no data.yaml with `names` and `train` in it")
    content = _load(file)
    names = _names(file, content["names"])
    found, lost = {}, []
    for split in SPLITS:
        if content.get(split):
            there = _split_images(file, content, split)
            if there is None:
                lost.append(f"no {split}: {content[split]} is not there")
            else:
                folder, images = there
                found[split] = (folder, _read_split(folder, images, names))
    if not found:
        raise UserError(f"{file}: none of its image folders is there")
    next(iter(found.values()))[1].notes += lost
    return found


def _names(file: Path, names: Any) -> dict[int, str]:
    """Number -> name of the classes, of a list or of `0: cat`."""
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and all(str(number).isdecimal() for number in names):
        return {int(number): str(name) for number, name in names.items()}
    raise UserError(f"{file}: `names` is neither a list of names nor a table of `0: cat`")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML that can be read: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _split_images(file: Path, content: dict[str, Any], split: str) -> tuple[Path, list[Path]] | None:
    """(folder, images in it) of a split: a folder, a text file with an image a line, or a list of either; None where
    one of them is not there."""
    named = content[split] if isinstance(content[split], list) else [content[split]]
    if not all(isinstance(each, str) for each in named):
        raise UserError(f"{file}: `{split}` is not the name of a folder or of a list of images")
    places = [_place(file, content, each) for each in named]
    there = [place for place in places if place is not None]
    if len(there) < len(places):
        return None
    if len(there) == 1 and there[0].is_dir():
        return there[0], images_below(there[0])
    folder = Path(os.path.commonpath([place if place.is_dir() else place.parent for place in there]))
    images: dict[Path, None] = {}
    for place in there:
        images |= dict.fromkeys(images_below(place) if place.is_dir() else _listed(folder, place))
    return folder, list(images)


def _place(file: Path, content: dict[str, Any], named: str) -> Path | None:
    """Where a split is. Roboflow writes `../train/images` for what lies beside the file."""
    plain = Path(named)
    root = file.parent / str(content.get("path") or "")
    inner = Path(*[part for part in plain.parts if part != ".."])
    candidates = [root / plain, file.parent / plain, file.parent / inner]
    return next((path for path in candidates if path.is_dir() or (path.suffix == ".txt" and path.is_file())), None)


def _listed(folder: Path, file: Path) -> list[Path]:
    """The images of a list, whose names are relative to it."""
    within = file.parent.relative_to(folder)
    return [
        inside(folder, (within / line.strip()).as_posix(), named_by=file) for line in read_lines(file) if line.strip()
    ]


def _read_split(folder: Path, images: list[Path], names: dict[int, str]) -> CocoBuilder:
    builder = CocoBuilder(categories=[names[key] for key in sorted(names)])
    for image in images:
        height, width = plain_reader().size(image)
        image_id = builder.add_image(image.relative_to(folder).as_posix(), height=height, width=width)
        labels = _label_file(image)
        if not labels.is_file():
            continue
        for number, line in enumerate(read_lines(labels), 1):
            if line.strip():
                _add_line(builder, image_id, line, names, size=(height, width), where=f"{labels}:{number}")
    return builder


def _label_file(image: Path) -> Path:
    """`.../labels/....txt` of `.../images/...`: the last folder named `images` is the one that counts."""
    parts = list(image.parts)
    at = max((at for at, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _add_line(
    builder: CocoBuilder, image_id: int, line: str, names: dict[int, str], *, size: tuple[int, int], where: str
) -> None:
    try:
        label, *values = (float(part) for part in line.split())
    except ValueError:
        raise UserError(f"{where}: not a class and numbers: {line[:60]}") from None
    if label not in names:
        raise UserError(f"{where}: class {label:g} has no name in data.yaml")
    if len(values) == 4:
        builder.left_out["boxes without a mask"] += 1
        return
    if len(values) % 2:
        raise UserError(f"{where}: {len(values)} numbers make no x, y pairs")
    height, width = size
    polygon = [value * (height if at % 2 else width) for at, value in enumerate(values)]
    builder.add_polygons(image_id, names[int(label)], [polygon])
