"""Which image sizes a model runs on, found by running it.

The encoders of RT-DETR, D-FINE and DEIMv2 double each map to add it to the next finer one, and the ViTs of LW-DETR and
RF-DETR cut theirs into equal windows: other sizes fail inside the model. All were trained on fixed, stretched sizes, so
nothing is rounded here: a processor that keeps the aspect ratio is none of theirs. All of them, and Deformable DETR in
two stages, select their queries among the places of the encoder, so that a small input may have too few.
"""

from __future__ import annotations

from typing import Any

import torch

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.errors import UserError, one_line

UNEVEN_SIZE = (272, 321)
"""(height, width): 17 x 20.06 cells of 16 pixels, 19.4 x 22.9 of 14: neither doubled maps nor equal windows fit."""
ENCODER_STRIDE = 32
"""Of the coarsest map that the encoders of RT-DETR and its kin double."""
TOO_FEW = "selected index k out of range"
"""What torch says to a model that selects more queries than there are places."""
LARGEST_TRIAL = 1024
"""In pixels: no larger size is tried in search of one that has enough places."""


def check_uneven_sizes(model: Any, rule: InputRule, *, name: str) -> None:
    """Where a rule keeps the aspect ratio, run the model once on a size that is no multiple of anything.

    Args:
        name: of the detector, for errors.

    Raises:
        UserError: the model fails on it.
    """
    if rule.size is None and (reason := failure(model, UNEVEN_SIZE)) is not None:
        raise size_error(model, rule, UNEVEN_SIZE, reason, name=name)


def size_error(model: Any, rule: InputRule, size: tuple[int, int], reason: str, *, name: str) -> UserError:
    """The error of a model that fails on `size`; it names a size near the rule's that works, where there is one."""
    message = f"{name} fails on a blank image of {size} pixels (height, width)"
    running = _running_size(model, rule, size, grow=reason == few_places(model))
    if running is None:
        return UserError(f"{message}: {reason}")
    multiple, height, width = running
    keeps = "" if rule.size else ", which its image processor can give as it keeps the aspect ratio,"
    why = f"{keeps}: {reason}; it runs" if reason == few_places(model) else f"{keeps} and runs"
    wanted = f'{{"height": {height}, "width": {width}}}, or to the one that it was trained with'
    if name.startswith("hf:"):
        return UserError(
            f"{message}{why} on multiples of {multiple}: set `size` in its preprocessor_config.json to {wanted}"
        )
    return UserError(
        f"{message}{why} on multiples of {multiple}: load it in a factory, --detector FILE.py:FACTORY, whose image "
        f"processor has its `size` set to {wanted}"
    )


def few_places(model: Any) -> str:
    """Why a model that selects its queries fails on a small input."""
    config = model.config
    queries = config.two_stage_num_proposals if getattr(config, "two_stage", False) else config.num_queries
    return f"its encoder has fewer places there than the {queries} queries that are selected among them"


def explained(model: Any, error: Exception) -> str:
    """What a model's error says, in one line; in our words where its input has too few places."""
    return few_places(model) if TOO_FEW in str(error) else one_line(error)


def _running_size(model: Any, rule: InputRule, size: tuple[int, int], *, grow: bool) -> tuple[int, int, int] | None:
    """(multiple, height, width) of a size near the rule's that the model runs on, `grow`: the next larger one."""
    edge = rule.shortest_edge or min(rule.max_size or size)
    multiple = _needed_multiple(model.config)
    height, width = (max(1, round(side / multiple)) * multiple for side in rule.size or (edge, edge))
    while failure(model, (height, width)) is not None or failure(model, (height, width + multiple)) is not None:
        if not grow or max(height, width) > LARGEST_TRIAL:
            return None
        height, width = height + multiple, width + multiple
    return multiple, height, width


def _needed_multiple(config: Any) -> int:
    """In pixels: a ViT's windows in a row times its patch, else `ENCODER_STRIDE`."""
    backbone = getattr(config, "backbone_config", None)
    windows = getattr(backbone, "num_windows_side", None) or getattr(backbone, "num_windows", None)
    return ENCODER_STRIDE if windows is None else windows * backbone.patch_size  # type: ignore[union-attr]


@torch.no_grad()
def failure(model: Any, size: tuple[int, int]) -> str | None:
    """Why the model fails on one blank image of (height, width); None where it runs."""
    device = next(model.parameters()).device
    try:
        model(pixel_values=torch.zeros(1, 3, *size, device=device))
    except Exception as error:  # whatever a model raises
        return explained(model, error)
    return None
