"""`frozen-cache train-head`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from frozen_cache.cli.extract import words
from frozen_cache.cli.live import (
    Annotations,
    BackboneStrides,
    Detector,
    Images,
    Labels,
    Live,
    LiveOptions,
    Map,
    Only,
    ValAnnotations,
    ValImages,
    Views,
    Weights,
)
from frozen_cache.cli.output import tell
from frozen_cache.cli.paths import need_cache, need_model
from frozen_cache.errors import UserError
from frozen_cache.processes import process_share
from frozen_cache.remote import cache_path


def train_head(
    cache: Annotated[
        Path | None, typer.Option(parser=cache_path, help="Cache to train from, made by extract-features; else --live.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory: configuration, metrics, checkpoints. [required]")
    ] = None,
    val_cache: Annotated[
        Path | None, typer.Option(parser=cache_path, help="Cache to evaluate on; picks the best checkpoint.")
    ] = None,
    live: Live = False,
    detector: Detector = None,
    weights: Weights = None,
    images: Images = None,
    annotations: Annotations = None,
    val_images: ValImages = None,
    val_annotations: ValAnnotations = None,
    lsj: Annotated[
        bool, typer.Option("--lsj", help="With --live: large scale jitter, drawn anew whenever an image is seen.")
    ] = False,
    unfreeze: Annotated[
        str | None,
        typer.Option(help="With --live: parts of the detector to train along: backbone,encoder,decoder (Table 16)."),
    ] = None,
    views: Views = 1,
    backbone_strides: BackboneStrides = None,
    only: Only = None,
    labels: Labels = None,
    map_: Map = None,
    preset: Annotated[str | None, typer.Option(help="Recipe: a shipped name or a .toml file. [default: paper]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the cached views. [default: the preset's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Views per step. [default: the preset's]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [default: the preset's]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and sampling. [default: 0]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any configuration value: key=value.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from a trained head: a run, a checkpoint or an exported folder; what fits is taken."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Only print every configuration key as TOML: a --preset FILE.toml.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    memory_gb: Annotated[
        float, typer.Option(min=0, max=1e6, help="Memory for cached views that are kept between epochs.")
    ] = 4.0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read views. [default: as many as it takes]")
    ] = None,
) -> None:
    """Train a mask head from a cache alone, or with the detector in the loop (--live)."""
    options = LiveOptions(
        detector=detector,
        weights=weights,
        images=images,
        annotations=annotations,
        val_images=val_images,
        val_annotations=val_annotations,
        views=views,
        backbone_strides=backbone_strides,
        only=only,
        labels=labels,
        map_=map_,
    )
    if not show_config:
        if (cache is None and not live) or out is None:
            raise UserError(
                "train-head needs --cache, or --live, and --out; `--show-config` alone prints the configuration"
            )
        if live and cache is not None:
            raise UserError("train from a cache or live, one of the two: leave out --cache or --live")
        if not live:
            options.refuse(lsj=lsj, unfreeze=unfreeze)
        for path in (cache, val_cache):
            if path is not None:
                need_cache(path)
        if init is not None:
            need_model(init)
    from frozen_cache.training.config import exact_epochs, load_config, parse_set

    given = {"optim.batch_size": batch_size, "optim.lr": lr, "seed": seed}
    overrides = {} if epochs is None else exact_epochs(epochs)
    overrides |= {key: value for key, value in given.items() if value is not None} | parse_set(set_ or [])
    if lsj:
        overrides["live.lsj"] = True
    if unfreeze is not None:
        overrides["live.unfreeze"] = list(words("--unfreeze", unfreeze))
    if show_config:
        tell(_config_text(preset, overrides, run=out if resume else None))
        return
    assert out is not None
    if not resume:
        load_config(preset=preset or "paper", overrides=overrides)
    data = options.data() if live else None
    from frozen_cache.stages.train import train_head as stage

    result = stage(
        cache=cache,
        live=data,
        val_cache=val_cache,
        out=out,
        preset=preset,
        overrides=overrides,
        init=init,
        resume=resume,
        device=device,
        memory_bytes=int(memory_gb * 2**30),
        workers=workers,
    )
    if process_share()[0] == 0:  # all processes have a result, once is enough to read
        tell(result.text())


def _config_text(preset: str | None, overrides: dict[str, Any], *, run: Path | None) -> str:
    """The configuration that a training would have; that of `run`, as --resume takes it, where no preset is given."""
    from frozen_cache.training.config import load_config, with_overrides
    from frozen_cache.training.show_config import config_text

    if run is None or preset is not None:
        name = preset or "paper"
        return config_text(load_config(preset=name, overrides=overrides), title=f"Configuration from preset {name}")
    from frozen_cache.training.run_directory import load_record

    values = load_record(run).config.model_dump(mode="json")
    return config_text(with_overrides(values, overrides), title=f"Configuration of the run {run}")
