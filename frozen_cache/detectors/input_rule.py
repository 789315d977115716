"""How an image becomes a detector's input: resize, scale, normalise. Taken from the model's own image processor."""

from __future__ import annotations

from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor
from torchvision.transforms import v2


class InputRule(BaseModel):
    """Resize rule and normalisation. Sizes are in pixels; images are RGB.

    `stretch` resizes to exactly `size` = (height, width). `shortest_edge` keeps the aspect ratio: the shorter side
    becomes `shortest_edge` unless the longer would pass `longest_edge`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Literal["stretch", "shortest_edge"]
    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    resample: Literal["pil", "torchvision"] = "pil"
    """Which library resizes: PIL (the original detectors) or torchvision's antialiased tensor resize (transformers)."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @model_validator(mode="after")
    def _one_resize_rule(self) -> InputRule:
        if (self.resize == "stretch") != (self.size is not None) or (self.size is None) != bool(self.shortest_edge):
            raise ValueError("`stretch` needs `size`, `shortest_edge` needs `shortest_edge`, and not both")
        return self

    def resized_size(self, *, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels after the resize, as Deformable DETR computes it."""
        if self.size is not None:
            return self.size
        return shortest_edge_size(
            height=height, width=width, shortest_edge=self.shortest_edge or 0, longest_edge=self.longest_edge
        )

    def resize_image(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """(3, H, W) uint8 of an RGB image resized to `size` = (height, width)."""
        if self.resample == "pil":
            method = Image.Resampling[self.interpolation.upper()]
            return v2.functional.pil_to_tensor(image.resize((size[1], size[0]), method))
        return v2.functional.resize(
            v2.functional.pil_to_tensor(image),
            list(size),
            interpolation=v2.InterpolationMode[self.interpolation.upper()],
            antialias=True,
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 of uint8 pixels (..., 3, H, W): scaled by `rescale_factor`, then (x - mean) / std where given."""
        values = pixels.to(torch.float32) * self.rescale_factor
        if self.mean is not None and self.std is not None:
            values = v2.functional.normalize(values, list(self.mean), list(self.std))
        return values


def shortest_edge_size(*, height: int, width: int, shortest_edge: int, longest_edge: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side at `shortest_edge` and the longer at most about `longest_edge` (DETR)."""
    short, long = min(height, width), max(height, width)
    target = shortest_edge
    if longest_edge is not None and long / short * target > longest_edge:
        target = round(longest_edge * short / long)
    if short == target:
        return height, width
    if width < height:
        return int(target * height / width), target
    return target, int(target * width / height)
