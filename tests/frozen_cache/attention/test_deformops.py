"""`deformops` called as we call it, without a GPU: its kernels in Triton's interpreter, and the function that picks."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

ON_A_CPU = """
import contextlib
from importlib import import_module
import torch
from frozen_cache.attention.kernels import find_triton, run_kernel
from frozen_cache.attention.ms_deform_attn import deformable_sampling

shapes = [(7, 9), (4, 5)]
torch.cuda.device = lambda device: contextlib.nullcontext()  # the launch asks for a GPU that the interpreter is without

def numbers(sampling):
    torch.manual_seed(0)
    value, weights = torch.randn(2, 7 * 9 + 4 * 5, 4, 8), torch.rand(2, 11, 4, 2, 3)
    given = [value, torch.rand(2, 11, 4, 2, 3, 2) * 1.4 - 0.2, weights]
    for each in given:
        each.requires_grad_()
    out = sampling(given[0], shapes, *given[1:])
    out.square().sum().backward()
    return [out.detach(), *(each.grad for each in given)]

expected = numbers(deformable_sampling)
kernels = [
    import_module(f"deformops.backends.triton.{name}").forward
    for name in ("msda_query_tiled", "msda_query_tiled_fp32acc")
]
for kernel in (find_triton(), *kernels):
    found = numbers(lambda *given: run_kernel(kernel, *given))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    print("equal")
"""


@pytest.mark.skipif(find_spec("deformops") is None or find_spec("triton") is None, reason="deformops is not installed")
def test_its_kernels_give_what_grid_sample_gives_gradients_included() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "FROZEN_CACHE_ATTENTION": "grid_sample"}
    done = subprocess.run([sys.executable, "-c", ON_A_CPU], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"] * 3
