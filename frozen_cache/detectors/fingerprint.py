"""The fingerprint of a detector's weights: the same weights give the same hash, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hex sha256 over the sorted names with each tensor's dtype, shape and bytes (row-major, little-endian).

    Args:
        state_dict: name to tensor, on any device; read without keeping more than one tensor's copy.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
