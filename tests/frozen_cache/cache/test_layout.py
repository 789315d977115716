"""The sizes that compressed shards can have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

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
