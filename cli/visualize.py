"""`frozen-cache visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_cache, need_model
from frozen_cache.remote import cache_path
from frozen_cache.stages.baselines import check_choice


def visualize(
    cache: Annotated[
        Path, typer.Option(parser=cache_path, help="Cache with the images to show; it holds the ground truth.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the pictures and index.html.")],
    head: Annotated[
        Path | None, typer.Option(help="Run directory of train-head, a checkpoint in it, or a folder made by export.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Instead of a head: one that evaluate knows.")] = None,
    prompter: Annotated[str | None, typer.Option(help="With --baseline prompted: the model, hf:DIR_OR_HUB_ID.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures. [default: where the cache was made]")
    ] = None,
    limit: Annotated[int, typer.Option(help="Pictures of each sort.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Probability maps, predictions beside the ground truth, best and worst images, mistakes by kind."""
    check_choice([] if head is None else [head], baseline, prompter)
    need_cache(cache)
    if head is not None:
        need_model(head)
    from frozen_cache.stages.visualize import visualize as stage

    result = stage(
        cache=cache,
        out=out,
        head=head,
        baseline=baseline,
        prompter=prompter,
        images=images,
        limit=limit,
        device=device,
    )
    if result.note:
        tell(result.note)
    tell(f"{result.pictures} pictures in {out}, all in one page: {out / 'index.html'}")
