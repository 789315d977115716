"""`Instances`: what was found in one image. Masks are pasted when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.errors import UserError
from frozen_cache.masks.paste import paste_masks
from frozen_cache.masks.rle import paste_rles

if TYPE_CHECKING:
    from supervision import Detections

    from frozen_cache.cache.attributes import Category
    from frozen_cache.cache.view import CachedView
    from frozen_cache.evaluation.segmenters import Segmentation


@dataclass(frozen=True, eq=False)
class Instances:
    """N instances of one image of H x W pixels. Arrays are numpy's, in the detector's order: by falling box score.

    `len(instances)` is N; `instances[where]` picks some of them, by anything that indexes an array.
    """

    size: tuple[int, int]
    """(H, W) of the image, in pixels."""
    boxes: np.ndarray
    """(N, 4) float32 xyxy, in pixels: the detector's boxes. They may leave the image a little."""
    labels: np.ndarray
    """(N,) int64 category ids of the data set that the head was trained on."""
    scores: np.ndarray
    """(N,) float32 in 0..1, of the masks: those that `evaluate` ranks by."""
    box_scores: np.ndarray
    """(N,) float32 in 0..1, of the boxes: the detector's own."""
    names: list[str]
    """N class names."""
    probabilities: np.ndarray
    """(N, R, R) float32 in 0..1, the head's masks; each covers its `mask_boxes`."""
    mask_boxes: np.ndarray
    """(N, 4) float32 xyxy, in pixels."""
    mask_threshold: float = 0.5
    """From which probability a pixel belongs to a mask."""
    guide: np.ndarray | None = None
    """(3, H, W) uint8, the image, where the masks take over its edges as they are pasted."""
    whole: list[dict[str, Any]] | None = None
    """N masks as they were found at the image's own size, as `rles` has them; None where they are pasted."""

    @classmethod
    def of_view(
        cls, view: CachedView, found: Segmentation, categories: Sequence[Category], *, mask_threshold: float = 0.5
    ) -> Instances:
        """The selected pairs of a plain view, with what a segmenter found for them."""
        from frozen_cache.boxes import to_pixels  # torch's: what is here already needs none of it

        labels = view.labels[: view.selected].tolist()
        frame = view.transform.crop_size
        return cls(
            size=frame,
            boxes=to_pixels(view.boxes[: view.selected], frame).numpy(),
            labels=np.array([categories[label]["id"] for label in labels], dtype=np.int64),
            scores=found.scores.numpy(),
            box_scores=view.scores[: view.selected].numpy(),
            names=[categories[label]["name"] for label in labels],
            probabilities=found.masks.numpy(),
            mask_boxes=to_pixels(found.boxes, frame).numpy(),
            mask_threshold=mask_threshold,
            guide=found.guide,
            whole=found.whole,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, where: Any) -> Instances:
        rows = np.atleast_1d(np.arange(len(self))[where])
        return Instances(
            size=self.size,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            box_scores=self.box_scores[rows],
            names=[self.names[row] for row in rows],
            probabilities=self.probabilities[rows],
            mask_boxes=self.mask_boxes[rows],
            mask_threshold=self.mask_threshold,
            guide=self.guide,
            whole=None if self.whole is None else [self.whole[row] for row in rows],
        )

    @cached_property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool, at the image's own size. Large for many instances in a large image; `rles` is not."""
        if self.whole is not None:
            return np.array([coco_mask.decode(rle) for rle in self.whole], dtype=bool).reshape(-1, *self.size)
        return paste_masks(
            self.probabilities, self.mask_boxes, self.size, threshold=self.mask_threshold, guide=self.guide
        )

    @cached_property
    def rles(self) -> list[dict[str, Any]]:
        """N masks as COCO's compressed run lengths, `{"size": [H, W], "counts": text}`."""
        if self.whole is not None:
            return self.whole
        return paste_rles(
            self.probabilities, self.mask_boxes, self.size, threshold=self.mask_threshold, guide=self.guide
        )

    def to_coco(self, image_id: int = 0, *, kind: Literal["segm", "bbox"] = "segm") -> list[dict[str, Any]]:
        """N COCO results: `segm` with masks and their scores, `bbox` with boxes (x, y, width, height) and theirs.

        Raises:
            UserError: another kind.
        """
        if kind not in ("segm", "bbox"):
            raise UserError(f"kind {kind}: give segm or bbox")
        common = [{"image_id": image_id, "category_id": label} for label in self.labels.tolist()]
        if kind == "segm":
            return [
                base | {"segmentation": rle, "score": score}
                for base, rle, score in zip(common, self.rles, self.scores.tolist(), strict=True)
            ]
        corner, extent = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        boxes = np.concatenate([corner, extent], axis=1).tolist()
        return [
            base | {"bbox": box, "score": score}
            for base, box, score in zip(common, boxes, self.box_scores.tolist(), strict=True)
        ]

    def to_supervision(self) -> Detections:
        """As `supervision.Detections`: xyxy, mask, confidence (`scores`), class_id (`labels`), data["class_name"].

        Raises:
            UserError: supervision is not installed; `pip install frozen-cache[supervision]` brings it.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise UserError("to_supervision() needs supervision: pip install 'frozen-cache[supervision]'") from error
        return Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )
