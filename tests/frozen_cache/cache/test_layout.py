"""The sizes that compressed shards can have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from frozen_cache.cache.chunk_sums import read_chunk_sums
from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import ArrayLayout


@pytest.mark.parametrize("rows", [1, 40, 4096, 300_000])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_a_compressed_shard_is_as_large_as_its_layout_says(tmp_path: Path, rows: int, kind: str) -> None:
    layout = ArrayLayout.sharded((rows,), "int8", chunk=max(1, rows // 2), zstd=True)
    values = np.zeros(rows, np.int8) if kind == "zeros" else np.frombuffer(os.urandom(rows), np.int8)
    layout.create(zarr.open_group(str(tmp_path), mode="w", zarr_format=3), "c1")[:] = values
    [(name, (least, most))] = layout.files().items()
    size = (tmp_path / "c1" / name).stat().st_size
    assert least <= size <= most
    assert most - size < 400 + rows // 100 if kind == "random" else size - least < 200 + rows // 1000


def test_a_chunk_that_was_left_out_is_found_before_the_segment_is_committed(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=3)
    array = group.create_array("c1", shape=(30,), chunks=(10,), shards=(30,), dtype="int8", fill_value=0)
    array[:] = np.repeat([1, 0, 2], 10)  # zarr leaves chunks of zeros out unless told otherwise
    with pytest.raises(NotWhole, match="has 2 chunks, it must have 3"):
        read_chunk_sums(tmp_path / "c1" / "c" / "0", chunks=3, present=3)
    read_chunk_sums(tmp_path / "c1" / "c" / "0", chunks=3, present=2)
