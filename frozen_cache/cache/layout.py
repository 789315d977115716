"""How a segment's arrays are cut into chunks and shards, and which files that makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

VIEW_COLUMNS = (
    "image_id", "view", "original_height", "original_width", "crop_x0", "crop_y0", "crop_x1", "crop_y1", "flip",
    "resized_height", "resized_width", "selected",
)  # fmt: skip
ROW_COLUMNS = ("cx", "cy", "w", "h", "score", "label")
"""Of `rows`; the query's D numbers follow. One array, because each array costs a read a millisecond."""
OBJECT_COLUMNS = ("annotation_id", "category", "crowd", "match", "rle_bytes")
BOX_COLUMNS = ("x0", "y0", "x1", "y1", "area")
OFFSET_COLUMNS = ("rows", "objects", "rle", "c1", "encoder")
SHAPE_COLUMNS = ("channels", "height", "width")
SPAN_COLUMNS = ("start", "end")
OBJECT_ROWS = 256
"""Objects per inner chunk."""
POINT_COLUMNS = ("x", "y", "inside")
"""Of each point in `truth/supervision`, behind the object's kind."""
RLE_ROWS = 16 << 10
"""Bytes of RLE per inner chunk."""
IMAGE_ROWS = 64 << 10
"""Bytes of image files per inner chunk."""

CHUNK_BYTES = 512 << 10
"""Inner chunks of the feature maps: one image reads a few, and little of its neighbours."""
SHARD_BYTES = 64 << 20
"""Also the memory that a writer holds per array, about."""
SHARD_CHUNKS = 256
"""At most; each chunk costs 16 bytes in the shard's index, which every read takes in whole."""
CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16
ZSTD_LEVEL = 1
ZSTD_LEAST = 9
"""Bytes of the shortest frame that holds anything: magic number, header, one block."""


def chunk_rows(first_rows: int, row_bytes: int) -> int:
    """Rows per inner chunk, given the first view's rows: a divisor, if one fits, so that equal views share none."""
    target = max(1, CHUNK_BYTES // row_bytes)
    if first_rows <= target:
        return max(1, first_rows)
    parts = -(-first_rows // target)
    for count in range(parts, 4 * parts):
        if first_rows % count == 0:
            return first_rows // count
    return target


def image_spans(image_ids: Iterable[int], image_bytes: Iterable[int]) -> np.ndarray:
    """(V, 2) int64, start and end in `images` of each view's image file: once each, in the order of first views."""
    spans: dict[int, tuple[int, int]] = {}
    rows, end = [], 0
    for image, size in zip(image_ids, image_bytes, strict=True):
        if image not in spans:
            spans[image] = (end, end + size)
            end += size
        rows.append(spans[image])
    return np.array(rows, dtype=np.int64).reshape(-1, len(SPAN_COLUMNS))


def offset_column(name: str) -> str | None:
    """The column of `offsets` that cuts an array into views; None for tables, which have a row a view."""
    objects = dict.fromkeys(("truth/objects", "truth/boxes", "truth/supervision"), "objects")
    column = (objects | {"truth/rle": "rle"}).get(name, name.split("/")[0])
    return column if column in OFFSET_COLUMNS else None


@dataclass(frozen=True)
class ArrayLayout:
    """One array as it must lie on disk: cut along its first axis only, little-endian, a CRC-32C on every chunk."""

    shape: tuple[int, ...]
    dtype: str
    chunk: int
    """Rows of a chunk; of an inner chunk where there are shards."""
    shard: int | None = None
    """Rows of a shard (a file); None for tables, which are one chunk."""
    zstd: bool = False
    """Whether chunks are compressed, each by itself, before their CRC-32C."""

    @classmethod
    def table(cls, shape: tuple[int, ...], dtype: str) -> ArrayLayout:
        """A small array in one chunk."""
        return cls(shape, dtype, chunk=max(1, shape[0]))

    @classmethod
    def sharded(cls, shape: tuple[int, ...], dtype: str, *, chunk: int, zstd: bool = False) -> ArrayLayout:
        """An array with `chunk` rows per inner chunk, as many of them in a shard as `SHARD_BYTES` allows."""
        chunk_bytes = chunk * math.prod(shape[1:]) * np.dtype(dtype).itemsize
        shard = chunk * max(1, min(SHARD_CHUNKS, SHARD_BYTES // chunk_bytes))
        return cls(shape, dtype, chunk, shard=shard, zstd=zstd)

    def create(self, group: zarr.Group, name: str, *, columns: tuple[str, ...] = ()) -> zarr.Array[Any]:
        """Make the array in `group`, without data; `columns` names its last axis."""
        return group.create_array(
            name,
            shape=self.shape,
            chunks=self._chunk_shape,
            shards=None if self.shard is None else (self.shard, *self.shape[1:]),
            dtype=self.dtype,
            filters=None,
            compressors=[*([ZstdCodec(level=ZSTD_LEVEL)] if self.zstd else []), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
            attributes={"columns": list(columns)} if columns else {},
        )

    @property
    def file_count(self) -> int:
        """Data files."""
        return -(-self.shape[0] // (self.shard or self.chunk)) if math.prod(self.shape) else 0

    def files(self) -> dict[str, tuple[int, int]]:
        """Path of each data file below the array -> its least and its greatest possible size in bytes; they are equal
        where nothing is compressed."""
        if not self.file_count:
            return {}
        plain = self.chunk * math.prod(self._chunk_shape[1:]) * np.dtype(self.dtype).itemsize
        least, most = (ZSTD_LEAST, _zstd_most(plain)) if self.zstd else (plain, plain)
        least, most = least + CRC_BYTES, most + CRC_BYTES
        tail = "/0" * (len(self.shape) - 1)
        if self.shard is None:
            return {f"c/0{tail}": (least, most)}
        index = self.shard // self.chunk * INDEX_ENTRY_BYTES + CRC_BYTES
        starts = range(0, self.shape[0], self.shard)
        counts = [-(-min(self.shard, self.shape[0] - start) // self.chunk) for start in starts]
        return {
            f"c/{number}{tail}": (count * least + index, count * most + index) for number, count in enumerate(counts)
        }

    def difference(self, document: Mapping[str, Any]) -> str | None:
        """What a `zarr.json` says otherwise, in words; None where it describes this array and no other codecs."""
        wanted: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self._grid}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": self._codecs,
        }
        for key, value in wanted.items():
            if _plain(document.get(key)) != _plain(value):
                return f"its `{key}` is not that of this format"
        if document.get("storage_transformers"):
            return "it has storage transformers"
        return None

    @property
    def _chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk, *(max(1, size) for size in self.shape[1:]))

    @property
    def _grid(self) -> list[int]:
        return list(self._chunk_shape if self.shard is None else (self.shard, *self.shape[1:]))

    @property
    def _codecs(self) -> list[dict[str, Any]]:
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        zstd = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}
        data = [
            {"name": "bytes"} if np.dtype(self.dtype).itemsize == 1 else little,
            *([zstd] if self.zstd else []),
            {"name": "crc32c"},
        ]
        if self.shard is None:
            return data
        configuration = {
            "chunk_shape": list(self._chunk_shape),
            "codecs": data,
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]


def _zstd_most(size: int) -> int:
    """Bytes of a zstd frame of `size` bytes at most: ZSTD_compressBound."""
    return size + (size >> 8) + max(0, (128 << 10) - size >> 11)


def _plain(value: Any) -> Any:
    """JSON with optional empty configurations left out, and the byte order of single bytes, which has no meaning."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not (key == "configuration" and not item)}
    return value
