"""Looking at a cache, checking it, mending it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_cache.byte_counts import byte_text
from frozen_cache.cache.attributes import CacheAttributes, read_attributes
from frozen_cache.cache.hints import read_hints
from frozen_cache.cache.integrity import Verification, verify_cache
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, read_line, read_records
from frozen_cache.cache.mending import finish, mend, mend_stem
from frozen_cache.cache.root import restore_segments_node, segments_node_is_intact
from frozen_cache.cache.stem_files import WEIGHTS
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath
from frozen_cache.stages.labels_table import label_lines
from frozen_cache.stages.maps_text import c1_text, levels_text


@dataclass(frozen=True)
class CacheInfo:
    """The summary of a cache."""

    path: CachePath
    attributes: CacheAttributes
    records: list[SegmentRecord]

    @property
    def part_bytes(self) -> Counter[str]:
        """Bytes on disk of each part: `c1`, `encoder/4`, `rows`, `truth`, and `metadata`, over all segments."""
        parts: Counter[str] = Counter()
        for record in self.records:
            for name, (size, _) in record.files.items():
                parts[_part(name)] += size
        return parts

    @property
    def views(self) -> int:
        """Views in committed segments."""
        return sum(len(record.image_ids) for record in self.records)

    @property
    def map_bits(self) -> dict[str, float]:
        """Bits on disk of each value of `c1` and `encoder/LAYER`, where the cache has any."""
        parts = self.part_bytes
        views = [[math.prod(shape) for shape in shapes] for record in self.records for shapes in record.shapes]
        first = int(self.attributes.stores_c1)
        values = {"c1": sum(sum(sizes[:first]) for sizes in views)} if first else {}
        levels = sum(sum(sizes[first:]) for sizes in views)
        values |= {f"encoder/{layer}": levels for layer in self.attributes.detector.encoder_layers}
        return {name: 8 * parts[name] / count for name, count in values.items() if count}

    def as_json(self) -> dict[str, Any]:
        """Progress, bytes of each array, and what a value of the maps takes."""
        a, bits = self.attributes, self.map_bits
        parts = self.part_bytes
        return {
            "cache": str(self.path),
            "format_version": a.format_version,
            "precision": a.precision,
            "step": a.step,
            "c1": a.c1,
            "detector": a.detector.name,
            "views": self.views,
            "views_total": a.views_total,
            "segments": len(self.records),
            "segments_total": a.segment_count,
            "bytes": parts.total(),
            **({} if a.stem is None else {"stem_bytes": a.stem.weights_bytes}),
            "arrays": {
                name: {"bytes": size} | ({"bits_a_value": round(bits[name], 3)} if name in bits else {})
                for name, size in sorted(parts.items())
            },
        }

    @property
    def saved_bytes(self) -> int:
        """Bytes that the maps which are recomputed would take in float16, by arithmetic from their strides."""
        a = self.attributes
        levels = [a.detector.encoder_levels[index] for index in a.recomputed_levels] * len(a.detector.encoder_layers)
        c1 = [a.detector.c1] if a.stem is not None and a.stem.config.c1 is not None else []
        return sum(
            2 * each.channels * -(-height // each.stride) * -(-width // each.stride)
            for record in self.records
            for height, width in record.resized_sizes
            for each in [*c1, *levels]
            if each is not None
        )

    def text(self) -> str:
        """For people."""
        a = self.attributes
        views, parts, bits = self.views, self.part_bytes, self.map_bits
        further = ", half of the further ones with pasted objects" if a.copy_paste else ""
        kind = " for test-time augmentation" if a.tta else further
        lines = [
            f"cache       {self.path} (format {a.format_version}, {a.precision}"
            + ("" if a.step is None else f", step {a.step:g}")
            + ")",
            f"detector    {a.detector.name} ({a.detector.family}), weights {a.detector.weights_sha256[:12]}",
            f"data        {a.data.annotations}: {a.data.images} images, {len(a.data.categories)} categories"
            + (f", limit {a.data.limit}" if a.data.limit else ""),
            *(f"            {line}" for line in a.data.counts.lines()),
            *(f"            masks made by {by}" for by in a.data.masks_from),
            "labels      detector's label -> category" + (" (objects)" if a.data.counts.per_category else ""),
            *(f"  {line}" for line in label_lines(a)),
            f"views       {views} of {a.views_total} ({a.views} per image{kind}), top {a.top_k} pairs each",
            f"segments    {len(self.records)} of {a.segment_count} committed, {a.views_per_segment} views each",
            f"C1          {c1_text(a)}",
            f"encoder     layers {', '.join(map(str, a.detector.encoder_layers)) or 'none'}: " + levels_text(a),
            f"size        {byte_text(parts.total())}"
            + (f", {byte_text(parts.total() / views)} per view:" if views else ""),
        ]
        for name, size in sorted(parts.items()) if views else ():
            each = f" ({bits[name]:.2f} bits a value)" if name in bits else ""
            lines.append(f"  {name:<10}{byte_text(size / views)}{each}")
        if a.stem is not None and views:
            lines.append(f"stem        {byte_text(a.stem.weights_bytes)}, of kind {a.stem.config.kind}")
            lines.append(
                f"recomputed  {byte_text(self.saved_bytes / views)} per view, if these maps were stored in float16"
            )
        if a.data.missing:
            lines.append(f"missing     {len(a.data.missing)} images left out: {_list(a.data.missing)}")
        broken = [entry for record in self.records for entry in record.broken]
        lines += [f"broken      image {entry.image_id}: {entry.reason}" for entry in broken]
        if len(self.records) < a.segment_count:
            lines.append(f"incomplete: {finish(self.path)}")
        return "\n".join(lines)


def cache_info(path: CachePath) -> CacheInfo:
    """What is in the cache at `path`; reads its attributes and ledger only."""
    attributes = read_attributes(path)
    records = list(read_records(path, committed_segments(path), attributes.fingerprint))
    return CacheInfo(path, attributes, records)


def cache_verify(path: CachePath) -> Verification:
    """Read every chunk of the cache at `path`, with a progress bar in bytes.

    Raises:
        UserError: there is no cache, its root attributes are damaged, or `segments/zarr.json` is.
    """
    if not segments_node_is_intact(path) and read_attributes(path):
        raise UserError(f"cache {path} is damaged: segments/zarr.json has changed; `cache repair` writes it anew")
    return _verify(path)


@dataclass(frozen=True)
class Repair:
    """What `cache_repair` did."""

    damaged: list[int]
    """Segments that were damaged, and have been extracted again."""
    opened: list[int]
    """Segments that were open, and have been extracted."""
    node: bool
    """Whether `segments/zarr.json` was written anew."""
    stem: bool
    """Whether the stem's weights were."""

    def text(self) -> str:
        """For people."""
        lines = []
        if self.node:
            lines.append("segments/zarr.json written anew")
        if self.stem:
            lines.append(f"{WEIGHTS} written anew")
        if self.damaged:
            lines.append(f"{_segments(self.damaged)} damaged and extracted again")
        if self.opened:
            lines.append(f"{_segments(self.opened)} not extracted yet, now done")
        return "\n".join(lines) or "nothing is damaged"


def cache_repair(
    path: CachePath,
    *,
    detector: str | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
    weights: Path | None = None,
    backbone_strides: tuple[int, ...] | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Repair:
    """Extract the damaged and the open segments, one at a time; all that is not given comes from the cache: its
    attributes, and the paths on which it was made (`Hints`).

    A damaged segment's line stays in the ledger until what replaces it is whole; a repair that is killed and run again
    goes on.

    Raises:
        UserError: as `extract_features` does, before anything is taken away; a path is needed and not known.
        OSError: something cannot be read: no damage, nothing is changed.
    """
    from frozen_cache.stages.extract import extract_features

    attributes = read_attributes(path)
    node = not segments_node_is_intact(path)
    if node:
        restore_segments_node(path)
    lines = {segment: read_line(path, segment) for segment in committed_segments(path)}
    found = _verify(path)
    damaged = sorted({damage.segment for damage in found.damages if damage.segment < attributes.segment_count})
    if (damaged or found.open or found.stem) and attributes.data.made_by:
        way = mend(path, damaged) if damaged else mend_stem(path) if found.stem else finish(path)
        raise UserError(f"cache {path} is not extracted again from images: {way}")
    if damaged or found.open or found.stem:
        hints = read_hints(path)
        given = (detector, images, annotations)
        if hints is None and None in given:
            names = [n for n, value in zip(("detector", "images", "annotations"), given, strict=True) if value is None]
            raise UserError(
                f"cache {path} does not know where it was made from: give {', '.join(f'--{name}' for name in names)}"
            )
        choices = attributes.data.choices
        records = list(read_records(path, found.intact, attributes.fingerprint))
        extract_features(
            detector=detector or hints.detector,  # type: ignore[union-attr]
            weights=weights or (hints.weights if hints and not detector else None),
            images=images or hints.images,  # type: ignore[union-attr]
            annotations=annotations or hints.annotations,  # type: ignore[union-attr]
            out=path,
            encoder_layers=attributes.detector.encoder_layers,
            backbone_strides=backbone_strides
            if backbone_strides is not None
            else (hints.backbone_strides if hints and not detector else ()),
            backbone_scale=attributes.detector.backbone_scale,
            views=attributes.views,
            copy_paste=attributes.copy_paste,
            tta=attributes.tta,
            top_k=attributes.top_k,
            precision=attributes.precision,
            step=attributes.step,
            c1=attributes.c1,
            autocast=attributes.autocast,
            limit=attributes.data.limit,
            bit_depth=attributes.data.bit_depth,
            device=device,
            workers=workers,
            skip_missing=bool(attributes.data.missing),
            skip_broken=any(record.broken for record in records),
            shard=(0, 1),
            crowds=choices.crowds,
            skip_bad_annotations=choices.skip_bad,
            only=tuple(map(str, choices.only)),
            labels=choices.labels,
            label_map=tuple(f"{category}=LABEL_{label}" for category, label in choices.label_map.items()),
            condemned={segment: line for segment in damaged if (line := lines[segment]) is not None},
        )
    return Repair(damaged, found.open, node, found.stem is not None)


def _verify(path: CachePath) -> Verification:
    with progress_bar(unit="B", unit_scale=True, desc="verify") as bar:
        return verify_cache(path, on_start=bar.reset, on_bytes=bar.update)


def _segments(numbers: list[int]) -> str:
    names = ", ".join(map(str, numbers[:20])) + (" ..." if len(numbers) > 20 else "")
    return f"segment {names} was" if len(numbers) == 1 else f"{len(numbers)} segments ({names}) were"


def _part(name: str) -> str:
    parts = name.split("/")
    if parts[-1] == "zarr.json" or parts[0] in ("views", "offsets", "shapes", "image_spans"):
        return "metadata"
    return "/".join(parts[:2]) if parts[0] == "encoder" else parts[0]


def _list(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")
