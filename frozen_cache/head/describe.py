"""What a head is made of and costs: modules, shapes, parameters, multiply-adds, counted as it runs.

The paper's counting: one multiply-add per product in matrix multiplications (linear, convolution, attention), plus one
per element of each LayerNorm; deformable sampling, resizing, RoIAlign and element-wise work are not counted. Each layer
of the image encoder counts all levels, though the last computes no more than those that are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from frozen_cache.head.box_encoder import BoxEncoder
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.feature_map import FeatureMap
from frozen_cache.head.image_encoder import DeformableImageEncoder, FinestLevelEncoder
from frozen_cache.head.inputs import HeadInputs, ImageFeatures, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.query_encoder import QueryEncoder
from frozen_cache.terminal import table_lines

STEM_STRIDE = 4
"""Of C1 in pixels of what the stem runs on."""
CONTAINERS = (FeatureMap, DeformableImageEncoder, FinestLevelEncoder, BoxEncoder, QueryEncoder, nn.ModuleList)


@dataclass(frozen=True)
class ModuleCost:
    """One module of a head."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of what it returns; empty for a bare parameter."""
    parameters: int
    macs: int


@dataclass(frozen=True)
class HeadDescription:
    """A head at one image size and number of boxes; the modules add up to the totals."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    boxes: int
    parameters: int
    macs: int
    """Multiply-adds of one image."""
    modules: tuple[ModuleCost, ...]
    zoom_macs: int | None = None
    """Multiply-adds of the detector's frozen stem on the crops that the head reads, beside `macs`; None without zoom,
    and where the detector is not at hand."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def text(self, *, width: int | None = None) -> str:
        """A table of at most `width` columns where it can be; as wide as its rows where that is None."""
        rows = [("module", "kind", "output", "parameters", "GMACs")]
        rows += [
            (part.name, part.kind, "x".join(map(str, part.output)), f"{part.parameters:,}", f"{part.macs / 1e9:.3f}")
            for part in self.modules
        ]
        rows.append(("total", "", "", f"{self.parameters:,}", f"{self.macs / 1e9:.3f}"))
        lines = table_lines(rows, width=width)
        if self.zoom_macs is not None:
            lines.append(f"and the detector's stem on {self.boxes} crops: {self.zoom_macs / 1e9:.3f} GMACs")
        size = "{} x {}".format(*self.image_size)
        return "\n".join([f"one image of {size} pixels, {self.boxes} boxes", *lines])


def describe_head(
    *, config: HeadConfig, inputs: HeadInputs, image_size: tuple[int, int] = (800, 1120), boxes: int = 100
) -> HeadDescription:
    """Build a head without memory (`meta` device), run it once on one image, and count.

    Args:
        config: what it is made of.
        inputs: shapes of the cached features.
        image_size: (height, width) of the resized image in pixels.
        boxes: RoIs in it.
    """
    with torch.device("meta"):
        head = MaskHead(config=config, inputs=inputs).eval()
    encoder = head.feature_map.image_encoder
    if isinstance(encoder, DeformableImageEncoder):
        encoder.kept = None
    images, rois = _one_image(inputs, image_size, boxes)
    if config.zoom is not None:
        cells = math.ceil(config.zoom / STEM_STRIDE)
        rois = replace(rois, zoomed=torch.empty(boxes, inputs.zoom_channels, cells, cells, device="meta"))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in head.named_modules():
        module.register_forward_hook(_recorder(name, shapes))
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: _layer_norm_flops})
    head.requires_grad_(False)
    with counter, torch.enable_grad():  # inference has shortcuts, which the paper did not count
        head(images, rois)
    flops = counter.get_flop_counts()
    modules = tuple(
        ModuleCost(
            name=name,
            kind="Parameter" if isinstance(part, nn.Parameter) else type(part).__name__,
            output=shapes.get(name, ()),
            parameters=_size(part),
            macs=sum(flops.get(f"MaskHead.{name}", {}).values()) // 2,
        )
        for name, part in _parts(head, "")
    )
    return HeadDescription(
        image_size=image_size,
        boxes=boxes,
        parameters=_size(head),
        macs=counter.get_total_flops() // 2,
        modules=modules,
    )


def _one_image(inputs: HeadInputs, size: tuple[int, int], boxes: int) -> tuple[list[ImageFeatures], Rois]:
    def of(channels: int, stride: int) -> Tensor:
        return torch.empty(channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride), device="meta")

    image = ImageFeatures(
        c1=None if inputs.c1 is None else of(inputs.c1.channels, inputs.c1.stride),
        levels=[of(level.channels, level.stride) for level in inputs.levels],
        size=size,
    )
    rois = Rois(
        image_index=torch.zeros(boxes, dtype=torch.int64),
        boxes=torch.empty(boxes, 4, device="meta"),
        queries=torch.empty(boxes, inputs.query_dim, device="meta"),
        labels=torch.empty(boxes, dtype=torch.int64, device="meta"),
    )
    return [image], rois


def _layer_norm_flops(input_shape: tuple[int, ...], *_: Any, **__: Any) -> int:
    """The counter speaks of FLOPs, two for a multiply-add."""
    return 2 * math.prod(input_shape)


def _recorder(name: str, shapes: dict[str, tuple[int, ...]]) -> Any:
    def record(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape)

    return record


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """The modules to show: containers opened, what does nothing left out."""
    for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
        yield name, parameter
    for child, part in module.named_children():
        name = f"{prefix}.{child}" if prefix else child
        if isinstance(part, CONTAINERS):
            yield from _parts(part, name)
        elif not isinstance(part, nn.Identity | nn.Dropout2d):
            yield name, part


def _size(part: nn.Module | nn.Parameter) -> int:
    return part.numel() if isinstance(part, nn.Parameter) else sum(value.numel() for value in part.parameters())
