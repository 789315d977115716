"""`frozen-cache demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the scenes, caches, the trained head and the pictures.")] = Path(
        "demo-out"
    ),
) -> None:
    """All stages on embedded data: scenes, a small detector, its cache, a trained head, pictures."""
    from frozen_cache.stages.demo import new_picture, run_demo

    summary = run_demo(out=out)
    tell(summary.table())
    tell(f"pictures in {out / 'gallery.png'}, figures in {out / 'summary.json'}")
    tell(f"masks on a picture that was in neither set: {new_picture(out)}")
    tell(f"the report, to be opened in a browser: {out / 'results-head' / 'report.html'}")
