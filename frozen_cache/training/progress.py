"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Saved with every checkpoint."""

    step: int = 0
    """Steps done."""
    best_ap: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    """Time spent in training steps and evaluations, over all restarts."""
    loss: float | None = None
    """The last one that was printed, over all processes."""
    box_ap: float | None = None
    """Of the evaluation at `best_step`: the boxes are the detector's, and the same at every step."""
