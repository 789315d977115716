"""Which label of a detector stands for which category, as lines for people."""

from __future__ import annotations

from frozen_cache.cache.attributes import CacheAttributes

CLASSES_SHOWN = 12


def label_lines(attributes: CacheAttributes, most: int = CLASSES_SHOWN) -> list[str]:
    """A line for each label with a category, the first `most`."""
    names = {category["id"]: category["name"] for category in attributes.categories}
    given = dict(enumerate(attributes.data.choices.labels)) or attributes.detector.label_names or {}
    objects = attributes.data.counts.per_category
    rows = [
        f"          {label} {given.get(label, '')} -> {category} {names.get(category, '')}"
        + (f" ({objects.get(category, 0):,})" if objects else "")
        for label, category in sorted(attributes.label_to_category.items())
    ]
    more = [f"          ... and {len(rows) - most} more"] if len(rows) > most else []
    without = [str(name) for key, name in names.items() if key not in attributes.label_to_category.values()]
    unused = [f"          without a label, and without an object: {', '.join(without[:most])}"] if without else []
    return rows[:most] + more + unused
