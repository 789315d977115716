"""Image files of every kind come out upright and RGB; broken ones are named."""

from __future__ import annotations

import errno
import io
import os
import struct
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frozen_cache.data.batches import PlannedView, load_batches
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.images import BrokenImageError, ImageReader, image_path
from frozen_cache.data.views import make_view
from frozen_cache.detectors.input_rule import InputRule
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
    ImageReader().check(tmp_path / name, height=6, width=9)
    image = ImageReader().read(tmp_path / name, height=6, width=9)
    assert (image.mode, image.size) == ("RGB", (9, 6))


def test_an_image_one_pixel_wide_is_read(tmp_path: Path) -> None:
    gradient(40, 1).save(tmp_path / "a.png")
    assert ImageReader().read(tmp_path / "a.png", height=40, width=1).size == (1, 40)


def rotated(folder: Path, orientation: int = 6) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient(6, 9).save(folder / "a.jpg", exif=exif, quality=95)
    return folder / "a.jpg"


def test_the_exif_orientation_is_applied_where_the_annotations_saw_it_so(tmp_path: Path) -> None:
    image = ImageReader().read(rotated(tmp_path), height=9, width=6)
    assert image.size == (6, 9)
    stored = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert (np.asarray(image) == np.rot90(stored, -1)).all()


def test_the_stored_orientation_is_kept_where_the_annotations_saw_that(tmp_path: Path) -> None:
    image = ImageReader().read(rotated(tmp_path), height=6, width=9)
    assert (np.asarray(image) == np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))).all()


def test_a_size_that_fits_neither_way_names_the_file_and_both_sizes(tmp_path: Path) -> None:
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(BrokenImageError, match=r"a\.jpg has 9 x 6 pixels .* say 8 x 6"):
            read(rotated(tmp_path), height=8, width=6)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
def test_a_truncated_file_is_named_also_by_the_cheap_check(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(BrokenImageError, match=f"{name} is not an image that can be read"):
            read(path, height=40, width=40)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0" + b"\0" * 50, b"<html></html>"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"a\.jpg is not an image"):
        ImageReader().check(tmp_path / "a.jpg", height=1, width=1)


def test_a_jpeg_with_bytes_behind_its_end_is_whole(tmp_path: Path) -> None:
    gradient(6, 9).save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"\0" * 100)
    ImageReader().check(tmp_path / "a.jpg", height=6, width=9)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "inside/../../secret.png", "away/../../secret.png"])
def test_file_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    gradient(2, 2).save(tmp_path / "secret.png")
    (folder / "away").symlink_to(tmp_path / "images" / "inside")
    with pytest.raises(UserError, match="leads out of the folder"):
        image_path(folder, CocoImage(id=1, file_name=name, height=2, width=2))


def test_links_in_the_folder_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    folder, store = tmp_path / "images", tmp_path / "store"
    (folder / "x").mkdir(parents=True)
    store.mkdir()
    gradient(2, 2).save(store / "d41d8.png")
    (folder / "a.png").symlink_to(store / "d41d8.png")
    (folder / "x" / "a.png").symlink_to("../a.png")
    (folder / "all").symlink_to(store)
    for name in ("a.png", "x/a.png", "all/d41d8.png", "x/../a.png"):
        assert image_path(folder, CocoImage(id=1, file_name=name, height=2, width=2)).is_file()
    # `..` is taken off the name, never off the place that a link leads to.
    assert image_path(folder, CocoImage(id=1, file_name="all/../a.png", height=2, width=2)) == folder / "a.png"


def ramp(dtype: str, *, top: float) -> np.ndarray:
    return (np.linspace(0, 1, 12).reshape(2, 6) * top).astype(dtype)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("depth", "top"), [(None, 65535), (16, 65535), (16, 700), (12, 4095), (10, 1023)])
def test_grey_of_16_bits_is_taken_by_its_range(tmp_path: Path, name: str, depth: int | None, top: int) -> None:
    Image.fromarray(ramp("uint16", top=top)).save(tmp_path / name)
    reader = ImageReader(bit_depth=depth)
    reader.check(tmp_path / name, height=2, width=6)
    pixels = np.asarray(reader.read(tmp_path / name, height=2, width=6))
    full = 2 ** (depth or 16) - 1
    assert (pixels == np.round(ramp("uint16", top=top) / full * 255)[..., None]).all()
    (note,) = reader.notes()
    assert note == f"1 image has more than 8 bits (16-bit grey): 0 to {full} became 0 to 255"


@pytest.mark.parametrize("top", [1, 255, 4095, 16383])
def test_16_bits_that_would_be_almost_black_ask_for_a_choice(tmp_path: Path, top: int) -> None:
    Image.fromarray(ramp("uint16", top=top)).save(tmp_path / "a.png")
    bits = max(8, top.bit_length())
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(UserError, match=f"no value above {top}: --bit-depth {bits} if") as caught:
            read(tmp_path / "a.png", height=2, width=6)
        assert not isinstance(caught.value, BrokenImageError)
    with pytest.raises(UserError, match="outside the range 0 to 255") if top > 255 else nullcontext():
        ImageReader(bit_depth=8).read(tmp_path / "a.png")


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "float"), ("int32", "32-bit integer")])
def test_values_without_a_range_are_refused_until_one_is_given(tmp_path: Path, dtype: str, kind: str) -> None:
    Image.fromarray(ramp(dtype, top=900)).save(tmp_path / "a.tif")
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(UserError, match=f"is a {kind} image, whose values .* to 900.* --bit-depth N"):
            read(tmp_path / "a.tif", height=2, width=6)
    pixels = np.asarray(ImageReader(bit_depth=10).read(tmp_path / "a.tif"))[..., 1]
    assert (pixels == np.round(ramp(dtype, top=900) / 1023 * 255)).all()


@pytest.mark.parametrize("value", [-1.0, 1024.0, float("nan")])
def test_values_outside_the_given_range_are_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[5, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="outside the range 0 to 1023"):
        ImageReader(bit_depth=10).read(tmp_path / "a.tif")


def png_of_16_bits(path: Path, values: np.ndarray) -> None:
    """A colour PNG of 16 bits, which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in [*parts, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_colours_of_16_bits_are_taken_by_their_upper_byte_and_asked_about_where_dark(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (3, 4, 3))
    png_of_16_bits(tmp_path / "a.png", values)
    reader = ImageReader()
    reader.check(tmp_path / "a.png", height=3, width=4)
    assert (np.asarray(reader.read(tmp_path / "a.png", height=3, width=4)) == values // 256).all()
    assert reader.notes() == ["1 image has more than 8 bits (16-bit colour): the upper 8 bits of each value were taken"]
    with pytest.raises(UserError, match="save it with 8 bits"):
        ImageReader(bit_depth=12).read(tmp_path / "a.png")
    png_of_16_bits(tmp_path / "dark.png", values // 16)
    with pytest.raises(UserError, match=r"no value above 4095.*--bit-depth 16"):
        ImageReader().check(tmp_path / "dark.png")
    ImageReader(bit_depth=16).check(tmp_path / "dark.png")


def test_images_of_8_bits_are_not_touched_by_a_bit_depth(tmp_path: Path) -> None:
    gradient(4, 5).save(tmp_path / "a.png")
    reader = ImageReader(bit_depth=12)
    assert (np.asarray(reader.read(tmp_path / "a.png")) == np.asarray(gradient(4, 5))).all()
    assert reader.notes() == []


def test_only_formats_of_photographs_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS named .jpg would start Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *call, **options: pytest.fail("Ghostscript ran"))
    monkeypatch.setattr("PIL.EpsImagePlugin.EpsImageFile._open", lambda self: pytest.fail("opened"))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    gradient(10, 10).save(tmp_path / "b.jpg", format="ICO")
    for name in ("a.jpg", "b.jpg"):
        for read in (ImageReader().read, ImageReader().check):
            with pytest.raises(BrokenImageError, match=rf"{name} is not an image that can be read: it is none of JPEG"):
                read(tmp_path / name, height=10, width=10)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer.*git lfs pull"),
        ("/annex/objects/SHA256E-s5--00.jpg\n", "git-annex pointer.*git annex get"),
    ],
)
def test_a_pointer_in_the_place_of_an_image_is_named_and_no_damage(tmp_path: Path, start: str, words: str) -> None:
    (tmp_path / "a.jpg").write_text(start)
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(UserError, match=rf"a\.jpg is a {words}") as caught:
            read(tmp_path / "a.jpg")
        assert not isinstance(caught.value, BrokenImageError)


def test_the_limit_of_pixels_is_ours_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("frozen_cache.data.images.MAX_PIXELS", 200)
    gradient(13, 13).save(tmp_path / "warned.png")
    gradient(20, 20).save(tmp_path / "large.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader = ImageReader()
        for read in (reader.read, reader.check):
            read(tmp_path / "warned.png")
            with pytest.raises(UserError, match=r"large\.png has 400 pixels, more than 200; --max-pixels N"):
                read(tmp_path / "large.png")
        with pytest.raises(UserError, match=r"large\.png has 400 pixels, more than 300; --max-pixels N"):
            ImageReader(max_pixels=300).read(tmp_path / "large.png")
        assert ImageReader(max_pixels=400).read(tmp_path / "large.png").size == (20, 20)
    assert not caught


def test_swapped_sizes_have_a_message_of_their_own_and_are_no_damage(tmp_path: Path) -> None:
    gradient(6, 9).save(tmp_path / "a.png")
    for read in (ImageReader().read, ImageReader().check):
        with pytest.raises(UserError, match=r"has 6 x 9 pixels .*have the two swapped: mend") as caught:
            read(tmp_path / "a.png", height=9, width=6)
        assert not isinstance(caught.value, BrokenImageError)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("when", ["open", "read"])
def test_an_error_of_the_disk_names_the_file_and_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, when: str
) -> None:
    gradient(6, 9).save(tmp_path / "a.bmp")

    class Failing(io.BytesIO):
        def read(self, *sizes: int | None) -> bytes:
            raise OSError(code, os.strerror(code))

    def failing(path: Path, mode: str) -> Failing:
        if when == "open":
            raise OSError(code, os.strerror(code), str(path))
        return Failing()

    monkeypatch.setattr(Path, "open", failing)
    reader = ImageReader()
    for read in (reader.read, reader.check):
        with pytest.raises(UserError, match=rf"a\.bmp cannot be read: {os.strerror(code)}") as caught:
            read(tmp_path / "a.bmp", height=6, width=9)
        assert not isinstance(caught.value, BrokenImageError)


def test_a_batch_with_an_image_that_may_not_be_read_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not among the broken ones, which --skip-broken leaves out for good."""

    def refused(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    rule = InputRule(resize="stretch", size=(4, 4))
    image = CocoImage(id=1, file_name="a.png", height=6, width=9)
    view = PlannedView(image, 0, make_view(rule, (6, 9), image_id=1, view_index=0))
    gradient(6, 9).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refused)
    batches = load_batches([(0, [view])], folder=tmp_path, rule=rule, reader=ImageReader(), batch_size=1, workers=1)
    with pytest.raises(UserError, match=r"a\.png cannot be read: Permission denied"):
        list(batches)
