"""The annotation file: what is read, and what is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frozen_cache.data.coco import read_coco
from frozen_cache.errors import UserError

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 2, "file_name": "b.jpg", "height": 10, "width": 20},
            {"id": 1, "file_name": "a.jpg", "height": 10, "width": 20},
        ],
        "annotations": [
            {"id": 7, "image_id": 2, "category_id": 4, "bbox": [1, 1, 4, 4], "area": 16, "segmentation": SQUARE},
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write(folder: Path, value: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(value))
    return path


def test_images_and_categories_come_by_rising_id(tmp_path: Path) -> None:
    dataset = read_coco(write(tmp_path, content()))
    assert [image.id for image in dataset.images] == [1, 2]
    assert dataset.categories == {3: "dog", 4: "cat"}
    assert list(dataset.categories) == [3, 4]
    assert [entry.fields["id"] for entry in dataset.entries[2]] == [7]
    assert dataset.used == {4}


def test_images_without_annotations_are_kept(tmp_path: Path) -> None:
    value = content() | {"annotations": []}
    assert len(read_coco(write(tmp_path, value)).images) == 2


@pytest.mark.parametrize(("name", "read"), [(None, "4"), ("", "4"), (7, "7"), ("kot 🐈", "kot 🐈")])
def test_a_category_without_a_name_is_named_by_its_id(tmp_path: Path, name: Any, read: str) -> None:
    value = content()
    value["categories"][0]["name"] = name
    assert read_coco(write(tmp_path, value)).categories[4] == read


Change = Callable[[dict[str, Any]], Any]
REFUSED: list[tuple[Change, str]] = [
    (lambda c: c.pop("images"), "no list `images`"),
    (lambda c: c.update(annotations={}), "no list `annotations`"),
    (lambda c: c.update(images=[]), "`images` is empty"),
    (lambda c: c.update(categories=[]), "`categories` is empty"),
    (lambda c: c["images"].append(c["images"][0]), "two images have the id 2"),
    (lambda c: c["categories"].append(c["categories"][0]), "two categories have the id 4"),
    (lambda c: c["annotations"].append(c["annotations"][0]), "1 annotation ids come more than once: 7"),
    (lambda c: c["images"].append("x"), "whole number as its id"),
    (lambda c: c["images"][0].update(id=True), "whole number as its id"),
    (lambda c: c["images"][0].update(height=0), "no height and width"),
    (lambda c: c["images"][0].pop("width"), "no height and width"),
    (lambda c: c["images"][0].pop("file_name"), "no file name"),
    (lambda c: c["images"][0].update(height=2**31, width=2), "masks of more than 4294967295 pixels have no RLE"),
    (lambda c: c["categories"][0].update(name="c\ud800"), r"category 4 has a name with half a character: 'c.ud800'"),
    (lambda c: c["categories"][0].update(name=["cat"]), r"category 4 has a name that is no text: \['cat'\]"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_what_is_not_coco_is_refused_naming_the_entry(tmp_path: Path, change: Change, says: str) -> None:
    value = content()
    change(value)
    with pytest.raises(UserError, match=says):
        read_coco(write(tmp_path, value))


@pytest.mark.parametrize("text", ["", "{", "\x00\xff", "[1, 2]", "3", "null"])
def test_a_file_that_is_not_coco_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="not a COCO instances file"):
        read_coco(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no annotation file"):
        read_coco(tmp_path / "none.json")
