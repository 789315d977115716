"""The activation in the small MLPs of D-FINE's decoder, which transformers fixes to ReLU and DEIM trains as SiLU.

A configuration says so in a field of our own, `head_activation`; `save_pretrained` keeps it.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

FIELD = "head_activation"
HEADS = re.compile(r"(^|\.)(query_pos_head|enc_bbox_head|pre_bbox_head|reg_conf|bbox_embed\.\d+)$")


class HeadMLP(nn.Module):
    """Linear layers with an activation between them, under the names that transformers has."""

    def __init__(self, *, layers: nn.ModuleList, activation: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels of the last layer) of (..., channels of the first)."""
        for layer in list(self.layers)[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def apply_head_activation(model: Any) -> None:
    """Give the decoder's small MLPs the activation that the configuration names; nothing where it names none."""
    from transformers.activations import ACT2CLS

    name = getattr(model.config, FIELD, None)
    if name is None:
        return
    heads = {path: module for path, module in model.named_modules(remove_duplicate=False) if HEADS.search(path)}
    activation: Any = ACT2CLS[name]
    made = {module: HeadMLP(layers=module.layers, activation=activation()) for module in heads.values()}
    for path, module in heads.items():
        parent, _, own = path.rpartition(".")
        setattr(model.get_submodule(parent), own, made[module])
