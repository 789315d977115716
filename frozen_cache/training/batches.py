"""From cached views to training batches: order, RoIs and targets."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from frozen_cache.boxes import enlarged, to_pixels
from frozen_cache.cache.close_up import CloseUp, zoomed_maps
from frozen_cache.cache.stored_map import StoredView
from frozen_cache.cache.view import CachedView
from frozen_cache.head.inputs import ImageFeatures, ImageGroup, Rois
from frozen_cache.masks.crop import crop_masks
from frozen_cache.training.config import LossConfig, TrainConfig
from frozen_cache.training.rois import training_rois
from frozen_cache.training.stored_group import StoredFeatures, stored_groups
from frozen_cache.training.view_source import ViewSource
from frozen_cache.training.weak_targets import WeakCollector, WeakTargets, weak_collector


class FeatureGroup(Protocol):
    """The maps of B views of equal shapes."""

    def to(self, device: torch.device) -> FeatureGroup:
        """The same on a device."""
        ...

    def tensors(self) -> list[Tensor]:
        """All that it holds and that has to be copied."""
        ...

    def decoded(self) -> ImageGroup:
        """What the head reads, float32."""
        ...


@dataclass(frozen=True)
class MadeGroup:
    """Maps that were made on the device where they are used, with their gradients."""

    made: ImageGroup

    def to(self, device: torch.device) -> MadeGroup:
        """They are there."""
        return self

    def tensors(self) -> list[Tensor]:
        """Nothing to be copied."""
        return []

    def decoded(self) -> ImageGroup:
        """As they were made."""
        return self.made


@dataclass(frozen=True)
class TrainingBatch:
    """The features of B views and the N RoIs to train on in them."""

    groups: Sequence[FeatureGroup]
    """Views of equal shapes each, in the order of the RoIs; views without RoIs are not among them."""
    rois: Rois
    """Labels are the objects' own categories."""
    targets: Tensor
    """(N, R, R) float32, the object's mask within the RoI: covered fractions, or 0 / 1."""
    box_areas: Tensor
    """(N,) of the RoIs, in pixels of the crop frame."""
    object_areas: Tensor
    """(N,) of the whole object's mask, in the same pixels."""
    fine_targets: Tensor | None = None
    """(N, S, S) float32, targets at the side of the boundary stage, where there is one."""
    weak: WeakTargets | None = None
    """Where objects of the data lack masks: what is known instead. Their `targets` are their boxes."""
    close_ups: list[CloseUp] = field(default_factory=list)
    """Of each view with RoIs, where the head zooms."""
    close_up_counts: list[int] = field(default_factory=list)
    """RoIs of each of these."""

    def to(self, device: torch.device) -> TrainingBatch:
        """Everything on a device; maps as they are stored."""
        moved = self._each(lambda part: part.to(device, non_blocking=True), [group.to(device) for group in self.groups])
        return replace(
            moved,
            close_up_counts=self.close_up_counts,
            close_ups=[each.to(device, non_blocking=True) for each in self.close_ups],
        )

    def pinned(self) -> TrainingBatch:
        """What is beside the maps in memory that a GPU copies from while the program goes on."""
        pinned = self._each(Tensor.pin_memory, self.groups)
        return replace(
            pinned, close_up_counts=self.close_up_counts, close_ups=[each.pin_memory() for each in self.close_ups]
        )

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        rois = [self.rois.image_index, self.rois.boxes, self.rois.queries, self.rois.labels]
        maps = [part for group in self.groups for part in group.tensors()]
        fine = [] if self.fine_targets is None else [self.fine_targets]
        weak = [] if self.weak is None else self.weak.tensors()
        near = [each.pixels for each in self.close_ups]
        areas = [self.box_areas, self.object_areas]
        return [*maps, *near, *rois, self.targets, *fine, *areas, *weak]

    def with_masks(self, rows: Tensor) -> TrainingBatch:
        """What the losses of masks read, of the RoIs (M,) int64 whose objects have them."""
        fine = None if self.fine_targets is None else self.fine_targets.index_select(0, rows)
        return replace(
            self,
            rois=replace(self.rois, labels=self.rois.labels.index_select(0, rows)),
            targets=self.targets.index_select(0, rows),
            box_areas=self.box_areas.index_select(0, rows),
            object_areas=self.object_areas.index_select(0, rows),
            fine_targets=fine,
            weak=None,
        )

    def features(self) -> list[ImageGroup]:
        """What the head reads, float32, made on the batch's device."""
        return [group.decoded() for group in self.groups]

    def zoomed_rois(self, covered: Tensor, *, side: int | None) -> Rois:
        """The RoIs with maps of crops, `side` pixels wide, of the boxes that they cover, (N, 4) cxcywh in 0..1 of the
        views; as they are where `side` is None or there are none."""
        if side is None or not self.close_ups:
            return self.rois
        boxes = covered.split(self.close_up_counts)
        return replace(self.rois, zoomed=zoomed_maps(self.close_ups, boxes, side=side))

    def _each(self, change: Callable[[Tensor], Tensor], groups: Sequence[FeatureGroup]) -> TrainingBatch:
        return TrainingBatch(
            groups=groups,
            rois=Rois(
                image_index=change(self.rois.image_index),
                boxes=change(self.rois.boxes),
                queries=change(self.rois.queries),
                labels=change(self.rois.labels),
            ),
            targets=change(self.targets),
            box_areas=change(self.box_areas),
            object_areas=change(self.object_areas),
            fine_targets=None if self.fine_targets is None else change(self.fine_targets),
            weak=None if self.weak is None else self.weak.each(change),
        )


def features_to(image: ImageFeatures, device: torch.device) -> ImageFeatures:
    """float32 maps on a device, from whatever precision they were kept in."""
    c1 = None if image.c1 is None else image.c1.to(device, torch.float32)
    return ImageFeatures(c1=c1, levels=[level.to(device, torch.float32) for level in image.levels], size=image.size)


def view_features(view: CachedView, encoder_layer: int | None) -> ImageFeatures:
    """The maps of one view with the levels of one encoder layer (None: of none)."""
    levels = [] if encoder_layer is None else view.encoder[encoder_layer]
    return ImageFeatures(c1=view.c1, levels=levels, size=view.transform.resized_size)


class ViewStore:
    """Views of a cache or of a detector in the loop, kept in memory as long as they fit."""

    def __init__(
        self, reader: ViewSource, *, encoder_layer: int, c1: bool, memory_bytes: int, close_up: bool = False
    ) -> None:
        self.reader = reader
        self.encoder_layer = encoder_layer
        self.c1 = c1
        self.close_up = close_up
        self.memory_bytes = memory_bytes
        self._kept: OrderedDict[int, StoredView] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def read(self, index: int) -> StoredView:
        """View `index` of the cache, with its maps as they are stored."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        view = self.reader.read_stored(index, encoder_layers=(self.encoder_layer,), c1=self.c1, close_up=self.close_up)
        with self._lock:
            # Random access gains nothing from replacing one view by another: once full, it stays as it is.
            if index not in self._kept and self._bytes + view.nbytes <= self.memory_bytes:
                self._kept[index] = view
                self._bytes += view.nbytes
        return view

    def read_together(self, indices: list[int], *, seed: int) -> list[StoredView]:
        """The views of a step, in order; `seed` is for a store that draws them anew in each."""
        return [self.read(index) for index in indices]

    def weak(self, config: LossConfig, *, side: int) -> WeakCollector | None:
        """For what is known of objects without masks; None where all objects have them."""
        return weak_collector(self.reader.attributes, config, side=side, pictures=self.reader.has_pictures)

    @property
    def query_dim(self) -> int:
        """D of the cached queries."""
        return self.reader.attributes.detector.query_dim

    def features(self, view: StoredView) -> StoredFeatures:
        """The maps that the head reads."""
        return StoredFeatures(
            view.c1, view.encoder[self.encoder_layer], size=view.rows.transform.resized_size, image=view.image
        )


def epoch_batches(
    indices: list[int], shapes: list[tuple[int, int]], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """One epoch's batches of view indices, the same for the same seed and epoch.

    Views are shuffled, sorted by resized shape within windows of 32 batches so that like sizes meet, and the batches
    shuffled again. The last batch may be smaller.

    Args:
        indices: views of the cache to go through.
        shapes: (height, width) of each of them, in the same order.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(indices), generator=generator).tolist()
    window = 32 * batch_size
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda at: shapes[at])
        batches += [[indices[at] for at in part[i : i + batch_size]] for i in range(0, len(part), batch_size)]
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]


def make_batch(
    store: ViewStore, indices: list[int], config: TrainConfig, *, roi_side: int, seed: int, pinned: bool = False
) -> TrainingBatch:
    """Read views and make their RoIs and targets; everything random comes from `seed`.

    Args:
        indices: may be empty: a process whose share of a last batch is nothing still takes part in the step.
        pinned: in memory that a GPU copies from while the program goes on.
    """
    if not indices:
        return no_batch(store.query_dim, roi_side, config.head.refine, weak=store.weak(config.loss, side=roi_side))
    views = store.read_together(indices, seed=seed)
    images = [store.features(view) for view in views]
    batch = batch_of(
        [view.rows for view in views],
        lambda counts: stored_groups(images, counts, pinned=pinned),
        config,
        roi_side=roi_side,
        seed=seed,
        weak=store.weak(config.loss, side=roi_side),
        pixels=lambda at: store.reader.pixels(indices[at], views[at]),
    )
    counts = Counter(batch.rois.image_index.tolist())
    near = [(view.close_up, counts[at]) for at, view in enumerate(views) if view.close_up is not None and counts[at]]
    batch = replace(batch, close_ups=[each for each, _ in near], close_up_counts=[count for _, count in near])
    return batch.pinned() if pinned else batch


def batch_of(
    views: list[CachedView],
    groups: Callable[[list[int]], Sequence[FeatureGroup]],
    config: TrainConfig,
    *,
    roi_side: int,
    seed: int,
    weak: WeakCollector | None,
    pixels: Callable[[int], Tensor | None],
) -> TrainingBatch:
    """The RoIs and targets of views, beside their maps.

    Args:
        views: without their maps.
        groups: from the RoIs of each view to the maps of those that have any.
        weak: still empty, where objects of the data lack masks.
        pixels: from the number of a view among these to its (3, H, W) RGB in 0..255, where there are pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    queries, boxes, labels, image_index = [], [], [], []
    targets, fine_targets, box_areas, object_areas = [], [], [], []
    for at, view in enumerate(views):
        chosen = training_rois(view, config.rois, generator=generator)
        image_index.append(torch.full((len(chosen.rows),), at))
        queries.append(view.queries[chosen.rows])
        boxes.append(chosen.boxes)
        labels.append(torch.from_numpy(view.truth.categories)[chosen.objects])
        cut_boxes = enlarged(chosen.boxes, config.head.roi_scale)
        corners = to_pixels(cut_boxes, view.transform.crop_size)
        cut = partial(
            crop_masks, view.truth.masks, objects=chosen.objects, boxes=corners, soft=config.loss.soft_targets
        )
        targets.append(cut(side=roi_side))
        if config.head.refine is not None:
            fine_targets.append(cut(side=config.head.refine))
        box_areas.append((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))
        object_areas.append(torch.from_numpy(view.truth.areas).float()[chosen.objects])
        if weak is not None:
            weak.add(
                view.truth,
                chosen.objects,
                rois=cut_boxes,
                corners=corners,
                targets=targets[-1],
                pixels=partial(pixels, at),
            )
    return TrainingBatch(
        groups=groups([len(part) for part in boxes]),
        rois=Rois(
            image_index=torch.cat(image_index),
            boxes=torch.cat(boxes),
            queries=torch.cat(queries).float(),
            labels=torch.cat(labels),
        ),
        targets=torch.cat(targets),
        box_areas=torch.cat(box_areas),
        object_areas=torch.cat(object_areas),
        fine_targets=torch.cat(fine_targets) if fine_targets else None,
        weak=None if weak is None else weak.targets(),
    )


def no_batch(query_dim: int, roi_side: int, fine_side: int | None, *, weak: WeakCollector | None) -> TrainingBatch:
    """Of no views."""
    whole, areas = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    rois = Rois(image_index=whole, boxes=torch.zeros(0, 4), queries=torch.zeros(0, query_dim), labels=whole)
    targets = torch.zeros(0, roi_side, roi_side)
    fine = None if fine_side is None else torch.zeros(0, fine_side, fine_side)
    return TrainingBatch(
        groups=[],
        rois=rois,
        targets=targets,
        box_areas=areas,
        object_areas=areas,
        fine_targets=fine,
        weak=None if weak is None else weak.targets(),
    )
