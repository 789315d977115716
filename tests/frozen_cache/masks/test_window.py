"""Spans of pixels and the matrices that resample along one axis, number by number."""

import numpy as np
import pytest

from frozen_cache.masks.window import crop_weights, paste_weights, pixel_span


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [(3.2, 7.9, (2, 9)), (3.0, 7.0, (2, 8)), (-5.0, 2.5, (0, 4)), (8.5, 99.0, (7, 10)), (12.0, 15.0, (10, 10)),
     (-9.0, -5.0, (0, 0))],
)  # fmt: skip
def test_a_span_has_a_pixel_to_spare_and_stays_in_the_image(low, high, span):
    assert pixel_span(low, high, 10) == span


def test_pixels_take_from_the_two_nearest_cells_by_distance_and_fade_beyond_the_mask():
    # Cells of two pixels from 3 to 9: their centres are 4, 6 and 8.
    expected = {
        1: [0, 0, 0],
        2: [0.25, 0, 0],
        3: [0.75, 0, 0],
        4: [0.75, 0.25, 0],
        5: [0.25, 0.75, 0],
        8: [0, 0, 0.75],
        9: [0, 0, 0.25],
    }
    found = paste_weights(1, 11, 3.0, 9.0, 3)
    assert found.shape == (10, 3)
    for pixel, weights in expected.items():
        assert found[pixel - 1].tolist() == pytest.approx(weights, abs=1e-6)


def test_a_box_without_extent_takes_nothing():
    assert not paste_weights(2, 6, 4.0, 4.0, 3).any()


def test_bins_are_means_of_one_sample_a_pixel():
    # Two bins of 2.5 pixels from 1 to 6, three samples each, read between the centres of pixels.
    weights, first = crop_weights(1.0, 6.0, 2, 8)
    expected = np.zeros((2, 8))
    for cell in range(2):
        for sample in range(3):
            at = 1 + 2.5 * (cell + (sample + 0.5) / 3) - 0.5
            expected[cell, int(at)] += (1 - at % 1) / 3
            expected[cell, int(at) + 1] += at % 1 / 3
    whole = np.zeros((2, 8))
    whole[:, first : first + weights.shape[1]] = weights
    np.testing.assert_allclose(whole, expected, atol=1e-6)


def test_samples_within_a_pixel_of_the_image_repeat_its_border_and_those_beyond_are_zero():
    # One bin a pixel from -2 to 2 of an axis of 4: samples at -2, -1, 0 and 1 from the first centre.
    weights, first = crop_weights(-2.0, 2.0, 4, 4)
    assert first == 0
    assert weights.sum(1).tolist() == pytest.approx([0, 1, 1, 1])
    assert weights[1, 0] == weights[2, 0] == weights[3, 1] == 1
