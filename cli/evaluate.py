"""`frozen-cache evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    cache: Annotated[Path, typer.Option(help="Cache to evaluate on; it holds the ground truth.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and the COCO result files.")],
    head: Annotated[Path | None, typer.Option(help="Run directory of a trained head, or a checkpoint.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Instead of a head: box (filled boxes), training-free, or its variants training-free-no-c1, "
            "training-free-whole-image, training-free-whole-image-no-c1 (Table 1)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """COCO mask AP and box AP of a head, or of a baseline that needs no training."""
    from frozen_cache.stages.evaluate import evaluate as stage

    result = stage(cache=cache, out=out, head=head, baseline=baseline, device=device)
    typer.echo(result.table())
    typer.echo(f"metrics and COCO results in {out}")
