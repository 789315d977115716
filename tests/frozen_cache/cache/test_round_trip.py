"""What goes into a cache comes out of it, for any shapes."""

import os
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.errors import IncompleteCacheError
from frozen_cache.cache.layout import CHUNK_BYTES, chunk_rows
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError

Make = Callable[..., Path]
View = Callable[..., CachedView]


def assert_same(found: CachedView, wanted: CachedView) -> None:
    assert (found.image_id, found.view, found.selected) == (wanted.image_id, wanted.view, wanted.selected)
    assert found.transform == wanted.transform
    for name in ("queries", "boxes", "scores", "labels"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    if wanted.c1 is None:
        assert found.c1 is None
    else:
        assert found.c1 is not None and torch.equal(found.c1, wanted.c1)
    assert list(found.encoder) == list(wanted.encoder)
    for layer, levels in wanted.encoder.items():
        assert all(torch.equal(a, b) for a, b in zip(found.encoder[layer], levels, strict=True))
    for name in ("boxes", "categories", "crowd", "areas", "annotation_ids", "match"):
        assert np.array_equal(getattr(found.truth, name), getattr(wanted.truth, name)), name
    assert [(mask["size"], mask["counts"]) for mask in found.truth.masks] == [
        ([*mask["size"]], mask["counts"]) for mask in wanted.truth.masks
    ]


cases = st.lists(
    st.tuples(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 7), st.integers(0, 4)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases, st.integers(1, 4), st.booleans(), st.sampled_from(["float16", "float32"]))
def test_every_view_is_read_back_exactly(
    make_cache: Make, make_view: View, case: list, per_segment: int, c1: bool, precision: str
) -> None:
    views = [
        make_view(number * 7, size=size, rows=rows, objects=objects, c1=c1)
        for number, (size, rows, objects) in enumerate(case)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = make_cache(Path(folder) / "x.zarr", views, per_segment=per_segment, c1=c1, precision=precision)
        reader = CacheReader(path)
        assert list(reader.views) == [(view.image_id, 0) for view in views]
        for index, view in enumerate(views):
            assert_same(reader.read(index), view)
            maps = [*([view.c1] if view.c1 is not None else []), *view.encoder[1]]
            assert reader.shapes(index) == tuple(tuple(a_map.shape) for a_map in maps)
            assert reader.resized_size(index) == view.transform.resized_size
            assert reader.matched(index) == (view.truth.match >= 0).sum()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases, st.integers(1, 4), st.booleans())
def test_int8_maps_are_read_back_to_half_a_step_and_all_else_exactly(
    make_cache: Make, make_view: View, case: list, per_segment: int, c1: bool
) -> None:
    views = [
        make_view(number * 7, size=size, rows=rows, objects=objects, c1=c1)
        for number, (size, rows, objects) in enumerate(case)
    ]
    for view in views:  # channels of very different magnitude, one of them empty
        for levels in view.encoder.values():
            levels[0][0] *= 1000
            levels[-1][-1] = 0
    with tempfile.TemporaryDirectory() as folder:
        path = make_cache(Path(folder) / "x.zarr", views, per_segment=per_segment, c1=c1, precision="int8")
        reader = CacheReader(path)
        for index, view in enumerate(views):
            found = reader.read(index)
            assert_same(replace(found, c1=view.c1, encoder=view.encoder), view)
            pairs = [
                (found.encoder[layer][at], level)
                for layer in view.encoder
                for at, level in enumerate(view.encoder[layer])
            ]
            if view.c1 is not None:
                pairs.append((found.c1, view.c1))
            for a_map, wanted in pairs:
                step = wanted.float().abs().amax((1, 2), keepdim=True) / 127
                assert ((a_map - wanted).abs() <= 0.5001 * step + 1e-12).all()
            [layer] = list(view.encoder)[-1:]
            alone = reader.read(index, encoder_layers=(layer,), c1=False)
            assert all(torch.equal(a, b) for a, b in zip(alone.encoder[layer], found.encoder[layer], strict=True))


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_coded_maps_are_read_back_as_they_were_coded_and_all_else_exactly(
    tmp_path: Path, make_cache: Make, make_view: View, coded_view: Callable[..., CachedView], step: float
) -> None:
    views = [make_view(number, size=size) for number, size in enumerate([(8, 8), (9, 30), (1, 1), (40, 40), (8, 8)])]
    path = make_cache(tmp_path / "x.zarr", views, precision="coded", step=step)
    reader = CacheReader(path)
    for index, view in enumerate(views):
        assert_same(reader.read(index), coded_view(view, step=step))
    [folder] = (path / "segments").glob("00001.*")
    plain = zarr.open_group(str(folder), mode="r")
    stored = np.concatenate([level.unpacked().numpy().flatten() for level in reader.read_stored(3).encoder[4]])
    offsets = plain["offsets"][:, 4]
    there = plain["encoder/4"][offsets[0] : offsets[1]].astype(np.int64) & 255
    if step < 0.5:
        assert np.array_equal(there.astype(np.uint8).view(np.int8), stored)
        return
    half = len(there) // 2
    low, high = there[:half], there[half : 2 * half]
    pairs = np.stack([(low & 15) + 16 * (high & 15), (low >> 4) + 16 * (high >> 4)], axis=1)
    assert np.array_equal(pairs.flatten() - 8, stored[: 2 * half])
    codecs = [codec["name"] for codec in plain["c1"].metadata.to_dict()["codecs"][0]["configuration"]["codecs"]]
    assert codecs == ["bytes", "zstd", "crc32c"]


@pytest.fixture(scope="module")
def cache(make_cache: Make, make_view: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = [make_view(number, size=(8 + number, 8)) for number in range(5)]
    return make_cache(tmp_path_factory.mktemp("cache") / "x.zarr", views)


def test_only_what_is_asked_for_is_read(cache: Path) -> None:
    view = CacheReader(cache).read(4, encoder_layers=(4,), c1=False, dtype=torch.float16)
    assert view.c1 is None
    assert list(view.encoder) == [4]
    assert view.encoder[4][0].dtype == torch.float16
    assert view.queries.dtype == torch.float32


def test_a_layer_that_is_not_kept_is_named(cache: Path) -> None:
    reader = CacheReader(cache)
    for ask in (lambda: reader.read(0, encoder_layers=(3,)), lambda: reader.head_inputs(3)):
        with pytest.raises(UserError, match="does not hold encoder layer 3; it has 1, 4"):
            ask()


def test_head_inputs_are_the_detectors_shapes(cache: Path) -> None:
    inputs = CacheReader(cache).head_inputs(4)
    assert (inputs.query_dim, inputs.num_classes, len(inputs.levels)) == (4, 2, 2)
    assert inputs.c1 is not None and inputs.c1.channels == 3


def test_threads_and_pickled_readers_read_the_same(cache: Path, make_view: View) -> None:
    reader = pickle.loads(pickle.dumps(CacheReader(cache)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: (place % 5, reader.read(place % 5)), range(20)))
    for place, view in found:
        assert_same(view, make_view(place, size=(8 + place, 8)))


def test_plain_zarr_opens_it(cache: Path, make_view: View) -> None:
    group = zarr.open_group(str(cache), mode="r")
    assert CacheAttributes.model_validate({k: v for k, v in group.attrs.items() if k != "fingerprint"})
    [folder] = (cache / "segments").glob("00001.*")
    segment = zarr.open_group(str(cache), mode="r", path=f"segments/{folder.name}")
    offsets = segment["offsets"][:]
    c1 = segment["c1"][offsets[1, 3] : offsets[2, 3]].reshape(segment["shapes"][1, 0])
    expected = make_view(4, size=(12, 8)).c1
    assert expected is not None and np.array_equal(c1, expected.numpy())


@pytest.mark.parametrize("precision", ["float16", "int8", "coded"])
def test_every_array_is_read_as_plain_zarr_reads_it_whole_and_in_parts(
    tmp_path: Path, make_cache: Make, make_view: View, precision: str
) -> None:
    views = [make_view(number, size=size) for number, size in enumerate([(300, 300), (9, 300), (1, 1), (301, 299)])]
    path = make_cache(tmp_path / "x.zarr", views, per_segment=4, precision=precision)
    segment, _ = CacheReader(path).place(0)
    plain = zarr.open_group(str(segment.folder), mode="r")
    columns = {"rows": 0, "truth/objects": 1, "truth/boxes": 1, "truth/rle": 2, "c1": 3, "encoder/4": 4}
    offsets = plain["offsets"][:]
    for name, column in columns.items():
        assert np.array_equal(segment.stored(name), plain[name][:])
        for row, (start, stop) in enumerate(zip(offsets[:-1, column], offsets[1:, column], strict=True)):
            assert np.array_equal(segment.stored(name, row), plain[name][start:stop])


def test_an_incomplete_cache_is_read_only_when_asked(tmp_path: Path, make_cache: Make, make_view: View) -> None:
    path = make_cache(tmp_path / "x.zarr", [make_view(n) for n in range(5)], per_segment=2, stop=2)
    with pytest.raises(
        IncompleteCacheError, match=r"2 of 3 segments: the same .*extract-features. command again finishes it"
    ):
        CacheReader(path)
    assert len(CacheReader(path, allow_incomplete=True)) == 4


def test_one_view_is_read_without_its_neighbours(
    tmp_path: Path, make_cache: Make, make_view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [make_view(number, size=(240, 240)) for number in range(4)]
    reader = CacheReader(make_cache(tmp_path / "x.zarr", views, per_segment=4))
    reader.read(1)  # opens the segment
    counted = []
    original = os.preadv

    def preadv(*args: Any) -> int:
        counted.append(original(*args))
        return counted[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    reader.read(2)
    maps = 2 * (3 * 240 * 240 + 2 * 2 * (120 * 120 + 60 * 60))
    assert maps <= sum(counted) < 1.15 * maps


def test_chunks_divide_equal_views_where_they_can() -> None:
    assert chunk_rows(409600, 2) == 204800
    assert chunk_rows(100, 4) == 100
    prime = 1_000_003
    assert chunk_rows(prime, 2) == CHUNK_BYTES // 2
    assert chunk_rows(0, 4) == 1


def test_values_beyond_float16_are_refused_naming_image_and_option(
    tmp_path: Path, make_cache: Make, make_view: View
) -> None:
    view = make_view(3)
    assert view.c1 is not None
    view.c1[0, 0, 0] = 1e6
    with pytest.raises(UserError, match=r"image 3: `c1` has values .* --precision float32"):
        make_cache(tmp_path / "x.zarr", [view])
    make_cache(tmp_path / "y.zarr", [view], precision="float32")


@pytest.mark.parametrize("precision", ["float16", "float32", "int8", "coded"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["c1", "encoder"])
def test_a_map_with_one_value_that_is_not_finite_is_not_stored(
    make_cache: Make, make_view: View, tmp_path: Path, precision: str, value: float, where: str
) -> None:
    view = make_view(5)
    a_map = view.c1 if where == "c1" else next(iter(view.encoder.values()))[-1]
    assert a_map is not None
    a_map.flatten()[a_map.numel() // 2] = value
    with pytest.raises(UserError, match=rf"image 5: `{where}.*not finite"):
        make_cache(tmp_path / "x.zarr", [view], precision=precision)
