"""Boundary regions against plain erosion (torch's max pooling), distances against a search of all pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.masks.boundary import boundary, boundary_rle, boundary_width, common_window, edge_distance


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """3 x 3 erosions, one after the other, outside of the image nothing."""
    kept = torch.from_numpy(mask.astype(np.float32))[None]
    for _ in range(times):
        padded = torch.nn.functional.pad(1 - kept, (1, 1, 1, 1), value=1.0)
        kept = 1 - torch.nn.functional.max_pool2d(padded, 3, stride=1)
    return kept[0].numpy() > 0.5


def blob(seed: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, 6, 9, generator=generator)
    return (torch.nn.functional.interpolate(noise, size, mode="bicubic")[0, 0] > 0.45).numpy()


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_region_is_what_repeated_erosion_takes_away(width: int) -> None:
    for seed in range(3):
        mask = blob(seed)
        assert mask[0].any() and mask[:, -1].any(), "the image's border is an edge too"
        assert (boundary(mask, width) == (mask & ~eroded(mask, width))).all()


def test_the_region_of_an_rle_is_that_of_its_image() -> None:
    mask = np.zeros((240, 320), dtype=bool)
    mask[30:90, 200:320] = True
    width = boundary_width((240, 320))
    assert width == 8  # 2 % of 400
    assert (coco_mask.decode(boundary_rle(encoded(mask))) == (mask & ~eroded(mask, width))).all()
    assert coco_mask.area(boundary_rle(encoded(np.zeros_like(mask)))) == 0
    assert boundary_width((10, 10)) == 1


def test_distances_are_those_to_the_nearest_pixel_of_the_other_kind() -> None:
    mask = blob(4, (17, 23))
    places = np.argwhere(np.ones_like(mask))
    kinds = mask.ravel()
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    wanted = np.where(kinds[:, None] != kinds[None], apart, np.inf).min(1).reshape(mask.shape) - 0.5
    assert np.allclose(edge_distance(mask), wanted)
    assert np.isinf(edge_distance(np.ones((3, 4), dtype=bool))).all()


def test_a_common_window_holds_all_masks_and_a_pixel_around_them() -> None:
    one, other = np.zeros((40, 50), dtype=bool), np.zeros((40, 50), dtype=bool)
    one[5:9, 30:50] = True
    other[20, 12] = True
    (first, second), (top, left) = common_window([encoded(one), encoded(other)])
    assert (top, left) == (4, 11)
    assert first.shape == second.shape == (18, 39)
    assert (first == one[4:22, 11:]).all() and (second == other[4:22, 11:]).all()
