"""`frozen-cache ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.paths import need_cache
from frozen_cache.remote import cache_path


def ablate(
    cache: Annotated[Path, typer.Option(parser=cache_path, help="Cache to train from.")],
    val_cache: Annotated[Path, typer.Option(parser=cache_path, help="Cache to evaluate on.")],
    grid: Annotated[str, typer.Option(help="A table of the paper (table2 ... table15), or a .toml file.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs, the table and the plot.")],
    preset: Annotated[str | None, typer.Option(help="Recipe under every variant. [default: the grid's]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the cached views, for every variant.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for every variant.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Train and evaluate every variant of a grid from one cache; goes on where it stopped."""
    for path in (cache, val_cache):
        need_cache(path)
    from frozen_cache.stages.ablate import ablate as stage
    from frozen_cache.training.config import exact_epochs, parse_set

    overrides = ({} if epochs is None else exact_epochs(epochs)) | parse_set(set_ or [])
    result = stage(
        cache=cache, val_cache=val_cache, grid=grid, out=out, preset=preset, overrides=overrides, device=device
    )
    if not result.rows:  # the first process of several has them
        return
    typer.echo(f"{result.title}\n\n{result.markdown()}\n")
    typer.echo(f"table.csv, table.md and plot.png in {out}")
