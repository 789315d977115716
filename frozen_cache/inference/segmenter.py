"""`InstanceSegmenter`: a frozen detector and its mask head, called on pictures."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor
from typing_extensions import Unpack

from frozen_cache.cache.close_up import CloseUp
from frozen_cache.cache.collect import LabelTable, collect_view
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.tta import TTA_VIEWS, view_transform
from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import apply_view, in_frame
from frozen_cache.detectors.lazy_stem import stem_of
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.averaging import head_segmenter, mean_of_views
from frozen_cache.evaluation.fused import FusedSegmenter
from frozen_cache.evaluation.fusion import fuse
from frozen_cache.evaluation.guided import colour_planes
from frozen_cache.inference.choice import THRESHOLD, Choice, places_of
from frozen_cache.inference.images import ImageLike, as_picture
from frozen_cache.inference.instances import Instances
from frozen_cache.inference.load import load_models
from frozen_cache.inference.model import Model

Item = TypeVar("Item")


@dataclass(frozen=True)
class PreparedImage:
    """A view of one picture, resized for the detector."""

    transform: ViewTransform
    """Of a picture itself: that of its plain view."""
    pixels: tuple[Tensor, ...]
    """(3, H, W) in 0..255; behind it the enlarged one, where the detector wants it."""
    guide: np.ndarray | None = None
    """(3, H, W) uint8 of the picture, where masks are to take over its edges."""
    own: Tensor | None = None
    """(3, H, W) uint8, what the view shows of the picture, where the head zooms."""
    view: int = 0
    """0 is the plain resize."""
    further: tuple[PreparedImage, ...] = ()
    """Of a plain view: the others over which its masks are averaged."""


class CallOptions(TypedDict, total=False):
    """The keyword arguments of a call of `InstanceSegmenter`, which explains them."""

    threshold: float
    classes: Sequence[str | int] | None
    max_detections: int | None
    mask_threshold: float
    batch_size: int


class InstanceSegmenter:
    """Finds the instances in pictures: boxes by the frozen detector, masks by the head that was trained on it.

    The same code as `frozen-cache evaluate`, from the picture on: same boxes, masks and scores. Threads may share one:
    the networks run for one call at a time, pictures are read and masks pasted side by side.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        roi_sizes: Sequence[int] = (),
        views: int = 1,
        tta: bool = False,
        guided: bool = False,
    ) -> None:
        """Put a model on a device; `InstanceSegmenter.load` is the usual way here."""
        if views < 1:
            raise UserError(f"views {views}: give 1 or more")
        if tta and views > 1:
            raise UserError(
                f"views {views} average masks in the plain view's boxes, tta fuses the boxes too: leave one out"
            )
        self._views, self._tta = TTA_VIEWS if tta else views, tta
        self._device = pick_device(device)
        self._model = model
        self._guided = guided
        self._detector = model.detector.to(self._device)
        self._head = head_segmenter(
            [model.head, *model.further], encoder_layer=model.encoder_layer, device=self._device, roi_sizes=roi_sizes
        )
        self._fused = FusedSegmenter(self._head)
        self._stem = stem_of(self._detector, autocast=model.autocast) if self._head.zooms else None
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        detector: str | FrozenDetector | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        roi_sizes: Sequence[int] = (),
        views: int = 1,
        tta: bool = False,
        guided: bool = False,
    ) -> InstanceSegmenter:
        """The segmenter of a run directory of train-head, or of a folder that `frozen-cache export` made.

        Args:
            path: the run or folder; or several whose heads belong to one detector: their masks are averaged.
            detector: where a run's detector is now, as `--detector` takes it, or the detector itself; None for where
                it was when its features were cached. A folder has its own.
            weights: the checkpoint of a named detector.
            device: `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
            roi_sizes: the masks are averages of those at these sides of the RoI; none for the head's own.
            views: and of those in so many views of each picture, the plain one included; each goes through the
                detector. They are those that an extraction with as many views makes of an image with the id 0.
            tta: the detections of seven views of each picture (whole, mirrored, five tiles) are fused, masks averaged.
            guided: masks take over the edges of the pictures (guided filter).

        Raises:
            UserError: nothing of the kind is there, or the detector is gone or has changed.
        """
        given = None if weights is None else Path(weights)
        paths = [path] if isinstance(path, str | os.PathLike) else path
        model = load_models([Path(each) for each in paths], detector=detector, weights=given)
        return cls(model, device=device, roi_sizes=roi_sizes, views=views, tta=tta, guided=guided)

    @property
    def names(self) -> dict[int, str]:
        """Category id -> class name."""
        return {category["id"]: category["name"] for category in self._model.categories}

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], **options: Unpack[CallOptions]) -> list[Instances]: ...

    @overload
    def __call__(self, images: ImageLike, **options: Unpack[CallOptions]) -> Instances: ...

    def __call__(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        *,
        threshold: float = THRESHOLD,
        classes: Sequence[str | int] | None = None,
        max_detections: int | None = None,
        mask_threshold: float = 0.5,
        batch_size: int = 1,
    ) -> Instances | list[Instances]:
        """Segment one image, or a list of them.

        Args:
            images: a path (turned upright as its EXIF data says), a PIL image, a numpy array (H, W, 3) uint8 RGB, or
                a tensor (3, H, W), uint8 or floats in 0..1; or a list or tuple of such.
            threshold: instances with a lower score are left out; 0 keeps all that the detector selects.
            classes: names or category ids to keep; None for all.
            max_detections: at most so many of the best; None for all.
            mask_threshold: from which probability a pixel belongs to a mask.
            batch_size: images of a list that go through the detector together, where their resized sizes are equal.

        Returns:
            `Instances` of the image, or a list with those of each image.

        Raises:
            UserError: an image that cannot be read or has another form, a class that is not known.
        """
        choice = self.choice(
            threshold=threshold, classes=classes, max_detections=max_detections, mask_threshold=mask_threshold
        )
        asked = images if isinstance(images, list | tuple) else [images]
        prepared = (self.prepare(as_picture(image)) for image in asked)
        found = [
            self.segment(view, choice, guide=image.guide, further=others)
            for batch in in_batches(prepared, batch_size, prepared=lambda image: image)
            for image, view, others in zip(batch, self.detect(batch), self.detect_further(batch), strict=True)
        ]
        return found if asked is images else found[0]

    def choice(
        self,
        *,
        threshold: float = THRESHOLD,
        classes: Sequence[str | int] | None = None,
        max_detections: int | None = None,
        mask_threshold: float = 0.5,
    ) -> Choice:
        """What to keep of the detections, checked; the arguments are those of a call."""
        return Choice(
            threshold=threshold,
            classes=None if classes is None else places_of(classes, self._model.categories),
            max_detections=max_detections,
            mask_threshold=mask_threshold,
        )

    def prepare(self, picture: Image.Image) -> PreparedImage:
        """An RGB picture in the detector's size. Needs no device: any thread may do it."""
        plain, *further = (self._prepared(picture, number) for number in range(self._views))
        return replace(plain, guide=colour_planes(picture) if self._guided else None, further=tuple(further))

    def _prepared(self, picture: Image.Image, number: int) -> PreparedImage:
        spec = self._detector.spec
        size = picture.height, picture.width
        transform = view_transform(spec.input, size, image_id=0, view_index=number, tta=self._tta)
        return PreparedImage(
            transform,
            tuple(
                apply_view(picture, transform, spec.input, scale=scale) for scale in sorted({1, spec.backbone_scale})
            ),
            own=None if self._stem is None else pil_to_tensor(in_frame(picture, transform)),
            view=number,
        )

    @torch.inference_mode()
    def detect(self, batch: Sequence[PreparedImage]) -> list[CachedView]:
        """Run the detector on views of one resized size: what a cache would hold of each, its maps on the device."""
        sizes = [torch.stack(each) for each in zip(*(image.pixels for image in batch), strict=True)]
        model = self._model
        with self._lock:
            output = run_detector(self._detector, *sizes, device=self._device, autocast=model.autocast)
        output = replace(
            output,
            queries=output.queries.cpu(),
            boxes=output.boxes.cpu(),
            scores=output.scores.cpu(),
            labels=output.labels.cpu(),
        )
        ids = [category["id"] for category in model.categories]
        table = LabelTable.build(output.labels, model.label_to_category, ids)
        views = [
            collect_view(
                output,
                index,
                image_id=0,
                view=image.view,
                transform=image.transform,
                truth=GroundTruth.none(),
                table=table,
                top_k=model.top_k,
                one_label_per_query=self._detector.spec.one_label_per_query,
            )
            for index, image in enumerate(batch)
        ]
        if model.kept is not None:
            views = [model.kept.rounded(view) for view in views]
        return [
            view if self._stem is None or image.own is None else replace(view, close_up=CloseUp(image.own, self._stem))
            for view, image in zip(views, batch, strict=True)
        ]

    def detect_further(self, batch: Sequence[PreparedImage]) -> list[list[CachedView]]:
        """What `detect` gives for the further views of each image; those of one size go through the detector together,
        at most one of each image."""
        found: list[list[CachedView]] = [[] for _ in batch]
        for number in range(self._views - 1):
            alike: dict[tuple[int, int], list[int]] = defaultdict(list)
            for at, image in enumerate(batch):
                alike[image.further[number].transform.resized_size].append(at)
            for places in alike.values():
                views = self.detect([batch[at].further[number] for at in places])
                for at, view in zip(places, views, strict=True):
                    found[at].append(view)
        return found

    def segment(
        self, view: CachedView, choice: Choice, *, guide: np.ndarray | None = None, further: Sequence[CachedView] = ()
    ) -> Instances:
        """Masks for the pairs of a plain view that are to be kept, averaged over it and the `further` ones; with `tta`
        for those of all of them fused. With the `guide` of its `PreparedImage` they take over the picture's edges."""
        if self._tta:
            view = fuse(view, further)
        if self._head.mask_depends_on_query_alone:
            # A mask's score is the box's score times at most 1: what is too low stays so, and needs no mask.
            view = choice.of_view(view)
        with self._lock:
            masks = self._fused(view) if self._tta else mean_of_views(self._head, view, further)
            found = replace(masks, guide=guide)
        instances = Instances.of_view(view, found, self._model.categories, mask_threshold=choice.mask_threshold)
        return choice.of_instances(instances, view.labels[: view.selected])


def in_batches(
    images: Iterable[Item], batch_size: int, *, prepared: Callable[[Item], PreparedImage]
) -> Iterator[list[Item]]:
    """Runs of items whose prepared images have one resized size, at most `batch_size` each, in their order."""
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}: give 1 or more")
    batch: list[Item] = []
    for image in images:
        size = prepared(image).transform.resized_size
        if batch and (len(batch) == batch_size or prepared(batch[0]).transform.resized_size != size):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch
