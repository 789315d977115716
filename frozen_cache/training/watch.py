"""Watching the numbers of a training: what is not finite ends the run and is never saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from frozen_cache.errors import NotFiniteError

MOST_SKIPPED = 20
"""Steps in a row that the gradient scaler of float16 may skip: from 2^16 it halves its scale to below 1 in fewer."""
SHOWN_IMAGES = 8
ADVICE = {
    "fp16": "mixed_precision=bf16 or no holds larger numbers",
    "bf16": "try a lower --lr, --set optim.clip_grad_norm=1, or mixed_precision=no",
    "no": "try a lower --lr or --set optim.clip_grad_norm=1",
}


@dataclass(frozen=True)
class StepNumbers:
    """One step's numbers, still on the device."""

    step: int
    """From 0."""
    images: list[int]
    """Ids of the images of all processes."""
    rate: float
    values: dict[str, Tensor]
    """Losses by name, `loss` their sum, `gradient norm`, and `rois`, how many this process trained on."""


@dataclass
class Watch:
    """Collects the numbers of steps, and fetches and checks them all at once when `check` is called.

    In between the weights may have become worthless; so it is called before anything is saved or evaluated.
    """

    precision: str
    """`no`, `bf16` or `fp16`; only with the last, whose gradient scaler skips steps, some may be not finite."""
    run: Path
    reduce: Callable[[Tensor], Tensor]
    """Mean over all processes."""
    world: int = 1
    skipped: int = 0
    """Steps that were skipped, in a row, up to now."""
    rois: int = 0
    """RoIs trained on since the start, over all processes."""
    steps: int = 0
    _waiting: list[StepNumbers] = field(default_factory=list)

    def add(self, numbers: StepNumbers) -> None:
        """Take in a step; nothing is fetched."""
        self._waiting.append(numbers)

    def check(self) -> dict[str, float]:
        """Look at all steps since the last call.

        Returns:
            The last step's numbers over all processes; none where it was skipped.

        Raises:
            NotFiniteError: one of them is not finite.
        """
        if not self._waiting:
            return {}
        waiting, self._waiting = self._waiting, []
        rows = self.reduce(torch.stack([torch.stack(list(numbers.values.values())) for numbers in waiting])).tolist()
        last: dict[str, float] = {}
        for numbers, row in zip(waiting, rows, strict=True):
            last = dict(zip(numbers.values, row, strict=True))
            bad = [name for name, value in last.items() if not torch.isfinite(torch.tensor(value))]
            self.skipped = self.skipped + 1 if bad else 0
            if bad and (self.precision != "fp16" or self.skipped > MOST_SKIPPED):
                raise self.failure(numbers, f"the {bad[0]} is not finite")
            self.rois += round(last["rois"] * self.world)
            self.steps += 1
            if bad:
                last = {}
        return last

    def failure(self, numbers: StepNumbers, what: str) -> NotFiniteError:
        """The error of a step, for people."""
        images = ", ".join(map(str, numbers.images[:SHOWN_IMAGES]))
        images += f" and {len(numbers.images) - SHOWN_IMAGES} more" if len(numbers.images) > SHOWN_IMAGES else ""
        times = f", {self.skipped} steps in a row" if self.skipped > 1 else ""
        precision = "float32" if self.precision == "no" else self.precision
        return NotFiniteError(
            f"step {numbers.step + 1}: {what}{times} (images {images}; learning rate {numbers.rate:.3g}; precision "
            f"{precision}). The run ends, its checkpoints in {self.run} stay as they were; {ADVICE[self.precision]}"
        )
