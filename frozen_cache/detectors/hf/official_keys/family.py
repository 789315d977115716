"""What the loader knows of one official family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights
from frozen_cache.detectors.official.checkpoint import Checkpoint, read_checkpoint

PLACES = ("ema.module", "ema_model", "ema", "model", "state_dict")
"""Where these repositories put the weights: the average over training first."""


def read_plain(file: Path) -> Checkpoint:
    """The weights of a file that holds a state dict."""
    return read_checkpoint(file, places=PLACES)


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
    preprocessing: Literal["plain", "imagenet", "ultralytics"] = "plain"
    """The input: in 0 to 1; with ImageNet's mean and deviation, as RF-DETR's; in 0 to 1 and not antialiased."""
    read: Callable[[Path], Checkpoint] = read_plain
    """Opens the file, running no code from it."""

    def knows(self, weights: OfficialWeights) -> bool:
        """True for a checkpoint of this family."""
        return all(name in weights for name in self.marks) and not any(name in weights for name in self.foreign)
