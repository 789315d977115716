"""`frozen-cache extract-features`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.numbers import whole_numbers
from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_inputs
from frozen_cache.data.numbers import whole_number
from frozen_cache.errors import UserError
from frozen_cache.remote import cache_path


def extract_features(
    detector: Annotated[str, typer.Option(help="A name, hf:DIR_OR_HUB_ID, or FILE.py:FACTORY.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    annotations: Annotated[Path, typer.Option(help="COCO instances file.")],
    out: Annotated[Path, typer.Option(parser=cache_path, help="The cache, NAME.zarr; one that is there is continued.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of a named detector.")] = None,
    views: Annotated[int, typer.Option(help="Views per image: the plain resize, and augmented ones.")] = 1,
    copy_paste: Annotated[
        bool, typer.Option("--copy-paste", help="Paste objects of other images into half of the augmented views.")
    ] = False,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="The views of test-time augmentation, for evaluate --tta: mirrored, and tiles."),
    ] = False,
    top_k: Annotated[int | None, typer.Option(help="(query, label) pairs to keep. [default: the detector's]")] = None,
    encoder_layers: Annotated[
        str | None, typer.Option(help="Encoder layers to keep, from 1: 4 or 1,4,6. [default: the detector's]")
    ] = None,
    backbone_strides: Annotated[
        str | None, typer.Option(help="Backbone maps to add as encoder levels, by stride: 8 or 8,16.")
    ] = None,
    backbone_scale: Annotated[
        int, typer.Option(help="Backbone maps and C1 from the image at 2 or 4 times the input size: finer, and larger.")
    ] = 1,
    batch_size: Annotated[int | None, typer.Option(help="Images per batch, at most. [default: by their size]")] = None,
    precision: Annotated[
        str,
        typer.Option(help="Of C1 and the encoder levels: float16, float32, int8 (half the bytes), coded (an eighth)."),
    ] = "float16",
    step: Annotated[
        float | None,
        typer.Option(
            help="Of coded maps, in standard deviations of a channel; more is smaller and coarser. [default: 1]"
        ),
    ] = None,
    c1: Annotated[
        str,
        typer.Option(help="C1 is stored, recomputed from the image files (then kept in the cache), or none is kept."),
    ] = "stored",
    autocast: Annotated[str | None, typer.Option(help="Compute in bfloat16 or float16. [default: float32]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    limit: Annotated[int | None, typer.Option(help="Only the first images by id.")] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Leave out images without a file.")] = False,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out files that cannot be read.")] = False,
    bit_depth: Annotated[
        int | None,
        typer.Option(help="Images of more than 8 bits hold 0 to 2^N - 1. [default: 16 where the file says so]"),
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Refuse images of more pixels. [default: 179 million]")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read images. [default: cores, at most 8]")
    ] = None,
    segment_images: Annotated[int | None, typer.Option(help="Views per segment. [default: 64]")] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="CATEGORY=LABEL, by names or numbers; or a TOML file with a line for each."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Names of the detector's labels, if it has none: cat,dog,person (label 0 first).")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only these categories, by name or id: cat,dog.")] = None,
    crowds: Annotated[str, typer.Option(help="as-marked, or as-objects: do not believe iscrowd.")] = "as-marked",
    skip_bad_annotations: Annotated[
        bool, typer.Option("--skip-bad-annotations", help="Go on without malformed annotations.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take over images and annotations that were added, removed or edited.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the disk is too small, or no object is matched.")
    ] = False,
    shard: Annotated[str | None, typer.Option(help="i/n: only every n-th segment, for a job array.")] = None,
) -> None:
    """Run a frozen detector over a data set once and cache its outputs. The same command again continues."""
    need_inputs(detector, images, annotations, weights)
    from frozen_cache.stages.extract import extract_features as stage

    summary = stage(
        detector=detector,
        weights=weights,
        images=images,
        annotations=annotations,
        out=out,
        views=views,
        copy_paste=copy_paste,
        tta=tta,
        top_k=top_k,
        encoder_layers=whole_numbers("--encoder-layers", encoder_layers),
        backbone_strides=whole_numbers("--backbone-strides", backbone_strides) or (),
        backbone_scale=backbone_scale,
        batch_size=batch_size,
        precision=choice("--precision", precision, ("float16", "float32", "int8", "coded")),  # type: ignore[arg-type]
        step=step,
        c1=choice("--c1", c1, ("stored", "recomputed", "none")),  # type: ignore[arg-type]
        autocast=autocast and choice("--autocast", autocast, ("bfloat16", "float16")),
        device=device,
        limit=limit,
        skip_missing=skip_missing,
        skip_broken=skip_broken,
        bit_depth=bit_depth,
        max_pixels=max_pixels,
        workers=workers,
        segment_views=segment_images,
        shard=fraction("--shard", shard),
        label_map=tuple(map_ or ()),
        labels=words("--labels", labels),
        only=words("--only", only),
        crowds=choice("--crowds", crowds, ("as-marked", "as-objects")),
        skip_bad_annotations=skip_bad_annotations,
        update=update,
        dry_run=dry_run,
        force=force,
    )
    tell(summary.text())


def words(option: str, text: str | None) -> tuple[str, ...]:
    """("cat", "dog") of `cat, dog`; none where the option is not given."""
    if text is None:
        return ()
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise UserError(f"{option} {text}: it names nothing")
    return found


def choice(option: str, value: str, known: tuple[str, ...]) -> str:
    """`value` if it is one of `known`."""
    if value not in known:
        raise UserError(f"{option} {value}: give one of {', '.join(known)}")
    return value


def fraction(option: str, text: str | None) -> tuple[int, int] | None:
    """(0, 4) of `0/4`; None where the option is not given."""
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    index, count = whole_number(part), whole_number(parts)
    if not slash or index is None or count is None:
        raise UserError(f"{option} {text}: give i/n, like 0/4")
    return index, count
