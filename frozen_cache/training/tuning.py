"""A detector that is trained along with the head (Table 16): it sees its images within the step, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from frozen_cache.boxes import to_unit
from frozen_cache.cache.attributes import CacheAttributes, detector_fingerprint
from frozen_cache.detectors.fingerprint import weights_sha256
from frozen_cache.detectors.output import DetectorOutput
from frozen_cache.detectors.tuning import DetectorWithLoss, TunableDetector, put_weights, thaw
from frozen_cache.errors import UserError
from frozen_cache.head.inputs import ImageGroup
from frozen_cache.training.batches import MadeGroup, TrainingBatch, ViewStore, batch_of, no_batch
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.shown import ShownView, collected, same_sized
from frozen_cache.training.weak_targets import weak_collector


class Show(Protocol):
    """Reads images, and draws what is drawn, for views by their numbers; any thread may call it."""

    def __call__(self, indices: Sequence[int], *, seed: int) -> list[ShownView]: ...


@dataclass(frozen=True)
class ShownBatch:
    """The views of a step before the detector has seen them."""

    views: list[list[ShownView]]
    """Of one size each."""
    pixels: list[Tensor]
    """(B, 3, H, W) in 0..255 of each of them."""
    seed: int
    """All that is drawn in this step comes from it."""

    def to(self, device: torch.device) -> ShownBatch:
        """The pixels on a device."""
        return replace(self, pixels=[each.to(device, non_blocking=True) for each in self.pixels])

    def tensors(self) -> list[Tensor]:
        """All that it holds on the device."""
        return self.pixels


class Tuning:
    """The detector's part of a training step.

    Attributes:
        parameters: those that train, by name.
    """

    def __init__(
        self,
        detector: TunableDetector,
        *,
        show: Show,
        attributes: CacheAttributes,
        config: TrainConfig,
        encoder_layer: int,
        c1: bool,
        roi_side: int,
        most_pixels: int,
    ) -> None:
        """Thaw the detector's parts.

        Args:
            show: gives the views of a step.
            attributes: of the cache that would be.
            encoder_layer: the one that the head reads.
            c1: whether it reads C1.
            roi_side: R of the targets.
            most_pixels: that go through the detector together.
        """
        self.detector, self.attributes, self.config, self._show = detector, attributes, config, show
        self._layer, self._c1, self._roi_side, self._most = encoder_layer, c1, roi_side, most_pixels
        self.parameters = thaw(detector, config.live.unfreeze, own_loss=config.live.detector_loss > 0)
        self._losing: DetectorWithLoss | None = None
        if config.live.detector_loss > 0:
            if not isinstance(detector, DetectorWithLoss):
                raise UserError(f"live.detector_loss: {detector.spec.name} has no losses here: leave it 0")
            self._losing = detector

    def make_batch(
        self, store: ViewStore, indices: list[int], config: TrainConfig, *, roi_side: int, seed: int, pinned: bool
    ) -> ShownBatch:
        """The images of a step; any thread may read them."""
        views = same_sized(self._show(indices, seed=seed), most=self._most) if indices else []
        pixels = [torch.stack([view.pixels for view in batch]) for batch in views]
        return ShownBatch(views, [each.pin_memory() if pinned else each for each in pixels], seed)

    def look(self, shown: ShownBatch) -> tuple[TrainingBatch, Tensor | None]:
        """What the detector, as it is now, makes of the images: RoIs and features through which gradients go back.

        Returns:
            The batch, and the detector's own loss with its weight, where the configuration gives it one.
        """
        weak = weak_collector(self.attributes, self.config.loss, side=self._roi_side, pictures=True)
        if not shown.views:
            none = no_batch(self.attributes.detector.query_dim, self._roi_side, self.config.head.refine, weak=weak)
            return none, None
        device = shown.pixels[0].device
        outputs, loss = self._detected(shown)
        rows = []
        for output, views in zip(outputs, shown.views, strict=True):
            told = replace(
                output,
                boxes=output.boxes.detach().cpu().float(),
                scores=output.scores.detach().cpu().float(),
                labels=output.labels.cpu(),
                c1=None,
                encoder={},
            )
            rows += collected(told, views, self.attributes)

        def groups(counts: list[int]) -> list[MadeGroup]:
            made, start = [], 0
            for output, views in zip(outputs, shown.views, strict=True):
                own = counts[start : start + len(views)]
                start += len(views)
                if any(own):
                    made.append(
                        _group(output.c1 if self._c1 else None, output.encoder[self._layer], views=views, counts=own)
                    )
            return made

        seen = [view.pixels for views in shown.views for view in views]
        batch = batch_of(
            rows,
            groups,
            self.config,
            roi_side=self._roi_side,
            seed=shown.seed,
            weak=weak,
            pixels=seen.__getitem__,
        )
        return batch.to(device), loss

    def _detected(self, shown: ShownBatch) -> tuple[list[DetectorOutput], Tensor | None]:
        """The outputs for each size, and the loss as a mean over all views."""
        rule = self.attributes.detector.input
        images = [rule.normalise(pixels) for pixels in shown.pixels]
        if self._losing is None:
            return [self.detector.outputs(each) for each in images], None
        outputs, losses = [], []
        for each, views in zip(images, shown.views, strict=True):
            labels = [box_labels(view, self.attributes, each.device) for view in views]
            output, loss = self._losing.outputs_and_loss(each, labels)
            outputs.append(output)
            losses.append(loss * len(views))
        total = torch.stack(losses).sum() / sum(map(len, shown.views))
        return outputs, self.config.live.detector_loss * total

    def share_gradients(self, accelerator: Accelerator) -> None:
        """The mean over all processes, in one message; one without any object has none of its own."""
        values = list(self.parameters.values())
        parts = [torch.zeros_like(value) if value.grad is None else value.grad for value in values]
        mean = accelerator.reduce(torch.cat([part.flatten() for part in parts]), reduction="mean")
        for value, part in zip(values, mean.split([part.numel() for part in parts]), strict=True):
            value.grad = part.view_as(value)

    def tensors(self) -> dict[str, Tensor]:
        """The weights that train, by their names in a checkpoint."""
        return {f"detector.{name}": value for name, value in self.parameters.items()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave, without the prefix; a ValueError where it does not fit."""
        if weights.keys() != self.parameters.keys():
            raise ValueError("it holds other parts of the detector")
        put_weights(self.detector, weights)

    def facts(self) -> dict[str, str]:
        """What a checkpoint tells of the detector as it is now."""
        weights = weights_sha256(self.detector.model.state_dict())
        spec = self.detector.spec.model_copy(update={"weights_sha256": weights})
        return {"weights_sha256": weights, "fingerprint": detector_fingerprint(spec)}


def box_labels(view: ShownView, attributes: CacheAttributes, device: torch.device) -> dict[str, Tensor]:
    """The objects of a view as a detector's own losses take them: no crowds, and none of a class that it lacks."""
    of_category = {category: label for label, category in sorted(attributes.label_to_category.items(), reverse=True)}
    ids = [category["id"] for category in attributes.categories]
    labels = torch.tensor([of_category.get(ids[at], -1) for at in view.truth.categories.tolist()], dtype=torch.int64)
    kept = (labels >= 0) & ~torch.from_numpy(view.truth.crowd)
    boxes = to_unit(torch.from_numpy(view.truth.boxes).float(), view.transform.crop_size)
    return {"class_labels": labels[kept].to(device), "boxes": boxes[kept].to(device)}


def _group(
    c1: Tensor | None, levels: Sequence[Tensor], *, views: Sequence[ShownView], counts: Sequence[int]
) -> MadeGroup:
    """The maps of the views that have RoIs."""
    kept = [at for at, count in enumerate(counts) if count]

    def of(maps: Tensor) -> Tensor:
        return maps.float() if len(kept) == len(views) else maps[kept].float()

    return MadeGroup(
        ImageGroup(
            c1=None if c1 is None else of(c1),
            levels=[of(level) for level in levels],
            sizes=[views[at].transform.resized_size for at in kept],
            counts=[counts[at] for at in kept],
        )
    )
