"""The fingerprint of a data set: what a cache was made from, in one number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from frozen_cache.data.coco import CocoImage


def data_fingerprint(images: Iterable[tuple[CocoImage, int | None]], categories: dict[int, str]) -> str:
    """sha256 (hex) over categories, images, their annotations as used, and the sizes of the image files.

    Args:
        images: each image with its file's size in bytes, None for a missing file.
    """
    digest = hashlib.sha256(_line(sorted(categories.items())))
    for image, file_size in images:
        digest.update(_line([image.id, image.file_name, image.height, image.width, file_size]))
        for a in image.annotations:
            digest.update(_line([a.id, a.category_id, a.bbox, a.area, a.crowd, a.rle["counts"].decode("ascii")]))
    return digest.hexdigest()


def _line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
