"""What a user calls an image, as an upright RGB picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozen_cache.data.images import plain_reader, to_rgb
from frozen_cache.errors import UserError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A file; a PIL image; (H, W, 3) uint8 RGB; (3, H, W), uint8 or floats in 0..1, RGB."""


def read_picture(path: Path) -> Image.Image:
    """The RGB image of a file, its EXIF orientation applied. Errors are those of `ImageReader.read`."""
    if not path.exists():
        raise UserError(f"there is no image {path}")
    return plain_reader().read(path)


def as_picture(image: ImageLike) -> Image.Image:
    """The RGB picture of any `ImageLike`. Only files are turned upright: what is in memory is taken as it is seen."""
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise UserError(f"an image is a path, a PIL image, an array or a tensor; got {type(image).__name__}")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise UserError(f"an array must be (H, W, 3) uint8 RGB; got {_described(array)}")
    return Image.fromarray(np.ascontiguousarray(array))


def _from_tensor(tensor: Tensor) -> Image.Image:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise UserError(f"a tensor must be (3, H, W), uint8 or floats in 0..1; got {_described(tensor)}")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        # Also false for what is not a number.
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise UserError("a tensor of floats must be in 0..1, as before any normalisation; this one is not")
        values = (values.float() * 255).round().to(torch.uint8)
    elif values.dtype != torch.uint8:
        raise UserError(f"a tensor must be (3, H, W), uint8 or floats in 0..1; got {_described(tensor)}")
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())


def _described(values: Any) -> str:
    return f"{tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}"
