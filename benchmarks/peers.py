"""What one training step costs here, and with what a user would pick instead.

    python benchmarks/peers.py --work FOLDER [--batch 2] [--steps 2] [--only NAME ...]

Each trains on the same images of 800 x 1066 with seven objects each, in a process of its own, one after the other,
all with as many threads as torch is given: the paper's head for H-DETR R50 from a float16 cache, and with the detector
in the loop; torchvision's Mask R-CNN R50 FPN (two stages of the backbone and batch norm frozen, as in its recipe);
transformers' Mask2Former R50 (trained as a whole, as in its recipe); its DetrForSegmentation with DETR frozen. A step
is reading (ours alone: the peers have their pixels at hand), forward, losses, backward and AdamW. Weights and pixels
are random, which leaves the cost as it is but for Mask R-CNN: nearly none of its random proposals hit an object, so its
mask branch has less to do than in a true training. Seconds are the process's own processor time, the median of the
steps after a small first one; memory is the most that the process had resident. Results: benchmarks/peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conditions import conditions
from random_cache import random_cache
from torch import Tensor

RESULT = Path(__file__).with_suffix(".json")
SIZE = (800, 1066)
"""Height and width."""
SMALL = (256, 320)
"""Of the first step, which makes what is made once."""
OBJECTS, CLASSES, BACKGROUND = 7, 80, 1
GOALS = {"Mask R-CNN R50": 2.5, "Mask2Former R50": 6.0}
"""Times the seconds of ours from a cache."""
STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
"""Of transformers' ResNet, whose defaults are those of R50."""
Step = Callable[[tuple[int, int]], None]


def objects(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) xyxy in pixels and masks (N, H, W) bool: the boxes of the cache, filled."""
    from random_cache import object_boxes
    from torchvision.ops import box_convert

    boxes = box_convert(object_boxes(OBJECTS), "cxcywh", "xyxy") * torch.tensor([size[1], size[0]] * 2)
    masks = torch.zeros(OBJECTS, *size, dtype=torch.bool)
    for mask, (left, top, right, low) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[top:low, left:right] = True
    return boxes, masks


def ours(work: Path, batch: int, *, live: bool) -> Step:
    """The paper's head; a small first step is not needed, as the first is not timed."""
    from accelerate import Accelerator

    from frozen_cache.cache.reader import CacheReader
    from frozen_cache.detectors.input_rule import InputRule
    from frozen_cache.detectors.official.detector import OfficialDetector
    from frozen_cache.detectors.official.layout import build_model
    from frozen_cache.detectors.official.named import NAMED
    from frozen_cache.head.mask_head import MaskHead
    from frozen_cache.stages.live import LiveData, LiveReader, LiveStore
    from frozen_cache.training.batches import ViewStore, make_batch
    from frozen_cache.training.config import load_config
    from frozen_cache.training.step import TrainingStep

    config = load_config(overrides={"optim.batch_size": batch})
    cache = random_cache(work, shapes="hdetr-r50", size=SIZE, objects=OBJECTS, images=2 * batch)
    store: ViewStore
    if live:
        detector = OfficialDetector(model=build_model(NAMED["hdetr-r50"].config), name="hdetr-r50")
        stretched = InputRule(resize="stretch", size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
        detector.spec = detector.spec.model_copy(update={"input": stretched})
        images = work / f"{cache.stem}-images"
        data = LiveData(detector=detector, images=images, annotations=images / "annotations.json")
        source = LiveReader(data, out=work, device="cpu")
        [layer] = source.attributes.detector.encoder_layers
        head = MaskHead(config=config.head, inputs=source.head_inputs(layer))
        store = LiveStore(source, encoder_layer=layer, c1=head.uses_c1)
    else:
        reader = CacheReader(cache)
        [layer] = reader.attributes.detector.encoder_layers
        head = MaskHead(config=config.head, inputs=reader.head_inputs(layer))
        store = ViewStore(reader, encoder_layer=layer, c1=head.uses_c1, memory_bytes=0)
    training = TrainingStep(head=head, config=config, accelerator=Accelerator(cpu=True))
    training.prepare()

    def step(size: tuple[int, int]) -> None:
        count = batch if size == SIZE else 1
        made = make_batch(store, list(range(count)), config, roi_side=config.head.mask_side, seed=0)
        assert len(made.rois.labels) == count * OBJECTS
        training(made, rate=1e-5)

    return step


def mask_rcnn(batch: int) -> Step:
    """torchvision's, as its recipe trains it."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = MaskRCNN(backbone, CLASSES + BACKGROUND, min_size=min(SMALL), max_size=max(SIZE))

    def losses(size: tuple[int, int]) -> Tensor:
        model.transform.min_size = (min(size),)
        boxes, masks = objects(size)
        target = {"boxes": boxes, "labels": torch.arange(OBJECTS) + BACKGROUND, "masks": masks.to(torch.uint8)}
        found = model(list(torch.rand(batch, 3, *size)), [dict(target) for _ in range(batch)])
        return torch.stack(list(found.values())).sum()

    return trained(model, losses)


def mask2former(batch: int) -> Step:
    """transformers', with the ResNet of the paper's smallest."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    options: dict[str, Any] = {"backbone_config": ResNetConfig(**STAGES), "num_labels": CLASSES}
    model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**options))

    def losses(size: tuple[int, int]) -> Tensor:
        masks = objects(size)[1].float()
        found = model(
            pixel_values=torch.randn(batch, 3, *size),
            mask_labels=[masks] * batch,
            class_labels=[torch.arange(OBJECTS)] * batch,
        )
        loss: Tensor = found.loss.sum()
        return loss

    return trained(model, losses)


def detr(batch: int) -> Step:
    """transformers' panoptic head on a frozen DETR R50: what it calls training in two steps."""
    from torchvision.ops import box_convert
    from transformers import DetrConfig, DetrForSegmentation, ResNetConfig

    options: dict[str, Any] = {"backbone_config": ResNetConfig(**STAGES), "num_labels": CLASSES}
    model = DetrForSegmentation(DetrConfig(**options | {"use_timm_backbone": False}))
    model.detr.requires_grad_(False)

    def losses(size: tuple[int, int]) -> Tensor:
        boxes, masks = objects(size)
        extent = torch.tensor([size[1], size[0]] * 2)
        label = {
            "class_labels": torch.arange(OBJECTS),
            "boxes": box_convert(boxes / extent, "xyxy", "cxcywh"),
            "masks": masks.float(),
        }
        found = model(pixel_values=torch.randn(batch, 3, *size), labels=[dict(label) for _ in range(batch)])
        loss: Tensor = found.loss
        return loss

    return trained(model, losses)


def trained(model: torch.nn.Module, losses: Callable[[tuple[int, int]], Tensor]) -> Step:
    """A step of what asks for gradients."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step(size: tuple[int, int]) -> None:
        optimizer.zero_grad()
        losses(size).backward()
        optimizer.step()

    return step


TRAINERS: dict[str, Callable[[Path, int], Step]] = {
    "ours, cached": lambda work, batch: ours(work, batch, live=False),
    "ours, live": lambda work, batch: ours(work, batch, live=True),
    "Mask R-CNN R50": lambda work, batch: mask_rcnn(batch),
    "Mask2Former R50": lambda work, batch: mask2former(batch),
    "DetrForSegmentation R50, DETR frozen": lambda work, batch: detr(batch),
}


def measured(name: str, work: Path, *, batch: int, steps: int) -> dict[str, Any]:
    """In this process."""
    torch.manual_seed(0)
    step = TRAINERS[name](work, batch)
    step(SMALL)
    spent = []
    for _ in range(steps):
        started = time.process_time()
        step(SIZE)
        spent.append(time.process_time() - started)
    seconds = statistics.median(spent) / batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    return {"cpu_seconds_an_image": round(seconds, 2), "peak_gb": round(peak, 2)}


def main() -> None:
    """Run each, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--here", choices=list(TRAINERS), help="one of them in this process; prints its figures")
    given = parser.parse_args()
    if given.here is not None:
        print(json.dumps(measured(given.here, given.work, batch=given.batch, steps=given.steps)))
        return
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    found: dict[str, dict[str, Any]] = kept.get("trainers", {})
    random_cache(given.work, shapes="hdetr-r50", size=SIZE, objects=OBJECTS, images=2 * given.batch)
    for name in given.only:
        options = ["--work", str(given.work), "--batch", str(given.batch), "--steps", str(given.steps)]
        command = [sys.executable, __file__, *options, "--here", name]
        done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name} ended with {done.returncode} (-9: too little memory): try a smaller --batch")
        found[name] = json.loads(done.stdout.splitlines()[-1]) | {"batch_size": given.batch}
        of_ours = found[name]["cpu_seconds_an_image"] / found["ours, cached"]["cpu_seconds_an_image"]
        found[name] |= {"times_ours_cached": round(of_ours, 2), "goal": GOALS.get(name)}
        print(name, found[name], flush=True)
        setting = {"image_size": list(SIZE), "objects": OBJECTS, "steps": given.steps}
        random = "weights, pixels, maps; objects are filled boxes"
        RESULT.write_text(
            json.dumps({"conditions": conditions() | setting | {"random": random}, "trainers": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
