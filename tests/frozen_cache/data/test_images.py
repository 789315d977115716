"""Image files of every kind come out upright and RGB; broken ones are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frozen_cache.data.coco import CocoImage
from frozen_cache.data.images import BrokenImageError, check_image, image_path, read_image
from frozen_cache.errors import UserError


def gradient(height: int, width: int) -> Image.Image:
    values = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("CMYK", "a.jpg"),
        ("P", "a.png"),
        ("RGBA", "a.png"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("P", "a.gif"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    gradient(6, 9).convert(mode).save(tmp_path / name)
    check_image(tmp_path / name, height=6, width=9)
    image = read_image(tmp_path / name, height=6, width=9)
    assert (image.mode, image.size) == ("RGB", (9, 6))


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png", height=1, width=3))
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


def test_an_image_one_pixel_wide_is_read(tmp_path: Path) -> None:
    gradient(40, 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", height=40, width=1).size == (1, 40)


def rotated(folder: Path, orientation: int = 6) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient(6, 9).save(folder / "a.jpg", exif=exif, quality=95)
    return folder / "a.jpg"


def test_the_exif_orientation_is_applied_where_the_annotations_saw_it_so(tmp_path: Path) -> None:
    image = read_image(rotated(tmp_path), height=9, width=6)
    assert image.size == (6, 9)
    stored = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert (np.asarray(image) == np.rot90(stored, -1)).all()


def test_the_stored_orientation_is_kept_where_the_annotations_saw_that(tmp_path: Path) -> None:
    image = read_image(rotated(tmp_path), height=6, width=9)
    assert (np.asarray(image) == np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))).all()


def test_a_size_that_fits_neither_way_names_the_file_and_both_sizes(tmp_path: Path) -> None:
    for read in (read_image, check_image):
        with pytest.raises(BrokenImageError, match=r"a\.jpg has 9 x 6 pixels .* say 8 x 6"):
            read(rotated(tmp_path), height=8, width=6)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
def test_a_truncated_file_is_named_also_by_the_cheap_check(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, check_image):
        with pytest.raises(BrokenImageError, match=f"{name} is not an image that can be read"):
            read(path, height=40, width=40)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0" + b"\0" * 50, b"<html></html>"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"a\.jpg is not an image"):
        check_image(tmp_path / "a.jpg", height=1, width=1)


def test_a_jpeg_with_bytes_behind_its_end_is_whole(tmp_path: Path) -> None:
    gradient(6, 9).save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"\0" * 100)
    check_image(tmp_path / "a.jpg", height=6, width=9)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "inside/../../secret.png", "link.png"])
def test_file_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    gradient(2, 2).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="leads out of the folder"):
        image_path(folder, CocoImage(id=1, file_name=name, height=2, width=2))


def test_sub_folders_and_links_inside_are_fine(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    gradient(2, 2).save(tmp_path / "x" / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "x" / "a.png")
    for name in ("x/a.png", "b.png", "x/../b.png"):
        assert image_path(tmp_path, CocoImage(id=1, file_name=name, height=2, width=2)).is_file()
