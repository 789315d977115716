"""Segmentations in all of COCO's forms, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from frozen_cache.data.rle import check_masks, rle_run_lengths
from frozen_cache.data.segmentation import check_segmentation, segmentation_to_rle

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 1))
)


def runs_of(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.flatten(order="F")])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff([0, *changes, mask.size]).tolist()


@settings(max_examples=60, deadline=None)
@given(masks)
def test_run_lengths_are_those_that_pycocotools_encoded(mask: np.ndarray) -> None:
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    assert rle_run_lengths(counts).tolist() == runs_of(mask)


@pytest.mark.parametrize("size", [(700, 900), (1, 300), (300, 1)])
def test_run_lengths_of_large_masks_survive(size: tuple[int, int]) -> None:
    mask = np.asfortranarray(np.random.default_rng(0).random(size) > 0.999).astype(np.uint8)
    assert rle_run_lengths(coco_mask.encode(mask)["counts"]).tolist() == runs_of(mask)


def test_masks_one_after_the_other_are_each_checked() -> None:
    rng = np.random.default_rng(0)
    heights, widths = np.array([[9, 14], [9, 14], [2, 3], [9, 14], [30, 7]]).T
    each = [
        coco_mask.encode(np.asfortranarray(rng.random((height, width)) < part).astype(np.uint8))["counts"]
        for part, height, width in zip((0.5, 0, 0.9, 1, 0.02), heights, widths, strict=True)
    ]
    lengths = np.array([len(counts) for counts in each])
    check_masks(b"".join(each), lengths, heights, widths)
    check_masks(b"", lengths[:0], heights[:0], widths[:0])
    other = coco_mask.encode(np.ones((9, 13), np.uint8, order="F"))["counts"]
    for place in range(len(each)):
        wrong = [*each[:place], other, *each[place + 1 :]]
        if place == 2:  # it is too small for any such run
            continue
        with pytest.raises(ValueError, match=f"covers 117 pixels, the image has {heights[place]} x {widths[place]}"):
            check_masks(b"".join(wrong), np.array([len(counts) for counts in wrong]), heights, widths)
    lengths[:2] += (1, -1)
    with pytest.raises(ValueError, match="RLE"):
        check_masks(b"".join(each), lengths, heights, widths)
    lengths[:2] += (lengths[1], -lengths[1])
    with pytest.raises(ValueError, match="a mask has no RLE"):
        check_masks(b"".join(each), lengths, heights, widths)


@settings(max_examples=30, deadline=None)
@given(masks)
def test_compressed_and_uncompressed_rle_give_the_same_mask(mask: np.ndarray) -> None:
    height, width = mask.shape
    compressed = coco_mask.encode(np.asfortranarray(mask))
    for counts in (compressed["counts"], compressed["counts"].decode(), runs_of(mask)):
        segmentation = {"size": [height, width], "counts": counts}
        check_segmentation(segmentation, height=height, width=width)
        rle = segmentation_to_rle(segmentation, height=height, width=width)
        assert (coco_mask.decode(rle) == mask).all()


def test_polygons_of_one_object_are_merged() -> None:
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [6, 6, 9, 6, 9, 9, 6, 9]]
    check_segmentation(polygons, height=10, width=10)
    assert coco_mask.area(segmentation_to_rle(polygons, height=10, width=10)) == 16 + 9


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], "flat list of x, y pairs"),
        ([[1, 2, 3, 4, 5, "6"]], "not a number"),
        ([[1, 2, 3, 4, 5, None]], "not a number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a number"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ([1, 2, 3, 4, 5, 6], "flat list of x, y pairs"),
        ("abc", "str"),
        ({"size": [10, 10]}, "no counts"),
        ({"size": [9, 10], "counts": [90]}, "size"),
        ({"counts": [100]}, "size"),
        ({"size": [10, 10], "counts": [50, 51]}, "covers 101 pixels"),
        ({"size": [10, 10], "counts": [110, -10]}, "longer|negative"),
        ({"size": [10, 10], "counts": [1.5, 98.5]}, "whole numbers"),
        ({"size": [10, 10], "counts": "\x01\x02"}, "not a compressed RLE"),
        ({"size": [10, 10], "counts": "é"}, "not a compressed RLE"),
        ({"size": [10, 10], "counts": "ooooooooooooooo0"}, "longer than any image"),
        ({"size": [10, 10], "counts": "00"}, "covers 0 pixels"),
    ],
)
def test_malformed_segmentations_are_refused_in_words(segmentation: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_segmentation(segmentation, height=10, width=10)
