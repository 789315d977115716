"""Caches made to harm, every checksum right: one clear error each, at once, and nothing large is allocated."""

import copy
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.hints import HINTS_FILE, read_hints
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.root import segments_node_is_intact
from frozen_cache.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from fault_model import Toy

sys.path.pop(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A whole cache of two segments of one view each."""
    toy = Toy(tmp_path_factory.mktemp("made") / "x.zarr")
    toy.fill()
    return toy


@pytest.fixture
def toy(made: Toy, tmp_path: Path) -> Toy:
    """A copy of it."""
    toy = copy.copy(made)
    toy.path = Path(shutil.copytree(made.path, tmp_path / "x.zarr"))
    return toy


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Whoever believes an absurd size runs out of memory at once, and not the machine with him."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(toy: Toy, says: str) -> None:
    """Reader and `verify` name the segment and say this."""
    with pytest.raises(DamagedCacheError, match=says) as caught:
        CacheReader(toy.path).read(0)
    assert "segment 00000" in str(caught.value) and str(toy.path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    damages = verify_cache(toy.path).damages
    assert {damage.segment for damage in damages} == {0}
    assert toy.wrong() is None


GZIP = {"name": "gzip", "configuration": {"level": 1}}
SHARD = ("codecs", 0, "configuration")


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [
        ("c1", ("shape",), [47]),
        ("c1", ("data_type",), "int16"),
        ("c1", ("fill_value",), 1.0),
        ("c1", ("chunk_grid", "configuration", "chunk_shape"), [96]),
        ("c1", ("chunk_key_encoding",), {"name": "v2", "configuration": {"separator": "/"}}),
        ("c1", ("codecs",), [{"name": "bytes", "configuration": {"endian": "little"}}]),
        ("c1", (*SHARD, "codecs", 1), GZIP),
        ("c1", (*SHARD, "codecs", 0, "configuration", "endian"), "big"),
        ("c1", (*SHARD, "chunk_shape"), [24]),
        ("c1", (*SHARD, "index_location"), "start"),
        ("c1", ("storage_transformers",), [{"name": "x"}]),
        ("encoder/4", (*SHARD, "codecs", 1), {"name": "numcodecs.pickle"}),
        ("rows", ("shape",), [5, 9]),
        ("truth/objects", ("data_type",), "uint64"),
        ("truth/rle", ("fill_value",), 48),
        ("offsets", ("shape",), [1, 5]),
        ("views", ("codecs", 1), GZIP),
        ("shapes", ("chunk_grid", "configuration", "chunk_shape"), [2, 3, 3]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_an_array_that_is_described_otherwise_is_refused_also_with_its_checksum_adjusted(
    toy: Toy, array: str, place: tuple[Any, ...], value: object
) -> None:
    document = toy.folder(0) / array / "zarr.json"
    content = json.loads(document.read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    assert inner.get(place[-1]) != value if isinstance(inner, dict) else inner[place[-1]] != value
    inner[place[-1]] = value
    text = json.dumps(content)
    document.write_text(text + " " * (document.stat().st_size - len(text)))
    refused(toy, f"{array}/zarr.json (has changed|has [0-9]+ bytes)")
    toy.forge(0)
    refused(toy, f"{array}/zarr.json: ")


@pytest.mark.parametrize(
    "name", ["../../../secret", "c1/../../../../secret", "/etc/hostname", "/dev/zero", "c1/more", "zarr.json/"]
)
def test_a_path_that_is_no_file_of_the_segment_is_never_opened(
    toy: Toy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy.path.parent / "secret").write_text("secret")
    toy.forge(0, lambda record: record["files"].update({name: [6, 0]}))
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **more: opened.append(str(path)) or real(path, *args, **more))
    refused(toy, f"lists {name}, which is no file of this format|{name} is missing")
    assert not [path for path in opened if "secret" in path or path.startswith(("/etc", "/dev"))]


@pytest.mark.parametrize("folder", ["../..", "/tmp", "00001.a", "00000.", "00000.a/../..", "00000.A", "00000.a\n"])
def test_a_folder_that_is_no_name_of_a_segment_is_refused(toy: Toy, folder: str) -> None:
    toy.forge(0, lambda record: record.update(folder=folder))
    refused_line(toy)


def refused_line(toy: Toy) -> None:
    """The line itself is not understood: no segment of the cache can be read, its own is named."""
    with pytest.raises(DamagedCacheError, match=r"segment 00000 of .*its line in the ledger"):
        CacheReader(toy.path)
    assert [damage.segment for damage in verify_cache(toy.path).damages] == [0]


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "pipe", "folder", "nowhere", "file"])
@pytest.mark.parametrize("name", ["c1/c/0", "rows/zarr.json", "views/c/0/0"])
def test_a_link_out_of_the_segment_never_hangs_and_never_gives_other_numbers(toy: Toy, name: str, target: str) -> None:
    file = toy.folder(0) / name
    outside = toy.path.parent / "outside"
    outside.mkdir()
    os.mkfifo(outside / "pipe")
    (outside / "folder").mkdir()
    (outside / "file").write_bytes(bytes(file.stat().st_size))
    file.unlink()
    file.symlink_to(outside / target)
    refused(toy, name)


@pytest.mark.usefixtures("little_memory")
def test_what_lies_beside_the_segments_may_be_a_device_too(toy: Toy) -> None:
    for name in (HINTS_FILE, "segments/zarr.json"):
        (toy.path / name).unlink(missing_ok=True)
        (toy.path / name).symlink_to("/dev/zero")
    assert read_hints(toy.path) is None
    assert not segments_node_is_intact(toy.path)
    for name in ("ledger/00000.json", "zarr.json"):
        (toy.path / name).unlink()
        (toy.path / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match=str(toy.path)):
            CacheReader(toy.path)


def edit_table(toy: Toy, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change a table on disk, its checksums too."""
    group = zarr.open_group(str(toy.folder(0)), mode="r+")
    array = group[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[:])
    change(values)
    array[:] = values
    toy.forge(0)


def longer(column: int, by: int) -> Callable[[np.ndarray], object]:
    def change(offsets: np.ndarray) -> None:
        offsets[1:, column] += by

    return change


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("by", [1, 10**9, 10**15, 2**63 - 10**6])
def test_offsets_that_claim_more_than_there_is_are_refused(toy: Toy, column: int, by: int) -> None:
    edit_table(toy, "offsets", longer(column, by))
    refused(toy, "offsets|must have|was written with|files|zarr.json")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("side", [10**6, 10**9, 10**15, 2**62])
def test_maps_that_claim_more_than_there_is_are_refused(toy: Toy, side: int) -> None:
    elements = 3 * side * side
    edit_table(toy, "shapes", lambda shapes: shapes[0, 0].__setitem__(slice(1, 3), min(side, 2**31)))
    if elements < 2**62:
        edit_table(toy, "offsets", lambda offsets: offsets[1:].__setitem__((slice(None), 3), elements))
    toy.forge(0, lambda record: record["shapes"][0][0].__setitem__(slice(1, 3), [side, side]))
    refused(toy, "shapes|offsets|must have|was written with|files|zarr.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["image_ids"].append(7),
        lambda record: record["view_indices"].clear(),
        lambda record: record["resized_sizes"].__setitem__(0, [2**70, 1]),
        lambda record: record["image_ids"].__setitem__(0, 2**70),
        lambda record: record["shapes"][0].pop(),
        lambda record: record["shapes"][0][0].__setitem__(1, -8),
        lambda record: record["matched"].append(1),
        lambda record: record["image_crcs"].append(1),
        lambda record: record["broken"].append({"image_id": 1, "reason": "none"}),
        lambda record: record.update(files={}),
    ],
)
def test_a_line_that_contradicts_itself_is_refused(toy: Toy, change: Callable[[dict[str, Any]], object]) -> None:
    toy.forge(0, change)
    refused(toy, "contradicts|shapes|views|images|resized|missing in its line")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("views", [10**6, 10**15])
def test_a_root_that_claims_absurd_numbers_is_refused(toy: Toy, views: int) -> None:
    claims = toy.attributes.model_copy(update={"views_total": views * 10, "views_per_segment": 1})
    for change in (claims, toy.attributes.model_copy(update={"views_per_segment": 0})):
        write_root(toy, change)
        for work in (lambda: verify_cache(toy.path), lambda: CacheReader(toy.path, allow_incomplete=True)):
            with pytest.raises(DamagedCacheError, match=str(toy.path)):
                work()


def write_root(toy: Toy, attributes: CacheAttributes) -> None:
    (toy.path / "zarr.json").write_bytes(attributes.root_document())


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"`0" * 3, "covers [0-9]+ pixels"),
        (b"00" + b"ooooooo1", "longer than"),
        (b"0", "covers 0 pixels"),
        (b"\xff\x00", "not a compressed RLE"),
        (b"oooo", "not a compressed RLE"),
    ],
)
def test_a_mask_that_would_overrun_its_buffer_is_damage(tmp_path: Path, counts: bytes, says: str) -> None:
    toy = Toy(tmp_path / "x.zarr")
    toy.views[0].truth.masks[0]["counts"] = counts
    toy.fill()
    with pytest.raises(DamagedCacheError, match=f"segment 00000, image 0 of .*{says}"):
        CacheReader(toy.path).read(0)
    assert CacheReader(toy.path).read(1).truth.masks == toy.views[1].truth.masks, "of the same segment"
