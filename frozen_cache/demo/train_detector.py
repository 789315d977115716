"""Trains the demo's detector: a small D-FINE on scenes drawn on the spot.

    python -m frozen_cache.demo.train_detector --out DIR --minutes 45

Scenes are drawn once into a pool and shown as they are or mirrored. `--out` receives what
`AutoModelForObjectDetection.from_pretrained` loads, whenever an evaluation is done, so a stop loses minutes at most.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import box_convert
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config, RTDetrImageProcessor

from frozen_cache.demo.dense_loss import dense_loss
from frozen_cache.demo.scenes import NAMES, draw_scene
from frozen_cache.demo.shapes import CATEGORY_IDS
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.matching import coco_in_memory

INPUT_SIDE = 192
DENSE_SIDE = 128
"""Input side while the decoder does not train yet: features learn twice as fast there."""
TRAIN_SEED, TEST_SEED = 1, 2
Scene = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]
"""Pixels (S, S, 3) uint8, labels (G,), boxes (G, 4) cxcywh in 0..1, crowd flags (G,), original (height, width)."""


def small_dfine() -> DFineConfig:
    """0.65 M parameters: an HGNetV2 with maps at strides 4 to 32, 64-d transformer, three decoder layers."""
    backbone = HGNetV2Config(
        depths=[1, 1, 1, 1],
        embedding_size=16,
        hidden_sizes=[48, 96, 160, 192],
        stem_channels=[3, 16, 24],
        stage_in_channels=[24, 48, 96, 160],
        stage_mid_channels=[16, 24, 32, 40],
        stage_out_channels=[48, 96, 160, 192],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],  # type: ignore[call-arg]  # transformers takes it by alias
    )
    return DFineConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[96, 160, 192],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        depth_mult=0.34,
        feat_strides=[8, 16, 32],
        d_model=64,
        num_queries=50,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        decoder_layers=3,
        decoder_n_points=[4, 4, 4],
        num_feature_levels=3,
        num_denoising=40,
        id2label=dict(enumerate(NAMES)),
        label2id={name: at for at, name in enumerate(NAMES)},
    )


def make_scene(seed: tuple[int, int]) -> Scene:
    """One scene, stretched to the detector's input."""
    picture, objects = draw_scene(np.random.default_rng(list(seed)))
    height, width = picture.shape[:2]
    pixels = np.asarray(Image.fromarray(picture).resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BILINEAR))
    corners = torch.tensor([item.box_xywh for item in objects], dtype=torch.float64).reshape(-1, 4)
    boxes = box_convert(corners, "xywh", "cxcywh") / torch.tensor([width, height, width, height])
    labels = np.array([NAMES.index(item.name) for item in objects], dtype=np.int64)
    return pixels, labels, boxes.numpy().astype(np.float32), np.array([o.crowd for o in objects]), (height, width)


def mirrored(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and boxes of a scene, left and right exchanged."""
    pixels, _, boxes, _, _ = scene
    boxes = boxes.copy()
    boxes[:, 0] = 1 - boxes[:, 0]
    return pixels[:, ::-1], boxes


def batch_of(scenes: list[Scene], rng: np.random.Generator, size: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """(size, 3, S, S) float32 in 0..1 and transformers' labels; crowds are nobody's to find."""
    images, labels = [], []
    for at in rng.integers(len(scenes), size=size):
        scene = scenes[at]
        pixels, boxes = mirrored(scene) if rng.random() < 0.5 else (scene[0], scene[2])
        gain, lift = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
        images.append((image * gain + lift).clamp(0, 1))
        single = ~scene[3]
        labels.append(
            {"class_labels": torch.from_numpy(scene[1][single]), "boxes": torch.from_numpy(boxes[single].copy())}
        )
    return torch.stack(images), labels


@torch.inference_mode()
def box_ap(model: DFineForObjectDetection, scenes: list[Scene]) -> dict[str, float]:
    """COCO box metrics of a model in eval mode."""
    processor = image_processor()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    ids = list(CATEGORY_IDS.values())
    for image_id, (pixels, labels, boxes, crowd, (height, width)) in enumerate(scenes, start=1):
        images.append({"id": image_id, "height": height, "width": width})
        scale = torch.tensor([width, height, width, height])
        for label, box, many in zip(labels, torch.from_numpy(boxes), crowd, strict=True):
            x, y, w, h = (box_convert(box, "cxcywh", "xywh") * scale).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[label],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(many),
                }
            )
        output = model(pixel_values=torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)
        found = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(height, width)])[0]
        for score, label, box in zip(found["scores"], found["labels"], found["boxes"], strict=True):
            x, y, w, h = box_convert(box, "xyxy", "xywh").tolist()
            results.append(
                {"image_id": image_id, "category_id": ids[int(label)], "bbox": [x, y, w, h], "score": float(score)}
            )
    categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
    truth = coco_in_memory({"images": images, "annotations": annotations, "categories": categories})
    return coco_metrics(truth, results, "bbox")


def image_processor() -> RTDetrImageProcessor:
    """The whole image stretched to the input side, RGB in 0..1."""
    return RTDetrImageProcessor(
        do_normalize=False, do_pad=False, size={"height": INPUT_SIDE, "width": INPUT_SIDE}, do_resize=True
    )


def save(folder: Path, model: DFineForObjectDetection, facts: dict[str, object]) -> None:
    """Model, image processor and the figures of its training."""
    model.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def fresh_model() -> DFineForObjectDetection:
    """Untrained; weights of the size that BatchNorm and AdamW like, the encoder's boxes at their anchors."""
    model = DFineForObjectDetection(small_dfine())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in (model.model.enc_output[0], model.model.enc_score_head, *model.model.enc_bbox_head.layers):
        nn.init.xavier_uniform_(module.weight)
    nn.init.zeros_(model.model.enc_bbox_head.layers[-1].weight)
    nn.init.constant_(model.model.enc_score_head.bias, -4.0)
    return model


def hand_over(model: DFineForObjectDetection) -> None:
    """Start the decoder's class heads where the encoder's has arrived: its queries begin as encoder tokens."""
    for head in model.class_embed:
        head.load_state_dict(model.model.enc_score_head.state_dict())


def encoder_outputs(model: DFineForObjectDetection, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits (B, S, classes) and boxes (B, S, 4) of the encoder's tokens, without the decoder's cost."""
    part = model.model
    features = part.backbone(pixels, torch.ones(len(pixels), *pixels.shape[-2:]))
    levels = part.encoder(
        [project(source) for project, (source, _) in zip(part.encoder_input_proj, features, strict=True)]
    )
    sources = [project(level) for project, level in zip(part.decoder_input_proj, levels.last_hidden_state, strict=True)]
    shapes = tuple((source.shape[2], source.shape[3]) for source in sources)
    anchors, valid = part.generate_anchors(shapes, device=pixels.device, dtype=pixels.dtype)
    tokens = torch.cat([source.flatten(2).transpose(1, 2) for source in sources], 1)
    memory = part.enc_output(valid.to(tokens.dtype) * tokens)
    return part.enc_score_head(memory), (part.enc_bbox_head(memory) + anchors).sigmoid()


def train(
    *,
    out: Path,
    minutes: float,
    dense_share: float,
    scenes: int,
    batch_size: int,
    lr: float,
    evaluate_every: float,
    start: Path | None = None,
) -> None:
    """Train for `minutes` of wall-clock time: backbone and encoder alone for `dense_share` of it, then all.

    A model to `start` from has its encoder already: all of it trains, at the falling half of the learning rate.

    A decoder learns nothing from features that say nothing yet, and costs most of a step. Within each phase the
    learning rate falls with the share of it that has passed.
    """
    torch.manual_seed(0)
    with ProcessPoolExecutor(2) as pool:
        drawn = list(pool.map(make_scene, [(TRAIN_SEED, at) for at in range(scenes)], chunksize=64))
        unseen = list(pool.map(make_scene, [(TEST_SEED, at) for at in range(100)], chunksize=10))
    model = fresh_model() if start is None else DFineForObjectDetection.from_pretrained(start)
    average = AveragedModel(model, avg_fn=_warming_average)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    started = evaluated = time.monotonic()
    step, whole = 0, start is not None
    while (share := (time.monotonic() - started) / 60 / minutes) < 1:
        if not whole and share >= dense_share:
            whole = True
            hand_over(model)
        # From lr to half of it without the decoder, then on to nothing with it.
        begun = 0.0 if start is not None else dense_share
        phase = 0.5 + 0.5 * (share - begun) / (1 - begun) if whole else 0.5 * share / dense_share
        rate = lr * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.train()
        pixels, labels = batch_of(drawn, rng, batch_size)
        if whole:
            output = model(pixel_values=pixels, labels=labels)
            loss = output.loss + dense_loss(output.enc_outputs_class, output.enc_outputs_coord_logits.sigmoid(), labels)
        else:
            small = F.interpolate(pixels, (DENSE_SIDE, DENSE_SIDE), mode="bilinear", antialias=True)
            loss = dense_loss(*encoder_outputs(model, small), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        if step % 20 == 0:
            print(f"step {step} share {share:.3f} loss {loss.item():.2f} lr {rate:.1e}", flush=True)
        if whole and time.monotonic() - evaluated > evaluate_every * 60:
            report(out, averaged(average, model), unseen[:40], step=step, batch_size=batch_size, minutes=minutes)
            evaluated = time.monotonic()
    report(out, averaged(average, model), unseen, step=step, batch_size=batch_size, minutes=minutes)


def _warming_average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """A moving average that forgets its first, useless weights quickly."""
    return torch.lerp(averaged, current, float(1 - min(0.998, (1 + int(count)) / (10 + int(count)))))


def averaged(average: AveragedModel, model: DFineForObjectDetection) -> DFineForObjectDetection:
    """The averaged weights with the current BatchNorm statistics, whose average would keep their start for long."""
    for mine, current in zip(average.module.buffers(), model.buffers(), strict=True):
        mine.copy_(current)
    return average.module  # type: ignore[return-value]


def report(
    out: Path, model: DFineForObjectDetection, scenes: list[Scene], *, step: int, batch_size: int, minutes: float
) -> None:
    """Evaluate, print and save."""
    metrics = box_ap(model.eval(), scenes)
    facts = {
        "box_metrics_on_unseen_scenes": metrics,
        "unseen_scenes": len(scenes),
        "steps": step,
        "batch_size": batch_size,
        "minutes": minutes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    print(json.dumps(facts), flush=True)
    save(out, model, facts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--dense-share", type=float, default=0.45, help="of the time, without the decoder")
    parser.add_argument("--scenes", type=int, default=5000, help="size of the pool")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--evaluate-every", type=float, default=5, help="minutes")
    parser.add_argument(
        "--start", type=Path, help="a folder that this program wrote: go on from there, with the decoder"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = vars(parser.parse_args())
    torch.set_num_threads(given.pop("threads"))
    train(**given)


if __name__ == "__main__":
    main()
