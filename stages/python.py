"""`extract`, `train`, `evaluate` as functions, with the options of the commands of these names.

They return what came out as objects and print nothing. Errors are `FrozenCacheError`s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from frozen_cache.cache.attributes import C1Choice, Precision
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.errors import UserError
from frozen_cache.remote import cache_path
from frozen_cache.stages import evaluate as evaluate_stage
from frozen_cache.stages.evaluate import EvaluateResult
from frozen_cache.stages.extract import ExtractSummary, extract_features
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.train import TrainResult, train_head
from frozen_cache.training.config import exact_epochs

PathLike = str | os.PathLike[str]


def extract(
    detector: str | FrozenDetector,
    *,
    images: PathLike,
    annotations: PathLike,
    out: PathLike,
    weights: PathLike | None = None,
    views: int = 1,
    copy_paste: bool = False,
    tta: bool = False,
    top_k: int | None = None,
    encoder_layers: Sequence[int] | None = None,
    backbone_strides: Sequence[int] = (),
    backbone_scale: int = 1,
    batch_size: int | None = None,
    precision: Precision = "float16",
    step: float | None = None,
    c1: C1Choice = "stored",
    autocast: str | None = None,
    device: str = "auto",
    limit: int | None = None,
    skip_missing: bool = False,
    skip_broken: bool = False,
    workers: int | None = None,
    segment_images: int | None = None,
    shard: tuple[int, int] | None = None,
    bit_depth: int | None = None,
    max_pixels: int | None = None,
    label_map: Mapping[str | int, str | int] | None = None,
    labels: Sequence[str] = (),
    only: Sequence[str | int] = (),
    crowds: str = "as-marked",
    skip_bad_annotations: bool = False,
    update: bool = False,
    dry_run: bool = False,
    force: bool = False,
) -> ExtractSummary:
    """Run a frozen detector over a data set once and cache its outputs; `frozen-cache extract-features`.

    Called again with the same arguments it goes on where it stopped.

    Args:
        detector: a name (with `weights`), `hf:DIR_OR_HUB_ID`, `FILE.py:FACTORY`, or a frozen detector itself.
        images: folder of the images.
        annotations: COCO instances file.
        out: the cache, `NAME.zarr`.
        weights: checkpoint of a named detector.
        views: views per image; view 0 is the plain resize, the others are augmented.
        copy_paste: paste objects of other images into half of the views beyond the plain one.
        tta: the views of test-time augmentation, for `evaluate(..., tta=True)`: mirrored, and tiles.
        top_k: (query, label) pairs to keep; None for the detector's own number.
        encoder_layers: encoder layers to keep, from 1; None for the detector's default.
        backbone_strides: backbone maps to add as encoder levels.
        backbone_scale: backbone maps and C1 from the image at 2 or 4 times the input size.
        batch_size: images per batch at most; None for what fits their size.
        precision: of C1 and the encoder's levels.
        step: with `coded`, what one integer is worth in standard deviations of its channel; None for 1.
        c1: `stored`; `recomputed` (with the added backbone maps) from the image files, kept in the cache; `none`.
        autocast: `bfloat16` or `float16`; None computes in float32.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        limit: only the first images by id.
        skip_missing: leave out images without a file.
        skip_broken: leave out files that cannot be read.
        workers: threads that read images; None for the number of cores, at most 8.
        segment_images: views per segment; None for 64.
        shard: (i, n): only every n-th segment, from the i-th.
        bit_depth: images of more than 8 bits hold 0 to 2^bit_depth - 1; None for 16 where the file says so.
        max_pixels: images of more pixels are refused; None for 179 million.
        label_map: category -> the detector's label, each by name or number (`--map`).
        labels: names of the detector's labels 0, 1, 2 ..., for detectors without any.
        only: category names or ids to keep.
        crowds: `as-marked`, or `as-objects`: `iscrowd` is not believed.
        skip_bad_annotations: go on without malformed annotations.
        dry_run: read, check and return the plan (`.text()`); write nothing.
        force: go on where the disk is too small, or no object is matched.

    Raises:
        FrozenCacheError: bad input, or a cache at `out` that was made from something else.
    """
    return extract_features(
        detector=detector,
        images=Path(images),
        annotations=Path(annotations),
        out=cache_path(out),
        weights=_path(weights),
        views=views,
        copy_paste=copy_paste,
        tta=tta,
        top_k=top_k,
        encoder_layers=None if encoder_layers is None else tuple(encoder_layers),
        backbone_strides=tuple(backbone_strides),
        backbone_scale=backbone_scale,
        batch_size=batch_size,
        precision=precision,
        step=step,
        c1=c1,
        autocast=autocast,
        device=device,
        limit=limit,
        skip_missing=skip_missing,
        skip_broken=skip_broken,
        workers=workers,
        segment_views=segment_images,
        shard=shard,
        bit_depth=bit_depth,
        max_pixels=max_pixels,
        label_map=tuple(f"{category}={label}" for category, label in (label_map or {}).items()),
        labels=tuple(labels),
        only=tuple(map(str, only)),
        crowds=crowds,
        skip_bad_annotations=skip_bad_annotations,
        update=update,
        dry_run=dry_run,
        force=force,
    )


def train(
    cache: PathLike | None = None,
    *,
    out: PathLike,
    live: Mapping[str, Any] | None = None,
    val_cache: PathLike | None = None,
    preset: str | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    lsj: bool = False,
    unfreeze: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    init: PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    memory_gb: float = 4.0,
    workers: int | None = None,
) -> TrainResult:
    """Train a mask head from a cache alone, or with the detector in the loop; `frozen-cache train-head`.

    Args:
        cache: made by `extract`; None with `live`.
        out: run directory: configuration, metrics, checkpoints.
        live: instead of a cache: options of `extract` by name, `detector`, `images` and `annotations` at least, and
            `weights`, `backbone_strides`, `views`, `only`, `labels`, `label_map`; and `val_images`, `val_annotations`
            to evaluate on in place of `val_cache`. The detector runs in every epoch.
        val_cache: cache to evaluate on; picks the best checkpoint.
        preset: a shipped recipe or a TOML file; None for `paper`.
        epochs: passes over the cached views.
        batch_size: views per step.
        lr: learning rate.
        seed: of weights, order and sampling.
        lsj: with `live`: large scale jitter, drawn anew whenever an image is seen.
        unfreeze: with `live`: parts of the detector to train along, of `backbone`, `encoder`, `decoder`.
        settings: any configuration value by dotted key, as `--set` takes it: `{"head.width": 96}`.
        init: run directory or checkpoint to start from: tensors of equal names and shapes are taken.
        resume: go on with the run in `out`.
        device: `auto`, `cpu`, `cuda`.
        memory_gb: for cached views that are kept between epochs.
        workers: threads that read views; None for as many as keep the training from waiting, up to the cores.

    Raises:
        FrozenCacheError: bad input, another run in `out`, numbers that are not finite.
    """
    if not 0 <= memory_gb <= 1e6:
        raise UserError(f"memory_gb {memory_gb}: give a number from 0 to 1,000,000")
    given = {"optim.batch_size": batch_size, "optim.lr": lr, "seed": seed}
    overrides = {} if epochs is None else exact_epochs(epochs)
    overrides |= {key: value for key, value in given.items() if value is not None} | dict(settings or {})
    if lsj:
        overrides["live.lsj"] = True
    if unfreeze:
        overrides["live.unfreeze"] = list(unfreeze)
    return train_head(
        cache=None if cache is None else cache_path(cache),
        live=None if live is None else LiveData.of_options(live),
        out=Path(out),
        val_cache=None if val_cache is None else cache_path(val_cache),
        preset=preset,
        overrides=overrides,
        init=_path(init),
        resume=resume,
        device=device,
        memory_bytes=int(memory_gb * 2**30),
        workers=workers,
    )


def evaluate(
    cache: PathLike,
    *,
    out: PathLike,
    head: PathLike | Sequence[PathLike] | None = None,
    baseline: str | None = None,
    prompter: str | None = None,
    roi_sizes: Sequence[int] = (),
    views: int = 1,
    tta: bool = False,
    guided: bool = False,
    device: str = "auto",
    images: PathLike | None = None,
    compare: Sequence[PathLike] = (),
    overwrite: bool = False,
    ladder: bool = False,
    coco_api: Literal["pycocotools", "hotcoco"] = "pycocotools",
    workers: int | None = None,
    mixed_precision: str = "no",
    threshold: float = 0.0,
) -> EvaluateResult:
    """COCO mask AP and box AP of a head or a baseline on a cache; `frozen-cache evaluate`.

    Args:
        cache: to evaluate on; it holds the ground truth.
        out: folder for `metrics.json` and the COCO result files.
        head: run directory of a trained head, or a checkpoint; masks of several are averaged.
        baseline: instead of a head: `box`, `training-free` or one of its variants, `prompted`.
        prompter: with `prompted`: `hf:DIR_OR_HUB_ID` of a Segment Anything model, which is given the boxes.
        roi_sizes: average masks at these sides of the RoI; none for the head's own.
        views: average masks over so many cached views of each image.
        tta: fuse boxes and masks of all views, of a cache that was extracted with `tta`.
        guided: let the masks take over the edges of the pictures (guided filter).
        device: `auto`, `cpu`, `cuda`.
        images: folder of the pictures, for the report, `guided`, `prompted`; None for where the cache was made.
        compare: other folders of `evaluate`, or any tool's COCO result files of masks.
        overwrite: replace the results of something else in `out`.
        ladder: also measure what AP would be with one thing put right at a time.
        coco_api: what computes AP: pycocotools, or the much faster hotcoco (extra `fast-eval`).
        workers: processes beside this one that paste and compare masks; 0 for none, None for as many as pay.
        mixed_precision: of heads: `no`, `bf16`, `fp16`, `auto` (what the device computes fast).
        threshold: detections whose boxes have a lower score are left out, in all that is measured.

    Raises:
        FrozenCacheError: bad input, a head of another detector, an `out` that holds other things.
    """
    return evaluate_stage.evaluate(
        cache=cache_path(cache),
        out=Path(out),
        head=_path(head) if head is None or isinstance(head, str | os.PathLike) else [*map(Path, head)],
        baseline=baseline,
        prompter=prompter,
        roi_sizes=roi_sizes,
        views=views,
        tta=tta,
        guided=guided,
        device=device,
        images=_path(images),
        others=[Path(other) for other in compare],
        overwrite=overwrite,
        ladder=ladder,
        coco_api=coco_api,
        workers=workers,
        mixed_precision=mixed_precision,
        threshold=threshold,
    )


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)
