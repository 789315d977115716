"""`convert`: two objects on a picture wider than high, written as each format has it, come out as the same masks."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.segmentation import segmentation_to_rle
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.stages.convert import FORMATS, convert

HEIGHT, WIDTH = 20, 40
CAT = (4, 2, 12, 10)
"""x0, y0, x1, y1 in pixels."""
DOG = (30, 5, 38, 18)


def region(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(path)


def yolo(root: Path) -> None:
    picture(root / "train" / "images" / "a.jpg")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\nnc: 2\n")
    lines = [
        f"{label} " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners(box))
        for label, box in ((0, CAT), (1, DOG))
    ]
    (root / "train" / "labels").mkdir()
    (root / "train" / "labels" / "a.txt").write_text("\n".join([*lines, "0 0.5 0.5 0.1 0.1"]) + "\n")


def labelme(root: Path) -> None:
    picture(root / "a.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.full((DOG[3] - DOG[1], DOG[2] - DOG[0]), 255, np.uint8)).save(stamp, format="PNG")
    shapes = [
        {"label": "cat", "shape_type": "polygon", "points": corners(CAT), "group_id": None},
        {
            "label": "dog",
            "shape_type": "mask",
            "points": [[DOG[0], DOG[1]], [DOG[2] - 1, DOG[3] - 1]],
            "mask": base64.b64encode(stamp.getvalue()).decode(),
        },
        {"label": "cat", "shape_type": "rectangle", "points": [[0, 0], [3, 3]]},
    ]
    (root / "a.json").write_text(json.dumps({"imagePath": "a.jpg", "shapes": shapes}))


def cvat(root: Path) -> None:
    picture(root / "images" / "sub" / "a.jpg")
    points = ";".join(f"{x},{y}" for x, y in corners(CAT))
    width, height = DOG[2] - DOG[0] + 2, DOG[3] - DOG[1]
    runs = ",".join(["1", str(width - 2), *["2", str(width - 2)] * (height - 1), "1"])
    (root / "annotations.xml").write_text(
        f"""<annotations><meta><job><labels><label><name>cat</name></label><label><name>dog</name></label></labels>
        </job></meta><image id="0" name="sub/a.jpg" width="{WIDTH}" height="{HEIGHT}">
        <polygon label="cat" points="{points}"/><box label="cat" xtl="0" ytl="0" xbr="3" ybr="3"/>
        <mask label="dog" rle="{runs}" left="{DOG[0] - 1}" top="{DOG[1]}" width="{width}" height="{height}"/>
        </image></annotations>"""
    )


def voc(root: Path) -> None:
    picture(root / "JPEGImages" / "a.jpg")
    class_map, object_map = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (label, box) in enumerate(((8, CAT), (12, DOG)), 1):
        class_map[region(box)], object_map[region(box)] = label, number
    object_map[:, 0] = 255
    for name, values in (("SegmentationClass", class_map), ("SegmentationObject", object_map)):
        (root / name).mkdir()
        image = Image.fromarray(values)
        image.putpalette(list(range(256)) * 3)
        image.save(root / name / "a.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")


def masks(root: Path) -> None:
    picture(root / "images" / "a.jpg")
    (root / "masks" / "a").mkdir(parents=True)
    for name, box in (("cat_1", CAT), ("dog", DOG)):
        Image.fromarray(region(box).astype(np.uint8) * 255).save(root / "masks" / "a" / f"{name}.png")


MAKERS: dict[str, Callable[[Path], None]] = {
    "yolo": yolo,
    "labelme": labelme,
    "cvat": cvat,
    "voc": voc,
    "masks": masks,
}


def objects(file: Path) -> dict[str, np.ndarray]:
    """Class -> mask of the only image's objects, after the boxes and areas were compared with the masks."""
    content = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert [(image["height"], image["width"]) for image in content["images"]] == [(HEIGHT, WIDTH)]
    found = {}
    for annotation in content["annotations"]:
        rle = segmentation_to_rle(annotation["segmentation"], height=HEIGHT, width=WIDTH)
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
        assert annotation["area"] == int(coco_mask.area(rle))
        found[names[annotation["category_id"]]] = coco_mask.decode(rle).astype(bool)
    return found


def test_every_format_has_a_case() -> None:
    assert MAKERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_masks_come_out_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    MAKERS[name](tmp_path / "data")
    written = convert(source=tmp_path / "data", out=tmp_path / "coco")
    assert len(written) == 1
    found = objects(written[0].annotations)
    assert found.keys() == {"cat", "dog"}
    np.testing.assert_array_equal(found["cat"], region(CAT))
    np.testing.assert_array_equal(found["dog"], region(DOG))
    image = json.loads(written[0].annotations.read_text())["images"][0]
    assert (written[0].images / image["file_name"]).is_file()
    boxes = {"yolo": 1, "labelme": 1, "cvat": 1}.get(name, 0)
    assert sum(written[0].left_out.values()) == boxes
    assert ("left out: 1 boxes" in written[0].text()) == bool(boxes)


def test_parts_of_one_group_are_one_object(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    shapes = [{"label": "cat", "shape_type": "polygon", "points": corners(box), "group_id": 7} for box in (CAT, DOG)]
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.jpg", "shapes": shapes}))
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    assert written.object_count == 1
    np.testing.assert_array_equal(objects(written.annotations)["cat"], region(CAT, DOG))


def test_a_map_of_object_numbers_gives_an_object_a_number(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    numbers = region(CAT).astype(np.uint16) * 300 + region(DOG).astype(np.uint16) * 2
    Image.fromarray(numbers).save(tmp_path / "masks" / "a.png")
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    areas = sorted(a["area"] for a in json.loads(written.annotations.read_text())["annotations"])
    assert areas == sorted([region(CAT).sum(), region(DOG).sum()])
    assert written.categories == ("object",)


def test_a_coloured_voc_export_is_read_by_its_labelmap(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:8,8,8::\ndog:12,12,12::\n"
    )
    for name in ("SegmentationClass", "SegmentationObject"):
        with Image.open(tmp_path / name / "a.png") as opened:
            values = np.asarray(opened)
        Image.fromarray(np.stack([values] * 3, axis=-1)).save(tmp_path / name / "a.png")
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    np.testing.assert_array_equal(objects(written.annotations)["dog"], region(DOG))
    assert written.left_out == {"objects without a class": 1}  # the border, a colour like others here


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("yolo", ("train/labels/a.txt", "5 0.1 0.1 0.2 0.2 0.3 0.3"), "a.txt:1: class 5 has no name"),
        ("yolo", ("train/labels/a.txt", "0 0.1 0.1 0.2 0.2 0.3"), "5 numbers make no x, y pairs"),
        ("yolo", ("train/labels/a.txt", "0 0.1 cat"), "not a class and numbers"),
        ("yolo", ("train/labels/a.txt", b"\xff\xfe"), "a.txt is not text"),
        ("yolo", ("data.yaml", "train: train/images\nnames: {cat: 0}\n"), "data.yaml: `names` is neither"),
        ("yolo", ("data.yaml", "train: train/images\nnames: cat\n"), "data.yaml: `names` is neither"),
        ("yolo", ("data.yaml", "train: 5\nnames: [cat]\n"), "`train` is not the name of a folder"),
        ("cvat", ("annotations.xml", "<annotations><track label='cat'/></annotations>"), "CVAT for video"),
        ("yolo", ("train/labels/a.txt", "0 0.5 0.5 0.1 0.1"), "no object with a mask .left out: 1 boxes"),
        ("labelme", ("a.json", '{"imagePath": "../a.jpg", "shapes": []}'), "leads out of the folder"),
        ("labelme", ("a.json", '{"imagePath": "a.jpg", "shapes": [{"label": "x", "points": [[1]]}]}'), "malformed"),
        (
            "cvat",
            ("annotations.xml", "<annotations><image name='/etc/a' width='3' height='3'/></annotations>"),
            "leads",
        ),
        ("cvat", ("annotations.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>&b;</annotations>"), "cannot|not XML"),
        ("cvat", ("annotations.xml", "<annotations"), "is not XML"),
    ],
)
def test_malformed_files_are_named(name: str, spoil: tuple[str, str | bytes], said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    MAKERS[name](tmp_path / "data")
    content = spoil[1] if isinstance(spoil[1], bytes) else spoil[1].encode()
    (tmp_path / "data" / spoil[0]).write_bytes(content)
    with pytest.raises(UserError, match=said):
        convert(source=tmp_path / "data", out=tmp_path / "coco", format=name)
    assert not (tmp_path / "coco").exists()


def test_what_is_there_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    masks(tmp_path / "data")
    convert(source=tmp_path / "data", out=tmp_path / "coco")
    (tmp_path / "coco" / "instances.json").write_text("[]")
    with pytest.raises(UserError, match="is there already, of something else: add --overwrite"):
        convert(source=tmp_path / "data", out=tmp_path / "coco")
    assert (tmp_path / "coco" / "instances.json").read_text() == "[]"
    convert(source=tmp_path / "data", out=tmp_path / "coco", overwrite=True)
    assert "cat" in objects(tmp_path / "coco" / "instances.json")


def test_killed_between_two_files_it_goes_on_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo(tmp_path)
    picture(tmp_path / "valid" / "images" / "b.jpg")
    shutil.copytree(tmp_path / "train" / "labels", tmp_path / "valid" / "labels")
    (tmp_path / "valid" / "labels" / "a.txt").rename(tmp_path / "valid" / "labels" / "b.txt")

    def die(path: Path, content: bytes) -> None:
        if path.name == "val.json":
            raise SystemExit
        write_durably(path, content)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("frozen_cache.stages.convert.write_durably", die)
        convert(source=tmp_path, out=tmp_path / "coco")
    first = (tmp_path / "coco" / "train.json").stat()
    written = convert(source=tmp_path, out=tmp_path / "coco")
    assert [split.annotations.name for split in written] == ["train.json", "val.json"]
    assert all(objects(split.annotations).keys() == {"cat", "dog"} for split in written)
    assert (tmp_path / "coco" / "train.json").stat().st_ino == first.st_ino


def test_a_yolo_split_may_be_lists_of_images_and_several_folders(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "list.txt").write_text("./train/images/a.jpg\n\n")
    for named in (f"[{tmp_path / 'train'}/images]", "[train/images, list.txt]", "list.txt"):
        (tmp_path / "data.yaml").write_text(f"path: .\ntrain: {named}\nnames: {{0: cat, 1: dog}}\n")
        (written,) = convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)
        assert written.image_count == 1 and objects(written.annotations).keys() == {"cat", "dog"}
        [image] = json.loads(written.annotations.read_text())["images"]
        assert (written.images / image["file_name"]).samefile(tmp_path / "train" / "images" / "a.jpg")
    (tmp_path / "list.txt").write_text("../../a.jpg\n")
    with pytest.raises(UserError, match="leads out of the folder"):
        convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    yolo(tmp_path)
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    assert "no val: ../valid/images is not there" in written.text()


@pytest.mark.parametrize("named", ["../pictures/a.jpg", "..\\pictures\\a.jpg", "/home/other/a.jpg", "C:\\a.jpg"])
def test_labelme_files_of_another_folder_or_computer_find_their_images(tmp_path: Path, named: str) -> None:
    labelme(tmp_path)
    (tmp_path / "json").mkdir()
    content = json.loads((tmp_path / "a.json").read_text()) | {"imagePath": named}
    (tmp_path / "json" / "a.json").write_text(json.dumps(content))
    (tmp_path / "a.json").unlink()
    there = tmp_path / ("pictures" if "pictures" in named else "json")
    there.mkdir(exist_ok=True)
    (tmp_path / "a.jpg").rename(there / "a.jpg")
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    [image] = json.loads(written.annotations.read_text())["images"]
    assert image["file_name"] == f"{there.name}/a.jpg"
    (there / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"leads out of|cannot be read"):
        convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_command_again_reads_the_same(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (first,) = convert(source=tmp_path, out=tmp_path / "coco")
    before = first.annotations.read_bytes()
    (second,) = convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)
    assert second == first and second.annotations.read_bytes() == before


def test_a_cvat_export_without_images_says_that_they_are_elsewhere(tmp_path: Path) -> None:
    cvat(tmp_path)
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    assert "--images" not in written.text().partition("next:")[0]
    for file in tmp_path.rglob("*.jpg"):
        file.unlink()
    (written,) = convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)
    assert "give the folder where they are as --images" in written.text()


@pytest.mark.parametrize("quote", ["", '"'])
def test_voc_lists_may_name_files_with_blanks(tmp_path: Path, quote: str) -> None:
    voc(tmp_path)
    for file in list(tmp_path.rglob("a.*")):
        file.rename(file.with_stem("my a"))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    for file in lists.iterdir():
        file.unlink()
    (lists / "train.txt").write_text(f"{quote}my a{quote}\n")
    (written,) = convert(source=tmp_path, out=tmp_path / "coco")
    assert objects(written.annotations).keys() == {"cat", "dog"}
    (lists / "train.txt").write_text("../../a\n")
    with pytest.raises(UserError, match="leads out of the folder"):
        convert(source=tmp_path, out=tmp_path / "coco", overwrite=True)


def test_the_folder_above_is_told_which_one_to_take(tmp_path: Path) -> None:
    (tmp_path / "devkit" / "VOC2012").mkdir(parents=True)
    voc(tmp_path / "devkit" / "VOC2012")
    with pytest.raises(UserError, match="VOC2012 looks like voc: give that"):
        convert(source=tmp_path / "devkit", out=tmp_path / "coco")


def test_coco_s_own_format_needs_no_conversion(tmp_path: Path) -> None:
    content = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="COCO's format already"):
        convert(source=tmp_path, out=tmp_path / "coco")
    with pytest.raises(UserError, match="no known format"):
        convert(source=Path(__file__).parent / "..", out=tmp_path / "coco", format=None)
