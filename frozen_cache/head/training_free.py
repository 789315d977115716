"""The training-free baseline (Eq. 1 to 4, Table 1): no parameters, the frozen query against the frozen features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from frozen_cache.errors import UserError
from frozen_cache.head.feature_map import upsample
from frozen_cache.head.inputs import HeadInputs, HeadOutput, ImageFeatures, Rois
from frozen_cache.head.roi import RoiAlign

WHOLE_IMAGE_SIDE = 128
"""Side of masks that cover the whole image."""


class TrainingFree(nn.Module):
    """`F = C1 + upsample(E)`, RoIAlign, mask = sigmoid(q . R): the four rows of Table 1. Scores are Eq. 2.

    Args:
        inputs: shapes of the cached features.
        roi_align: cut RoIs out of F; without, each mask covers the whole image (`covers_image`).
        c1: add C1 where its channels are the encoder's (`uses_c1`, `note`).
        roi_size: R.
    """

    def __init__(self, *, inputs: HeadInputs, roi_align: bool = True, c1: bool = True, roi_size: int = 32) -> None:
        super().__init__()
        # Maps that were added from the backbone are no partners of the queries, even where they are the finest.
        fitting = [at for at, level in enumerate(inputs.levels) if level.channels == inputs.query_dim]
        if not fitting:
            raise UserError(
                f"the training-free baseline needs queries and features of one width; this detector's queries have "
                f"{inputs.query_dim} channels, its levels {[level.channels for level in inputs.levels]}: train a head"
            )
        self.level = fitting[0]
        finest = inputs.levels[self.level]
        self.uses_c1 = c1 and inputs.c1 is not None and inputs.c1.channels == finest.channels
        self.note: str | None = None
        """Why C1 is left out although it was asked for."""
        if c1 and not self.uses_c1:
            self.note = (
                "C1 is left out: the cache has none"
                if inputs.c1 is None
                else f"C1 is left out: it has {inputs.c1.channels} channels, the encoder {finest.channels}"
            )
        self.covers_image = not roi_align
        stride = inputs.c1.stride if inputs.c1 is not None and self.uses_c1 else finest.stride
        self.roi_align = RoiAlign(size=WHOLE_IMAGE_SIDE if self.covers_image else roi_size, sampling=2, stride=stride)

    mask_depends_on_query_alone = True
    """RoIs of equal query and box have equal masks."""

    @property
    def mask_side(self) -> int:
        """Side of the predicted masks."""
        return self.roi_align.size

    def forward(self, images: list[ImageFeatures], rois: Rois) -> HeadOutput:
        """Segment N boxes in B images; masks are to be pasted into `boxes(rois)`."""
        logits = rois.queries.new_zeros(len(rois.boxes), self.mask_side, self.mask_side)
        boxes = self.boxes(rois)
        for index in rois.image_index.unique().tolist():
            mine = (rois.image_index == index).nonzero().flatten()
            feature = self._map(images[index])
            if self.covers_image:
                # One dot product on the whole map, resized for all: cutting F for each query would be the same.
                maps = torch.einsum("nd,dhw->nhw", rois.queries[mine], feature[0])
                logits[mine] = upsample(maps[:, None], (self.mask_side, self.mask_side))[:, 0]
                continue
            cut = self.roi_align(feature, torch.zeros_like(mine), boxes[mine], [images[index].size])
            logits[mine] = torch.einsum("nd,ndhw->nhw", rois.queries[mine], cut)
        return HeadOutput(mask_logits=logits, iou=None)

    def boxes(self, rois: Rois) -> Tensor:
        """(N, 4) cxcywh in 0..1 that the masks cover: the RoIs' own, or the whole image."""
        if not self.covers_image:
            return rois.boxes
        whole = rois.boxes.new_tensor([[0.0, 0.0, 1.0, 1.0]])
        return box_convert(whole, "xyxy", "cxcywh").expand(len(rois.boxes), 4)

    def _map(self, image: ImageFeatures) -> Tensor:
        """F of one image, (1, D, H, W) (Eq. 1)."""
        finest = image.levels[self.level][None]
        if image.c1 is None or not self.uses_c1:
            return finest
        return image.c1[None] + upsample(finest, (image.c1.shape[1], image.c1.shape[2]))
