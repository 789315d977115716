"""`check_onnx`: onnxruntime against torch, picture by picture, with bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from frozen_cache.boxes import to_pixels
from frozen_cache.demo.scenes import draw_scene
from frozen_cache.errors import FrozenCacheError
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.export.onnx_file import GRAPH, GraphRecord, need_onnx, write_record
from frozen_cache.inference.model import Model
from frozen_cache.inference.segmenter import InstanceSegmenter, PreparedImage
from frozen_cache.masks.paste import paste_masks

BOUNDS = {"boxes": 1e-3, "scores": 1e-3, "masks": 1e-3}
"""Boxes in parts of the image, scores and mask probabilities as they are."""
EDGE = 1e-5
"""Pairs whose score is so near that of the last one may fall out of the K best through rounding alone."""

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Boxes (K, 4), labels (K,), scores (K,), masks (K, ...), as the graph gives them, of one image."""


class OnnxDiffersError(FrozenCacheError):
    """The graph gives other results than torch."""


def check_onnx(*, model: Model, folder: Path, record: GraphRecord, pictures: Sequence[Image.Image] = ()) -> GraphRecord:
    """Run the graph on the demo picture, alone, turned by a right angle and in a batch of two, and on `pictures`, and
    compare with `InstanceSegmenter`'s own steps in torch.

    Detections are paired by label and box; order decides nothing where scores are equal but for rounding. The largest
    differences go into `onnx.json`, also where they are too large.

    Returns:
        The record with its differences.

    Raises:
        OnnxDiffersError: a difference beyond `BOUNDS`, or detections that have no partner.
    """
    need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
    plain = replace(model, autocast=None)
    segmenter = InstanceSegmenter(plain, device="cpu")
    scene = demo_picture()
    turned, mirrored = (scene.transpose(how) for how in (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM))
    batches = [[scene], [turned], [scene, mirrored], *([picture] for picture in pictures)]
    largest = dict.fromkeys(BOUNDS, 0.0)
    for batch in batches:
        prepared = [segmenter.prepare(picture) for picture in batch]
        for image, found in zip(prepared, run_graph(session, prepared), strict=True):
            expected = torch_outputs(plain, segmenter, image, pasted=record.pasted)
            for name, value in differences(expected, found).items():
                largest[name] = max(largest[name], value)
    checked = record.model_copy(update={"differences": largest})
    write_record(folder, checked)
    beyond = [f"{name} by {largest[name]:.2g} (at most {BOUNDS[name]:g})" for name in BOUNDS
              if not largest[name] <= BOUNDS[name]]  # fmt: skip
    if beyond:
        raise OnnxDiffersError(f"{folder / GRAPH} differs from torch: {', '.join(beyond)}; do not use it")
    return checked


def demo_picture() -> Image.Image:
    """A scene of the demo's shapes."""
    return Image.fromarray(draw_scene(np.random.default_rng(0))[0])


def run_graph(session: Any, batch: Sequence[PreparedImage]) -> list[Outputs]:
    """The graph's outputs for each of like-sized images."""
    names = [entry.name for entry in session.get_inputs()]
    sizes = [torch.stack(each).float().numpy() for each in zip(*(image.pixels for image in batch), strict=True)]
    try:
        found = session.run(None, dict(zip(names, sizes, strict=True)))
    except Exception as error:  # onnxruntime has a class of its own for each of its states
        shape = tuple(sizes[0].shape)
        raise OnnxDiffersError(f"onnxruntime fails on images of shape {shape}: {str(error).splitlines()[0]}") from error
    outputs = [torch.from_numpy(output) for output in found]
    return list(zip(*outputs, strict=True))


def torch_outputs(model: Model, segmenter: InstanceSegmenter, image: PreparedImage, *, pasted: bool) -> Outputs:
    """The same of one image by the code of predict and evaluate."""
    view = segmenter.detect([image])[0]
    found = FeatureSegmenter(model.head, encoder_layer=model.encoder_layer, device=torch.device("cpu"))(view)
    ids = torch.tensor([category["id"] for category in model.categories])
    masks = found.masks
    if pasted:
        size = image.transform.resized_size
        masks = paste_masks(masks, to_pixels(found.boxes, size), size, threshold=None)
    boxes = box_convert(view.boxes[: view.selected], "cxcywh", "xyxy")
    return boxes, ids[view.labels[: view.selected]], found.scores, masks


def differences(expected: Outputs, found: Outputs) -> dict[str, float]:
    """The largest difference of each output between detections paired by label and box; infinite without a partner."""
    if len(expected[0]) != len(found[0]):
        return dict.fromkeys(BOUNDS, float("inf"))
    if len(expected[0]) == 0:
        return dict.fromkeys(BOUNDS, 0.0)
    apart = torch.cdist(expected[0].double(), found[0].double(), p=torch.inf)
    apart += (expected[2][:, None] - found[2]).abs() + 1e3 * (expected[1][:, None] != found[1])
    here, there = linear_sum_assignment(apart.nan_to_num(1e6).numpy())
    counted = ~((apart[here, there] > BOUNDS["boxes"]) & _at_the_edge(expected[2])[here]).numpy()
    here, there = here[counted], there[counted]
    if bool((expected[1][here] != found[1][there]).any()):
        return dict.fromkeys(BOUNDS, float("inf"))
    parts = {"boxes": 0, "scores": 2, "masks": 3}
    return {
        name: float((expected[at][here].double() - found[at][there].double()).abs().nan_to_num(torch.inf).max())
        for name, at in parts.items()
    }


def _at_the_edge(scores: Tensor) -> Tensor:
    """(K,) bool: detections that rounding may have exchanged for others."""
    return scores <= scores[-1] + EDGE
