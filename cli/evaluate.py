"""`frozen-cache evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.extract import choice
from frozen_cache.cli.numbers import whole_numbers
from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_cache, need_model
from frozen_cache.remote import cache_path
from frozen_cache.stages.baselines import check_choice


class CocoApi(StrEnum):
    """Implementations of COCO's evaluation."""

    pycocotools = "pycocotools"
    hotcoco = "hotcoco"


def evaluate(
    cache: Annotated[Path, typer.Option(parser=cache_path, help="Cache to evaluate on; it holds the ground truth.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and the COCO result files.")],
    head: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run directory of train-head, a checkpoint in it or a folder of export; several are averaged."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Instead of a head: box (filled boxes), training-free, or its variants training-free-no-c1, "
            "training-free-whole-image, training-free-whole-image-no-c1 (Table 1), or prompted."
        ),
    ] = None,
    prompter: Annotated[
        str | None,
        typer.Option(help="With --baseline prompted: hf:DIR_OR_HUB_ID of a Segment Anything model, given the boxes."),
    ] = None,
    roi_sizes: Annotated[
        str | None,
        typer.Option(help="Average masks at these sides of the RoI, such as 24,32,48. [default: the head's]"),
    ] = None,
    views: Annotated[int, typer.Option(help="Average masks over so many cached views of each image.")] = 1,
    tta: Annotated[
        bool, typer.Option("--tta", help="Fuse boxes and masks of all views, of a cache extracted with --tta.")
    ] = False,
    guided: Annotated[
        bool, typer.Option("--guided", help="Let the masks take over the edges of the pictures (guided filter).")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures for report, --guided, --baseline prompted. [default: where the cache was made]"
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder of evaluate, or any tool's COCO result file of masks; may be repeated."),
    ] = None,
    test_dev: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only write the zipped submission file for COCO's test-dev, under NAME."),
    ] = None,
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="Also what AP would be with edges, ranking, RoIs or boxes put right, one each."),
    ] = False,
    coco_api: Annotated[
        CocoApi,
        typer.Option(help="What computes AP: pycocotools, or hotcoco (pip install 'frozen-cache[fast-eval]')."),
    ] = CocoApi.pycocotools,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=256, help="Processes that paste and compare masks. [default: a core each, none for few images]"
        ),
    ] = None,
    mixed_precision: Annotated[
        str, typer.Option(help="What heads are computed in: no (float32), bf16, fp16, or auto.")
    ] = "no",
    threshold: Annotated[float, typer.Option(help="Leave out detections of a lower box score; 0 keeps all.")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other results in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """COCO mask AP and box AP of heads, or of a baseline that needs no training; a report with pictures."""
    heads = head or []
    check_choice(heads, baseline, prompter)
    mixed_precision = choice("--mixed-precision", mixed_precision, ("no", "bf16", "fp16", "auto"))
    need_cache(cache)
    for run in heads:
        need_model(run)
    sizes = whole_numbers("--roi-sizes", roi_sizes) or ()
    from frozen_cache.stages.evaluate import evaluate as stage
    from frozen_cache.stages.evaluate import write_submission

    if test_dev is not None:
        file = write_submission(
            cache=cache,
            out=out,
            name=test_dev,
            head=heads,
            baseline=baseline,
            prompter=prompter,
            roi_sizes=sizes,
            views=views,
            tta=tta,
            guided=guided,
            images=images,
            device=device,
            workers=workers,
            mixed_precision=mixed_precision,
            threshold=threshold,
        )
        tell(f"submission file: {file}")
        return
    result = stage(
        cache=cache,
        out=out,
        head=heads,
        baseline=baseline,
        prompter=prompter,
        roi_sizes=sizes,
        views=views,
        tta=tta,
        guided=guided,
        device=device,
        images=images,
        others=compare or [],
        overwrite=overwrite,
        ladder=ladder,
        coco_api=coco_api.value,
        workers=workers,
        mixed_precision=mixed_precision,
        threshold=threshold,
    )
    tell(result.table())
    tell(f"metrics and COCO results in {out}, the report in {out / 'report.html'}")
