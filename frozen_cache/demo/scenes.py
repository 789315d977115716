"""Scenes of overlapping shapes in the format of COCO instances: the data set of the demo and of the tests.

A scene is painted from front to back: whatever an object in front has taken is lost to those behind, so masks are
exactly the visible pixels and never overlap. COCO's own polygon rasteriser draws every mask, therefore an object that
nothing hides can be annotated by its polygon without losing a pixel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from frozen_cache.demo.shapes import CATEGORY_IDS, SHAPES, Outline, placed
from frozen_cache.demo.textures import background, fill

NAMES = tuple(SHAPES)
HUES = {name: at / len(NAMES) for at, name in enumerate(NAMES)}  # as lemons are yellow: a detector learns it in minutes
SIDES = (160, 256)  # pixels, shortest and longest side of an image
OBJECTS = (3, 6)  # tries per scene; those that are almost hidden are dropped
RADII = (20.0, 100.0)  # pixels; masks fall on both sides of COCO's 32^2 and 96^2
VISIBLE = 0.8  # share of an object that must remain visible
TURN = 30.0  # degrees, either way
CROWDED = 0.12  # share of the scenes with a crowd
EDGE = 4  # factor of the supersampling that gives painted edges their soft look


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One annotation. `mask` is bool `(H, W)`, the visible pixels; `box_xywh` is its tight box in pixels."""

    name: str
    mask: NDArray[np.bool_]
    box_xywh: tuple[int, int, int, int]
    crowd: bool = False
    polygon: Outline | None = None  # (V, 2) pixels; only where it rasterises to exactly `mask`

    @property
    def category_id(self) -> int:
        return CATEGORY_IDS[self.name]


def rasterised(outline: Outline, *, height: int, width: int) -> NDArray[np.bool_]:
    """Mask `(height, width)` of an outline in pixels, by the rule that COCO's tools use for polygons."""
    runs = coco_mask.frPyObjects([outline.ravel().tolist()], height, width)
    return coco_mask.decode(runs)[..., 0].astype(bool)


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, width, height in pixels of the smallest box around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _coverage(outline: Outline, *, height: int, width: int) -> NDArray[np.float32]:
    """Share `(height, width)` of each pixel that lies inside the outline."""
    canvas = Image.new("L", (width * EDGE, height * EDGE))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in (outline * EDGE).tolist()], fill=255)
    return np.asarray(canvas.reduce(EDGE), dtype=np.float32) / np.float32(255)


class _Canvas:
    """A picture that is painted from front to back."""

    def __init__(self, *, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.taken = np.zeros((height, width), dtype=bool)
        self.layers: list[tuple[slice, slice, NDArray[np.float32], NDArray[np.float32]]] = []

    def add(self, outline: Outline, rng: np.random.Generator, *, name: str, visible: float) -> NDArray[np.bool_] | None:
        """Paint an outline behind all that is there. Returns its visible pixels, or None if too few remain."""
        whole = rasterised(outline, height=self.height, width=self.width)
        seen = whole & ~self.taken
        if seen.sum() < max(visible * whole.sum(), 12):
            return None
        self.taken |= whole
        # Only the window around the object is textured and supersampled; a scene would cost 10 times more otherwise.
        low = np.clip(np.floor(outline.min(0)).astype(int) - 1, 0, None)
        high = np.minimum(np.ceil(outline.max(0)).astype(int) + 1, (self.width, self.height))
        wide, tall = (int(size) for size in high - low)
        cover = _coverage(outline - low, height=tall, width=wide)
        window = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        self.layers.append((*window, fill(rng, height=tall, width=wide, hue=HUES[name]), cover[..., None]))
        return seen

    def picture(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """RGB image `(H, W, 3)`: the background, then the layers from the last to the first, then grain."""
        image = background(rng, height=self.height, width=self.width)
        for rows, columns, texture, cover in reversed(self.layers):
            under = image[rows, columns]
            under += (texture - under) * cover
        grain = rng.standard_normal((self.height, self.width, 1), dtype=np.float32) * rng.uniform(0, 8)
        return np.clip(image + grain, 0, 255).astype(np.uint8)


def _crowd(canvas: _Canvas, rng: np.random.Generator) -> SceneObject | None:
    """A cluster of tiny shapes of one class, annotated as one region."""
    name, middle = str(rng.choice(NAMES)), rng.uniform(0.2, 0.8, 2) * (canvas.width, canvas.height)
    region = np.zeros_like(canvas.taken)
    for _ in range(int(rng.integers(10, 22))):
        centre = middle + rng.normal(0, 13, 2)
        tiny = placed(name=name, centre=tuple(centre), radius=rng.uniform(4, 6.5), degrees=rng.uniform(0, 360))
        if (tiny < 0).any() or (tiny > (canvas.width, canvas.height)).any():
            continue
        if (seen := canvas.add(tiny, rng, name=name, visible=0.7)) is not None:
            region |= seen
    if not region.any():
        return None
    return SceneObject(name=name, mask=region, box_xywh=tight_box(region), crowd=True)


def draw_scene(rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[SceneObject]]:
    """One scene: RGB image `(H, W, 3)` and its objects, front to back (a crowd, if there is one, comes first)."""
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
    canvas = _Canvas(height=height, width=width)
    objects = []
    if rng.random() < CROWDED and (crowd := _crowd(canvas, rng)) is not None:
        objects.append(crowd)
    shortest, longest = (float(size) for size in np.log(RADII))
    radii = np.exp(rng.uniform(shortest, longest, int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))))
    # Small ones mostly in front; the noise lets some large ones cover them.
    for radius in radii[np.argsort(radii * rng.uniform(0.4, 1.6, len(radii)))]:
        radius = min(float(radius), 0.48 * min(height, width))
        name = str(rng.choice(NAMES))
        # A fifth of the radius may leave the image.
        margin = 0.8 * radius
        centre = (rng.uniform(margin, width - margin), rng.uniform(margin, height - margin))
        outline = placed(name=name, centre=centre, radius=radius, degrees=rng.uniform(-TURN, TURN))
        hidden = canvas.taken.copy()
        seen = canvas.add(outline, rng, name=name, visible=VISIBLE)
        if seen is None:
            continue
        inside = bool((outline >= 0).all() and (outline <= (width, height)).all())
        whole = inside and not (hidden & rasterised(outline, height=height, width=width)).any()
        objects.append(SceneObject(name=name, mask=seen, box_xywh=tight_box(seen), polygon=outline if whole else None))
    return canvas.picture(rng), objects


def uncompressed_runs(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """COCO's uncompressed RLE of a mask `(H, W)`: run lengths in column order, starting with zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:-1] != flat[:-2])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": [int(side) for side in mask.shape], "counts": [int(count) for count in counts]}


def _segmentation(item: SceneObject, rng: np.random.Generator) -> Any:
    """Polygons, compressed or uncompressed RLE: a reader of COCO has to take all three."""
    if item.polygon is not None and rng.random() < 0.5:
        return [item.polygon.ravel().tolist()]
    if item.crowd or rng.random() < 0.5:
        return uncompressed_runs(item.mask)
    runs = coco_mask.encode(np.asfortranarray(item.mask.astype(np.uint8)))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


def write_scenes(folder: Path, *, images: int, seed: int) -> Path:
    """Write `images` scenes as `folder/images/*.jpg` and `folder/annotations.json`; returns the path of the latter.

    The same `seed` gives the same bytes. Scene `k` depends on `seed` and `k` alone, so a longer set begins with the
    shorter one.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(images):
        rng = np.random.default_rng([seed, index])
        picture, objects = draw_scene(rng)
        image_id, file_name = 1000 + 7 * index, f"{index:06d}.jpg"  # ids with holes, as in COCO
        Image.fromarray(picture).save(folder / "images" / file_name, quality=94, subsampling=0)
        pictures.append(
            {
                "id": image_id,
                "file_name": file_name,
                "height": picture.shape[0],
                "width": picture.shape[1],
                "license": 1,
            }
        )
        for item in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": item.category_id,
                    "bbox": list(item.box_xywh),
                    "area": int(item.mask.sum()),
                    "segmentation": _segmentation(item, rng),
                    "iscrowd": int(item.crowd),
                }
            )
    content = {
        "info": {"description": "frozen-cache demo scenes", "version": "1", "seed": seed},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": "shape"} for name, number in CATEGORY_IDS.items()],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path
