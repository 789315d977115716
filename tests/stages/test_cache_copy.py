"""`cache copy`: the copy has the same bytes, whatever happened on the way."""

import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.cache import copying
from frozen_cache.cache.hints import read_hints
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import read_record
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.errors import UserError
from frozen_cache.stages import cache_copy as stage
from frozen_cache.stages.cache_copy import cache_copy
from frozen_cache.stages.extract import extract_features

from .test_extract import FAKE, tree

OLD = Path(__file__).parents[1] / "fixtures" / "cache_v1" / "float16.zip"


@pytest.fixture(scope="module")
def made(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of three segments."""
    folder = tmp_path_factory.mktemp("copied")
    images, annotations = fake.write_folder(folder / "data")
    out = folder / "x.zarr"
    extract_features(
        detector=f"{FAKE}:with_stem", images=images, annotations=annotations, out=out, segment_views=3, workers=1,
        c1="recomputed", views=1,
    )  # fmt: skip
    return out


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "x.zarr"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of format 1."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(folder)
    return next(folder.rglob("ledger")).parent


def test_every_byte_is_the_same(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "copy.zarr"
    assert exit_code(["cache", "copy", str(made), str(out)]) == 0
    assert capsys.readouterr().out.startswith("3 segments copied (")
    assert tree(out) == tree(made)
    assert read_hints(out) == read_hints(made)
    found = verify_cache(out)
    assert not found.damages and not found.strange and found.stem is None
    assert exit_code(["cache", "copy", str(made), str(out)]) == 0
    assert "3 segments were there already" in capsys.readouterr().out


def test_killed_and_called_again_it_ends_equal_and_reads_only_what_is_missing(
    made: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, calls = copying.copy_segment, []

    def dies(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copy(*arguments, **options)

    out = tmp_path / "copy.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(stage, "copy_segment", dies)
        with pytest.raises(KeyboardInterrupt):
            cache_copy(cache, out)
    shutil.rmtree(next(cache.glob("segments/00000.*")))
    done = cache_copy(cache, out)
    assert (done.segments, done.there, done.left, done.open) == (2, 1, 0, 0)
    assert tree(out) == tree(made)


@pytest.mark.parametrize("harm", ["changed", "cut", "missing", "line"])
def test_damage_is_named_and_everything_else_copied(made: Path, cache: Path, tmp_path: Path, harm: str) -> None:
    file = next(cache.glob("segments/00001.*/encoder/2/c/0"))
    content = file.read_bytes()
    if harm == "changed":
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif harm == "cut":
        file.write_bytes(content[:-1])
    elif harm == "missing":
        file.unlink()
    else:
        (cache / "ledger" / "00001.json").write_bytes(b"{}")
    out = tmp_path / "copy.zarr"
    with pytest.raises(UserError, match=r"segment 00001 of .*x\.zarr is damaged: .*1 segments are damaged; 2 others"):
        cache_copy(cache, out)
    assert len(CacheReader(out, allow_incomplete=True)) == 4
    assert not list((out / "staging").iterdir())
    assert cache_copy(made, out).segments == 1
    assert tree(out) == tree(made)


def test_an_unfinished_cache_is_copied_as_far_as_it_is_there(made: Path, cache: Path, tmp_path: Path) -> None:
    (cache / "ledger" / "00001.json").unlink()
    out = tmp_path / "copy.zarr"
    assert cache_copy(cache, out).open == 1
    assert cache_copy(made, out).text().splitlines()[1] == "2 segments were there already"
    assert tree(out) == tree(made)


def test_a_cache_of_format_1_stays_one(old: Path, tmp_path: Path) -> None:
    cache_copy(old, tmp_path / "copy.zarr")
    found, wanted = CacheReader(tmp_path / "copy.zarr"), CacheReader(old)
    assert found.attributes == wanted.attributes
    for segment in range(wanted.attributes.segment_count):
        ours, theirs = (read_record(r.path, segment, r.attributes.fingerprint).files for r in (found, wanted))
        assert ours == theirs
    assert not verify_cache(tmp_path / "copy.zarr").damages


def test_what_cannot_be_is_named(made: Path, cache: Path, old: Path, tmp_path: Path) -> None:
    for target in (made, made / "segments" / "copy.zarr"):
        with pytest.raises(UserError, match="is the cache that is read, or lies in it"):
            cache_copy(made, target)
    with pytest.raises(UserError, match=r"x\.zarr is another cache, of other .*: give the copy a name of its own$"):
        cache_copy(old, cache)
    assert tree(cache) == tree(made)
    with pytest.raises(UserError, match="there is no cache"):
        cache_copy(tmp_path / "nowhere.zarr", tmp_path / "copy.zarr")
    assert not (tmp_path / "copy.zarr").exists()
