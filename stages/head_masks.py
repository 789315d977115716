"""Masks that a trained head gives to annotated boxes: the second round of learning from boxes or points alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozen_cache.boxes import to_pixels, to_unit
from frozen_cache.cache.attributes import PromptedBy
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.relabel import Relabelling
from frozen_cache.data.annotation import CocoAnnotation, boxes_xyxy
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.supervision import Supervision
from frozen_cache.device import pick_device
from frozen_cache.evaluation.object_masks import ObjectMasks, object_masks
from frozen_cache.evaluation.segmenters import FeatureSegmenter, read_for
from frozen_cache.inference.any_head import any_head, head_record
from frozen_cache.masks.paste import paste_masks
from frozen_cache.remote import CachePath
from frozen_cache.report.photographs import Photographs
from frozen_cache.training.guess import guessed_masks
from frozen_cache.training.trained_head import check_fits
from frozen_cache.training.weak_targets import shown_points, within

SUREST = 1e-4
"""Probabilities nearer to 0 or 1 are no surer."""


class HeadMasks:
    """A head as the maker of masks (`MaskMaker`): the mean over an image's cached views, corrected by the colours of
    the picture, where that is at hand, and by the points that are known of the object.

    Args:
        run: its run directory, a checkpoint in one, or an exported folder.
        cache: whose features it reads.
        relabelling: gives the cache's views the objects that are asked for.
        pictures: of the images.
        device: auto, cpu, cuda.

    Raises:
        UserError: there is no such head, or it is of another detector or other categories.
    """

    def __init__(
        self, run: Path, cache: CachePath, relabelling: Relabelling, pictures: Photographs, *, device: str
    ) -> None:
        record = head_record(run, option="--masks-from")
        self._reader = CacheReader(cache, c1_scale=record.backbone_scale)
        head, record, file = any_head(run)
        check_fits(record, self._reader, head=run, cache=cache)
        self._segmenter = FeatureSegmenter(head, encoder_layer=record.encoder_layer, device=pick_device(device))
        self._relabelling, self._pictures = relabelling, pictures
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.by = PromptedBy(model=f"the head of {file.resolve().parent.name}", sha256=sha256)
        self.question: list[Any] = ["head", sha256, self._reader.attributes.fingerprint, pictures.note == ""]
        self._views: dict[int, list[int]] = defaultdict(list)
        for at, (image, _) in enumerate(self._reader.views):
            self._views[image].append(at)

    def check(self, images: Sequence[CocoImage]) -> None:
        """Nothing is missing: without pictures, colours do not count."""

    def __call__(self, image: CocoImage, asked: list[int]) -> Iterator[tuple[Tensor, float] | None]:
        """See `MaskMaker`."""
        annotations = [image.annotations[place] for place in asked]
        views = (self._relabelling.view(read_for(self._segmenter, self._reader, at)) for at in self._views[image.id])
        size = image.height, image.width
        corners = torch.from_numpy(boxes_xyxy(annotations)).float()
        ids = [annotation.id for annotation in annotations]
        found = object_masks(views, self._segmenter, ids=ids, boxes=to_unit(corners, size))
        made = dict(zip(found.places, self._corrected(image, annotations, corners, found), strict=True))
        scores = dict(zip(found.places, found.scores.tolist(), strict=True))
        for place in range(len(asked)):
            if place not in made:
                yield None
                continue
            mask, box = made[place]
            pasted = paste_masks(mask[None], box[None], size, threshold=None)[0]
            yield torch.from_numpy(pasted) - 0.5, scores[place]

    def _corrected(
        self, image: CocoImage, annotations: list[CocoAnnotation], corners: Tensor, found: ObjectMasks
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(R, R) probabilities and (4,) xyxy in pixels that they cover, of each object found."""
        size = image.height, image.width
        picture = self._pictures.find(image.id, size)
        pixels = None if picture is None else torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        covered = to_pixels(found.boxes, size)
        known = Supervision.of(
            [annotations[place].kind for place in found.places], [annotations[place].points for place in found.places]
        )
        masks = guessed_masks(
            pixels,
            rois=found.boxes,
            boxes=within(corners[found.places], covered),
            side=found.masks.shape[-1],
            points=shown_points(torch.from_numpy(known.points), covered),
            prior=found.masks.logit(SUREST),
        )
        yield from zip(masks.numpy(), covered.numpy(), strict=True)
