"""The stages of a backbone and their maps: ResNet, HGNetV2, Swin and the like, of transformers or of timm."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

STAGE_NAME = re.compile(r"(?:^|\.)(?:stages|layers|stage|layer|blocks)[._]?\d+$")


def stage_modules(backbone: nn.Module) -> dict[str, nn.Module]:
    """The candidates for stages, by their name below the backbone.

    A timm backbone lists them itself; elsewhere they are the numbered modules (`encoder.stages.0`; no
    single layers, as the norms of Swin's outputs are) nearest to the root.
    """
    modules = dict(backbone.named_modules())
    timm_model = modules.get("_backbone", backbone)
    info = getattr(timm_model, "feature_info", None)
    if info is not None:
        prefix = "_backbone." if "_backbone" in modules else ""
        names = [entry["module"] for entry in info.info]
        found = [prefix + variant for name in names for variant in (name, name.replace(".", "_"))]
        return {name: modules[name] for name in dict.fromkeys(found) if name in modules}
    numbered = [name for name, module in modules.items() if STAGE_NAME.search(name) and any(module.children())]
    depth = min((name.count(".") for name in numbered), default=0)
    return {name: modules[name] for name in numbered if name.count(".") == depth}


def stage_map(output: Any, backbone: nn.Module) -> Tensor | None:
    """(B, C, H, W) map of a stage's output, or None where it is no map (the tokens of a plain ViT).

    Swin stages of transformers return (tokens after the patch merging, the map before it, attention); those of timm
    return (B, H, W, C).
    """
    parts = output[:2] if isinstance(output, tuple | list) else [output]
    found = next((part for part in parts if isinstance(part, Tensor) and part.ndim == 4), None)
    timm_model = getattr(backbone, "_backbone", backbone)
    channels_last = str(getattr(timm_model, "output_fmt", "NCHW")).endswith("NHWC")
    return found.permute(0, 3, 1, 2) if found is not None and channels_last else found


def map_stride(image_size: tuple[int, int], map_size: tuple[int, int]) -> int | None:
    """Stride in pixels of a map of `map_size` over an image of `image_size`, both (height, width); None if it has none.

    A power of two fits where both sides agree with it after rounding up or down; any other stride must divide exactly.
    """
    for stride in (2**power for power in range(9)):
        if all(low in (side // stride, -(-side // stride)) for side, low in zip(image_size, map_size, strict=True)):
            return stride
    (height, width), (rows, columns) = image_size, map_size
    if height % rows == 0 and width % columns == 0 and height // rows == width // columns:
        return height // rows
    return None
