"""Options of commands that can train with the detector in the loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frozen_cache.cli.extract import words
from frozen_cache.cli.numbers import whole_numbers
from frozen_cache.cli.paths import need_inputs
from frozen_cache.errors import UserError

if TYPE_CHECKING:
    from frozen_cache.stages.live import LiveData

Live = Annotated[bool, typer.Option("--live", help="No cache: the detector runs on each image in every epoch. Slow.")]
Detector = Annotated[str | None, typer.Option(help="With --live: a name, hf:DIR_OR_HUB_ID, FILE.py:FACTORY.")]
Weights = Annotated[Path | None, typer.Option(help="With --live: checkpoint of a named detector.")]
Images = Annotated[Path | None, typer.Option(help="With --live: folder of the images.")]
Annotations = Annotated[Path | None, typer.Option(help="With --live: COCO instances file.")]
ValImages = Annotated[Path | None, typer.Option(help="With --live: images to evaluate on, in place of --val-cache.")]
ValAnnotations = Annotated[Path | None, typer.Option(help="With --live: their COCO instances file.")]
Views = Annotated[int, typer.Option(help="With --live: views per image, as of extract-features.")]
BackboneStrides = Annotated[
    str | None, typer.Option(help="With --live: backbone maps to add as encoder levels, by stride.")
]
Only = Annotated[str | None, typer.Option(help="With --live: only these categories, by name or id.")]
Labels = Annotated[str | None, typer.Option(help="With --live: names of the detector's labels.")]
Map = Annotated[
    list[str] | None, typer.Option("--map", help="With --live: CATEGORY=LABEL; or a TOML file with such lines.")
]


@dataclass(frozen=True)
class LiveOptions:
    """The options above, as a command was given them."""

    detector: str | None
    weights: Path | None
    images: Path | None
    annotations: Path | None
    val_images: Path | None
    val_annotations: Path | None
    views: int
    backbone_strides: str | None
    only: str | None
    labels: str | None
    map_: list[str] | None

    def refuse(self, **others: object) -> None:
        """UserError for the first option that is given and has no effect without --live.

        Args:
            others: parameter name -> value of what the command alone has of this kind; empty or None where the option
                is left out.
        """
        own = vars(self) | {"views": self.views if self.views != 1 else None}
        for name, value in (own | others).items():
            if value:
                option = f"--{name.rstrip('_').replace('_', '-')}"
                raise UserError(f"{option} goes with --live: what a cache holds was settled when it was made")

    def data(self) -> LiveData:
        """What a live training reads; a UserError where something is missing or surely wrong."""
        if self.detector is None or self.images is None or self.annotations is None:
            raise UserError("--live needs --detector, --images and --annotations")
        need_inputs(self.detector, self.images, self.annotations, self.weights)
        if (self.val_images is None) != (self.val_annotations is None):
            raise UserError("--val-images and --val-annotations go together")
        if self.val_images is not None and self.val_annotations is not None:
            need_inputs(self.detector, self.val_images, self.val_annotations)
        from frozen_cache.stages.live import LiveData

        return LiveData(
            detector=self.detector,
            weights=self.weights,
            images=self.images,
            annotations=self.annotations,
            val_images=self.val_images,
            val_annotations=self.val_annotations,
            views=self.views,
            backbone_strides=whole_numbers("--backbone-strides", self.backbone_strides) or (),
            only=words("--only", self.only),
            labels=words("--labels", self.labels),
            label_map=tuple(self.map_ or ()),
        )
