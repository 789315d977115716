"""Annotations mean what their masks say: what is repaired is counted, what is refused is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.checks import check_annotations
from frozen_cache.data.choices import AnnotationChoices, AnnotationCounts
from frozen_cache.data.coco import read_coco
from frozen_cache.data.supervision import Kind, filled_box
from frozen_cache.errors import UserError

SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]
"""16 pixels, its box 2, 1, 4, 4."""
Change = Callable[[dict[str, Any]], Any]


def content() -> dict[str, Any]:
    annotation = {"image_id": 1, "category_id": 4, "bbox": [2, 1, 4, 4], "area": 16, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [annotation | {"id": number, "segmentation": SQUARE} for number in (0, 7)],
        "categories": [{"id": 4, "name": "cat"}, {"id": 5, "name": "dog"}],
    }


def read(
    folder: Path, change: Change, *, force: bool = False, **choices: Any
) -> tuple[list[CocoAnnotation], AnnotationCounts]:
    value = content()
    change(value)
    path = folder / "instances.json"
    path.write_text(json.dumps(value))
    dataset = read_coco(path)
    counts = check_annotations(dataset, dataset.images, choices=AnnotationChoices(**choices), force=force)
    return dataset.images[0].annotations, counts


def first(**fields: Any) -> Change:
    return lambda c: c["annotations"][0].update(fields)


def test_a_clean_file_is_taken_as_it_is(tmp_path: Path) -> None:
    found, counts = read(tmp_path, first(bbox=[2.5, 1, 3.5, 4], area=20))
    assert [(a.id, a.bbox, a.area, a.crowd) for a in found] == [
        (0, (2.5, 1, 3.5, 4), 20.0, False),
        (7, (2, 1, 4, 4), 16.0, False),
    ]
    assert counts == AnnotationCounts(objects=2, per_category={4: 2})
    assert counts.lines() == []


@pytest.mark.parametrize("area", [0, -16, None, 200, 7.9, 32.1, "16", float("nan"), True, 10**400])
def test_an_area_that_the_mask_contradicts_is_the_mask_s(tmp_path: Path, area: Any) -> None:
    found, counts = read(tmp_path, first(area=area))
    assert found[0].area == 16.0
    assert counts.repaired_areas == 1 and "1 areas taken from their masks" in counts.lines()[0]


@pytest.mark.parametrize("area", [8, 32])
def test_an_area_within_a_factor_of_two_is_believed(tmp_path: Path, area: float) -> None:
    found, counts = read(tmp_path, first(area=area))
    assert found[0].area == area and counts.repaired_areas == 0


@pytest.mark.parametrize(
    "bbox",
    [
        *([0, 0, 0, 0], [2, 1, 6, 5], [1, 2, 4, 4], None, [2, 1, 4], [2, 1, -4, 4], ["2", "1", "4", "4"], "box", {}),
        *([10**400, 1, 4, 4], [2, 1, 1e308, 1e308]),
    ],
)
def test_a_box_that_the_mask_contradicts_is_the_mask_s(tmp_path: Path, bbox: Any) -> None:
    found, counts = read(tmp_path, first(bbox=bbox))
    assert found[0].bbox == (2, 1, 4, 4)
    assert counts.repaired_boxes == 1 and "1 boxes taken from their masks" in counts.lines()[0]


def test_fields_that_are_missing_come_from_the_mask(tmp_path: Path) -> None:
    def change(c: dict[str, Any]) -> None:
        for name in ("bbox", "area", "iscrowd"):
            del c["annotations"][0][name]

    found, counts = read(tmp_path, change)
    assert (found[0].bbox, found[0].area, found[0].crowd) == ((2, 1, 4, 4), 16.0, False)
    assert (counts.repaired_boxes, counts.repaired_areas, counts.repaired_crowds) == (1, 1, 0)


@pytest.mark.parametrize(("value", "crowd"), [("0", False), ("1", True), (False, False), (True, True), ("true", True)])
def test_crowds_as_text_or_booleans_are_read_as_meant(tmp_path: Path, value: Any, crowd: bool) -> None:
    found, counts = read(tmp_path, first(iscrowd=value))
    assert found[0].crowd is crowd
    assert (counts.crowds, counts.objects, counts.repaired_crowds) == (int(crowd), 2 - crowd, 1)


def all_crowds(c: dict[str, Any]) -> None:
    for annotation in c["annotations"]:
        annotation["iscrowd"] = 1


def test_crowds_only_are_said_before_the_long_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"every annotation \(2\) is marked as a crowd .*--crowds as-objects"):
        read(tmp_path, all_crowds)
    found, counts = read(tmp_path, all_crowds, crowds="as-objects")
    assert [a.crowd for a in found] == [False, False]
    assert (counts.objects, counts.crowds, counts.crowds_as_objects) == (2, 0, 2)
    assert read(tmp_path, all_crowds, force=True)[1].crowds == 2


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [10, 20], "counts": [200]},
        {"size": [10, 20], "counts": []},
        [[1, 1, 5, 5]],
        [[1, 1, 1, 1, 1, 1]],
        [[3, 3, 8, 3, 5, 3]],
        [[40, 30, 45, 30, 45, 35]],
    ],
)
def test_masks_of_no_pixels_are_left_out_and_counted(tmp_path: Path, mask: Any) -> None:
    found, counts = read(tmp_path, first(segmentation=mask))
    assert [a.id for a in found] == [7]
    assert counts.empty_masks == 1 and counts.objects == 1
    assert "1 annotations left out: their masks have no pixels" in counts.lines()


BAD = [
    (first(image_id=5), "annotation 0 belongs to image 5"),
    (first(image_id=[2]), "annotation 0 belongs to image"),
    (first(category_id=9), "annotation 0 has the category 9"),
    (first(segmentation=None, bbox=None), "annotation 0 .image 1.: it has neither a segmentation nor a bbox"),
    (first(segmentation=[], bbox=[20, 1, 4, 4]), "annotation 0 .*no part of the image"),
    (first(segmentation=[], bbox=[2, 1, 0, 4]), "annotation 0 .*no part of the image"),
    (first(segmentation=[], bbox=[2, 1, 10**400, 4]), "annotation 0 .*nor a bbox of four numbers"),
    (
        first(segmentation=[], bbox=[-1e40, -1e40, 1e41, 1e41]),
        "annotation 0 .*reaches far outside the image of 10 x 20",
    ),
    (first(segmentation=None, point_coords=[[3, 10**400]], point_labels=[1]), "annotation 0 .*no .x, y."),
    (first(segmentation=[[10**400] * 6]), "annotation 0 .*holds something that is not a number"),
    (first(segmentation=[[2**64 + 1] * 6]), "annotation 0 .*lies far outside the image of 10 x 20"),
    (first(segmentation=None, point_coords=[[3, 3]], point_labels=[0, 1]), "annotation 0 .*two lists of one length"),
    (first(segmentation=None, point_coords=[[3]], point_labels=[1]), "annotation 0 .*no .x, y."),
    (first(segmentation=None, point_coords=[[3, 11]], point_labels=[1]), "annotation 0 .*outside of the image"),
    (first(segmentation=None, point_coords=[[3, 3]], point_labels=[2]), "annotation 0 .*neither 0 nor 1"),
    (first(segmentation=[[1, 2, 3, "x", 5, 6]]), "annotation 0 .*not a number"),
    (first(segmentation={"size": [5, 5], "counts": [25]}), "annotation 0 .*RLE has the size"),
    (first(iscrowd="maybe"), "annotation 0 .*iscrowd is 'maybe'"),
    (first(id="x"), r"annotations\[0\] has no whole number"),
    (lambda c: c["annotations"].insert(0, 3), r"annotations\[0\] is no object"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_malformed_annotations_are_named_and_can_be_left_out(tmp_path: Path, change: Change, said: str) -> None:
    with pytest.raises(UserError, match=f"1 annotation is malformed: {said}.*--skip-bad-annotations") as caught:
        read(tmp_path, change)
    assert "\n" not in str(caught.value)
    found, counts = read(tmp_path, change, skip_bad=True)
    assert counts.malformed == 1 and 7 in [a.id for a in found]
    assert "1 malformed annotations left out (--skip-bad-annotations)" in counts.lines()


def test_all_malformed_annotations_are_counted_the_first_ten_named(tmp_path: Path) -> None:
    def change(c: dict[str, Any]) -> None:
        bad = c["annotations"][0] | {"segmentation": None, "bbox": None}
        c["annotations"] = [bad | {"id": number} for number in range(100, 125)]

    with pytest.raises(UserError, match=r"25 annotations are malformed: .*annotation 109 .*; and 15 more") as caught:
        read(tmp_path, change)
    assert "annotation 110" not in str(caught.value)


def test_no_annotation_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotation for the images that are taken.*--force"):
        read(tmp_path, lambda c: c.update(annotations=[]))
    with pytest.raises(UserError, match="no annotation"):
        read(tmp_path, lambda c: c.pop("annotations"))
    assert read(tmp_path, lambda c: c.update(annotations=[]), force=True)[0] == []


def test_only_some_classes_are_kept_the_rest_counted(tmp_path: Path) -> None:
    found, counts = read(tmp_path, first(category_id=5), only=(4,))
    assert [a.id for a in found] == [7]
    assert counts.other_classes == 1 and counts.per_category == {4: 1}


def test_categories_mapped_to_one_label_are_one(tmp_path: Path) -> None:
    choices = AnnotationChoices(label_map={4: 2, 5: 2})
    assert choices.kept({4: "cat", 5: "dog"}) == {4: "cat"}
    found, counts = read(tmp_path, first(category_id=5), label_map={4: 2, 5: 2})
    assert [a.category_id for a in found] == [4, 4] and counts.per_category == {4: 2}


def test_objects_without_masks_are_taken_by_what_the_file_knows_of_them(tmp_path: Path) -> None:
    def change(c: dict[str, Any]) -> None:
        boxed, pointed = c["annotations"]
        del boxed["segmentation"]
        boxed["bbox"] = [2.4, 1.6, 4, 4]
        pointed.update(segmentation=[], point_coords=[[3, 3.5], [1, 9]], point_labels=[1, 0])
        c["annotations"].append(boxed | {"id": 8, "segmentation": SQUARE, "point_coords": [[1, 1]]})

    found, counts = read(tmp_path, change)
    assert [a.kind for a in found] == [Kind.BOX, Kind.POINTS, Kind.MASK]
    assert [a.points for a in found] == [(), ((3, 3.5, 1), (1, 9, 0)), ()]
    wanted = np.zeros((10, 20), dtype=np.uint8)
    wanted[2:6, 2:6] = 1
    assert (coco_mask.decode(found[0].rle) == wanted).all(), "the filled box, rounded"
    assert (found[0].bbox, found[0].area) == ((2.4, 1.6, 4, 4), 16.0)
    assert (counts.objects, counts.points_alone, counts.boxes_alone, counts.without_masks) == (3, 1, 1, 2)
    assert "1 without masks: boxes alone" in counts.lines()


@pytest.mark.parametrize("box", [(-3, 2.2, 3.2, 0.1), (19.9, 9.9, 5, 5), (4, 4, 0.1, 0.1), (-5, -5, 50, 50)])
def test_a_filled_box_has_a_pixel_and_stays_in_the_image(box: tuple[float, float, float, float]) -> None:
    mask = coco_mask.decode(filled_box(box, height=10, width=20))
    assert mask.shape == (10, 20) and mask.sum() >= 1
