"""Half precision: what stays float32, how near training stays to float32, and a resume that keeps the scaler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from random_steps import HEADS, a_step, learnable_batch, random_batch
from torch.utils._python_dispatch import TorchDispatchMode

import frozen_cache.stages.train as stage
from frozen_cache.errors import UserError
from frozen_cache.precision import chosen_precision
from frozen_cache.stages.train import train_head
from frozen_cache.training.checkpoint import load_checkpoint, load_metadata

WIDE = {
    "native_layer_norm",
    "native_group_norm",
    "_softmax",
    "grid_sampler_2d",
    "_embedding_bag_forward_only",
    "sampled_addmm",
    "roi_align",
    "binary_cross_entropy_with_logits",
    "mse_loss",
    "_fused_adamw_",
}
"""Operators that must not see half precision: norms, sampling, losses, the optimizer."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
DISTANCE = {"bf16": 0.05, "fp16": 0.03}
"""Of the losses of the last 50 of 200 steps from those in float32, relative, on average."""


class Types(TorchDispatchMode):
    """Collects the operators that saw half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.half: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = [part for each in args for part in (each if isinstance(each, list | tuple) else [each])]
        if any(isinstance(part, torch.Tensor) and part.dtype in DTYPES.values() for part in flat):
            self.half.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_norms_softmax_samples_masks_and_losses_are_float32_under_autocast(head: str, precision: str) -> None:
    step, config = a_step(HEADS[head], half=DTYPES[precision])
    batch = random_batch([(64, 96)] * 2, [2, 3], side=config.head.mask_side, dtype=torch.float32)
    made: list[torch.Tensor] = []
    step.head.predictor.register_forward_hook(lambda module, given, output: made.append(output))
    with Types() as types:
        step(batch, rate=1e-3)
    assert types.half & WIDE == set()
    assert types.half & {"addmm", "mm", "convolution"}, "the matrix products are half"
    assert [logits.dtype for logits in made] == [torch.float32]


def curve(half: torch.dtype | None) -> torch.Tensor:
    """Losses of 200 steps that learn two batches."""
    step, config = a_step({"head.image_layers": 1, "head.box_layers": 1}, half=half)
    batches = [learnable_batch([(32, 48)] * 2, [2, 2], side=config.head.mask_side, seed=seed) for seed in range(2)]
    losses = []
    for at in range(200):
        torch.manual_seed(at)
        losses.append(step(batches[at % 2], rate=2e-3).values["loss"])
    return torch.stack(losses)


@pytest.fixture(scope="module")
def wide_curve() -> torch.Tensor:
    """In float32."""
    return curve(None)


@pytest.mark.parametrize("precision", DTYPES)
def test_training_under_autocast_stays_near_float32(wide_curve: torch.Tensor, precision: str) -> None:
    half = curve(DTYPES[precision])
    assert wide_curve[-50:].mean() < 0.7 * wide_curve[:10].mean(), "it learns"
    distance = (half - wide_curve)[-50:].abs().mean() / wide_curve[-50:].mean()
    assert 0 < distance < DISTANCE[precision]


@contextmanager
def scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.amp.GradScaler]]:
    """Trainings in float16 with its gradient scaler, on the CPU; the scalers that they took."""
    accelerator, made = stage._accelerator, []

    def scaling(config: Any, device: str) -> Any:
        found = accelerator(config, device)
        found.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        found.autocast = lambda: torch.autocast("cpu", dtype=torch.float16)
        made.append(found.scaler)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(stage, "_accelerator", scaling)
        yield made


def test_a_resumed_run_has_the_scaler_of_one_that_never_stopped(
    cache: Path, unplotted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"head.width": 16, "head.roi_size": 8, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}
    settings = small | {"optim.batch_size": 4, "optim.epochs": 2}
    with scaled(monkeypatch) as scalers:
        train_head(cache=cache, out=tmp_path / "whole", overrides=settings)
        train_head(cache=cache, out=tmp_path / "part", overrides=settings | {"optim.epochs": 1})
        train_head(cache=cache, out=tmp_path / "part", overrides={"optim.epochs": 2}, resume=True)
    whole, part, resumed = (scaler.state_dict() for scaler in scalers)
    assert resumed == whole and part["scale"] != whole["scale"]
    assert load_metadata(tmp_path / "part" / "last.safetensors")["scaler"] == whole
    one, other = ((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1] for name in ("whole", "part"))
    assert json.loads(one)["loss"] == json.loads(other)["loss"]
    (left, _), (right, _) = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "part"))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Gpu:
    """CUDA with and without bfloat16, as torch tells it."""

    def __init__(self, *, bfloat16: bool) -> None:
        self.bfloat16 = bfloat16

    def __call__(self, including_emulation: bool = True) -> bool:
        return self.bfloat16 or including_emulation


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_is_bfloat16_where_a_gpu_has_it_and_else_float16(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", Gpu(bfloat16=bfloat16))
    device = torch.device("cuda")
    assert [chosen_precision(asked, device) for asked in ("auto", "fp16", "no")] == [expected, "fp16", "no"]
    if bfloat16:
        assert chosen_precision("bf16", device) == "bf16"
    else:
        with pytest.raises(UserError, match="this GPU has no bfloat16: take auto"):
            chosen_precision("bf16", device)


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bf16"), (False, "no")])
def test_auto_on_a_cpu_is_never_float16(monkeypatch: pytest.MonkeyPatch, bfloat16: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
    assert chosen_precision("auto", torch.device("cpu")) == expected
    assert chosen_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        chosen_precision("fp16", torch.device("cpu"))
