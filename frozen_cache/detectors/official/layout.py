"""The layout of an official checkpoint: which keys it has, and which weight of ours each one is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from frozen_cache.detectors.official.config import OfficialConfig, ResNetConfig
from frozen_cache.detectors.official.dino import Dino
from frozen_cache.detectors.official.hdetr import HDetr

IGNORED = re.compile(r"(^|\.)(total_ops|total_params|num_batches_tracked|relative_position_index)$")
"""Keys that say nothing about the weights: counters left by profilers and batch norm, an index table of Swin."""


@dataclass(frozen=True)
class Entry:
    """One key of the official checkpoint."""

    own_name: str
    """The state-dict name in our model; several keys may share one (aliased heads)."""
    shape: tuple[int, ...]
    """In the official checkpoint."""


def build_model(config: OfficialConfig) -> HDetr | Dino:
    """The module, its weights not yet meaningful. Inside `torch.device("meta")` it takes no memory."""
    return HDetr(config=config) if config.family == "hdetr" else Dino(config=config)


def official_layout(model: HDetr | Dino) -> dict[str, Entry]:
    """Official key to our weight, for every key that an official checkpoint of this model holds.

    A weight's canonical key comes before its aliases. Keys that match `IGNORED` are not in it.
    """
    prefix = backbone_prefix(model.config)
    layout: dict[str, Entry] = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if name.startswith("backbone."):
            own = name.removeprefix("backbone.")
            layout[prefix + model.backbone.official_name(own)] = Entry(
                own_name=name, shape=model.backbone.official_shape(own, shape)
            )
        else:
            for official in (name, *aliases(model.config, name)):
                layout[official] = Entry(own_name=name, shape=shape)
    return layout


def backbone_prefix(config: OfficialConfig) -> str:
    """H-DETR wraps every backbone in a `body`, DINO only the ResNet."""
    wrapped = config.family == "hdetr" or isinstance(config.backbone, ResNetConfig)
    return "backbone.0.body." if wrapped else "backbone.0."


def aliases(config: OfficialConfig, name: str) -> list[str]:
    """Further keys under which the official checkpoint holds a head: the decoder's reference, shared layers."""
    head = re.match(r"(class_embed|bbox_embed)\.(\d+)\.(.*)", name)
    if head is None:
        return []
    kind, index, rest = head.groups()
    if config.family == "hdetr":
        return [f"transformer.decoder.{kind}.{index}.{rest}"]
    layers = range(config.decoder_layers)
    return [f"{kind}.{i}.{rest}" for i in layers if i] + [f"transformer.decoder.{kind}.{i}.{rest}" for i in layers]


def parameter_count(model: nn.Module) -> int:
    """Parameters without buffers (frozen batch norm), shared ones once: the number that the papers give."""
    return sum(parameter.numel() for parameter in model.parameters())


def swin_window(shape: tuple[int, ...]) -> int:
    """The window of a Swin whose bias table has (2 * window - 1)^2 rows."""
    return (round(shape[0] ** 0.5) + 1) // 2
