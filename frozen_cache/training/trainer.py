"""The training loop: one configuration, one cache, one seed give one result, also across kills."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from frozen_cache.head.mask_head import MaskHead
from frozen_cache.progress import progress_bar, say
from frozen_cache.training.batches import TrainingBatch, ViewStore, epoch_batches, read_ahead
from frozen_cache.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.objective import objective
from frozen_cache.training.run_directory import RunDirectory
from frozen_cache.training.schedule import learning_rate

LOG_EVERY = 20
READING_THREADS = 2


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    """Steps done."""
    best_ap: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    """Time spent in training steps and evaluations, over all restarts."""


@dataclass
class Trainer:
    """Trains `head` on the views of `store`; `evaluate`, where given, returns COCO metrics of a head in eval mode."""

    head: MaskHead
    store: ViewStore
    config: TrainConfig
    run: RunDirectory
    accelerator: Accelerator
    fingerprint: dict[str, Any]
    evaluate: Callable[[MaskHead], dict[str, dict[str, float]]] | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        reader = self.store.reader
        limit = self.config.views
        self.indices = [at for at, (_, view) in enumerate(reader.views) if limit is None or view < limit]
        self.shapes = [reader.resized_size(at) for at in self.indices]
        self.steps_per_epoch = math.ceil(len(self.indices) / self.config.optim.batch_size)
        self.total = max(1, self.config.optim.min_steps, round(self.config.optim.epochs * self.steps_per_epoch))
        self.eval_steps = max(1, round(self.config.eval_every * self.steps_per_epoch))
        optim = self.config.optim
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay
        )
        self.average = (
            None
            if optim.ema_decay is None
            else AveragedModel(self.head, multi_avg_fn=get_ema_multi_avg_fn(optim.ema_decay))
        )
        self._stop = False

    @property
    def evaluated_head(self) -> MaskHead:
        """The head that counts: the moving average where there is one."""
        return self.head if self.average is None else self.average.module  # type: ignore[return-value]

    def resume(self) -> None:
        """Go back to the `last` checkpoint, if there is one."""
        if not self.run.last.is_file():
            return
        tensors, saved = load_checkpoint(self.run.last)
        self.progress = Progress(**saved["progress"])
        self.evaluated_head.load_state_dict(_part(tensors, "head."))
        if self.average is not None:
            self.head.load_state_dict(_part(tensors, "raw."))
            self.average.n_averaged.fill_(self.progress.step)
        restore_optimizer(self.optimizer, _part(tensors, "optimizer."))
        self.run.forget_after(self.progress.step)

    def save_last(self) -> None:
        """Write the `last` checkpoint: all that `resume` needs."""
        tensors = {f"head.{name}": value for name, value in self.evaluated_head.state_dict().items()}
        if self.average is not None:
            tensors |= {f"raw.{name}": value for name, value in self.head.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        save_checkpoint(self.run.last, tensors, run=self.fingerprint | {"progress": vars(self.progress)})

    def train(self) -> Progress:
        """Run the remaining steps. Ctrl-C and SIGTERM end it after the step in hand, with a checkpoint."""
        model, optimizer = self.accelerator.prepare(self.head, self.optimizer)
        main = self.accelerator.is_main_process
        writer = SummaryWriter(str(self.run.events), purge_step=self.progress.step) if main else None
        roi_side = self.config.head.mask_side
        bar = progress_bar(
            total=self.total * self.config.optim.batch_size,
            initial=self.progress.step * self.config.optim.batch_size,
            unit="img",
            desc="train",
            shown=main,
        )
        batches = read_ahead(self.store, self._steps(), self.config, roi_side=roi_side, threads=READING_THREADS)
        with _StopSignals(self):
            try:
                for step, batch in batches:
                    started = time.perf_counter()
                    losses = self._step(model, optimizer, step, batch.to(self.accelerator.device))
                    self.progress.step = step + 1
                    self.progress.seconds += time.perf_counter() - started
                    if main and writer is not None:
                        self._report(writer, bar, step, losses, len(batch.images))
                        self._evaluate_and_save(writer, bar)
                    if self._stop:
                        raise KeyboardInterrupt
            finally:
                batches.close()
                bar.close()
                if writer is not None:
                    writer.close()
        return self.progress

    def _steps(self) -> Iterator[tuple[int, list[int]]]:
        """(step, this process's views) from where the run stands to its end."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
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
            yield step, cached[1][at][rank::world]

    def _step(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, batch: TrainingBatch
    ) -> dict[str, float]:
        # Everything random in a step comes from its number, so that a resumed run needs no generator's state.
        torch.manual_seed(self.config.seed * 10_000_019 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, step=step, total=self.total)
        model.train()
        with self.accelerator.autocast():
            output = model(batch.images, batch.rois)
        count = torch.tensor(float(len(batch.rois.labels)), device=self.accelerator.device)
        count = self.accelerator.reduce(count, reduction="mean").clamp(min=1)
        losses = objective(output, batch, self.config.loss, count=float(count))
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.config.optim.clip_grad_norm is not None:
            self.accelerator.clip_grad_norm_(model.parameters(), self.config.optim.clip_grad_norm)
        optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.head)
        return {"loss": float(loss.detach())} | {name: float(value.detach()) for name, value in losses.items()}

    def _report(self, writer: SummaryWriter, bar: Any, step: int, losses: dict[str, float], images: int) -> None:
        bar.update(images)
        if (step + 1) % LOG_EVERY and step + 1 != self.total:
            return
        rate = learning_rate(self.config.optim, step=step, total=self.total)
        bar.set_postfix(loss=f"{losses['loss']:.3f}", lr=f"{rate:.1e}")
        self.run.log(
            {"step": step + 1, "epoch": (step + 1) / self.steps_per_epoch, "lr": rate}
            | {name: round(value, 6) for name, value in losses.items()}
        )
        for name, value in losses.items():
            writer.add_scalar(f"train/{name}", value, step + 1)
        writer.add_scalar("train/lr", rate, step + 1)

    def _evaluate_and_save(self, writer: SummaryWriter, bar: Any) -> None:
        step = self.progress.step
        done = step == self.total
        if self.evaluate is not None and (step % self.eval_steps == 0 or done):
            started = time.perf_counter()
            head = self.evaluated_head
            metrics = self.evaluate(head.eval())
            self.progress.seconds += time.perf_counter() - started
            ap = metrics["segm"]["AP"]
            self.run.log({"step": step, "epoch": step / self.steps_per_epoch, "val": metrics})
            for name, value in metrics["segm"].items():
                writer.add_scalar(f"val_segm/{name}", value, step)
            say(f"step {step}: mask AP {ap:.4f}")
            if self.progress.best_ap is None or ap > self.progress.best_ap:
                self.progress.best_ap, self.progress.best_step = ap, step
                weights: dict[str, Tensor] = {f"head.{name}": value for name, value in head.state_dict().items()}
                save_checkpoint(self.run.best, weights, run=self.fingerprint | {"progress": vars(self.progress)})
        if done or self._stop or step % self.config.checkpoint_every == 0:
            self.save_last()

    def stop(self) -> None:
        """Ask the loop to end after the step in hand."""
        self._stop = True


class _StopSignals:
    """While open, SIGINT and SIGTERM ask the trainer to stop; only the main thread may set handlers."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.old: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.trainer.stop()

    def __exit__(self, *error: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
