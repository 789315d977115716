"""The index of a cache's views: what the ledger says of each, for segments of any number and size, also empty ones."""

from __future__ import annotations

import pytest

from frozen_cache.cache.ledger import BrokenImage, SegmentRecord
from frozen_cache.cache.view_index import ViewIndex


def record(segment: int, views: int, *, broken: tuple[int, ...] = ()) -> SegmentRecord:
    numbers = range(10 * segment, 10 * segment + views)
    return SegmentRecord(
        segment=segment,
        cache_fingerprint="f",
        image_ids=tuple(2**40 + n for n in numbers),
        view_indices=tuple(n % 3 for n in numbers),
        resized_sizes=tuple((n, 2 * n) for n in numbers),
        matched=tuple(n % 5 for n in numbers),
        shapes=tuple(((4, n, 2 * n), (8, n + 1, n + 2)) for n in numbers),
        broken=tuple(BrokenImage(image_id=image, reason="torn") for image in broken),
        files={},
    )


@pytest.fixture
def records() -> list[SegmentRecord]:
    return [record(1, 2), record(4, 0, broken=(7,)), record(5, 3, broken=(7, 8))]


def test_it_says_what_the_lines_say(records: list[SegmentRecord]) -> None:
    index = ViewIndex.build([1, 4, 5], records)
    rows = [(line, row) for line in records for row in range(len(line.image_ids))]
    assert len(index) == len(rows) == 5
    for at, (line, row) in enumerate(rows):
        assert index[at] == (line.image_ids[row], line.view_indices[row])
        assert index.place(at) == (line.segment, row)
        assert index.resized_size(at) == line.resized_sizes[row]
        assert index.matched(at) == line.matched[row]
        assert index.shapes(at) == line.shapes[row]
    assert list(index) == index[:] == [index[at] for at in range(5)]
    assert index.place(-1) == (5, 2)
    assert [image.image_id for image in index.broken] == [7, 8]
    with pytest.raises(IndexError):
        index.place(5)


def test_a_segment_made_anew_with_other_views_is_noticed(records: list[SegmentRecord]) -> None:
    index = ViewIndex.build([1, 4, 5], records)
    assert not any(index.changed(line) for line in records)
    assert index.changed(record(5, 2)) and index.changed(record(4, 1))
    assert index.changed(records[0].model_copy(update={"matched": (0, 4)}))


def test_an_empty_cache_has_no_views() -> None:
    index = ViewIndex.build([], [])
    assert len(index) == 0 and list(index) == [] and index.broken == []
