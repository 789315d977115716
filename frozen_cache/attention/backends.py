"""Which code samples for deformable attention, and why.

`grid_sample` works everywhere and is what the others are compared with. `torch-ms-deform-attn` (extra `fast-cpu`)
rounds positions in another order, which moves results by about 1e-5 of their scale; so left alone it serves inference
only, and a training on a CPU gives the same result whether it is installed or not. `deformops` (extra `gpu`) serves
both on CUDA.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from frozen_cache.attention.kernels import Kernel, find_compiled, find_triton, run_kernel
from frozen_cache.errors import UserError

SWITCH = "FROZEN_CACHE_ATTENTION"
"""Environment variable: `auto`, or the name of a backend."""
GRID_SAMPLE, COMPILED, TRITON = "grid_sample", "torch-ms-deform-attn", "deformops"
EXTRAS = {COMPILED: "fast-cpu", TRITON: "gpu"}
DEVICES = {COMPILED: "cpu", TRITON: "cuda"}


@dataclass(frozen=True)
class Backend:
    """What is used."""

    name: str
    why: str
    kernel: Kernel | None = None
    """None for `grid_sample`."""


def kernel_of(name: str) -> Kernel | None:
    """The kernel of a backend, where it is installed."""
    return find_compiled() if name == COMPILED else find_triton()


def choose(*, device: str, dtype: torch.dtype, training: bool) -> Backend:
    """The backend for tensors of a device's type.

    Args:
        dtype: of the maps.
        training: gradients are asked for.

    Raises:
        UserError: the environment names a backend that does not exist or is not installed.
    """
    asked = os.environ.get(SWITCH, "auto")
    if asked not in ("auto", GRID_SAMPLE, *EXTRAS):
        raise UserError(f"{SWITCH}={asked}: no such backend; use auto, {GRID_SAMPLE}, {', '.join(EXTRAS)}")
    if asked == GRID_SAMPLE:
        return Backend(GRID_SAMPLE, f"{SWITCH} asks for it")
    name = asked if asked != "auto" else TRITON if device == "cuda" else COMPILED
    if device != DEVICES[name]:
        return Backend(GRID_SAMPLE, f"no kernel for {device}")
    if dtype == torch.float64:
        return Backend(GRID_SAMPLE, "float64")
    if asked == "auto" and training and name == COMPILED:
        return Backend(GRID_SAMPLE, f"a training gives the same result everywhere; {SWITCH}={COMPILED} is faster")
    kernel = kernel_of(name)
    if kernel is None:
        missing = (
            f"{name} is not installed, or does not load with this PyTorch: pip install 'frozen-cache[{EXTRAS[name]}]'"
        )
        if asked == name:
            raise UserError(f"{SWITCH}={asked}: {missing}")
        return Backend(GRID_SAMPLE, missing)
    return Backend(name, f"{SWITCH} asks for it" if asked == name else "it is installed", kernel)


def fast_sampling(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor | None:
    """`deformable_sampling` by a kernel; None where `grid_sample` is to do it."""
    if torch.compiler.is_exporting():
        return None  # the graph would have a node that no other program knows
    training = torch.is_grad_enabled() and any(each.requires_grad for each in (value, locations, weights))
    kernel = choose(device=value.device.type, dtype=value.dtype, training=training).kernel
    return None if kernel is None else run_kernel(kernel, value, shapes, locations, weights)
