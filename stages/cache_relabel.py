"""New annotations on a cache that is there, without the detector: of a file, or masks that a model gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes, DataAttributes
from frozen_cache.cache.hints import read_hints, write_hints
from frozen_cache.cache.ledger import committed_segments, read_record
from frozen_cache.cache.own_annotations import own_annotations
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.relabel import Relabelling, relabel_segment
from frozen_cache.cache.root import existing_cache
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.stem_files import copy_stem
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.checks import check_annotations
from frozen_cache.data.choices import AnnotationChoices
from frozen_cache.data.choose import choose_annotations
from frozen_cache.data.coco import CocoDataset, CocoImage, read_coco
from frozen_cache.data.fingerprint import data_fingerprint
from frozen_cache.data.supervision import points_room
from frozen_cache.detectors.labels import match_labels
from frozen_cache.device import pick_device
from frozen_cache.durable import remove_tree
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar
from frozen_cache.prompted.answers import LEAST_IOU
from frozen_cache.prompted.model import load_prompted
from frozen_cache.remote import CachePath
from frozen_cache.report.photographs import Photographs, photographs
from frozen_cache.stages.cache_subset import refuse_own_source
from frozen_cache.stages.head_masks import HeadMasks
from frozen_cache.stages.prompted_masks import (
    MaskMaker,
    MaskPrompts,
    PromptedMasks,
    PrompterMasks,
    kept_beside,
    prompted_data,
    prompted_masks,
)


@dataclass(frozen=True)
class Relabelled:
    """What `cache_relabel` made."""

    out: CachePath
    views: int
    objects: int
    """That are no crowd, in the new annotations."""
    unused: int
    """Images of the annotation file that the cache does not have."""
    left: int
    """Segments that another process is still making."""
    masks: PromptedMasks | None = None
    """Of a model; None where none was asked, or the cache was there already."""

    def text(self) -> str:
        """For people."""
        lines = [f"{self.views} views have new ground truth: {self.objects:,} objects"]
        lines += [] if self.masks is None else self.masks.lines()
        if self.unused:
            lines.append(f"{self.unused} images of the annotation file are not in the cache")
        if self.left:
            lines.append(f"{self.left} segments are still open: another process makes them, or run it again")
        return "\n".join(lines)


def cache_relabel(
    path: CachePath,
    *,
    out: CachePath,
    annotations: Path | None = None,
    crowds: str = "as-marked",
    skip_bad_annotations: bool = False,
    only: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    label_map: tuple[str, ...] = (),
    force: bool = False,
    masks_from: str | None = None,
    images: Path | None = None,
    replace_masks: bool = False,
    least_iou: float | None = None,
    device: str = "auto",
) -> Relabelled:
    """Make the cache `out` of the maps and queries of the cache `path` and of other annotations of its images, or of
    masks that a model gives to the boxes of its objects, or both.

    Maps are hard links to the files of `path`, where the file system has these. Killed and called again it goes on.

    Args:
        annotations: COCO instances file; None for those of `path`, with `masks_from`.
        crowds, skip_bad_annotations, only, labels, label_map, force: as for `extract_features`; `labels` are those of
            `path` where none are given.
        masks_from: `hf:DIR_OR_HUB_ID` of a model that makes masks of boxes, for objects without masks; or a run
            directory, whose head makes them from the cached features.
        images: folder of the pictures that it sees (of a head: whose colours correct its masks, where they are at
            hand); None for where the cache was made, or for those that it holds.
        replace_masks: let it make the masks of objects that have one, too.
        least_iou: predicted IoU below which its masks are refused; None for 0.5. Of a head without mask scoring, the
            mean probability of the mask.
        device: where it runs.

    Raises:
        UserError: the annotations lack an image of the cache, or have it in another size; a category has a label whose
            detections were not kept; no such model; a picture is missing.
    """
    refuse_own_source(out, path)
    if masks_from is None and (images is not None or replace_masks or least_iou is not None):
        raise UserError("--images, --replace-masks and --least-iou are for --masks-from: give it, or leave them out")
    if annotations is None and (only or labels or label_map or skip_bad_annotations or crowds != "as-marked"):
        raise UserError("options that say how annotations are read are for --annotations: give it, or leave them out")
    reader = CacheReader(path)
    old = reader.attributes
    if old.copy_paste:
        raise UserError(
            f"{path} has objects pasted into its views (--copy-paste) along the masks that they had: extract it again "
            "with the new annotations"
        )
    unused = 0
    if annotations is not None:
        dataset = read_coco(annotations)
        found = _images(reader, dataset)
        unused = len(dataset.images) - len(found)
        choices = choose_annotations(
            categories=dataset.categories,
            label_names=old.detector.label_names or {},
            num_labels=old.detector.num_labels,
            crowds=crowds,
            skip_bad=skip_bad_annotations,
            only=only,
            labels=labels or old.data.choices.labels,
            label_map=label_map,
        )
        attributes = _of_file(dataset, found, old, choices, force=force)
        _refuse_lost_labels(path, old, attributes)
    elif masks_from is not None:
        found, attributes = own_annotations(reader), _with_data(old, old.data.model_copy(update={"made_by": "relabel"}))
    else:
        raise UserError("give --annotations FILE, or --masks-from MODEL for the boxes that the cache has")
    by_id = {image.id: image for image in found}
    relabelling, masks = Relabelling.build(attributes, old, by_id), None
    if masks_from is not None:
        pictures = photographs(path, images, reader=reader)
        if annotations is not None:
            pictures.names = {image.id: image.file_name for image in found}
        prompts = MaskPrompts(
            maker=_maker(masks_from, path, relabelling, pictures, device=device),
            least_iou=LEAST_IOU if least_iou is None else least_iou,
            replace_masks=replace_masks,
        )
        told = f"{attributes.data.fingerprint} {prompts.question}"
        fingerprint = hashlib.sha256(told.encode()).hexdigest()
        if there := _whole(out, fingerprint):
            return Relabelled(out, len(reader), there.data.counts.objects, unused, 0)
        prompts.check(found)
        masks = prompted_masks(found, prompts, beside=out)
        data = prompted_data(attributes.data, masks, prompts).model_copy(update={"fingerprint": fingerprint})
        attributes = _with_data(attributes, data)
        relabelling = Relabelling.build(attributes, old, {image.id: image for image in masks.images}, boxed=by_id)
    left = _write(path, out, relabelling, old)
    hints = read_hints(path)
    if hints is not None:
        write_hints(out, hints.model_copy(update={} if annotations is None else {"annotations": annotations.resolve()}))
    if masks is not None and not left:
        remove_tree(kept_beside(out))
    return Relabelled(out, len(reader), attributes.data.counts.objects, unused, left, masks)


def _maker(
    masks_from: str, path: CachePath, relabelling: Relabelling, pictures: Photographs, *, device: str
) -> MaskMaker:
    """A prompted model, or a head that was trained here."""
    if masks_from.startswith("hf:"):
        return PrompterMasks(load_prompted(masks_from, device=pick_device(device)), pictures)
    if not Path(masks_from).exists():
        raise UserError(
            f"--masks-from {masks_from} does not exist: give hf:FOLDER or hf:ORG/NAME of a model of "
            "transformers, or a run directory of train-head"
        )
    return HeadMasks(Path(masks_from), path, relabelling, pictures, device=device)


def _of_file(
    dataset: CocoDataset,
    images: list[CocoImage],
    old: CacheAttributes,
    choices: AnnotationChoices,
    *,
    force: bool,
) -> CacheAttributes:
    """The attributes of a cache of these images, whose annotations are read here."""
    counts = check_annotations(dataset, images, choices=choices, force=force)
    dataset = replace(dataset, categories=choices.kept(dataset.categories))
    label_to_category = match_labels(
        old.detector,
        [{"id": key, "name": name} for key, name in dataset.categories.items()],
        used={found for key in dataset.used if (found := choices.category(key)) is not None},
        names=choices.labels,
        chosen={key: label for key, label in choices.label_map.items() if key in dataset.categories},
    )
    fingerprint = data_fingerprint(((image, None) for image in images), dataset.categories)
    data = DataAttributes(
        fingerprint=hashlib.sha256(f"{old.data.fingerprint} {fingerprint}".encode()).hexdigest(),
        annotations=dataset.path.name,
        images=old.data.images,
        missing=old.data.missing,
        limit=old.data.limit,
        categories=tuple({"id": key, "name": name} for key, name in dataset.categories.items()),
        choices=choices,
        counts=counts,
        bit_depth=old.data.bit_depth,
        points=points_room((each.kind, each.points) for image in images for each in image.annotations),
        made_by="relabel",
    )
    return _with_data(old, data).model_copy(update={"label_to_category": label_to_category})


def _with_data(attributes: CacheAttributes, data: DataAttributes) -> CacheAttributes:
    return attributes.model_copy(update={"data": data})


def _whole(out: CachePath, fingerprint: str) -> CacheAttributes | None:
    """The attributes of the cache at `out` where it is of this data and has all its segments."""
    there = existing_cache(out)
    if there is None or there.data.fingerprint != fingerprint:
        return None
    return there if len(committed_segments(out)) == there.segment_count else None


def _images(reader: CacheReader, dataset: CocoDataset) -> list[CocoImage]:
    """The images of the cache as the annotation file has them, by rising id."""
    known = {image.id: image for image in dataset.images}
    ids = sorted({image for image, _ in reader.views})
    lost = [key for key in ids if key not in known]
    if lost:
        raise UserError(
            f"{dataset.path} lacks {len(lost)} images that {reader.path} has, the first is image {lost[0]}: "
            "`frozen-cache cache subset` makes a cache of fewer images"
        )
    return [known[key] for key in ids]


def _refuse_lost_labels(path: CachePath, old: CacheAttributes, new: CacheAttributes) -> None:
    """UserError where a category has a label without rows in the cache, or one category has become several."""
    names = {category["id"]: category["name"] for category in (*old.categories, *new.categories)}
    became: dict[int, int | None] = {}
    for label, category in new.label_to_category.items():
        if label not in old.label_to_category:
            raise UserError(
                f"category {category} ({names[category]}) is the detector's label {label}, whose detections {path} "
                "does not have, as no category of its own was that label: extract anew, or leave it out by --only"
            )
    for label, category in old.label_to_category.items():
        now = new.label_to_category.get(label)
        if became.setdefault(category, now) != now:
            raise UserError(
                f"category {category} ({names[category]}) of {path} is several labels of the detector, which are "
                "different categories now; its rows do not tell them apart: extract anew"
            )


def _write(path: CachePath, out: CachePath, relabelling: Relabelling, old: CacheAttributes) -> int:
    """Make the open segments; returns how many are still open."""
    writer = CacheWriter(out, relabelling.attributes)
    try:
        copy_stem(out, path, old.stem)
        pending = writer.pending()
        with progress_bar(total=len(pending), desc="relabel", unit="segment") as bar:
            for segment in pending:
                if writer.claim(segment):
                    record = read_record(path, segment, old.fingerprint)
                    source = SegmentReader(path, record, old)
                    _refuse_other_sizes(source, relabelling.images)
                    with writer.place(segment) as place:
                        place.record = relabel_segment(place.folder, source, relabelling, name=place.name)
                bar.update()
        return len(writer.pending())
    finally:
        writer.close()


def _refuse_other_sizes(source: SegmentReader, images: dict[int, CocoImage]) -> None:
    for image_id, _, height, width, *_ in source.stored("views").tolist():
        image = images[image_id]
        if (image.height, image.width) != (height, width):
            raise UserError(
                f"image {image_id} is {image.height} x {image.width} (height x width) in the annotations, "
                f"{height} x {width} in the cache"
            )
