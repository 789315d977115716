"""The guided filter against its definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.masks.guided import guided
from frozen_cache.masks.paste import paste_masks, paste_window
from frozen_cache.masks.rle import paste_rles


def defined(window: np.ndarray, grey: np.ndarray, reach: int, epsilon: float) -> np.ndarray:
    """He, Sun, Tang, Eq. 4 to 8: a line fitted in each neighbourhood, the lines through each pixel averaged."""
    guide, (height, width) = grey / 255.0, window.shape

    def near(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)

    slopes, offsets = np.zeros(window.shape), np.zeros(window.shape)
    for y in range(height):
        for x in range(width):
            values, targets = guide[near(y, x)], window[near(y, x)].astype(float)
            slope = np.mean((values - values.mean()) * (targets - targets.mean())) / (values.var() + epsilon)
            slopes[y, x], offsets[y, x] = slope, targets.mean() - slope * values.mean()
    places = [(y, x) for y in range(height) for x in range(width)]
    found = [slopes[near(*at)].mean() * guide[at] + offsets[near(*at)].mean() for at in places]
    return np.clip(np.array(found), 0, 1).reshape(window.shape)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return (np.linspace(0, 200, width) + rng.integers(0, 56, (height, width))).astype(np.uint8)


@pytest.mark.parametrize(("radius", "epsilon", "reach"), [(0.04, 1e-3, 1), (0.1, 1e-2, 2), (0.3, 1e-3, 7)])
def test_it_is_what_the_paper_defines_also_along_the_border(radius, epsilon, reach):
    window = np.random.default_rng(1).random((12, 20)).astype(np.float32)
    found = guided(window, picture(12, 20), radius=radius, epsilon=epsilon)
    np.testing.assert_allclose(found, defined(window, picture(12, 20), reach, epsilon), atol=2e-5)
    assert found.dtype == np.float32


def test_an_edge_that_lies_beside_the_picture_s_moves_onto_it():
    grey = np.full((120, 160), 60, np.uint8)
    grey[:, 80:] = 180
    soft = np.clip((np.arange(160) + 0.5 - 78 + 3) / 6, 0, 1).astype(np.float32)  # a half at 78
    found = guided(np.tile(soft, (120, 1)), grey)
    assert ((found >= 0.5) == (grey > 100)).all()
    assert not ((soft >= 0.5) == (grey[0] > 100)).all()


def test_small_windows_and_empty_ones_stay_as_they_are():
    window = np.random.default_rng(1).random((16, 16)).astype(np.float32)
    assert guided(window, picture(16, 16)) is window
    empty = np.zeros((100, 100), np.float32)
    assert guided(empty, picture(100, 100)) is empty


def test_masks_are_filtered_where_they_are_pasted():
    size, grey = (90, 110), picture(90, 110)
    masks = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    boxes = np.array([[10.0, 20.0, 100.0, 85.0], [-5.0, 5.0, 60.0, 95.0]], np.float32)
    for index, box in enumerate(boxes.tolist()):
        plain, top, left = paste_window(masks[index], box, size)
        part = grey[top : top + plain.shape[0], left : left + plain.shape[1]]
        found, *place = paste_window(masks[index], box, size, grey)
        assert place == [top, left]
        np.testing.assert_array_equal(found, guided(plain, part))
        assert not np.array_equal(found >= 0.5, plain >= 0.5)
        whole = np.zeros(size, bool)
        whole[top : top + plain.shape[0], left : left + plain.shape[1]] = found >= 0.5
        assert np.array_equal(paste_masks(masks, boxes, size, grey=grey)[index], whole)
        assert np.array_equal(coco_mask.decode(paste_rles(masks, boxes, size, grey=grey)[index]), whole)
