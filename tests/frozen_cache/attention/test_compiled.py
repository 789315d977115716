"""The optional compiled kernel: the same numbers, only where it applies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frozen_cache.attention import compiled
from frozen_cache.attention.compiled import SWITCH, compiled_sampling, find_kernel
from frozen_cache.attention.ms_deform_attn import deformable_sampling

SHAPES = [(7, 9), (4, 5)]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (some outside the maps), weights."""
    torch.manual_seed(0)
    value = torch.randn(2, 7 * 9 + 4 * 5, 4, 8)
    return value, torch.rand(2, 11, 4, 2, 3, 2) * 1.4 - 0.2, torch.rand(2, 11, 4, 2, 3)


def test_the_kernel_gives_what_grid_sample_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_kernel() is None:
        pytest.skip("torch-ms-deform-attn (extra fast-cpu) is not installed")
    value, locations, weights = inputs()
    monkeypatch.delenv(SWITCH, raising=False)
    fast = compiled_sampling(value, SHAPES, locations, weights)
    monkeypatch.setenv(SWITCH, "0")
    plain = deformable_sampling(value, SHAPES, locations, weights)
    assert fast is not None and torch.allclose(fast, plain, atol=1e-5)


def test_is_used_in_inference_on_the_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def kernel(value: Tensor, sizes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        calls.append((sizes.tolist(), starts.tolist()))
        return value.new_zeros(2, 11, 32)

    monkeypatch.setattr(compiled, "find_kernel", lambda: kernel)
    monkeypatch.delenv(SWITCH, raising=False)
    value, locations, weights = inputs()
    assert deformable_sampling(value, SHAPES, locations, weights).abs().max() == 0
    assert calls == [([[7, 9], [4, 5]], [0, 63])]
    assert compiled_sampling(value.requires_grad_(), SHAPES, locations, weights) is None
    with torch.no_grad():
        assert compiled_sampling(value, SHAPES, locations, weights) is not None
        assert compiled_sampling(value.half(), SHAPES, locations, weights) is None
        assert compiled_sampling(value.to("meta"), SHAPES, locations, weights) is None
        monkeypatch.setenv(SWITCH, "0")
        assert compiled_sampling(value, SHAPES, locations, weights) is None


def test_sampling_works_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_kernel", lambda: None)
    assert deformable_sampling(inputs()[0], SHAPES, *inputs()[1:]).shape == (2, 11, 32)
