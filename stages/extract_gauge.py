"""Whether a finished cache makes sense: objects that a detection covers, and the detector's box AP on this data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torchvision.ops import box_convert, box_iou

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import mask_boxes
from frozen_cache.errors import UserError
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.evaluate import truth_annotations
from frozen_cache.evaluation.matching import coco_in_memory
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath

IMAGES = 2000
"""Images that are looked at: enough to see that something is wrong."""
FEW_OBJECTS = 50
"""Below so many nothing can be concluded from a miss."""
LOW_SHARE = 0.1
CAUSES = "a wrong label (see the table of labels), another colour order or size of input, or another form of box"


@dataclass(frozen=True)
class CacheGauge:
    """What the rows of a cache say about its ground truth."""

    images: int
    objects: int
    covered: int
    """Objects that a detection of their class covers with an IoU of 0.5 or more, whatever its score."""
    box_ap: float
    """In 0..1."""

    @property
    def share(self) -> float:
        """Of the objects that are covered; 1 where there are none."""
        return self.covered / self.objects if self.objects else 1.0

    def lines(self) -> list[str]:
        """What is printed, with a warning where the share is suspiciously low; nothing where there is no object."""
        if not self.objects:
            return []
        found = [
            f"{self.covered:,} of {self.objects:,} objects have a detection of their class at IoU 0.5",
            f"box AP of the detector {self.box_ap:.3f} ({self.images:,} images)",
        ]
        if self.share < LOW_SHARE:
            found.append(f"warning: so few matches look like {CAUSES}")
        return found


def gauge_cache(path: CachePath) -> CacheGauge:
    """Compare rows and ground truth of the first plain views; no map is read."""
    reader = CacheReader(path)
    plain = [at for at, (_, view) in enumerate(reader.views) if view == 0][:IMAGES]
    categories = [category["id"] for category in reader.attributes.categories]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    objects = covered = 0
    with progress_bar(total=len(plain), desc="box AP", unit="img", leave=False) as bar:
        for at in plain:
            view = reader.read(at, encoder_layers=(), c1=False)
            height, width = view.transform.original_size
            images.append({"id": view.image_id, "height": height, "width": width})
            annotations += truth_annotations(view, categories)
            boxes = to_pixels(view.boxes[: view.selected], view.transform.crop_size)
            results += [
                {"image_id": view.image_id, "category_id": categories[label], "bbox": box, "score": score}
                for label, box, score in zip(
                    view.labels[: view.selected].tolist(),
                    box_convert(boxes, "xyxy", "xywh").tolist(),
                    view.scores[: view.selected].tolist(),
                    strict=True,
                )
            ]
            found = _covered(view, boxes)
            objects, covered = objects + len(found), covered + int(found.sum())
            bar.update()
    truth = coco_in_memory({"images": images, "annotations": annotations, "categories": reader.attributes.categories})
    box_ap = coco_metrics(truth, results, "bbox")["AP"]
    return CacheGauge(images=len(plain), objects=objects, covered=covered, box_ap=max(0.0, box_ap))


def refuse_nothing_matched(gauge: CacheGauge, out: CachePath, *, force: bool) -> None:
    """UserError where no object at all is covered, unless there are too few to tell."""
    if not gauge.covered and gauge.objects >= FEW_OBJECTS and not force:
        raise UserError(
            f"{out} is whole, but no detection covers any of its {gauge.objects:,} objects at IoU 0.5: {CAUSES}; "
            "--force takes it as it is"
        )


def _covered(view: CachedView, boxes: torch.Tensor) -> torch.Tensor:
    """(objects that are no crowd,) bool."""
    mine = ~torch.from_numpy(view.truth.crowd)
    truth = torch.from_numpy(mask_boxes(view.truth.masks))[mine]
    if not len(truth) or not len(boxes):
        return torch.zeros(len(truth), dtype=torch.bool)
    labels = torch.from_numpy(view.truth.categories)[mine]
    same = labels[:, None] == view.labels[None, : view.selected]
    return ((box_iou(truth, boxes) >= 0.5) & same).any(dim=1)
