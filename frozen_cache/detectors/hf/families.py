"""The DETR families of transformers: one row each. What a row says is all that the adapter knows of a family.

`{last}` in a path is the index of the last decoder layer, `{evaluated}` that of the layer whose outputs the model
returns (D-FINE and DEIMv2 can stop before the last one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # `init` looks for models by their family, without torch
    from torch import nn


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as dotted paths below its `...ForObjectDetection` model."""

    class_head: str
    """The module whose last call in a forward pass is given the queries and gives the logits."""
    encoder: str
    """The module that gives the encoder's output."""
    encoder_kind: Literal["tokens", "level_tokens", "maps"]
    """`tokens`: layers over the one flattened map of the backbone; `level_tokens`: layers over several flattened maps;
    `maps`: a single output, the maps themselves."""
    backbone: str | None = None
    """The backbone, whose stages give C1; None for plain ViT backbones, which have no stride-4 map."""
    softmax: bool = False
    """True: softmax over the classes and a last no-object column, one label per query; False: a sigmoid per class."""
    top_k: int | None = 100
    """Pairs that the family's post-processing returns by default; None: as many as there are queries."""


DETR = Family(
    class_head="class_labels_classifier",
    encoder="model.encoder",
    encoder_kind="tokens",
    backbone="model.backbone.model",
    softmax=True,
    top_k=None,
)
CONDITIONAL_DETR = Family(
    class_head="class_labels_classifier",
    encoder="model.encoder",
    encoder_kind="tokens",
    backbone="model.backbone.model",
)
DAB_DETR = Family(
    class_head="class_embed",
    encoder="model.encoder",
    encoder_kind="tokens",
    backbone="model.backbone.conv_encoder.model",
)
DEFORMABLE_DETR = Family(
    class_head="class_embed.{last}",
    encoder="model.encoder",
    encoder_kind="level_tokens",
    backbone="model.backbone.model",
)
RT_DETR = Family(
    class_head="model.decoder.class_embed.{last}",
    encoder="model.encoder",
    encoder_kind="maps",
    backbone="model.backbone.model",
    top_k=None,
)
D_FINE = Family(
    class_head="model.decoder.class_embed.{evaluated}",
    encoder="model.encoder",
    encoder_kind="maps",
    backbone="model.backbone.model",
    top_k=None,
)
DEIMV2 = Family(
    class_head="model.decoder.class_embed.{evaluated}",
    encoder="model.encoder",
    encoder_kind="maps",
    backbone="model.conv_encoder.model",
    top_k=None,
)
LW_DETR = Family(class_head="class_embed", encoder="model.backbone.projector", encoder_kind="maps")
RF_DETR = Family(class_head="class_embed", encoder="model.backbone.projector", encoder_kind="maps", top_k=None)

BACKBONES = ("model.backbone.", "model.conv_encoder.")
INTO_ENCODER = (
    "model.encoder_input_proj.",
    "model.conv_encoder.encoder_input_proj.",
    "model.input_proj.",
    "model.input_projection.",
    "model.level_embed",
)
"""Prefixes of parameters, for all families."""

FAMILIES: dict[str, Family] = {  # by `config.model_type`
    "detr": DETR,
    "conditional_detr": CONDITIONAL_DETR,
    "dab-detr": DAB_DETR,
    "deformable_detr": DEFORMABLE_DETR,
    "rt_detr": RT_DETR,
    "rt_detr_v2": RT_DETR,
    "d_fine": D_FINE,
    "deimv2": DEIMV2,
    "lw_detr": LW_DETR,
    "rf_detr": RF_DETR,
}


def part_of(name: str, family: Family) -> Literal["backbone", "encoder", "decoder"]:
    """The part of the model that a parameter belongs to: what leads into the encoder is its own."""
    if name.startswith((f"{family.encoder}.", *INTO_ENCODER)):
        return "encoder"
    return "backbone" if name.startswith(BACKBONES) else "decoder"


def class_head_of(model: nn.Module, family: Family) -> nn.Module:
    """The class head that gives the returned logits."""
    config = model.config
    layers = getattr(config, "decoder_layers", 1)
    evaluated = getattr(config, "eval_idx", -1)
    path = family.class_head.format(last=layers - 1, evaluated=evaluated if evaluated >= 0 else layers + evaluated)
    return model.get_submodule(path)


def backbone_of(model: nn.Module, family: Family) -> nn.Module | None:
    """The backbone, or None where the family or this model (DEIMv2 on DINOv3) has no convolutional stages."""
    if family.backbone is None:
        return None
    try:
        return model.get_submodule(family.backbone)
    except AttributeError:
        return None
