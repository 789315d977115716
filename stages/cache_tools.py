"""Looking at a cache, checking it, mending it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes, read_attributes
from frozen_cache.cache.integrity import (
    Verification,
    restore_segments_node,
    segments_node_is_intact,
    verify_cache,
)
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, read_record
from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar


@dataclass(frozen=True)
class CacheInfo:
    """The summary of a cache."""

    path: Path
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

    def text(self) -> str:
        """For people."""
        a = self.attributes
        views = sum(len(record.image_ids) for record in self.records)
        parts = self.part_bytes
        lines = [
            f"cache       {self.path} (format {a.format_version}, {a.precision})",
            f"detector    {a.detector.name} ({a.detector.family}), weights {a.detector.weights_sha256[:12]}",
            f"data        {a.data.annotations}: {a.data.images} images, {len(a.data.categories)} categories"
            + (f", limit {a.data.limit}" if a.data.limit else ""),
            f"categories  {_names(a)}",
            f"views       {views} of {a.views_total} ({a.views} per image), top {a.top_k} pairs each",
            f"segments    {len(self.records)} of {a.segment_count} committed, {a.views_per_segment} views each",
            f"C1          {_feature(a.detector.c1)}",
            f"encoder     layers {', '.join(map(str, a.detector.encoder_layers)) or 'none'}: "
            + "; ".join(_feature(level) for level in a.detector.encoder_levels),
            f"size        {_bytes(parts.total())}" + (f", {_bytes(parts.total() / views)} per view:" if views else ""),
        ]
        lines += [f"  {name:<10}{_bytes(size / views)}" for name, size in sorted(parts.items()) if views]
        if a.data.missing:
            lines.append(f"missing     {len(a.data.missing)} images left out: {_list(a.data.missing)}")
        broken = [entry for record in self.records for entry in record.broken]
        lines += [f"broken      image {entry.image_id}: {entry.reason}" for entry in broken]
        if len(self.records) < a.segment_count:
            lines.append("incomplete: the same `frozen-cache extract-features` command again finishes it")
        return "\n".join(lines)


def cache_info(path: Path) -> CacheInfo:
    """What is in the cache at `path`; reads its attributes and ledger only."""
    attributes = read_attributes(path)
    records = [read_record(path, segment, attributes.fingerprint) for segment in committed_segments(path)]
    return CacheInfo(path, attributes, records)


def cache_verify(path: Path) -> Verification:
    """Read every chunk of the cache at `path`, with a progress bar in bytes.

    Raises:
        UserError: there is no cache, its root attributes are damaged, or `segments/zarr.json` is.
    """
    if not segments_node_is_intact(path) and read_attributes(path):
        raise UserError(f"cache {path} is damaged: segments/zarr.json has changed; `cache repair` writes it anew")
    with progress_bar(unit="B", unit_scale=True, desc="verify") as bar:
        return verify_cache(path, on_bytes=bar.update)


def cache_repair(
    path: Path,
    *,
    detector: str,
    images: Path,
    annotations: Path,
    weights: Path | None = None,
    backbone_strides: tuple[int, ...] = (),
    device: str = "auto",
    workers: int | None = None,
) -> list[int]:
    """Extract the damaged segments again, and return their numbers; all other options come from the cache.

    Raises:
        UserError: as `extract_features` does, before anything is taken away.
    """
    from frozen_cache.stages.extract import extract_features

    attributes = read_attributes(path)
    if not segments_node_is_intact(path):
        restore_segments_node(path)
    with progress_bar(unit="B", unit_scale=True, desc="verify") as bar:
        found = verify_cache(path, on_bytes=bar.update)
    damaged = sorted({damage.segment for damage in found.damages})
    if damaged:
        extract_features(
            detector=detector,
            weights=weights,
            images=images,
            annotations=annotations,
            out=path,
            encoder_layers=attributes.detector.encoder_layers,
            backbone_strides=backbone_strides,
            backbone_scale=attributes.detector.backbone_scale,
            views=attributes.views,
            top_k=attributes.top_k,
            precision=attributes.precision,
            autocast=attributes.autocast,
            limit=attributes.data.limit,
            device=device,
            workers=workers,
            skip_missing=bool(attributes.data.missing),
            skip_broken=True,
            shard=(0, 1),
            repair=frozenset(damaged),
        )
    return damaged


def _part(name: str) -> str:
    parts = name.split("/")
    if parts[-1] == "zarr.json" or parts[0] in ("views", "offsets", "shapes"):
        return "metadata"
    return "/".join(parts[:2]) if parts[0] == "encoder" else parts[0]


def _feature(feature: FeatureSpec | None) -> str:
    return "none" if feature is None else f"{feature.channels} channels at stride {feature.stride}"


def _names(attributes: CacheAttributes) -> str:
    names = [category["name"] for category in attributes.categories]
    return ", ".join(names[:8]) + (f" ... ({len(names)})" if len(names) > 8 else "")


def _list(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
