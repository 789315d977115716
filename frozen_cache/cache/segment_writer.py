"""Writing one segment aside, row by row, in bounded memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.chunk_sums import ATTRIBUTE
from frozen_cache.cache.contents import channel_tables, check_segment, map_dtype, map_layout
from frozen_cache.cache.guests import is_guest
from frozen_cache.cache.layout import (
    BOX_COLUMNS,
    IMAGE_ROWS,
    OBJECT_COLUMNS,
    OBJECT_ROWS,
    OFFSET_COLUMNS,
    RLE_ROWS,
    ROW_COLUMNS,
    SHAPE_COLUMNS,
    SPAN_COLUMNS,
    VIEW_COLUMNS,
    ArrayLayout,
    chunk_rows,
    image_spans,
)
from frozen_cache.cache.ledger import BrokenImage, SegmentRecord
from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.quantise import coded, quantised
from frozen_cache.cache.shard_files import THREADS, Column, ShardFile
from frozen_cache.cache.view import CachedView
from frozen_cache.data.supervision import all_masks
from frozen_cache.data.truth import GroundTruth
from frozen_cache.durable import file_crc32, flush_tree
from frozen_cache.errors import UserError


class SegmentWriter:
    """Collects views and writes them under `folder`; `finish` makes the segment whole and flushes it to disk; whatever
    happens, `close` must follow."""

    def __init__(self, folder: Path, attributes: CacheAttributes) -> None:
        self.folder = folder
        self._attributes = attributes
        self._dtype = map_dtype(attributes)
        self._group = zarr.open_group(str(folder), mode="w", zarr_format=3)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="segment-writer")
        self._columns: dict[str, Column] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        """Array -> names of its last axis."""
        self._views: list[list[int]] = []
        self._offsets: list[list[int]] = [[0] * len(OFFSET_COLUMNS)]
        self._shapes: list[list[tuple[int, ...]]] = []
        self._channels: dict[str, list[list[float]]] = {name: [] for name in channel_tables(attributes)}
        self._matched: list[int] = []
        self._crcs: list[int] = []
        self._annotation_sums: list[int] = []
        self._images: dict[int, tuple[int, int | None]] = {}
        """Image id -> size and CRC-32C of its file, which is kept."""
        self._broken: list[BrokenImage] = []

    def add_broken(self, image_id: int, reason: str) -> None:
        """Record an image that gave no view, once."""
        if image_id not in [broken.image_id for broken in self._broken]:
            self._broken.append(BrokenImage(image_id=image_id, reason=reason))

    def append(
        self,
        view: CachedView,
        *,
        image_crc: int | None = None,
        annotation_sum: int | None = None,
        image_file: bytes | None = None,
    ) -> None:
        """Add one view; its maps are stored in the cache's precision, and must stay as they are until `finish`.

        Args:
            image_crc: CRC-32C of the image file that it was made from, where that is known.
            annotation_sum: `annotation_sum` of its image, where that is known.
            image_file: the content of that file, where the cache keeps it.

        Raises:
            UserError: a map holds values that are not finite in this precision.
        """
        levels = next(iter(view.encoder.values()), [])
        maps = [*([] if view.c1 is None else [view.c1]), *levels]
        self._shapes.append([tuple(a_map.shape) for a_map in maps])
        for numbers in self._channels.values():
            numbers.append([])
        c1_size = self._put_maps("c1", [view.c1], view) if view.c1 is not None else 0
        encoder_size = 0
        for layer, layer_levels in view.encoder.items():
            encoder_size = self._put_maps(f"encoder/{layer}", layer_levels, view)
        if image_file is not None:
            self._put_image(view.image_id, image_file, image_crc)
        self._put_rows("rows", row_array(view), columns=ROW_COLUMNS)
        truth = truth_arrays(view.truth, points=self._attributes.data.points)
        self._put_rows("truth/objects", truth["truth/objects"], rows=OBJECT_ROWS, columns=OBJECT_COLUMNS)
        self._put_rows("truth/boxes", truth["truth/boxes"], rows=OBJECT_ROWS, columns=BOX_COLUMNS)
        self._put_rows("truth/rle", truth["truth/rle"], rows=RLE_ROWS)
        if "truth/supervision" in truth:
            self._put_rows("truth/supervision", truth["truth/supervision"], rows=OBJECT_ROWS)
        self._views.append(view_row(view))
        self._crcs += [] if image_crc is None else [image_crc]
        self._annotation_sums += [] if annotation_sum is None else [annotation_sum]
        self._matched.append(int((view.truth.match >= 0).sum()))
        added = (len(view.queries), len(view.truth.boxes), len(truth["truth/rle"]), c1_size, encoder_size)
        self._offsets.append([before + size for before, size in zip(self._offsets[-1], added, strict=True)])

    def finish(self, segment: int, *, folder: str) -> SegmentRecord:
        """Write what is left, flush every file to disk, and return the line for the ledger.

        Args:
            folder: the name that the segment will have.

        Raises:
            NotWhole: a file that must be there is not, or is not as it must be.
        """
        for name, column in self._columns.items():
            column.finish(self._group, columns=self._names[name])
        self._write_table("views", _table(self._views, len(VIEW_COLUMNS)), columns=VIEW_COLUMNS)
        self._write_table("offsets", _table(self._offsets, len(OFFSET_COLUMNS)), columns=OFFSET_COLUMNS)
        maps = len(self._shapes[0]) if self._shapes else 0
        shapes = np.array(self._shapes, dtype=np.int64).reshape(len(self._shapes), maps, len(SHAPE_COLUMNS))
        self._write_table("shapes", shapes, columns=SHAPE_COLUMNS)
        image_bytes = tuple(self._images[row[0]][0] for row in self._views if self._attributes.stem is not None)
        if self._attributes.stem is not None:
            spans = image_spans([row[0] for row in self._views], image_bytes)
            self._write_table("image_spans", spans, columns=SPAN_COLUMNS)
        for name, numbers in self._channels.items():
            table = np.array(numbers, dtype=np.float32).reshape(len(numbers), -1 if numbers else 0)
            self._write_table(name, table)
        broken = [broken.model_dump() for broken in self._broken]
        self._group.update_attributes(
            {"broken": broken, ATTRIBUTE: {name: file.chunk_sums for name, file in self._shards().items()}}
        )
        flush_tree(self.folder)
        record = SegmentRecord(
            segment=segment,
            cache_fingerprint=self._attributes.fingerprint,
            image_ids=tuple(row[0] for row in self._views),
            view_indices=tuple(row[1] for row in self._views),
            resized_sizes=tuple((row[9], row[10]) for row in self._views),
            matched=tuple(self._matched),
            shapes=tuple(tuple((s[0], s[1], s[2]) for s in shapes) for shapes in self._shapes),
            broken=tuple(self._broken),
            image_crcs=tuple(self._crcs),
            annotation_sums=tuple(self._annotation_sums) if self._attributes.format_version > 1 else (),
            image_bytes=image_bytes,
            folder=folder,
            sums="crc32",
            files=self._files(),
        )
        check_segment(record, self.folder, self._attributes, offsets=_table(self._offsets, len(OFFSET_COLUMNS)))
        return record

    def close(self) -> None:
        """End its threads, and let go of files."""
        self._pool.shutdown(cancel_futures=True)
        for column in self._columns.values():
            column.close()

    def _files(self) -> dict[str, tuple[int, int]]:
        shards = self._shards()
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file() and not is_guest(path.name))
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: shards[name].told if name in shards else file_crc32(path) for name, path in names.items()}

    def _shards(self) -> dict[str, ShardFile]:
        return {name: file for column in self._columns.values() for name, file in column.files.items()}

    def _put_image(self, image_id: int, content: bytes, crc: int | None) -> None:
        """Keep an image file, once for all its views."""
        told = (len(content), crc)
        if image_id not in self._images:
            self._put_rows("images", np.frombuffer(content, dtype=np.uint8), rows=IMAGE_ROWS)
        if self._images.setdefault(image_id, told) != told:
            raise UserError(f"the file of image {image_id} has changed while it was read")

    def _put_maps(self, name: str, maps: list[Tensor], view: CachedView) -> int:
        parts = [a_map if self._dtype == "int8" else a_map.to(getattr(torch, self._dtype)) for a_map in maps]
        if not all(map(_all_finite, parts)):
            advice = "; try --precision float32" if self._dtype == "float16" else ""
            raise UserError(f"image {view.image_id}: `{name}` has values that are not finite in {self._dtype}{advice}")
        if self._dtype == "int8":
            step = self._attributes.step
            found = [quantised(part) if step is None else coded(part, step=step) for part in parts]
            parts = [values for values, *_ in found]
            for place, numbers in enumerate(self._channels.values(), start=1):
                numbers[-1] += torch.cat([each[place] for each in found]).tolist()
        stored = [part.flatten().numpy() for part in parts]
        if self._attributes.packing == "nibbles":
            stored = [packed(np.concatenate(stored))]
        count = sum(map(len, stored))
        layout = map_layout(self._attributes, 0, chunk=chunk_rows(count, np.dtype(self._dtype).itemsize))
        for values in stored:
            self._put(name, values, layout=layout)
        return count

    def _put_rows(
        self, name: str, values: np.ndarray, *, rows: int | None = None, columns: tuple[str, ...] = ()
    ) -> None:
        row_bytes = values.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
        chunk = rows or chunk_rows(len(values), row_bytes)
        layout = ArrayLayout.sharded((0, *values.shape[1:]), str(values.dtype), chunk=chunk)
        self._put(name, values, layout=layout, columns=columns)

    def _put(self, name: str, values: np.ndarray, *, layout: ArrayLayout, columns: tuple[str, ...] = ()) -> None:
        """Add rows to an array, which is made by `layout` when its first rows come."""
        if name not in self._columns:
            self._columns[name], self._names[name] = Column(self.folder, name, layout, self._pool), columns
        self._columns[name].append(values)

    def _write_table(self, name: str, values: np.ndarray, *, columns: tuple[str, ...] = ()) -> None:
        array = ArrayLayout.table(values.shape, str(values.dtype)).create(self._group, name, columns=columns)
        if values.size:
            array[...] = values


def row_array(view: CachedView) -> np.ndarray:
    """(rows, 6 + D) float32, a view's part of `rows`."""
    pairs = torch.cat([view.boxes, view.scores[:, None], view.labels[:, None], view.queries], dim=1)
    return pairs.float().numpy()


def truth_arrays(truth: GroundTruth, *, points: int | None) -> dict[str, np.ndarray]:
    """A view's part of the arrays of its ground truth, by their names.

    Args:
        points: of an object, that the cache has room for; None where it has objects with masks alone.
    """
    counts = [mask["counts"] for mask in truth.masks]
    lengths = [len(count) for count in counts]
    objects = np.stack([truth.annotation_ids, truth.categories, truth.crowd, truth.match, lengths], axis=1)
    arrays: dict[str, np.ndarray] = {
        "truth/objects": objects.astype(np.int64),
        "truth/boxes": np.concatenate([truth.boxes, truth.areas[:, None]], axis=1).astype(np.float32),
        "truth/rle": np.frombuffer(b"".join(counts), dtype=np.uint8),
    }
    if points is not None:
        arrays["truth/supervision"] = (truth.supervision or all_masks(len(counts))).to_array(points)
    return arrays


def view_row(view: CachedView) -> list[int]:
    """A view's row of `views`."""
    transform = view.transform
    return [
        view.image_id, view.view, *transform.original_size, *transform.crop, int(transform.flip),
        *transform.resized_size, view.selected,
    ]  # fmt: skip


def _all_finite(values: Tensor) -> bool:
    """By least and greatest, which are nan where one is: twenty times cheaper in float16 than a look at each."""
    return values.numel() == 0 or bool(torch.isfinite(torch.stack(values.aminmax())).all())


def _table(rows: list[list[int]], columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, columns)
