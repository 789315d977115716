"""The training loop: one configuration, one cache, one seed give one result, also across kills."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from frozen_cache.errors import NotFiniteError, StoppedError, UserError
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.progress import progress_bar, say
from frozen_cache.training.batches import TrainingBatch, ViewStore, epoch_batches
from frozen_cache.training.checkpoint import (
    TUNED,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.progress import Progress, read_progress
from frozen_cache.training.reading import ReadAhead, on_device
from frozen_cache.training.run_directory import RunDirectory
from frozen_cache.training.schedule import learning_rate
from frozen_cache.training.step import TrainingStep
from frozen_cache.training.stop_signals import StopSignals
from frozen_cache.training.tuning import ShownBatch, Tuning
from frozen_cache.training.watch import StepNumbers, Watch

LOG_EVERY = 20


@dataclass
class Trainer:
    """Trains `head` on the views of `store`.

    `evaluate`, where given, returns COCO metrics of a head in eval mode: every process calls it, and the first one's
    count."""

    head: MaskHead
    store: ViewStore
    config: TrainConfig
    run: RunDirectory
    accelerator: Accelerator
    evaluate: Callable[[MaskHead], dict[str, dict[str, float]]] | None = None
    tuning: Tuning | None = None
    """The detector, where it trains along."""
    workers: int | None = None
    """Threads that read; None for as many as it takes."""
    marks: dict[str, str] = field(default_factory=dict)
    """What its checkpoints say of the run (`RunRecord.marks`)."""
    check_owner: Callable[[], None] = lambda: None
    """Raises where the run directory belongs to another process by now."""
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        reader = self.store.reader
        limit = self.config.views
        self.indices = [at for at, (_, view) in enumerate(reader.views) if limit is None or view < limit]
        self.shapes = [reader.resized_size(at) for at in self.indices]
        self.steps_per_epoch = math.ceil(len(self.indices) / self.config.optim.batch_size)
        self.total = max(1, self.config.optim.min_steps, round(self.config.optim.epochs * self.steps_per_epoch))
        self.eval_steps = max(1, round(self.config.eval_every * self.steps_per_epoch))
        self.step = TrainingStep(head=self.head, config=self.config, accelerator=self.accelerator, tuning=self.tuning)
        self.watch = Watch(
            precision=self.config.mixed_precision,
            run=self.run.path,
            reduce=lambda values: self.accelerator.reduce(values, reduction="mean"),
            world=self.accelerator.num_processes,
        )

    def resume(self) -> None:
        """Go back to the `last` checkpoint, or to the very start where there is none yet.

        Raises:
            UserError: the checkpoint is damaged, or of another run.
        """
        if self.run.last.is_file():
            tensors, saved = load_checkpoint(self.run.last)
            try:
                self._restore(tensors, saved)
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise UserError(
                    f"checkpoint {self.run.last} does not fit the run in {self.run.path} "
                    f"({str(error).splitlines()[0]}): choose another --out"
                ) from error
        if self.accelerator.is_main_process:
            self.run.forget_after(self.progress.step)

    def _restore(self, tensors: dict[str, Tensor], saved: dict[str, Any]) -> None:
        for key, value in self.marks.items():
            if saved.get(key) != value:
                raise ValueError(f"its {key} is another")
        progress = read_progress(saved)
        self.step.evaluated_head.load_state_dict(_part(tensors, "head."))
        if self.step.average is not None:
            self.head.load_state_dict(_part(tensors, "raw."))
            self.step.average.updates = progress.step
        if self.tuning is not None:
            self.tuning.restore(_part(tensors, "detector."))
        restore_optimizer(self.step.optimizer, _part(tensors, "optimizer."))
        if self.accelerator.scaler is not None and "scaler" in saved:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.progress = progress
        self.watch.skipped = progress.skipped

    def save_last(self) -> None:
        """Write the `last` checkpoint: all that `resume` needs."""
        tensors = {f"head.{name}": value for name, value in self.step.evaluated_head.state_dict().items()}
        if self.step.average is not None:
            tensors |= {f"raw.{name}": value for name, value in self.head.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(self.step.optimizer).items()}
        scaler = self.accelerator.scaler
        self._save(self.run.last, tensors, {} if scaler is None else {"scaler": scaler.state_dict()})

    def _save(self, path: Path, tensors: dict[str, Tensor], more: dict[str, Any] | None = None) -> None:
        self.check_owner()
        if self.tuning is not None:
            tensors = tensors | self.tuning.tensors()
            more = (more or {}) | {TUNED: self.tuning.facts()}
        self.progress.skipped = self.watch.skipped
        try:
            save_checkpoint(path, tensors, run=self.marks | {"progress": vars(self.progress)} | (more or {}))
        except NotFiniteError as error:
            raise self.watch.failure(self._numbers, str(error)) from error

    def train(self) -> Progress:
        """Run the remaining steps.

        Raises:
            StoppedError: Ctrl-C or SIGTERM, after the step in hand and with a checkpoint.
            NotFiniteError: a number of the training is not finite; the checkpoints stay as they were.
            UserError: a whole pass over the views gave nothing to train on.
        """
        self.step.prepare()
        self._look_before()
        main = self.accelerator.is_main_process
        writer = SummaryWriter(str(self.run.events), purge_step=self.progress.step) if main else None
        bar = progress_bar(
            total=self._views_until(self.total),
            initial=self._views_until(self.progress.step),
            unit="img",
            desc="train",
            shown=main,
        )
        device = self.accelerator.device
        reading = ReadAhead(
            self.store,
            self._steps(),
            self.config,
            roi_side=self.config.head.mask_side,
            workers=self.workers,
            share=(self.accelerator.process_index, self.accelerator.num_processes),
            pinned=device.type == "cuda",
            make=None if self.tuning is None else self.tuning.make_batch,
        )
        made = iter(reading)
        with StopSignals() as signals:
            try:
                for step, indices, batch in on_device(made, device):
                    started = time.perf_counter()
                    stops = self._step(step, indices, batch, stop=signals.asked)
                    self.progress.step = step + 1
                    stopping = signals.asked if stops is None else self._all_stop(stops)
                    values = self._check(stopping=stopping)
                    self.progress.seconds += time.perf_counter() - started
                    if main and writer is not None:
                        self._report(writer, bar, values, len(indices))
                    metrics = self._validate()
                    if main and writer is not None:
                        self._note(writer, metrics)
                        if self._saves(stopping=stopping):
                            self.save_last()
                    if stopping or (signals.asked and step + 1 == self.total):  # the last validation may be long
                        raise StoppedError(
                            f"stopped after step {step + 1:,} of {self.total:,}; all that is done is safe in "
                            f"{self.run.last}"
                        )
            finally:
                made.close()
                bar.close()
                if writer is not None:
                    writer.close()
        return self.progress

    def _views_until(self, step: int) -> int:
        """Views of so many steps, for the bar: exact for whole epochs, as one batch in each may be smaller."""
        return round(step * len(self.indices) / self.steps_per_epoch)

    def _steps(self) -> Iterator[tuple[int, list[int]]]:
        """(step, the views of all processes) from where the run stands to its end."""
        cached: tuple[int, list[list[int]]] = (-1, [])
        for step in range(self.progress.step, self.total):
            epoch, at = divmod(step, self.steps_per_epoch)
            if cached[0] != epoch:
                cached = (
                    epoch,
                    epoch_batches(
                        self.indices,
                        self.shapes,
                        batch_size=self.config.optim.batch_size,
                        seed=self.config.seed,
                        epoch=epoch,
                    ),
                )
            yield step, cached[1][at]

    def _step(self, step: int, indices: list[int], batch: TrainingBatch | ShownBatch, *, stop: bool) -> Tensor | None:
        """One step; nothing is fetched from the device. Returns how many processes were asked to stop."""
        # Everything random in a step comes from its number, so that a resumed run needs no generator's state.
        torch.manual_seed(self.config.seed * 10_000_019 + step)
        rate = learning_rate(self.config.optim, step=step, total=self.total)
        result = self.step(batch, rate=rate, stop=stop, progress=step / self.total)
        self._numbers = StepNumbers(
            step=step,
            images=[self.store.reader.views[index][0] for index in indices],
            rate=rate,
            values=result.values,
        )
        self.watch.add(self._numbers)
        return result.stops

    def _all_stop(self, stops: Tensor) -> bool:
        """Whether one of several processes was asked to stop. All find the same, and stop after the same step."""
        # To look is to wait for the device, so with a GPU they look where they fetch the numbers anyway.
        return (self.accelerator.device.type == "cpu" or self._logs()) and bool(stops)

    def _check(self, *, stopping: bool) -> dict[str, float]:
        """Where numbers are about to be printed, or weights to be evaluated or saved: look at all since the last time.

        All processes come here at the same steps, as they have to fetch the numbers of all.
        """
        step = self.progress.step
        if not (self._logs() or self._evaluates() or self._saves(stopping=stopping)):
            return {}
        values = self.watch.check()
        if self.watch.rois == 0 and (
            self.watch.steps >= self.steps_per_epoch or step == self.watch.steps == self.total
        ):
            raise UserError(
                f"no box to train on in {self.watch.steps} steps: no object has a mask in a box that the "
                "configuration's `rois` ask for; `frozen-cache cache info` counts objects"
            )
        return values

    def _logs(self) -> bool:
        return self.progress.step % LOG_EVERY == 0 or self.progress.step == self.total

    def _evaluates(self) -> bool:
        step = self.progress.step
        return self.evaluate is not None and (step % self.eval_steps == 0 or step == self.total)

    def _saves(self, *, stopping: bool) -> bool:
        step = self.progress.step
        return stopping or step == self.total or step % self.config.checkpoint_every == 0

    def _report(self, writer: SummaryWriter, bar: Any, values: dict[str, float], images: int) -> None:
        bar.update(images)
        step = self.progress.step
        if not self._logs():
            return
        rate = self._numbers.rate
        losses = {name: value for name, value in values.items() if name not in ("gradient norm", "rois")}
        if losses:
            self.progress.loss = losses["loss"]
            bar.set_postfix(loss=f"{losses['loss']:.3f}", lr=f"{rate:.1e}")
        self.check_owner()
        self.run.log(
            {"step": step, "epoch": step / self.steps_per_epoch, "lr": rate}
            | {name: round(value, 6) for name, value in losses.items()}
            | ({"skipped": self.watch.skipped} if self.watch.skipped else {})
        )
        for name, value in losses.items():
            writer.add_scalar(f"train/{name}", value, step)
        writer.add_scalar("train/lr", rate, step)

    def _validate(self) -> dict[str, dict[str, float]] | None:
        """Metrics of the head where it is time for them; all processes share the work."""
        if self.evaluate is None or not self._evaluates():
            return None
        started = time.perf_counter()
        metrics = self.evaluate(self.step.evaluated_head.eval())
        self.progress.seconds += time.perf_counter() - started
        return metrics

    def _look_before(self) -> None:
        """What the boxes are worth before a detector trains along."""
        if self.tuning is None or self.evaluate is None or self.progress.step:
            return
        metrics = self.evaluate(self.step.evaluated_head.eval())
        if self.accelerator.is_main_process:
            self.progress.box_ap_before = metrics["bbox"]["AP"]
            say(f"before: box AP {metrics['bbox']['AP']:.4f}")

    def _note(self, writer: SummaryWriter, metrics: dict[str, dict[str, float]] | None) -> None:
        """Log a validation, and keep the head where it is the best so far."""
        if metrics is None:
            return
        step, head = self.progress.step, self.step.evaluated_head
        self.check_owner()
        self.run.log({"step": step, "epoch": step / self.steps_per_epoch, "val": metrics})
        for name, value in metrics["segm"].items():
            writer.add_scalar(f"val_segm/{name}", value, step)
        ap, box_ap = metrics["segm"]["AP"], metrics["bbox"]["AP"]
        say(f"step {step}: mask AP {ap:.4f} (box AP {box_ap:.4f})")
        if self.progress.best_ap is None or ap > self.progress.best_ap:
            self.progress.best_ap, self.progress.best_step, self.progress.box_ap = ap, step, box_ap
            self._save(self.run.best, {f"head.{name}": value for name, value in head.state_dict().items()})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
