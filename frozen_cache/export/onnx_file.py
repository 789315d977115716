"""`export_onnx`: a detector and its head as one ONNX file with a JSON beside it that says how to feed it."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from frozen_cache.cache.attributes import Category
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.documents import added_later
from frozen_cache.errors import UserError
from frozen_cache.export.onnx_graph import SegmenterGraph
from frozen_cache.export.sampling import GatherSampling
from frozen_cache.export.symbols import sizes_stay_free
from frozen_cache.inference.model import Model

OPSET = 18
GRAPH, GRAPH_RECORD = "model.onnx", "onnx.json"
OUTPUTS = ("boxes", "labels", "scores", "masks")
SAMPLERS = ("GridSample", "RoiAlign")
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TRIAL_SIZE = (256, 320)
"""(height, width) in pixels of the images that the graph is recorded with, where the input rule leaves it open."""


class GraphRecord(BaseModel):
    """`onnx.json`: what a program must know to use the graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    graph: str = GRAPH
    opset: int = OPSET
    family: str
    input: InputRule
    """How a picture is resized; `rescale_factor`, `mean` and `std` are already in the graph, which takes 0..255."""
    backbone_scale: int
    """Above 1 there is a second input, `enlarged`: the same picture resized to so many times the size."""
    any_size: bool
    """Height and width are free; else they are `input.size`. The batch is always free."""
    fixed_because: str | None = None
    """Why a detector that takes any size has a graph of one, to whose `input.size` pictures are stretched."""
    mask_scale: float
    """A mask covers its box with both sides times this number about the same centre."""
    pasted: bool
    """Masks are (B, K, H, W) of the input, not (B, K, R, R) of the box."""
    gather: bool
    """The graph has neither GridSample nor RoiAlign."""
    categories: list[Category]
    """Labels are these ids."""
    nodes: int
    samplers: dict[str, int]
    """How many of them are GridSample and RoiAlign."""
    differences: dict[str, float] | None = None
    """The largest differences between onnxruntime and torch, as `check_onnx` found them."""
    predict_rounds: str | None = added_later(None)
    """How `frozen-cache predict` rounds the head's maps, as the training cache did; the graph never does."""
    exchanged: int = 0
    """How many of the detector's choices between scores that are equal but for rounding torch took over for that."""


def need_onnx() -> None:
    """UserError where the packages of the extra `onnx` are missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: install it with pip install 'frozen-cache[onnx]'")


class NoGraphError(UserError):
    """The exporter fails on the detector."""


def export_onnx(
    *,
    model: Model,
    folder: Path,
    gather: bool = False,
    pasted: bool = False,
    size: tuple[int, int] | None = None,
    because: str | None = None,
) -> GraphRecord:
    """Write `model.onnx` and `onnx.json` into an existing folder. `check_onnx` then says whether they are right.

    The graph takes `images` (B, 3, H, W) float32 RGB in 0..255 and gives what `SegmenterGraph.forward` says. It
    computes in float32, also where the model was trained under autocast, and rounds no maps, also where the model does:
    a value on the edge between two steps would fall to either side by onnxruntime's own rounding.

    Args:
        model: on the CPU.
        gather: sample by gather arithmetic, in the detector too; no node GridSample or RoiAlign remains.
        pasted: masks at the input's size.
        size: (height, width) in pixels to fix, for a detector that takes any size; None leaves both free.
        because: why they are fixed, for the record.

    Raises:
        UserError: the extra `onnx` is missing; a size for a detector that has its own; a head that cannot become a
            graph.
        NoGraphError: a detector that cannot, with the exporter's reason.
    """
    need_onnx()
    import onnx

    graph = SegmenterGraph(model, gather=gather, pasted=pasted).eval()
    spec = model.detector.spec
    rule = spec.input if size is None else rule_of_size(spec.input, size)
    size, any_size = rule.size or TRIAL_SIZE, rule.size is None
    inputs = [torch.rand(2, 3, *size) * 255]
    if spec.backbone_scale > 1:
        inputs.append(torch.rand(2, 3, size[0] * spec.backbone_scale, size[1] * spec.backbone_scale) * 255)
    path = folder / GRAPH
    try:
        with torch.no_grad(), _quiet(), sizes_stay_free(graph.modules()), GatherSampling() if gather else _as_is():
            _export(graph, inputs, path, any_size=any_size)
    except UserError:
        raise
    except Exception as error:  # the exporter raises nearly anything
        raise NoGraphError(f"{spec.name} ({spec.family}) cannot become ONNX: {_reason(error)}") from error
    nodes = Counter(node.op_type for node in _nodes(onnx.load(path).graph))
    left = [name for name in SAMPLERS if nodes[name]]
    if gather and left:
        raise UserError(
            f"{spec.name} samples in a way that gather arithmetic does not reach: {', '.join(left)} remains"
        )
    record = GraphRecord(
        family=spec.family,
        input=rule,
        backbone_scale=spec.backbone_scale,
        any_size=any_size,
        fixed_because=because,
        mask_scale=model.head.config.roi_scale,
        pasted=pasted,
        gather=gather,
        categories=model.categories,
        nodes=nodes.total(),
        samplers={name: nodes[name] for name in SAMPLERS},
        predict_rounds=None if model.kept is None else str(model.kept),
    )
    write_record(folder, record)
    return record


def rule_of_size(rule: InputRule, size: tuple[int, int]) -> InputRule:
    """The rule that stretches every picture to `size` = (height, width); UserError where the rule has a size."""
    if rule.size is not None:
        height, width = rule.size
        raise UserError(f"this detector's input is {height}x{width} anyway: leave --size out")
    other = dict.fromkeys(("shortest_edge", "longest_edge", "max_size"))
    return rule.model_copy(update={"resize": "stretch", "size": size, **other})


def write_record(folder: Path, record: GraphRecord) -> None:
    """Write `onnx.json`."""
    (folder / GRAPH_RECORD).write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n")


def _export(graph: SegmenterGraph, inputs: list[Tensor], path: Path, *, any_size: bool) -> None:
    from onnxscript import opset18

    op: Any = opset18

    def all_true(values: Any) -> Any:
        """`aten::_is_all_true`, for which the exporter has nothing."""
        return op.Cast(op.ReduceMin(op.Cast(values, to=6), keepdims=0), to=9)  # int32, then bool

    free = dict.fromkeys((0, 2, 3) if any_size else (0,), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        graph,
        tuple(inputs),
        path,
        dynamo=True,
        input_names=["images", "enlarged"][: len(inputs)],
        output_names=list(OUTPUTS),
        dynamic_shapes=tuple(free for _ in inputs),
        opset_version=OPSET,
        external_data=False,
        optimize=False,  # onnxscript 0.7 fuses clamps into nodes without inputs; onnxruntime has an optimiser too
        verbose=False,
        custom_translation_table={torch.ops.aten._is_all_true.default: all_true},
    )


@contextlib.contextmanager
def _as_is() -> Iterator[None]:
    yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and reports: what matters in them becomes a UserError or fails the check."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _reason(error: BaseException, most: int = 300) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:most] or type(error).__name__
