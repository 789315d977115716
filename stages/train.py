"""Stage two: train a mask head from a cache."""

from __future__ import annotations

import platform
import shlex
import time
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from frozen_cache.attention.backends import choose
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.truth import refuse_without_masks
from frozen_cache.head.config import resolve_encoder_layer
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.ownership import Ownership
from frozen_cache.precision import chosen_precision
from frozen_cache.processes import process_share
from frozen_cache.progress import say
from frozen_cache.remote import CachePath
from frozen_cache.report.page import write_page
from frozen_cache.report.run_page import run_page
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.train_source import Source, ValidationData
from frozen_cache.stages.tuned import save_tuned
from frozen_cache.stages.validation import Validation
from frozen_cache.training.code_version import code_version
from frozen_cache.training.config import TrainConfig, load_config, with_overrides
from frozen_cache.training.plots import plot_run
from frozen_cache.training.run_directory import RunDirectory, RunRecord, Start, load_record
from frozen_cache.training.run_readme import next_command, tuned_cache, write_run_readme
from frozen_cache.training.schedule import schedule_text
from frozen_cache.training.source import source_of
from frozen_cache.training.start_from import StartFrom
from frozen_cache.training.trained_head import check_fits
from frozen_cache.training.trainer import Trainer
from frozen_cache.training.view_source import ViewSource

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended."""

    out: Path
    steps: int
    seconds: float
    best_ap: float | None
    best_step: int | None
    loss: float | None = None
    """The last one."""
    box_ap: float | None = None
    """Of the detector's boxes, where `best_ap` was measured."""
    box_ap_before: float | None = None
    """Of a detector that trained along, before the first step."""
    detector: str = ""
    """The options that load it."""
    extract_command: str = ""
    """That makes the cache which `next_command` reads, where there can be none yet."""
    next_command: str = ""

    def text(self) -> str:
        """What the command prints in the end."""
        lines = [f"{self.steps:,} steps in {self.seconds / 60:.1f} minutes"]
        if self.loss is not None:
            lines[0] += f", training loss {self.loss:.4f}"
        if self.best_ap is not None:
            boxes = "" if self.box_ap is None else f" beside box AP {self.box_ap:.4f}"
            boxes += "" if self.box_ap_before is None else f" (before: {self.box_ap_before:.4f})"
            lines.append(f"best mask AP {self.best_ap:.4f}{boxes}, at step {self.best_step:,}")
        best = "best.safetensors (best mask AP), " if self.best_ap is not None else ""
        lines.append(f"head in {self.out}: {best}last.safetensors")
        lines.append("beside it: report.html, metrics.jsonl, README.md")
        if self.detector:
            lines.append(f"its detector, fine-tuned: {self.detector}")
        lines += [f"next: {command}" for command in (self.extract_command, self.next_command) if command]
        return "\n".join(lines)


def train_head(
    *,
    cache: CachePath | None = None,
    out: Path,
    val_cache: CachePath | None = None,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    device: str = "auto",
    memory_bytes: int = 4 * 2**30,
    workers: int | None = None,
    init: Path | None = None,
    live: LiveData | None = None,
) -> TrainResult:
    """Train from `cache` alone into the run directory `out`; evaluate on `val_cache` where given.

    An unfinished run of the same settings goes on by itself.

    Args:
        workers: threads that read views; None for as many as keep the training from waiting, up to the cores.
        live: in place of `cache`: run the detector on the images in every epoch, and keep nothing of what it gives.
        init: run directory or checkpoint to start from: tensors of equal names and shapes are taken, the others named.
        resume: take the configuration and the validation cache from the run in `out`, where there is one; what is
            given besides must agree with it, save for its length: larger `optim.epochs` prolong it. A finished run is
            no error then.

    Raises:
        UserError: bad input; nothing has been written.
        NotFiniteError: a number of the training is not finite; checkpoints stay as they were.
        StoppedError: Ctrl-C or SIGTERM, with a checkpoint.
    """
    process_share()
    run = RunDirectory(out)
    run.check_folder()
    there = load_record(out) if resume and run.record_file.is_file() else None
    config = _configuration(there, preset=preset, overrides=overrides)
    precision = chosen_precision(config.mixed_precision, pick_device(device))
    config = config.model_copy(update={"mixed_precision": precision})
    source = Source.find(cache, live, config, out=out, device=device)
    reader = source.reader
    if val_cache is None and there is not None:
        val_cache = there.val_cache
    measured = source.validation(val_cache, config)
    record = _record(source, measured, config, cache=cache, val_cache=val_cache, preset=preset)
    if there is not None and preset is None:
        record = record.model_copy(update={"preset": there.preset})
    if init is None and there is not None:
        record = record.model_copy(update={"init": there.init, "init_from": there.init_from})
    elif init is not None:
        given = StartFrom.find(init)
        record = record.model_copy(update={"init": given.sha256, "init_from": given.file})
    if config.head.zoom is not None:
        for views in [reader, *([] if measured is None else [measured.reader])]:
            views.check_zoom()
    if measured is not None:
        refuse_without_masks(measured.reader.attributes, measured.name)
        check_fits(record, measured.reader, head=out, cache=measured.name)
    accelerator = _accelerator(config, device)
    torch.manual_seed(config.seed)
    head = MaskHead(config=config.head, inputs=record.inputs)
    begun = "" if run.last.is_file() else _begin(head, record)
    head.to(accelerator.device)
    tuning = source.tuning(head, config, encoder_layer=record.encoder_layer)
    validation = None
    if measured is not None:
        validation = Validation(
            measured.reader,
            pictures=measured.pictures,
            encoder_layer=record.encoder_layer,
            accelerator=accelerator,
        )
    trainer = Trainer(
        head=head,
        store=source.store(
            encoder_layer=record.encoder_layer,
            c1=head.uses_c1,
            memory_bytes=memory_bytes,
            close_up=config.head.zoom is not None,
        ),
        config=config,
        run=run,
        accelerator=accelerator,
        workers=workers,
        evaluate=validation,
        tuning=tuning,
    )
    options = ""
    objects = _objects(reader, trainer.indices, source.name)
    with Ownership(out) if accelerator.is_main_process else nullcontext() as owner:
        changed = []
        if owner is not None:
            trainer.check_owner = owner.check
            changed = run.open(record, total=trainer.total, resume=resume)
        accelerator.wait_for_everyone()
        trainer.marks = load_record(out).marks
        trainer.resume()
        start = _start(trainer, changed)
        if owner is not None and trainer.progress.step < trainer.total:
            _announce(trainer, record, start, objects=objects, source=source, measured=measured)
            if begun:
                say(begun)
            run.set_finished(False)
            run.note(start)
            write_run_readme(run, record, start, trainer.progress, total=trainer.total, whole=False)
        progress = trainer.train()
        if owner is not None:
            plot_run(run)
            ends = run.lacks_end()
            if ends or not (run.path / "report.html").is_file():
                page = run_page(
                    run,
                    reader.attributes,
                    seconds=progress.seconds,
                    image_size=reader.resized_size(trainer.indices[0]),
                    validated=[] if validation is None else validation.sections(),
                )
                write_page(run.path / "report.html", page)
            if tuning is not None:
                options = save_tuned(tuning.detector, out)
            if ends:
                write_run_readme(run, record, start, progress, total=trainer.total, whole=True)
                run.set_finished(True)
    return TrainResult(
        out=out,
        steps=progress.step,
        seconds=progress.seconds,
        best_ap=progress.best_ap,
        best_step=progress.best_step,
        loss=progress.loss,
        box_ap=progress.box_ap,
        box_ap_before=progress.box_ap_before,
        detector=options,
        extract_command=_extract_command(options, live, out),
        next_command=next_command(run, record),
    )


def _extract_command(detector: str, live: LiveData | None, out: Path) -> str:
    """Of the validation's images, by the tuned detector that the options `detector` load; empty without one."""
    if not detector or live is None:
        return ""
    data = [str(live.val_images or "IMAGES"), str(live.val_annotations or "ANNOTATIONS")]
    paths = shlex.join(["--images", data[0], "--annotations", data[1], "--out", str(tuned_cache(out))])
    return f"frozen-cache extract-features {detector} {paths}"


def _configuration(there: RunRecord | None, *, preset: str | None, overrides: dict[str, Any] | None) -> TrainConfig:
    if there is not None and preset is None:
        return with_overrides(there.config.model_dump(mode="json"), overrides or {})
    return load_config(preset=preset or "paper", overrides=overrides)


def _record(
    source: Source,
    measured: ValidationData | None,
    config: TrainConfig,
    *,
    cache: CachePath | None,
    val_cache: CachePath | None,
    preset: str | None,
) -> RunRecord:
    attributes = source.reader.attributes
    layer = resolve_encoder_layer(config.head, attributes.detector.encoder_layers)
    return RunRecord(
        id=uuid.uuid4().hex,
        config=config,
        inputs=source.reader.head_inputs(layer),
        encoder_layer=layer,
        detector=attributes.detector.name,
        detector_fingerprint=attributes.detector_fingerprint,
        cache_fingerprint=attributes.fingerprint,
        val_fingerprint=None if measured is None else measured.reader.attributes.fingerprint,
        categories=attributes.categories,
        source=source_of(attributes, source.hints),
        preset=preset or "paper",
        finished=False,
        cache=None if cache is None else cache.resolve(),
        val_cache=None if val_cache is None else val_cache.resolve(),
    )


def _begin(head: MaskHead, record: RunRecord) -> str:
    """Give a head the weights that its run begins with, where it begins with any; what to say about them."""
    if record.init is None or record.init_from is None:
        return ""
    found = StartFrom.find(record.init_from)
    if found.sha256 != record.init:
        raise UserError(f"{record.init_from} has changed since this run began with it: give --init, or another --out")
    return found.into(head)


def _accelerator(config: TrainConfig, device: str) -> Accelerator:
    chosen = pick_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    # accelerate keeps one precision for the process; an ablation may go from one to another.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=chosen.type == "cpu",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def _objects(reader: ViewSource, indices: list[int], origin: str) -> int:
    """Objects to train on; a UserError where there are none."""
    if not indices:
        raise UserError(f"{origin}: no views to train on")
    objects = sum(reader.matched(index) for index in indices)
    if not objects:
        raise UserError(
            f"{origin}: no detection was matched to an object, so there is nothing to train on: `frozen-cache cache "
            "info` counts a cache's objects by category"
        )
    return objects


def _start(trainer: Trainer, changed: list[str]) -> Start:
    device = trainer.accelerator.device
    return Start(
        time=time.strftime("%Y-%m-%d %H:%M:%S"),
        machine=platform.node(),
        code=code_version(),
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        processes=trainer.accelerator.num_processes,
        attention=choose(device=device.type, dtype=torch.float32).name,
        from_step=trainer.progress.step,
        to_step=trainer.total,
        changed=changed,
    )


def _announce(
    trainer: Trainer,
    record: RunRecord,
    start: Start,
    *,
    objects: int,
    source: Source,
    measured: ValidationData | None,
) -> None:
    """Two lines before the first bar, and one where an earlier start is gone on with."""
    config = record.config
    parameters = sum(parameter.numel() for parameter in trainer.head.parameters())
    precision = "float32" if config.mixed_precision == "no" else config.mixed_precision
    processes = f" x {start.processes} processes" if start.processes > 1 else ""
    say(
        f"train: preset {record.preset}, {parameters:,} parameters, {trainer.total:,} steps of "
        f"{config.optim.batch_size} views, {precision} on {start.device}{processes}"
    )
    kind = "objects" if record.cache is None else "matched objects"
    say(
        f"from {source.name}: {len(trainer.indices):,} views, {objects:,} {kind} of {len(record.categories)} "
        f"categories; {'no validation' if measured is None else f'evaluated on {measured.name}'}"
    )
    if weak := _without_masks(source.reader):
        say(weak)
    for by in source.reader.attributes.data.masks_from:
        say(f"masks made from boxes by {by}")
    if start.from_step:
        say(f"going on from step {start.from_step:,}")
    if start.changed:
        schedule = schedule_text(config.optim, step=start.from_step, total=trainer.total)
        say(f"{'; '.join(start.changed)}: {schedule}")


def _without_masks(reader: ViewSource) -> str:
    """What the objects without masks are trained by; empty where all have masks."""
    counts = reader.attributes.data.counts
    if not counts.without_masks:
        return ""
    found = f"without masks: {counts.points_alone:,} objects with points, {counts.boxes_alone:,} with boxes alone"
    if counts.boxes_alone:
        found += (
            " (from which masks come out worse than from masks or points: `cache relabel --masks-from` gives "
            "them masks of a prompted model, docs/training.md)"
        )
    if reader.has_pictures:
        return f"{found}; they are trained by these, and by the colours of the images"
    return (
        f"{found}; the cache keeps no images, so they are trained by these alone and not by colours, which gives worse "
        "masks: extract-features --c1 recomputed keeps the images"
    )
