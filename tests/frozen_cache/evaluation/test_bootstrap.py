"""AP of drawn images against pycocotools on a data set with copies of them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from frozen_cache.evaluation.bootstrap import draw_images, interval, tally_results
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.matching import coco_in_memory

IMAGES = 7


def annotation(rng: np.random.Generator, image: int) -> dict:
    x, y = (float(value) for value in rng.integers(0, 60, 2))
    w, h = (float(value) for value in rng.integers(12, 40, 2))
    crowd = int(rng.random() < 0.15)
    return {"image_id": image, "category_id": int(rng.integers(1, 4)), "bbox": [x, y, w, h], "area": w * h} | {
        "iscrowd": crowd
    }


@pytest.fixture(scope="module")
def data() -> tuple[dict, list[dict]]:
    """Seven images with objects of three classes and detections near most of them, doubles, wrong classes, noise."""
    rng = np.random.default_rng(3)
    annotations, results = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(int(rng.integers(0, 6)) if image > 1 else 0):
            thing = annotation(rng, image) | {"id": len(annotations) + 1}
            annotations.append(thing)
            for _ in range(int(rng.integers(0, 3))):
                box = [value + float(rng.normal(0, 3)) for value in thing["bbox"]]
                category = thing["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 4))
                results.append({"image_id": image, "category_id": category, "bbox": box, "score": float(rng.random())})
        box = annotation(rng, image)["bbox"]
        results.append({"image_id": image, "category_id": 2, "bbox": box, "score": float(rng.random())})
    images = [{"id": image, "height": 100, "width": 100} for image in range(1, IMAGES + 1)]
    categories = [{"id": at, "name": f"class {at}"} for at in (1, 2, 3, 4)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def with_copies(data, counts) -> tuple[dict, list[dict]]:
    """The data set that holds each image `counts` times."""
    truth, results = data
    images, annotations, found = [], [], []
    for image, count in zip(truth["images"], counts, strict=True):
        for copied in range(count):
            new = image["id"] * 100 + copied
            images.append(image | {"id": new})
            annotations += [a | {"image_id": new} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [r | {"image_id": new} for r in results if r["image_id"] == image["id"]]
    annotations = [entry | {"id": at + 1} for at, entry in enumerate(annotations)]
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}, found


def test_ap_of_the_images_as_they_are_is_that_of_pycocotools(data):
    truth, results = data
    expected = coco_metrics(coco_in_memory(copy.deepcopy(truth)), results, "bbox")["AP"]
    tally = tally_results(coco_in_memory(truth), results, "bbox")
    assert 0.1 < expected < 0.9
    assert tally.average_precision(np.ones((1, IMAGES)))[0] == pytest.approx(expected, abs=1e-6)


def test_drawn_images_count_like_copies_of_them(data):
    truth, results = data
    counts = draw_images(IMAGES, draws=12, seed=1)
    drawn = tally_results(coco_in_memory(truth), results, "bbox").average_precision(counts)
    for value, count in zip(drawn, counts, strict=True):
        copied, found = with_copies(data, count)
        assert value == pytest.approx(coco_metrics(coco_in_memory(copied), found, "bbox")["AP"], abs=1e-6)


def test_many_draws_at_once_and_few_at_a_time_agree(data, monkeypatch):
    tally = tally_results(coco_in_memory(data[0]), data[1], "bbox")
    counts = draw_images(IMAGES, draws=50)
    whole = tally.average_precision(counts)
    monkeypatch.setattr("frozen_cache.evaluation.bootstrap._AT_ONCE", 1)
    np.testing.assert_array_equal(tally.average_precision(counts), whole)


def test_a_draw_has_as_many_images_as_there_are_and_one_seed_gives_one_set():
    counts = draw_images(9, draws=40)
    assert (counts.sum(axis=1) == 9).all()
    assert counts.std() > 0.5
    np.testing.assert_array_equal(counts, draw_images(9, draws=40))
    assert (counts != draw_images(9, draws=40, seed=1)).any()


def test_no_results_give_0_and_no_objects_nan(data):
    truth = coco_in_memory({**data[0], "annotations": [], "info": {}})
    assert math.isnan(tally_results(truth, data[1], "bbox").average_precision(np.ones((1, IMAGES)))[0])
    assert tally_results(coco_in_memory(data[0]), [], "bbox").average_precision(np.ones((1, IMAGES)))[0] == 0


def test_an_interval_holds_95_percent_and_leaves_out_what_is_unknown():
    found = interval(0.4, np.append(np.arange(1001) / 1000, np.nan))
    assert (found.value, found.low, found.high) == (0.4, pytest.approx(0.025), pytest.approx(0.975))
    assert math.isnan(interval(0.4, np.array([np.nan])).low)
