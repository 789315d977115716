"""Views: drawn once, within the image, and the same for pixels and ground truth."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.segmentation import segmentation_to_rle
from frozen_cache.data.truth import view_truth
from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import apply_view, make_view
from frozen_cache.detectors.input_rule import InputRule

STRETCH = InputRule(resize="stretch", size=(64, 64))
EDGE = InputRule(resize="shortest_edge", shortest_edge=800, longest_edge=1333)
FIT = InputRule(resize="fit", max_size=(800, 1333))
PINNED_STRETCH = ((34, 4, 587, 468), False)
PINNED_EDGE = ((171, 0, 597, 480), True, (721, 640))
sizes = st.tuples(st.integers(1, 700), st.integers(1, 5000))


@settings(max_examples=80, deadline=None)
@given(sizes, st.integers(0, 10**12), st.integers(0, 5), st.sampled_from([STRETCH, EDGE, FIT]))
def test_a_crop_lies_in_the_image_and_no_side_vanishes(
    size: tuple[int, int], image_id: int, view_index: int, rule: InputRule
) -> None:
    view = make_view(rule, size, image_id=image_id, view_index=view_index)
    x0, y0, x1, y1 = view.crop
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]
    assert min(view.resized_size) >= 1
    assert view == make_view(rule, size, image_id=image_id, view_index=view_index)


@pytest.mark.parametrize("rule", [STRETCH, EDGE, FIT])
def test_view_zero_is_the_plain_resize(rule: InputRule) -> None:
    view = make_view(rule, (480, 640), image_id=5, view_index=0)
    assert view.is_plain
    assert view.resized_size == rule.resized_size(height=480, width=640)


def test_further_views_differ_by_image_index_and_seed_and_flip_half_the_time() -> None:
    views = [make_view(EDGE, (480, 640), image_id=image, view_index=1) for image in range(400)]
    assert len({view.crop for view in views}) > 100
    assert 160 < sum(view.flip for view in views) < 240
    assert 140 < sum(view.crop == (0, 0, 640, 480) for view in views) < 260
    assert {min(view.resized_size) for view in views} <= set(range(480, 801, 32)) | set(range(400, 801))
    assert make_view(EDGE, (480, 640), image_id=3, view_index=1) != make_view(
        EDGE, (480, 640), image_id=3, view_index=2
    )
    assert make_view(STRETCH, (480, 640), image_id=3, view_index=1) != make_view(
        STRETCH, (480, 640), image_id=3, view_index=1, seed=1
    )


def test_the_draws_never_change_between_versions() -> None:
    view = make_view(STRETCH, (480, 640), image_id=42, view_index=1)
    assert (view.crop, view.flip) == PINNED_STRETCH
    edge = make_view(EDGE, (480, 640), image_id=42, view_index=2)
    assert (edge.crop, edge.flip, edge.resized_size) == PINNED_EDGE


def test_views_of_a_rule_that_fits_images_are_those_of_the_edges_of_the_plain_view() -> None:
    for size, edges in (((480, 640), (800, 1066)), ((300, 900), (444, 1333))):
        same = InputRule(resize="shortest_edge", shortest_edge=edges[0], longest_edge=edges[1])
        for view in (1, 2, 3):
            assert make_view(FIT, size, image_id=7, view_index=view) == make_view(
                same, size, image_id=7, view_index=view
            )


def test_crops_for_stretched_inputs_keep_most_of_the_image() -> None:
    for image in range(200):
        x0, y0, x1, y1 = make_view(STRETCH, (480, 640), image_id=image, view_index=1).crop
        assert 0.25 <= (x1 - x0) * (y1 - y0) / (480 * 640) <= 1


def one_pixel_image(height: int, width: int, y: int, x: int) -> tuple[Image.Image, CocoImage]:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[y, x] = 255
    rle = coco_mask.encode(np.asfortranarray(mask // 255))
    annotation = CocoAnnotation(1, 7, (x, y, 1, 1), 1.0, False, rle)
    return Image.fromarray(mask).convert("RGB"), CocoImage(1, "a.png", height, width, [annotation])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.data())
def test_pixels_and_masks_go_through_the_same_crop_and_flip(height: int, width: int, data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    image, entry = one_pixel_image(height, width, y, x)
    view = make_view(STRETCH, (height, width), image_id=data.draw(st.integers(0, 50)), view_index=1)
    view = view.model_copy(update={"resized_size": view.crop_size})
    pixels = apply_view(image, view, STRETCH)[0].numpy() // 255
    truth = view_truth(entry, view, {7: 0})
    if not len(truth.masks):
        assert pixels.sum() == 0
        return
    assert (coco_mask.decode(truth.masks[0]) == pixels).all()
    found = np.argwhere(pixels)[0]
    assert truth.boxes[0].tolist() == [found[1], found[0], found[1] + 1, found[0] + 1]
    assert truth.areas.tolist() == [1.0]


def square(crowd: Literal[True, False] = False) -> CocoImage:
    rle = segmentation_to_rle([[2, 2, 6, 2, 6, 6, 2, 6]], height=10, width=20)
    return CocoImage(1, "a.png", 10, 20, [CocoAnnotation(5, 7, (1.5, 2, 5, 4), 20.0, crowd, rle)])


def test_a_plain_view_keeps_the_annotations_own_box_and_area() -> None:
    view = ViewTransform(original_size=(10, 20), crop=(0, 0, 20, 10), resized_size=(64, 64))
    truth = view_truth(square(), view, {7: 3})
    assert truth.boxes.tolist() == [[1.5, 2, 6.5, 6]]
    assert (truth.areas.tolist(), truth.categories.tolist()) == ([20.0], [3])
    assert (truth.match.tolist(), truth.annotation_ids.tolist()) == ([-1], [5])


@pytest.mark.parametrize("crowd", [True, False])
def test_objects_of_which_nothing_is_left_are_dropped(crowd: bool) -> None:
    view = ViewTransform(original_size=(10, 20), crop=(10, 0, 20, 10), resized_size=(64, 64))
    assert len(view_truth(square(crowd=crowd), view, {7: 0}).boxes) == 0


def test_a_cropped_object_has_its_cropped_box_and_area() -> None:
    view = ViewTransform(original_size=(10, 20), crop=(4, 0, 20, 10), flip=True, resized_size=(64, 64))
    truth = view_truth(square(), view, {7: 0})
    assert truth.boxes.tolist() == [[14, 2, 16, 6]]
    assert truth.areas.tolist() == [8.0]
