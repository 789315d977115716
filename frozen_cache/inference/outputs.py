"""What is written of one segmented picture, each kind in a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from frozen_cache.inference.contours import outline
from frozen_cache.inference.instances import Instances
from frozen_cache.report.colours import class_colours
from frozen_cache.report.overlay import draw_instances

KINDS: dict[str, str] = {
    "overlays": "the picture with masks and names on it, JPEG",
    "masks": "a PNG for each instance, 0 and 255",
    "label-map": "one PNG of 16 bits: 0, or the number of the instance (from 1, in the order of the results)",
    "cutouts": "a PNG for each instance: its pixels, the rest transparent",
    "yolo": "a text file of polygons as YOLO trains from, and classes.txt",
}
"""What can be saved -> what it is, for people."""


@dataclass(frozen=True)
class Picture:
    """A segmented picture."""

    name: str
    """What its files are called."""
    image: Image.Image
    instances: Instances


class OutputFolder:
    """Writes the chosen kinds of output below a folder."""

    def __init__(self, path: Path, *, kinds: list[str], names: Mapping[int, str]) -> None:
        """Make the folders of `kinds`. `names` maps category ids to names, in the data set's order."""
        self.path = path
        self._kinds = kinds
        self._place = {category: place for place, category in enumerate(names)}
        self._colours = class_colours(list(names.values()))
        for kind in kinds:
            (path / kind).mkdir(parents=True, exist_ok=True)
        if "yolo" in kinds:
            (path / "yolo" / "classes.txt").write_text(
                "".join(f"{name}\n" for name in names.values()), encoding="utf-8"
            )

    def write(self, picture: Picture) -> None:
        """Write one picture's files; several threads may."""
        for kind in self._kinds:
            _WRITERS[kind](self, picture, self.path / kind)

    def _overlay(self, picture: Picture, folder: Path) -> None:
        found = picture.instances
        drawn = draw_instances(
            picture.image, masks=found.masks, names=found.names, scores=found.scores.tolist(), colours=self._colours
        )
        drawn.save(folder / f"{picture.name}.jpg", quality=92)

    def _masks(self, picture: Picture, folder: Path) -> None:
        for number, mask in enumerate(picture.instances.masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / _instance_name(picture, number))

    def _label_map(self, picture: Picture, folder: Path) -> None:
        found = picture.instances
        labels = np.zeros(found.size, dtype=np.uint16)
        for number in np.argsort(found.scores, kind="stable"):  # the surest last: it lies on top
            labels[found.masks[number]] = number + 1
        Image.fromarray(labels).save(folder / f"{picture.name}.png")

    def _cutouts(self, picture: Picture, folder: Path) -> None:
        pixels = np.asarray(picture.image)
        for number, mask in enumerate(picture.instances.masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows):
                part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                cut = np.dstack([pixels[part], mask[part].astype(np.uint8) * 255])
                Image.fromarray(cut).save(folder / _instance_name(picture, number))

    def _yolo(self, picture: Picture, folder: Path) -> None:
        found = picture.instances
        height, width = found.size
        lines = []
        for label, mask in zip(found.labels.tolist(), found.masks, strict=True):
            points = outline(mask) / (width, height)
            if len(points):
                numbers = " ".join(f"{value:.6f}" for value in points.ravel())
                lines.append(f"{self._place[label]} {numbers}\n")
        (folder / f"{picture.name}.txt").write_text("".join(lines))


_WRITERS: dict[str, Callable[[OutputFolder, Picture, Path], None]] = {
    "overlays": OutputFolder._overlay,
    "masks": OutputFolder._masks,
    "label-map": OutputFolder._label_map,
    "cutouts": OutputFolder._cutouts,
    "yolo": OutputFolder._yolo,
}


def _instance_name(picture: Picture, number: int) -> str:
    """`street.003.person.png`, counted from 1 in the order of the results."""
    label = re.sub(r"[^\w-]+", "_", picture.instances.names[number])[:40]
    return f"{picture.name}.{number + 1:03d}.{label}.png"
