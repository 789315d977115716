"""How annotations are to be read, and what was found in them: both are recorded in the cache."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from frozen_cache.documents import added_later

Crowds = Literal["as-marked", "as-objects"]


class AnnotationChoices(BaseModel):
    """The options that change what a data set's annotations mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crowds: Crowds = "as-marked"
    """Whether `iscrowd` counts, or every annotation is an object (`--crowds`)."""
    skip_bad: bool = False
    """Go on without malformed annotations (`--skip-bad-annotations`)."""
    only: tuple[int, ...] = ()
    """Category ids to keep, ascending; empty for all (`--only`)."""
    labels: tuple[str, ...] = ()
    """Names of the detector's labels 0, 1, 2 ..., where the user gave them (`--labels`)."""
    label_map: dict[int, int] = {}
    """Category id -> the detector's label, where the user said so (`--map`)."""

    @property
    def merged(self) -> dict[int, int]:
        """Category id -> the lowest id that is mapped to the same label, for all but that one."""
        lowest: dict[int, int] = {}
        for category, label in sorted(self.label_map.items()):
            lowest.setdefault(label, category)
        return {key: lowest[label] for key, label in sorted(self.label_map.items()) if lowest[label] != key}

    def category(self, category_id: int) -> int | None:
        """The category that an annotation counts for; None where it is left out."""
        found = self.merged.get(category_id, category_id)
        kept = {self.merged.get(key, key) for key in self.only}
        return found if found in kept or not kept else None

    def kept(self, categories: dict[int, str]) -> dict[int, str]:
        """The categories that annotations can count for."""
        return {key: name for key, name in categories.items() if self.category(key) == key}


class AnnotationCounts(BaseModel):
    """What was found in the annotations of the images that are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objects: int = 0
    """Those in use that are no crowd."""
    crowds: int = 0
    per_category: dict[int, int] = {}
    """Category id -> objects."""
    repaired_boxes: int = 0
    """`bbox` missing, or with an IoU below 0.7 with the mask's own box: the mask's is used."""
    repaired_areas: int = 0
    """`area` missing, or more than a factor of two away from the mask's pixels: the mask's is used."""
    repaired_crowds: int = 0
    """`iscrowd` as text or true and false, read as meant."""
    crowds_as_objects: int = 0
    empty_masks: int = 0
    """Masks of no pixels: left out."""
    other_classes: int = 0
    """Of categories outside `--only`: left out."""
    malformed: int = 0
    """Left out by `--skip-bad-annotations`."""
    points_alone: int = added_later(0)
    """Without masks, with points in and outside of the object."""
    boxes_alone: int = added_later(0)
    """Without masks or points."""
    prompted_masks: int = added_later(0)
    """Given by a model (`cache relabel --masks-from`)."""
    refused_masks: int = added_later(0)
    """Given by one, and not believed: these objects are counted above."""

    @property
    def without_masks(self) -> int:
        """Objects and crowds of which a part of the mask's truth is known, at most."""
        return self.points_alone + self.boxes_alone

    def lines(self) -> list[str]:
        """What was repaired, left out or has no mask, a line for each kind; none where the file means what its masks
        say."""
        kinds = [
            (self.repaired_boxes, "boxes taken from their masks (bbox missing, or IoU below 0.7 with the mask's box)"),
            (self.repaired_areas, "areas taken from their masks (area missing, or off by more than a factor of 2)"),
            (self.repaired_crowds, "iscrowd values read as meant (text, true or false)"),
            (self.crowds_as_objects, "crowds read as objects (--crowds as-objects)"),
            (self.empty_masks, "annotations left out: their masks have no pixels"),
            (self.other_classes, "annotations left out: of other classes (--only)"),
            (self.points_alone, "without masks: points in and outside of the object"),
            (self.boxes_alone, "without masks: boxes alone"),
            (self.prompted_masks, "masks given by a model to boxes"),
            (self.refused_masks, "masks of a model not believed: these objects have no mask"),
            (self.malformed, "malformed annotations left out (--skip-bad-annotations)"),
        ]
        return [f"{count:,} {what}" for count, what in kinds if count]
