"""What an extraction will do, known before it does it: images, views, attributes of the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from frozen_cache.cache.attributes import (
    FORMAT_VERSION,
    C1Choice,
    CacheAttributes,
    DataAttributes,
    Precision,
    StemRecord,
    best_packing,
    detector_fingerprint,
)
from frozen_cache.cache.dealing import deal, in_order
from frozen_cache.cache.hints import Hints, absolute_detector
from frozen_cache.cache.quantise import DEFAULT_STEP
from frozen_cache.cache.root import existing_cache
from frozen_cache.cache.stem_files import stem_record
from frozen_cache.data.batches import PlannedView
from frozen_cache.data.checks import check_annotations
from frozen_cache.data.choices import AnnotationChoices, AnnotationCounts
from frozen_cache.data.choose import choose_annotations
from frozen_cache.data.coco import CocoDataset, CocoImage, read_coco
from frozen_cache.data.copy_paste import draw_paste, paste_sources
from frozen_cache.data.fingerprint import data_fingerprint
from frozen_cache.data.folder import FoundImages, find_images
from frozen_cache.data.supervision import points_room
from frozen_cache.data.tta import view_transform
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.labels import match_labels
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.output import DetectorSpec, FrozenDetector
from frozen_cache.detectors.stem import TRIAL_SIZE, offered_stem
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath

VIEWS_PER_SEGMENT = 64
STEPS = (0.05, 8.0)
"""The least and the greatest step of coded maps that make sense: `int8` is finer, and beyond it nearly all is 0."""
BATCH_PIXELS = {"cpu": 1_100_000, "cuda": 4_400_000}
"""Pixels of a default batch: one 1333 x 800 image on the CPU, four on a GPU."""


@dataclass(frozen=True)
class ExtractPlan:
    """An extraction that has read its annotations and its detector, and written nothing."""

    out: CachePath
    images: Path
    dataset: CocoDataset
    found: FoundImages
    detector: FrozenDetector
    """On `device`."""
    device: torch.device
    planned: list[PlannedView]
    """All views in the order of the cache."""
    dealt: list[list[PlannedView]]
    """The views of each segment."""
    attributes: CacheAttributes
    hints: Hints | None
    """None for a detector that was given as an object."""
    stem_weights: bytes | None
    """The content of the stem's file, where C1 is to be recomputed."""
    is_new: bool
    """Whether there is no cache at `out` yet."""

    def views_of(self, segment: int) -> list[PlannedView]:
        """The views of one segment."""
        return self.dealt[segment]


def plan_extraction(
    *,
    detector: str | FrozenDetector,
    images: Path,
    annotations: Path,
    out: CachePath,
    weights: Path | None,
    encoder_layers: tuple[int, ...] | None,
    backbone_strides: tuple[int, ...],
    backbone_scale: int,
    views: int,
    top_k: int | None,
    precision: Precision,
    step: float | None,
    c1: C1Choice,
    batch_size: int | None,
    device: str,
    autocast: str | None,
    limit: int | None,
    bit_depth: int | None,
    skip_missing: bool,
    segment_views: int | None,
    crowds: str = "as-marked",
    skip_bad_annotations: bool = False,
    only: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    label_map: tuple[str, ...] = (),
    copy_paste: bool = False,
    tta: bool = False,
    force: bool = False,
) -> ExtractPlan:
    """Read and check all that an extraction starts from. The arguments are those of `extract_features`."""
    if copy_paste:
        _refuse_copy_paste(views=views, recomputed=c1 == "recomputed")
    there = existing_cache(out)
    dataset = read_coco(annotations)
    found = find_images(dataset, images, limit=limit, skip_missing=skip_missing)
    torch_device = _device(device)
    hints = None
    if isinstance(detector, str):
        hints = Hints(
            detector=absolute_detector(detector),
            weights=None if weights is None else weights.resolve(),
            backbone_strides=backbone_strides,
            images=images.resolve(),
            annotations=annotations.resolve(),
        )
        detector = load_detector(
            detector,
            weights=weights,
            encoder_layers=encoder_layers,
            backbone_strides=backbone_strides,
            backbone_scale=backbone_scale,
        )
    choices = choose_annotations(
        categories=dataset.categories,
        label_names=detector.spec.label_names or {},
        num_labels=detector.spec.num_labels,
        crowds=crowds,
        skip_bad=skip_bad_annotations,
        only=only,
        labels=labels,
        label_map=label_map,
    )
    stem = _stem(detector, torch_device) if c1 == "recomputed" else None
    if stem is not None and backbone_scale > 1 and there is None:
        raise UserError(
            f"--backbone-scale {backbone_scale} is for stored maps: with --c1 recomputed the scale is a choice of "
            f"training (train-head --set head.c1_scale={backbone_scale}), so leave it out"
        )
    counts = check_annotations(dataset, found.images, choices=choices, force=force)
    dataset = replace(dataset, categories=choices.kept(dataset.categories))
    step = _step(precision, step, there)
    planned = plan_views(found, detector.spec.input, views=views, tta=tta, whole_images=stem is not None)
    if copy_paste:
        planned = _with_pastes(planned, found, counts)
    attributes = CacheAttributes(
        format_version=FORMAT_VERSION if there is None else there.format_version,
        detector=detector.spec,
        detector_fingerprint=detector_fingerprint(detector.spec),
        label_to_category=match_labels(
            detector.spec,
            [{"id": key, "name": name} for key, name in dataset.categories.items()],
            used={choices.category(key) for key in dataset.used} - {None},  # type: ignore[arg-type]
            names=choices.labels,
            chosen={key: label for key, label in choices.label_map.items() if key in dataset.categories},
        ),
        data=_data_attributes(
            dataset,
            found,
            choices,
            counts,
            limit=limit,
            bit_depth=bit_depth,
            points=_room(found, None if there is None else there.data.points),
        ),
        views=views,
        copy_paste=copy_paste,
        tta=tta,
        top_k=top_k or detector.spec.top_k,
        precision=precision,
        step=step,
        packing=there.packing if there is not None and there.step == step else best_packing(step),
        c1=c1,
        stem=None if stem is None else stem[0],
        autocast=autocast,
        batch_size=batch_size
        or (there.batch_size if there else _default_batch_size(planned, torch_device, detector.spec.backbone_scale)),
        views_total=len(planned),
        views_per_segment=_views_per_segment(
            segment_views or (there.views_per_segment if there else VIEWS_PER_SEGMENT),
            views,
            whole_images=stem is not None,
        ),
        segment_views=there.segment_views if there and there.views_total == len(planned) else (),
    )
    if there is None and top_k is not None:
        _check_top_k(top_k, detector.spec)
    return ExtractPlan(
        out=out,
        images=images,
        dataset=dataset,
        found=found,
        detector=detector.to(torch_device),
        device=torch_device,
        planned=planned,
        dealt=deal(planned, attributes, out),
        attributes=attributes,
        hints=hints,
        stem_weights=None if stem is None else stem[1],
        is_new=there is None,
    )


def _step(precision: Precision, step: float | None, there: CacheAttributes | None) -> float | None:
    """Of coded maps: as asked for, else as the cache has it, else the default."""
    if precision != "coded":
        if step is not None:
            raise UserError(f"--step {step:g} belongs to --precision coded, not to {precision}")
        return None
    if step is not None and not STEPS[0] <= step <= STEPS[1]:
        raise UserError(f"--step {step:g}: give standard deviations between {STEPS[0]:g} and {STEPS[1]:g}")
    return step or (there.step if there else None) or DEFAULT_STEP


def plan_views(
    found: FoundImages, rule: InputRule, *, views: int, tta: bool = False, whole_images: bool = False
) -> list[PlannedView]:
    """All views in the order of the cache (`in_order`); with `tta` those of test-time augmentation."""

    def transform(image: CocoImage, view: int) -> ViewTransform:
        return view_transform(rule, (image.height, image.width), image_id=image.id, view_index=view, tta=tta)

    planned = (PlannedView(image, view, transform(image, view)) for image in found.images for view in range(views))
    return in_order(planned, whole_images=whole_images)


def _check_top_k(top_k: int, spec: DetectorSpec) -> None:
    """UserError for more pairs than the detector has."""
    pairs = spec.num_queries * (1 if spec.one_label_per_query else spec.num_labels)
    if top_k > pairs:
        raise UserError(f"--top-k {top_k}: {spec.name} gives no more than {pairs} pairs of query and label")


def _refuse_copy_paste(*, views: int, recomputed: bool) -> None:
    if views < 2:
        raise UserError("--copy-paste leaves the plain view as it is: give --views 2 or more")
    if recomputed:
        raise UserError(
            "--copy-paste with --c1 recomputed: the cache would keep the image files, of which pasted views are not "
            "made; leave one of the two out"
        )


def _with_pastes(planned: list[PlannedView], found: FoundImages, counts: AnnotationCounts) -> list[PlannedView]:
    """The views with what is pasted into them."""
    if counts.without_masks:
        raise UserError(
            f"--copy-paste cuts objects along their masks, and {counts.without_masks:,} annotations have none: leave "
            "it out, or give them masks"
        )
    if not (sources := paste_sources(found.images)):
        raise UserError("--copy-paste: no image has an object to paste; leave it out")
    return [replace(view, paste=draw_paste(view.image, sources, view_index=view.view)) for view in planned]


def _views_per_segment(asked: int, views: int, *, whole_images: bool) -> int:
    """As asked for, or with whole images the next lower number that holds all views of some."""
    return max(1, asked // views) * views if whole_images else asked


def _stem(detector: FrozenDetector, device: torch.device) -> tuple[StemRecord, bytes]:
    """The detector's stem, compared with the detector; a UserError where C1 cannot be recomputed."""
    spec = detector.spec
    stem = offered_stem(
        detector.to(device), trial_size=spec.input.size or TRIAL_SIZE, device=device, scale=spec.backbone_scale
    )
    if stem is not None and (stem.config.c1 is not None or spec.c1 is None):
        return stem_record(stem)
    if spec.c1 is None:
        raise UserError(f"{spec.name} has no C1 and no added backbone maps, so none can be recomputed: leave out --c1")
    raise UserError(
        f"--c1 recomputed: {spec.name} offers no stem (a method `stem` that returns a "
        "`frozen_cache.detectors.stem.Stem`): take --c1 stored, or none"
    )


def _data_attributes(
    dataset: CocoDataset,
    found: FoundImages,
    choices: AnnotationChoices,
    counts: AnnotationCounts,
    *,
    limit: int | None,
    bit_depth: int | None,
    points: int | None,
) -> DataAttributes:
    sized = ((image, found.file_sizes[image.id]) for image in found.images)
    return DataAttributes(
        fingerprint=data_fingerprint(sized, dataset.categories),
        annotations=dataset.path.name,
        images=len(found.images),
        missing=tuple(found.missing),
        limit=limit,
        categories=tuple({"id": key, "name": name} for key, name in dataset.categories.items()),
        choices=choices,
        counts=counts,
        bit_depth=bit_depth,
        points=points,
    )


def _room(found: FoundImages, there: int | None) -> int | None:
    """Points that the cache has room for, per object: as many as the cache that is there, where these are enough."""
    needed = points_room((each.kind, each.points) for image in found.images for each in image.annotations)
    return there if there is not None and (needed or 0) <= there else needed


def _default_batch_size(planned: list[PlannedView], device: torch.device, scale: int) -> int:
    height, width = max((view.transform.resized_size for view in planned), key=lambda size: size[0] * size[1])
    return max(1, min(32, BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"]) // (height * width * scale**2)))


def _device(name: str) -> torch.device:
    """As `pick_device`; each rank of torchrun takes a GPU of its own."""
    device = pick_device(name)
    if device.type == "cuda" and device.index is None and torch.cuda.device_count():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return device
