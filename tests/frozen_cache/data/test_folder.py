"""The images of a data set on disk: what is missing is named, and what only looks different is pointed out."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from frozen_cache.data.coco import CocoDataset, CocoImage
from frozen_cache.data.folder import find_images
from frozen_cache.errors import UserError


def data_set(*names: str) -> CocoDataset:
    images = [CocoImage(id=n, file_name=name, height=4, width=4) for n, name in enumerate(names)]
    return CocoDataset(Path("instances.json"), images, categories={1: "a"}, used=frozenset(), entries={}, astray=[])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"123")


COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "Zoë é.png"), unicodedata.normalize("NFD", "Zoë é.png")


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("IMG_1.JPG", "img_1.jpg"),
        ("img_1.jpg", "IMG_1.JPG"),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        (COMPOSED.upper(), DECOMPOSED),
        ("Train/a.png", "train/a.png"),
        ("train\\a.png", "train/a.png"),
        ("straße.png", "STRASSE.png"),
    ],
)
def test_a_name_that_differs_only_in_case_unicode_form_or_separator_is_pointed_out(
    folder: Path, named: str, there: str
) -> None:
    put(folder, there, "other.png")
    with pytest.raises(UserError) as caught:
        find_images(data_set(named, "other.png"), folder, limit=None, skip_missing=False)
    text = str(caught.value)
    assert f"{named!a} is there as {there!a}: names must be equal in case, Unicode form and separators" in text
    assert "--skip-missing leaves them out" in text and len(text.splitlines()) == 1
    found = find_images(data_set(named, "other.png"), folder, limit=None, skip_missing=True)
    assert (found.missing, [image.id for image in found.images]) == ([0], [1])
    assert "is there as" in found.hint


def test_a_folder_by_the_name_of_an_image_is_told_as_such(folder: Path) -> None:
    put(folder, "a.png")
    (folder / "b.png").mkdir()
    with pytest.raises(UserError, match=r"b.png \(image 1\) is named .*\(b.png is there and is no file\)"):
        find_images(data_set("a.png", "b.png"), folder, limit=None, skip_missing=False)


def test_the_others_are_counted_and_names_with_no_like_give_no_hint(folder: Path) -> None:
    put(folder, "a.png", "b.png", "c.png")
    with pytest.raises(UserError, match=r"A.png \(image 0\) and 3 more are named .*and so are 2 more"):
        find_images(data_set("A.png", "B.png", "C.png", "x.png"), folder, limit=None, skip_missing=False)
    with pytest.raises(UserError) as caught:
        find_images(data_set("x.png", "a.jpg"), folder, limit=None, skip_missing=True)
    assert "none of the 2 images" in str(caught.value) and "is there as" not in str(caught.value)
    assert find_images(data_set("a.png"), folder, limit=None, skip_missing=False).hint == ""


def test_a_link_to_nothing_says_how_its_file_is_fetched(folder: Path) -> None:
    put(folder, "a.png")
    (folder / "b.png").symlink_to(".git/annex/objects/x")
    with pytest.raises(UserError, match=r"b.png is a link to a file that is not there: `git annex get`"):
        find_images(data_set("a.png", "b.png"), folder, limit=None, skip_missing=False)
