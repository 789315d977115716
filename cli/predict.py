"""`frozen-cache predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.numbers import whole_numbers
from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_detector, need_model
from frozen_cache.data.numbers import whole_number

SAVE = "overlays, masks, label-map, cutouts, yolo"


def predict(
    inputs: Annotated[list[str], typer.Argument(help="Image and video files, folders, patterns like 'in/*.jpg'.")],
    model: Annotated[
        list[Path],
        typer.Option(help="Run directory of train-head, or a folder made by export; masks of several are averaged."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out instances with a lower score; 0 keeps all.")
    ] = 0.3,
    classes: Annotated[str | None, typer.Option(help="Only these: names or ids with commas between them.")] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="At most so many of the best in a picture.")] = None,
    mask_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="From which probability a pixel belongs to a mask.")
    ] = 0.5,
    roi_sizes: Annotated[
        str | None,
        typer.Option(help="Average masks at these sides of the RoI, such as 24,32,48. [default: the head's]"),
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="Average masks over so many views of each picture (crops, mirrored or not).")
    ] = 1,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Fuse boxes and masks of seven views: whole, mirrored, tiles (test-time augmentation)."
        ),
    ] = False,
    guided: Annotated[
        bool, typer.Option("--guided", help="Let the masks take over the edges of the pictures (guided filter).")
    ] = False,
    save: Annotated[list[str] | None, typer.Option(help=f"What else to write, once each: {SAVE}.")] = None,
    overlays: Annotated[bool, typer.Option(help="Write the pictures with masks on them.")] = True,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures of one size that go through the detector together.")
    ] = 1,
    frame_step: Annotated[int, typer.Option(min=1, help="Every so many frames of a video.")] = 1,
    detector: Annotated[
        str | None, typer.Option(help="Where a run's detector is now. [default: where it was when it was cached]")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of a named detector, if it has moved.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads to read and write. [default: cores, at most 8]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in --out.")] = False,
) -> None:
    """Masks on pictures and videos of your own. Exit code 1 says that some files could not be read."""
    for path in model:
        need_model(path)
    need_detector(detector, weights)
    sizes = whole_numbers("--roi-sizes", roi_sizes) or ()
    kinds = [*(["overlays"] if overlays else []), *(save or [])]
    from frozen_cache.stages.predict_request import check_request

    request = check_request(inputs=inputs, out=out, save=kinds, overwrite=overwrite)
    from frozen_cache.stages.predict import predict as stage

    summary = stage(
        request,
        model=model,
        detector=detector,
        weights=weights,
        threshold=threshold,
        classes=None if classes is None else [_name_or_id(text.strip()) for text in classes.split(",")],
        max_detections=max_detections,
        mask_threshold=mask_threshold,
        roi_sizes=sizes,
        views=views,
        tta=tta,
        guided=guided,
        batch_size=batch_size,
        frame_step=frame_step,
        device=device,
        workers=workers,
    )
    tell(summary.text())
    if summary.skipped:
        raise typer.Exit(1)


def _name_or_id(text: str) -> str | int:
    number = whole_number(text)
    return text if number is None else number
