"""Stage two: train a mask head from a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from frozen_cache.cache.hints import read_hints
from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.head.config import resolve_encoder_layer
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.batches import ViewStore
from frozen_cache.training.config import TrainConfig, load_config, with_overrides
from frozen_cache.training.plots import plot_run
from frozen_cache.training.run_directory import RunDirectory, RunRecord, load_record
from frozen_cache.training.source import source_of
from frozen_cache.training.trained_head import check_fits
from frozen_cache.training.trainer import Trainer


@dataclass(frozen=True)
class TrainResult:
    """How a training ended."""

    out: Path
    steps: int
    seconds: float
    best_ap: float | None
    best_step: int | None


def train_head(
    *,
    cache: Path,
    out: Path,
    val_cache: Path | None = None,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    device: str = "auto",
    memory_bytes: int = 4 * 2**30,
) -> TrainResult:
    """Train from `cache` alone into the run directory `out`; evaluate on `val_cache` where given.

    A resumed run takes its configuration from `out`; what is given besides must agree with it.
    """
    reader = CacheReader(cache)
    run = RunDirectory(out)
    config = _configuration(run, preset=preset, overrides=overrides, resume=resume)
    layer = resolve_encoder_layer(config.head, reader.attributes.detector.encoder_layers)
    record = RunRecord(
        config=config,
        inputs=reader.head_inputs(layer),
        encoder_layer=layer,
        detector=reader.attributes.detector.name,
        detector_fingerprint=reader.attributes.detector_fingerprint,
        cache_fingerprint=reader.attributes.fingerprint,
        categories=reader.attributes.categories,
        source=source_of(reader.attributes, read_hints(cache)),
    )
    val_reader = None
    if val_cache is not None:
        val_reader = CacheReader(val_cache)
        check_fits(record, val_reader, head=out, cache=val_cache)
    torch.manual_seed(config.seed)
    head = MaskHead(config=config.head, inputs=record.inputs)
    chosen = pick_device(device)
    # accelerate keeps one precision for the process; an ablation may go from one to another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=chosen.type == "cpu")
    if accelerator.is_main_process:
        run.open(record, resume=resume)
    accelerator.wait_for_everyone()
    head.to(accelerator.device)
    trainer = Trainer(
        head=head,
        store=ViewStore(reader, encoder_layer=layer, c1=head.uses_c1, memory_bytes=memory_bytes),
        config=config,
        run=run,
        accelerator=accelerator,
        fingerprint={
            "detector_fingerprint": record.detector_fingerprint,
            "cache_fingerprint": record.cache_fingerprint,
        },
        evaluate=None if val_reader is None else _evaluation(val_reader, layer, accelerator.device),
    )
    if not trainer.indices:
        raise UserError(f"{cache} holds no views to train on")
    if resume:
        trainer.resume()
    progress = trainer.train()
    if accelerator.is_main_process:
        plot_run(run)
    return TrainResult(
        out=out,
        steps=progress.step,
        seconds=progress.seconds,
        best_ap=progress.best_ap,
        best_step=progress.best_step,
    )


def _configuration(
    run: RunDirectory, *, preset: str | None, overrides: dict[str, Any] | None, resume: bool
) -> TrainConfig:
    if resume and run.record_file.is_file() and preset is None:
        return with_overrides(load_record(run.path).config.model_dump(mode="json"), overrides or {})
    return load_config(preset=preset or "paper", overrides=overrides)


def _evaluation(reader: CacheReader, layer: int, device: torch.device):
    def run(head: MaskHead) -> dict[str, dict[str, float]]:
        return evaluate_cache(reader, FeatureSegmenter(head, encoder_layer=layer, device=device)).metrics

    return run
