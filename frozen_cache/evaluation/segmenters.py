"""Ways to give each detection a mask: a trained head, the training-free baseline (Eq. 1 to 4), the filled box.

A prompted model is another one (`frozen_cache.evaluation.prompted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from frozen_cache.cache.close_up import zoomed_maps
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import NotFiniteError
from frozen_cache.head.inputs import HeadOutput, ImageFeatures, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.training_free import TrainingFree
from frozen_cache.masks.score import foreground_score, predicted_iou_score
from frozen_cache.training.batches import features_to, view_features


@dataclass(frozen=True)
class Segmentation:
    """The masks of the K selected pairs of one view."""

    masks: Tensor
    """(K, R, R) float32 probabilities, on the CPU."""
    boxes: Tensor
    """(K, 4) float32 cxcywh in 0..1 of the view: what each mask covers, on the CPU."""
    scores: Tensor
    """(K,) float32 scores of the masks."""
    guide: np.ndarray | None = None
    """(3, H, W) uint8, the image, where pasted masks are to take over its edges."""
    whole: list[dict[str, Any]] | None = None
    """K masks as COCO's run lengths, counts as text, where they were found at the view's own size: none is pasted."""

    def __getitem__(self, rows: slice) -> Segmentation:
        """Of some of the pairs."""
        return Segmentation(
            masks=self.masks[rows],
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            guide=self.guide,
            whole=None if self.whole is None else self.whole[rows],
        )


class Segmenter(Protocol):
    """Gives masks and mask scores to the selected pairs of a view."""

    encoder_layer: int | None
    """The cached encoder layer that it reads; None where it reads no features."""

    @property
    def device(self) -> torch.device | None:
        """Where it reads them; None where it reads none."""
        ...

    @property
    def zooms(self) -> bool:
        """Whether it reads a view's own pixels, too."""
        ...

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the view's selected pairs."""
        ...


class AroundSegmenter:
    """What is done to the masks of another segmenter; it reads what that one reads."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.encoder_layer = segmenter.encoder_layer

    @property
    def device(self) -> torch.device | None:
        """Where features are read."""
        return self.segmenter.device

    @property
    def zooms(self) -> bool:
        """Whether the segmenter does."""
        return self.segmenter.zooms


class FeatureSegmenter:
    """Masks from cached features: by a trained head, scored c * predicted IoU (Eq. 12; Eq. 2 without mask scoring), or
    by the paper's training-free baseline, scored by Eq. 2.

    Args:
        half: what autocast computes the model in; None for float32.
    """

    def __init__(
        self,
        model: MaskHead | TrainingFree,
        *,
        encoder_layer: int,
        device: torch.device,
        half: torch.dtype | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.encoder_layer: int | None = encoder_layer
        self.device = device
        self._half = half
        self._zoom = model.config.zoom if isinstance(model, MaskHead) else None

    @property
    def mask_depends_on_query_alone(self) -> bool:
        """Whether RoIs of equal query and box have equal masks, whatever their labels and neighbours are."""
        return self.model.mask_depends_on_query_alone

    @property
    def zooms(self) -> bool:
        """Whether the head reads crops of the boxes."""
        return self._zoom is not None

    @torch.inference_mode()
    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the view's selected pairs."""
        images, rois = _inputs(view, self.encoder_layer, self.device)
        boxes = self.model.boxes(rois).cpu()
        if not self.model.mask_depends_on_query_alone:
            return _segmentation(view, self._predicted(images, self._zoomed(view, rois)), boxes)
        distinct, pair = _distinct(rois)
        output = self._predicted(images, self._zoomed(view, distinct))
        iou = None if output.iou is None else output.iou[pair]
        return _segmentation(view, HeadOutput(mask_logits=output.mask_logits[pair], iou=iou), boxes)

    def _predicted(self, images: list[ImageFeatures], rois: Rois) -> HeadOutput:
        if self._half is None:
            return self.model(images, rois)
        with torch.autocast(self.device.type, dtype=self._half):
            return self.model(images, rois)

    def _zoomed(self, view: CachedView, rois: Rois) -> Rois:
        """With maps of crops of the boxes, where the head wants them."""
        if self._zoom is None or not len(rois.boxes):
            return rois
        if view.close_up is None:
            raise ValueError(f"image {view.image_id}: the head zooms; read the view with close_up=True")
        near = [view.close_up.to(rois.boxes.device)]
        return replace(rois, zoomed=zoomed_maps(near, [self.model.boxes(rois)], side=self._zoom))


class BoxSegmenter:
    """The whole box as the mask, with the box's score: what a mask head has to beat."""

    encoder_layer: int | None = None
    device: torch.device | None = None
    zooms = False

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the view's selected pairs."""
        # A mask fades out over half a cell at its border, so one cell would round the whole box.
        masks = torch.ones(view.selected, 1, 1).expand(-1, 64, 64)
        return Segmentation(masks=masks, boxes=view.boxes[: view.selected], scores=view.scores[: view.selected])


class ReadableViews(Protocol):
    """Numbered views of a cache, or of images with the detector in the loop."""

    def read(
        self,
        index: int,
        *,
        encoder_layers: Sequence[int] | None = None,
        c1: bool = True,
        device: torch.device | None = None,
        close_up: bool = False,
    ) -> CachedView:
        """One view with its maps as float32 on a device; with its own pixels where a `close_up` is asked for."""
        ...


def read_for(segmenter: Segmenter, reader: ReadableViews, index: int) -> CachedView:
    """A view with what a segmenter reads of it, where it reads it."""
    layer = segmenter.encoder_layer
    layers = () if layer is None else (layer,)
    return reader.read(
        index, encoder_layers=layers, c1=layer is not None, device=segmenter.device, close_up=segmenter.zooms
    )


def _inputs(view: CachedView, layer: int | None, device: torch.device) -> tuple[list[ImageFeatures], Rois]:
    count = view.selected
    rois = Rois(
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        boxes=view.boxes[:count].to(device),
        queries=view.queries[:count].to(device, torch.float32),
        labels=view.labels[:count].to(device),
    )
    return [features_to(view_features(view, layer), device)], rois


def _distinct(rois: Rois) -> tuple[Rois, Tensor]:
    """The queries of one image without repeats (a query can be selected with several labels), and each RoI's place
    among them, (K,) int64."""
    _, pair = torch.cat([rois.boxes, rois.queries], dim=1).unique(dim=0, return_inverse=True)
    first = torch.full((int(pair.max()) + 1 if len(pair) else 0,), len(pair), device=pair.device)
    first = first.scatter_reduce(0, pair, torch.arange(len(pair), device=pair.device), "amin")
    distinct = Rois(
        image_index=rois.image_index[first],
        boxes=rois.boxes[first],
        queries=rois.queries[first],
        labels=rois.labels[first],
    )
    return distinct, pair


def _segmentation(view: CachedView, output: HeadOutput, boxes: Tensor) -> Segmentation:
    for name, values in (("mask logits", output.mask_logits), ("mask scores", output.iou)):
        if values is not None and not torch.isfinite(values).all():
            raise NotFiniteError(
                f"image {view.image_id}: the head's {name} are not finite; its weights or the cached features are too "
                "large for the precision that it runs in"
            )
    masks = output.mask_logits.float().sigmoid().cpu()
    classes = view.scores[: view.selected]
    if output.iou is None:
        return Segmentation(masks=masks, boxes=boxes, scores=foreground_score(classes, masks))
    labels = view.labels[: view.selected]
    scores = predicted_iou_score(classes, output.iou.float().cpu(), labels)
    return Segmentation(masks=masks, boxes=boxes, scores=scores)
