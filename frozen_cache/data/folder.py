"""The images of a data set on disk: which are there, and which are surely broken."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from frozen_cache.data.coco import CocoDataset, CocoImage
from frozen_cache.data.images import ImageReader, image_path
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
    hint: str = ""
    """Why files may be missing: names that differ from the disk's by Unicode form, case or separator, empty links."""


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
    hint = _hint(missing, folder)
    if missing and not skip_missing:
        others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise UserError(
            f"{missing[0].file_name} (image {missing[0].id}){others} named by {dataset.path} but not in {folder}"
            f"{hint and f' ({hint})'}; --skip-missing leaves them out"
        )
    if not found:
        raise UserError(
            f"none of the {len(missing)} images named by {dataset.path} is in {folder}{hint and f' ({hint})'}"
        )
    return FoundImages(found, sizes, [image.id for image in missing], hint)


def check_images(
    images: Iterable[CocoImage], folder: Path, *, reader: ImageReader, workers: int
) -> Iterator[CocoImage]:
    """Each image after its check; BrokenImageError for the first whose header or end shows that it is broken."""

    def check(image: CocoImage) -> CocoImage:
        reader.check(image_path(folder, image), height=image.height, width=image.width)
        return image

    with ThreadPoolExecutor(max(1, workers)) as pool:
        yield from pool.map(check, images)


def _hint(missing: list[CocoImage], folder: Path) -> str:
    """What the disk has instead of missing files, with one example; empty where it has nothing like them."""
    names: dict[Path, dict[str, str]] = {}
    """Folder -> alike name -> the disk's name."""
    alike: list[str] = []
    for image in missing:
        if image_path(folder, image).is_symlink():
            return f"{image.file_name} is a link to a file that is not there: `git annex get` or `dvc pull` fetch it"
        if image_path(folder, image).exists():
            return f"{image.file_name} is there and is no file"
        name = _found_alike(folder, image.file_name, names)
        if name is not None:
            alike.append(f"{image.file_name!a} is there as {name!a}")
    if not alike:
        return ""
    more = f", and so are {len(alike) - 1} more" if len(alike) > 1 else ""
    return f"{alike[0]}{more}: names must be equal in case, Unicode form and separators"


def _found_alike(folder: Path, file_name: str, names: dict[Path, dict[str, str]]) -> str | None:
    """The file below `folder` whose name looks the same to people, as the disk spells it."""
    at = folder
    for part in PurePosixPath(file_name.replace("\\", "/")).parts:
        if at not in names:
            names[at] = {_alike(entry.name): entry.name for entry in at.iterdir()} if at.is_dir() else {}
        name = names[at].get(_alike(part))
        if name is None:
            return None
        at = at / name
    return at.relative_to(folder).as_posix()


def _alike(name: str) -> str:
    """The same for names that look the same to people."""
    return unicodedata.normalize("NFC", name).casefold()
