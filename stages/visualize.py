"""Pictures of what a head does: probability maps of instances, predictions beside the ground truth, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.mistakes import THRESHOLD
from frozen_cache.evaluation.segmenters import Segmenter, read_for
from frozen_cache.evaluation.summary import summary
from frozen_cache.export.place import ASIDE, hold_out, put_into_place
from frozen_cache.masks.paste import paste_masks
from frozen_cache.remote import CachePath
from frozen_cache.report.chips import draw_chips
from frozen_cache.report.colours import class_colours
from frozen_cache.report.evaluation_page import evaluation_page
from frozen_cache.report.gallery import MISTAKES, Gallery, as_picture
from frozen_cache.report.page import Block, Section, write_page
from frozen_cache.report.page import Gallery as Pictures
from frozen_cache.report.photographs import Photographs, photographs
from frozen_cache.stages.baselines import check_choice
from frozen_cache.stages.segmenter import all_heads, cache_for, make_segmenter

PAGE = "index.html"
FOLDERS = ("best", "worst", "mistakes", "probabilities")
INSTANCES = 8
"""Probability maps an image."""
SHOWN = 4
"""Images whose maps the page shows; the folder has all."""


@dataclass(frozen=True)
class VisualizeResult:
    """What was written."""

    out: Path
    pictures: int
    note: str
    """What to tell about pictures that are not at hand; else empty."""


def visualize(
    *,
    cache: CachePath,
    out: Path,
    head: Path | None = None,
    baseline: str | None = None,
    prompter: str | None = None,
    images: Path | None = None,
    limit: int = 8,
    device: str = "auto",
) -> VisualizeResult:
    """Write pictures into folders of `out`, and all of them in one page, `index.html`.

    Args:
        prompter: with the baseline `prompted`: the model.
        images: folder of the pictures; None for where the cache was made. Without any, masks lie on a plain ground.
        limit: pictures of each sort.
    """
    heads = all_heads(head)
    check_choice(heads, baseline, prompter)
    if limit < 1:
        raise UserError(f"--limit {limit}: give 1 or more")
    reader = cache_for(heads, cache)
    pictures = photographs(cache, images, reader=reader)
    segmenter, of = make_segmenter(
        reader,
        cache=cache,
        heads=heads,
        baseline=baseline,
        device=device,
        prompter=prompter,
        pictures=pictures,
    )
    names = (*FOLDERS, PAGE)
    with hold_out(out, names, overwrite=None) as owner:
        written = _write_pictures(out / ASIDE, reader, segmenter, of=of, pictures=pictures, limit=limit)
        owner.check()
        put_into_place(out, names)
    return VisualizeResult(out=out, pictures=written, note=pictures.note)


def _write_pictures(
    out: Path,
    reader: CacheReader,
    segmenter: Segmenter,
    *,
    of: dict[str, Any],
    pictures: Photographs,
    limit: int,
) -> int:
    """Write the folders of pictures and the page; the number of pictures."""
    for name in FOLDERS:
        (out / name).mkdir(parents=True)
    evaluation = evaluate_cache(reader, segmenter, object_ious=True)
    gallery = Gallery(evaluation, pictures)
    written = 0
    ranked = gallery.ranked()
    for folder, chosen in (("best", ranked[::-1][:limit]), ("worst", ranked[:limit])):
        for place, verdict in enumerate(chosen, start=1):
            name = f"{place:02d}-iou{verdict.mean_iou:.2f}-image{verdict.image_id}.jpg"
            gallery.beside_truth(verdict.image_id).save(out / folder / name, quality=90)
            written += 1
    for kind in MISTAKES:
        for place, (verdict, thing) in enumerate(gallery.mistakes_of(kind)[:limit], start=1):
            name = f"{kind.replace(' ', '-')}-{place:02d}-image{verdict.image_id}.jpg"
            gallery.mistake(verdict, thing, kind).save(out / "mistakes" / name, quality=90)
            written += 1
    wanted = [verdict.image_id for verdict in ranked[::-1][:limit]]
    plain = {image: at for at, (image, view) in enumerate(reader.views) if view == 0}
    blocks: list[Block] = []
    for image_id in wanted:
        tiles = probability_tiles(reader, plain[image_id], segmenter, gallery)
        sheet(list(tiles.values())).save(out / "probabilities" / f"image{image_id}.jpg", quality=90)
        written += 1
        if len(blocks) < SHOWN:
            shown = [as_picture(tile, alt=f"{label} in image {image_id}") for label, tile in tiles.items()]
            blocks.append(Pictures(shown, caption=f"Image {image_id}:"))
    page = evaluation_page(summary(evaluation, reader, of=of), gallery, reader.attributes)
    maps = Section("probabilities", "Probabilities", blocks, "How sure the head is of every pixel.")
    at = next(at for at, section in enumerate(page.sections) if section.name == "pictures") + 1
    write_page(out / PAGE, replace(page, sections=[*page.sections[:at], maps, *page.sections[at:]]))
    return written


def probability_tiles(reader: CacheReader, at: int, segmenter: Segmenter, gallery: Gallery) -> dict[str, Image.Image]:
    """The picture, and one map for each of its best instances: how sure the head is of every pixel, as in the paper's
    Figures 4 and 8. All by what they show."""
    view = read_for(segmenter, reader, at)
    found = segmenter(view)
    best = [int(row) for row in found.scores.argsort(descending=True) if found.scores[row] >= THRESHOLD][:INSTANCES]
    picture = gallery.picture(view.image_id)
    size = (picture.height, picture.width)
    boxes = to_pixels(found.boxes[best], size).numpy()
    maps = paste_masks(found.masks[best].numpy(), boxes, size, threshold=None)
    names = [category["name"] for category in reader.attributes.categories]
    colours = class_colours(names)
    tiles = {"picture": picture}
    for number, (row, probability) in enumerate(zip(best, maps, strict=True), start=1):
        name, score = names[int(view.labels[row])], f"{float(found.scores[row]):.2f}"
        box = tuple(to_pixels(view.boxes[row : row + 1], size)[0].tolist())
        tile = draw_chips(heat(picture, probability), [(box, f"{name} {score}", colours[name])])
        tiles[f"{number}: {name} {score}"] = tile
    return tiles


def sheet(tiles: Sequence[Image.Image], *, columns: int = 3, gap: int = 6) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    columns = min(columns, len(tiles))
    width, height = (side + gap for side in tiles[0].size)
    whole = Image.new("RGB", (columns * width - gap, -(-len(tiles) // columns) * height - gap), (24, 24, 27))
    for place, tile in enumerate(tiles):
        whole.paste(tile, (place % columns * width, place // columns * height))
    return whole


def heat(picture: Image.Image, probability: np.ndarray) -> Image.Image:
    """The picture, grey and dim, under a map of (H, W) probabilities: none shows the picture, 1 is brightest."""
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None] * 0.45
    colour = colormaps["magma"](0.25 + 0.75 * probability)[..., :3].astype(np.float32) * 255
    weight = np.clip(probability, 0, 1)[..., None] ** 0.5 * 0.9
    return Image.fromarray((grey * (1 - weight) + colour * weight).clip(0, 255).astype(np.uint8))
