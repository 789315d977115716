"""Training steps of small heads on random maps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from frozen_cache.cache.close_up import CloseUp
from frozen_cache.cache.stored_map import StoredMap
from frozen_cache.detectors.lazy_stem import LazyStem
from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.head.inputs import HeadInputs, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.config import TrainConfig, with_overrides
from frozen_cache.training.step import TrainingStep
from frozen_cache.training.stored_group import StoredFeatures, stored_groups
from frozen_cache.training.weak_targets import WeakTargets

INPUTS = HeadInputs(
    query_dim=16,
    c1=FeatureSpec(channels=8, stride=4),
    levels=tuple(FeatureSpec(channels=16, stride=stride) for stride in (8, 16, 32, 64)),
    num_classes=3,
)
SMALL = {"head.width": 8, "head.roi_size": 8, "loss.points": 16, "optim.ema_decay": 0.9, "optim.clip_grad_norm": 1.0}
HEADS: dict[str, dict[str, Any]] = {
    "paper": {},
    "everything": {"head.query_blocks": ["ffn", "b2o", "o2o"], "head.box_layers": 4},
    "recompute": {"recompute": True},
    "swin": {"head.image_encoder": "swin", "head.box_encoder": "swin", "loss.supervision": "dense"},
    "unet": {"head.box_encoder": "unet", "head.query_in_roi": True, "head.fused_levels": "all", "head.roi_scale": 1.2},
    "segmenter": {"head.mask_head": "segmenter", "head.box_encoder": "convnext", "head.image_encoder": "convnext"},
    "mask r-cnn": {"head.mask_head": "fcn", "head.query_blocks": [], "head.box_encoder": "fcn"},
    "zoom": {"head.zoom": 16},
    "refined": {"head.refine": 16, "head.box_encoder": "unet"},
}


class Patches:
    """A stem: C1 is the colour of patches of 4 x 4 pixels, in eight shades."""

    def to(self, device: torch.device) -> Patches:
        """Stay."""
        return self

    def of_crops(self, images: Tensor, levels: list[int]) -> Tensor:
        """(B, 8, H / 4, W / 4)."""
        return F.avg_pool2d(images, 4).repeat(1, 3, 1, 1)[:, :8]


RULE = SimpleNamespace(rescale_factor=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
SPEC: Any = SimpleNamespace(input=RULE, c1=INPUTS.c1, encoder_levels=())
STEM = LazyStem(Patches, spec=SPEC, autocast=None, owner="test")  # type: ignore[arg-type]
STEM.zoomed([torch.zeros(3, 8, 8)], [torch.full((1, 4), 0.5)], side=8)  # built before a step is watched


def random_batch(
    sizes: list[tuple[int, int]], counts: list[int], *, side: int, seed: int = 0, dtype: torch.dtype = torch.float16
) -> TrainingBatch:
    """Noise: images of these sizes in pixels, with so many RoIs each."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)

    def of(spec: FeatureSpec, size: tuple[int, int]) -> StoredMap:
        shape = (spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride))
        return StoredMap(torch.randn(shape, generator=generator).to(dtype))

    assert INPUTS.c1 is not None
    boxes = torch.rand(total, 4, generator=generator) * 0.4 + 0.3
    images = [
        StoredFeatures(c1=of(INPUTS.c1, size), levels=[of(level, size) for level in INPUTS.levels], size=size)
        for size in sizes
    ]
    rois = Rois(
        image_index=torch.arange(len(sizes)).repeat_interleave(torch.tensor(counts)),
        boxes=boxes,
        queries=torch.randn(total, INPUTS.query_dim, generator=generator),
        labels=torch.randint(0, INPUTS.num_classes, (total,), generator=generator),
    )
    return TrainingBatch(
        groups=stored_groups(images, counts, pinned=False),
        rois=rois,
        targets=(torch.rand(total, side, side, generator=generator) > 0.5).float(),
        box_areas=boxes[:, 2] * boxes[:, 3] * 1000,
        object_areas=torch.full((total,), 100.0),
        close_ups=[
            CloseUp(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8), STEM)
            for size, count in zip(sizes, counts, strict=True)
            if count
        ],
        close_up_counts=[count for count in counts if count],
        fine_targets=(torch.rand(total, 2 * side, 2 * side, generator=generator) > 0.5).float(),
    )


def weak_batch(sizes: list[tuple[int, int]], counts: list[int], *, side: int, seed: int) -> TrainingBatch:
    """As `random_batch`; of three RoIs the first has a mask, the next a box alone, the third points too."""
    batch = random_batch(sizes, counts, side=side, seed=seed)
    rows, generator = torch.arange(sum(counts)), torch.Generator().manual_seed(seed)
    boxed, pointed = rows[rows % 3 > 0], rows[rows % 3 == 2]
    weak = WeakTargets(
        masked=rows[rows % 3 == 0],
        boxed=boxed,
        guess=torch.rand(len(boxed), side, side, generator=generator),
        alike=torch.rand(len(boxed), 4, side, side, generator=generator) > 0.5,
        pointed=pointed,
        points=torch.rand(len(pointed), 5, 2, generator=generator),
        inside=(torch.rand(len(pointed), 5, generator=generator) > 0.5).float(),
        known=(torch.rand(len(pointed), 5, generator=generator) > 0.2).float(),
    )
    return replace(batch, weak=weak)


def learnable_batch(sizes: list[tuple[int, int]], counts: list[int], *, side: int, seed: int) -> TrainingBatch:
    """As `random_batch`, with objects to learn: each fills a half of its box that its query tells."""
    batch = random_batch(sizes, counts, side=side, seed=seed)
    targets = torch.zeros_like(batch.targets)
    targets[:, : side // 2] = 1
    left = batch.rois.queries[:, 0] > 0
    return replace(batch, targets=torch.where(left[:, None, None], targets.transpose(1, 2), targets))


def a_step(overrides: dict[str, Any], *, half: torch.dtype | None = None) -> tuple[TrainingStep, TrainConfig]:
    """A step of a small head; under autocast of `half` precision, float16 with its scaler."""
    config = with_overrides({}, SMALL | overrides)
    torch.manual_seed(0)
    head = MaskHead(config=config.head, inputs=INPUTS)
    accelerator = Accelerator(cpu=True)
    if half is not None:
        accelerator.autocast = lambda: torch.autocast("cpu", dtype=half)
    if half == torch.float16:
        accelerator.scaler = torch.amp.GradScaler("cpu")
    step = TrainingStep(head=head, config=config, accelerator=accelerator)
    step.prepare()
    return step, config
