"""`frozen-cache doctor` says what is used and finds what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
import torch

import frozen_cache.stages.doctor as stage
from frozen_cache.attention import backends
from frozen_cache.attention.backends import SWITCH
from frozen_cache.cli.main import exit_code
from frozen_cache.head.mask_head import MaskHead


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No kernels, whatever this machine has."""
    monkeypatch.delenv(SWITCH, raising=False)
    for name in ("find_compiled", "find_triton"):
        monkeypatch.setattr(backends, name, lambda: None)
    yield


def test_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["doctor", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert f"torch {version('torch')}" in out and "device: cpu" in out and "mixed_precision=auto" in out
    assert "deformable attention: embedding_bag (the fastest on CPUs)" in out
    assert "a step of the head: finite" in out and out.endswith("all that is used here works\n")


@pytest.mark.parametrize(
    ("against", "said"), [(None, "kept"), ("MALLOC_TOP_PAD_ is set", "given back (MALLOC_TOP_PAD_ is set)")]
)
def test_whether_freed_memory_is_kept(against: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "reason_against", lambda: against)
    assert f"freed memory: {said}" in stage.doctor(device="cpu").lines


def test_a_kernel_that_computes_something_else_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def zeros(value: torch.Tensor, sizes: Any, starts: Any, *rest: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(2, 11, 32) + 0 * (value.sum() + sum(each.sum() for each in rest))

    monkeypatch.setattr(backends, "find_compiled", lambda: zeros)
    monkeypatch.setenv(SWITCH, "torch-ms-deform-attn")
    assert exit_code(["doctor", "--device", "cpu"]) == 1
    assert f"FAULT deformable attention: 1.0e+00 from float64, more than 0.001: set {SWITCH}" in capsys.readouterr().out


def test_wrong_gradients_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(*arguments: Any) -> torch.Tensor:
        out = original(*arguments)
        return out * 1.01 - 0.01 * out.detach() if out.dtype == torch.float32 else out

    original = stage.deformable_sampling
    monkeypatch.setattr(stage, "deformable_sampling", off)
    assert "deformable attention: " in stage.doctor(device="cpu").faults[0]


def test_what_is_asked_for_and_not_there_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "torch-ms-deform-attn")
    assert exit_code(["doctor", "--device", "cpu"]) == 1
    assert "FAULT FROZEN_CACHE_ATTENTION=torch-ms-deform-attn: " in capsys.readouterr().out


def test_a_head_that_is_not_finite_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MaskHead.forward

    def infinite(*arguments: Any) -> Any:
        output = forward(*arguments)
        return replace(output, mask_logits=output.mask_logits * torch.inf)

    monkeypatch.setattr(MaskHead, "forward", infinite)
    assert stage.doctor(device="cpu").faults[0].startswith("a step of the head: not finite in ")


def test_extras_that_are_missing_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ['no-such-package>=3; extra == "video"', 'old>=1; extra == "gpu" and python_version < "3"', "torch>=2"]
    monkeypatch.setattr(stage, "requires", lambda name: wanted)
    lines = [line for line in stage.doctor(device="cpu").lines if line.startswith("extra")]
    assert lines[0].startswith("extra gpu not installed: old (not for Python 3.")
    assert lines[1:] == ["extra video not installed: no-such-package"]
