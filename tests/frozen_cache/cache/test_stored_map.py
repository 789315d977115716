"""Maps as a cache stores them, and the floats that they become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stored_map import StoredMap, maps_of
from frozen_cache.cache.view import CachedView


def test_small_integers_become_floats_by_the_scale_of_their_channel() -> None:
    values = torch.tensor([[[1, -2]], [[3, 0]]], dtype=torch.int8)
    stored = StoredMap(values, torch.tensor([0.5, 10.0]))
    assert stored.nbytes == 4 + 8
    assert stored.decoded().tolist() == [[[0.5, -1.0]], [[30.0, 0.0]]]
    assert stored.decoded().dtype == torch.float32
    shifted = StoredMap(values, torch.tensor([0.5, 10.0]), torch.tensor([1.0, -2.0]))
    assert shifted.decoded().tolist() == [[[1.5, 0.0]], [[28.0, -2.0]]]
    assert stored.decoded(torch.float16).dtype == torch.float16
    assert StoredMap(values.half()).decoded().tolist() == [[[1.0, -2.0]], [[3.0, 0.0]]]


def test_a_map_moves_to_a_device_as_it_is_stored() -> None:
    stored = StoredMap(torch.zeros(2, 1, 3, dtype=torch.int8), torch.ones(2), torch.ones(2))
    stored = stored.to("meta", non_blocking=True)
    assert stored.scales is not None and stored.shifts is not None
    assert {part.device.type for part in (stored.values, stored.scales, stored.shifts)} == {"meta"}
    assert stored.values.dtype == torch.int8
    assert stored.decoded().device.type == "meta"


@pytest.mark.parametrize("precision", ["float16", "float32", "int8", "coded"])
def test_a_view_is_read_as_it_is_stored(
    make_cache: Callable[..., Path], make_view: Callable[..., CachedView], tmp_path: Path, precision: str
) -> None:
    view = make_view(3, size=(8, 12))
    reader = CacheReader(make_cache(tmp_path / "x.zarr", [view], precision=precision))
    stored = reader.read_stored(0, encoder_layers=(4,))
    assert stored.c1 is not None and list(stored.encoder) == [4]
    maps = [stored.c1, *stored.encoder[4]]
    assert {each.unpacked().dtype for each in maps} == {
        torch.int8 if precision == "coded" else getattr(torch, precision)
    }
    assert stored.rows.c1 is None and not stored.rows.encoder
    numbers = 7 * {"int8": 1, "coded": 2}.get(precision, 0)  # of 7 channels
    values = 3 * 8 * 12 + 2 * (4 * 6 + 2 * 3)
    assert stored.nbytes == int(values * {"float32": 4, "float16": 2, "int8": 1, "coded": 0.5}[precision]) + 4 * numbers
    held = {
        part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for each in maps for part in [each.values]
    }
    assert sum(held.values()) == sum(each.values.nbytes for each in maps)
    floats = reader.read(0, encoder_layers=(4,))
    decoded = stored.decoded()
    assert floats.c1 is not None and decoded.c1 is not None and torch.equal(floats.c1, decoded.c1)
    assert all(torch.equal(a, b) for a, b in zip(floats.encoder[4], decoded.encoder[4], strict=True))
    assert torch.equal(floats.queries, decoded.queries)
    assert reader.read_stored(0, encoder_layers=(), c1=False).nbytes == 0


def test_packed_maps_stay_packed_and_hold_upper_halves_only_where_there_are_any() -> None:
    small = torch.randint(-8, 8, (2, 3, 3), dtype=torch.int8)
    large = torch.randint(-128, 128, (2, 1, 5), dtype=torch.int8)
    stored = packed(torch.cat([small.flatten(), large.flatten()]).numpy())
    tables = [np.random.default_rng(place).random(4, dtype=np.float32) for place in range(2)]
    first, second = maps_of(stored, [(2, 3, 3), (2, 1, 5)], tables=tables, packed=True)
    assert first.upper is None and second.upper is not None
    assert first.shape == (2, 3, 3) and first.nbytes == 9 + 4 * 4 and second.nbytes == 2 * 5 + 4 * 4
    for found, whole, channels in ((first, small, slice(0, 2)), (second, large, slice(2, 4))):
        assert torch.equal(found.unpacked(), whole)
        plain = StoredMap(whole, *(torch.from_numpy(table[channels]) for table in tables))
        assert torch.equal(found.decoded(), plain.decoded())
        assert found.to("meta").decoded().shape == whole.shape


def test_packed_maps_whose_pairs_would_cross_from_one_into_the_next_are_taken_apart() -> None:
    values = torch.arange(-4, 4, dtype=torch.int8)
    tables = [np.ones(2, np.float32), np.zeros(2, np.float32)]
    maps = maps_of(packed(values.numpy()), [(1, 1, 3), (1, 1, 5)], tables=tables, packed=True)
    assert [each.unpacked().flatten().tolist() for each in maps] == [[-4, -3, -2], [-1, 0, 1, 2, 3]]
