"""The optional kernels: the same numbers, only where they apply, and the reason for each choice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frozen_cache.attention import backends, kernels
from frozen_cache.attention.backends import SWITCH, choose
from frozen_cache.attention.kernels import find_compiled
from frozen_cache.attention.ms_deform_attn import deformable_sampling
from frozen_cache.errors import UserError

SHAPES = [(7, 9), (4, 5)]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (some outside the maps), weights."""
    torch.manual_seed(0)
    value = torch.randn(2, 7 * 9 + 4 * 5, 4, 8)
    return value, torch.rand(2, 11, 4, 2, 3, 2) * 1.4 - 0.2, torch.rand(2, 11, 4, 2, 3)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Both kernels as if they were installed; what they were called with."""
    calls: list[Any] = []

    def kernel(value: Tensor, sizes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        calls.append((value.dtype, sizes.tolist(), starts.tolist()))
        return value.new_zeros(2, 11, 32)

    for name in ("find_compiled", "find_triton"):
        monkeypatch.setattr(backends, name, lambda: kernel)
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(backends, "compiler_found", lambda: True)
    return calls


def test_the_kernel_gives_what_grid_sample_gives_gradients_included(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_compiled() is None:
        pytest.skip("torch-ms-deform-attn (extra fast-cpu) is not installed")
    found = []
    for name in ("torch-ms-deform-attn", "grid_sample"):
        monkeypatch.setenv(SWITCH, name)
        given = [each.requires_grad_() for each in inputs()]
        out = deformable_sampling(given[0], SHAPES, given[1], given[2])
        out.square().sum().backward()
        found.append([out.detach(), *(each.grad for each in given)])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_on_the_cpu_the_kernel_serves_where_it_is_asked_for(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    value, locations, weights = inputs()
    value.requires_grad_()
    assert deformable_sampling(value, SHAPES, locations, weights).abs().max() > 0
    assert called == [], "what a CPU computes does not depend on what is installed"
    monkeypatch.setenv(SWITCH, "torch-ms-deform-attn")
    assert deformable_sampling(value, SHAPES, locations, weights).abs().max() == 0
    assert called == [(torch.float32, [[7, 9], [4, 5]], [0, 63])]
    with torch.no_grad():
        assert deformable_sampling(value.half(), SHAPES, locations, weights).abs().max() == 0
        assert deformable_sampling(value.double(), SHAPES, locations.double(), weights.double()).abs().max() > 0
    assert [dtype for dtype, *_ in called] == [torch.float32] * 2, "half precision is widened"
    monkeypatch.setenv(SWITCH, "grid_sample")
    assert deformable_sampling(value, SHAPES, locations, weights).abs().max() > 0


@pytest.mark.parametrize(
    ("device", "asked", "name", "why"),
    [
        ("cpu", "auto", "embedding_bag", "fastest"),
        ("cpu", "embedding_bag", "embedding_bag", "asks for it"),
        ("cpu", "torch-ms-deform-attn", "torch-ms-deform-attn", "asks for it"),
        ("cpu", "deformops", "grid_sample", "no kernel for cpu"),
        ("cuda", "auto", "deformops", "installed"),
        ("cuda", "grid_sample", "grid_sample", "asks for it"),
        ("cuda", "embedding_bag", "grid_sample", "no kernel for cuda"),
        ("cuda", "torch-ms-deform-attn", "grid_sample", "no kernel for cuda"),
        ("meta", "auto", "grid_sample", "no kernel for meta"),
    ],
)
def test_each_choice_has_its_reason(
    called: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: str,
    name: str,
    why: str,
) -> None:
    monkeypatch.setenv(SWITCH, asked)
    found = choose(device=device, dtype=torch.float16)
    assert found.name == name and why in found.why
    assert (found.kernel is None) == (name in ("grid_sample", "embedding_bag"))


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("find_compiled", "find_triton"):
        monkeypatch.setattr(backends, name, lambda: None)
    monkeypatch.delenv(SWITCH, raising=False)
    assert deformable_sampling(inputs()[0], SHAPES, *inputs()[1:]).shape == (2, 11, 32)
    assert "frozen-cache[gpu]" in choose(device="cuda", dtype=torch.float32).why
    monkeypatch.setenv(SWITCH, "deformops")
    with pytest.raises(UserError, match=r"FROZEN_CACHE_ATTENTION=deformops: .* pip install 'frozen-cache\[gpu\]'"):
        choose(device="cuda", dtype=torch.float32)
    monkeypatch.setenv(SWITCH, "fast")
    with pytest.raises(
        UserError, match="no such backend; use auto, grid_sample, embedding_bag, torch-ms-deform-attn, deformops"
    ):
        choose(device="cpu", dtype=torch.float32)


def test_without_a_compiler_triton_is_left_alone(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Images such as python:slim have none, and Triton would end the training at its first kernel."""
    monkeypatch.setattr(backends, "compiler_found", lambda: False)
    found = choose(device="cuda", dtype=torch.float32)
    assert found.name == "grid_sample" and "install gcc" in found.why
    monkeypatch.setenv(SWITCH, "deformops")
    with pytest.raises(UserError, match=r"FROZEN_CACHE_ATTENTION=deformops: .* C compiler"):
        choose(device="cuda", dtype=torch.float32)
    monkeypatch.setenv(SWITCH, "torch-ms-deform-attn")
    assert choose(device="cpu", dtype=torch.float32).name == "torch-ms-deform-attn", "compiled when it was installed"


@pytest.mark.parametrize(
    ("platform", "cc", "there", "found"),
    [
        ("linux", None, None, False),
        ("linux", None, "gcc", True),
        ("linux", None, "clang", True),
        ("linux", "zig cc", None, True),
        ("win32", None, None, True),
    ],
)
def test_what_triton_takes_for_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, cc: str | None, there: str | None, found: bool
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if cc:
        monkeypatch.setenv("CC", cc)
    if there:
        (tmp_path / there).touch(mode=0o755)
    assert kernels.compiler_found.__wrapped__() is found


def test_a_package_that_does_not_load_is_none() -> None:
    assert kernels._find("frozen_cache.no_such_package", "kernel") is None
    assert kernels._find("frozen_cache.errors", "no_such_kernel") is None


def test_sizes_made_in_inference_serve_a_training() -> None:
    with torch.inference_mode():
        sizes, starts = kernels._levels(((7, 9), (4, 5)), torch.device("cpu"))
    assert not sizes.is_inference() and not starts.is_inference()
