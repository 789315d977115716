"""`frozen-cache export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.paths import need_run


def export(
    run: Annotated[Path, typer.Option(help="Run directory of train-head, or a checkpoint in it.")],
    out: Annotated[Path, typer.Option(help="Folder to make: detector, head, record, model card.")],
    detector: Annotated[
        str | None, typer.Option(help="Where the detector is now. [default: where it was when it was cached]")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of a named detector, if it has moved.")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="License of the model, for its card.")] = None,
) -> None:
    """A trained head and its detector as one folder that works elsewhere, without the network."""
    need_run(run)
    from frozen_cache.stages.export import LICENSE
    from frozen_cache.stages.export import export_model as stage

    result = stage(run=run, out=out, detector=detector, weights=weights, license=license_ or LICENSE)
    typer.echo(result.text())
