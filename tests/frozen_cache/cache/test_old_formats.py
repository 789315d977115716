"""Every format that was ever released stays readable, with equal numbers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView

FIXTURES = Path(__file__).parents[2] / "fixtures"


def numbers(view: CachedView) -> dict[str, np.ndarray]:
    """Every number of a view, by the names that the fixtures use."""
    transform, truth = view.transform, view.truth
    assert view.c1 is not None
    return {
        "meta": np.array(
            [
                *(view.image_id, view.view, view.selected, *transform.original_size, *transform.crop),
                *(int(transform.flip), *transform.resized_size),
            ]
        ),
        **{name: getattr(view, name).numpy() for name in ("queries", "boxes", "scores", "labels", "c1")},
        **{f"encoder/{k}/{n}": level.numpy() for k, levels in view.encoder.items() for n, level in enumerate(levels)},
        **{
            f"truth/{name}": getattr(truth, name)
            for name in ("boxes", "categories", "crowd", "areas", "annotation_ids", "match")
        },
        "truth/masks": np.array([mask["counts"] for mask in truth.masks], dtype=bytes),
    }


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_cache_of_format_1_reads_as_it_did(precision: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(FIXTURES / "cache_v1" / f"{precision}.zip") as archive:
        archive.extractall(tmp_path / "x.zarr")
    wanted = np.load(FIXTURES / "cache_v1" / f"{precision}.npz")
    reader = CacheReader(tmp_path / "x.zarr")
    found = {f"{place}/{key}": value for place in range(4) for key, value in numbers(reader.read(place)).items()}
    assert len(reader) == 4
    assert found.keys() == set(wanted.files)
    for name, value in found.items():
        assert value.shape == wanted[name].shape and (value == wanted[name]).all(), name
    assert not verify_cache(tmp_path / "x.zarr").damages
