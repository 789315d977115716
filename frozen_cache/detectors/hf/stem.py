"""The stem of a transformers detector."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from frozen_cache.detectors.stem import Stem, StemConfig, StemMap
from frozen_cache.detectors.stem_kinds import FROZEN, TRANSFORMERS, transformers_fields
from frozen_cache.errors import UserError

WRAPPED = "_backbone."
"""Where transformers keeps the timm model in its own wrapper."""


def transformers_stem(
    model: Any, backbone: Any, *, c1: StemMap | None, levels: dict[int, StemMap], trial: Tensor
) -> Stem:
    """The stem of a model's backbone.

    Args:
        c1: the stage that gives C1, by its name below `backbone`.
        levels: the same for the added levels.
        trial: (1, 3, H, W) images.

    Raises:
        UserError: a backbone of a kind that no stem is built of.
    """
    config = model.config.backbone_config
    kind = str(config.model_type)
    if kind == "timm_backbone":
        backbone = getattr(backbone, "_backbone", backbone)
        return Stem.take(
            backbone,
            StemConfig(
                kind="timm",
                config={
                    "name": config.backbone,
                    "output_stride": config.output_stride,
                    "out_indices": list(backbone.feature_info.out_indices),
                    FROZEN: _has_frozen_norms(backbone),
                },
                c1=None if c1 is None else _unwrapped(c1),
                levels={index: _unwrapped(level) for index, level in levels.items()},
            ),
            trial=trial,
        )
    if kind not in TRANSFORMERS:
        raise UserError(
            f"C1 cannot be recomputed with a backbone of type {kind}; known are {', '.join(TRANSFORMERS)}, timm: take "
            "--c1 stored"
        )
    values: dict[str, Any] = transformers_fields(kind, config) | {FROZEN: _has_frozen_norms(backbone)}
    return Stem.take(backbone, StemConfig(kind=kind, config=values, c1=c1, levels=levels), trial=trial)


def _unwrapped(stage: StemMap) -> StemMap:
    return StemMap(module=stage.module.removeprefix(WRAPPED), scale=stage.scale)


def _has_frozen_norms(backbone: nn.Module) -> bool:
    return any("FrozenBatchNorm" in type(module).__name__ for module in backbone.modules())
