"""Stage one: run a frozen detector over a data set once and cache its outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from frozen_cache.cache.attributes import C1Choice, CacheAttributes, Precision
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.hints import write_hints
from frozen_cache.cache.recording import Recorder, Watch
from frozen_cache.cache.root import existing_cache
from frozen_cache.cache.same_images import compare_images
from frozen_cache.cache.stem_files import keep_stem
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.batches import PlannedView, ViewBatch, load_batches
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.folder import check_images
from frozen_cache.data.images import BrokenImageError, ImageReader
from frozen_cache.data.tta import TTA_VIEWS
from frozen_cache.detectors.output import DetectorOutput, FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.errors import UserError
from frozen_cache.processes import process_share
from frozen_cache.progress import progress_bar, say
from frozen_cache.remote import CachePath
from frozen_cache.stages.extract_gauge import gauge_cache, refuse_nothing_matched
from frozen_cache.stages.extract_measure import FirstSegment, sample_text
from frozen_cache.stages.extract_plan import ExtractPlan, plan_extraction
from frozen_cache.stages.extract_summary import ExtractSummary
from frozen_cache.stages.extract_table import (
    open_views,
    plan_table,
    planned_bytes,
    refuse_too_little_space,
)
from frozen_cache.stages.extract_update import (
    Update,
    find_changes,
    finish_interrupted,
    refuse_changes,
    update_text,
    updated_plan,
)

MOST_VIEWS = 1000
"""Of an image; a typing error of some zeros more would be planned for hours."""


def extract_features(
    *,
    detector: str | FrozenDetector,
    images: Path,
    annotations: Path,
    out: CachePath,
    weights: Path | None = None,
    encoder_layers: tuple[int, ...] | None = None,
    backbone_strides: tuple[int, ...] = (),
    backbone_scale: int = 1,
    views: int = 1,
    top_k: int | None = None,
    precision: Precision = "float16",
    step: float | None = None,
    c1: C1Choice = "stored",
    batch_size: int | None = None,
    device: str = "auto",
    autocast: str | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
    skip_broken: bool = False,
    bit_depth: int | None = None,
    max_pixels: int | None = None,
    workers: int | None = None,
    segment_views: int | None = None,
    shard: tuple[int, int] | None = None,
    condemned: Mapping[int, bytes] | None = None,
    crowds: str = "as-marked",
    skip_bad_annotations: bool = False,
    only: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    label_map: tuple[str, ...] = (),
    copy_paste: bool = False,
    tta: bool = False,
    update: bool = False,
    dry_run: bool = False,
    force: bool = False,
) -> ExtractSummary:
    """Fill the cache `out`, or what is still missing of it.

    Args:
        detector: as the command line names it (`load_detector`), or a frozen detector that is at hand.
        images: folder that the annotation file's file names refer to.
        views: views per image; view 0 is the plain resize.
        top_k: (query, label) pairs to keep; None for the detector's own number.
        step: of coded maps, in standard deviations of a channel; None for what is there, else 1.
        c1: `stored`; `recomputed` (with the added backbone maps) from the image files, kept in the cache; `none`.
        batch_size: None for what the cache was begun with, else a size that fits the images.
        autocast: `bfloat16` or `float16`; None computes in float32.
        limit: the first images by id only.
        bit_depth: of images with more than 8 bits, where their type does not tell it; see `ImageReader`.
        max_pixels: images with more are refused before they are decoded.
        workers: threads that read and resize images; None for the number of cores, at most 8.
        segment_views: views per segment; None for what the cache was begun with, else 64.
        shard: (i, n): only segments i, i + n ...; None takes RANK and WORLD_SIZE from the environment.
        crowds: `as-marked`, or `as-objects`: `iscrowd` is not believed.
        skip_bad_annotations: go on without malformed annotations.
        only: category names or ids to keep.
        labels: names of the detector's labels 0, 1, 2 ..., for detectors without any.
        label_map: `CATEGORY=LABEL` by names or numbers, or a TOML file of such lines.
        copy_paste: paste objects of other images into half of the views beyond the plain one.
        tta: the TTA_VIEWS views of test-time augmentation, which `evaluate` can fuse; `views` is left alone then.
        update: bring a cache in line with images and annotations that were added, removed or edited since.
        dry_run: read, check and say what would be done (`ExtractSummary.plan`); write nothing.
        force: go on where the disk is too small, or no object found a match.
        condemned: damaged segments to extract again, and the line of the ledger that stands for each (`CacheWriter`).

    Raises:
        UserError: bad input, or a cache at `out` that was made from something else. Nothing has been written then,
            unless an image turned out to be broken underway: finished segments stay.
        DamagedCacheError: all that was open has been extracted, but committed segments are damaged.
    """
    started = time.perf_counter()
    if tta:
        views = _tta_views(views, copy_paste=copy_paste)
    if views > MOST_VIEWS:
        raise UserError(f"--views {views}: give 1 to {MOST_VIEWS}")
    _check_numbers(
        views=views, top_k=top_k, batch_size=batch_size, limit=limit, segment_images=segment_views, workers=workers
    )
    reader = ImageReader(bit_depth=bit_depth, max_pixels=max_pixels)
    workers = workers if workers is not None else min(8, os.cpu_count() or 1)
    shard = shard or process_share(without_launcher="or give --shard I/N")
    if update and shard != (0, 1):
        raise UserError("--update is one process's work: run it without --shard and without torchrun")
    _check_share(*shard)
    finish_interrupted(out)
    plan = plan_extraction(
        detector=detector,
        images=images,
        annotations=annotations,
        out=out,
        weights=weights,
        encoder_layers=encoder_layers,
        backbone_strides=backbone_strides,
        backbone_scale=backbone_scale,
        views=views,
        top_k=top_k,
        precision=precision,
        step=step,
        c1=c1,
        batch_size=batch_size,
        device=device,
        autocast=autocast,
        limit=limit,
        bit_depth=bit_depth,
        skip_missing=skip_missing,
        segment_views=segment_views,
        crowds=crowds,
        skip_bad_annotations=skip_bad_annotations,
        only=only,
        labels=labels,
        label_map=label_map,
        copy_paste=copy_paste,
        tta=tta,
        force=force,
    )
    table = plan_table(plan)
    there = None if plan.is_new else existing_cache(out)
    changes = None
    if there is not None and (update or there.data.fingerprint != plan.attributes.data.fingerprint):
        changes = find_changes(plan, there, update=update, workers=workers)
        if not update:
            refuse_changes(plan, changes)
        table += f"\n{update_text(changes)}"
        if changes.count or there.data.fingerprint != plan.attributes.data.fingerprint:
            plan = updated_plan(plan, changes)
    mine = range(shard[0], plan.attributes.segment_count, shard[1])
    to_write = open_views(plan, linked=0 if changes is None else len(changes.kept_segments))
    if dry_run:

        def extract(writer: CacheWriter, sample: ExtractPlan) -> None:
            _extract(writer, sample, [0], reader=reader, workers=workers, skip_broken=skip_broken)

        table += sample_text(plan, to_write, changes, mine, extract)
        return ExtractSummary.of_plan(out, table, images=len(plan.found.images))
    say(table)
    refuse_too_little_space(plan, planned_bytes(plan, to_write), force=force)
    if plan.is_new and not skip_broken:
        _check_images(plan.found.images, images, reader, workers)
    replacing = None
    if there is not None and changes is not None and plan.out != out:
        replacing = Update(out, there, changes, plan)
        if not skip_broken:
            _check_images([view.image for view in changes.to_extract if view.view == 0], images, reader, workers)
        replacing.take_over()
    writer = CacheWriter(plan.out, plan.attributes, condemned=condemned)
    try:
        if not writer.exclusive:
            say(f"the file system of {out} can neither link nor create exclusively: let one process at a time fill it")
        if plan.attributes.stem is not None and plan.stem_weights is not None:
            keep_stem(plan.out, plan.attributes.stem, plan.stem_weights)
        if plan.hints is not None:
            write_hints(plan.out, plan.hints)
        compare_images(writer, plan.planned, images, workers=workers)
        pending = [segment for segment in writer.pending() if segment in mine]
        # What was begun as format 1 is continued so, whatever the plan says.
        first = FirstSegment(replace(plan, attributes=writer.attributes), pending, force=force)
        done = _extract(writer, plan, pending, reader=reader, workers=workers, skip_broken=skip_broken, watch=first)
        left = len(writer.pending())
        damaged = writer.damaged()
    finally:
        writer.close()
    if damaged:
        segment, what = next(iter(damaged.items()))
        raise DamagedCacheError(
            f"{len(damaged)} of {plan.attributes.segment_count} segments of {out} are damaged, the first is segment "
            f"{segment}: {what}; `frozen-cache cache repair {out}` extracts just those again"
        )
    gauge = gauge_cache(plan.out) if done.views and not left else None
    if gauge is not None:
        refuse_nothing_matched(gauge, out, force=force)
    if replacing is not None and not left:
        replacing.put_in_place()
    return ExtractSummary(
        out=out,
        plan=table,
        gauge=() if gauge is None else tuple(gauge.lines()),
        images=len(plan.found.images),
        views=done.views,
        skipped_missing=len(plan.found.missing),
        skipped_broken=len(done.broken),
        notes=(
            *([f"updated: {changes.text() or 'no image differs'}"] if changes is not None else []),
            *([f"pasted {done.pasted:,} objects; {done.covered:,} that they cover were dropped"] if copy_paste else []),
            *([plan.found.hint] if plan.found.hint else []),
            *reader.notes(),
        ),
        segments_left=left,
        seconds=time.perf_counter() - started,
    )


def _extract(
    writer: CacheWriter,
    plan: ExtractPlan,
    pending: list[int],
    *,
    reader: ImageReader,
    workers: int,
    skip_broken: bool,
    watch: Watch | None = None,
) -> Recorder:
    recorder = Recorder(
        writer,
        category_ids=list(plan.dataset.categories),
        total=sum(len(plan.views_of(segment)) for segment in pending),
        watch=watch,
    )

    def claimed() -> Iterator[tuple[int, list[PlannedView]]]:
        for segment in pending:
            if writer.claim(segment):
                yield segment, plan.views_of(segment)

    with recorder:
        batches = load_batches(
            claimed(),
            folder=plan.images,
            reader=reader,
            rule=plan.detector.spec.input,
            batch_size=writer.attributes.batch_size,
            workers=workers,
            scale=plan.detector.spec.backbone_scale,
        )
        with closing(batches):
            for batch in batches:
                if batch.broken and not skip_broken:
                    raise UserError(f"{batch.broken[0][1]}; --skip-broken leaves such images out")
                output = None if batch.pixels is None else _run(plan, batch, writer.attributes)
                recorder.put(batch, output)
    return recorder


@torch.inference_mode()
def _run(plan: ExtractPlan, batch: ViewBatch, how: CacheAttributes) -> DetectorOutput:
    """The batch's output on the CPU, its maps that are stored in their precision, float32 for small integers."""
    assert batch.pixels is not None
    output = run_detector(plan.detector, batch.pixels, batch.enlarged, device=plan.device, autocast=how.autocast)
    stored = torch.float32 if how.precision in ("int8", "coded") else getattr(torch, how.precision)
    return DetectorOutput(
        queries=output.queries.cpu(),
        boxes=output.boxes.cpu(),
        scores=output.scores.cpu(),
        labels=output.labels.cpu(),
        c1=output.c1.to(stored).cpu() if output.c1 is not None and how.stores_c1 else None,
        encoder={
            layer: [level.to(stored).cpu() for at, level in enumerate(levels) if at not in how.recomputed_levels]
            for layer, levels in output.encoder.items()
        },
    )


def _check_share(index: int, shards: int) -> None:
    if shards < 1:
        raise UserError(f"--shard {index}/{shards}: the second number, of how many, is 1 or more")
    if not 0 <= index < shards:
        raise UserError(f"--shard {index}/{shards}: the first number runs from 0 to {shards - 1}")


def _check_images(images: list[CocoImage], folder: Path, reader: ImageReader, workers: int) -> None:
    with progress_bar(total=len(images), unit="img", desc="check", leave=False) as bar:
        try:
            for _ in check_images(images, folder, reader=reader, workers=workers):
                bar.update()
        except BrokenImageError as error:
            raise UserError(f"{error}; --skip-broken leaves such images out") from None


def _tta_views(views: int, *, copy_paste: bool) -> int:
    """Of each image; UserError for what is for training."""
    if copy_paste:
        raise UserError("--tta makes views to measure on, --copy-paste views to train on: leave one of the two out")
    if views not in (1, TTA_VIEWS):
        raise UserError(f"--views {views}: --tta makes {TTA_VIEWS} views of each image; leave --views out")
    return TTA_VIEWS


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give 1 or more")
