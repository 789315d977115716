"""Exponential moving average of a head's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from frozen_cache.head.mask_head import MaskHead


class MovingAverage:
    """A head whose weights follow another's: after the first update the same, then decay x old + (1 - decay) x new.

    Args:
        head: the one in training.
        decay: in 0..1.
    """

    def __init__(self, head: MaskHead, *, decay: float) -> None:
        self.module = copy.deepcopy(head).requires_grad_(False)
        self.decay = decay
        self.updates = 0
        """Counted here, not on the device, so that asking for it waits for nothing."""

    @torch.no_grad()
    def update_parameters(self, head: MaskHead) -> None:
        """Take in the weights after a step, all at once."""
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(head.parameters())
        if self.updates == 0:
            torch._foreach_copy_(mine, theirs)
        else:
            torch._foreach_lerp_(mine, theirs, 1 - self.decay)
        self.updates += 1
