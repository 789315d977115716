"""A project file from what lies in a folder: COCO files, their images, a detector."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from frozen_cache.data.walk import files_below, folders_below
from frozen_cache.detectors.find_factory import find_factory
from frozen_cache.detectors.hf.families import FAMILIES
from frozen_cache.durable import create_durably, write_durably
from frozen_cache.errors import UserError
from frozen_cache.stages.convert import coco_files, find_format

FOLDERS_LOOKED_AT = 2000
IMAGES_LOOKED_FOR = 20
"""Of an annotation file, in each folder that has the first of them."""
FEW_IMAGES = 2000
"""Up to so many training images the small-data recipe is proposed."""


@dataclass(frozen=True)
class FoundSplit:
    """A COCO file and the folder of its images."""

    name: str
    annotations: Path
    images: Path | None
    """None where no folder has the first image."""
    image_count: int
    object_count: int
    categories: tuple[str, ...]


@dataclass(frozen=True)
class FoundProject:
    """What was found, and the file that says so."""

    file: Path
    splits: list[FoundSplit]
    detector: str | None

    def text(self) -> str:
        """What the command prints."""
        lines = [
            f"{split.name}: {split.annotations}, {split.image_count} images, {split.object_count} objects, images in "
            f"{split.images or '(not found: fill in `images`)'}"
            for split in self.splits
        ]
        lines.append(f"detector: {self.detector or '(none found: fill in `detector`)'}")
        lines += [f"project file: {self.file}", f"next: look it over, then `frozen-cache run {self.file}`"]
        return "\n".join(lines)


def init_project(*, folder: Path, out: Path, force: bool = False) -> FoundProject:
    """Look through `folder` and write the project file `out`.

    Raises:
        UserError: no folder, nothing in COCO's format (saying how to convert what is there), or a file at `out`.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    there = UserError(f"{out} is there already: `frozen-cache run {out}` uses it, --force writes it anew")
    if out.exists() and not force:
        raise there
    splits = find_splits(folder)
    if not splits:
        kind = find_format(folder)  # says what is wrong where nothing is known
        raise UserError(
            f"{folder} holds a data set in the format {kind}: "
            f"`frozen-cache convert {folder} --out {folder / 'coco'}` first, then init again"
        )
    found = FoundProject(file=out, splits=splits, detector=_find_detector(folder))
    document = _document(found, folder).encode()
    if force:
        write_durably(out, document)
    elif not create_durably(out, document):  # by another process, meanwhile
        raise there
    return found


def find_splits(folder: Path) -> list[FoundSplit]:
    """The COCO files below a folder, `train` first and `val` second, each name once."""
    found: dict[str, FoundSplit] = {}
    folders = list(islice(folders_below(folder), FOLDERS_LOOKED_AT))
    for file in coco_files(folder):
        content = json.loads(file.read_bytes())
        name = _split_name(file.relative_to(folder))
        if name in found or not content["images"] or not content["annotations"]:
            continue
        names = [str(image.get("file_name")) for image in content["images"][:IMAGES_LOOKED_FOR]]
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        found[name] = FoundSplit(
            name=name,
            annotations=file,
            images=_image_folder(folders, names, file),
            image_count=len(content["images"]),
            object_count=len(content["annotations"]),
            categories=tuple(str(c.get("name")) for c in content["categories"] if c.get("id") in used),
        )
    return sorted(found.values(), key=lambda split: ({"train": 0, "val": 1}.get(split.name, 2), split.name))


def _image_folder(folders: list[Path], names: list[str], annotations: Path) -> Path | None:
    """The folder that has most of the images; of several, the one that is named like the annotations, or lies nearest
    to them: file names of one split are often those of another."""

    def fits(folder: Path) -> tuple[int, bool, bool, int]:
        split = _split_name(annotations.relative_to(folders[0]))
        here = folder.relative_to(folders[0])
        near = len(os.path.commonpath([folder, annotations.parent]))
        named = folder.name.lower() in annotations.stem.lower()
        return sum((folder / name).is_file() for name in names), named, split in here.as_posix().lower(), near

    there = [folder for folder in folders if (folder / names[0]).is_file()]
    return max(there, key=fits, default=None)  # the first of equals


def _split_name(path: Path) -> str:
    text = path.as_posix().lower()
    return next((name for name in ("train", "val", "test") if name in text), path.stem)


def _find_detector(folder: Path) -> str | None:
    """The first saved transformers model of a family that is known, relative to the folder: `FILE.py:FACTORY` where a
    loader lies beside it (whoever wrote one knows that plain loading is not enough), else `hf:DIR`."""
    for file in files_below(folder, (".json",)):
        if file.name != "config.json":
            continue
        try:
            kind = json.loads(file.read_bytes()).get("model_type")
        except (OSError, ValueError, AttributeError):
            continue
        if kind in FAMILIES:
            factory = find_factory(file.parent)
            if factory is not None:
                return f"{_inside(factory[0], folder)}:{factory[1]}"
            return f"hf:{_inside(file.parent, folder)}"
    return None


def _document(found: FoundProject, folder: Path) -> str:
    train = next((split for split in found.splits if split.name == "train"), found.splits[0])
    val = next((split for split in found.splits if split.name == "val"), None)
    preset = "small-data" if train.image_count <= FEW_IMAGES else "paper"
    lines = [
        "# The project: `frozen-cache run` does all of it, and goes on where it stopped.",
        "# A table is a command, its keys are that command's options (`frozen-cache COMMAND --help`); any command",
        "# takes this file with --config. Paths are relative to this file.",
        "",
        "[extract-features]",
        _line("detector", found.detector)
        if found.detector
        else '# detector = "hf:PekingU/rtdetr_v2_r18vd"  # fill in; `frozen-cache detectors` lists what can stand here',
        '# precision = "int8"       # half the bytes of float16',
        '# only = "cat,dog"        # a part of the classes',
    ]
    for split in found.splits:
        names = ", ".join(split.categories[:10]) + (" ..." if len(split.categories) > 10 else "")
        images = None if split.images is None else _inside(split.images, folder)
        lines += [
            "",
            f"[extract-features.{split.name}]  # {split.image_count} images, {split.object_count} objects: {names}",
            '# images = "..."  # fill in: the folder of the images' if images is None else _line("images", images),
            _line("annotations", _inside(split.annotations, folder)),
            _line("out", f"caches/{split.name}.zarr"),
        ]
    lines += ["", "[train-head]", _line("cache", f"caches/{train.name}.zarr")]
    if val is not None:
        lines.append(_line("val-cache", "caches/val.zarr"))
    lines += [_line("preset", preset), "# epochs = 6", _line("out", "run")]
    measured = val or train
    lines += ["", "[evaluate]", _line("cache", f"caches/{measured.name}.zarr"), _line("head", "run")]
    lines += [_line("out", "results"), ""]
    return "\n".join(lines)


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _line(key: str, value: Any) -> str:
    # A JSON string is a TOML basic string.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
