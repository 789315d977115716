"""`frozen-cache head describe`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from frozen_cache.cli.output import tell

app = typer.Typer(no_args_is_help=True)


@app.callback()
def head() -> None:
    """Keep `describe` a command of its own name, though it is the only one."""


@app.command("describe")
def describe(
    preset: Annotated[str | None, typer.Option(help="Recipe: a shipped name or a .toml file. [default: paper]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any head value: head.width=64 or width=64.")] = None,
    detector_shapes: Annotated[
        str, typer.Option(help="hdetr-r50, hdetr-swin-l, dino-focalnet-l, or a cache NAME.zarr.")
    ] = "hdetr-r50",
    height: Annotated[int, typer.Option(help="Height of the resized image, in pixels.")] = 800,
    width: Annotated[int, typer.Option(help="Its width.")] = 1120,
    boxes: Annotated[int, typer.Option(help="Boxes segmented in it.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: parameters, macs, modules.")] = False,
) -> None:
    """Print a head's modules, shapes, parameters and multiply-adds, in the paper's counting."""
    from frozen_cache.stages.describe import describe as stage
    from frozen_cache.terminal import terminal_width
    from frozen_cache.training.config import parse_set

    found = stage(
        preset=preset or "paper",
        overrides=parse_set(set_ or []),
        detector_shapes=detector_shapes,
        image_size=(height, width),
        boxes=boxes,
    )
    tell(json.dumps(found.as_json(), indent=2) if as_json else found.text(width=terminal_width()))
