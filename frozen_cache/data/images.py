"""Image files: inside their folder, upright, RGB of 8 bits."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from frozen_cache.data.bit_depth import stored_bits, to_eight_bits
from frozen_cache.data.coco import CocoImage
from frozen_cache.errors import UserError
from frozen_cache.pointer_file import pointer_file

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
"""Formats of photographs; Pillow knows others, and starts Ghostscript for an EPS, whatever its name."""
MAX_PIXELS = 178_956_970
"""Pillow's own limit against files that unpack to more than memory holds."""

_TRANSPOSED = (5, 6, 7, 8)
_ORIENTATION = 0x0112


class BrokenImageError(UserError):
    """An image file that is truncated, not an image, or of another size than the annotations say."""


def image_path(folder: Path, image: CocoImage) -> Path:
    """The path of an image. UserError where its file name is absolute or leads out of the folder by `..`.

    Links are followed wherever they lead: the owner of the folder has put them there, as DVC and git-annex do.
    """
    name = Path(os.path.normpath(image.file_name))
    if name.is_absolute() or name.parts[:1] == (os.pardir,):
        raise UserError(f"image {image.id}: its file name {image.file_name} leads out of the folder {folder}")
    return folder / name


class ImageReader:
    """Reads image files as RGB of 8 bits; knows what it had to convert. Any number of threads may use it.

    Args:
        bit_depth: values of images with more than 8 bits run from 0 to 2^bit_depth - 1; None for what the type says.
        max_pixels: images with more are refused before they are decoded; None for `MAX_PIXELS`.
    """

    def __init__(self, *, bit_depth: int | None = None, max_pixels: int | None = None) -> None:
        if bit_depth is not None and not 8 <= bit_depth <= 32:
            raise UserError(f"--bit-depth {bit_depth}: give 8 to 32")
        if max_pixels is not None and max_pixels < 1:
            raise UserError(f"--max-pixels {max_pixels}: give 1 or more")
        self.bit_depth = bit_depth
        self.max_pixels = max_pixels or MAX_PIXELS
        self._converted: dict[str, set[Path]] = {}
        self._lock = threading.Lock()
        self._formats = _known_formats()
        warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters in them is an error here
        if Image.MAX_IMAGE_PIXELS is not None:  # Pillow refuses twice this
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-self.max_pixels // 2))

    def read(self, path: Path, *, height: int | None = None, width: int | None = None) -> Image.Image:
        """The RGB image of height x width pixels, its EXIF orientation applied.

        Where only the file as stored has the given size, the annotators saw it so: the orientation is left aside.

        Raises:
            BrokenImageError: names the file.
            UserError: a file that is whole and cannot be used as it is: no permission, a pointer, width and height
                swapped in the annotations, too many pixels, bits of no known range.
        """
        return self.decode(file_content(path), path, height=height, width=width)

    def decode(self, content: bytes, path: Path, *, height: int | None = None, width: int | None = None) -> Image.Image:
        """As `read`, of a file's bytes."""
        with _named_errors(path), self._opened(io.BytesIO(content), path) as image:
            kind = stored_bits(image)  # first: Pillow decodes a PNG to find its orientation
            upright = _applies_orientation(path, image, height=height, width=width)
            image.load()
            found: Image.Image = ImageOps.exif_transpose(image) if upright else image
            if kind is not None:  # told by the file, before Pillow has decoded it
                found = to_eight_bits(found, kind=kind, bit_depth=self.bit_depth, name=str(path))
                with self._lock:
                    self._converted.setdefault(kind, set()).add(path)
            return to_rgb(found)

    def check(self, path: Path, *, height: int | None = None, width: int | None = None) -> None:
        """As `read`, judged by the header and, for JPEG and PNG, the end; more bits than 8 and others are decoded."""
        with _named_errors(path), path.open("rb") as file, self._opened(file, path) as image:
            complete = stored_bits(image) is None and _has_end(path, image.format)
            _applies_orientation(path, image, height=height, width=width)
        if not complete:
            self.read(path, height=height, width=width)

    def size(self, path: Path) -> tuple[int, int]:
        """(height, width) in pixels, upright, from the header alone. Errors are those of `read`."""
        with _named_errors(path), path.open("rb") as file, self._opened(file, path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) in _TRANSPOSED
            return (image.width, image.height) if turned else (image.height, image.width)

    def notes(self) -> list[str]:
        """A line for each kind of image that had to be converted."""
        top = f"0 to {2**self.bit_depth - 1}" if self.bit_depth else "0 to 65535"
        how = {"16-bit colour": "the upper 8 bits of each value were taken"}
        with self._lock:
            counts = Counter({kind: len(paths) for kind, paths in sorted(self._converted.items())})
        return [
            f"{count} {'images have' if count > 1 else 'image has'} more than 8 bits ({kind}): "
            + how.get(kind, f"{top} became 0 to 255")
            for kind, count in counts.items()
        ]

    @contextmanager
    def _opened(self, file: IO[bytes], path: Path) -> Iterator[Image.Image]:
        """The opened image, not decoded, of an allowed format and size."""
        try:
            image = Image.open(file, formats=self._formats)
        except UnidentifiedImageError:
            file.seek(0)
            pointer = pointer_file(file.read(64))
            if pointer is not None:
                raise UserError(f"{path} is {pointer}") from None
            raise BrokenImageError(
                f"{path} is not an image that can be read: it is none of {', '.join(self._formats)}"
            ) from None
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            raise self._too_large(path, pixels[0] if pixels else "too many") from None
        with image:
            if image.width * image.height > self.max_pixels:
                raise self._too_large(path, str(image.width * image.height))
            yield image

    def _too_large(self, path: Path, pixels: str) -> UserError:
        return UserError(f"{path} has {pixels} pixels, more than {self.max_pixels}; --max-pixels N raises the limit")


def file_content(path: Path) -> bytes:
    """The bytes of an image file; errors are those of `ImageReader.read`."""
    with _named_errors(path), path.open("rb") as file:
        return file.read()


@cache
def plain_reader() -> ImageReader:
    """The reader of whoever has no options and reports no conversions."""
    return ImageReader()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as RGB, transparency dropped; more than 8 bits as `ImageReader` takes them."""
    kind = stored_bits(image)
    if kind is not None:
        image = to_eight_bits(image, kind=kind, bit_depth=None, name="the image")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """An error of the disk stops with its path and is no damage; whatever Pillow raises on a damaged file is."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise _broken(path, error) from None
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> BrokenImageError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return BrokenImageError(f"{path} is not an image that can be read: {reason}")


def _applies_orientation(path: Path, image: Image.Image, *, height: int | None, width: int | None) -> bool:
    if height is None or width is None:
        return True
    orientation = image.getexif().get(_ORIENTATION, 1)
    stored = (image.height, image.width)
    upright = stored[::-1] if orientation in _TRANSPOSED else stored
    if upright == (height, width):
        return True
    if stored == (height, width):
        return False
    found = f"{path} has {upright[0]} x {upright[1]} pixels (height x width)"
    if upright == (width, height):
        raise UserError(
            f"{found}, and its annotations have the two swapped: mend `height` and `width` of the list `images` there "
            "(the image itself is whole)"
        )
    raise BrokenImageError(f"{found}, its annotations say {height} x {width}")


def _has_end(path: Path, kind: str | None) -> bool:
    end = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(kind or "")
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 32))
        return end in file.read()


def _known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
