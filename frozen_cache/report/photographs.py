"""The pictures behind the masks: from the image folder where that is at hand, else from a cache that holds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from frozen_cache.cache.hints import read_hints
from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.images import ImageReader, image_path
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath

GROUND = (58, 60, 66)


class Photographs:
    """Image ids to pictures; a plain ground of the right size where there is no picture.

    Args:
        folder: of the image files; None where it is not at hand.
        names: image id -> file name in it.
        held: image id -> the picture that the cache itself holds; None where it holds none.
        bit_depth: of images with more than 8 bits, as `ImageReader` takes it.
    """

    def __init__(
        self,
        folder: Path | None,
        names: dict[int, str],
        held: Callable[[int], Image.Image | None] | None = None,
        *,
        bit_depth: int | None = None,
    ) -> None:
        self.folder, self.names, self.held, self.bit_depth = folder, names, held, bit_depth

    @property
    def note(self) -> str:
        """What to tell a reader where pictures are missing; empty where there are any."""
        missing = "Pictures are not at hand (give --images FOLDER): masks lie on plain ground."
        return "" if self.folder or self.held else missing

    def find(self, image_id: int, size: tuple[int, int]) -> Image.Image | None:
        """The RGB picture of `size` = (height, width); None where there is none."""
        name = self.names.get(image_id)
        if self.folder is not None and name is not None:
            entry = CocoImage(id=image_id, file_name=name, height=size[0], width=size[1])
            try:
                reader = ImageReader(bit_depth=self.bit_depth)
                return reader.read(image_path(self.folder, entry), height=size[0], width=size[1])
            except (UserError, OSError):
                pass  # a picture less is no reason to go without a report
        return None if self.held is None else self.held(image_id)

    def at_hand(self, image_id: int) -> bool:
        """Whether there is a file, or the cache holds the picture; nothing is read."""
        if self.held is not None:
            return True
        name = self.names.get(image_id)
        return self.folder is not None and name is not None and (self.folder / name).is_file()

    def load(self, image_id: int, size: tuple[int, int]) -> Image.Image:
        """The RGB picture of `size` = (height, width), or plain ground."""
        return self.find(image_id, size) or Image.new("RGB", (size[1], size[0]), GROUND)


def photographs(cache: CachePath, images: Path | None = None, *, reader: CacheReader | None = None) -> Photographs:
    """The pictures of a cache: from `images`, else from where the cache was made, as far as that is still there, else
    from the cache that `reader` reads, where it holds them.

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
            content = json.loads(hints.annotations.read_bytes())
            names = {entry["id"]: entry["file_name"] for entry in content["images"]}
        except (OSError, ValueError, KeyError, TypeError):
            names = {}
    if folder is not None and not names:
        # COCO's own naming: the id, twelve digits.
        names = {int(file.stem): file.name for file in folder.iterdir() if file.stem.isdigit() and len(file.stem) == 12}
    held = None if reader is None or reader.attributes.stem is None else _held(reader)
    return Photographs(folder, names, held, bit_depth=None if reader is None else reader.attributes.data.bit_depth)


def _held(reader: CacheReader) -> Callable[[int], Image.Image | None]:
    plain = {image: at for at, (image, view) in enumerate(reader.views) if view == 0}
    return lambda image_id: reader.picture(plain[image_id]) if image_id in plain else None
