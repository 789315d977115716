"""Reading a COCO instances file: its images, its categories, and which annotation belongs where."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.errors import UserError

MOST_PIXELS = 2**32 - 1
"""Of an image: pycocotools counts them in 32 bits."""


@dataclass(frozen=True)
class CocoImage:
    """One image and its objects."""

    id: int
    file_name: str
    height: int
    width: int
    annotations: list[CocoAnnotation] = field(default_factory=list, repr=False)
    """Empty until `check_annotations` has read them."""


@dataclass(frozen=True)
class Entry:
    """An annotation as the file has it."""

    position: int
    """In the file's list `annotations`, from 0."""
    fields: dict[str, Any]


@dataclass(frozen=True)
class CocoDataset:
    """Images by rising id; categories by rising id; annotations by image, yet to be checked."""

    path: Path
    images: list[CocoImage]
    categories: dict[int, str]
    """Category id to name."""
    used: frozenset[int]
    """The categories that some annotation of the file has."""
    entries: dict[int, list[Entry]] = field(repr=False)
    """Image id -> its annotations, of known categories; images without any are left out."""
    astray: list[str] = field(repr=False)
    """Annotations that belong to no image or category, each named with what is wrong."""


def read_coco(path: Path) -> CocoDataset:
    """Read an instances file.

    Raises:
        UserError: it is none, or an image or category is malformed, or ids come twice; names the file and the entry.
    """
    content = _load_json(path)
    if isinstance(content, dict):
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not a COCO instances file: it has no list `{key}`")
    categories = _categories(path, content["categories"])
    images: dict[int, CocoImage] = {}
    for entry in content["images"]:
        image = _image(path, entry)
        if image.id in images:
            raise UserError(f"{path}: two images have the id {image.id}")
        images[image.id] = image
    if not images:
        raise UserError(f"{path}: its list `images` is empty")
    _refuse_doubled_ids(path, content["annotations"])
    entries: dict[int, list[Entry]] = {}
    astray: list[str] = []
    for position, fields in enumerate(content["annotations"]):
        wrong = _not_placed(fields, images, categories)
        if wrong:
            astray.append(f"{annotation_name(position, fields)} {wrong}")
        else:
            entries.setdefault(fields["image_id"], []).append(Entry(position, fields))
    return CocoDataset(
        path=path,
        images=[images[key] for key in sorted(images)],
        categories=dict(sorted(categories.items())),
        used=frozenset(entry.fields["category_id"] for group in entries.values() for entry in group),
        entries=entries,
        astray=astray,
    )


def annotation_name(position: int, fields: Any) -> str:
    """How an annotation is named to people: by its id, else by its place in the file."""
    if isinstance(fields, dict) and _is_id(fields.get("id")):
        return f"annotation {fields['id']}"
    return f"annotations[{position}]"


def _categories(path: Path, entries: list[Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            raise UserError(f"{path}: a category has no whole number as its id: {_short(entry)}")
        if entry["id"] in categories:
            raise UserError(f"{path}: two categories have the id {entry['id']}")
        categories[entry["id"]] = _category_name(path, entry)
    if not categories:
        raise UserError(f"{path}: its list `categories` is empty")
    return categories


def _category_name(path: Path, entry: dict[str, Any]) -> str:
    """The id where the file has no name."""
    name = entry.get("name")
    if name is None or name == "":
        return str(entry["id"])
    if not isinstance(name, str | int | float):
        raise UserError(f"{path}: category {entry['id']} has a name that is no text: {_short(name)}")
    if any("\ud800" <= letter <= "\udfff" for letter in str(name)):
        raise UserError(f"{path}: category {entry['id']} has a name with half a character: {name!a}")
    return str(name)


def _load_json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"there is no annotation file {path}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a COCO instances file: it is not JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _image(path: Path, entry: Any) -> CocoImage:
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        raise UserError(f"{path}: an image has no whole number as its id: {_short(entry)}")
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{path}: image {entry['id']} has no file name")
    height, width = entry.get("height"), entry.get("width")
    if not (_is_id(height) and _is_id(width) and height > 0 and width > 0):
        raise UserError(f"{path}: image {entry['id']} ({name}) has no height and width: {height} x {width}")
    if height * width > MOST_PIXELS:
        raise UserError(
            f"{path}: image {entry['id']} ({name}) cannot have a height and width of {height} x {width}: "
            f"masks of more than {MOST_PIXELS} pixels have no RLE"
        )
    return CocoImage(id=entry["id"], file_name=name, height=height, width=width)


def _refuse_doubled_ids(path: Path, entries: list[Any]) -> None:
    ids = Counter(entry["id"] for entry in entries if isinstance(entry, dict) and _is_id(entry.get("id")))
    doubled = sorted(key for key, count in ids.items() if count > 1)
    if doubled:
        listed = ", ".join(map(str, doubled[:10])) + (" ..." if len(doubled) > 10 else "")
        raise UserError(
            f"{path}: {len(doubled)} annotation ids come more than once: {listed}; two files put together? "
            "give each annotation an id of its own"
        )


def _not_placed(fields: Any, images: dict[int, CocoImage], categories: dict[int, str]) -> str:
    """Why an annotation belongs to no image or category; empty where it does."""
    if not isinstance(fields, dict):
        return f"is no object with fields: {_short(fields)}"
    if not _is_id(fields.get("id")):
        return f"has no whole number as its id: {_short(fields.get('id'))}"
    image_id, category_id = fields.get("image_id"), fields.get("category_id")
    if not _is_id(image_id) or image_id not in images:
        return f"belongs to image {_short(image_id)}, which is not in the list `images`"
    if not _is_id(category_id) or category_id not in categories:
        return f"has the category {_short(category_id)}, which is not in the list `categories`"
    return ""


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
