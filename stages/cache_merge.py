"""A cache of the images of two caches of one detector."""

from __future__ import annotations

from collections.abc import Sequence

from frozen_cache.cache.attributes import CacheAttributes, Category, differences
from frozen_cache.cache.chosen import ChosenView, Source, write_chosen
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath
from frozen_cache.stages.cache_subset import Derived, derived_attributes, refuse_own_source

LARGEST_ID = 2**62


def cache_merge(paths: Sequence[CachePath], *, out: CachePath, prefer: str | None = None) -> Derived:
    """Make the cache `out` of the images of several caches. Called again it goes on.

    Categories are equal or united, by their ids. Where annotation ids come twice, those of later caches are moved up.

    Args:
        prefer: `first`: an image that several have is taken from the first of them.

    Raises:
        UserError: the caches are of different detectors or kinds, their categories contradict each other, or (without
            `prefer`) an image is in several.
    """
    refuse_own_source(out, *paths)
    readers = [CacheReader(path) for path in paths]
    attributes = readers[0].attributes
    for reader in readers[1:]:
        attributes = _united(attributes, reader.attributes, paths[0], reader.path)
    ids = [category["id"] for category in attributes.categories]
    points = attributes.data.points
    owners: dict[int, int] = {}
    doubled: set[int] = set()
    for place, reader in enumerate(readers):
        for image, _ in reader.views:
            if owners.setdefault(image, place) != place:
                doubled.add(image)
    if doubled and prefer != "first":
        raise UserError(
            f"{len(doubled)} images are in several caches, the first is image {min(doubled)}: --prefer first takes "
            f"such images from {paths[0]}"
        )
    views: list[ChosenView] = []
    used: set[int] = set()
    moved = 0
    for place, reader in enumerate(readers):
        mine = [index for index, (image, _) in enumerate(reader.views) if owners[image] == place]
        source = Source.of(reader, ids, points=points)
        own = {key for index in mine for key in ChosenView(source, index).objects()[:, 0].tolist()}
        if own & used:
            shift = max(used) + 1 - min(own)
            if max(own) + shift >= LARGEST_ID:
                raise UserError(f"annotation ids of {reader.path} come twice, and are too large to be moved up")
            source = Source.of(reader, ids, annotations_from=shift, points=points)
            own, moved = {key + shift for key in own}, moved + 1
        used |= own
        views += [ChosenView(source, index) for index in mine]
    of = [[reader.attributes.data.fingerprint for reader in readers], prefer if doubled else None]
    made = derived_attributes(attributes, views, made_by="merge", of=of)
    left = write_chosen(out, made, views, desc="merge")
    notes = [f"{len(doubled)} images that several have were taken from the first"] if doubled else []
    notes += [f"annotation ids of {moved} caches came twice, and were moved up"] if moved else []
    return Derived(out, len(owners), len(views), left, tuple(notes))


def _united(first: CacheAttributes, other: CacheAttributes, first_path: CachePath, path: CachePath) -> CacheAttributes:
    """`first` with the categories and labels of both; UserError where the caches are not of one kind."""
    names = {category["id"]: category["name"] for category in first.categories}
    labels = dict(first.label_to_category)
    for category in other.categories:
        if names.setdefault(category["id"], category["name"]) != category["name"]:
            raise UserError(
                f"category {category['id']} is {names[category['id']]} in {first_path} and {category['name']} in {path}"
            )
    for label, key in other.label_to_category.items():
        if labels.setdefault(label, key) != key:
            raise UserError(f"label {label} is category {labels[label]} in {first_path} and {key} in {path}")
    alike = other.model_copy(
        update={
            "data": first.data.model_copy(update={"bit_depth": other.data.bit_depth}),
            "label_to_category": first.label_to_category,
            "views_per_segment": first.views_per_segment,
            "segment_views": (),
            "batch_size": first.batch_size,
        }
    )
    if found := differences(first, alike):
        raise UserError(f"{path} cannot be merged with {first_path}: other {'; '.join(found)}")
    categories: list[Category] = [{"id": key, "name": name} for key, name in sorted(names.items())]
    files = dict.fromkeys([*first.data.annotations.split(" + "), other.data.annotations])
    rooms = [each.data.points for each in (first, other) if each.data.points is not None]
    data = first.data.model_copy(
        update={
            "categories": tuple(categories),
            "annotations": " + ".join(files),
            "points": max(rooms, default=None),
            "masks_from": tuple(dict.fromkeys([*first.data.masks_from, *other.data.masks_from])),
        }
    )
    version = max(first.format_version, other.format_version)
    return first.model_copy(update={"data": data, "label_to_category": labels, "format_version": version})
