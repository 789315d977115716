"""A frozen detector thawed: its parts by name, outputs with gradients, and its weights after fine-tuning (Table 16)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from frozen_cache.detectors.fingerprint import weights_sha256
from frozen_cache.detectors.output import DetectorOutput, FrozenDetector
from frozen_cache.detectors.stem import TRIAL_SIZE
from frozen_cache.errors import UserError

Part = Literal["backbone", "encoder", "decoder"]


@runtime_checkable
class TunableDetector(FrozenDetector, Protocol):
    """A frozen detector that can be thawed. It stays in eval mode: no dropout, batch norms as they are."""

    model: nn.Module

    def outputs(self, images: Tensor) -> DetectorOutput:
        """As a call, with gradients."""
        ...

    def part_of(self, name: str) -> Part:
        """The part that a parameter of `model` belongs to."""
        ...


@runtime_checkable
class DetectorWithLoss(TunableDetector, Protocol):
    """One that has losses of its own."""

    def outputs_and_loss(self, images: Tensor, labels: list[dict[str, Tensor]]) -> tuple[DetectorOutput, Tensor]:
        """The outputs, and the loss for labels: of each image `class_labels` (N,) and `boxes` (N, 4) cxcywh in 0..1."""
        ...


def as_tunable(detector: FrozenDetector) -> TunableDetector:
    """The same detector; a UserError where it is code of the user's own, which nobody can look into."""
    if isinstance(detector, TunableDetector):
        return detector
    raise UserError(
        f"--unfreeze: {detector.spec.name} is code of your own, whose weights are not known: let FACTORY return "
        "(transformers model, image processor)"
    )


def thaw(detector: TunableDetector, parts: tuple[Part, ...], *, own_loss: bool = False) -> dict[str, nn.Parameter]:
    """Let the parameters of these parts train; they by name.

    Heads for classes and boxes, for instance, lead to nothing that the mask loss sees: what a head reads does not
    depend on them, and without the detector's own loss they stay as they are.
    """
    chosen = {name: value for name, value in detector.model.named_parameters() if detector.part_of(name) in parts}
    for part in parts:
        if part not in {detector.part_of(name) for name in chosen}:
            raise UserError(f"--unfreeze {part}: {detector.spec.name} has no part of this kind")
    for value in chosen.values():
        value.requires_grad_(True)
    if own_loss:
        return chosen
    device = next(iter(chosen.values())).device
    output = detector.outputs(torch.zeros(1, 3, *(detector.spec.input.size or TRIAL_SIZE), device=device))
    seen = [output.queries, *(level for levels in output.encoder.values() for level in levels)]
    total = sum(each.float().sum() for each in seen if each.requires_grad) + (
        output.c1.float().sum() if output.c1 is not None and output.c1.requires_grad else 0
    )
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise UserError(f"--unfreeze {','.join(parts)}: nothing that a head reads depends on it")
    found = torch.autograd.grad(total, list(chosen.values()), allow_unused=True)
    reached = {name: value for (name, value), grad in zip(chosen.items(), found, strict=True) if grad is not None}
    for name, value in chosen.items():
        value.requires_grad_(name in reached)
    return reached


@torch.no_grad()
def put_weights(detector: TunableDetector, weights: Mapping[str, Tensor]) -> None:
    """Replace some parameters by name.

    Raises:
        ValueError: a name that the detector does not have, or another shape.
    """
    own = dict(detector.model.named_parameters())
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            raise ValueError(f"the detector {detector.spec.name} has no weight `{name}` of shape {tuple(value.shape)}")
        own[name].copy_(value)


def with_weights(detector: FrozenDetector, weights: Mapping[str, Tensor]) -> TunableDetector:
    """A copy of a detector with other weights, frozen, its spec saying so.

    Raises:
        UserError: they are not of this detector.
    """
    tuned = copy.deepcopy(as_tunable(detector))
    tuned.model.requires_grad_(False)
    try:
        put_weights(tuned, weights)
    except ValueError as error:
        raise UserError(f"the fine-tuned weights are of another detector: {error}") from None
    tuned.spec = tuned.spec.model_copy(update={"weights_sha256": weights_sha256(tuned.model.state_dict())})
    return tuned
