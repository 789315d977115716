"""The masks that a model gives to annotated boxes: asked for image by image, kept as they come."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from frozen_cache.cache.attributes import DataAttributes, PromptedBy
from frozen_cache.data.annotation import boxes_xyxy
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.fingerprint import annotation_sum
from frozen_cache.data.supervision import Kind, points_room
from frozen_cache.errors import UserError
from frozen_cache.ownership import Ownership
from frozen_cache.progress import progress_bar
from frozen_cache.prompted.answers import REFUSALS, Answer, answered, judged
from frozen_cache.prompted.kept_answers import Answers, KeptAnswers
from frozen_cache.prompted.model import Prompter
from frozen_cache.remote import CachePath, RemotePath
from frozen_cache.report.photographs import Photographs


class MaskMaker(Protocol):
    """Gives masks to annotated boxes."""

    by: PromptedBy
    """What made them."""
    question: list[Any]
    """Plain values: all that its masks depend on, besides images and annotations."""

    def check(self, images: Sequence[CocoImage]) -> None:
        """UserError where something is missing for the images, which have objects that are asked for."""
        ...

    def __call__(self, image: CocoImage, asked: list[int]) -> Iterator[tuple[Tensor, float] | None]:
        """For each of these annotations of an image, (H, W) float32 at its size, positive in the mask, and the IoU
        that the mask is thought to have; None where it has no answer."""
        ...


class PrompterMasks:
    """A prompted model as the maker of masks.

    Args:
        prompter: the model.
        pictures: that it sees.
    """

    def __init__(self, prompter: Prompter, pictures: Photographs) -> None:
        self._prompter, self._pictures = prompter, pictures
        self.by = PromptedBy(model=prompter.name, sha256=prompter.sha256)
        self.question: list[Any] = [prompter.sha256]

    def check(self, images: Sequence[CocoImage]) -> None:
        """UserError where a picture is missing."""
        pictures = self._pictures
        lost = [image.id for image in images if not pictures.at_hand(image.id)]
        if lost and pictures.folder is None:
            raise UserError(
                "--masks-from reads the images, which the cache does not hold (--c1 recomputed keeps them), and whose "
                "folder is not known: give --images FOLDER"
            )
        if lost and not pictures.names:
            raise UserError(
                f"--masks-from reads the images in {pictures.folder}, and it is not known how they are named: "
                "give --annotations FILE"
            )
        if lost:
            name = pictures.names.get(lost[0], "of unknown name")
            raise UserError(
                f"--masks-from reads the images: {len(lost)} of {len(images)} are not in {pictures.folder}, the "
                f"first is image {lost[0]} ({name}): give --images FOLDER"
            )

    def __call__(self, image: CocoImage, asked: list[int]) -> Iterator[tuple[Tensor, float] | None]:
        """See `MaskMaker`."""
        picture = self._pictures.find(image.id, (image.height, image.width))
        if picture is None:
            name = self._pictures.names.get(image.id, "")
            raise UserError(f"image {image.id} ({name}) of {self._pictures.folder} cannot be read, or has another size")
        corners = boxes_xyxy([image.annotations[place] for place in asked])
        boxes = corners.clip(0, [image.width, image.height] * 2).astype(np.float32)
        for logits, iou in self._prompter(picture, boxes):
            yield from zip(logits, iou.tolist(), strict=True)


@dataclass(frozen=True)
class MaskPrompts:
    """What is asked of a model: a mask for the box of each object that has none."""

    maker: MaskMaker
    least_iou: float
    """Refuse masks whose predicted IoU is lower."""
    replace_masks: bool
    """Ask for objects that have masks, too."""

    @property
    def question(self) -> str:
        """sha256 of all that the answers depend on, besides images and annotations."""
        told = [*self.maker.question, self.least_iou, self.replace_masks]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def asked(self, image: CocoImage) -> list[int]:
        """Places of the annotations of an image whose boxes are asked for. Crowds stay as they are: a model would give
        one thing among many."""
        return [
            place
            for place, annotation in enumerate(image.annotations)
            if not annotation.crowd and (self.replace_masks or annotation.kind != Kind.MASK)
        ]

    def check(self, images: Sequence[CocoImage]) -> None:
        """UserError where nothing is to be asked, or something is missing."""
        asked = [image for image in images if self.asked(image)]
        if not asked:
            raise UserError("--masks-from: all objects have masks; --replace-masks gives them others")
        self.maker.check(asked)

    def answers(self, image: CocoImage, asked: list[int]) -> Answers:
        """What the model says of these annotations of an image."""
        return {
            place: Answer(refusal="unmatched")
            if made is None
            else judged(made[0], made[1], image.annotations[place].bbox, least_iou=self.least_iou)
            for place, made in zip(asked, self.maker(image, asked), strict=True)
        }


@dataclass(frozen=True)
class PromptedMasks:
    """Images with what came of the boxes of their objects."""

    images: list[CocoImage]
    given: int
    refused: Counter[str]
    """Reason (`REFUSALS`) -> masks."""

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.given:,} masks given by the model, {self.refused.total():,} of its masks not believed",
            *(f"  {count:,}: {REFUSALS[reason]}" for reason, count in sorted(self.refused.items())),
        ]


def prompted_masks(images: Sequence[CocoImage], prompts: MaskPrompts, *, beside: CachePath) -> PromptedMasks:
    """Ask a model for the boxes of all images. Killed and called again it goes on, from what `kept_beside` keeps."""
    folder = kept_beside(beside)
    made, given, refused = [], 0, Counter[str]()
    holding = nullcontext() if isinstance(folder, RemotePath) else Ownership(folder, option="the folder of masks")
    with holding, progress_bar(total=len(images), desc="masks", unit="img") as bar:
        kept = KeptAnswers(folder, prompts.question)
        try:
            for image in images:
                answers = _answers(image, prompts, kept)
                given += sum(not answer.refusal for answer in answers.values())
                refused.update(answer.refusal for answer in answers.values() if answer.refusal)
                now = [
                    answered(annotation, answers[place]) if place in answers else annotation
                    for place, annotation in enumerate(image.annotations)
                ]
                made.append(replace(image, annotations=now))
                bar.update()
        finally:
            kept.flush()
    return PromptedMasks(made, given, refused)


def kept_beside(cache: CachePath) -> CachePath:
    """Where answers are kept until the cache that is made of them is whole."""
    return cache.parent / f"{cache.name}.masks"


def prompted_data(data: DataAttributes, found: PromptedMasks, prompts: MaskPrompts) -> DataAttributes:
    """`data` of annotations that have got these masks."""
    annotations = [annotation for image in found.images for annotation in image.annotations]
    kinds = Counter(annotation.kind for annotation in annotations)
    before = () if prompts.replace_masks else data.masks_from
    return data.model_copy(
        update={
            "points": points_room((annotation.kind, annotation.points) for annotation in annotations),
            "masks_from": tuple(dict.fromkeys([*before, prompts.maker.by])),
            "counts": data.counts.model_copy(
                update={
                    "points_alone": kinds[Kind.POINTS],
                    "boxes_alone": kinds[Kind.BOX],
                    "prompted_masks": found.given + (data.counts.prompted_masks if before else 0),
                    "refused_masks": found.refused.total(),
                }
            ),
        }
    )


def _answers(image: CocoImage, prompts: MaskPrompts, kept: KeptAnswers) -> dict[int, Answer]:
    asked = prompts.asked(image)
    if not asked:
        return {}
    told = annotation_sum(image)
    answers = kept.get(image.id, told)
    if answers is None or list(answers) != asked:
        answers = prompts.answers(image, asked)
        kept.put(image.id, told, answers)
    return answers
