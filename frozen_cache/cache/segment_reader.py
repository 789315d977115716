"""Reading one committed segment: never a number that was not written."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.checked_store import checked_store
from frozen_cache.cache.chunk_sums import ATTRIBUTE, ChunkSums
from frozen_cache.cache.close_up import CloseUp
from frozen_cache.cache.contents import (
    MAX_PIXELS,
    NotWhole,
    channel_tables,
    check_files,
    check_groups,
    check_record,
    check_size,
    check_spans,
    check_views,
    columns,
    fixed_tables,
    read_document,
)
from frozen_cache.cache.direct_read import DirectArray
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.from_image import CacheStem, FromImage
from frozen_cache.cache.layout import (
    OFFSET_COLUMNS,
    ROW_COLUMNS,
    VIEW_COLUMNS,
    offset_column,
)
from frozen_cache.cache.ledger import SegmentRecord, segment_name
from frozen_cache.cache.mending import mend
from frozen_cache.cache.ranges import OpenFiles
from frozen_cache.cache.stored_map import StoredMap, StoredView, maps_of, packed_maps, paired
from frozen_cache.cache.truth_table import TruthRoom, TruthTable
from frozen_cache.cache.view import CachedView
from frozen_cache.data.images import ImageReader
from frozen_cache.data.supervision import all_masks
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import in_frame
from frozen_cache.remote import CachePath, RemotePath, listed

Shapes = tuple[tuple[int, int, int], ...]
"""(C, H, W) of each of several maps."""
_LARGE_MAPS = 2 << 20
"""Bytes of packed maps of a view from which their halves are read apart; those of smaller ones may lie in one chunk."""


class SegmentReader:
    """One segment of a cache. Opening checks the size of every file that it must have, and its metadata."""

    def __init__(
        self,
        cache: CachePath,
        record: SegmentRecord,
        attributes: CacheAttributes,
        *,
        stem: CacheStem | None = None,
        room: TruthRoom | None = None,
        files: OpenFiles | None = None,
    ) -> None:
        """
        Args:
            stem: makes the maps that come from images.
            room, files: shared with other segments; None for its own.
        """
        self.record = record
        self.folder = record.folder_in(cache)
        self._cache, self._record, self._attributes = cache, record, attributes
        self._folder = listed(self.folder, keep="zarr.json")
        self._layers = attributes.detector.encoder_layers
        self._has_c1 = attributes.stores_c1
        self._images = None if stem is None else ImageReader(bit_depth=attributes.data.bit_depth, max_pixels=MAX_PIXELS)
        self._stem = stem
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._direct: dict[str, DirectArray] = {}
        self._room = TruthRoom() if room is None else room
        self._files = OpenFiles() if files is None else files
        self._all_truth: TruthTable | None = None
        self._first_truth = threading.Lock()
        """Of the thread that reads the ground truth of all views; until it has, others read that of their own view."""
        with self._damage(None):
            self._open()

    def _open(self) -> None:
        record = self._record
        check_record(record, self._attributes)
        tables = fixed_tables(record, self._attributes)
        check_files(record, self._folder, tables)
        group: Any = read_document(record, self._folder, "zarr.json")
        self._chunk_sums = ChunkSums(group["attributes"].get(ATTRIBUTE, {}))
        self._store = checked_store(self._folder, self._check_size, self._check_content)
        self._views = self._read("views", slice(None))
        self._offsets = self._read("offsets", slice(None))
        self._shapes = self._read("shapes", slice(None))
        names = channel_tables(self._attributes)
        self._channels = [self._read(name, slice(None)) for name in names]
        growing = columns(record, self._attributes, self._offsets)
        check_files(record, self._folder, growing)
        check_groups(record, self._folder, tables | growing)
        check_views(record, self._views, self._shapes)
        for name, layout in growing.items():
            self._direct[name] = DirectArray(
                self._folder, name, layout, record=record, sums=self._chunk_sums, files=self._files
            )
        if self._attributes.stem is not None:
            self._spans = self._read("image_spans", slice(None))
            check_spans(record, self._spans)

    def read(self, row: int, *, layers: Iterable[int], c1: bool, close_up: bool = False) -> StoredView:
        """One view, its maps as they are stored; with its own pixels where a `close_up` is asked for.

        Raises:
            DamagedCacheError: naming segment and image, where its data is not what was written.
            OSError: naming the file, where it cannot be read, which says nothing about what is in it.
        """
        with self._damage(row):
            return self._view(row, layers=layers, c1=c1, close_up=close_up)

    def picture(self, row: int) -> Image.Image | None:
        """The whole image of a view, RGB and upright; None where the cache holds no images. Errors as in `read`."""
        if self._images is None:
            return None
        meta = dict(zip(VIEW_COLUMNS, self._views[row].tolist(), strict=True))
        with self._damage(row):
            return self._decoded(self._images, row, (meta["original_height"], meta["original_width"]))

    def stored(self, name: str, row: int | None = None) -> np.ndarray:
        """An array as it is stored, or what one view has of it: elements of a column, one row of a table. Where all
        objects have masks, a view's part of `truth/supervision` says so.

        Raises:
            DamagedCacheError, OSError: as `read`.
        """
        with self._damage(row):
            if row is None:
                return self._read(name, slice(None))
            if name == "truth/supervision" and self._attributes.data.points is None:
                span = self._span("objects", row)
                return all_masks(span.stop - span.start).to_array(0)
            if name == "images":
                return self._read(name, self._image_span(row))
            column = offset_column(name)
            return self._read(name, slice(row, row + 1) if column is None else self._span(column, row))

    @contextmanager
    def _damage(self, row: int | None) -> Iterator[None]:
        """What the block raises as damage that is named; but I/O errors are no damage."""
        try:
            yield
        except DamagedCacheError as error:
            raise self._damaged(error.what, row) from None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self._damaged(str(error), row) from error
        except OSError as error:
            if error.filename is None:
                raise OSError(error.errno, error.strerror or str(error), str(self._folder)) from error
            raise
        except MemoryError:
            raise
        except Exception as error:  # what the codecs raise on a wrong checksum, and what follows from one
            raise self._damaged(str(error).splitlines()[0] if str(error) else type(error).__name__, row) from error

    def _view(self, row: int, *, layers: Iterable[int], c1: bool, close_up: bool) -> StoredView:
        meta = dict(zip(VIEW_COLUMNS, self._views[row].tolist(), strict=True))
        shapes = self._record.shapes[row]
        rows = self._read("rows", self._span("rows", row))
        transform = ViewTransform(
            original_size=(meta["original_height"], meta["original_width"]),
            crop=(meta["crop_x0"], meta["crop_y0"], meta["crop_x1"], meta["crop_y1"]),
            flip=bool(meta["flip"]),
            resized_size=(meta["resized_height"], meta["resized_width"]),
        )
        layers = tuple(layers)
        c1_map = None
        if self._has_c1 and c1:
            [c1_map] = self._maps("c1", row, shapes[:1], first_channel=0)
        level_shapes = shapes[1:] if self._has_c1 else shapes
        c1_channels = shapes[0][0] if self._has_c1 else 0
        channels = sum(shape[0] for shape in level_shapes)
        image, near = self._from_picture(row, transform, c1=c1, levels=bool(layers), close_up=close_up)
        return StoredView(
            rows=CachedView(
                image_id=meta["image_id"],
                view=meta["view"],
                transform=transform,
                selected=meta["selected"],
                queries=torch.from_numpy(rows[:, len(ROW_COLUMNS) :].copy()),
                boxes=torch.from_numpy(rows[:, :4].copy()),
                scores=torch.from_numpy(rows[:, 4].copy()),
                labels=torch.from_numpy(rows[:, 5].astype(np.int64)),
                c1=None,
                encoder={},
                truth=self._truth(row),
            ),
            c1=c1_map,
            encoder={
                layer: self._maps(
                    f"encoder/{layer}",
                    row,
                    level_shapes,
                    first_channel=c1_channels + self._layers.index(layer) * channels,
                )
                for layer in layers
            },
            image=image,
            close_up=near,
        )

    def _from_picture(
        self, row: int, transform: ViewTransform, *, c1: bool, levels: bool, close_up: bool
    ) -> tuple[FromImage | None, CloseUp | None]:
        """What the maps that are asked for and not stored are made of, and the view's own pixels; None where there are
        none, or nobody asked."""
        stem = self._attributes.stem
        if stem is None or self._stem is None or self._images is None:
            return None, None
        c1 = c1 and stem.config.c1 is not None
        maps = c1 or (levels and bool(stem.config.levels))
        if not maps and not close_up:
            return None, None
        image = in_frame(self._decoded(self._images, row, transform.original_size), transform)
        near = CloseUp(pil_to_tensor(image), self._stem) if close_up else None
        if not maps:
            return None, near
        rule, (height, width) = self._attributes.detector.input, transform.resized_size
        pixels = {
            scale: rule.resize_image(image, (scale * height, scale * width))[None] for scale in stem.config.scales
        }
        return FromImage(pixels=pixels, stem=self._stem, c1=c1), near

    def _decoded(self, images: ImageReader, row: int, size: tuple[int, int]) -> Image.Image:
        name = Path(f"the file of image {self._record.image_ids[row]}")
        content = self._read("images", self._image_span(row)).tobytes()
        return images.decode(content, name, height=size[0], width=size[1])

    def _image_span(self, row: int) -> slice:
        start, end = self._spans[row].tolist()
        return slice(start, end)

    def _maps(self, name: str, row: int, shapes: Shapes, *, first_channel: int) -> list[StoredMap]:
        span = self._span(name.partition("/")[0], row)
        channels = slice(first_channel, first_channel + sum(shape[0] for shape in shapes))
        tables = [table[row, channels].copy() for table in self._channels]
        packed, size = self._attributes.packing == "nibbles", span.stop - span.start
        if packed and size >= _LARGE_MAPS and paired(shapes) and not isinstance(self._folder, RemotePath):
            array, middle = self._direct[name], span.start + size // 2
            lower = array.read(span.start, middle).view(np.uint8)
            return packed_maps(lower, array.read_unless_zeros(middle, span.stop), shapes, tables=tables)
        return maps_of(self._read(name, span), shapes, tables=tables, packed=packed)

    def _truth(self, row: int) -> GroundTruth:
        if self._all_truth is None and self._first_truth.acquire(blocking=False):  # never released
            self._all_truth = self._kept_truth()
        whole = self._all_truth
        return self._truth_table(row, row + 1).view(0) if whole is None else whole.view(row)

    def _kept_truth(self) -> TruthTable | None:
        """Of all views; None where there is no room, or some of it is damaged: then each view tells for itself."""
        size = sum(array.nbytes for name, array in self._direct.items() if name.startswith("truth/"))
        if not self._room.take(size):
            return None
        try:
            return self._truth_table(0, len(self._views))
        except (NotWhole, OSError, ValueError):
            return None

    def _truth_table(self, start: int, stop: int) -> TruthTable:
        """Of the views from `start` to `stop`."""
        cuts = self._offsets[start : stop + 1, [OFFSET_COLUMNS.index(name) for name in ("objects", "rle")]]
        objects, rle = (slice(first, last) for first, last in zip(*cuts[[0, -1]].tolist(), strict=True))
        left, top, right, low = (VIEW_COLUMNS.index(f"crop_{name}") for name in ("x0", "y0", "x1", "y1"))
        views = self._views[start:stop]
        return TruthTable(
            objects=self._read("truth/objects", objects),
            boxes=self._read("truth/boxes", objects),
            rle=self._read("truth/rle", rle),
            supervision=None if self._attributes.data.points is None else self._read("truth/supervision", objects),
            starts=cuts,
            sizes=np.stack([views[:, low] - views[:, top], views[:, right] - views[:, left]], axis=1),
        )

    def _check_size(self, name: str) -> None:
        check_size(self._record, self._folder, name)

    def _check_content(self, name: str, part: np.ndarray, start: int) -> None:
        """NotWhole where what was read of a file, from `start` on, is not what was written there."""
        size, checksum = self._record.files[name]
        if name in self._chunk_sums:
            self._chunk_sums.check(name, part, start=start % size)
        elif len(part) == size and self._record.sums == "crc32" and zlib.crc32(part.data) != checksum:
            raise NotWhole(f"{name} has changed")

    def _span(self, column: str, row: int) -> slice:
        return slice(*self._offsets[row : row + 2, OFFSET_COLUMNS.index(column)].tolist())

    def _read(self, name: str, span: slice) -> np.ndarray:
        direct = self._direct.get(name)
        if direct is not None:
            return direct.read(span.start or 0, len(direct) if span.stop is None else span.stop)
        array = self._arrays.get(name)
        if array is None:
            array = zarr.open_array(self._store, path=name, mode="r", zarr_format=3)
            self._arrays[name] = array
        values = np.asarray(array[span])
        if span.stop is not None and len(values) != span.stop - span.start:
            raise self._damaged(f"{name} is too short")
        return values

    def _damaged(self, what: str, row: int | None = None) -> DamagedCacheError:
        image = "" if row is None else f", image {self._record.image_ids[row]}"
        message = (
            f"segment {segment_name(self._record.segment)}{image} of {self._cache} is damaged: {what}; "
            f"{mend(self._cache)}"
        )
        return DamagedCacheError(message, what)
