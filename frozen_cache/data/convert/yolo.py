"""Ultralytics' YOLO segmentation data sets: `data.yaml`, and one text file of normalised polygons an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from frozen_cache.data.convert.builder import CocoBuilder, images_below
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
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else {int(key): str(name) for key, name in names.items()}
    found = {}
    for split in SPLITS:
        if content.get(split):
            folder = _split_folder(file, content, split)
            if folder is not None:
                found[split] = (folder, _read_split(folder, names, file))
    if not found:
        raise UserError(f"{file}: none of its image folders is there")
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML that can be read: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _split_folder(file: Path, content: dict[str, Any], split: str) -> Path | None:
    """The image folder of a split. Roboflow writes `../train/images` for what lies beside the file."""
    named = content[split]
    if not isinstance(named, str):
        raise UserError(f"{file}: `{split}` is not a folder's name")
    root = file.parent / str(content.get("path") or "")
    plain = Path(named)
    candidates = [
        root / plain,
        file.parent / plain,
        file.parent / Path(*[part for part in plain.parts if part != ".."]),
    ]
    return next((path for path in candidates if path.is_dir()), None)


def _read_split(folder: Path, names: dict[int, str], file: Path) -> CocoBuilder:
    builder = CocoBuilder(categories=[names[key] for key in sorted(names)])
    for image in images_below(folder):
        height, width = plain_reader().size(image)
        image_id = builder.add_image(image.relative_to(folder).as_posix(), height=height, width=width)
        labels = _label_file(image)
        if not labels.is_file():
            continue
        for number, line in enumerate(labels.read_text().splitlines(), 1):
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
