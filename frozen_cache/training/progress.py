"""Where a run stands."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass


@dataclass(config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Progress:
    """Saved with every checkpoint."""

    step: Annotated[int, Field(ge=0)] = 0
    """Steps done."""
    best_ap: float | None = None
    best_step: int | None = None
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time spent in training steps and evaluations, over all restarts."""
    loss: float | None = None
    """The last one that was printed, over all processes."""
    skipped: Annotated[int, Field(ge=0)] = 0
    """Steps in a row that the gradient scaler of float16 has skipped up to here."""
    box_ap: float | None = None
    """Of the evaluation at `best_step`: the boxes are the detector's, and the same at every step while it is frozen."""
    box_ap_before: float | None = None
    """Of a detector that trains along, before the first step."""


def read_progress(saved: dict[str, Any]) -> Progress:
    """The progress in a checkpoint's metadata; a ValueError of one line where there is none that makes sense."""
    values = saved.get("progress")
    if not isinstance(values, dict) or "step" not in values:
        raise ValueError("it holds no progress")
    try:
        return Progress(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"its progress, `{first['loc'][-1]}`: {first['msg']}") from error
