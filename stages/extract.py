"""Stage one: run a frozen detector over a data set once and cache its outputs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from frozen_cache.cache.attributes import CacheAttributes, DataAttributes, Precision, detector_fingerprint
from frozen_cache.cache.hints import Hints, absolute_detector, write_hints
from frozen_cache.cache.recording import Recorder
from frozen_cache.cache.writer import CacheWriter, existing_cache
from frozen_cache.data.batches import PlannedView, ViewBatch, load_batches
from frozen_cache.data.coco import CocoDataset, read_coco
from frozen_cache.data.fingerprint import data_fingerprint
from frozen_cache.data.folder import FoundImages, check_images, find_images
from frozen_cache.data.images import BrokenImageError
from frozen_cache.data.views import make_view
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.labels import match_labels
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.output import DetectorOutput, FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar

VIEWS_PER_SEGMENT = 64
BATCH_PIXELS = {"cpu": 1_100_000, "cuda": 4_400_000}
"""Pixels of a default batch: one 1333 x 800 image on the CPU, four on a GPU."""


@dataclass(frozen=True)
class ExtractSummary:
    """How an extraction ended."""

    out: Path
    images: int
    """Images that the cache is made of."""
    views: int
    """Views extracted by this run; 0 where nothing was left to do."""
    skipped_missing: int
    skipped_broken: int
    segments_left: int
    """Segments that are still not committed: other processes' shares."""
    seconds: float

    def text(self) -> str:
        """What the command prints in the end."""
        lines = []
        if self.views:
            rate = self.views / max(self.seconds, 1e-9)
            lines.append(f"extracted {self.views} views in {self.seconds:.1f} s ({rate:.1f} img/s)")
        elif not self.segments_left:
            lines.append("nothing is left to do")
        if self.skipped_missing:
            lines.append(f"left out {self.skipped_missing} images that are not there")
        if self.skipped_broken:
            lines.append(f"left out {self.skipped_broken} broken images, named by `frozen-cache cache info {self.out}`")
        if self.segments_left:
            lines.append(f"{self.segments_left} segments are still open: other processes' shares, or run it again")
        lines.append(f"cache: {self.out}")
        return "\n".join(lines)


def extract_features(
    *,
    detector: str | FrozenDetector,
    images: Path,
    annotations: Path,
    out: Path,
    weights: Path | None = None,
    encoder_layers: tuple[int, ...] | None = None,
    backbone_strides: tuple[int, ...] = (),
    backbone_scale: int = 1,
    views: int = 1,
    top_k: int | None = None,
    precision: Precision = "float16",
    batch_size: int | None = None,
    device: str = "auto",
    autocast: str | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
    skip_broken: bool = False,
    workers: int | None = None,
    segment_views: int | None = None,
    shard: tuple[int, int] | None = None,
    repair: frozenset[int] = frozenset(),
) -> ExtractSummary:
    """Fill the cache `out`, or what is still missing of it.

    Args:
        detector: as the command line names it (`load_detector`), or a frozen detector that is at hand.
        images: folder that the annotation file's file names refer to.
        views: views per image; view 0 is the plain resize.
        top_k: (query, label) pairs to keep; None for the detector's own number.
        batch_size: None for what the cache was begun with, else a size that fits the images.
        autocast: `bfloat16` or `float16`; None computes in float32.
        limit: the first images by id only.
        workers: threads that read and resize images; None for the number of cores, at most 8.
        segment_views: views per segment; None for what the cache was begun with, else 64.
        shard: (i, n): only segments i, i + n ...; None takes RANK and WORLD_SIZE from the environment.
        repair: committed segments to extract again.

    Raises:
        UserError: bad input, or a cache at `out` that was made from something else. Nothing has been written then,
            unless an image turned out to be broken underway: finished segments stay.
    """
    started = time.perf_counter()
    _check_numbers(views=views, top_k=top_k, batch_size=batch_size, limit=limit, segment_views=segment_views)
    there = existing_cache(out)
    workers = workers if workers is not None else min(8, os.cpu_count() or 1)
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
    planned = plan_views(found, detector.spec.input, views=views)
    attributes = CacheAttributes(
        detector=detector.spec,
        detector_fingerprint=detector_fingerprint(detector.spec),
        label_to_category=match_labels(
            detector.spec, [{"id": key, "name": name} for key, name in dataset.categories.items()]
        ),
        data=_data_attributes(dataset, found, limit),
        views=views,
        top_k=top_k or detector.spec.top_k,
        precision=precision,
        autocast=autocast,
        batch_size=batch_size
        or (there.batch_size if there else _default_batch_size(planned, torch_device, detector.spec.backbone_scale)),
        views_total=len(planned),
        views_per_segment=segment_views or (there.views_per_segment if there else VIEWS_PER_SEGMENT),
    )
    mine = _own_segments(attributes.segment_count, shard)
    if there is None and not skip_broken:
        _check_images(found, images, workers)
    writer = CacheWriter(out, attributes)
    try:
        if hints is not None:
            write_hints(out, hints)
        for segment in repair:
            writer.withdraw(segment)
        pending = [segment for segment in writer.pending() if segment in mine]
        done = _extract(
            writer,
            detector.to(torch_device),
            torch_device,
            planned=planned,
            pending=pending,
            batch_size=attributes.batch_size,
            images=images,
            dataset=dataset,
            workers=workers,
            skip_broken=skip_broken,
        )
        left = len(writer.pending())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full at {out}: finished segments are safe; make room and run the same command again"
            ) from None
        raise
    finally:
        writer.close()
    return ExtractSummary(
        out=out,
        images=len(found.images),
        views=done.views,
        skipped_missing=len(found.missing),
        skipped_broken=len(done.broken),
        segments_left=left,
        seconds=time.perf_counter() - started,
    )


def plan_views(found: FoundImages, rule: InputRule, *, views: int) -> list[PlannedView]:
    """All views in the order of the cache: by size, so that batches fill up, then by image and view."""
    planned = [
        PlannedView(image, view, make_view(rule, (image.height, image.width), image_id=image.id, view_index=view))
        for image in found.images
        for view in range(views)
    ]
    return sorted(planned, key=lambda view: (view.transform.resized_size, view.image.id, view.view))


def _extract(
    writer: CacheWriter,
    detector: FrozenDetector,
    device: torch.device,
    *,
    planned: list[PlannedView],
    pending: list[int],
    batch_size: int,
    images: Path,
    dataset: CocoDataset,
    workers: int,
    skip_broken: bool,
) -> Recorder:
    size = writer.attributes.views_per_segment
    recorder = Recorder(
        writer,
        category_ids=list(dataset.categories),
        total=sum(len(planned[n * size : (n + 1) * size]) for n in pending),
    )

    def claimed() -> Iterator[tuple[int, list[PlannedView]]]:
        for segment in pending:
            if writer.claim(segment):
                yield segment, planned[segment * size : (segment + 1) * size]

    with recorder:
        batches = load_batches(
            claimed(),
            folder=images,
            rule=detector.spec.input,
            batch_size=batch_size,
            workers=workers,
            scale=detector.spec.backbone_scale,
        )
        with closing(batches):
            for batch in batches:
                if batch.broken and not skip_broken:
                    raise UserError(f"{batch.broken[0][1]}; --skip-broken leaves such images out")
                output = None if batch.pixels is None else _run(detector, batch, device, writer.attributes)
                recorder.put(batch, output)
    return recorder


@torch.inference_mode()
def _run(detector: FrozenDetector, batch: ViewBatch, device: torch.device, how: CacheAttributes) -> DetectorOutput:
    """The batch's output on the CPU, its maps in the precision that is stored, float32 for int8."""
    assert batch.pixels is not None
    output = run_detector(detector, batch.pixels, batch.enlarged, device=device, autocast=how.autocast)
    stored = torch.float32 if how.precision == "int8" else getattr(torch, how.precision)
    return DetectorOutput(
        queries=output.queries.cpu(),
        boxes=output.boxes.cpu(),
        scores=output.scores.cpu(),
        labels=output.labels.cpu(),
        c1=None if output.c1 is None else output.c1.to(stored).cpu(),
        encoder={layer: [level.to(stored).cpu() for level in levels] for layer, levels in output.encoder.items()},
    )


def _device(name: str) -> torch.device:
    """As `pick_device`; each rank of torchrun takes a GPU of its own."""
    device = pick_device(name)
    if device.type == "cuda" and device.index is None and torch.cuda.device_count():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return device


def _data_attributes(dataset: CocoDataset, found: FoundImages, limit: int | None) -> DataAttributes:
    sized = ((image, found.file_sizes[image.id]) for image in found.images)
    return DataAttributes(
        fingerprint=data_fingerprint(sized, dataset.categories),
        annotations=dataset.path.name,
        images=len(found.images),
        missing=tuple(found.missing),
        limit=limit,
        categories=tuple({"id": key, "name": name} for key, name in dataset.categories.items()),
    )


def _default_batch_size(planned: list[PlannedView], device: torch.device, scale: int) -> int:
    height, width = max((view.transform.resized_size for view in planned), key=lambda size: size[0] * size[1])
    return max(1, min(32, BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"]) // (height * width * scale**2)))


def _own_segments(count: int, shard: tuple[int, int] | None) -> range:
    index, shards = shard or (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if not 0 <= index < shards:
        raise UserError(f"--shard {index}/{shards}: the first number runs from 0 to {shards - 1}")
    return range(index, count, shards)


def _check_images(found: FoundImages, folder: Path, workers: int) -> None:
    with progress_bar(total=len(found.images), unit="img", desc="check", leave=False) as bar:
        try:
            for _ in check_images(found.images, folder, workers=workers):
                bar.update()
        except BrokenImageError as error:
            raise UserError(f"{error}; --skip-broken leaves such images out") from None


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give 1 or more")
