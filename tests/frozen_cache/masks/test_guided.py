"""The fast guided filter over colours against its definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.masks.guided import guided
from frozen_cache.masks.paste import paste_masks, paste_window
from frozen_cache.masks.rle import paste_rles


def defined(window: np.ndarray, guide: np.ndarray, reach: int, epsilon: float, *, step: int = 1) -> np.ndarray:
    """He, Sun, Tang 2013: planes over the colours fitted in each neighbourhood, then the mean of those around a pixel.

    With a step (He, Sun 2015) those of every step-th pixel, and between them what is linear. A neighbourhood keeps its
    size in pixels: of the outermost ones it holds but a part.
    """
    first = (step - 1) // 2
    colours = np.moveaxis(guide / 255.0, 0, -1)
    values, samples = window[first::step, first::step].astype(float), colours[first::step, first::step]
    height, width = values.shape

    def shares(length: int, at: int) -> np.ndarray:
        """Of each place, how much lies within (reach + 1/2) / step of the middle of one."""
        low, high = at + 0.5 - (reach + 0.5) / step, at + 0.5 + (reach + 0.5) / step
        return np.array([max(0.0, min(high, place + 1) - max(low, place)) for place in range(length)])

    planes, means = np.zeros((height, width, 4)), np.zeros((height, width, 4))
    for y, x in np.ndindex(height, width):
        share = np.outer(shares(height, y), shares(width, x)).reshape(-1)
        of_pixels = np.hstack([samples.reshape(-1, 3), np.ones((len(share), 1))])
        ridge = np.eye(3, 4) * np.sqrt(epsilon * share.sum())  # ||a||^2, epsilon times for each pixel
        equations = np.vstack([of_pixels * np.sqrt(share)[:, None], ridge])
        targets = np.concatenate([values.reshape(-1) * np.sqrt(share), np.zeros(3)])
        planes[y, x] = np.linalg.lstsq(equations, targets, rcond=None)[0]
    for y, x in np.ndindex(height, width):
        share = np.outer(shares(height, y), shares(width, x))
        means[y, x] = (planes * share[..., None]).sum((0, 1)) / share.sum()
    rows, columns = (first + step * np.arange(count) for count in (height, width))
    found = np.zeros((*window.shape, 4))
    for each in range(4):
        wide = np.stack([np.interp(np.arange(window.shape[1]), columns, row) for row in means[..., each]])
        found[..., each] = np.stack([np.interp(np.arange(window.shape[0]), rows, column) for column in wide.T], 1)
    return np.clip((found[..., :3] * colours).sum(-1) + found[..., 3], 0, 1)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    ramps = np.array([200, 120, -150])[:, None, None] * np.linspace(0, 1, width) + np.array([0, 60, 190])[:, None, None]
    return (ramps + rng.integers(-20, 21, (3, height, width))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("radius", "epsilon", "reach"), [(0.04, 1e-3, 1), (0.1, 1e-2, 2), (0.13, 1e-3, 3)])
def test_it_is_what_the_paper_defines_also_along_the_border(radius, epsilon, reach):
    window = np.random.default_rng(1).random((12, 20)).astype(np.float32)
    found = guided(window, picture(12, 20), radius=radius, epsilon=epsilon)
    np.testing.assert_allclose(found, defined(window, picture(12, 20), reach, epsilon), atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize(("reach", "step"), [(7, 1), (8, 2), (11, 2), (13, 3)])
def test_large_windows_are_fitted_at_every_nth_pixel(reach, step):
    window = np.random.default_rng(1).random((38, 45)).astype(np.float32)
    guide = picture(38, 45)
    found = guided(window, guide, radius=reach / np.hypot(38, 45))
    np.testing.assert_allclose(found, defined(window, guide, reach, 1e-3, step=step), atol=1e-4)


def test_at_every_nth_pixel_it_is_nearly_what_it_is_at_all_of_them():
    rows, columns = np.mgrid[:36, :48]
    shade = np.array([90, 120, 60])[:, None, None] + 40 * np.sin(columns / 9)
    guide = np.where(np.hypot(rows - 19, columns - 26) < 12, shade + 60, shade).astype(np.uint8)
    soft = np.clip(0.5 + (12 - np.hypot(rows - 17, columns - 24)) / 12, 0, 1).astype(np.float32)
    found, full = guided(soft, guide, radius=8 / 60), defined(soft, guide, 8, 1e-3)
    assert np.abs(found - full).mean() < 0.1 * np.abs(soft - full).mean()


def test_an_edge_that_lies_beside_the_picture_s_moves_onto_it():
    guide = np.full((3, 120, 160), 60, np.uint8)
    guide[1, :, 80:] = 180
    soft = np.clip((np.arange(160) + 0.5 - 78 + 3) / 6, 0, 1).astype(np.float32)  # a half at 78
    found = guided(np.tile(soft, (120, 1)), guide)
    assert ((found >= 0.5) == (guide[1] > 100)).all()
    assert not ((soft >= 0.5) == (guide[1, 0] > 100)).all()


def test_an_edge_between_two_colours_of_one_grey_counts():
    guide = np.zeros((3, 120, 160), np.uint8)
    guide[0, :, :80], guide[1, :, 80:] = 200, 102  # both are 60 of 255 as grey
    soft = np.clip((np.arange(160) + 0.5 - 78 + 3) / 6, 0, 1).astype(np.float32)
    assert ((guided(np.tile(soft, (120, 1)), guide) >= 0.5) == (guide[1] > 100)).all()


def test_small_windows_and_empty_ones_stay_as_they_are():
    window = np.random.default_rng(1).random((16, 16)).astype(np.float32)
    assert guided(window, picture(16, 16)) is window
    empty = np.zeros((100, 100), np.float32)
    assert guided(empty, picture(100, 100)) is empty


def test_masks_are_filtered_where_they_are_pasted():
    size, guide = (90, 110), picture(90, 110)
    masks = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    boxes = np.array([[10.0, 20.0, 100.0, 85.0], [-5.0, 5.0, 60.0, 95.0]], np.float32)
    for index, box in enumerate(boxes.tolist()):
        plain, top, left = paste_window(masks[index], box, size)
        part = guide[:, top : top + plain.shape[0], left : left + plain.shape[1]]
        found, *place = paste_window(masks[index], box, size, guide)
        assert place == [top, left]
        np.testing.assert_array_equal(found, guided(plain, part))
        assert not np.array_equal(found >= 0.5, plain >= 0.5)
        whole = np.zeros(size, bool)
        whole[top : top + plain.shape[0], left : left + plain.shape[1]] = found >= 0.5
        assert np.array_equal(paste_masks(masks, boxes, size, guide=guide)[index], whole)
        assert np.array_equal(coco_mask.decode(paste_rles(masks, boxes, size, guide=guide)[index]), whole)
