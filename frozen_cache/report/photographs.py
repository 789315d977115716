"""The pictures behind the masks: the cache holds none, so they come from the image folder where that is at hand."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from frozen_cache.cache.hints import read_hints
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.images import ImageReader, image_path
from frozen_cache.errors import UserError

GROUND = (58, 60, 66)


class Photographs:
    """Image ids to pictures; a plain ground of the right size where there is no picture."""

    def __init__(self, folder: Path | None, names: dict[int, str]) -> None:
        self.folder, self.names = folder, names

    @property
    def note(self) -> str:
        """What to tell a reader where pictures are missing; empty where there is a folder."""
        return "" if self.folder else "Pictures are not at hand (give --images FOLDER): masks lie on plain ground."

    def load(self, image_id: int, size: tuple[int, int]) -> Image.Image:
        """The RGB picture of `size` = (height, width)."""
        name = self.names.get(image_id)
        if self.folder is not None and name is not None:
            entry = CocoImage(id=image_id, file_name=name, height=size[0], width=size[1])
            try:
                return ImageReader().read(image_path(self.folder, entry), height=size[0], width=size[1])
            except (UserError, OSError):
                pass  # a picture less is no reason to go without a report
        return Image.new("RGB", (size[1], size[0]), GROUND)


def photographs(cache: Path, images: Path | None = None) -> Photographs:
    """The pictures of a cache: from `images`, else from where the cache was made, as far as that is still there.

    Raises:
        UserError: `images` is given and is no folder.
    """
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images} is no folder: give the one that the cache was extracted from")
    hints = read_hints(cache)
    folder = images or (hints.images if hints is not None and hints.images.is_dir() else None)
    names: dict[int, str] = {}
    if folder is not None and hints is not None and hints.annotations.is_file():
        try:
            content = json.loads(hints.annotations.read_text())
            names = {entry["id"]: entry["file_name"] for entry in content["images"]}
        except (OSError, ValueError, KeyError, TypeError):
            names = {}
    if folder is not None and not names:
        # COCO's own naming: the id, twelve digits.
        names = {int(file.stem): file.name for file in folder.iterdir() if file.stem.isdigit() and len(file.stem) == 12}
    return Photographs(folder, names)
