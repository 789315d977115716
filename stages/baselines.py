"""The baselines that `evaluate` and `visualize` know, and the choice between them and heads; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frozen_cache.errors import UserError

BASELINES: dict[str, dict[str, bool] | None] = {
    "training-free": {"roi_align": True, "c1": True},
    "training-free-no-c1": {"roi_align": True, "c1": False},
    "training-free-whole-image": {"roi_align": False, "c1": True},
    "training-free-whole-image-no-c1": {"roi_align": False, "c1": False},
    "box": None,
}
"""The rows of Table 1, as `TrainingFree` takes them, and the filled box."""
PROMPTED = "prompted"
"""Another baseline, which needs a model and the pictures."""


def check_choice(heads: Sequence[Path], baseline: str | None, prompter: str | None = None) -> None:
    """UserError unless there are either heads or a baseline, it is known, and has its prompter where it needs one."""
    known = (*BASELINES, PROMPTED)
    if (not heads) == (baseline is None):
        raise UserError(f"give either --head RUN or --baseline NAME ({', '.join(known)})")
    if baseline is not None and baseline not in known:
        raise UserError(f"no baseline `{baseline}`: known are {', '.join(known)}")
    if (baseline == PROMPTED) != (prompter is not None):
        raise UserError("--baseline prompted and --prompter hf:MODEL go together: give both, or neither")
