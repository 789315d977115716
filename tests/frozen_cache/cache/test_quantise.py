"""The arithmetic of small integers; numpy is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numcodecs import Zstd

from frozen_cache.cache.attributes import best_packing
from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.quantise import coded, coded_bits, dequantised, quantised


def maps() -> torch.Tensor:
    """(7, 30, 40): a normal channel, one to one side, one of a large mean, two of extreme size, constants."""
    x = torch.randn(7, 30, 40, generator=torch.Generator().manual_seed(0))
    x[1] = x[1].abs() ** 2
    x[2] += 10
    x[3] *= 1e30
    x[4] *= 1e-20
    x[5], x[6] = 5, 0
    return x


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0])
def test_a_step_is_so_many_standard_deviations_and_0_stays_a_multiple_of_it(step: float) -> None:
    x = maps()
    integers, scales, shifts = coded(x, step=step)
    exact = x.double().numpy()
    for channel in range(5):
        deviation = exact[channel].std()
        assert scales[channel] == pytest.approx(step * deviation, rel=1e-4)
        multiples = np.rint(exact[channel] / scales[channel].double().numpy())
        base = multiples - integers[channel].numpy()
        assert (base == base[0, 0]).mean() > 0.999, "rounded to multiples of the scale, counted from one of them"
        assert abs(base[0, 0] * step - exact[channel].mean() / deviation) <= 0.51 * step, "the one next to the mean"
    found = dequantised(integers, scales, shifts).double().numpy()
    for channel in range(5):
        off = (found - exact)[channel] / float(scales[channel])
        assert abs(off.mean()) < 1e-4, "the mean error is added back"
        assert np.abs(off).max() < 1.01
    assert (found[5:] == exact[5:]).all(), "constants are exact"


def test_the_mean_error_counts_where_values_lie_to_one_side() -> None:
    x = torch.nn.functional.silu(2 * maps()[:1] - 2)
    integers, scales, shifts = coded(x, step=1.5)

    def error(values: torch.Tensor) -> float:
        return float((values - x).square().mean())

    assert error(dequantised(integers, scales, shifts)) < 0.8 * error((x / scales).round() * scales)


def test_nothing_is_clipped() -> None:
    x = torch.randn(2, 200, 200, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0], x[1] = 1000.0, x[1] + 1e4
    integers, scales, shifts = coded(x, step=0.2)
    off = (dequantised(integers, scales, shifts) - x).abs().amax((1, 2))
    assert (off <= scales).all()
    assert integers[0, 0, 0] >= 125 and integers[1].abs().max() < 30
    assert scales[0] == pytest.approx(1000 / 126, rel=0.01)


def plainly_coded(x: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers before they are rounded, scales and shifts, of (C, H, W) float64 at once."""
    mean, deviation = x.mean((1, 2)), x.std((1, 2))
    scales = np.maximum(step * deviation, np.abs(x - mean[:, None, None]).max((1, 2)) / 126)
    exact = x / scales[:, None, None] - np.rint(mean / scales)[:, None, None]
    return exact, scales, (x - np.rint(exact) * scales[:, None, None]).mean((1, 2))


@pytest.mark.parametrize("kind", ["float32", "float16", "turned"])
@pytest.mark.parametrize("shape", [(11, 50, 41), (3, 200, 280), (1, 180, 200), (2, 300, 350)])
def test_a_map_coded_by_blocks_and_by_any_number_of_threads_is_the_map_coded_at_once(
    shape: tuple[int, int, int], kind: str
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.arange(1, shape[0] + 1)[:, None, None]
    x = x.half() if kind == "float16" else x.transpose(1, 2) if kind == "turned" else x
    exact, scales, shifts = plainly_coded(x.double().numpy(), 1.0)
    found = coded(x, step=1.0)
    tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-4
    assert (found[0].numpy() == np.rint(exact))[~tie].all() and tie.mean() < 0.01
    np.testing.assert_allclose(found[1], scales, rtol=1e-5)
    np.testing.assert_allclose(found[2], shifts, atol=1e-4 * scales.max())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        if shape[0] > 1:
            assert all(map(torch.equal, coded(x, step=1.0), found)), "the same bytes"
        one_by_one = zip(*map(quantised, x[:, None]), strict=True)
        assert all(map(torch.equal, quantised(x), map(torch.cat, one_by_one)))
    finally:
        torch.set_num_threads(threads)


def test_constant_channels_are_zeros_and_values_that_are_not_finite_show() -> None:
    integers, scales, shifts = coded(torch.tensor([0.0, 1.0, -3.0, 1e6])[:, None, None].expand(4, 3, 5), step=1.0)
    assert not integers.any() and not scales.any() and shifts.tolist() == [0, 1, -3, 1e6]
    for value in (float("nan"), float("inf"), -float("inf")):
        x = maps()
        x[2, 3, 4] = value
        _, scales, shifts = coded(x, step=1.0)
        assert (scales.isfinite() & shifts.isfinite()).tolist() == [channel != 2 for channel in range(7)]
        assert quantised(x)[1].isfinite().tolist() == [channel != 2 for channel in range(7)]


@pytest.mark.parametrize("step", [0.2, 0.4, 0.5, 0.7, 1.0, 1.5, 2.2, 3.0])
def test_the_bits_foretold_are_those_that_zstd_takes_for_normal_channels(step: float) -> None:
    x = torch.randn(64, 90, 90, generator=torch.Generator().manual_seed(0))
    integers = coded(x, step=step)[0].numpy().reshape(-1)
    packing = best_packing(step)
    stored = packed(integers) if packing == "nibbles" else integers
    bits = 8 * len(Zstd(level=1).encode(stored)) / len(integers)
    foretold = coded_bits(step, packed=packing == "nibbles")
    assert bits < foretold < 1.2 * bits
    assert coded_bits(0.01, packed=False) == 8
