"""`frozen-cache export`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_detector, need_model, need_run
from frozen_cache.errors import UserError


class Format(StrEnum):
    """What to hand on."""

    FOLDER = "folder"
    ONNX = "onnx"


def export(
    run: Annotated[
        Path, typer.Option(help="Run directory of train-head, or a checkpoint in it; onnx: or an exported folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make: detector, head, record, model card.")],
    detector: Annotated[
        str | None, typer.Option(help="Where the detector is now. [default: where it was when it was cached]")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of a named detector, if it has moved.")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="License of the model, for its card.")] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="folder, or onnx: one graph, for programs without torch.")
    ] = Format.FOLDER,
    check: Annotated[
        list[Path] | None, typer.Option(help="onnx: picture to compare with torch on; may be repeated.")
    ] = None,
    gather: Annotated[
        bool, typer.Option("--gather", help="onnx: gather arithmetic instead of GridSample and RoiAlign.")
    ] = False,
    pasted: Annotated[bool, typer.Option("--pasted", help="onnx: masks of the input's size.")] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="onnx: height and width in pixels of a graph for one size. [default: free where possible]",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in --out.")] = False,
) -> None:
    """A trained head and its detector as one folder that works elsewhere, without the network."""
    need_detector(detector, weights)
    height_width = None if size is None else _height_width(size)
    if format_ is Format.ONNX:
        need_model(run)
        for picture in check or ():
            if not picture.is_file():
                raise UserError(f"--check {picture}: no such file")
        from frozen_cache.stages.export import export_onnx_model

        if license_ is not None:
            raise typer.BadParameter("--license goes with --format folder")
        tell(
            export_onnx_model(
                run=run,
                out=out,
                detector=detector,
                weights=weights,
                gather=gather,
                pasted=pasted,
                size=height_width,
                check=check or (),
                overwrite=overwrite,
            ).text()
        )
        return
    if check or gather or pasted or size is not None:
        raise typer.BadParameter("--check, --gather, --pasted and --size go with --format onnx")
    need_run(run)
    from frozen_cache.stages.export import LICENSE
    from frozen_cache.stages.export import export_model as stage

    result = stage(
        run=run, out=out, detector=detector, weights=weights, license=license_ or LICENSE, overwrite=overwrite
    )
    tell(result.text())


def _height_width(text: str) -> tuple[int, int]:
    """`480x640` as (480, 640)."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise UserError(f"--size {text}: give height and width in pixels, as in 480x640")
    return int(found[1]), int(found[2])
