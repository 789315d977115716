"""Segments made of segments that are there: arrays copied as they are stored, files that stay the same linked.

Nothing is decoded, so that every number stays what it was, whatever the precision of the cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import zarr

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.chunk_sums import ATTRIBUTE
from frozen_cache.cache.contents import check_segment, columns, fixed_tables, read_document
from frozen_cache.cache.layout import (
    BOX_COLUMNS,
    OBJECT_COLUMNS,
    OFFSET_COLUMNS,
    ROW_COLUMNS,
    SHAPE_COLUMNS,
    SPAN_COLUMNS,
    VIEW_COLUMNS,
    image_spans,
)
from frozen_cache.cache.ledger import SegmentRecord
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.shard_files import THREADS, Column, ShardFile
from frozen_cache.durable import NO_LINKS, copy_file, file_crc32, flush_tree
from frozen_cache.remote import CachePath, RemotePath

COLUMN_NAMES = {
    "views": VIEW_COLUMNS,
    "offsets": OFFSET_COLUMNS,
    "shapes": SHAPE_COLUMNS,
    "rows": ROW_COLUMNS,
    "truth/objects": OBJECT_COLUMNS,
    "truth/boxes": BOX_COLUMNS,
    "image_spans": SPAN_COLUMNS,
}
PER_VIEW = (
    "image_ids", "view_indices", "resized_sizes", "matched", "shapes", "image_crcs", "annotation_sums", "image_bytes",
)  # fmt: skip
"""The fields of a record that have an entry for each view."""


def write_linked(
    folder: Path,
    source: SegmentReader,
    attributes: CacheAttributes,
    *,
    record: SegmentRecord,
    arrays: Mapping[str, Iterable[np.ndarray]],
    offsets: np.ndarray,
) -> SegmentRecord:
    """Make a segment in `folder` of `arrays`, each in parts, and of hard links to all other files of `source`.

    Where the file system has no links, files are copied.

    Args:
        record: its line; `files`, `sums` are set here.
        offsets: (V + 1, columns) int64, which `arrays` need not name.

    Returns:
        The line, its files flushed and compared with what they must be.

    Raises:
        NotWhole: they are not.
    """
    arrays = {**arrays, "offsets": [offsets]}
    layouts = fixed_tables(record, attributes) | columns(record, attributes, offsets)
    arrays = {name: parts for name, parts in arrays.items() if name in layouts}
    old = source.folder
    links = {
        name: told
        for name, told in source.record.files.items()
        if name != "zarr.json" and not any(name.startswith(f"{array}/") for array in arrays)
    }
    if "truth/supervision" not in layouts:
        links = {name: told for name, told in links.items() if not name.startswith("truth/supervision/")}
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    sums = dict(read_document(source.record, old, "zarr.json").get("attributes", {}).get(ATTRIBUTE, {}))  # type: ignore[attr-defined]
    sums = {name: text for name, text in sums.items() if name in links}
    files = _write(group, folder, record, attributes, arrays=arrays, offsets=offsets)
    told = {}
    for name, size_and_sum in links.items():
        target = folder / name
        if not target.exists():  # a group's document may have been written with an array
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(old / name, target)
            if source.record.sums == "crc32":
                told[name] = size_and_sum
    return _finish(group, folder, record, attributes, offsets=offsets, files=files, sums=sums, told=told)


def write_copied(
    folder: Path,
    views: list[tuple[SegmentReader, int]],
    attributes: CacheAttributes,
    *,
    segment: int,
    name: str,
    change: Callable[[str, int, np.ndarray], np.ndarray] = lambda array, place, values: values,
) -> SegmentRecord:
    """Make a segment in `folder` of views of others, each given as its segment and its row there.

    Args:
        segment: its number.
        name: that its folder will have.
        change: called with an array's name, a place in `views` and what is stored there; gives what is written, of the
            same shape.

    Returns, Raises: as `write_linked`.
    """
    steps = [np.diff(source.stored("offsets"), axis=0)[row] for source, row in views]
    offsets = np.concatenate([[np.zeros_like(steps[0])], np.cumsum(steps, axis=0)])
    per_view = {
        field: tuple(getattr(source.record, field)[row] for source, row in views)
        if all(getattr(source.record, field) for source, _ in views)
        else ()
        for field in PER_VIEW
    }
    record = SegmentRecord(
        segment=segment, cache_fingerprint=attributes.fingerprint, folder=name, sums="crc32", files={}, **per_view
    )
    names = [*fixed_tables(record, attributes), *columns(record, attributes, offsets)]
    arrays = {array: _stored(views, array, change) for array in names if array != "offsets"}
    arrays["offsets"] = iter([offsets])
    if attributes.stem is not None:
        arrays["image_spans"] = iter([image_spans(record.image_ids, record.image_bytes)])
        arrays["images"] = _image_files(views)
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    files = _write(group, folder, record, attributes, arrays=arrays, offsets=offsets)
    return _finish(group, folder, record, attributes, offsets=offsets, files=files, sums={}, told={})


def _stored(
    views: list[tuple[SegmentReader, int]], array: str, change: Callable[[str, int, np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    for place, (source, row) in enumerate(views):
        yield change(array, place, source.stored(array, row))


def _image_files(views: list[tuple[SegmentReader, int]]) -> Iterator[np.ndarray]:
    """The file of each image once, by the first of its views."""
    there: set[int] = set()
    for source, row in views:
        image = source.record.image_ids[row]
        if image not in there:
            there.add(image)
            yield source.stored("images", row)


def _write(
    group: zarr.Group,
    folder: Path,
    record: SegmentRecord,
    attributes: CacheAttributes,
    *,
    arrays: Mapping[str, Iterable[np.ndarray]],
    offsets: np.ndarray,
) -> dict[str, ShardFile]:
    """Write arrays in the layout that they must have; returns the files of those that are sharded."""
    layouts = fixed_tables(record, attributes) | columns(record, attributes, offsets)
    files: dict[str, ShardFile] = {}
    for name, parts in arrays.items():
        layout, names = layouts[name], COLUMN_NAMES.get(name, ())
        if layout.shard is None:
            table = np.concatenate(list(parts))
            created = layout.create(group, name, columns=names)
            if table.size:
                created[...] = table
            continue
        with ThreadPoolExecutor(THREADS) as pool, closing(Column(folder, name, layout, pool)) as column:
            for part in parts:
                column.append(part)
            column.finish(group, columns=names)
            files |= column.files
    return files


def _finish(
    group: zarr.Group,
    folder: Path,
    record: SegmentRecord,
    attributes: CacheAttributes,
    *,
    offsets: np.ndarray,
    files: dict[str, ShardFile],
    sums: dict[str, str],
    told: dict[str, tuple[int, int]],
) -> SegmentRecord:
    broken = [image.model_dump() for image in record.broken]
    sums = sums | {name: file.chunk_sums for name, file in files.items()}
    told = told | {name: file.told for name, file in files.items()}
    group.update_attributes({"broken": broken, ATTRIBUTE: dict(sorted(sums.items()))})
    flush_tree(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    known = {name: told.get(name) or file_crc32(folder / name) for name in names}
    record = record.model_copy(update={"files": known, "sums": "crc32"})
    check_segment(record, folder, attributes, offsets=offsets)
    return record


def _link(source: CachePath, target: Path) -> None:
    if isinstance(source, RemotePath):
        copy_file(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (*NO_LINKS, errno.EXDEV):
            raise
        copy_file(source, target)
