"""The demo's data set is what COCO's tools take it for, and a mask task that boxes do not solve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frozen_cache.demo import write_scenes
from frozen_cache.demo.scenes import draw_scene, rasterised, tight_box, uncompressed_runs
from frozen_cache.demo.shapes import CATEGORY_IDS, SHAPES, placed
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.matching import coco_in_memory

IMAGES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), images=IMAGES, seed=77).parent


@pytest.fixture(scope="module")
def coco(folder: Path) -> COCO:
    return coco_in_memory(json.loads((folder / "annotations.json").read_text()))


def annotations(coco: COCO) -> list[dict[str, Any]]:
    return coco.loadAnns(coco.getAnnIds())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "again", images=8, seed=77)
    for file in sorted((tmp_path / "again" / "images").iterdir()):
        assert file.read_bytes() == (folder / "images" / file.name).read_bytes()
    write_scenes(tmp_path / "other", images=1, seed=78)
    first = "images/000000.jpg"
    assert (tmp_path / "other" / first).read_bytes() != (folder / first).read_bytes()


def test_a_longer_set_begins_with_the_shorter_one(folder: Path, tmp_path: Path) -> None:
    short = json.loads(write_scenes(tmp_path, images=5, seed=77).read_text())
    long = json.loads((folder / "annotations.json").read_text())
    assert short["annotations"] == long["annotations"][: len(short["annotations"])]


def test_files_sizes_and_ids_are_consistent(folder: Path, coco: COCO) -> None:
    assert len(coco.imgs) == IMAGES
    for image in coco.imgs.values():
        with Image.open(folder / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            assert opened.mode == "RGB"
    assert len({(image["height"], image["width"]) for image in coco.imgs.values()}) > 10
    assert all(item["image_id"] in coco.imgs and item["category_id"] in coco.cats for item in annotations(coco))


def test_at_least_six_classes_with_ids_that_have_holes_occur(coco: COCO) -> None:
    found = {item["category_id"] for item in annotations(coco)}
    assert found == set(CATEGORY_IDS.values())
    assert len(found) >= 6
    assert max(found) > len(found)


def test_boxes_and_areas_are_those_of_the_masks(coco: COCO) -> None:
    for item in annotations(coco):
        mask = coco.annToMask(item).astype(bool)
        assert mask.sum() == item["area"] > 0
        assert list(tight_box(mask)) == item["bbox"]


def test_masks_of_an_image_do_not_overlap_and_some_objects_are_partly_hidden(coco: COCO) -> None:
    touching = 0
    for image_id in coco.imgs:
        items = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        masks = [coco.annToMask(item) for item in items]
        assert not items or np.sum(masks, axis=0).max() == 1
        boxes = np.array([item["bbox"] for item in items], dtype=np.float64)
        touching += (coco_mask.iou(boxes, boxes, [0] * len(boxes)) - np.eye(len(boxes)) > 0.02).any()
    assert touching > IMAGES / 3


def test_all_three_kinds_of_segmentation_and_crowds_occur(coco: COCO) -> None:
    kinds = [
        "polygon" if isinstance(item["segmentation"], list) else type(item["segmentation"]["counts"]).__name__
        for item in annotations(coco)
    ]
    assert {kind: kinds.count(kind) > 10 for kind in set(kinds)} == {"polygon": True, "list": True, "str": True}
    crowds = [item for item in annotations(coco) if item["iscrowd"]]
    assert 3 < len(crowds) < IMAGES / 2
    assert all(isinstance(item["segmentation"]["counts"], list) for item in crowds)


def test_small_medium_and_large_objects_occur(coco: COCO) -> None:
    areas = np.array([item["area"] for item in annotations(coco) if not item["iscrowd"]])
    small, large = (areas < 32**2).mean(), (areas >= 96**2).mean()
    assert 0.2 < small < 0.6
    assert large > 0.01


def test_filled_true_boxes_score_a_poor_mask_ap(coco: COCO) -> None:
    results = []
    for item in annotations(coco):
        if item["iscrowd"]:
            continue
        image = coco.imgs[item["image_id"]]
        x, y, w, h = item["bbox"]
        filled = np.zeros((image["height"], image["width"]), dtype=np.uint8, order="F")
        filled[y : y + h, x : x + w] = 1
        runs = coco_mask.encode(filled)
        results.append(
            {"image_id": item["image_id"], "category_id": item["category_id"], "score": 1.0, "segmentation": runs}
        )
    assert coco_metrics(coco, results, "segm")["AP"] < 0.1


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_shape_about_fits_its_disc_and_is_neither_its_box_nor_its_ellipse(name: str) -> None:
    outline = placed(name=name, centre=(100.0, 100.0), radius=80.0, degrees=25.0)
    assert np.linalg.norm(outline - 100.0, axis=1).max() <= 80.0 * 1.15
    mask = rasterised(outline, height=200, width=200)
    x, y, w, h = tight_box(mask)
    assert mask.sum() < 0.66 * w * h
    rows, columns = np.ogrid[:200, :200]
    ellipse = ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1
    assert (mask & ellipse).sum() / (mask | ellipse).sum() < 0.8


def test_uncompressed_runs_decode_to_the_mask() -> None:
    rng = np.random.default_rng(0)
    for mask in (rng.random((7, 9)) < 0.5, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        runs = uncompressed_runs(mask)
        np.testing.assert_array_equal(coco_mask.decode(coco_mask.frPyObjects(runs, *mask.shape)).astype(bool), mask)


def test_a_drawn_scene_is_an_rgb_image_with_masks_of_its_size() -> None:
    picture, objects = draw_scene(np.random.default_rng(3))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert objects
    assert all(item.mask.shape == picture.shape[:2] for item in objects)
