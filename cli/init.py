"""`frozen-cache init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell


def init(
    folder: Annotated[Path, typer.Argument(help="Where to look for COCO files, images and a detector.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a project file that is there.")] = False,
) -> None:
    """Look at what is in a folder and write a small project file, frozen-cache.toml, with comments."""
    from frozen_cache.cli.project import PROJECT_FILE
    from frozen_cache.stages.init import init_project

    found = init_project(folder=folder, out=folder / PROJECT_FILE, force=force)
    tell(found.text())
