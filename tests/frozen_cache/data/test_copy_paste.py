"""Copy-paste: what lies where, in the pixels and in the masks alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.copy_paste import Paste, draw_paste, is_pasted, paste_sources, pasted_objects, pasted_picture

BELOW, ABOVE = (24, 40), (20, 30)
"""(height, width) of the image, and of the one whose objects are pasted."""


def annotation(mask: np.ndarray, *, id: int, category: int = 1, crowd: bool = False) -> CocoAnnotation:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    box = tuple(coco_mask.toBbox(rle).tolist())
    return CocoAnnotation(id=id, category_id=category, bbox=box, area=float(mask.sum()), crowd=crowd, rle=rle)


def block(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[rows, columns] = True
    return mask


def image(id: int, size: tuple[int, int], *annotations: CocoAnnotation) -> CocoImage:
    return CocoImage(id=id, file_name=str(id), height=size[0], width=size[1], annotations=list(annotations))


L_SHAPE = block(ABOVE, slice(4, 12), slice(5, 9)) | block(ABOVE, slice(8, 12), slice(5, 13))
SOURCE = image(
    2, ABOVE, annotation(L_SHAPE, id=20, category=7), annotation(block(ABOVE, slice(0, 3), slice(27, 30)), id=21)
)
IMAGE = image(
    1,
    BELOW,
    annotation(block(BELOW, slice(2, 12), slice(0, 10)), id=10),
    annotation(block(BELOW, slice(9, 11), slice(5, 7)), id=11),
    annotation(block(BELOW, slice(0, 24), slice(2, 40)), id=12, crowd=True),
    annotation(block(BELOW, slice(20, 24), slice(2, 8)), id=13),
)


def picture(size: tuple[int, int], start: int) -> Image.Image:
    values = np.arange(3 * size[0] * size[1]).reshape(*size, 3) % 120 + start
    return Image.fromarray(values.astype(np.uint8))


def decoded(found: CocoImage) -> dict[int, np.ndarray]:
    return {each.id: coco_mask.decode(each.rle).astype(bool) for each in found.annotations}


def shifted(whole: np.ndarray, x: int, y: int, *, flip: bool) -> np.ndarray:
    """Of the size of the image below, what a hand would lay there, zeros around it."""
    laid = np.zeros((BELOW[0], BELOW[1], *whole.shape[2:]), dtype=whole.dtype)
    whole = whole[:, ::-1] if flip else whole
    for row in range(whole.shape[0]):
        for column in range(whole.shape[1]):
            if 0 <= row + y < BELOW[0] and 0 <= column + x < BELOW[1]:
                laid[row + y, column + x] = whole[row, column]
    return laid


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "corner", [(3, 2), (-6, -9), (21, 13)], ids=["inside", "over the upper left", "over the lower right"]
)
def test_a_paste_at_its_own_size_is_what_a_hand_would_lay_there(corner: tuple[int, int], flip: bool) -> None:
    paste = Paste(source=SOURCE, annotations=tuple(SOURCE.annotations), size=ABOVE, corner=corner, flip=flip)
    below, above = picture(BELOW, 0), picture(ABOVE, 130)
    laid = {number: shifted(mask, *corner, flip=flip) for number, mask in decoded(SOURCE).items()}
    over = laid[20] | laid[21]
    expected = np.where(over[..., None], shifted(np.asarray(above), *corner, flip=flip), np.asarray(below))
    np.testing.assert_array_equal(np.asarray(pasted_picture(below, paste, above)), expected)
    np.testing.assert_array_equal(np.asarray(below), np.asarray(picture(BELOW, 0)))  # it is as it was

    masks = {key: mask & ~over for key, mask in decoded(IMAGE).items()} | laid
    kept = {key: mask for key, mask in masks.items() if mask.any()}
    changed = pasted_objects(IMAGE, paste)
    found = decoded(changed.image)
    assert found.keys() == kept.keys() and changed.added == len(found.keys() & {20, 21})
    for key, mask in kept.items():
        np.testing.assert_array_equal(found[key], mask)


def test_a_paste_of_twice_the_size_has_masks_of_twice_the_size() -> None:
    paste = Paste(source=SOURCE, annotations=(SOURCE.annotations[1],), size=(40, 60), corner=(-30, 5), flip=False)
    added = decoded(pasted_objects(IMAGE, paste).image)[21]
    np.testing.assert_array_equal(added, block(BELOW, slice(5, 11), slice(24, 30)))
    red = Image.new("RGB", ABOVE[::-1], (200, 0, 0))
    made = np.asarray(pasted_picture(Image.new("RGB", BELOW[::-1]), paste, red))
    np.testing.assert_array_equal(made[..., 0] == 200, added)


def covering(share: float, *, crowd: bool) -> tuple[CocoImage, int]:
    """An object of 20 x 20 pixels of which that share is covered; what is left of the image, and objects dropped."""
    lower = image(1, ABOVE, annotation(block(ABOVE, slice(0, 20), slice(0, 20)), id=10, crowd=crowd))
    columns = slice(0, round(20 * share))
    upper = image(2, ABOVE, annotation(block(ABOVE, slice(0, 20), columns), id=20))
    paste = Paste(source=upper, annotations=tuple(upper.annotations), size=ABOVE, corner=(0, 0), flip=False)
    found = pasted_objects(lower, paste)
    return found.image, found.covered


def test_objects_of_which_less_than_a_tenth_is_left_are_dropped_and_counted_crowds_when_nothing_is() -> None:
    for crowd, least in ((False, 0.1), (True, 0.05)):
        for share in (0.0, 0.5, 0.9, 0.95, 1.0):
            found, covered = covering(share, crowd=crowd)
            stays = 1 - share >= least - 1e-9
            assert (10 in decoded(found), covered) == (stays, int(not stays)), (crowd, share)


def test_boxes_and_areas_of_what_changed_are_those_of_the_masks() -> None:
    strange = replace(IMAGE.annotations[3], area=1.0)  # the file's own, of an object that nothing touches
    paste = Paste(source=SOURCE, annotations=(SOURCE.annotations[0],), size=ABOVE, corner=(-5, -4), flip=False)
    found = {
        each.id: each
        for each in pasted_objects(replace(IMAGE, annotations=[IMAGE.annotations[0], strange]), paste).image.annotations
    }
    assert found[13] is strange
    assert found[10].area == 100 - 48 + 8 and found[10].bbox == (0, 2, 10, 10)  # 4 x 2 lie above it
    assert found[20].category_id == 7 and found[20].bbox == (0, 0, 8, 8) and found[20].area == 48


def test_a_recipe_is_drawn_once_from_another_image() -> None:
    size = (200, 300)
    objects = [block(size, slice(10 * k, 10 * k + 8), slice(20, 280)) for k in range(6)]
    crowd = annotation(objects[0], id=1, crowd=True)
    images = [
        image(number, size, *(annotation(each, id=10 * number + k) for k, each in enumerate(objects)), crowd)
        for number in range(1, 12)
    ]
    sources = paste_sources([image(50, size, crowd), *images[::-1], image(60, size)])
    assert [source.id for source in sources] == list(range(1, 12))
    target = image(1, (100, 100))
    recipes = [draw_paste(target, sources, view_index=view) for view in range(400)]
    assert recipes == [draw_paste(target, sources, view_index=view) for view in range(400)]
    assert [recipe is not None for recipe in recipes] == [is_pasted(1, view) for view in range(400)]
    assert not any(is_pasted(number, 0) for number in range(20))
    assert 160 < sum(recipe is not None for recipe in recipes) < 240
    pastes = [recipe for recipe in recipes if recipe is not None]
    assert {paste.source.id for paste in pastes} == set(range(2, 12))
    assert {paste.flip for paste in pastes} == {False, True}
    assert {len(paste.annotations) for paste in pastes} == set(range(1, 7))
    assert {each.id % 10 for paste in pastes for each in paste.annotations if len(paste.annotations) == 1} == set(
        range(6)
    )
    for paste in pastes:
        ids = [each.id for each in paste.annotations]
        assert ids == sorted(set(ids)) and not any(each.crowd for each in paste.annotations)
        (height, width), (x, y) = paste.size, paste.corner
        assert 0.64 * 100 - 1 <= width <= 1.5625 * 100 + 1 and abs(width / height - 1.5) < 0.03
        for side, corner in ((width, x), (height, y)):
            assert min(0, 100 - side) <= corner <= max(0, 100 - side)
    wide = [paste.size[1] for paste in pastes]
    assert min(wide) < 70 and max(wide) > 150
    assert recipes != [draw_paste(target, sources, view_index=view, seed=1) for view in range(400)]


def test_nothing_is_pasted_where_no_other_image_has_an_object() -> None:
    own = image(1, BELOW, *IMAGE.annotations)
    pasted = next(view for view in range(20) if is_pasted(1, view))
    assert draw_paste(own, [], view_index=pasted) is None
    assert draw_paste(own, [own], view_index=pasted) is None
    assert draw_paste(own, [own, SOURCE], view_index=pasted).source is SOURCE
