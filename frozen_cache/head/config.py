"""`HeadConfig`: every design that the paper ablates, and ours beyond it, as one typed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from frozen_cache.errors import UserError

PAPER_ENCODER_LAYER = 4
LEAST_ROI, MOST_ROI = 4, 128


class HeadConfig(BaseModel):
    """What the mask head is made of. The defaults are the paper's final form (last row of Table 6)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    encoder_layer: int | None = Field(default=None, ge=1)
    """The cached encoder layer to read, from 1 (Table 14); None for the paper's 4 if kept, else the last kept."""
    image_encoder: Literal["none", "deformable", "swin", "convnext"] = "deformable"
    """Refines the encoder's maps (Table 2). Swin and ConvNeXt work on the finest map alone."""
    image_layers: int = Field(default=2, ge=0, le=4)
    """Layers of the image encoder."""
    image_width: int | None = Field(default=None, ge=8, le=4096)
    """Channels of the image encoder and of F; None for the detector's own encoder width."""
    fused_levels: Annotated[int, Field(ge=1, le=64)] | Literal["all"] = 1
    """How many of the finest levels are upsampled and added up in F, or all that are cached; the paper: 1."""
    c1_scale: Literal[1, 2, 4] | None = None
    """C1 and the added maps come from the image at so many times the input size, where the cache recomputes them; None
    for that with which it was made."""
    neck: bool = True
    """C1 is added to F through a 1x1 convolution and GroupNorm (Table 6). Without C1 there is no neck."""
    width: int = Field(default=128, ge=8, le=4096)
    """Channels of the RoI features and of the projected query (Table 4)."""
    roi_size: int = Field(default=32, ge=LEAST_ROI, le=MOST_ROI)
    """Side of the RoI features (Table 9)."""
    roi_scale: float = Field(default=1.0, ge=1, le=2)
    """Side of the RoI in sides of the box: above 1 the head sees around the box, and its mask may leave it."""
    roi_sampling: int = Field(default=2, ge=0, le=64)
    """RoIAlign's samples per bin and axis; 0 takes as many as the bin has pixels (slow for large boxes)."""
    box_encoder: Literal["none", "deformable", "swin", "convnext", "unet", "fcn"] = "deformable"
    """Refines the RoI features (Table 3). Beyond the paper: a U-Net, and the 3x3 convolutions of Mask R-CNN."""
    box_layers: int = Field(default=2, ge=0, le=4)
    """Layers of the box encoder; U-Net: 3x3 convolutions per scale; FCN: 3x3 convolutions (Mask R-CNN: 4)."""
    query_in_roi: bool = False
    """The projected query is added to every position of the RoI features, before the box encoder."""
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of RoI feature channels dropped in training."""
    query_blocks: tuple[Literal["ffn", "o2o", "b2o"], ...] = ("ffn", "b2o")
    """What refines the projected query (Table 5): objects attend to each other, to their RoI, feed-forward."""
    query_layers: int | None = Field(default=None, ge=0, le=4)
    """Query blocks; None for one per box layer. Block i sees the RoI features after box layer i."""
    mask_head: Literal["dot", "segmenter", "fcn"] = "dot"
    """Dot product (Eq. 4), Segmenter's head (Table 12), or Mask R-CNN's deconvolution at twice the RoI side."""
    class_masks: bool = False
    """mask_head=fcn: one mask per class, the RoI's own class is returned; else one for all classes."""
    mask_scoring: bool = True
    """Predict the mask's IoU (Eq. 12, 13; Table 6)."""
    refine: int | None = Field(default=None, ge=8, le=256)
    """Side of finer masks, such as 64 or 112, predicted from F where the head's own are unsure; None for none."""
    zoom: int | None = Field(default=None, ge=16, le=512)
    """Side, in pixels, of crops of the boxes from the original image, of which the detector's stem makes C1 and the
    added maps; these join the RoI's features. None for none. The cache must hold images and stem (--c1 recomputed)."""

    @model_validator(mode="after")
    def _combinations(self) -> HeadConfig:
        if len(set(self.query_blocks)) < len(self.query_blocks):
            raise ValueError(f"query_blocks={list(self.query_blocks)} names a block twice: name each at most once")
        if self.mask_head == "fcn" and self.query_blocks:
            raise ValueError("mask_head=fcn reads no query, so query_blocks would do nothing: set query_blocks=[]")
        if self.mask_head != "fcn" and self.class_masks:
            raise ValueError(f"class_masks needs mask_head=fcn, here it is {self.mask_head}: set class_masks=false")
        if self.refine is not None and self.refine <= self.mask_side:
            raise ValueError(f"refine={self.refine} is no finer than the masks' own {self.mask_side} cells a side")
        return self

    @property
    def mask_side(self) -> int:
        """Side of the predicted masks, before they are refined."""
        return 2 * self.roi_size if self.mask_head == "fcn" else self.roi_size

    @property
    def query_depth(self) -> int:
        """Number of query blocks."""
        if not self.query_blocks:
            return 0
        return self.box_layers if self.query_layers is None else self.query_layers


def resolve_encoder_layer(config: HeadConfig, kept: Sequence[int]) -> int:
    """The encoder layer that a head reads from a cache which kept the layers `kept`.

    Raises:
        UserError: the layer that the configuration names was not kept.
    """
    if not kept:
        raise UserError("the cache keeps no encoder layer: extract it with --encoder-layers")
    if config.encoder_layer is None:
        return PAPER_ENCODER_LAYER if PAPER_ENCODER_LAYER in kept else max(kept)
    if config.encoder_layer not in kept:
        raise UserError(
            f"head.encoder_layer={config.encoder_layer} is not in the cache, which keeps "
            f"{', '.join(map(str, kept))}: choose one of these, or extract with --encoder-layers {config.encoder_layer}"
        )
    return config.encoder_layer
