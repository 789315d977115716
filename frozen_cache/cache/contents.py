"""What a segment must hold: computed from its line in the ledger and the cache's attributes, never read from a list
that the fault which lost a file may have shortened. Writer, reader and `verify` compare against it."""

from __future__ import annotations

import json
import math

import numpy as np

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.layout import (
    BOX_COLUMNS,
    IMAGE_ROWS,
    OBJECT_COLUMNS,
    OBJECT_ROWS,
    OFFSET_COLUMNS,
    POINT_COLUMNS,
    RLE_ROWS,
    ROW_COLUMNS,
    SHAPE_COLUMNS,
    SPAN_COLUMNS,
    VIEW_COLUMNS,
    ArrayLayout,
    chunk_rows,
    image_spans,
)
from frozen_cache.cache.ledger import SegmentRecord
from frozen_cache.durable import file_size
from frozen_cache.remote import CachePath

DOCUMENT_BYTES = 16 << 20
"""A `zarr.json` of ours has about a thousand; that of a segment ten for each chunk, and more for broken images."""
MAX_SIDE = 1 << 20
MAX_PIXELS = 1 << 31
"""Beyond which pycocotools counts wrong."""
MAX_VIEW = 1 << 31
"""Elements that a view has in any array, at most: a map of 2,048 channels and 1,024 x 1,024 cells."""
MAX_INPUT_PIXELS = 1 << 27
"""Beyond what any detector takes; images that lie in a cache are resized to what it says."""


class NotWhole(Exception):  # noqa: N818
    """A segment does not hold what it must; the text says what."""


def map_dtype(attributes: CacheAttributes) -> str:
    """Numpy's name of the type in which maps are stored."""
    return "int8" if attributes.precision == "coded" else attributes.precision


def channel_tables(attributes: CacheAttributes) -> tuple[str, ...]:
    """The tables that have a number for each channel of each map, in the order in which `StoredMap` takes them."""
    return {"int8": ("scales",), "coded": ("scales", "shifts")}.get(attributes.precision, ())


def map_layout(attributes: CacheAttributes, values: int, *, chunk: int) -> ArrayLayout:
    """A flat array of maps, of `values` numbers; coded ones are compressed."""
    return ArrayLayout.sharded((values,), map_dtype(attributes), chunk=chunk, zstd=attributes.precision == "coded")


def map_count(attributes: CacheAttributes) -> int:
    """Stored maps of a view: C1 where there is one, and the encoder levels of one layer where any is kept."""
    spec = attributes.detector
    levels = len(spec.encoder_levels) - len(attributes.recomputed_levels)
    return attributes.stores_c1 + (levels if spec.encoder_layers else 0)


def check_record(record: SegmentRecord, attributes: CacheAttributes) -> None:
    """NotWhole where a line contradicts itself or the cache that it belongs to."""
    views = len(record.image_ids)
    planned = attributes.views_planned(record.segment)
    lost = planned - views
    same = {len(record.view_indices), len(record.resized_sizes), len(record.matched), len(record.shapes)} == {views}
    sums = {len(each) for each in (record.image_crcs, record.annotation_sums) if each}
    if not same or sums - {views}:
        raise NotWhole("its line in the ledger contradicts itself")
    if lost < 0 or (lost > 0) != bool(record.broken) or len(record.broken) > lost:
        raise NotWhole(f"it has {views} views and {len(record.broken)} broken images, {planned} views were planned")
    maps = map_count(attributes)
    if any(len(shapes) != maps or min(map(min, shapes), default=0) < 0 for shapes in record.shapes):
        raise NotWhole("the shapes of its maps are not those of the detector")
    if any(sum(map(math.prod, shapes)) > MAX_VIEW for shapes in record.shapes):
        raise NotWhole("the shapes of its maps are larger than any map")
    if len(record.image_bytes) != (0 if attributes.stem is None else views):
        raise NotWhole("its line in the ledger does not tell the sizes of the image files that the cache keeps")
    sizes = set(zip(record.image_ids, record.image_bytes, strict=False))
    if len(dict(sizes)) < len(sizes) or min(record.image_bytes, default=1) < 1:
        raise NotWhole("its line in the ledger has image files of impossible sizes")


def fixed_tables(record: SegmentRecord, attributes: CacheAttributes) -> dict[str, ArrayLayout]:
    """The tables whose shapes follow from the record alone."""
    views = len(record.image_ids)
    tables = {
        "views": ArrayLayout.table((views, len(VIEW_COLUMNS)), "int64"),
        "offsets": ArrayLayout.table((views + 1, len(OFFSET_COLUMNS)), "int64"),
        "shapes": ArrayLayout.table((views, len(record.shapes[0]) if views else 0, len(SHAPE_COLUMNS)), "int64"),
    }
    if attributes.stem is not None:
        tables["image_spans"] = ArrayLayout.table((views, len(SPAN_COLUMNS)), "int64")
    numbers = _channels(record, attributes) if views else 0
    return tables | {name: ArrayLayout.table((views, numbers), "float32") for name in channel_tables(attributes)}


def columns(record: SegmentRecord, attributes: CacheAttributes, offsets: np.ndarray) -> dict[str, ArrayLayout]:
    """The growing arrays, given the segment's `offsets`; NotWhole where these contradict the record."""
    views, spec = len(record.image_ids), attributes.detector
    if not views:
        return {}
    if (offsets[0] != 0).any() or (offsets < 0).any() or (np.diff(offsets, axis=0) < 0).any():
        raise NotWhole("its offsets do not rise from 0")
    if np.diff(offsets, axis=0).max() > MAX_VIEW:
        raise NotWhole("its offsets claim more than a view can have")
    has_c1 = attributes.stores_c1
    sizes = np.array([[math.prod(shape) for shape in shapes] for shapes in record.shapes], dtype=object)
    sizes = sizes.reshape(views, -1)
    c1 = sizes[:, :has_c1].sum(axis=1)
    encoder = sizes[:, has_c1:].sum(axis=1)
    steps = np.diff(offsets, axis=0)
    for name, wanted in (("c1", c1), ("encoder", encoder)):
        if steps[:, OFFSET_COLUMNS.index(name)].tolist() != list(wanted):
            raise NotWhole(f"its offsets are not those of its shapes: {name}")
    rows, objects, rle, c1_total, encoder_total = offsets[-1].tolist()
    first = steps[0].tolist()
    row = len(ROW_COLUMNS) + spec.query_dim
    item = np.dtype(map_dtype(attributes)).itemsize
    found = {
        "rows": ArrayLayout.sharded((rows, row), "float32", chunk=chunk_rows(first[0], 4 * row)),
        "truth/objects": ArrayLayout.sharded((objects, len(OBJECT_COLUMNS)), "int64", chunk=OBJECT_ROWS),
        "truth/boxes": ArrayLayout.sharded((objects, len(BOX_COLUMNS)), "float32", chunk=OBJECT_ROWS),
        "truth/rle": ArrayLayout.sharded((rle,), "uint8", chunk=RLE_ROWS),
    }
    if attributes.data.points is not None:
        columns_there = 1 + len(POINT_COLUMNS) * attributes.data.points
        found["truth/supervision"] = ArrayLayout.sharded((objects, columns_there), "float32", chunk=OBJECT_ROWS)
    if attributes.stem is not None:
        end = image_spans(record.image_ids, record.image_bytes)[:, 1].max()
        found["images"] = ArrayLayout.sharded((int(end),), "uint8", chunk=IMAGE_ROWS)
    if has_c1:
        found["c1"] = map_layout(attributes, c1_total, chunk=chunk_rows(first[3], item))
    for layer in spec.encoder_layers:
        found[f"encoder/{layer}"] = map_layout(attributes, encoder_total, chunk=chunk_rows(first[4], item))
    return found


def check_segment(
    record: SegmentRecord, folder: CachePath, attributes: CacheAttributes, *, offsets: np.ndarray
) -> None:
    """NotWhole unless record and disk are whole: every array with the codecs and files that it must have, no other."""
    check_record(record, attributes)
    arrays = fixed_tables(record, attributes) | columns(record, attributes, offsets)
    check_files(record, folder, arrays)
    check_groups(record, folder, arrays)


def check_views(record: SegmentRecord, views: np.ndarray, shapes: np.ndarray) -> None:
    """NotWhole where the tables `views` and `shapes` are not what the record says, or not what an image can be."""
    column = {name: views[:, place] for place, name in enumerate(VIEW_COLUMNS)}
    if column["image_id"].tolist() != list(record.image_ids) or column["view"].tolist() != list(record.view_indices):
        raise NotWhole("its images are not those of the ledger")
    resized = np.stack([column["resized_height"], column["resized_width"]], axis=1)
    if resized.tolist() != [list(size) for size in record.resized_sizes]:
        raise NotWhole("its resized sizes are not those of the ledger")
    if shapes.tolist() != [[list(shape) for shape in each] for each in record.shapes]:
        raise NotWhole("its shapes are not those of the ledger")
    if record.image_bytes and (resized.min(initial=1) < 1 or resized.prod(axis=1).max(initial=1) > MAX_INPUT_PIXELS):
        raise NotWhole("a view has a size to which no detector resizes")
    width, height = (column[f"crop_{axis}1"] - column[f"crop_{axis}0"] for axis in "xy")
    fits = (width > 0) & (height > 0) & (width <= MAX_SIDE) & (height <= MAX_SIDE) & (width * height < MAX_PIXELS)
    if not fits.all():
        raise NotWhole("a view has a size that no image has")


def check_spans(record: SegmentRecord, spans: np.ndarray) -> None:
    """NotWhole where the table `image_spans` is not what the record says."""
    if not np.array_equal(spans, image_spans(record.image_ids, record.image_bytes)):
        raise NotWhole("its image files are not cut as the ledger says")


def check_files(record: SegmentRecord, folder: CachePath, arrays: dict[str, ArrayLayout]) -> None:
    """NotWhole unless the record and the disk have every file of these arrays, in the size that it must have.

    Nothing is opened but regular files of that size, so that a line made to harm leads nowhere.
    """
    for name, array in arrays.items():
        if array.file_count > len(record.files):
            raise NotWhole(f"{name} must have {array.file_count} files, its line in the ledger lists fewer")
        for file, size in array.files().items():
            check_size(record, folder, f"{name}/{file}", between=size)
        document = read_document(record, folder, f"{name}/zarr.json")
        if says := array.difference(document):
            raise NotWhole(f"{name}/zarr.json: {says}")


def check_groups(record: SegmentRecord, folder: CachePath, arrays: dict[str, ArrayLayout]) -> None:
    """NotWhole unless the groups are there and the record lists no file beside those of groups and arrays."""
    groups = {"zarr.json"} | {f"{name.partition('/')[0]}/zarr.json" for name in arrays if "/" in name}
    for name in sorted(groups):
        if read_document(record, folder, name).get("node_type") != "group":
            raise NotWhole(f"{name} describes no group")
    known = groups | {f"{name}/zarr.json" for name in arrays}
    known |= {f"{name}/{file}" for name, array in arrays.items() for file in array.files()}
    if more := sorted(set(record.files) - known):
        raise NotWhole(f"its line in the ledger lists {more[0]}, which is no file of this format")


def check_size(record: SegmentRecord, folder: CachePath, name: str, *, between: tuple[int, int] | None = None) -> None:
    """NotWhole where a file is not in the record, or gone, or not regular, or of another size; other errors name it."""
    if name not in record.files:
        raise NotWhole(f"{name} is missing in its line of the ledger")
    written = record.files[name][0]
    if between is not None and not between[0] <= written <= between[1]:
        least, most = between
        must = f"{least}" if least == most else f"{least} to {most}"
        raise NotWhole(f"{name} was written with {written} bytes, it must have {must}")
    try:
        found = file_size(folder / name)
    except (FileNotFoundError, NotADirectoryError):
        raise NotWhole(f"{name} is missing") from None
    except ValueError:
        raise NotWhole(f"{name} is no regular file") from None
    if found != written:
        raise NotWhole(f"{name} has {found} bytes, {written} were written")


def read_document(record: SegmentRecord, folder: CachePath, name: str) -> dict[str, object]:
    """A `zarr.json`, its size and checksum compared with the record's."""
    check_size(record, folder, name)
    if record.files[name][0] > DOCUMENT_BYTES:
        raise NotWhole(f"{name} is too long")
    content = (folder / name).read_bytes()
    if record.checksum_of(content) != record.files[name]:
        raise NotWhole(f"{name} has changed")
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NotWhole(f"{name} is not understood")
    return document


def _channels(record: SegmentRecord, attributes: CacheAttributes) -> int:
    """Scales of a view: a number for each channel of C1, and of each level of each kept layer."""
    channels = [shape[0] for shape in record.shapes[0]]
    c1 = channels[: attributes.stores_c1]
    levels = channels[len(c1) :]
    return sum(c1) + sum(levels) * len(attributes.detector.encoder_layers)
