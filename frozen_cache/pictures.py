"""Galleries as PNG: image, boxes, predicted masks, ground truth, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask

Colours = dict[int, tuple[float, ...]]
"""Category id -> RGB in 0..1."""

TITLES = ("image", "frozen detector: boxes", "frozen-cache: masks", "ground truth")


@dataclass(frozen=True)
class GalleryRow:
    """One image with what was found in it and what is there."""

    pixels: np.ndarray
    """(H, W, 3) uint8."""
    found: list[dict[str, Any]]
    """COCO results with `bbox` (xywh in pixels), `segmentation` RLE, `score`, `category_id`; those to be drawn."""
    truth: list[dict[str, Any]]
    """COCO annotations with the same keys, without scores."""


def save_gallery(path: Path, rows: list[GalleryRow], *, names: dict[int, str]) -> None:
    """Write one PNG with four columns and a row for each image. `names` maps category ids to names."""
    colours: Colours = {category: colormaps["tab20"](at % 20)[:3] for at, category in enumerate(sorted(names))}
    figure = Figure(figsize=(11, 2.75 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(TITLES), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(row.pixels)
        line[1].imshow(row.pixels)
        _draw_boxes(line[1], row.found, colours, names)
        line[2].imshow(overlaid(row.pixels, row.found, colours))
        line[3].imshow(overlaid(row.pixels, row.truth, colours))
    for axes, title in zip(grid[0], TITLES, strict=True):
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=100)


def overlaid(
    pixels: np.ndarray, objects: list[dict[str, Any]], colours: Colours, *, strength: float = 0.55
) -> np.ndarray:
    """(H, W, 3) uint8: pixels with each object's mask in its category's colour, outlined in white."""
    picture = pixels.astype(np.float32)
    for thing in objects:
        mask = coco_mask.decode(thing["segmentation"]).astype(bool)
        colour = np.array(colours[thing["category_id"]], dtype=np.float32) * 255
        picture[mask] = (1 - strength) * picture[mask] + strength * colour
        picture[_outline(mask)] = 255
    return picture.clip(0, 255).astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _draw_boxes(axes: Axes, objects: list[dict[str, Any]], colours: Colours, names: dict[int, str]) -> None:
    for thing in objects:
        x, y, width, height = thing["bbox"]
        colour = colours[thing["category_id"]]
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.5))
        label = f"{names[thing['category_id']]} {thing['score']:.2f}"
        axes.text(x, y, label, fontsize=5, color="white", va="bottom", bbox={"facecolor": colour, "pad": 0.6, "lw": 0})
