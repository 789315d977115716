"""What stays in float32 where autocast computes the rest in half, and which half a device has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from frozen_cache.errors import UserError


def wide(tensor: Tensor) -> Tensor:
    """float32 of half precision; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Within, autocast leaves what runs on the tensor's device alone; nothing at all where there is no autocast."""
    kind = tensor.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # tensors without numbers know no autocast
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def half_type(asked: str, device: torch.device) -> torch.dtype | None:
    """What autocast is to compute in, of `no`, `bf16`, `fp16`, `auto`; None for float32.

    Raises:
        UserError: the device lacks what is asked for, or it is none of these.
    """
    kinds = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if asked not in (*kinds, "auto"):
        raise UserError(f"mixed_precision={asked}: give {', '.join(kinds)} or auto")
    return kinds[chosen_precision(asked, device)]


def chosen_precision(asked: str, device: torch.device) -> str:
    """`no`, `bf16` or `fp16`: what is asked for, and for `auto` the half precision that the device computes fast.

    bfloat16 where the hardware has it, float16 on GPUs without (V100, T4), float32 on CPUs without.

    Raises:
        UserError: the device lacks what is asked for.
    """
    if device.type == "cpu":
        if asked == "fp16":
            raise UserError("mixed_precision=fp16 needs a GPU: take auto, bf16 or no on the CPU")
        return asked if asked != "auto" else "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if has_bfloat16 else "fp16"
    if asked == "bf16" and not has_bfloat16:
        raise UserError("mixed_precision=bf16: this GPU has no bfloat16: take auto, fp16 or no")
    return asked
