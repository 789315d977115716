"""`MaskHead`: the trainable part of Mask Frozen-DETR, from cached features and boxes to masks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from frozen_cache.boxes import enlarged
from frozen_cache.errors import UserError
from frozen_cache.head.boundary_stage import TRAINED_POINTS, BoundaryStage, at_points, subdivided
from frozen_cache.head.box_encoder import BoxEncoder
from frozen_cache.head.config import LEAST_ROI, MOST_ROI, HeadConfig
from frozen_cache.head.fcn import FcnMaskHead
from frozen_cache.head.feature_map import FeatureMap
from frozen_cache.head.inputs import BoundaryPoints, HeadInputs, HeadOutput, ImageFeatures, ImageGroup, Rois, grouped
from frozen_cache.head.mask_predictor import DotProduct, SegmenterHead
from frozen_cache.head.query_encoder import QueryEncoder
from frozen_cache.head.recompute import Layers
from frozen_cache.head.roi import RoiAlign
from frozen_cache.head.scoring import MaskScoring
from frozen_cache.head.zoom import ZoomNeck
from frozen_cache.masks.points import uncertain_points
from frozen_cache.precision import wide

BLOCK_BYTES = 2**22
"""Of the RoI features that a CPU's inference refines at once: what it makes of them stays in the processor's cache."""


class MaskHead(nn.Module):
    """The mask head, sized to a detector. 3,261,712 parameters in the paper's final form for H-DETR R50 (Table 6).

    Box layers and query blocks take turns: query block i sees the RoI features after box layer i.

    Args:
        config: what it is made of.
        inputs: shapes of the cached features.
    """

    def __init__(self, *, config: HeadConfig, inputs: HeadInputs) -> None:
        super().__init__()
        self.config, self.inputs = config, inputs
        dim = config.width
        self.feature_map = FeatureMap(config=config, inputs=inputs)
        self.roi_align = RoiAlign(size=config.roi_size, sampling=config.roi_sampling, stride=self.feature_map.stride)
        self.dropout = nn.Dropout2d(config.feature_dropout)
        self.roi_query = nn.Linear(inputs.query_dim, dim) if config.query_in_roi else None
        self.box_encoder = BoxEncoder(config=config)
        self.query_projection: nn.Module = nn.Identity()
        if config.mask_head != "fcn" and inputs.query_dim != dim:
            self.query_projection = nn.Linear(inputs.query_dim, dim)
        self.query_encoder = QueryEncoder(dim=dim, parts=config.query_blocks, count=config.query_depth)
        self.predictor: nn.Module
        if config.mask_head == "fcn":
            self.predictor = FcnMaskHead(dim=dim, classes=inputs.num_classes if config.class_masks else 1)
        else:
            self.predictor = SegmenterHead(dim=dim) if config.mask_head == "segmenter" else DotProduct()
        self.scoring = (
            MaskScoring(dim=dim, size=config.roi_size, classes=inputs.num_classes) if config.mask_scoring else None
        )

        self.boundary = None if config.refine is None else BoundaryStage(dim=dim)
        self.zoom = None if config.zoom is None else self._zoom_neck()

        if isinstance(self.predictor, DotProduct):
            self._start_quietly()

    def _zoom_neck(self) -> ZoomNeck:
        if not self.inputs.zoom_channels:
            raise UserError(
                f"head.zoom={self.config.zoom} needs a C1, which this detector or cache has not: leave it out"
            )
        return ZoomNeck(channels=self.inputs.zoom_channels, dim=self.config.width)

    @torch.no_grad()
    def _start_quietly(self) -> None:
        """Let logits start with about unit variance: a dot product of D normalised numbers has sqrt(D) times that."""
        gain = self.config.width**-0.5
        if len(self.query_encoder):
            self.query_encoder.last_norm.weight.mul_(gain)
        elif isinstance(self.query_projection, nn.Linear):
            self.query_projection.weight.mul_(gain)

    @property
    def uses_c1(self) -> bool:
        """Whether C1 decides anything; where not, it need not be read."""
        return self.feature_map.uses_c1

    @property
    def mask_depends_on_query_alone(self) -> bool:
        """Whether RoIs of equal query and box have equal masks, whatever their labels and neighbours are."""
        attends = "o2o" in self.config.query_blocks and self.config.query_depth > 0
        return not attends and not self.config.class_masks and self.config.mask_head != "segmenter"

    def recompute_layers(self) -> None:
        """From now on the layers of image and box encoder are computed again in the backward pass, not kept."""
        for module in self.modules():
            if isinstance(module, Layers):
                module.recompute = True

    def at_roi_size(self, size: int) -> MaskHead:
        """The head with its own weights, shared, on RoIs of another side.

        Raises:
            UserError: weights that are bound to the side which they were trained at: a learned position of the RoI's
                cells, mask scoring.
        """
        if size == self.config.roi_size:
            return self
        bound = "learned positions of deformable box layers" if self.box_encoder.position is not None else None
        bound = "mask scoring" if self.scoring is not None else bound
        if bound is not None:
            raise UserError(
                f"RoI size {size}: the head has {bound}, for its own {self.config.roi_size} cells a side alone"
            )
        if not LEAST_ROI <= size <= MOST_ROI:
            raise UserError(f"RoI size {size}: give {LEAST_ROI} to {MOST_ROI}")
        other = copy.copy(self)
        other._modules = dict(self._modules)  # else the copy's new part would be the original's as well
        other.config = self.config.model_copy(update={"roi_size": size})
        other.roi_align = RoiAlign(size=size, sampling=self.config.roi_sampling, stride=self.feature_map.stride)
        return other

    def boxes(self, rois: Rois) -> Tensor:
        """(N, 4) cxcywh in 0..1 that the masks cover: the RoIs' own, enlarged by `roi_scale`."""
        return rois.boxes if self.config.roi_scale == 1 else enlarged(rois.boxes, self.config.roi_scale)

    def forward(self, images: Sequence[ImageFeatures] | Sequence[ImageGroup], rois: Rois) -> HeadOutput:
        """Segment N boxes in B images.

        Neighbours of equal shapes run together; images without RoIs are not touched. Each result is that of the image
        alone. Given groups, nothing waits for the device.

        Returns:
            `HeadOutput`, whose masks cover `boxes(rois)`, in float32 (float64 where the head is), also under autocast.
        """
        if len(rois.boxes) == 0:
            return self._nothing(rois)
        features = [image for image in images if isinstance(image, ImageFeatures)]
        groups = [group for group in images if isinstance(group, ImageGroup)] or grouped(features, rois)
        counts = [count for group in groups for count in group.counts]
        maps = [self.feature_map(group.c1 if self.uses_c1 else None, group.levels) for group in groups]
        if self._in_blocks(rois):
            parts = [self.segment(cut, part)[:2] for cut, part in self._blocks(maps, groups, rois)]
            scored = [iou for _, iou in parts if iou is not None]
            return HeadOutput(
                mask_logits=wide(torch.cat([logits for logits, _ in parts])),
                iou=wide(torch.cat(scored)) if scored else None,
            )
        logits, iou, cells = self.segment(self._cut(maps, groups, rois), rois, counts)
        logits, iou = wide(logits), None if iou is None else wide(iou)
        if self.boundary is None or self.config.refine is None:
            return HeadOutput(mask_logits=logits, iou=iou)
        predict = partial(self._at_points, maps, groups, self.boxes(rois), cells, logits)
        if self.training:
            points = uncertain_points(logits, points=TRAINED_POINTS)
            return HeadOutput(mask_logits=logits, iou=iou, boundary=BoundaryPoints(points, predict(points)))
        return HeadOutput(mask_logits=subdivided(logits, side=self.config.refine, predict=predict), iou=iou)

    def _cut(self, maps: list[Tensor], groups: list[ImageGroup], rois: Rois) -> Tensor:
        """(N, D, R, R) RoI features, in the order of `rois`, from F of each group."""
        covered = self.boxes(rois).split([sum(group.counts) for group in groups])
        parts = []
        for feature, group, boxes in zip(maps, groups, covered, strict=True):
            places = [boxes.new_full((count,), at, dtype=torch.int64) for at, count in enumerate(group.counts)]
            parts.append(self.roi_align(feature, torch.cat(places), boxes, group.sizes))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _in_blocks(self, rois: Rois) -> bool:
        """Whether RoIs are refined a few at a time: where they know nothing of each other, nothing is kept of them, and
        the memory's speed would be the limit."""
        alone = self.mask_depends_on_query_alone or self.config.class_masks
        apart = alone and self.boundary is None and rois.zoomed is None
        busy = self.training or torch.is_grad_enabled() or torch.compiler.is_exporting()
        return apart and not busy and rois.boxes.device.type == "cpu"

    def _blocks(self, maps: list[Tensor], groups: list[ImageGroup], rois: Rois) -> Iterator[tuple[Tensor, Rois]]:
        """RoI features of at most `BLOCK_BYTES`, or of one RoI, and these RoIs; images and order as in `rois`."""
        count = max(1, BLOCK_BYTES // (self.config.width * self.config.roi_size**2 * rois.boxes.element_size()))
        covered, start = self.boxes(rois), 0
        for feature, group in zip(maps, groups, strict=True):
            if self.roi_align.by_bags(feature):  # once, not for each block
                feature = wide(feature).contiguous(memory_format=torch.channels_last)
            for view, of_view in enumerate(group.counts):
                for first in range(start, start + of_view, count):
                    mine = slice(first, min(first + count, start + of_view))
                    boxes = covered[mine]
                    place = boxes.new_full((len(boxes),), view, dtype=torch.int64)
                    part = Rois(
                        rois.image_index[mine],
                        boxes=rois.boxes[mine],
                        queries=rois.queries[mine],
                        labels=rois.labels[mine],
                    )
                    yield self.roi_align(feature, place, boxes, group.sizes), part
                start += of_view

    def _at_points(
        self,
        maps: list[Tensor],
        groups: list[ImageGroup],
        boxes: Tensor,
        features: Tensor,
        logits: Tensor,
        points: Tensor,
    ) -> Tensor:
        """The boundary stage's logits (N, P) at points (N, P, 2) of N boxes, from F of each group, the RoI features and
        the coarse logits."""
        assert self.boundary is not None
        places = boxes[:, None, :2] + (points - 0.5) * boxes[:, None, 2:]  # x, y in 0..1 of the views
        counts = [count for group in groups for count in group.counts]
        mine, fine = iter(places.split(counts)), []
        for feature, group in zip(maps, groups, strict=True):
            for view, size in enumerate(group.sizes):
                there = self.roi_align.in_map(feature, next(mine), size)
                fine.append(at_points(wide(feature[view : view + 1]), there.flatten(0, 1)[None])[0])
        return self.boundary(
            torch.cat(fine).unflatten(0, points.shape[:2]),
            at_points(wide(features), points),
            at_points(logits[:, None], points)[..., 0],
        )

    def segment(self, cut: Tensor, rois: Rois, counts: list[int] | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
        """RoI features (N, D, R, R), in the order of `rois`, to (N, R, R) logits, (N, classes) IoU and the refined
        RoI features.

        `counts` are the RoIs of each image; None leaves them to `rois.image_index`, which may have to be waited for.
        """
        if self.zoom is not None:
            if rois.zoomed is None:
                raise ValueError(f"the head zooms (head.zoom={self.config.zoom}): give `Rois.zoomed`")
            cut = self.zoom(cut, rois.zoomed)
        features = self.dropout(cut)
        if self.roi_query is not None:
            features = features + self.roi_query(rois.queries)[:, :, None, None]
        queries = self.query_projection(rois.queries)
        for depth in range(max(len(self.box_encoder), len(self.query_encoder))):
            if depth < len(self.box_encoder):
                features = self.box_encoder(features, stage=depth)
            if depth < len(self.query_encoder):
                queries = self.query_encoder(queries, features, rois.boxes, rois.image_index, block=depth)
        if isinstance(self.predictor, FcnMaskHead):
            logits = self.predictor(features, rois.labels)
        else:
            logits = self.predictor(queries, features, rois.image_index, counts)
        return logits, None if self.scoring is None else self.scoring(logits, features), features

    def _nothing(self, rois: Rois) -> HeadOutput:
        """The output for no RoIs; it still depends on each parameter, so that a training step can pass through it."""
        anchor = sum((parameter.sum() * 0 for parameter in self.parameters()), rois.boxes.new_zeros(()))
        side = self.config.mask_side if self.training or self.config.refine is None else self.config.refine
        logits = rois.boxes.new_zeros(0, side, side) + anchor
        iou = None if self.scoring is None else rois.boxes.new_zeros(0, self.inputs.num_classes) + anchor
        boundary = None
        if self.training and self.boundary is not None:
            boundary = BoundaryPoints(rois.boxes.new_zeros(0, 1, 2), rois.boxes.new_zeros(0, 1) + anchor)
        return HeadOutput(mask_logits=logits, iou=iou, boundary=boundary)
