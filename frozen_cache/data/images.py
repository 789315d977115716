"""Image files: inside their folder, upright, RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from frozen_cache.data.coco import CocoImage
from frozen_cache.errors import UserError

_TRANSPOSED = (5, 6, 7, 8)
_ORIENTATION = 0x0112


class BrokenImageError(UserError):
    """An image file that is truncated, not an image, or of another size than the annotations say."""


def image_path(folder: Path, image: CocoImage) -> Path:
    """The path of an image; UserError where its file name leads out of the folder (`..`, absolute, links)."""
    path = folder / image.file_name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"image {image.id}: its file name {image.file_name} leads out of the folder {folder}")
    return path


def read_image(path: Path, *, height: int, width: int) -> Image.Image:
    """The RGB image of height x width pixels, its EXIF orientation applied.

    Where only the file as stored has the annotated size, the annotators saw it so: the orientation is left aside.
    Raises BrokenImageError naming the file.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            file.load()
            upright = _applies_orientation(path, file, height=height, width=width)
            return to_rgb(ImageOps.exif_transpose(file) if upright else file)
    except BrokenImageError:
        raise
    except Exception as error:  # PIL raises nearly anything on damaged files
        raise BrokenImageError(f"{path} is not an image that can be read: {_first_line(error)}") from None


def check_image(path: Path, *, height: int, width: int) -> None:
    """BrokenImageError for a file that is surely broken, judged by its header and, for JPEG and PNG, its end."""
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            _applies_orientation(path, file, height=height, width=width)
            complete = _has_end(path, file.format)
    except BrokenImageError:
        raise
    except Exception as error:
        raise BrokenImageError(f"{path} is not an image that can be read: {_first_line(error)}") from None
    if not complete:
        read_image(path, height=height, width=width)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as RGB: 16-bit and float grey scaled to 8 bits, transparency dropped."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        scale = 1.0 if values.max(initial=0) <= 255 and image.mode == "F" else 255 / 65535
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _applies_orientation(path: Path, file: Image.Image, *, height: int, width: int) -> bool:
    orientation = file.getexif().get(_ORIENTATION, 1)
    stored = (file.height, file.width)
    upright = stored[::-1] if orientation in _TRANSPOSED else stored
    if upright == (height, width):
        return True
    if stored == (height, width):
        return False
    raise BrokenImageError(
        f"{path} has {upright[0]} x {upright[1]} pixels (height x width), its annotations say {height} x {width}"
    )


def _has_end(path: Path, kind: str | None) -> bool:
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind or "")
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 32))
        return end in file.read()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
