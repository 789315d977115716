"""A cache of some of the images of a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.chosen import ChosenView, Source, counted, write_chosen
from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.choose import category_id
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath, lies_in


@dataclass(frozen=True)
class Derived:
    """A cache that was made of others."""

    out: CachePath
    images: int
    views: int
    left: int
    """Segments that another process is still making."""
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """For people."""
        lines = [f"{self.images} images, {self.views} views", *self.notes]
        if self.left:
            lines.append(f"{self.left} segments are still open: another process makes them, or run it again")
        return "\n".join(lines)


def cache_subset(
    path: CachePath,
    *,
    out: CachePath,
    image_ids: Path | None = None,
    categories: Sequence[str] = (),
    limit: int | None = None,
) -> Derived:
    """Make the cache `out` of the images of the cache `path` that all conditions leave. Called again it goes on.

    Args:
        image_ids: a text file with an image id a line.
        categories: names or ids: images with an object of one of these, with all their objects.
        limit: the first images by id of those that are left.

    Raises:
        UserError: an id or category that is not there, or nothing is left.
    """
    refuse_own_source(out, path)
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: give 1 or more")
    reader = CacheReader(path)
    source = Source.of(reader)
    attributes = reader.attributes
    views = [ChosenView(source, index) for index in range(len(reader))]
    kept = {view.key[0] for view in views}
    if image_ids is not None:
        kept = _listed(image_ids, kept, path)
    if categories:
        names = {category["id"]: category["name"] for category in attributes.categories}
        asked = {category_id(text, names, option="--categories") for text in categories}
        places = [at for at, key in enumerate(names) if key in asked]
        plain = (view for view in views if view.key[1] == 0 and view.key[0] in kept)
        kept = {view.key[0] for view in plain if set(places) & set(view.objects()[:, 1].tolist())}
    kept = set(sorted(kept)[:limit])
    if not kept:
        raise UserError(f"no image of {path} is left by --image-ids and --categories")
    views = [view for view in views if view.key[0] in kept]
    made = derived_attributes(attributes, views, made_by="subset", of=[attributes.data.fingerprint, sorted(kept)])
    left = write_chosen(out, made, views, desc="subset")
    return Derived(out, len(kept), len(views), left)


def derived_attributes(
    attributes: CacheAttributes, views: Iterable[ChosenView], *, made_by: str, of: object
) -> CacheAttributes:
    """`attributes` for a cache of these views.

    Args:
        of: what it is made of, as JSON: it is the data's fingerprint.
    """
    views = list(views)
    ids = [category["id"] for category in attributes.categories]
    data = attributes.data.model_copy(
        update={
            "fingerprint": hashlib.sha256(json.dumps([made_by, of]).encode()).hexdigest(),
            "images": len({view.key[0] for view in views}),
            "missing": (),
            "limit": None,
            "counts": counted(views, ids),
            "made_by": made_by,
        }
    )
    return attributes.model_copy(update={"data": data, "views_total": len(views), "segment_views": ()})


def refuse_own_source(out: CachePath, *sources: CachePath) -> None:
    """UserError where a cache would be written to the place of one that it is made of, or below."""
    if any(lies_in(out, source) for source in sources):
        raise UserError(f"--out {out} is a cache that is read, or lies in one: give the name of the new one")


def _listed(file: Path, known: set[int], cache: CachePath) -> set[int]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"--image-ids {file} is no text file: give an image id a line") from None
    except FileNotFoundError:
        raise UserError(f"--image-ids {file}: there is no such file") from None
    except IsADirectoryError:
        raise UserError(f"--image-ids {file} is a folder: give a text file with an image id a line") from None
    ids = set()
    for number, line in enumerate(lines, start=1):
        try:
            ids |= {int(line)} if line.strip() else set()
        except ValueError:
            raise UserError(f"--image-ids {file}, line {number}: `{line.strip()[:60]}` is no image id") from None
    if strange := sorted(ids - known):
        raise UserError(f"--image-ids {file}: {len(strange)} are not in {cache}, the first is {strange[0]}")
    return ids
