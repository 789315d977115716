"""From an official checkpoint to a model: sizes read from the weights, keys checked, weights renamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from frozen_cache.detectors.official.checkpoint import Checkpoint
from frozen_cache.detectors.official.config import OfficialConfig, SwinConfig
from frozen_cache.detectors.official.dino import Dino
from frozen_cache.detectors.official.hdetr import HDetr
from frozen_cache.detectors.official.layout import IGNORED, Entry, build_model, official_layout, swin_window
from frozen_cache.errors import UserError

ONE_TO_MANY = 1500
"""Further query rows in every official H-DETR (`t1500` in the name of its configuration)."""


def fit_config(config: OfficialConfig, checkpoint: Checkpoint) -> OfficialConfig:
    """The configuration with what a checkpoint may vary: classes, queries, DINO's levels, Swin's window."""
    shapes = {name: tuple(each.shape) for name, each in checkpoint.weights.items()}

    def rows(name: str, otherwise: int) -> int:
        shape = shapes.get(name)
        return shape[0] if shape else otherwise

    config = replace(config, classes=rows("class_embed.0.bias", config.classes))
    if config.family == "hdetr":
        total = rows("query_embed.weight", config.queries + config.one_to_many)
        queries = checkpoint.arguments.get("num_queries_one2one")
        if not isinstance(queries, int) or not 0 < queries <= total:
            default = config.queries if total == config.queries + config.one_to_many else total - ONE_TO_MANY
            queries = default if default > 0 else total
        config = replace(config, queries=queries, one_to_many=total - queries)
    else:
        levels = rows("transformer.level_embed", config.levels)
        config = replace(
            config,
            levels=levels if levels in (4, 5) else config.levels,
            queries=rows("transformer.tgt_embed.weight", config.queries),
            label_rows=rows("label_enc.weight", config.label_rows),
        )
    if isinstance(config.backbone, SwinConfig):
        table = next((each for name, each in shapes.items() if name.endswith("relative_position_bias_table")), None)
        if table is not None:
            config = replace(config, backbone=replace(config.backbone, window=swin_window(table)))
    return config


def load_model(config: OfficialConfig, checkpoint: Checkpoint, *, hint: Callable[[], str] = lambda: "") -> HDetr | Dino:
    """The model in eval mode with the checkpoint's weights in float32, every parameter frozen.

    Args:
        config: of `fit_config`.
        checkpoint: of `read_checkpoint`.
        hint: gives the end of the message where keys do not fit.

    Raises:
        UserError: missing or unexpected keys, another shape, aliased heads that differ.
    """
    with torch.device("meta"):
        model = build_model(config)
    layout = official_layout(model)
    _check_keys(layout, checkpoint, hint)
    state: dict[str, Tensor] = {}
    for name, entry in layout.items():
        tensor = checkpoint.weights.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != entry.shape:
            raise UserError(
                f"weights {checkpoint.path}: {name} has shape {tuple(tensor.shape)}, expected {entry.shape}{hint()}"
            )
        if entry.own_name not in state:
            state[entry.own_name] = tensor
        elif not _same(tensor, state[entry.own_name]):
            raise UserError(
                f"weights {checkpoint.path}: {name} differs from the head that it should share with other layers; "
                "this variant of the detector is not supported"
            )
    own = model.state_dict()
    state = {
        name: each.detach().to(torch.float32, copy=True).contiguous().view(own[name].shape)
        for name, each in state.items()
    }
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _same(one: Tensor, other: Tensor) -> bool:
    """True where both share their storage or are equal."""
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _check_keys(layout: dict[str, Entry], checkpoint: Checkpoint, hint: Callable[[], str]) -> None:
    """Refuse a checkpoint that lacks a weight under all its names, or has keys that the layout does not know."""
    found = {name for name in checkpoint.weights if not IGNORED.search(name)}
    present = {entry.own_name for name, entry in layout.items() if name in found}
    missing = [name for name, entry in layout.items() if entry.own_name not in present]
    unexpected = sorted(found - layout.keys())
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} of {len(layout)} keys ({_first(missing)})")
        if unexpected:
            parts.append(f"has {len(unexpected)} unexpected ({_first(unexpected)})")
        raise UserError(f"weights {checkpoint.path}: {' and '.join(parts)}{hint()}")


def _first(names: Iterable[str], count: int = 3) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
