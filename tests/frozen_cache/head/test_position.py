"""Sine embeddings and grids, written out in numpy."""

import math

import numpy as np
import pytest
import torch

from frozen_cache.head.position import box_sine, grid_centres, grid_sine, sine


def numpy_sine(value: float, dim: int, temperature: float = 10_000.0) -> list[float]:
    """DETR's embedding of one number: channel i is the sine (i even) or cosine of 2 pi value / T^(2 (i // 2) / dim)."""
    wave = (math.sin, math.cos)
    return [wave[i % 2](2 * math.pi * value / temperature ** (2 * (i // 2) / dim)) for i in range(dim)]


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(np.array(expected)))


@pytest.mark.parametrize("temperature", [10_000.0, 20.0])
def test_numbers_become_sines_and_cosines_in_turn(noise, temperature):
    values = noise(2, 3).sigmoid()
    found = sine(values, 6, temperature=temperature)
    close(found, [[numpy_sine(value, 6, temperature) for value in row] for row in values.tolist()])


def test_a_box_is_embedded_number_by_number(noise):
    boxes = noise(3, 4).sigmoid()
    close(box_sine(boxes, 24), [[number for value in box for number in numpy_sine(value, 6)] for box in boxes.tolist()])


def test_cells_have_their_centres_at_half_integers_row_by_row():
    like = torch.zeros((), dtype=torch.float64)
    expected = [[0.25, 1 / 6], [0.75, 1 / 6], [0.25, 0.5], [0.75, 0.5], [0.25, 5 / 6], [0.75, 5 / 6]]
    close(grid_centres(3, 2, like), expected)


@pytest.mark.parametrize(("dim", "of_y"), [(8, 4), (10, 4), (14, 6)])
def test_a_grid_is_embedded_by_rows_first_then_columns(dim, of_y):
    like = torch.zeros((), dtype=torch.float64)
    centres = grid_centres(2, 3, like).tolist()
    close(grid_sine(2, 3, dim, like), [numpy_sine(y, of_y) + numpy_sine(x, dim - of_y) for x, y in centres])
