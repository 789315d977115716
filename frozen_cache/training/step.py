"""One training step. It never waits for the device: numbers stay there until somebody prints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.average import MovingAverage
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.objective import objective
from frozen_cache.training.tuning import ShownBatch, Tuning

SHARE = "share"
"""Of a group of parameters: its learning rate in units of the head's."""


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device."""

    values: dict[str, Tensor]
    """Losses by name, `loss` their sum, `gradient norm`, and `rois`, how many this process trained on."""
    stops: Tensor | None
    """How many processes were asked to stop; None where there is one process, which knows."""


class TrainingStep:
    """Forward, losses, backward, clipping, AdamW and the moving average of the weights.

    Attributes:
        optimizer: AdamW over the head's parameters, and those of the detector that train along.
        average: of the weights, where the configuration asks for one.
    """

    def __init__(
        self, *, head: MaskHead, config: TrainConfig, accelerator: Accelerator, tuning: Tuning | None = None
    ) -> None:
        self.head, self.config, self.accelerator, self.tuning = head, config, accelerator, tuning
        optim = config.optim
        groups: list[dict[str, Any]] = [{"params": list(head.parameters()), SHARE: 1.0}]
        if tuning is not None:
            groups.append({"params": list(tuning.parameters.values()), SHARE: config.live.detector_lr})
        self.optimizer = torch.optim.AdamW(
            groups, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True
        )
        self.average = None if optim.ema_decay is None else MovingAverage(head, decay=optim.ema_decay)
        if config.recompute:
            head.recompute_layers()
        self._model: torch.nn.Module = head
        self._stepper: torch.optim.Optimizer = self.optimizer

    @property
    def evaluated_head(self) -> MaskHead:
        """The head that counts: the moving average where there is one."""
        return self.head if self.average is None else self.average.module

    def prepare(self) -> None:
        """Put the head and the optimizer in accelerate's hands; once, before the first step."""
        self._model, self._stepper = self.accelerator.prepare(self.head, self.optimizer)

    def __call__(
        self, batch: TrainingBatch | ShownBatch, *, rate: float, stop: bool = False, progress: float = 1.0
    ) -> StepResult:
        """Train on a batch that is on the device, at the learning rate `rate`; the share `progress` of all steps is
        done."""
        own = None
        if isinstance(batch, ShownBatch):
            assert self.tuning is not None  # who else makes such batches
            with self.accelerator.autocast():
                batch, own = self.tuning.look(batch)
        rois, world = len(batch.rois.labels), self.accelerator.num_processes
        stops = None
        count: float | Tensor = float(max(rois, 1))
        if world > 1:
            told = torch.stack([self._filled(rois), self._filled(stop)])
            shared = self.accelerator.reduce(told, reduction="sum")
            # Gradients are averaged over the processes, so each divides by its part of all RoIs.
            count, stops = shared[0].clamp(min=1) / world, shared[1]
        for group in self._stepper.param_groups:
            group["lr"] = rate * group[SHARE]
        self._model.train()
        losses = self.losses(batch, count=count, progress=progress)
        if own is not None:
            losses["detector"] = own
        loss = torch.stack(list(losses.values())).sum()
        self._stepper.zero_grad()
        self.accelerator.backward(loss)
        if self.tuning is not None and world > 1:
            self.tuning.share_gradients(self.accelerator)
        norm = self._clip()
        self._stepper.step()
        if self.average is not None:
            self.average.update_parameters(self.head)
        values = {"loss": loss.detach()} | {name: value.detach() for name, value in losses.items()}
        return StepResult(values=values | {"gradient norm": norm, "rois": self._filled(rois)}, stops=stops)

    def losses(self, batch: TrainingBatch, *, count: float | Tensor, progress: float = 1.0) -> dict[str, Tensor]:
        """The forward pass in the configured precision, and the losses by name in float32."""
        with self.accelerator.autocast():
            rois = batch.zoomed_rois(self.head.boxes(batch.rois), side=self.config.head.zoom)
            output = self._model(batch.features(), rois)
        return objective(output, batch, self.config.loss, count=count, progress=progress)

    def _clip(self) -> Tensor:
        """The norm of all gradients, which are scaled down where it is larger than the configuration allows."""
        self.accelerator.unscale_gradients()
        trained = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        parameters = [parameter for parameter in trained if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        limit = self.config.optim.clip_grad_norm
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=True)
        return norm

    def _filled(self, number: float) -> Tensor:
        """A number of the host on the device, put there by a kernel: copying it over would wait."""
        return torch.full((), float(number), device=self.accelerator.device)
