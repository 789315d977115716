"""Results of other tools are looked at entry by entry before they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frozen_cache.errors import UserError
from frozen_cache.evaluation.compare import check_results


def rle(height: int = 4, width: int = 6) -> dict[str, Any]:
    found = coco_mask.encode(np.ones((height, width), dtype=np.uint8, order="F"))
    return {"size": found["size"], "counts": found["counts"].decode()}


def entry(**fields: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": rle()} | fields


def check(found: dict[str, Any]) -> None:
    truth = COCO()
    truth.imgs, truth.cats = {1: {"id": 1, "height": 4, "width": 6}}, {2: {"id": 2}}
    check_results("x.json", [entry(), found], truth)


def test_whole_results_are_taken() -> None:
    check(entry(score=0))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_id": 3}, "image_id 3, which the cache does not have"),
        ({"image_id": [1]}, "image_id .1., which the cache does not have"),
        ({"category_id": {}}, "category_id {}, which the cache does not have"),
        ({"score": float("nan")}, "score nan, which is no number"),
        ({"score": "0.5"}, "score '0.5', which is no number"),
        ({"score": None}, "score None, which is no number"),
        ({"score": 10**400}, "score 1000.*, which is no number"),
        ({"segmentation": [[0, 0, 4, 0, 4, 4]]}, "no compressed RLE"),
        ({"segmentation": {"size": [4, 6], "counts": [4, 20]}}, "no compressed RLE"),
        ({"segmentation": rle(6, 4)}, r"its RLE has the size \[6, 4\], the image is \[4, 6\]"),
        ({"segmentation": rle() | {"counts": "PPP"}}, "not a compressed RLE string"),
    ],
)
def test_what_is_no_scored_mask_of_the_cache_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"--compare x.json: entry 1.*{said}"):
        check(entry(**fields))
