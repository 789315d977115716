"""The fingerprint of a data set: what a cache was made from, in one number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np

from frozen_cache.data.coco import CocoImage
from frozen_cache.data.supervision import Kind
from frozen_cache.data.truth import GroundTruth, view_truth
from frozen_cache.data.view import ViewTransform


def data_fingerprint(images: Iterable[tuple[CocoImage, int | None]], categories: dict[int, str]) -> str:
    """sha256 (hex) over categories, images, their annotations as used, and the sizes of the image files.

    Args:
        images: each image with its file's size in bytes, None for a missing file.
    """
    digest = hashlib.sha256(_line(sorted(categories.items())))
    for image, file_size in images:
        digest.update(_line([image.id, image.file_name, image.height, image.width, file_size]))
        for a in image.annotations:
            told = [a.id, a.category_id, a.bbox, a.area, a.crowd, a.rle["counts"].decode("ascii")]
            digest.update(_line(told if a.kind == Kind.MASK else [*told, a.kind, a.points]))
    return digest.hexdigest()


def annotation_sum(image: CocoImage) -> int:
    """A sum of 63 bits over an image's size and its annotations as used; their ids, which nothing depends on, aside."""
    height, width = image.height, image.width
    plain = ViewTransform(original_size=(height, width), crop=(0, 0, width, height), resized_size=(height, width))
    ids = sorted({annotation.category_id for annotation in image.annotations})
    return truth_sum(view_truth(image, plain, {key: place for place, key in enumerate(ids)}), ids, plain)


def truth_sum(truth: GroundTruth, category_ids: Sequence[int], plain: ViewTransform) -> int:
    """The `annotation_sum` of an image from the ground truth of its plain view.

    Args:
        category_ids: those that `truth.categories` are indices into.
    """
    digest = hashlib.sha256(_line(plain.original_size))
    digest.update(np.array(category_ids, dtype=np.int64)[truth.categories].tobytes())
    digest.update(truth.boxes.tobytes() + truth.areas.tobytes() + truth.crowd.tobytes())
    digest.update(_line([mask["counts"].decode("ascii") for mask in truth.masks]))
    if truth.supervision is not None and not truth.supervision.masked.all():
        digest.update(_line(truth.supervision.listed()))
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def _line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
