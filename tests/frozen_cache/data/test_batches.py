"""Views in runs of one size."""

from __future__ import annotations

from frozen_cache.data.batches import PlannedView, split_by_size
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.view import ViewTransform


def planned(number: int, size: tuple[int, int]) -> PlannedView:
    transform = ViewTransform(original_size=(9, 9), crop=(0, 0, 9, 9), resized_size=size)
    return PlannedView(image=CocoImage(number, "a.png", 9, 9), view=0, transform=transform)


def test_a_batch_has_one_size_at_most_so_many_views_and_keeps_their_order() -> None:
    sizes = [(8, 8)] * 5 + [(8, 9)] + [(8, 8)] * 2
    batches = split_by_size([planned(number, size) for number, size in enumerate(sizes)], 2)
    assert [[view.image.id for view in batch] for batch in batches] == [[0, 1], [2, 3], [4], [5], [6, 7]]
