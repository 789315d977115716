"""No damage goes unseen, and none is read as numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.root import segments_node_is_intact
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError

Make = Callable[..., Path]
View = Callable[..., CachedView]


@pytest.fixture(scope="module", params=["float16", "coded"])
def whole(
    make_cache: Make, make_view: View, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    views = [make_view(100 + number, size=(8, 8)) for number in range(4)]
    return make_cache(tmp_path_factory.mktemp("whole") / "x.zarr", views, per_segment=2, precision=request.param)


@pytest.fixture
def cache(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "x.zarr"))


def folder_of(cache: Path, segment: str = "00001") -> Path:
    """Where a committed segment of an undisturbed cache lies."""
    [folder] = (cache / "segments").glob(f"{segment}.*")
    return folder


def files_of(cache: Path, segment: str = "00001") -> list[Path]:
    found = sorted(path for path in folder_of(cache, segment).rglob("*") if path.is_file())
    assert found
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 0x10
    path.write_bytes(content)


def read_error(cache: Path, index: int) -> str:
    with pytest.raises(DamagedCacheError) as caught:
        CacheReader(cache).read(index)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_intact_cache_has_no_damage(whole: Path) -> None:
    found = verify_cache(whole)
    assert (found.damages, found.intact, found.open) == ([], [0, 1], [])
    assert found.bytes_read == sum(path.stat().st_size for n in ("00000", "00001") for path in files_of(whole, n))


def test_a_byte_flipped_in_any_file_of_a_segment_is_found_and_the_segment_named(whole: Path) -> None:
    for path in files_of(whole):
        before = path.read_bytes()
        for place in (0, len(before) // 2, len(before) - 1):
            flip(path, place)
            [damage] = verify_cache(whole).damages
            assert damage.segment == 1
            assert path.relative_to(folder_of(whole)).as_posix() in damage.what
            path.write_bytes(before)
    assert not verify_cache(whole).damages


def test_a_byte_flipped_in_any_data_file_is_an_error_on_reading_or_touches_another_image(
    whole: Path, make_view: View
) -> None:
    wanted = [CacheReader(whole).read(index) for index in (2, 3)]
    for path in files_of(whole):
        before = path.read_bytes()
        for place in (1, len(before) - 2):
            flip(path, place)
            errors = 0
            for index, right in zip((2, 3), wanted, strict=True):
                try:
                    view = CacheReader(whole).read(index)
                except DamagedCacheError as error:
                    errors += 1
                    assert "segment 00001" in str(error) and f"image {right.image_id}" in str(error)
                else:
                    assert right.c1 is not None and view.c1 is not None and right.c1.equal(view.c1)
                    assert right.queries.equal(view.queries)
                    assert (right.truth.boxes == view.truth.boxes).all()
                    assert right.truth.masks == view.truth.masks
            assert errors
            path.write_bytes(before)


@pytest.mark.parametrize("name", ["c1/c/0", "rows/c/0/0", "truth/rle/c/0", "encoder/4/c/0", "views/c/0/0"])
def test_a_missing_an_empty_and_a_truncated_file_never_read_as_zeros(cache: Path, name: str) -> None:
    path = folder_of(cache) / name
    content = path.read_bytes()
    for change, says in (
        (lambda: path.unlink(), "is missing"),
        (lambda: path.write_bytes(b""), "has 0 bytes"),
        (lambda: path.write_bytes(content[:-5]), f"{len(content)} were written"),
        (lambda: path.write_bytes(b"\0" * len(content)), "damaged"),
    ):
        change()
        message = read_error(cache, 2)
        assert "segment 00001" in message and "image 102" in message and says in message
        assert "cache repair" in message
        assert {damage.segment for damage in verify_cache(cache).damages} == {1}
        CacheReader(cache).read(0)
        path.write_bytes(content)


def test_a_file_that_vanishes_after_opening_is_noticed(cache: Path) -> None:
    reader = CacheReader(cache)
    reader.read(2)
    (folder_of(cache) / "c1" / "c" / "0").unlink()
    with pytest.raises(DamagedCacheError, match=r"segment 00001, image 103 .*c1/c/0 is missing"):
        reader.read(3)


def test_a_missing_segment_is_damage_and_a_strange_file_is_none(cache: Path) -> None:
    strange = folder_of(cache, "00000") / "more"
    strange.touch()
    lost = folder_of(cache)
    shutil.rmtree(lost)
    found = verify_cache(cache)
    assert [str(damage) for damage in found.damages] == [f"segment 00001: its folder segments/{lost.name} is missing"]
    assert found.strange == [str(strange)]
    assert "is missing" in read_error(cache, 2)


@pytest.mark.parametrize("name", [".nfs000000000012a4f3", ".DS_Store", "Thumbs.db", "._c1", "desktop.ini", "@eaDir/x"])
def test_guests_of_the_system_are_no_damage_and_not_worth_a_word(cache: Path, name: str) -> None:
    for folder in (cache, cache / "ledger", cache / "segments", folder_of(cache), folder_of(cache) / "c1" / "c"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("guest")
    found = verify_cache(cache)
    assert (found.damages, found.intact, found.strange) == ([], [0, 1], [])
    assert len(CacheReader(cache)) == 4


def test_a_byte_flipped_anywhere_in_the_ledger_is_found(whole: Path) -> None:
    path = whole / "ledger" / "00001.json"
    before = path.read_bytes()
    for place in range(0, len(before) - 1, 37):
        flip(path, place)
        assert {damage.segment for damage in verify_cache(whole).damages} == {1}
        with pytest.raises(DamagedCacheError, match="segment 00001"):
            CacheReader(whole)
        path.write_bytes(before)


def test_a_byte_flipped_anywhere_in_the_root_attributes_is_found(whole: Path) -> None:
    path = whole / "zarr.json"
    before = path.read_bytes()
    for place in range(0, len(before), 41):
        flip(path, place)
        with pytest.raises(UserError):
            CacheReader(whole)
        path.write_bytes(before)
    CacheReader(whole)


def test_the_node_that_belongs_to_no_segment_is_checked_too(cache: Path) -> None:
    assert segments_node_is_intact(cache)
    flip(cache / "segments" / "zarr.json", 3)
    assert not segments_node_is_intact(cache)


def test_a_segment_of_another_cache_is_refused(cache: Path, tmp_path: Path, make_cache: Make, make_view: View) -> None:
    other = make_cache(tmp_path / "y.zarr", [make_view(n) for n in range(4)], per_segment=2, precision="float32")
    shutil.copy(other / "ledger" / "00001.json", cache / "ledger" / "00001.json")
    with pytest.raises(DamagedCacheError, match=r"segment 00001 .* belongs to another cache; `"):
        CacheReader(cache)
    [damage] = verify_cache(cache).damages
    assert str(damage) == "segment 00001: its line in the ledger belongs to another cache"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 3}, "format version 3, this frozen-cache reads versions 1 to 2"),
        ({"format": "other"}, "no cache of frozen-cache"),
        ({"top_k": 7}, "do not match their fingerprint"),
        ({"surprise": 1}, "`surprise` is not understood"),
    ],
)
def test_what_a_reader_does_not_understand_it_refuses(cache: Path, change: dict[str, object], says: str) -> None:
    document = json.loads((cache / "zarr.json").read_text())
    document["attributes"] |= change
    (cache / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=says):
        CacheReader(cache)


def test_what_is_no_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no cache"):
        CacheReader(tmp_path / "none.zarr")
    with pytest.raises(UserError, match=r"holds no zarr.json"):
        CacheReader(tmp_path)


@pytest.fixture(scope="module")
def alike(make_cache: Make, make_view: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two segments of two views, all of one size: most files have a double elsewhere in size."""
    views = [make_view(200 + number, size=(8, 8)) for number in range(4)]
    for view in views[1:]:
        view.truth.masks[:] = views[0].truth.masks  # RLE of one length
    return make_cache(tmp_path_factory.mktemp("alike") / "x.zarr", views, per_segment=2)


def equal_in_size(alike: Path) -> list[tuple[Path, Path]]:
    """Data files of one size and other content, within the second segment and between the segments."""
    second = [path for path in files_of(alike) if path.name != "zarr.json"]
    first = [folder_of(alike, "00000") / path.relative_to(folder_of(alike)) for path in second]
    inside = [(one, two) for at, one in enumerate(second) for two in second[at + 1 :]]
    pairs = [*zip(second, first, strict=True), *inside]
    return [
        (one, two)
        for one, two in pairs
        if one.stat().st_size == two.stat().st_size and one.read_bytes() != two.read_bytes()
    ]


def test_files_of_equal_size_that_changed_places_are_named_and_never_read_as_numbers(alike: Path) -> None:
    wanted = [CacheReader(alike).read(index).encoder for index in range(4)]
    pairs = equal_in_size(alike)
    parts = {one.relative_to(folder_of(alike)).parts[0] for one, _ in pairs}
    assert parts >= {"views", "rows", "c1", "encoder", "truth"}
    for one, two in pairs:
        contents = one.read_bytes(), two.read_bytes()
        one.write_bytes(contents[1])
        two.write_bytes(contents[0])
        name = one.relative_to(folder_of(alike)).as_posix()
        assert name in read_error(alike, 2) and name in read_error(alike, 3)
        assert 1 in {damage.segment for damage in verify_cache(alike).damages}
        one.write_bytes(contents[0])
        two.write_bytes(contents[1])
    found = [CacheReader(alike).read(index).encoder for index in range(4)]
    assert all(a.equal(b) for old, new in zip(wanted, found, strict=True) for a, b in zip(old[4], new[4], strict=True))


def test_chunks_of_a_file_that_changed_places_are_named(tmp_path: Path, make_cache: Make, make_view: View) -> None:
    views = [make_view(number, size=(8, 8)) for number in range(2)]
    cache = make_cache(tmp_path / "x.zarr", views, per_segment=2)
    file = folder_of(cache, "00000") / "c1" / "c" / "0"
    content, chunk = file.read_bytes(), 2 * 3 * 8 * 8 + 4  # a view's C1 in float16 is a chunk, and its sum
    file.write_bytes(content[chunk : 2 * chunk] + content[:chunk] + content[2 * chunk :])
    for index in range(2):
        assert "c1/c/0 holds other chunks" in read_error(cache, index)
