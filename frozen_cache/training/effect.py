"""Keys of a configuration that do nothing beside the values of others: a row of an ablation over them says nothing."""

from __future__ import annotations

from collections.abc import Callable

from frozen_cache.training.config import TrainConfig

RULES: tuple[tuple[tuple[str, ...], Callable[[TrainConfig], bool], str], ...] = (
    (
        ("loss.points", "loss.oversample", "loss.importance"),
        lambda config: config.loss.supervision == "dense",
        "loss.supervision is dense: set it to points",
    ),
    (
        ("loss.scoring",),
        lambda config: not config.head.mask_scoring,
        "head.mask_scoring is false: set it to true",
    ),
    (
        ("optim.milestones", "optim.gamma"),
        lambda config: config.optim.schedule == "cosine",
        "optim.schedule is cosine: set it to step",
    ),
    (
        ("head.image_layers",),
        lambda config: config.head.image_encoder == "none",
        "head.image_encoder is none: choose one",
    ),
    (
        ("head.box_layers",),
        lambda config: (
            config.head.box_encoder == "none" and (config.head.query_layers is not None or not config.head.query_blocks)
        ),
        "head.box_encoder is none: choose one",
    ),
    (
        ("head.query_layers",),
        lambda config: not config.head.query_blocks,
        "head.query_blocks is empty: name some",
    ),
)
"""(keys, when they do nothing, what to do)."""


def without_effect(config: TrainConfig, keys: list[str]) -> list[str]:
    """A line for each of `keys` that decides nothing in `config`: why, and what would give it an effect."""
    return [
        f"{key} has no effect, as {reason}"
        for key in keys
        for concerned, applies, reason in RULES
        if key in concerned and applies(config)
    ]
