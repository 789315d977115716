"""`frozen-cache convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell


def convert(
    source: Annotated[Path, typer.Argument(help="The data set: its folder, data.yaml or annotations.xml.")],
    out: Annotated[Path, typer.Option(help="Folder for the COCO files, one a split.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="yolo, voc, labelme, cvat or masks. [default: by the files that are there]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write COCO instances files from YOLO-seg, Pascal VOC, LabelMe, CVAT or PNG masks."""
    from frozen_cache.stages.convert import convert as stage

    for split in stage(source=source, out=out, format=format_, overwrite=overwrite):
        tell(split.text())
