"""The images of a data set on disk: which are there, and which are surely broken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.data.coco import CocoDataset, CocoImage
from frozen_cache.data.images import check_image, image_path
from frozen_cache.errors import UserError


@dataclass(frozen=True)
class FoundImages:
    """The images that a run takes."""

    images: list[CocoImage]
    """By rising id."""
    file_sizes: dict[int, int]
    """Image id -> bytes."""
    missing: list[int]
    """Ids of images without a file."""


def find_images(dataset: CocoDataset, folder: Path, *, limit: int | None, skip_missing: bool) -> FoundImages:
    """The first `limit` images by id whose files are there.

    Raises:
        UserError: no folder, an empty one, a file name that leads out of it, or (without `skip_missing`) missing files.
    """
    if not folder.is_dir():
        raise UserError(f"there is no image folder {folder}")
    if not any(folder.iterdir()):
        raise UserError(f"the image folder {folder} is empty")
    found: list[CocoImage] = []
    sizes: dict[int, int] = {}
    missing: list[CocoImage] = []
    for image in dataset.images:
        if limit is not None and len(found) >= limit:
            break
        path = image_path(folder, image)
        if path.is_file():
            found.append(image)
            sizes[image.id] = path.stat().st_size
        else:
            missing.append(image)
    if missing and not skip_missing:
        others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise UserError(
            f"{missing[0].file_name} (image {missing[0].id}){others} named by {dataset.path} but not in {folder}; "
            "--skip-missing leaves them out"
        )
    if not found:
        raise UserError(f"none of the {len(missing)} images named by {dataset.path} is in {folder}")
    return FoundImages(found, sizes, [image.id for image in missing])


def check_images(images: Iterable[CocoImage], folder: Path, *, workers: int) -> Iterator[CocoImage]:
    """Each image after its check; BrokenImageError for the first whose header or end shows that it is broken."""

    def check(image: CocoImage) -> CocoImage:
        check_image(image_path(folder, image), height=image.height, width=image.width)
        return image

    with ThreadPoolExecutor(max(1, workers)) as pool:
        yield from pool.map(check, images)
