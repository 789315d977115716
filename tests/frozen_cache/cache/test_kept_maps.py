"""Maps rounded without a cache: equal to what a cache of them gives back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from frozen_cache.cache.kept_maps import KeptMaps, kept_maps
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView


def same_maps(a: CachedView, b: CachedView) -> bool:
    pairs = [
        (level, other) for layer in (1, 4) for level, other in zip(a.encoder[layer], b.encoder[layer], strict=True)
    ]
    assert a.c1 is not None and b.c1 is not None
    return all(torch.equal(*pair) for pair in [(a.c1, b.c1), *pairs])


@pytest.mark.parametrize(("precision", "step"), [("int8", None), ("coded", 0.3), ("coded", 1.0), ("coded", 2.2)])
def test_a_view_is_rounded_as_a_cache_gives_it_back(
    make_cache: Callable[..., Path],
    make_view: Callable[..., CachedView],
    tmp_path: Path,
    precision: str,
    step: float | None,
) -> None:
    view = make_view(3, size=(8, 12))
    reader = CacheReader(make_cache(tmp_path / "x.zarr", [view], precision=precision, step=step or 1.0))
    kept = kept_maps(reader.attributes)
    assert kept is not None and (kept.precision, kept.step, kept.c1) == (precision, step, True)
    rounded = kept.rounded(view)
    assert same_maps(rounded, reader.read(0)) and not same_maps(rounded, view)
    assert rounded.queries is view.queries and rounded.boxes is view.boxes
    assert KeptMaps.model_validate_json(kept.model_dump_json()) == kept


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_floats_are_left_as_they_are(
    make_cache: Callable[..., Path], make_view: Callable[..., CachedView], tmp_path: Path, precision: str
) -> None:
    reader = CacheReader(make_cache(tmp_path / "x.zarr", [make_view(3)], precision=precision))
    assert kept_maps(reader.attributes) is None


def test_what_is_made_from_the_image_is_exact(make_view: Callable[..., CachedView]) -> None:
    view = make_view(3, size=(8, 12))
    rounded = KeptMaps(precision="coded", step=1.0, c1=False, exact_levels=(0,)).rounded(view)
    assert rounded.c1 is view.c1
    for layer, (finest, coarse) in rounded.encoder.items():
        assert finest is view.encoder[layer][0] and not torch.equal(coarse, view.encoder[layer][1])


@pytest.mark.parametrize("step", [0.0, -1.0, float("inf"), float("nan")])
def test_a_step_is_a_positive_number(step: float) -> None:
    with pytest.raises(ValidationError):
        KeptMaps(precision="coded", step=step, c1=True)
