"""Detector, selection and mask head as one module whose inputs and outputs are tensors: what becomes the ONNX graph."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from frozen_cache.errors import UserError
from frozen_cache.export.sampling import roi_align_by_gather
from frozen_cache.head.inputs import Rois
from frozen_cache.inference.model import Model
from frozen_cache.masks.score import foreground_score, predicted_iou_score


class SegmenterGraph(nn.Module):
    """Images to boxes, labels, scores and masks: the same steps as `InstanceSegmenter`, without a choice that depends
    on values, so that every shape follows from those of the images.

    Args:
        model: on the CPU.
        gather: RoIs are cut by gather arithmetic, not by the operator RoiAlign.
        pasted: masks cover the whole input.

    Raises:
        UserError: a head that no graph can hold.
    """

    def __init__(self, model: Model, *, gather: bool, pasted: bool) -> None:
        super().__init__()
        if model.head.config.mask_head == "segmenter":
            raise UserError(
                "head.mask_head=segmenter cannot become ONNX: its norm runs over as many masks as an image happens to "
                "have; export a head with mask_head=dot or fcn"
            )
        if model.head.config.refine is not None:
            raise UserError(
                "head.refine cannot become ONNX: no graph holds the boundary stage yet; export a folder "
                "(--format folder), or train without it"
            )
        if model.head.config.zoom is not None:
            raise UserError(
                "head.zoom cannot become ONNX: no graph holds the stem on crops of the image; export a folder "
                "(--format folder), or train without it"
            )
        if gather and model.head.config.roi_sampling == 0:
            raise UserError(
                "head.roi_sampling=0 takes as many samples as a bin has pixels, which gather arithmetic cannot: "
                "export without --gather"
            )
        self.detector: Any = model.detector
        # Weights that are held by no module would be copied into the graph one by one.
        self.parts = nn.ModuleList(part for part in vars(model.detector).values() if isinstance(part, nn.Module))
        self.head, self.layer = model.head, model.encoder_layer
        self.gather, self.pasted = gather, pasted
        spec = model.detector.spec
        self.spec, self.rule = spec, spec.input
        place = {category["id"]: at for at, category in enumerate(model.categories)}
        known = [(label, place[model.label_to_category[label]]) for label in sorted(model.label_to_category)
                 if model.label_to_category[label] in place]  # fmt: skip
        self.register_buffer("columns", torch.tensor([label for label, _ in known]), persistent=False)
        self.register_buffer("places", torch.tensor([at for _, at in known]), persistent=False)
        ids = [category["id"] for category in model.categories]
        self.register_buffer("category_ids", torch.tensor(ids), persistent=False)
        pairs = spec.num_queries * (1 if spec.one_label_per_query else len(known))
        self.count = min(model.top_k, pairs)

    columns: Tensor
    places: Tensor
    category_ids: Tensor

    def forward(self, images: Tensor, enlarged: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Segment.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..255, resized by the detector's input rule.
            enlarged: (B, 3, s H, s W) of the same images, where the detector's `backbone_scale` s is above 1.

        Returns:
            Boxes (B, K, 4) xyxy in 0..1 of the image; labels (B, K) int64 category ids; scores (B, K) of the masks, in
            the order of the boxes' scores; mask probabilities (B, K, R, R) over the box enlarged by `roi_scale`, or
            (B, K, H, W) where they are pasted.
        """
        normalised = self.rule.normalise(images)
        output = self.detector(normalised) if enlarged is None else self.detector(
            normalised, self.rule.normalise(enlarged))  # fmt: skip
        class_scores, query, label = self._select(output.scores.float())
        batch = images.shape[0]
        rois = Rois(
            image_index=torch.arange(batch)[:, None].expand(-1, self.count).flatten(),
            boxes=_rows(output.boxes.float(), query),
            queries=_rows(output.queries.float(), query),
            labels=label.flatten(),
        )
        c1 = output.c1 if self.head.uses_c1 else None
        feature = self.head.feature_map(c1, output.encoder[self.layer])
        logits, iou, _ = self.head.segment(self._cut(feature, rois, images), rois)
        masks = logits.float().sigmoid()
        if iou is None:
            scores = foreground_score(class_scores.flatten(), masks)
        else:
            scores = predicted_iou_score(class_scores.flatten(), iou, rois.labels)
        if self.pasted:
            masks = _paste(masks, self.head.boxes(rois), images)
        shape = (batch, self.count)
        boxes = box_convert(rois.boxes, "cxcywh", "xyxy")
        return (
            boxes.reshape(*shape, 4),
            self.category_ids[label],
            scores.reshape(shape),
            masks.reshape(*shape, masks.shape[1], masks.shape[2]),
        )

    def _select(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, query and category place of the K best pairs of each image (B, K), as `select_pairs` picks them."""
        scores = scores[:, :, self.columns]
        if self.spec.one_label_per_query:
            best, column = scores.max(dim=2)
            values, query = best.topk(self.count)
            return values, query, self.places[column.gather(1, query)]
        values, flat = scores.flatten(1).topk(self.count)
        query = torch.div(flat, len(self.columns), rounding_mode="floor")
        return values, query, self.places[flat - query * len(self.columns)]

    def _cut(self, feature: Tensor, rois: Rois, images: Tensor) -> Tensor:
        """(N, D, R, R): `RoiAlign` of the head, for images of one size."""
        cutter = self.head.roi_align
        width, height = images.shape[3] / cutter.stride, images.shape[2] / cutter.stride
        x0, y0, x1, y1 = box_convert(self.head.boxes(rois), "cxcywh", "xyxy").unbind(1)
        corners = torch.stack([x0 * width, y0 * height, x1 * width, y1 * height], dim=1)
        if self.gather:
            return roi_align_by_gather(feature, rois.image_index, corners, size=cutter.size, sampling=cutter.sampling)
        boxes = torch.cat([rois.image_index[:, None].to(feature.dtype), corners], dim=1)
        return cast(Tensor, roi_align(feature, boxes, cutter.size, sampling_ratio=cutter.sampling, aligned=True))


def _rows(values: Tensor, query: Tensor) -> Tensor:
    """(B * K, D) of values (B, Q, D) at the queries (B, K)."""
    return values.gather(1, query[..., None].expand(-1, -1, values.shape[2])).flatten(0, 1)


def _paste(masks: Tensor, boxes_cxcywh: Tensor, images: Tensor) -> Tensor:
    """(N, H, W) probabilities of masks (N, R, R) stretched over boxes in 0..1, as `paste_masks` does."""
    x0, y0, x1, y1 = box_convert(boxes_cxcywh, "cxcywh", "xyxy").unbind(1)
    rows = _axis_weights(y0, y1, images.shape[2], masks.shape[1])
    columns = _axis_weights(x0, x1, images.shape[3], masks.shape[2])
    return rows @ masks @ columns.transpose(1, 2)


def _axis_weights(low: Tensor, high: Tensor, length: int, side: int) -> Tensor:
    """(N, length, R): what each pixel takes from each mask cell (`paste_weights`), within the box's `pixel_span`."""
    low, high = (low * length)[:, None], (high * length)[:, None]
    pixel = torch.arange(length, dtype=low.dtype)
    at = (pixel + 0.5 - low) / (high - low).clamp(min=1e-6) * side - 0.5
    weights = (1 - (at[..., None] - torch.arange(side, dtype=low.dtype)).abs()).clamp(min=0)
    inside = (pixel >= low.floor() - 1) & (pixel < high.ceil() + 1)
    return weights * inside[..., None].to(weights.dtype)
