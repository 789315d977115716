import json

import pytest

from frozen_cache.evaluation.coco import coco_in_memory, coco_metrics

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
