"""Masks as PNG files: Pascal VOC's pairs of class and object maps, and plain folders of instance masks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from frozen_cache.data.convert.builder import CocoBuilder, image_of, images_below, inside, read_lines, read_pixels
from frozen_cache.data.images import plain_reader
from frozen_cache.errors import UserError

VOC_NAMES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
VOID = 255
"""VOC's border between objects and background: no class."""
PLAIN_NAME = "object"
"""The class of masks that carry none."""


def read_voc(source: Path) -> dict[str, tuple[Path, CocoBuilder]]:
    """`JPEGImages`, `SegmentationClass`, `SegmentationObject`; a split per list in `ImageSets/Segmentation`.

    Classes are VOC's twenty, or those of a `labelmap.txt` (`name:r,g,b:parts:actions`, as CVAT writes it).
    """
    images, classes, objects = (source / name for name in ("JPEGImages", "SegmentationClass", "SegmentationObject"))
    if not classes.is_dir() or not objects.is_dir():
        raise UserError(f"{source} is no VOC data set with masks: it lacks SegmentationClass or SegmentationObject")
    lists = sorted((source / "ImageSets" / "Segmentation").glob("*.txt"))
    splits = {path.stem: _stems(path) for path in lists if path.stem != "trainval"}
    coloured = (source / "labelmap.txt").is_file()
    names = _labelmap(source / "labelmap.txt")
    found = {}
    for split, stems in (splits or {"instances": sorted(path.stem for path in objects.glob("*.png"))}).items():
        builder = CocoBuilder(categories=[name for name, _ in names if name != "background"])
        for stem in stems:
            inside(images, stem, named_by=source / "ImageSets" / "Segmentation" / f"{split}.txt")
            image = image_of(images, stem)
            if image is None:
                raise UserError(f"{source}: {split}.txt names {stem}, which is not in {images}")
            height, width = plain_reader().size(image)
            image_id = builder.add_image(image.name, height=height, width=width)
            if (objects / f"{stem}.png").is_file():
                class_map = read_pixels(classes / f"{stem}.png", colours=coloured)
                object_map = read_pixels(objects / f"{stem}.png")
                _check_size(classes / f"{stem}.png", class_map, height, width)
                _check_size(objects / f"{stem}.png", object_map, height, width)
                _add_voc(builder, image_id, class_map, object_map, {value: name for name, value in names})
        found[split] = (images, builder)
    return found


def read_mask_folder(source: Path) -> dict[str, tuple[Path, CocoBuilder]]:
    """`images/` and `masks/`. For `images/a.jpg`, either `masks/a.png`, a map of object numbers (0 is no object), or
    `masks/a/*.png`, a file an object, whose name without a number at its end is the class (`cat_1.png`)."""
    images, masks = source / "images", source / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise UserError(f"{source} is no folder of masks: it lacks images/ or masks/")
    builder = CocoBuilder()
    for image in images_below(images):
        height, width = plain_reader().size(image)
        name = image.relative_to(images)
        image_id = builder.add_image(name.as_posix(), height=height, width=width)
        whole, folder = masks / name.with_suffix(".png"), masks / name.with_suffix("")
        if whole.is_file():
            numbers = read_pixels(whole)
            _check_size(whole, numbers, height, width)
            for number in np.unique(numbers[numbers != 0]):
                builder.add_mask(image_id, PLAIN_NAME, numbers == number)
        for file in sorted(folder.glob("*.png")) if folder.is_dir() else []:
            pixels = read_pixels(file)
            _check_size(file, pixels, height, width)
            builder.add_mask(image_id, re.sub(r"[\W_]*\d*$", "", file.stem) or PLAIN_NAME, pixels != 0)
    return {"instances": (images, builder)}


def _stems(file: Path) -> list[str]:
    """The images of a list; CVAT puts names with blanks in quotes."""
    return [stem for line in read_lines(file) if (stem := line.strip().strip('"'))]


def _add_voc(
    builder: CocoBuilder, image_id: int, class_map: np.ndarray, object_map: np.ndarray, names: dict[int, str]
) -> None:
    for number in np.unique(object_map[(object_map != 0) & (object_map != VOID)]):
        mask = object_map == number
        values, counts = np.unique(class_map[mask], return_counts=True)
        name = names.get(int(values[counts.argmax()]), "background")
        if name == "background":
            builder.left_out["objects without a class"] += 1
        else:
            builder.add_mask(image_id, name, mask)


def _labelmap(file: Path) -> list[tuple[str, int]]:
    """(name, value in the class map) of each class: a palette index, or a colour as r << 16 | g << 8 | b."""
    if not file.is_file():
        return [(name, value) for value, name in enumerate(VOC_NAMES, 1)]
    rows = [line.split(":") for line in read_lines(file) if line.strip() and not line.startswith("#")]
    try:
        return [(row[0], _packed([int(part) for part in row[1].split(",")])) for row in rows]
    except (IndexError, ValueError):
        raise UserError(f"{file}: a line is not `name:r,g,b:parts:actions`") from None


def _packed(colour: list[int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _check_size(file: Path, pixels: np.ndarray, height: int, width: int) -> None:
    if pixels.shape != (height, width):
        raise UserError(f"{file} has {pixels.shape[0]} x {pixels.shape[1]} pixels, its image {height} x {width}")
