"""The views of test-time augmentation: fixed, within the image, and together all of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frozen_cache.data.tta import TILE, TTA_VIEWS, tta_view
from frozen_cache.data.views import make_view
from frozen_cache.detectors.input_rule import InputRule

RULES = [
    InputRule(resize="stretch", size=(64, 64)),
    InputRule(resize="shortest_edge", shortest_edge=800, longest_edge=1333),
    InputRule(resize="fit", max_size=(800, 1333)),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_first_view_is_the_plain_one_and_the_second_the_same_mirrored(rule: InputRule) -> None:
    plain = tta_view(rule, (480, 640), view_index=0)
    assert plain == make_view(rule, (480, 640), image_id=0, view_index=0)
    assert tta_view(rule, (480, 640), view_index=1) == plain.model_copy(update={"flip": True})


@pytest.mark.parametrize("rule", RULES)
def test_tiles_are_the_corners_and_the_centre_resized_as_images_of_their_size(rule: InputRule) -> None:
    tiles = [tta_view(rule, (500, 1000), view_index=view) for view in range(2, TTA_VIEWS)]
    assert [tile.crop for tile in tiles] == [
        (0, 0, 600, 300),
        (400, 0, 1000, 300),
        (0, 200, 600, 500),
        (400, 200, 1000, 500),
        (200, 100, 800, 400),
    ]
    assert {tile.resized_size for tile in tiles} == {rule.resized_size(height=300, width=600)}
    assert [tile.flip for tile in tiles] == [True, False, False, True, False]


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 5000)), st.sampled_from(RULES))
def test_they_lie_in_the_image_and_leave_out_none_of_it(size: tuple[int, int], rule: InputRule) -> None:
    rows, columns = np.zeros(size[0], dtype=bool), np.zeros(size[1], dtype=bool)
    for view_index in range(TTA_VIEWS):
        view = tta_view(rule, size, view_index=view_index)
        x0, y0, x1, y1 = view.crop
        assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]
        assert min(view.resized_size) >= 1 and view.original_size == size
        if view_index > 1:
            assert x1 - x0 == max(1, round(TILE * size[1])) and y1 - y0 == max(1, round(TILE * size[0]))
            rows[y0:y1], columns[x0:x1] = True, True
    assert rows.all() and columns.all()
