"""Images scored as they come, against COCOeval of pycocotools called plainly on all of them at once."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from frozen_cache.cache.attributes import Category
from frozen_cache.evaluation.boundary import BoundaryEval
from frozen_cache.evaluation.matching import coco_in_memory
from frozen_cache.evaluation.outcome import ImageTask, image_outcome
from frozen_cache.evaluation.scorers import ALL_KINDS, CocoApi, make_scorer
from frozen_cache.inference.instances import Instances

NAMES: list[Category] = [{"id": 9, "name": "a"}, {"id": 4, "name": "b"}, {"id": 6, "name": "never annotated"}]
SIZE = (150, 200)
NUMBERS = (31, 7, 12, 5, 100, 3)
"""Image ids as they come, not in their order."""


def rectangle(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[round(y) : round(y + height), round(x) : round(x + width)] = 1
    return coco_mask.encode(np.asfortranarray(mask))


def annotations(rng: np.random.Generator, image: int) -> list[dict[str, Any]]:
    """Objects and crowds of all sizes; none in image 12."""
    found = []
    for _ in range(0 if image == 12 else 5):
        width, height = rng.choice([12, 50, 110], 2)
        box = [float(value) for value in (*rng.integers(0, 60, 2), width, height)]
        rle = rectangle(*box)
        common = {"id": len(found) + 1, "image_id": image, "category_id": int(rng.choice([9, 4])), "bbox": box}
        crowd = int(rng.random() < 0.25)
        found.append(common | {"segmentation": rle, "area": float(coco_mask.area(rle)), "iscrowd": crowd})
    return found


def instances(rng: np.random.Generator, truth: list[dict[str, Any]]) -> Instances:
    """Each object found twice, a little off, its scores often those of another; two more are anywhere."""
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (thing["bbox"] for thing in truth for _ in range(2))]
    boxes += [[10.0, 10, 90, 70], [100, 50, 130, 149]] if truth else []
    labels = [thing["category_id"] for thing in truth for _ in range(2)] + ([9, 6] if truth else [])
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    corners += rng.normal(0, 3, corners.shape).astype(np.float32)
    scores = rng.choice([0.2, 0.4, 0.5, 0.8], len(labels)).astype(np.float32)
    return Instances(
        size=SIZE,
        boxes=corners,
        labels=np.array(labels, dtype=np.int64),
        scores=scores,
        box_scores=scores[::-1].copy(),
        names=[""] * len(labels),
        probabilities=np.ones((len(labels), 16, 16), dtype=np.float32),
        mask_boxes=corners,
    )


@pytest.fixture(scope="module")
def tasks() -> list[ImageTask]:
    rng, found = np.random.default_rng(0), []
    for number in NUMBERS:
        truth = annotations(rng, number)
        image = {"id": number, "height": SIZE[0], "width": SIZE[1]}
        there = instances(rng, [] if number == 5 else truth)
        found.append(ImageTask(image=image, truth=truth, instances=there, kinds=ALL_KINDS))
    return found


def plainly(tasks: list[ImageTask], kind: str) -> Any:
    """COCOeval of everything at once."""
    truth = [entry for task in tasks for entry in task.truth]
    coco = coco_in_memory(
        {"images": [task.image for task in tasks], "annotations": copy.deepcopy(truth), "categories": NAMES}
    )
    results = [
        entry
        for task in tasks
        for entry in task.instances.to_coco(task.image["id"], kind="bbox" if kind == "bbox" else "segm")
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.loadRes(copy.deepcopy(results))
        evaluator = BoundaryEval(coco, found) if kind == "boundary" else COCOeval(coco, found, kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


@pytest.mark.parametrize("api", ["pycocotools", "hotcoco"])
def test_the_scores_are_those_of_all_images_at_once(api: CocoApi, tasks: list[ImageTask]) -> None:
    if api == "hotcoco":
        pytest.importorskip("hotcoco")
    scorer = make_scorer(api, NAMES)
    for task in tasks:
        scorer.add(image_outcome(task))
    scores = scorer.scores()
    assert set(scores) == set(ALL_KINDS)
    for kind in ALL_KINDS:
        expected = plainly(tasks, kind)
        assert list(scores[kind].metrics.values()) == pytest.approx(expected.stats.tolist(), abs=1e-6)
        assert 0 < scores[kind].metrics["AP"] < 1
        whole = expected.eval["precision"][:, :, :, 0, -1]
        known = whole[..., whole.max(axis=(0, 1)) > -1]
        assert scores[kind].precision["mean"] == pytest.approx(known.mean(axis=(0, 2)).tolist(), abs=1e-5)
        for place, each in enumerate(scores[kind].classes):
            assert each.id == sorted(entry["id"] for entry in NAMES)[place]
            ap = whole[:, :, place]
            assert each.metrics["AP"] == pytest.approx(float(ap[ap > -1].mean()) if (ap > -1).any() else -1, abs=1e-6)
            things = [entry for task in tasks for entry in task.truth if entry["category_id"] == each.id]
            assert each.objects == sum(not thing["iscrowd"] for thing in things)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_hotcoco_gives_the_figures_of_the_coco_api_s_fixtures(shared: Path, kind: Any) -> None:
    """The fixtures' annotations are polygons, as hotcoco's stream takes them; the results are RLEs or boxes."""
    hotcoco = pytest.importorskip("hotcoco")
    folder = shared / "evaluation"
    data = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    stream = hotcoco.StreamingEval(data["categories"], iou_type=kind)
    for image in data["images"]:
        stream.update(
            [image],
            [entry for entry in data["annotations"] if entry["image_id"] == image["id"]],
            [entry for entry in results if entry["image_id"] == image["id"]],
        )
    found = stream.finalize()
    coco = coco_in_memory(copy.deepcopy(data))
    with contextlib.redirect_stdout(io.StringIO()):
        found.accumulate()
        found.summarize()
        known = {image["id"] for image in data["images"]}
        expected = COCOeval(coco, coco.loadRes([entry for entry in results if entry["image_id"] in known]), kind)
        expected.evaluate()
        expected.accumulate()
        expected.summarize()
    np.testing.assert_allclose(found.stats, expected.stats, atol=1e-6)


def test_hotcoco_that_is_not_there_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from frozen_cache.errors import UserError

    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(UserError, match=r"pip install 'frozen-cache\[fast-eval\]'"):
        make_scorer("hotcoco", NAMES)


def test_an_image_costs_a_few_kilobytes_once_it_is_scored(tasks: list[ImageTask]) -> None:
    """Its masks, results and run lengths are forgotten; 12 detections and 5 objects leave their matches."""
    rich = tasks[0]
    scorer = make_scorer("pycocotools", NAMES)
    images = 50
    scorer.add(image_outcome(rich))
    tracemalloc.start()
    try:
        for number in range(images):
            image = rich.image | {"id": 1000 + number}
            scorer.add(image_outcome(ImageTask(image, rich.truth, rich.instances, ALL_KINDS)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / images < 5_000
