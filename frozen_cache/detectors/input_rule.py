"""How an image becomes a detector's input: resize, scale, normalise. Taken from the model's own image processor."""

from __future__ import annotations

from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor
from torchvision.transforms import v2

from frozen_cache.documents import added_later


class InputRule(BaseModel):
    """Resize rule and normalisation. Sizes are in pixels; images are RGB.

    `stretch` resizes to exactly `size` = (height, width). `shortest_edge` keeps the aspect ratio: the shorter side
    becomes `shortest_edge` unless the longer would pass `longest_edge`. `fit` keeps it too: the largest size inside
    `max_size` = (height, width).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Literal["stretch", "shortest_edge", "fit"]
    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    max_size: tuple[int, int] | None = added_later(None)
    exact_longest_edge: bool = False
    """Where the longer side meets `longest_edge`: True computes it from the unrounded shorter side, as transformers
    does; False from the rounded one, as DETR does. At most some pixels apart."""
    resample: Literal["pil", "torchvision", "torchvision_float"] = "pil"
    """What resizes: PIL (the original detectors), torchvision's antialiased tensor resize (transformers), or that of
    floats without antialiasing (RF-DETR)."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @model_validator(mode="after")
    def _one_resize_rule(self) -> InputRule:
        ways = {"stretch": self.size, "shortest_edge": self.shortest_edge, "fit": self.max_size}
        if [way for way, given in ways.items() if given] != [self.resize]:
            raise ValueError("`stretch` needs `size`, `shortest_edge` itself, `fit` needs `max_size`, and only that")
        return self

    def resized_size(self, *, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels after the resize, as Deformable DETR computes it."""
        if self.size is not None:
            return self.size
        if self.max_size is not None:
            return fit_size(height=height, width=width, max_size=self.max_size)
        return shortest_edge_size(
            height=height,
            width=width,
            shortest_edge=self.shortest_edge or 0,
            longest_edge=self.longest_edge,
            exact_longest_edge=self.exact_longest_edge,
        )

    def resize_image(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """(3, H, W) uint8 of an RGB image resized to `size` = (height, width); float32, still in 0..255, for
        `torchvision_float`."""
        if self.resample == "pil":
            method = Image.Resampling[self.interpolation.upper()]
            return v2.functional.pil_to_tensor(image.resize((size[1], size[0]), method))
        pixels = v2.functional.pil_to_tensor(image)
        floats = self.resample == "torchvision_float"
        nearest = self.interpolation == "nearest"  # transformers takes torchvision's exact one
        return v2.functional.resize(
            pixels.to(torch.float32) if floats else pixels,
            list(size),
            interpolation=v2.InterpolationMode["NEAREST_EXACT" if nearest else self.interpolation.upper()],
            antialias=not floats,
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 of pixels (..., 3, H, W) in 0..255: scaled by `rescale_factor`, then (x - mean) / std where given."""
        values = pixels.to(torch.float32) * self.rescale_factor
        if self.mean is not None and self.std is not None:
            values = v2.functional.normalize(values, list(self.mean), list(self.std))
        return values


def shortest_edge_size(
    *, height: int, width: int, shortest_edge: int, longest_edge: int | None, exact_longest_edge: bool = False
) -> tuple[int, int]:
    """(height, width) with the shorter side at `shortest_edge` and the longer at most about `longest_edge` (DETR).

    No side falls below one pixel, however long and thin the image.
    """
    short, long = min(height, width), max(height, width)
    target, unrounded = shortest_edge, float(shortest_edge)
    if longest_edge is not None and long / short * target > longest_edge:
        unrounded = longest_edge * short / long
        target = round(unrounded)
    if short == target:
        return height, width
    scale = unrounded if exact_longest_edge or target == 0 else target
    target, longer = max(target, 1), max(int(scale * long / short), 1)
    return (longer, target) if width < height else (target, longer)


def fit_size(*, height: int, width: int, max_size: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the same aspect inside `max_size`, rounded down as transformers does."""
    scale = min(max_size[0] / height, max_size[1] / width)
    return max(int(height * scale), 1), max(int(width * scale), 1)
