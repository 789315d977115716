"""The annotations of a data set, read and checked: what is repaired is counted, what is refused is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from frozen_cache.data.annotation import CocoAnnotation, read_annotation
from frozen_cache.data.choices import AnnotationChoices, AnnotationCounts
from frozen_cache.data.coco import CocoDataset, CocoImage, Entry, annotation_name
from frozen_cache.data.supervision import Kind
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar

NAMED = 10
"""Malformed annotations that the error names."""


def check_annotations(
    dataset: CocoDataset, images: Sequence[CocoImage], *, choices: AnnotationChoices, force: bool = False
) -> AnnotationCounts:
    """Read the annotations of `images` into their `annotations`.

    Args:
        images: those of `dataset` that are taken.
        force: go on where there is nothing to train on or to compare with.

    Raises:
        UserError: malformed annotations (all are counted, the first ten named), none at all, or crowds only.
    """
    tally: Counter[str] = Counter()
    per_category: Counter[int] = Counter()
    malformed = list(dataset.astray)
    with progress_bar(desc="annotations", unit="img", total=len(images), leave=False) as bar:
        for image in images:
            image.annotations.clear()
            for entry in dataset.entries.get(image.id, []):
                try:
                    annotation = _read(entry, image, choices, tally)
                except ValueError as error:
                    malformed.append(f"{annotation_name(entry.position, entry.fields)} (image {image.id}): {error}")
                    continue
                if annotation is not None:
                    per_category[annotation.category_id] += not annotation.crowd
                    image.annotations.append(annotation)
            bar.update()
    counts = AnnotationCounts(**tally, malformed=len(malformed), per_category=dict(sorted(per_category.items())))
    _refuse(dataset, counts, malformed, choices=choices, force=force)
    return counts


def _read(entry: Entry, image: CocoImage, choices: AnnotationChoices, tally: Counter[str]) -> CocoAnnotation | None:
    """The annotation that an entry becomes, counted; None where it is left out."""
    category = choices.category(entry.fields["category_id"])
    if category is None:
        tally["other_classes"] += 1
        return None
    read = read_annotation(entry.fields, category_id=category, height=image.height, width=image.width)
    annotation = read.annotation
    if annotation is None:
        tally["empty_masks"] += 1
        return None
    tally["repaired_boxes"] += read.repaired_box
    tally["repaired_areas"] += read.repaired_area
    tally["repaired_crowds"] += read.repaired_crowd
    if annotation.crowd and choices.crowds == "as-objects":
        tally["crowds_as_objects"] += 1
        annotation = replace(annotation, crowd=False)
    tally["crowds" if annotation.crowd else "objects"] += 1
    tally["points_alone"] += annotation.kind == Kind.POINTS
    tally["boxes_alone"] += annotation.kind == Kind.BOX
    return annotation


def _refuse(
    dataset: CocoDataset, counts: AnnotationCounts, malformed: list[str], *, choices: AnnotationChoices, force: bool
) -> None:
    if malformed and not choices.skip_bad:
        more = f"; and {len(malformed) - NAMED} more" if len(malformed) > NAMED else ""
        raise UserError(
            f"{dataset.path}: {_count(len(malformed), 'annotation')} malformed: {'; '.join(malformed[:NAMED])}{more}. "
            "--skip-bad-annotations goes on without them"
        )
    if force:
        return
    if not counts.objects and counts.crowds:
        raise UserError(
            f"{dataset.path}: every annotation ({counts.crowds}) is marked as a crowd (iscrowd 1), as some exporters "
            "mark all RLE masks: --crowds as-objects reads them as objects"
        )
    if not counts.objects:
        left_out = f" ({'; '.join(counts.lines())})" if counts.lines() else ""
        raise UserError(
            f"{dataset.path}: no annotation for the images that are taken{left_out}: nothing would be trained or "
            "compared; --force goes on without any"
        )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what} is" if count == 1 else f"{count:,} {what}s are"
