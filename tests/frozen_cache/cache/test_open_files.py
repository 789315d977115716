"""Files stay open between reads, no more than so many, and are the files that have their names."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from frozen_cache.cache.ranges import LocalRanges, OpenFiles


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is opened, in order."""
    names: list[str] = []
    original = os.open

    def noted(path: str, flags: int) -> int:
        names.append(Path(path).name)
        return original(path, flags)

    monkeypatch.setattr("frozen_cache.cache.ranges.os.open", noted)
    yield names


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 8)
    return [str(tmp_path / str(number)) for number in range(5)]


def content(source: LocalRanges) -> bytes:
    found = bytearray(source.size())
    assert source.read((found,), 0) == len(found)
    return bytes(found)


def open_here(paths: list[str]) -> int:
    """How many of these the process has open."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(link.readlink()) in paths for link in links if link.is_symlink())


def test_a_file_is_opened_once(paths: list[str], opens: list[str]) -> None:
    files = OpenFiles()
    assert [content(files.opened(paths[at])) for at in (0, 1, 0, 1)] == [b"\0" * 8, b"\1" * 8] * 2
    assert opens == ["0", "1"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells which files are open")
def test_the_first_ones_are_closed_where_there_are_too_many_and_all_in_the_end(
    paths: list[str], opens: list[str]
) -> None:
    files = OpenFiles(limit=2)
    read = files.opened(paths[0])
    for path in paths:
        files.opened(path)
    assert open_here(paths) == 3 and content(read) == b"\0" * 8  # nobody closes what is being read
    del read
    assert open_here(paths) == 2
    assert content(files.opened(paths[0])) == b"\0" * 8
    assert opens == ["0", "1", "2", "3", "4", "0"]
    del files
    assert open_here(paths) == 0


def test_a_file_that_another_one_replaced_is_not_read_any_more(paths: list[str]) -> None:
    files = OpenFiles()
    before = files.opened(paths[0])
    Path(paths[1]).replace(paths[0])
    assert content(files.opened(paths[0])) == b"\1" * 8 and content(before) == b"\0" * 8
    Path(paths[0]).unlink()
    with pytest.raises(FileNotFoundError):
        files.opened(paths[0])


def test_threads_that_share_few_open_files_read_the_right_ones(paths: list[str]) -> None:
    files = OpenFiles(limit=2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: content(files.opened(paths[at % 5]))[0], range(2000)))
    assert found == [at % 5 for at in range(2000)]
