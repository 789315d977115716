"""Packages with kernels that sample and add up in one pass: `torch-ms-deform-attn` for CPUs, `deformops` for GPUs.

Both take what `deformable_sampling` takes, with (H, W) and first row of each level as tensors beside the values.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@lru_cache(maxsize=1)
def find_compiled() -> Kernel | None:
    """`torch-ms-deform-attn` (extra `fast-cpu`); None where it is not installed or does not load with this PyTorch."""
    return _find("torch_ms_deform_attn", "ms_deform_attn")


@lru_cache(maxsize=1)
def find_triton() -> Kernel | None:
    """`deformops` (extra `gpu`); None as above. It takes Triton's kernel, below SM 9.0 with float32 accumulators."""
    return _find("deformops.registry", "msda")


@lru_cache(maxsize=1)
def compiler_found() -> bool:
    """Whether Triton has the C compiler that it launches kernels by: what `CC` names, gcc or clang. Outside of Linux it
    brings its own."""
    return sys.platform != "linux" or "CC" in os.environ or any(map(shutil.which, ("gcc", "clang")))


def _find(module: str, name: str) -> Kernel | None:
    try:
        kernel: Kernel = getattr(import_module(module), name)
    except (ImportError, OSError, AttributeError, RuntimeError, SyntaxError):
        return None
    return kernel


def run_kernel(
    kernel: Kernel, value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """`deformable_sampling` by a kernel."""
    sizes, starts = (_on_gpu if value.is_cuda else _levels)(tuple(shapes), value.device)
    return kernel(value, sizes, starts, locations.contiguous(), weights.contiguous())


def _levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(L, 2) sizes and (L,) first rows, int64."""
    with torch.inference_mode(False):  # a training may ask for them next
        sizes = torch.tensor(shapes, dtype=torch.int64)
        counts = sizes.prod(1)
        return sizes.to(device), (counts.cumsum(0) - counts).to(device)


# Copying numbers over waits for the device, so it is done once for each set of sizes.
_on_gpu = lru_cache(maxsize=1024)(_levels)
