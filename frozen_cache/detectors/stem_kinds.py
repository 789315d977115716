"""The kinds of backbone that a stem can be: classes of this project, of transformers and of timm, by name.

What a cache says of its stem may come from a stranger: only the names in `KINDS` are built, only with plain values of
their own fields, within limits that no real backbone reaches; and without memory, until its weights fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from frozen_cache.errors import UserError

LARGEST = 16_384
"""Of any whole number in a configuration."""
LONGEST = 16
"""Entries of a list in it."""
DEEPEST = 64
"""Blocks of a stage, and layers of a block."""
FROZEN = "frozen_norms"
"""Key of transformers and timm kinds: every batch norm is a frozen one, as DETR has them."""
TRANSFORMERS = {
    "resnet": ("ResNetConfig", "ResNetBackbone"),
    "rt_detr_resnet": ("RTDetrResNetConfig", "RTDetrResNetBackbone"),
    "hgnet_v2": ("HGNetV2Config", "HGNetV2Backbone"),
    "swin": ("SwinConfig", "SwinBackbone"),
    "convnext": ("ConvNextConfig", "ConvNextBackbone"),
    "convnextv2": ("ConvNextV2Config", "ConvNextV2Backbone"),
}
"""Kind, which is the model type of its configuration -> names of its classes in transformers."""
TIMM = {"name", "output_stride", "out_indices", FROZEN}
"""The fields of a timm backbone that gives its features."""


def build_backbone(kind: str, config: dict[str, Any]) -> nn.Module:
    """The backbone on the meta device, so that it takes no memory, in eval mode.

    Raises:
        UserError: a kind that is not known, or a configuration that is not of this kind.
    """
    if kind not in KINDS:
        raise UserError(f"a stem of kind {kind[:40]!r} is not known; known are {', '.join(KINDS)}")
    _check_values(config)
    try:
        with torch.device("meta"):
            return KINDS[kind](config).eval()
    except UserError:
        raise
    except Exception as error:  # what a class says to values that do not go together
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"no stem of kind {kind} can be built as its configuration says: {reason}") from None


def transformers_fields(kind: str, config: Any) -> dict[str, Any]:
    """The plain values that make a backbone of a transformers configuration again."""
    values = config.to_dict()
    return {name: _plain(values[name]) for name in sorted(_own_fields(kind)) if name in values}


def _resnet50(config: dict[str, Any]) -> nn.Module:
    from frozen_cache.detectors.official.backbones import ResNet50

    _only(config, set())
    return ResNet50()


def _official_swin(config: dict[str, Any]) -> nn.Module:
    from frozen_cache.detectors.official.config import SwinConfig
    from frozen_cache.detectors.official.swin import Swin

    _only(config, {field.name for field in fields(SwinConfig)})
    return Swin(config=SwinConfig(**config), first_stage=len(config["depths"]))


def _official_focalnet(config: dict[str, Any]) -> nn.Module:
    from frozen_cache.detectors.official.config import FocalNetConfig
    from frozen_cache.detectors.official.focalnet import FocalNet

    _only(config, {field.name for field in fields(FocalNetConfig)})
    return FocalNet(config=FocalNetConfig(**config), first_stage=len(config["depths"]))


def _transformers(kind: str) -> Callable[[dict[str, Any]], nn.Module]:
    def build(config: dict[str, Any]) -> nn.Module:
        import transformers

        _only(config, _own_fields(kind) | {FROZEN})
        values = {name: value for name, value in config.items() if name != FROZEN}
        config_class, backbone_class = (getattr(transformers, name) for name in TRANSFORMERS[kind])
        return _with_norms(backbone_class(config_class(**values)), frozen=config.get(FROZEN, False))

    return build


def _timm(config: dict[str, Any]) -> nn.Module:
    import timm

    _only(config, TIMM)
    name = str(config.get("name"))
    if not re.fullmatch(r"\w+(\.\w+)?", name) or not timm.is_model(name):  # a name with `:` would be fetched
        raise UserError(f"timm has no backbone {name[:60]!r}")
    backbone = timm.create_model(
        name,
        pretrained=False,
        features_only=True,
        output_stride=config.get("output_stride"),
        out_indices=config.get("out_indices"),
    )
    return _with_norms(backbone, frozen=config.get(FROZEN, False))


KINDS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "official-resnet50": _resnet50,
    "official-swin": _official_swin,
    "official-focalnet": _official_focalnet,
    "timm": _timm,
    **{kind: _transformers(kind) for kind in TRANSFORMERS},
}


def _own_fields(kind: str) -> set[str]:
    """The fields that a kind's configuration has of its own."""
    import transformers

    own = {field.name for field in fields(getattr(transformers, TRANSFORMERS[kind][0]))}
    base = {field.name for field in fields(transformers.PreTrainedConfig)}
    return {name for name in own - base if not name.startswith("_")}


def _with_norms(module: nn.Module, *, frozen: bool) -> nn.Module:
    """The module, with every batch norm frozen (and bare of its activation) where DETR does so."""
    if frozen:
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features))
            else:
                _with_norms(child, frozen=True)
    return module


def _only(config: dict[str, Any], known: set[str]) -> None:
    if strange := sorted(set(config) - known):
        raise UserError(f"the stem's configuration has {strange[0][:60]!r}, which is not known")


def _check_values(config: dict[str, Any]) -> None:
    for name, value in config.items():
        counts = name == "depths" or "num_blocks" in name or "numb_of_layers" in name
        if not _within(value, most=DEEPEST if counts else LARGEST):
            raise UserError(f"the stem's configuration has {name[:60]!r} of a size or type that no backbone has")


def _within(value: Any, *, most: int, depth: int = 0) -> bool:
    if isinstance(value, list | tuple):
        return depth < 2 and len(value) <= LONGEST and all(_within(each, most=most, depth=depth + 1) for each in value)
    if isinstance(value, str):
        return len(value) <= 64
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= most)


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON has them."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
