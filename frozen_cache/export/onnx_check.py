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
from frozen_cache.data.views import apply_view, make_view
from frozen_cache.demo.scenes import draw_scene
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.errors import FrozenCacheError
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.export.onnx_file import GRAPH, GraphRecord, need_onnx, write_record
from frozen_cache.export.ties import SharedChoices, choice_graph
from frozen_cache.inference.model import Model
from frozen_cache.inference.segmenter import InstanceSegmenter, PreparedImage
from frozen_cache.masks.paste import paste_masks

BOUNDS = {"boxes": 1e-3, "scores": 1e-3, "masks": 1e-3}
"""Boxes in parts of the image, scores and mask probabilities as they are."""
EDGE = 1e-5
"""Pairs whose class score is so near that of the last one may fall out of the K best through rounding alone."""

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Boxes (K, 4), labels (K,), scores (K,), masks (K, ...), as the graph gives them, of one image."""


class OnnxDiffersError(FrozenCacheError):
    """The graph gives other results than torch."""


def check_onnx(*, model: Model, folder: Path, record: GraphRecord, pictures: Sequence[Image.Image] = ()) -> GraphRecord:
    """Run the graph on the demo picture, alone, turned by a right angle and in a batch of two, and on `pictures`, and
    compare with `InstanceSegmenter`'s own steps in torch.

    Detections are paired by label and box; order decides nothing where scores are equal but for rounding. Nor do a
    detector's own choices between such scores: torch follows the graph's, and `exchanged` counts them. The largest
    differences go into `onnx.json`, also where they are too large.

    Returns:
        The record with its differences.

    Raises:
        OnnxDiffersError: a difference beyond `BOUNDS`, or detections that have no partner.
    """
    compare = GraphComparison(model=model, folder=folder, record=record)
    scene = demo_picture()
    turned, mirrored = (scene.transpose(how) for how in (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM))
    batches = [[scene], [turned], [scene, mirrored], *([picture] for picture in pictures)]
    largest = worst([compare(batch) for batch in batches])
    checked = record.model_copy(update={"differences": largest, "exchanged": compare.exchanged})
    write_record(folder, checked)
    if beyond := beyond_bounds(largest):
        raise OnnxDiffersError(f"{folder / GRAPH} differs from torch: {', '.join(beyond)}; do not use it")
    return checked


class GraphComparison:
    """A graph in onnxruntime and its model in torch, side by side. Called on pictures that the input rule brings to one
    size, it gives the largest difference of each output."""

    def __init__(self, *, model: Model, folder: Path, record: GraphRecord) -> None:
        need_onnx()
        self._file = folder / GRAPH
        self._session = open_graph(self._file)
        self._choosing: Any = None
        self._model, self._record = replace(model, autocast=None, kept=None), record
        self._segmenter = InstanceSegmenter(self._model, device="cpu")
        self.exchanged = 0
        """Choices between scores that are equal but for rounding, in which torch had to follow the graph so far."""

    def __call__(self, pictures: Sequence[Image.Image], *, rule: InputRule | None = None) -> dict[str, float]:
        """Compare; `rule` in place of the graph's own brings the pictures to another size. Where they differ beyond
        `BOUNDS`, once more with the graph's choices between scores that are equal but for rounding."""
        prepared = [self._prepare(picture, rule or self._record.input) for picture in pictures]
        gaps = self._compare(prepared, run_graph(self._session, prepared))
        if not beyond_bounds(gaps):
            return gaps
        if self._choosing is None:
            self._choosing = open_graph(choice_graph(self._file))
        return self._compare(prepared, run_graph(self._choosing, prepared))

    def _compare(self, prepared: Sequence[PreparedImage], found: Sequence[tuple[Tensor, ...]]) -> dict[str, float]:
        """The worst differences of images; behind a graph's outputs of each there may be its choices."""
        gaps = []
        for image, (boxes, labels, scores, masks, *choices) in zip(prepared, found, strict=True):
            with SharedChoices([choice[None] for choice in choices]) as shared:
                expected, edge = torch_outputs(self._model, self._segmenter, image, pasted=self._record.pasted)
            self.exchanged += shared.exchanged
            gaps.append(differences(expected, (boxes, labels, scores, masks), edge))
        return worst(gaps)

    def _prepare(self, picture: Image.Image, rule: InputRule) -> PreparedImage:
        transform = make_view(rule, (picture.height, picture.width), image_id=0, view_index=0)
        scales = sorted({1, self._record.backbone_scale})
        return PreparedImage(transform, tuple(apply_view(picture, transform, rule, scale=scale) for scale in scales))


def worst(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The largest of each output's differences."""
    return {name: max(each[name] for each in found) for name in BOUNDS}


def demo_picture() -> Image.Image:
    """A scene of the demo's shapes."""
    return Image.fromarray(draw_scene(np.random.default_rng(0))[0])


def beyond_bounds(gaps: dict[str, float]) -> list[str]:
    """The outputs that differ by more than they may, in words."""
    return [f"{name} by {gaps[name]:.2g} (at most {most:g})" for name, most in BOUNDS.items() if not gaps[name] <= most]


def open_graph(graph: Path | bytes) -> Any:
    """An onnxruntime session on the CPU; OnnxDiffersError where there can be none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each of its states
        named = graph if isinstance(graph, Path) else "the graph with its choices"
        raise OnnxDiffersError(f"onnxruntime does not load {named}: {_first_line(error)}") from error


def run_graph(session: Any, batch: Sequence[PreparedImage]) -> list[tuple[Tensor, ...]]:
    """The graph's outputs for each of like-sized images."""
    names = [entry.name for entry in session.get_inputs()]
    sizes = [torch.stack(each).float().numpy() for each in zip(*(image.pixels for image in batch), strict=True)]
    try:
        found = session.run(None, dict(zip(names, sizes, strict=True)))
    except Exception as error:
        shape = tuple(sizes[0].shape)
        raise OnnxDiffersError(f"onnxruntime fails on images of shape {shape}: {_first_line(error)}") from error
    outputs = [torch.from_numpy(output) for output in found]
    return list(zip(*outputs, strict=True))


def torch_outputs(
    model: Model, segmenter: InstanceSegmenter, image: PreparedImage, *, pasted: bool
) -> tuple[Outputs, Tensor]:
    """The same of one image by the code of predict and evaluate; and (K,) bool, True for the detections that rounding
    may exchange for others."""
    view = segmenter.detect([image])[0]
    found = FeatureSegmenter(model.head, encoder_layer=model.encoder_layer, device=torch.device("cpu"))(view)
    ids = torch.tensor([category["id"] for category in model.categories])
    masks = found.masks
    if pasted:
        size = image.transform.resized_size
        covered = to_pixels(found.boxes, size).numpy()
        masks = torch.from_numpy(paste_masks(masks.numpy(), covered, size, threshold=None))
    boxes = box_convert(view.boxes[: view.selected], "cxcywh", "xyxy")
    scores = view.scores[: view.selected]
    return (boxes, ids[view.labels[: view.selected]], found.scores, masks), scores <= scores.min() + EDGE


def differences(expected: Outputs, found: Outputs, edge: Tensor) -> dict[str, float]:
    """The largest difference of each output between detections paired by label and box; infinite without a partner.

    Args:
        edge: (K,) bool: of `expected`, those that need no partner, as long as others have one.
    """
    if len(expected[0]) != len(found[0]):
        return dict.fromkeys(BOUNDS, float("inf"))
    if len(expected[0]) == 0:
        return dict.fromkeys(BOUNDS, 0.0)
    apart = torch.cdist(expected[0].double(), found[0].double(), p=torch.inf)
    apart += (expected[2][:, None] - found[2]).abs() + 1e3 * (expected[1][:, None] != found[1])
    here, there = linear_sum_assignment(apart.nan_to_num(1e6).numpy())
    gaps = {
        name: (expected[at][here].double() - found[at][there].double()).abs().reshape(len(here), -1).amax(1)
        for name, at in (("boxes", 0), ("scores", 2), ("masks", 3))
    }
    other = expected[1][here] != found[1][there]
    gaps = {name: gap.masked_fill(other | gap.isnan(), torch.inf) for name, gap in gaps.items()}
    agree = torch.stack([gap <= BOUNDS[name] for name, gap in gaps.items()]).all(0)
    counted = agree | ~edge[here]
    if not bool(agree.any()):
        counted[:] = True
    return {name: float(gap[counted].max()) for name, gap in gaps.items()}


def _first_line(error: Exception, most: int = 300) -> str:
    return str(error).splitlines()[0][:most]
