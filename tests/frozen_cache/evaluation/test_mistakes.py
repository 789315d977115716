"""Detections and objects sorted by what became of them, on rectangles."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.mistakes import count_kinds, judge_image

CAT, DOG = 1, 2


def rle(x: int, y: int, w: int, h: int) -> dict:
    mask = np.zeros((100, 100), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    return coco_mask.encode(np.asfortranarray(mask))


def thing(*box: int, category: int = CAT, crowd: int = 0) -> dict:
    return {"category_id": category, "bbox": list(box), "segmentation": rle(*box), "iscrowd": crowd}


def found(*box: int, category: int = CAT, score: float = 0.9, mask: tuple[int, int, int, int] | None = None) -> dict:
    return {"category_id": category, "bbox": list(box), "segmentation": rle(*(mask or box)), "score": score}


TRUTH = [thing(10, 10, 20, 20)]


@pytest.mark.parametrize(
    ("detections", "words", "word"),
    [
        ([found(10, 10, 20, 20)], ["right"], "found"),
        ([found(10, 10, 20, 10)], ["right"], "found"),  # an IoU of exactly 0.5
        ([found(10, 10, 20, 20), found(11, 10, 20, 20, score=0.8)], ["right", "double"], "found"),
        ([found(10, 10, 20, 20, mask=(10, 10, 20, 5))], ["bad mask"], "bad mask"),
        ([found(10, 10, 20, 20, category=DOG)], ["wrong class"], "wrong class"),
        ([found(10, 10, 20, 20, category=DOG, mask=(10, 10, 20, 5))], ["wrong class"], "wrong class"),
        ([found(20, 10, 20, 20)], ["bad box"], "bad box"),
        ([found(60, 60, 20, 20)], ["nothing there"], "missed"),
        ([found(26, 26, 20, 20)], ["nothing there"], "missed"),  # an IoU of 0.02
        ([found(10, 10, 20, 20, score=0.2)], [], "missed"),
        ([], [], "missed"),
        # a second try at an object that is found, and the best excuse of one that is not
        ([found(10, 10, 20, 20), found(10, 10, 20, 20, mask=(10, 10, 5, 5), score=0.5)], ["right", "double"], "found"),
        ([found(20, 10, 20, 20), found(10, 10, 20, 20, category=DOG)], ["bad box", "wrong class"], "wrong class"),
    ],
)
def test_each_detection_and_object_gets_its_word(detections, words, word):
    verdict = judge_image(7, detections, TRUTH, threshold=0.3)
    assert [judged.kind for judged in verdict.detections] == words
    assert [judged.kind for judged in verdict.objects] == [word]
    assert verdict.image_id == 7


def test_the_better_scored_detection_takes_the_object():
    verdict = judge_image(1, [found(11, 10, 20, 20, score=0.4), found(10, 10, 20, 20, score=0.8)], TRUTH)
    assert [(judged.index, judged.kind) for judged in verdict.detections] == [(1, "right"), (0, "double")]
    assert verdict.objects[0].partner == 1
    assert verdict.objects[0].iou == 1.0


def test_crowds_excuse_detections_and_are_no_objects():
    truth = [*TRUTH, thing(50, 50, 40, 40, crowd=1)]
    verdict = judge_image(1, [found(60, 60, 10, 10), found(60, 60, 10, 10, category=DOG)], truth)
    assert [(judged.index, judged.kind) for judged in verdict.detections] == [(1, "nothing there")]
    assert len(verdict.objects) == 1
    assert (None, CAT) not in verdict.confusion


def test_confusion_pairs_objects_with_what_they_were_taken_for():
    truth = [thing(0, 0, 20, 20), thing(50, 0, 20, 20), thing(0, 50, 20, 20, category=DOG)]
    detections = [found(0, 0, 20, 20), found(50, 0, 20, 20, category=DOG), found(70, 70, 20, 20, category=DOG)]
    verdict = judge_image(1, detections, truth)
    assert sorted(verdict.confusion, key=str) == sorted([(CAT, CAT), (CAT, DOG), (None, DOG), (DOG, None)], key=str)


def test_an_object_of_the_detection_s_own_class_goes_first_in_the_confusion():
    truth = [thing(0, 0, 20, 20, category=DOG), thing(0, 0, 20, 18)]
    verdict = judge_image(1, [found(0, 0, 20, 20)], truth)
    assert (CAT, CAT) in verdict.confusion


def test_the_mean_iou_of_an_image_counts_what_is_missed_as_0():
    truth = [*TRUTH, thing(60, 60, 10, 10)]
    assert judge_image(1, [found(10, 10, 20, 10)], truth).mean_iou == pytest.approx(0.25)
    assert judge_image(1, [found(10, 10, 20, 10)], []).mean_iou is None


def test_counts_name_every_kind():
    counts = count_kinds([judge_image(1, [found(10, 10, 20, 20)], TRUTH), judge_image(2, [], TRUTH)])
    assert counts["objects"] == {"found": 1, "bad mask": 0, "wrong class": 0, "bad box": 0, "missed": 1}
    assert counts["detections"]["right"] == 1
    assert sum(counts["detections"].values()) == 1
