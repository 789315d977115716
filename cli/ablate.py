"""`frozen-cache ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.live import (
    Annotations,
    BackboneStrides,
    Detector,
    Images,
    Labels,
    Live,
    LiveOptions,
    Map,
    Only,
    ValAnnotations,
    ValImages,
    Views,
    Weights,
)
from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_cache
from frozen_cache.errors import UserError
from frozen_cache.processes import process_share
from frozen_cache.remote import cache_path


def ablate(
    grid: Annotated[str, typer.Option(help="A table of the paper (table2 ... table16), or a .toml file.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs, the table and the plot.")],
    cache: Annotated[Path | None, typer.Option(parser=cache_path, help="Cache to train from; else --live.")] = None,
    val_cache: Annotated[Path | None, typer.Option(parser=cache_path, help="Cache to evaluate on.")] = None,
    live: Live = False,
    detector: Detector = None,
    weights: Weights = None,
    images: Images = None,
    annotations: Annotations = None,
    val_images: ValImages = None,
    val_annotations: ValAnnotations = None,
    views: Views = 1,
    backbone_strides: BackboneStrides = None,
    only: Only = None,
    labels: Labels = None,
    map_: Map = None,
    preset: Annotated[str | None, typer.Option(help="Recipe under every variant. [default: the grid's]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the cached views, for every variant.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for every variant.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Train and evaluate every variant of a grid from one cache, or live; goes on where it stopped."""
    if (cache is None) != live:
        raise UserError("ablate needs --cache or --live, one of the two")
    options = LiveOptions(
        detector=detector,
        weights=weights,
        images=images,
        annotations=annotations,
        val_images=val_images,
        val_annotations=val_annotations,
        views=views,
        backbone_strides=backbone_strides,
        only=only,
        labels=labels,
        map_=map_,
    )
    if not live:
        options.refuse()
    for path in (cache, val_cache):
        if path is not None:
            need_cache(path)
    data = options.data() if live else None
    if cache is not None and val_cache is None:
        raise UserError("ablate evaluates every variant: give --val-cache")
    from frozen_cache.training.config import exact_epochs, parse_set

    overrides = ({} if epochs is None else exact_epochs(epochs)) | parse_set(set_ or [])
    from frozen_cache.stages.ablate_request import check_out, check_request

    asked = check_request(grid=grid, preset=preset, overrides=overrides)
    if process_share()[0] == 0:
        check_out(out, asked.grid)
    from frozen_cache.stages.ablate import ablate as stage
    from frozen_cache.terminal import terminal_width

    result = stage(
        cache=cache,
        live=data,
        val_cache=val_cache,
        grid=grid,
        out=out,
        preset=preset,
        overrides=overrides,
        device=device,
    )
    if not result.rows:  # the first process of several has them
        return
    tell(f"{result.title}\n\n{result.text(width=terminal_width())}\n")
    tell(f"table.csv, table.md and plot.png in {out}, the report in {out / 'report.html'}")
