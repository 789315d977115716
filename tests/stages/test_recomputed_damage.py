"""Damage of image files and stems is named and mended; what a stranger puts into a stem harms nobody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.cache import verify
from frozen_cache.errors import UserError
from frozen_cache.stages.cache_tools import cache_repair, cache_verify

from .recomputed_cache import WEIGHTS, copied


def test_a_lost_stem_is_damage_that_repair_and_the_same_command_mend(recomputed, extract_scenes, tmp_path) -> None:
    cache = copied(recomputed, tmp_path)
    content = (cache / WEIGHTS).read_bytes()
    for harm in (
        lambda file: file.unlink(),
        lambda file: file.write_bytes(content[:-1]),
        lambda file: file.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
    ):
        for mend in (cache_repair, lambda path: extract_scenes("again", out=path, c1="recomputed")):
            harm(cache / WEIGHTS)
            with pytest.raises(UserError, match=f"{WEIGHTS} .*cache repair"):
                verify(cache)
            with pytest.raises(DamagedCacheError, match=f"{WEIGHTS} .*cache repair"):
                CacheReader(cache).read(0)
            mend(cache)
            assert (cache / WEIGHTS).read_bytes() == content
            assert cache_verify(cache).stem is None
    shutil.rmtree(cache / "stem")
    assert "written anew" in cache_repair(cache).text()
    assert not cache_repair(cache).stem


def test_damage_of_an_image_file_is_named_and_repaired(recomputed, tmp_path) -> None:
    cache = copied(recomputed, tmp_path)
    wanted = CacheReader(cache).read(1).c1
    [shard] = (cache / "segments").glob("00000.*/images/c/0")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    reader = CacheReader(cache)
    with pytest.raises(DamagedCacheError, match=r"segment 00000, image \d+"):
        [reader.read(index) for index in range(4)]
    reader.read(0, encoder_layers=(), c1=False)
    with pytest.raises(UserError, match=r"1 of 2 segments .* are damaged, the first is segment 00000: images/c/0"):
        verify(cache)
    assert cache_repair(cache).damaged == [0]
    assert torch.equal(CacheReader(cache).read(1).c1, wanted)


def test_another_choice_is_a_difference_that_names_the_option(recomputed, extract_scenes, tmp_path) -> None:
    cache = copied(recomputed, tmp_path)
    with pytest.raises(UserError, match=r"other c1 \(there recomputed, now stored\), set by --c1: give the same"):
        extract_scenes("again", out=cache)
    (cache / "zarr.json").unlink()
    extract_scenes("again", out=cache, c1="recomputed")
    assert cache_verify(cache).intact == [0, 1]


def harmed(cache: Path, **changes) -> Path:
    """A stranger's cache: whole by its own account, its stem's configuration changed."""
    from frozen_cache.cache.attributes import CacheAttributes
    from frozen_cache.cache.ledger import commit_record, committed_segments, read_record

    document = json.loads((cache / "zarr.json").read_text())["attributes"]
    before = document.pop("fingerprint")
    document["stem"]["config"] |= changes
    attributes = CacheAttributes.model_validate(document)
    (cache / "zarr.json").write_bytes(attributes.root_document())
    for segment in committed_segments(cache):
        record = read_record(cache, segment, before).model_copy(update={"cache_fingerprint": attributes.fingerprint})
        (cache / "ledger" / f"{segment:05d}.json").unlink()
        commit_record(cache, record)
    return cache


def test_a_stranger_s_stem_is_refused_in_one_line(recomputed, tmp_path) -> None:
    config = json.loads((recomputed / "zarr.json").read_text())["attributes"]["stem"]["config"]["config"]
    for number, (changes, says) in enumerate(
        [
            ({"kind": "subprocess"}, "kind 'subprocess' is not known"),
            ({"config": config | {"depths": [10**9] * 4}}, "of a size or type that no backbone has"),
            ({"c1": {"module": "nowhere", "scale": 1}}, "has no stage nowhere"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        cache = harmed(copied(recomputed, tmp_path / str(number)), **changes)
        with pytest.raises(UserError, match=says) as error:
            CacheReader(cache).read(0)
        assert str(cache) in str(error.value)
        assert "\n" not in str(error.value)
