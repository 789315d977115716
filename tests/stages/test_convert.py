"""`convert`: two objects on a picture wider than high, written as each format has it, come out as the same masks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.segmentation import segmentation_to_rle
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
def test_malformed_files_are_named(name: str, spoil: tuple[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    MAKERS[name](tmp_path / "data")
    (tmp_path / "data" / spoil[0]).write_text(spoil[1])
    with pytest.raises(UserError, match=said):
        convert(source=tmp_path / "data", out=tmp_path / "coco", format=name)
    assert not (tmp_path / "coco").exists()


def test_what_is_there_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    masks(tmp_path / "data")
    convert(source=tmp_path / "data", out=tmp_path / "coco")
    with pytest.raises(UserError, match="is there already: add --overwrite"):
        convert(source=tmp_path / "data", out=tmp_path / "coco")
    convert(source=tmp_path / "data", out=tmp_path / "coco", overwrite=True)


def test_coco_s_own_format_needs_no_conversion(tmp_path: Path) -> None:
    content = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has COCO's format already"):
        convert(source=tmp_path, out=tmp_path / "coco")
    with pytest.raises(UserError, match="no known format"):
        convert(source=Path(__file__).parent / "..", out=tmp_path / "coco", format=None)
