"""Memory of a training step and of an evaluation of the head, computed without a GPU and without the memory.

    python benchmarks/memory_step.py [--only NAME ...] [--size 800 1333] [--objects 7]

Tensors without contents (FakeTensorMode) run through the real step, and torch's MemTracker adds up what lives: maps as
they are stored (float16), weights, AdamW's state, gradients, activations. Not in it: cuDNN's and cuBLAS's workspaces,
what the allocator holds beyond what is asked of it, and the CUDA context (about 0.5 GB). Evaluation is the head on one
image with 100 boxes. Goals: training at most 16 GB, evaluation at most 1 GB beyond weights and maps.
Results: benchmarks/memory_step.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from frozen_cache.attention import ms_deform_attn
from frozen_cache.attention.backends import GRID_SAMPLE, SWITCH
from frozen_cache.cache.stored_map import StoredMap
from frozen_cache.head import mask_head
from frozen_cache.head.detector_shapes import DETECTOR_SHAPES
from frozen_cache.head.inputs import HeadInputs, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.roi import RoiAlign
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.code_version import code_version
from frozen_cache.training.config import TrainConfig, load_config
from frozen_cache.training.step import TrainingStep
from frozen_cache.training.stored_group import StoredFeatures, stored_groups

RESULT = Path(__file__).with_suffix(".json")
HALF = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
GOAL_GB = {"train": 16.0, "evaluate": 1.0}
CASES: tuple[dict[str, Any], ...] = (
    {"optim.batch_size": 2, "mixed_precision": "fp16"},
    {"optim.batch_size": 8, "mixed_precision": "fp16"},
    {"optim.batch_size": 8, "mixed_precision": "fp16", "recompute": True},
    {"optim.batch_size": 8, "mixed_precision": "no"},
)
"""Settings of the trainings; the rest is the paper's recipe."""
EVALUATED = 100
"""Boxes of the image that is evaluated."""


def fake_batch(inputs: HeadInputs, *, size: tuple[int, int], images: int, objects: int, side: int) -> TrainingBatch:
    """Images of one size with so many objects each."""

    def of(channels: int, stride: int) -> StoredMap:
        return StoredMap(torch.empty(channels, -(-size[0] // stride), -(-size[1] // stride), dtype=torch.float16))

    total = images * objects
    features = [
        StoredFeatures(
            c1=None if inputs.c1 is None else of(inputs.c1.channels, inputs.c1.stride),
            levels=[of(level.channels, level.stride) for level in inputs.levels],
            size=size,
        )
        for _ in range(images)
    ]
    rois = Rois(
        image_index=torch.empty(total, dtype=torch.int64),
        boxes=torch.empty(total, 4),
        queries=torch.empty(total, inputs.query_dim),
        labels=torch.empty(total, dtype=torch.int64),
    )
    return TrainingBatch(
        groups=stored_groups(features, [objects] * images, pinned=False),
        rois=rois,
        targets=torch.empty(total, side, side),
        box_areas=torch.empty(total),
        object_areas=torch.empty(total),
    )


def empty_head(inputs: HeadInputs, config: TrainConfig) -> MaskHead:
    """A head whose weights are fake from the start: drawing them would look at some."""
    with torch.device("meta"):
        head = MaskHead(config=config.head, inputs=inputs)
    for module in head.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(torch.empty(parameter.shape)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return head


def training(inputs: HeadInputs, config: TrainConfig, *, size: tuple[int, int], objects: int) -> dict[str, Any]:
    """Peak of a step, after a first one that makes AdamW's state."""
    with FakeTensorMode():
        head = empty_head(inputs, config)
        accelerator = Accelerator(cpu=True)
        half = HALF[config.mixed_precision]
        if half is not None:
            accelerator.autocast = lambda: torch.autocast("cpu", dtype=half)
        step = TrainingStep(head=head, config=config, accelerator=accelerator)
        images = config.optim.batch_size
        batch = fake_batch(inputs, size=size, images=images, objects=objects, side=config.head.mask_side)
        step(batch, rate=1e-4)
        return tracked(lambda: step(batch, rate=1e-4), head, step.optimizer, *batch.tensors())


def evaluation(inputs: HeadInputs, config: TrainConfig, *, size: tuple[int, int]) -> dict[str, Any]:
    """Peak of the head on one image, and how much of it is beyond weights and maps."""
    with FakeTensorMode(), torch.no_grad():
        head = empty_head(inputs, config).eval()
        batch = fake_batch(inputs, size=size, images=1, objects=EVALUATED, side=config.head.mask_side)
        features = batch.features()
        maps = [features[0].c1, *features[0].levels]
        held = [each for each in maps if each is not None]
        weights = sum(parameter.nbytes for parameter in head.parameters())
        found = tracked(lambda: head(features, batch.rois), head, *held)
        beyond = found["peak_gb"] - (weights + sum(each.nbytes for each in held)) / 1e9
        return found | {"beyond_gb": round(beyond, 2)}


def tracked(work: Any, *held: torch.nn.Module | torch.optim.Optimizer | Tensor) -> dict[str, Any]:
    """The peak of `work`, and what lives then, in GB."""
    tracker = MemTracker()
    tracker.track_external(*held)
    with tracker:
        work()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    kinds = {str(getattr(kind, "value", kind)).lower(): round(count / 1e9, 2) for kind, count in peak.items()}
    return {"peak_gb": kinds.pop("total"), "kinds_gb": {kind: count for kind, count in kinds.items() if count}}


def main() -> None:
    """Run, print, and keep the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(DETECTOR_SHAPES), default=list(DETECTOR_SHAPES))
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333))
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    os.environ[SWITCH] = GRID_SAMPLE  # what GPUs do without a kernel
    # GPUs refine all RoIs at once, and have kernels of their own for what CPUs are slow at.
    mask_head.BLOCK_BYTES = 2**62
    RoiAlign.by_bags = lambda self, feature: False  # type: ignore[method-assign]
    ms_deform_attn.short_softmax = lambda scores: scores.softmax(-1)
    size = (given.size[0], given.size[1])
    cases: list[dict[str, Any]] = []
    for name in given.only:
        inputs = DETECTOR_SHAPES[name]
        for changed in CASES:
            found = training(inputs, load_config(overrides=changed), size=size, objects=given.objects)
            case = {"detector": name, "work": "train", "settings": changed}
            cases.append(case | {"within_goal": found["peak_gb"] <= GOAL_GB["train"]} | found)
            print(json.dumps(cases[-1]))
        found = evaluation(inputs, load_config(), size=size)
        cases.append(
            {"detector": name, "work": "evaluate", "within_goal": found["beyond_gb"] <= GOAL_GB["evaluate"]} | found
        )
        print(json.dumps(cases[-1]))
    missed = [
        f"{case['detector']} {case['work']} {case.get('settings', '')}".strip()
        for case in cases
        if not case["within_goal"]
    ]
    print(f"beyond the goal: {'; '.join(missed) or 'nothing'}")
    conditions = {
        "code": code_version(),
        "image_size": list(size),
        "objects_per_image": given.objects,
        "goals_gb": GOAL_GB,
        "torch": torch.__version__,
    }
    given.result.write_text(
        json.dumps({"conditions": conditions, "beyond_goal": missed, "cases": cases}, indent=2) + "\n"
    )
    print(f"written to {given.result}")


if __name__ == "__main__":
    main()
