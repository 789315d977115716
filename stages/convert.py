"""Other tools' annotations as COCO instances files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.data.convert.builder import CocoBuilder, is_coco
from frozen_cache.data.convert.cvat import find_xml, read_cvat
from frozen_cache.data.convert.labelme import is_labelme, read_labelme
from frozen_cache.data.convert.masks import read_mask_folder, read_voc
from frozen_cache.data.convert.yolo import find_yaml, read_yolo
from frozen_cache.data.walk import files_below
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.ownership import Ownership

FORMATS: dict[str, Callable[[Path], dict[str, tuple[Path, CocoBuilder]]]] = {
    "yolo": read_yolo,
    "voc": read_voc,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "masks": read_mask_folder,
}
"""Name -> reader: split -> (image folder, COCO document)."""


@dataclass(frozen=True)
class ConvertedSplit:
    """One COCO file that was written, and what it holds."""

    annotations: Path
    images: Path
    image_count: int
    object_count: int
    categories: tuple[str, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...] = ()
    """What else to say."""

    def text(self) -> str:
        """What the command prints of it."""
        lines = [
            f"{self.annotations}: {self.image_count} images, {self.object_count} objects, "
            f"{len(self.categories)} categories ({', '.join(self.categories[:8])}"
            f"{' ...' if len(self.categories) > 8 else ''})",
            *(f"  left out: {count} {why}" for why, count in self.left_out.items() if count),
            *(f"  {note}" for note in self.notes),
            f"  next: frozen-cache extract-features --detector ... --images {self.images} "
            f"--annotations {self.annotations} --out {self.annotations.stem}.zarr",
        ]
        return "\n".join(lines)


def find_format(source: Path) -> str:
    """The format of a data set, by the files that it has; UserError where none fits or it is COCO's own already."""
    if not source.exists():
        raise UserError(f"there is no data set {source}")
    if (found := _format_of(source)) is not None:
        return found
    coco = coco_files(source)
    if coco:
        more = f" and {len(coco) - 1} more" if len(coco) > 1 else ""
        raise UserError(
            f"{coco[0]}{more}: that is COCO's format already; give it as --annotations, the folder of its images as "
            "--images"
        )
    for inner in sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else ():
        if (found := _format_of(inner)) is not None:
            raise UserError(f"{source}: no known format is found in it, but {inner} looks like {found}: give that")
    raise UserError(
        f"{source}: no known format is found in it; where it holds one of {', '.join(FORMATS)}, name that to "
        "`frozen-cache convert --format`"
    )


def _format_of(source: Path) -> str | None:
    """The format that the files look like; None where none fits."""
    if find_yaml(source) is not None:
        return "yolo"
    if find_xml(source) is not None:
        return "cvat"
    if (source / "SegmentationObject").is_dir():
        return "voc"
    if (source / "images").is_dir() and (source / "masks").is_dir():
        return "masks"
    return "labelme" if is_labelme(source) else None


def coco_files(folder: Path) -> list[Path]:
    """Files below a folder that begin like a COCO instances file (also Roboflow's and CVAT's), by name."""
    if folder.is_file():
        return [folder] if _is_coco(folder) else []
    return [path for path in files_below(folder, (".json",)) if _is_coco(path)]


def _is_coco(path: Path) -> bool:
    try:
        return is_coco(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return False


def convert(*, source: Path, out: Path, format: str | None = None, overwrite: bool = False) -> list[ConvertedSplit]:
    """Write a COCO instances file for each split of the data set `source` into the folder `out`.

    A file that holds just what would be written is left as it is, so that a call that was killed goes on.

    Args:
        format: one of `FORMATS`; None for what the files look like.

    Raises:
        UserError: nothing to read, a malformed file, files in `out` that would be overwritten, or an `out` that cannot
            be written or that another process holds.
    """
    if format is not None and format not in FORMATS:
        raise UserError(f"--format {format}: give one of {', '.join(FORMATS)}")
    if not source.exists():
        raise UserError(f"there is no data set {source}")
    with Ownership(out) as owner:
        splits = FORMATS[format or find_format(source)](source)
        for split, (_, builder) in splits.items():
            if not builder.document["annotations"]:
                raise UserError(f"{source}: split {split} has no object with a mask{_reasons(builder)}")
            file = out / f"{split}.json"
            if file.exists() and not overwrite and not _holds(file, _content(builder)):
                raise UserError(f"{file} is there already, of something else: add --overwrite, or choose another --out")
        owner.check()
        return [_write_split(out / f"{split}.json", *converted) for split, converted in splits.items()]


def _write_split(file: Path, images: Path, builder: CocoBuilder) -> ConvertedSplit:
    document = builder.document
    notes = list(builder.notes)
    if not (images / document["images"][0]["file_name"]).is_file():
        notes.append(f"its images are not in {images}: give the folder where they are as --images")
    content = _content(builder)
    if not _holds(file, content):
        write_durably(file, content)
    return ConvertedSplit(
        annotations=file,
        images=images,
        image_count=len(document["images"]),
        object_count=len(document["annotations"]),
        categories=tuple(category["name"] for category in document["categories"]),
        left_out=dict(builder.left_out),
        notes=tuple(notes),
    )


def _content(builder: CocoBuilder) -> bytes:
    return json.dumps(builder.document).encode()


def _holds(file: Path, content: bytes) -> bool:
    return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content


def _reasons(builder: CocoBuilder) -> str:
    reasons = [f"{count} {why}" for why, count in builder.left_out.items() if count]
    return f" (left out: {', '.join(reasons)})" if reasons else ""
