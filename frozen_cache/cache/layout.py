"""How a segment's arrays are cut into chunks and shards, and which arrays there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

VIEW_COLUMNS = (
    "image_id", "view", "original_height", "original_width", "crop_x0", "crop_y0", "crop_x1", "crop_y1", "flip",
    "resized_height", "resized_width", "selected",
)  # fmt: skip
ROW_COLUMNS = ("cx", "cy", "w", "h", "score", "label")
"""Of `rows`; the query's D numbers follow. One array, because each array costs a read a millisecond."""
OBJECT_COLUMNS = ("annotation_id", "category", "crowd", "match", "rle_bytes")
BOX_COLUMNS = ("x0", "y0", "x1", "y1", "area")
OFFSET_COLUMNS = ("rows", "objects", "rle", "c1", "encoder")

CHUNK_BYTES = 512 << 10
"""Inner chunks of the feature maps: one image reads a few, and little of its neighbours."""
SHARD_BYTES = 64 << 20
"""Also the memory that a writer holds per array, about."""
SHARD_CHUNKS = 256
"""At most; each chunk costs 16 bytes in the shard's index, which every read takes in whole."""


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


def create_sharded(
    group: zarr.Group, name: str, *, tail: tuple[int, ...], dtype: str, rows: int, columns: tuple[str, ...] = ()
) -> zarr.Array[Any]:
    """An empty array (0, *tail) with `rows` rows per inner chunk, a CRC-32C on each chunk and on the shard's index."""
    chunk_bytes = rows * int(np.prod(tail, dtype=np.int64)) * np.dtype(dtype).itemsize
    per_shard = max(1, min(SHARD_CHUNKS, SHARD_BYTES // chunk_bytes))
    return group.create_array(
        name,
        shape=(0, *tail),
        chunks=(rows, *tail),
        shards=(rows * per_shard, *tail),
        dtype=dtype,
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},
        attributes={"columns": list(columns)} if columns else {},
    )


def write_table(group: zarr.Group, name: str, values: np.ndarray, *, columns: tuple[str, ...] | None = None) -> None:
    """A small array in one chunk with a CRC-32C; `columns` names its last axis."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, size) for size in values.shape),
        dtype=values.dtype,
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},
        attributes={"columns": list(columns)} if columns else {},
    )
    if values.size:
        array[...] = values
