"""What the loader knows of one official family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights


@dataclass(frozen=True, kw_only=True)
class OfficialFamily:
    """A family of an official repository."""

    rules: Rules
    ignored: str
    """Official names (a pattern for their beginning) that inference does not need."""
    marks: tuple[str, ...]
    """Names that a checkpoint of this family has, and ..."""
    foreign: tuple[str, ...] = ()
    """... names that it has not."""
    config: Callable[[OfficialWeights], Any]
    """The transformers configuration, from the weights' shapes; without labels."""
    classes: str
    """The bias of the class head: one row per label."""
    input_size: Callable[[OfficialWeights], int]
    """Height and width of the input in pixels."""
    variant: Callable[[Any], str]
    """The size's name (`r50`), from the configuration; empty for a size that was never published."""
    normalised: bool = False
    """True: the input is RF-DETR's, with ImageNet's mean and deviation; False: RT-DETR's, 0 to 1."""

    def knows(self, weights: OfficialWeights) -> bool:
        """True for a checkpoint of this family."""
        return all(name in weights for name in self.marks) and not any(name in weights for name in self.foreign)
