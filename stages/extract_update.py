"""`extract-features --update`: a cache brought in line with images and annotations that have changed.

The next state of a cache is a cache of its own beside it, `.NAME.update`: segments that stay whole are linked, views
that stay of others are copied, the rest is extracted. When it is whole it takes the place of the old one. A killed
update leaves the old cache as it was, or (between the last two renames) neither in its place until the next call. In an
object store the store copies what stays, and `cache/replacing.py` tells how the next state takes the old one's place.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from frozen_cache.cache.assemble import write_copied, write_linked
from frozen_cache.cache.attributes import CacheAttributes, differences, read_attributes
from frozen_cache.cache.changes import Changes, compare_views
from frozen_cache.cache.dealing import dealt_out
from frozen_cache.cache.ledger import read_record
from frozen_cache.cache.locks import segment_locks
from frozen_cache.cache.replacing import finish_replacing, replace_cache
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.batches import PlannedView
from frozen_cache.durable import move_durably, remove_tree
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath, RemotePath
from frozen_cache.stages.extract_plan import ExtractPlan

UPDATE_LOCK = 2**40
"""The byte of the cache's lock file that stands for its update."""


def next_path(out: CachePath) -> CachePath:
    """Where the next state of a cache is made: beside it, where a link leads to it beside what the link names."""
    real = out.resolve()
    return real.parent / f".{real.name}.update"


def find_changes(plan: ExtractPlan, there: CacheAttributes, *, update: bool, workers: int) -> Changes:
    """What has changed since the cache at `plan.out` was made; an `update` may also have another `--limit`.

    Raises:
        UserError: more than images and annotations differs: the detector, options, or the categories.
    """
    aside = ("fingerprint", "images", "missing", *(["limit"] if update else []))
    data = plan.attributes.data.model_copy(update={name: getattr(there.data, name) for name in aside})
    asked = plan.attributes.model_copy(update={"data": data})
    if there.categories != asked.categories:
        raise UserError(
            f"the categories of {plan.out} are others than those of {plan.dataset.path}: `frozen-cache cache relabel` "
            "puts other categories on a cache, or extract anew to another --out"
        )
    if there.data.points != asked.data.points:
        raise UserError(
            f"{plan.out} has no room for the objects without masks that have come to {plan.dataset.path}: extract "
            "anew to another --out"
        )
    if found := differences(there, asked):
        raise UserError(
            f"{plan.out} was made with other {'; '.join(found)}: give the same options again, or another --out"
        )
    return compare_views(plan.out, there, plan.planned, plan.images, workers=workers)


def refuse_changes(plan: ExtractPlan, changes: Changes) -> None:
    """UserError that says what differs, and how it is taken over."""
    if changes.count:
        differ = "1 image differs" if changes.count == 1 else f"{changes.count:,} images differ"
        what = f"{differ} from what {plan.out} was made of ({changes.text()})"
        raise UserError(f"{what}: --update extracts just what is new or changed; or give another --out")
    raise UserError(
        f"{plan.out} was made of other files, but every image and all its annotations are the same: --update takes "
        "them over, without extracting anything"
    )


def updated_plan(plan: ExtractPlan, changes: Changes) -> ExtractPlan:
    """The plan of the next state, beside the cache."""
    kept = [view for view, _ in changes.kept_views]
    by_key = {(view.image.id, view.view): view for view in plan.planned}
    dealt = [
        [by_key[key] for key in zip(record.image_ids, record.view_indices, strict=True)]
        for record in changes.kept_segments
    ]
    dealt += dealt_out(kept, plan.attributes) + dealt_out(changes.to_extract, plan.attributes)
    attributes = plan.attributes.model_copy(update={"segment_views": tuple(len(views) for views in dealt)})
    return replace(plan, out=next_path(plan.out), attributes=attributes, dealt=dealt)


def update_text(changes: Changes) -> str:
    """What an update does, two lines for people."""
    return (
        f"update    {changes.text() or 'no image differs'}\n"
        f"          {len(changes.to_extract):,} views are to be extracted, "
        f"{sum(len(record.image_ids) for record in changes.kept_segments) + len(changes.kept_views):,} stay"
    )


class Update:
    """Makes the next state of one cache; one process at a time does."""

    def __init__(self, out: CachePath, there: CacheAttributes, changes: Changes, plan: ExtractPlan) -> None:
        """`plan` is the updated one. UserError where another process updates this cache, as far as locks tell."""
        if isinstance(out, Path) and os.path.ismount(out):
            raise UserError(f"{out} is a mount point, whose place nothing can take: have the cache in a folder in it")
        self._out, self._there, self._changes, self._plan = out, there, changes, plan
        self._locks = segment_locks(out)
        if not self._locks.claim(UPDATE_LOCK):
            raise UserError(f"another process updates {out}: let it finish")
        try:
            left_over = plan.out.exists() and read_attributes(plan.out).fingerprint != plan.attributes.fingerprint
        except UserError:
            left_over = True
        if left_over:  # of an update to another state of the data
            remove_tree(plan.out)

    def take_over(self) -> None:
        """Link and copy what stays into the next state, or what is still missing of it."""
        writer = CacheWriter(self._plan.out, self._plan.attributes)
        kept = self._changes.kept_segments
        place_of = {(view.image.id, view.view): place for view, place in self._changes.kept_views}
        copied = [views for views in self._plan.dealt[len(kept) :] if _key(views[0]) in place_of]
        try:
            with progress_bar(total=len(kept) + len(copied), unit="segment", desc="take over") as bar:
                for segment in range(len(kept) + len(copied)):
                    if not writer.is_committed(segment) and writer.claim(segment):
                        if segment < len(kept):
                            self._link(writer, segment)
                        else:
                            places = [place_of[_key(view)] for view in copied[segment - len(kept)]]
                            self._copy(writer, segment, places)
                    bar.update()
        finally:
            writer.close()

    def put_in_place(self) -> None:
        """The whole next state takes the place of the cache."""
        following = next_path(self._out)
        if isinstance(self._out, RemotePath):
            assert isinstance(following, RemotePath)
            replace_cache(self._out, following, fingerprint=self._there.fingerprint)
            self.close()
            return
        if read_attributes(self._out).fingerprint != self._there.fingerprint:
            raise UserError(f"{self._out} was changed by another process while it was updated: run it again")
        place, before = self._out.resolve(), _before(self._out)
        remove_tree(before)
        place.rename(before)
        assert isinstance(following, Path)
        move_durably(following, place)
        self.close()
        remove_tree(before)

    def close(self) -> None:
        """Let others update."""
        self._locks.close()

    def _link(self, writer: CacheWriter, segment: int) -> None:
        old = self._changes.kept_segments[segment]
        source = SegmentReader(self._out, old, self._there)
        with writer.place(segment) as place:
            record = old.model_copy(
                update={
                    "segment": segment,
                    "cache_fingerprint": writer.attributes.fingerprint,
                    "folder": place.name,
                }
            )
            if isinstance(source.folder, RemotePath):
                place.copy_of, place.record = source.folder, record
                return
            offsets = source.stored("offsets")
            place.record = write_linked(
                place.folder, source, writer.attributes, record=record, arrays={}, offsets=offsets
            )

    def _copy(self, writer: CacheWriter, segment: int, places: list[tuple[int, int]]) -> None:
        sources = {number: self._segment(number) for number in {segment for segment, _ in places}}
        with writer.place(segment) as place:
            place.record = write_copied(
                place.folder,
                [(sources[number], row) for number, row in places],
                writer.attributes,
                segment=segment,
                name=place.name,
            )

    def _segment(self, number: int) -> SegmentReader:
        return SegmentReader(self._out, read_record(self._out, number, self._there.fingerprint), self._there)


def finish_interrupted(out: CachePath) -> None:
    """Finish an update that was killed while the next state took its place, and clear what it left."""
    following = next_path(out)
    if isinstance(out, RemotePath):
        assert isinstance(following, RemotePath)
        finish_replacing(out, following)
        return
    before = _before(out)
    if before.exists():
        if not out.exists():  # the next state was whole before the old one went
            assert isinstance(following, Path)
            move_durably(following, out.resolve())
        remove_tree(before)


def _before(out: Path) -> Path:
    real = out.resolve()
    return real.parent / f".{real.name}.before"


def _key(view: PlannedView) -> tuple[int, int]:
    return view.image.id, view.view
