"""What the tests of recomputed C1 share."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from frozen_cache.cache.reader import CacheReader

WEIGHTS = "stem/weights.safetensors"
SMALL = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}


def copied(cache: Path, tmp_path: Path) -> Path:
    """The cache elsewhere, so that it can be harmed."""
    return Path(shutil.copytree(cache, tmp_path / "copy.zarr"))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to 1e-5 of the wanted map's scale."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def same_views(one: Path, other: Path) -> None:
    """The same views with the same numbers, in any order."""
    readers = CacheReader(one), CacheReader(other)
    at = [{key: index for index, key in enumerate(reader.views)} for reader in readers]
    assert at[0].keys() == at[1].keys()
    for key in at[0]:
        found, wanted = (reader.read(places[key]) for reader, places in zip(readers, at, strict=True))
        close(found.c1, wanted.c1)
        assert torch.equal(found.queries, wanted.queries)
