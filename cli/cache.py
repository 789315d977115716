"""`frozen-cache cache info`, `verify`, `repair`, `copy`, `relabel`, `subset`, `merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_cache, need_data, need_detector
from frozen_cache.remote import cache_path

app = typer.Typer(no_args_is_help=True)

CachePath = Annotated[
    Path,
    typer.Argument(
        parser=cache_path, help="The cache, NAME.zarr, or its URL: s3://BUCKET/NAME.zarr.", show_default=False
    ),
]


@app.command("info")
def info(
    cache: CachePath,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: progress, bytes of each array, bits a value.")
    ] = False,
) -> None:
    """Say what a cache holds: data, detector, segments, bytes per view."""
    need_cache(cache)
    from frozen_cache.stages.cache_tools import cache_info

    found = cache_info(cache)
    tell(json.dumps(found.as_json(), indent=2) if as_json else found.text())


@app.command("verify")
def verify(cache: CachePath) -> None:
    """Read every chunk; exit with 2 naming what is damaged."""
    need_cache(cache)
    from frozen_cache.byte_counts import byte_text
    from frozen_cache.cache.mending import finish, mend, mend_stem
    from frozen_cache.errors import UserError
    from frozen_cache.stages.cache_tools import cache_verify

    found = cache_verify(cache)
    for damage in found.damages:
        tell(str(damage))
    if found.damages:
        damaged = sorted({damage.segment for damage in found.damages})
        raise UserError(
            f"{len(damaged)} of {len(damaged) + len(found.intact)} segments of {cache} are damaged, the first is "
            f"{found.damages[0]}; {mend(cache, damaged)}"
        )
    if found.stem:
        raise UserError(f"{cache} is damaged: {found.stem}; {mend_stem(cache)}")
    for path in found.strange[:10]:
        tell(f"note: {path} is no file of the cache; it is never read")
    tell(f"{len(found.intact)} segments, {byte_text(found.bytes_read)}: all intact")
    if found.open:
        tell(f"{len(found.open)} segments are not made yet: {finish(cache)}")
    tell(f"cache: {cache}")


@app.command("repair")
def repair(
    cache: CachePath,
    detector: Annotated[
        str | None, typer.Option(help="The detector that the cache was made with, where it has moved.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images, where it has moved.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO instances file, where it has moved.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of a named detector.")] = None,
    backbone_strides: Annotated[
        str | None, typer.Option(help="Backbone maps that were added as encoder levels: 8 or 8,16.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read images.")] = None,
) -> None:
    """Extract just the damaged and missing segments, from where the cache was made unless told otherwise."""
    need_cache(cache)
    need_detector(detector, weights)
    need_data(images, annotations)
    from frozen_cache.cli.extract import whole_numbers
    from frozen_cache.stages.cache_tools import cache_repair

    repaired = cache_repair(
        cache,
        detector=detector,
        weights=weights,
        images=images,
        annotations=annotations,
        backbone_strides=whole_numbers("--backbone-strides", backbone_strides),
        device=device,
        workers=workers,
    )
    tell(repaired.text())
    tell(f"cache: {cache}")


@app.command("copy")
def copy(
    source: Annotated[Path, typer.Argument(parser=cache_path, help="The cache, NAME.zarr.", show_default=False)],
    target: Annotated[
        Path,
        typer.Argument(
            parser=cache_path, help="The new place; a cache that is there is continued.", show_default=False
        ),
    ],
) -> None:
    """Copy a cache segment by segment, compared with its checksums. The same command again continues."""
    need_cache(source)
    from frozen_cache.stages.cache_copy import cache_copy

    tell(cache_copy(source, target).text())
    tell(f"cache: {target}")


@app.command("relabel")
def relabel(
    cache: CachePath,
    out: Annotated[Path, typer.Option(parser=cache_path, help="The new cache; one that is there is continued.")],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO instances file with the new ground truth. [default: the cache's]")
    ] = None,
    masks_from: Annotated[
        str | None,
        typer.Option(
            help="hf:DIR_OR_HUB_ID of a Segment Anything model, or a run: masks for objects that have boxes alone."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images for --masks-from. [default: where the cache was made]")
    ] = None,
    replace_masks: Annotated[
        bool, typer.Option("--replace-masks", help="With --masks-from: for objects that have masks, too.")
    ] = False,
    least_iou: Annotated[
        float | None,
        typer.Option(help="With --masks-from: refuse masks whose predicted IoU is lower. [default: 0.5]"),
    ] = None,
    device: Annotated[str, typer.Option(help="Of --masks-from: auto, cpu, cuda.")] = "auto",
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="CATEGORY=LABEL, or a TOML file with a line for each.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Names of the detector's labels. [default: the cache's]")] = None,
    only: Annotated[str | None, typer.Option(help="Only these categories, by name or id: cat,dog.")] = None,
    crowds: Annotated[str, typer.Option(help="as-marked, or as-objects: do not believe iscrowd.")] = "as-marked",
    skip_bad_annotations: Annotated[
        bool, typer.Option("--skip-bad-annotations", help="Go on without malformed annotations.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on without any object.")] = False,
) -> None:
    """Put other annotations on the features of a cache, matched anew, or masks of a model that boxes prompt."""
    need_cache(cache)
    from frozen_cache.cli.extract import choice, words
    from frozen_cache.stages.cache_relabel import cache_relabel

    made = cache_relabel(
        cache,
        annotations=annotations,
        out=out,
        crowds=choice("--crowds", crowds, ("as-marked", "as-objects")),
        skip_bad_annotations=skip_bad_annotations,
        only=words("--only", only),
        labels=words("--labels", labels),
        label_map=tuple(map_ or ()),
        force=force,
        masks_from=masks_from,
        images=images,
        replace_masks=replace_masks,
        least_iou=least_iou,
        device=device,
    )
    tell(made.text())
    tell(f"cache: {out}")


@app.command("subset")
def subset(
    cache: CachePath,
    out: Annotated[Path, typer.Option(parser=cache_path, help="The new cache; one that is there is continued.")],
    image_ids: Annotated[Path | None, typer.Option(help="File with an image id a line.")] = None,
    categories: Annotated[
        str | None, typer.Option(help="Images with an object of one of these, by name or id: cat,dog.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first images by id.")] = None,
) -> None:
    """Make a cache of some of the images of a cache, their numbers as they are stored."""
    need_cache(cache)
    from frozen_cache.cli.extract import words
    from frozen_cache.stages.cache_subset import cache_subset

    made = cache_subset(cache, out=out, image_ids=image_ids, categories=words("--categories", categories), limit=limit)
    tell(made.text())
    tell(f"cache: {out}")


@app.command("merge")
def merge(
    caches: Annotated[
        list[Path], typer.Argument(parser=cache_path, help="The caches, of one detector.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(parser=cache_path, help="The new cache; one that is there is continued.")],
    prefer: Annotated[
        str | None, typer.Option(help="first: an image that several caches have is taken from the first.")
    ] = None,
) -> None:
    """Make a cache of the images of several, their numbers as they are stored."""
    for cache in caches:
        need_cache(cache)
    from frozen_cache.cli.extract import choice
    from frozen_cache.errors import UserError
    from frozen_cache.stages.cache_merge import cache_merge

    if len(caches) < 2:
        raise UserError("give two caches or more to merge")
    made = cache_merge(caches, out=out, prefer=prefer and choice("--prefer", prefer, ("first",)))
    tell(made.text())
    tell(f"cache: {out}")
