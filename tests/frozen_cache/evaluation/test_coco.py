"""COCO metrics against pycocotools, called plainly."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.evaluation.coco import METRICS, RECALLS, coco_metrics, coco_scores
from frozen_cache.evaluation.matching import coco_in_memory

PUBLISHED = {
    "segm": {"AP": 0.320, "AP50": 0.562, "AP75": 0.299},
    "bbox": {"AP": 0.505, "AP50": 0.697, "AP75": 0.573},
}


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_coco_api_s_fixtures_give_the_published_figures(shared, kind):
    folder = shared / "evaluation"
    truth = coco_in_memory(json.loads((folder / "instances_val2014_100.json").read_text()))
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    metrics = coco_metrics(truth, results, kind)
    assert {name: round(metrics[name], 3) for name in PUBLISHED[kind]} == PUBLISHED[kind]


def _truth():
    return coco_in_memory(
        {
            "images": [{"id": 1, "height": 100, "width": 100}],
            "categories": [{"id": 5, "name": "thing"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 10, 50, 50], "area": 2500.0, "iscrowd": 0}
            ],
        }
    )


def test_a_perfect_box_gives_ap_1():
    result = [{"image_id": 1, "category_id": 5, "bbox": [10.0, 10.0, 50.0, 50.0], "score": 0.9}]
    assert coco_metrics(_truth(), result, "bbox")["AP"] == 1.0


def test_no_results_give_ap_0():
    assert coco_metrics(_truth(), [], "bbox")["AP"] == 0.0


def test_the_given_results_stay_as_they_are():
    result = [{"image_id": 1, "category_id": 5, "bbox": [10.0, 10.0, 50.0, 50.0], "score": 0.9}]
    before = json.dumps(result)
    coco_metrics(_truth(), result, "bbox")
    assert json.dumps(result) == before


@pytest.fixture(scope="module")
def several():
    """Five images, three classes (one without an object), boxes of all sizes, detections by chance."""
    rng = np.random.default_rng(0)

    def box():
        x, y = rng.integers(0, 150, 2)
        w, h = rng.choice([9, 40, 140], 2)
        return [float(value) for value in (x, y, w, h)]

    annotations, results = [], []
    for image in range(1, 6):
        for _ in range(6):
            at, category = box(), int(rng.integers(1, 3))
            crowd = int(rng.random() < 0.2)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": at, "iscrowd": crowd}
                | {"area": at[2] * at[3]}
            )
            moved = [value + float(rng.normal(0, 4)) for value in at]
            results.append({"image_id": image, "category_id": category, "bbox": moved, "score": float(rng.random())})
            results.append({"image_id": image, "category_id": 3, "bbox": box(), "score": float(rng.random())})
    names = {1: "one", 2: "two", 3: "none"}
    truth = {
        "images": [{"id": image, "height": 300, "width": 300} for image in range(1, 6)],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in names.items()],
    }
    return truth, results


def only(truth, category):
    kept = [annotation for annotation in truth["annotations"] if annotation["category_id"] == category]
    return coco_in_memory({**truth, "annotations": kept, "categories": [{"id": category, "name": "x"}]})


def test_metrics_of_a_class_are_pycocotools_metrics_of_a_data_set_with_that_class_alone(several):
    truth, results = several
    scores = coco_scores(coco_in_memory(copy.deepcopy(truth)), results, "bbox")
    for entry in scores.classes[:2]:
        mine = [result for result in results if result["category_id"] == entry.id]
        expected = coco_metrics(only(copy.deepcopy(truth), entry.id), mine, "bbox")
        assert entry.metrics == {name: expected[name] for name in (*METRICS, "AR100")}
        assert 0 < entry.metrics["AP"] < 1
        assert entry.objects == sum(
            annotation["category_id"] == entry.id and not annotation["iscrowd"] for annotation in truth["annotations"]
        )
    assert [entry.name for entry in scores.classes] == ["one", "two", "none"]
    assert scores.classes[2].objects == 0
    assert set(scores.classes[2].metrics.values()) == {-1.0}


def test_the_mean_over_classes_and_the_curves_mean_are_ap(several):
    truth, results = several
    scores = coco_scores(coco_in_memory(copy.deepcopy(truth)), results, "bbox")
    known = [entry.metrics["AP"] for entry in scores.classes if entry.objects]
    assert np.mean(known) == pytest.approx(scores.metrics["AP"], abs=1e-6)
    for name, metric in (("mean", "AP"), ("0.50", "AP50"), ("0.75", "AP75")):
        assert len(scores.precision[name]) == 101
        assert np.mean(scores.precision[name]) == pytest.approx(scores.metrics[metric], abs=1e-5)


def test_average_recall_is_pycocotools_own(several, capsys):
    truth, results = several
    metrics = coco_metrics(coco_in_memory(copy.deepcopy(truth)), results, "bbox")
    coco = coco_in_memory(copy.deepcopy(truth))
    evaluator = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    assert [metrics[name] for name in RECALLS] == pytest.approx(evaluator.stats[6:].tolist(), abs=1e-6)


def _random_case(seed: int) -> tuple[dict, list[dict]]:
    """A data set of squares of all of COCO's sizes in three categories, and detections near them and astray."""
    rng = np.random.default_rng(seed)

    def square(side: float, at: np.ndarray) -> dict:
        mask = np.zeros((200, 220), dtype=np.uint8)
        x, y = at.astype(int)
        mask[y : y + int(side), x : x + int(side)] = 1
        rle = coco_mask.encode(np.asfortranarray(mask))
        return {"segmentation": rle, "bbox": [float(value) for value in coco_mask.toBbox(rle)]}

    annotations, results = [], []
    for image in range(1, 5):
        for _ in range(6):
            side, at, category = rng.choice([12, 20, 60, 120]), rng.uniform(0, 80, 2), int(rng.choice([2, 5, 9]))
            common = {"image_id": image, "category_id": category}
            annotations.append(
                square(side, at)
                | common
                | {"id": len(annotations) + 1, "area": float(side**2), "iscrowd": int(rng.random() < 0.15)}
            )
            for _ in range(int(rng.integers(0, 3))):
                moved = square(side * rng.uniform(0.8, 1.2), (at + rng.normal(0, side / 12, 2)).clip(0))
                results.append(moved | common | {"score": float(rng.random())})
    images = [{"id": image, "height": 200, "width": 220} for image in range(1, 5)]
    categories = [{"id": number, "name": str(number)} for number in (2, 5, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_metrics_are_pycocotools_own(kind):
    dataset, results = _random_case(3)
    only = "segmentation" if kind == "bbox" else "bbox"
    results = [{key: value for key, value in result.items() if key != only} for result in results]
    truth = COCO()
    truth.dataset = copy.deepcopy(dataset)
    truth.createIndex()
    plain = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    found = coco_metrics(coco_in_memory(copy.deepcopy(dataset)), results, kind)
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert list(found)[:6] == names
    assert [found[name] for name in names] == pytest.approx(plain.stats[:6].tolist(), abs=1e-6)
    assert len({round(found[name], 3) for name in names}) == 6, "the case tells all six apart"


def test_there_is_no_ap_of_a_size_that_no_object_has():
    result = [{"image_id": 1, "category_id": 5, "bbox": [10.0, 10.0, 50.0, 50.0], "score": 0.9}]
    found = coco_metrics(_truth(), result, "bbox")
    assert (found["APs"], found["APm"], found["APl"]) == (-1, 1, -1)


@pytest.mark.parametrize("first", [0, 1, -3])
def test_the_ids_of_annotations_play_no_part(first: int) -> None:
    """pycocotools takes the id 0 for "no match"."""
    boxes = [[0, 0, 10, 10], [20, 20, 10, 10]]
    common = {"image_id": 1, "category_id": 1}
    annotations = [common | {"id": first + at, "bbox": box, "area": 100, "iscrowd": 0} for at, box in enumerate(boxes)]
    dataset = {
        "images": [{"id": 1, "height": 40, "width": 40}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    results = [common | {"bbox": box, "score": 0.9} for box in boxes]
    assert coco_metrics(coco_in_memory(dataset), results, "bbox")["AP"] == 1.0
    assert [annotation["id"] for annotation in annotations] == [first, first + 1]
