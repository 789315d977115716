"""Which code samples for deformable attention, and why.

`grid_sample` works everywhere and is what the others are compared with. CPUs take `embedding_bag`, which comes with
PyTorch; `torch-ms-deform-attn` (extra `fast-cpu`) takes its place where the environment names it. So what a CPU
computes does not depend on what is installed. `deformops` (extra `gpu`) serves CUDA.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from frozen_cache.attention.bags import bag_sampling
from frozen_cache.attention.kernels import Kernel, compiler_found, find_compiled, find_triton, run_kernel
from frozen_cache.errors import UserError
from frozen_cache.precision import wide

SWITCH = "FROZEN_CACHE_ATTENTION"
"""Environment variable: `auto`, or the name of a backend."""
GRID_SAMPLE, EMBEDDING_BAG = "grid_sample", "embedding_bag"
COMPILED, TRITON = "torch-ms-deform-attn", "deformops"
EXTRAS = {COMPILED: "fast-cpu", TRITON: "gpu"}
DEVICES = {EMBEDDING_BAG: "cpu", COMPILED: "cpu", TRITON: "cuda"}


@dataclass(frozen=True)
class Backend:
    """What is used."""

    name: str
    why: str
    kernel: Kernel | None = None
    """Of another package; None for what PyTorch has."""


def kernel_of(name: str) -> Kernel | None:
    """The kernel of a backend, where it is installed."""
    return find_compiled() if name == COMPILED else find_triton()


def choose(*, device: str, dtype: torch.dtype) -> Backend:
    """The backend for tensors of a device's type.

    Args:
        dtype: of the maps.

    Raises:
        UserError: the environment names a backend that does not exist or is not installed.
    """
    asked = os.environ.get(SWITCH, "auto")
    if asked not in ("auto", GRID_SAMPLE, *DEVICES):
        raise UserError(f"{SWITCH}={asked}: no such backend; use auto, {GRID_SAMPLE}, {', '.join(DEVICES)}")
    if asked == GRID_SAMPLE:
        return Backend(GRID_SAMPLE, f"{SWITCH} asks for it")
    name = asked if asked != "auto" else TRITON if device == "cuda" else EMBEDDING_BAG
    if device != DEVICES[name]:
        return Backend(GRID_SAMPLE, f"no kernel for {device}")
    why = f"{SWITCH} asks for it" if asked == name else "it is installed"
    if name == EMBEDDING_BAG:
        return Backend(name, why if asked == name else "the fastest on CPUs")
    if dtype == torch.float64:
        return Backend(GRID_SAMPLE, "float64")
    kernel = kernel_of(name)
    if kernel is not None and (name != TRITON or compiler_found()):
        return Backend(name, why, kernel)
    if kernel is None:
        missing = (
            f"{name} is not installed, or does not load with this PyTorch: pip install 'frozen-cache[{EXTRAS[name]}]'"
        )
    else:
        missing = f"{name} is installed, but Triton needs a C compiler to launch its kernels: install gcc, or set CC"
    if asked == name:
        raise UserError(f"{SWITCH}={asked}: {missing}")
    return Backend(GRID_SAMPLE, missing)


def fast_sampling(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor | None:
    """`deformable_sampling` by something faster than `grid_sample`; None where that is to do it.

    In float32 where the maps are half precision.
    """
    if torch.compiler.is_exporting():
        return None  # the graph would have a node that no other program knows
    backend = choose(device=value.device.type, dtype=value.dtype)
    if backend.name == GRID_SAMPLE:
        return None
    value = wide(value)
    locations, weights = locations.to(value.dtype), weights.to(value.dtype)
    if backend.kernel is None:
        return bag_sampling(value, shapes, locations, weights)
    return run_kernel(backend.kernel, value, shapes, locations, weights)
