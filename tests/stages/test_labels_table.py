"""Labels beside categories, for people."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.cache.attributes import read_attributes
from frozen_cache.stages.labels_table import label_lines


def test_labels_stand_in_the_order_of_their_numbers(scene_cache: Path) -> None:
    """JSON's own order, that of text, has 10 before 2."""
    attributes = read_attributes(scene_cache)
    numbers = {label: 100 - label for label in range(12)}
    shuffled = {int(label): numbers[int(label)] for label in sorted(map(str, numbers))}
    assert list(shuffled) != sorted(shuffled)
    data = attributes.data.model_copy(
        update={"categories": tuple({"id": 100 - label, "name": f"n{label}"} for label in range(12))}
    )
    lines = label_lines(attributes.model_copy(update={"label_to_category": shuffled, "data": data}))
    assert [int(line.split()[0]) for line in lines] == list(range(12))
    assert [line.split("->")[1].split()[:2] for line in lines] == [[str(100 - at), f"n{at}"] for at in range(12)]
    few = label_lines(attributes.model_copy(update={"label_to_category": shuffled, "data": data}), most=3)
    assert [line.split()[0] for line in few] == ["0", "1", "2", "..."] and few[3].split() == ["...", "and", "9", "more"]
