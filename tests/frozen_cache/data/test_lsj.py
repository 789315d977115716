"""Large scale jitter: image, masks and boxes stay together; everything comes from the seed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms import v2

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.lsj import LargeScaleJitter, lsj_size
from frozen_cache.data.truth import GroundTruth, truth_of_masks
from frozen_cache.detectors.input_rule import InputRule

SIZE = (96, 128)
WHOLE = (90, 120)
RULE = InputRule(resize="stretch", size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), resample="torchvision")
BOXES = [(10, 12, 50, 60), (70, 5, 110, 40), (0, 0, 4, 4)]
"""xyxy."""


def picture() -> tuple[Image.Image, CocoImage]:
    """White boxes on black, and their masks as annotations."""
    pixels = np.zeros((*WHOLE, 3), dtype=np.uint8)
    annotations = []
    for at, (x0, y0, x1, y1) in enumerate(BOXES):
        mask = np.zeros(WHOLE, dtype=np.uint8)
        mask[y0:y1, x0:x1] = 1
        pixels[mask > 0] = 255
        rle = coco_mask.encode(np.asfortranarray(mask))
        box = (x0, y0, x1 - x0, y1 - y0)
        annotations.append(CocoAnnotation(at, at + 1, bbox=box, area=box[2] * box[3], crowd=False, rle=rle))
    return Image.fromarray(pixels), CocoImage(1, "a.png", *WHOLE, annotations)


def drawn(seed: object, *, scale: tuple[float, float] = (0.1, 2.0)) -> LargeScaleJitter:
    return LargeScaleJitter.draw(WHOLE, size=SIZE, scale=scale, seed=str(seed))


def moved(jitter: LargeScaleJitter, entry: CocoImage) -> GroundTruth:
    masks = [jitter.of_mask(each.rle) for each in entry.annotations]
    return truth_of_masks(entry, masks, {1: 0, 2: 1, 3: 2}, move=partial(jitter.of_point, original=WHOLE))


@pytest.mark.parametrize("seed", range(6))
def test_annotated_points_go_with_the_boxes_corners(seed: int) -> None:
    jitter = drawn(seed)
    for box, wanted in zip(BOXES, boxes_by_torchvision(jitter).tolist(), strict=True):
        corners = [jitter.of_point((box[at], box[at + 1], 1), WHOLE) for at in (0, 2)]
        if None not in corners:
            (xs, ys, labels) = zip(*corners, strict=True)  # type: ignore[arg-type]
            assert [min(xs), min(ys), max(xs), max(ys)] == pytest.approx(wanted, abs=1) and labels == (1, 1)
    beyond = jitter.corner[1] + jitter.size[1] + 1
    assert jitter.of_point((WHOLE[1] * beyond / jitter.scaled[1], 0, 1), WHOLE) is None


def boxes_by_torchvision(jitter: LargeScaleJitter) -> torch.Tensor:
    """(N, 4) of the annotations' boxes, moved by its own functions for boxes."""
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=WHOLE, dtype=torch.float32)  # type: ignore[call-overload]
    (top, left), (height, width) = jitter.corner, jitter.size
    boxes = v2.functional.crop(v2.functional.resize(boxes, list(jitter.scaled)), top, left, height, width)
    boxes = v2.functional.horizontal_flip(boxes) if jitter.flip else boxes
    return v2.functional.clamp_bounding_boxes(boxes).as_subclass(torch.Tensor)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_masks_go_with_the_image(seed: int) -> None:
    jitter, (image, entry) = drawn(seed), picture()
    pixels = jitter.of_image(image, RULE)
    truth = moved(jitter, entry)
    assert pixels.shape == (3, *SIZE) and jitter.transform.crop_size == jitter.transform.resized_size == SIZE
    wanted = boxes_by_torchvision(jitter)
    for box, mask, category in zip(truth.boxes, truth.masks, truth.categories, strict=True):
        assert mask["size"] == list(SIZE)
        own = coco_mask.decode(mask)
        rows, columns = own.any(1).nonzero()[0], own.any(0).nonzero()[0]
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], "the mask's own"
        assert np.abs(box - wanted[category].numpy()).max() <= 1.5
        inner = own[1:-1, 1:-1] & own[:-2, 1:-1] & own[2:, 1:-1] & own[1:-1, :-2] & own[1:-1, 2:]
        if inner.any():
            assert pixels[0, 1:-1, 1:-1][torch.from_numpy(inner > 0)].float().mean() > 230, "where the image is white"
    gone = set(range(3)) - set(truth.categories.tolist())
    sides = wanted[:, 2:] - wanted[:, :2]
    assert all(sides[category].min() < 1 for category in gone), "only what is out of sight, or less than a pixel"


def test_some_draws_lose_objects_and_those_are_dropped() -> None:
    _, entry = picture()
    kept = [len(moved(drawn(seed), entry).boxes) for seed in range(12)]
    assert min(kept) < 3 and max(kept) == 3


def test_padding_is_what_the_input_rule_makes_zero() -> None:
    jitter = drawn(0, scale=(0.3, 0.3))
    pixels = jitter.of_image(picture()[0], RULE)
    assert jitter.scaled == (28, 38) and jitter.corner == (0, 0)
    assert RULE.normalise(pixels)[:, 28:].abs().max() < 0.02 and RULE.normalise(pixels)[:, :28].abs().max() > 0.5


def test_draws_come_from_the_seed_and_span_the_scales() -> None:
    draws = [drawn(seed) for seed in range(300)]
    assert draws == [drawn(seed) for seed in range(300)]
    fits = min(SIZE[0] / WHOLE[0], SIZE[1] / WHOLE[1])
    scales = [draw.scaled[1] / WHOLE[1] / fits for draw in draws]
    assert 0.09 < min(scales) < 0.15 and 1.95 < max(scales) <= 2.0 and 0.95 < sum(scales) / 300 < 1.15
    assert 110 < sum(draw.flip for draw in draws) < 190
    large = [draw for draw in draws if draw.scaled[0] > SIZE[0]]
    assert len({draw.corner for draw in large}) > 50
    assert all(draw.corner[0] + SIZE[0] <= draw.scaled[0] for draw in large)
    assert all(draw.corner == (0, 0) for draw in draws if draw.scaled[0] <= SIZE[0] and draw.scaled[1] <= SIZE[1])


def test_the_input_has_the_rule_s_own_size_or_1024_for_800() -> None:
    assert lsj_size(RULE) == SIZE
    assert lsj_size(InputRule(resize="shortest_edge", shortest_edge=800, longest_edge=1333)) == (1024, 1024)
    assert lsj_size(InputRule(resize="shortest_edge", shortest_edge=32, longest_edge=64)) == (32, 32)
    assert lsj_size(InputRule(resize="fit", max_size=(600, 900))) == (600, 900)
