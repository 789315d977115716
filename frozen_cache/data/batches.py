"""Views decoded, cut and resized ahead of the detector, in threads, as batches of one size."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import google_crc32c
import torch
from torch import Tensor

from frozen_cache.data.coco import CocoImage
from frozen_cache.data.copy_paste import Paste, pasted_picture
from frozen_cache.data.images import BrokenImageError, ImageReader, file_content, image_path
from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import apply_view
from frozen_cache.detectors.input_rule import InputRule


@dataclass(frozen=True)
class PlannedView:
    """One view to extract."""

    image: CocoImage
    view: int
    transform: ViewTransform
    paste: Paste | None = None
    """Objects of another image that are laid over this one first."""


Loaded = tuple[PlannedView, bytes, tuple[Tensor, ...]]
"""A view, its image file, and its pixels at each scale."""


@dataclass(frozen=True)
class ViewBatch:
    """Views of one size, out of one segment; the last batch of a segment says so."""

    segment: int
    last: bool
    views: list[PlannedView]
    """Those that could be read, in order."""
    pixels: Tensor | None
    """(B, 3, H, W) uint8; None where none could be read."""
    enlarged: Tensor | None = None
    """(B, 3, s H, s W) uint8 of the same views, where a scale s above 1 was asked for."""
    broken: list[tuple[CocoImage, BrokenImageError]] = field(default_factory=list)
    crcs: list[int] = field(default_factory=list)
    """CRC-32C of the image file of each of `views`."""
    files: list[bytes] = field(default_factory=list)
    """That file, for each of `views`."""


def split_by_size(views: Iterable[PlannedView], batch_size: int) -> list[list[PlannedView]]:
    """Runs of views of equal size, at most `batch_size` each, in their order: always the same batches."""
    groups: list[list[PlannedView]] = []
    for view in views:
        full = not groups or len(groups[-1]) == batch_size
        if full or groups[-1][0].transform.resized_size != view.transform.resized_size:
            groups.append([])
        groups[-1].append(view)
    return groups


def load_batches(
    segments: Iterable[tuple[int, list[PlannedView]]],
    *,
    folder: Path,
    rule: InputRule,
    reader: ImageReader,
    batch_size: int,
    workers: int,
    scale: int = 1,
    ahead: int = 3,
) -> Generator[ViewBatch, None, None]:
    """The batches of all segments in order, `ahead` of them being read while one is used.

    `segments` is drawn from only as far ahead as that. A `scale` above 1 gives the views enlarged by it as well.
    """

    def load(view: PlannedView) -> Loaded:
        path = image_path(folder, view.image)
        content = file_content(path)
        image = reader.decode(content, path, height=view.image.height, width=view.image.width)
        if view.paste is not None:
            other = view.paste.source
            try:
                above = reader.read(image_path(folder, other), height=other.height, width=other.width)
                image = pasted_picture(image, view.paste, above)
            except BrokenImageError:  # told of once, by its own views
                view = replace(view, paste=None)
        return view, content, tuple(apply_view(image, view.transform, rule, scale=each) for each in sorted({1, scale}))

    waiting: deque[tuple[int, bool, list[PlannedView], list[Future[Loaded]]]] = deque()
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="images") as pool:
        try:
            for segment, views in segments:
                groups = split_by_size(views, batch_size)
                for place, group in enumerate(groups):
                    futures = [pool.submit(load, view) for view in group]
                    waiting.append((segment, place == len(groups) - 1, group, futures))
                    if len(waiting) > ahead:
                        yield _gather(*waiting.popleft())
            while waiting:
                yield _gather(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _gather(segment: int, last: bool, views: list[PlannedView], futures: list[Future[Loaded]]) -> ViewBatch:
    read, files, pixels, broken = [], [], [], []
    for view, future in zip(views, futures, strict=True):
        try:
            made, content, sizes = future.result()
            read.append(made)
            files.append(content)
            pixels.append(sizes)
        except BrokenImageError as error:
            broken.append((view.image, error))
    stacked = [torch.stack(each) for each in zip(*pixels, strict=True)]
    return ViewBatch(
        segment=segment,
        last=last,
        views=read,
        pixels=stacked[0] if stacked else None,
        enlarged=stacked[1] if len(stacked) > 1 else None,
        broken=broken,
        crcs=[google_crc32c.value(content) for content in files],
        files=files,
    )
