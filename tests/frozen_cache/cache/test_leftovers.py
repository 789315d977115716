"""What writers left behind: kept while somebody may be at work on it, removed once it is old or its writer dead."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from frozen_cache import durable
from frozen_cache.aside import _place
from frozen_cache.cache.leftovers import remove_leftovers

sys.path.insert(0, str(Path(__file__).parent))
from fault_model import Toy

sys.path.pop(0)

FOREIGN = "0badcafe-77-0123456789ab"
OURS = f"{_place()}-{os.getpid()}-0123456789ab"
DEAD = f"{_place()}-{2**22 + 7}-0123456789ab"
"""No process has a number beyond 2**22."""


def a_file(path: Path) -> Path:
    path.write_text("{")
    return path


def a_folder(path: Path) -> Path:
    (path / "ledger").mkdir(parents=True)
    (path / "ledger" / "zarr.json").write_text("{}")
    return path


PLACES: dict[str, Callable[[Path, str], Path]] = {
    "staging": lambda cache, token: a_folder(cache / "staging" / f"00001.{token}"),
    "a segment that no line names": lambda cache, token: a_folder(cache / "segments" / f"00001.{token}"),
    "part of a line": lambda cache, token: a_file(cache / "ledger" / f".00001.json.{token}"),
    "a probe of links": lambda cache, token: a_file(cache / "ledger" / f".probe.json.{token}"),
    "part of the root": lambda cache, token: a_file(cache / f".zarr.json.{token}"),
    "beside the cache": lambda cache, token: a_folder(cache.parent / f".{cache.name}.{token}"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = Toy(tmp_path_factory.mktemp("made") / "x.zarr")
    toy.fill()
    return toy.path


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "x.zarr"))


def grow_old(path: Path) -> None:
    """The last touch of all of it was 25 hours ago."""
    then = time.time() - 25 * 3600
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize(
    ("token", "old", "stays"),
    [
        pytest.param(FOREIGN, False, True, id="fresh, of another machine"),
        pytest.param(FOREIGN, True, False, id="old, of another machine"),
        pytest.param(OURS, False, True, id="fresh, of a living process"),
        pytest.param(DEAD, False, False, id="fresh, of a dead process"),
    ],
)
def test_leftovers_go_when_they_are_surely_nobodys(
    cache: Path, make: Callable[[Path, str], Path], token: str, old: bool, stays: bool
) -> None:
    left = make(cache, f"0{token}" if make is PLACES["beside the cache"] else token)
    if old:
        grow_old(left)
    others = {path for path in cache.rglob("*") if left not in (path, *path.parents)}
    assert remove_leftovers(cache) == (not stays)
    assert left.exists() == stays
    assert {path for path in cache.rglob("*") if left not in (path, *path.parents)} == others


def test_a_folder_in_the_making_is_as_young_as_its_youngest_file(cache: Path) -> None:
    left = PLACES["staging"](cache, FOREIGN)
    grow_old(left)
    (left / "ledger" / "more").touch()
    assert remove_leftovers(cache) == 0 and left.is_dir()


def test_what_is_committed_and_what_is_no_writers_is_never_removed(cache: Path) -> None:
    for name in (".nfs000000000012a4f3", "thesis", "00001 copy"):
        (cache / "staging" / name).mkdir()
    grow_old(cache)
    before = sorted(cache.rglob("*"))
    assert remove_leftovers(cache) == 0
    assert sorted(cache.rglob("*")) == before


def test_nothing_is_removed_through_a_link(cache: Path, tmp_path: Path) -> None:
    mine = a_folder(tmp_path / "mine" / "00001")
    grow_old(tmp_path / "mine")
    shutil.rmtree(cache / "staging")
    (cache / "staging").symlink_to(tmp_path / "mine")
    assert remove_leftovers(cache) == 0
    assert (mine / "ledger" / "zarr.json").is_file()


def test_the_probe_of_links_is_named_as_what_is_left_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(durable.os, "link", lambda source, target: names.append(source.name))
    durable.first_one_wins(cache / "ledger")
    (cache / "ledger" / names[0].replace(str(os.getpid()), str(2**22 + 7))).touch()
    assert remove_leftovers(cache) == 1


def test_a_new_writer_removes_them(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "x.zarr")
    toy.fill(stop=1)
    made = [make(toy.path, DEAD) for name, make in PLACES.items() if name != "beside the cache"]
    toy.fill()
    assert not [path for path in made if path.exists()]
    assert toy.unfinished() is None
