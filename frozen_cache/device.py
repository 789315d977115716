"""The device that things run on."""

from __future__ import annotations

import torch

from frozen_cache.errors import UserError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; any other name is torch's: cpu, cuda, cuda:N, mps.

    UserError where this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no CUDA device that torch can use; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0 on")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: this machine has no Apple GPU that torch can use; use auto or cpu")
    return device
