"""The input rule of a transformers image processor."""

from __future__ import annotations

from typing import Any, Literal

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.errors import UserError

INTERPOLATIONS: dict[int, Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}


def rule_from_processor(processor: Any) -> InputRule:
    """The `InputRule` that gives the processor's own `pixel_values` of a single image.

    Args:
        processor: an image processor of transformers, backed by torchvision or by PIL.

    Raises:
        UserError: where it resizes in a way that no rule describes, or not at all.
    """
    name = type(processor).__name__
    size = _as_dict(getattr(processor, "size", None))
    if not getattr(processor, "do_resize", True):
        raise UserError(
            f"the image processor {name} does not resize (do_resize=False); set its `size` and do_resize=True"
        )
    pad_size = _as_dict(getattr(processor, "pad_size", None))
    if getattr(processor, "do_pad", False) and pad_size:
        raise UserError(
            f"the image processor {name} pads every image to {pad_size}, and images are never padded here: set "
            "`pad_size` to null in its preprocessor_config.json, or `size` to a fixed height and width"
        )
    if getattr(processor, "do_center_crop", False):
        raise UserError(f"the image processor {name} cuts off the borders: set do_center_crop to false")
    resize: dict[str, Any]
    if size.get("height") and size.get("width"):
        resize = {"resize": "stretch", "size": (size["height"], size["width"])}
    elif size.get("shortest_edge"):
        resize = {
            "resize": "shortest_edge",
            "shortest_edge": size["shortest_edge"],
            "longest_edge": size.get("longest_edge"),
            "exact_longest_edge": True,
        }
    else:
        raise UserError(
            f"the image processor {name} has size {size}; expected height and width, or shortest_edge and longest_edge"
        )
    normalise = bool(getattr(processor, "do_normalize", False))
    return InputRule(
        **resize,
        resample=_resample(processor),
        interpolation=_interpolation(getattr(processor, "resample", None), name),
        rescale_factor=processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0,
        mean=_triple(processor.image_mean) if normalise else None,
        std=_triple(processor.image_std) if normalise else None,
    )


def _as_dict(size: Any) -> dict[str, int]:
    """A size as a dictionary; transformers 5 keeps it as a mapping of its own."""
    if size is None:
        return {}
    if isinstance(size, int):
        return {"shortest_edge": size}
    return {key: value for key, value in dict(size).items() if value is not None}


def _resample(processor: Any) -> Literal["pil", "torchvision", "torchvision_float"]:
    """What resizes; the classes above a processor tell whether it is Pillow (`PilBackend`)."""
    parents = {parent.__name__ for parent in type(processor).__mro__}
    if "PilBackend" in parents:
        return "pil"
    return "torchvision_float" if "RfDetrImageProcessor" in parents else "torchvision"


def _interpolation(resample: Any, name: str) -> Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]:
    if resample is None:
        return "bilinear"
    value = getattr(resample, "value", resample)  # of Pillow (a number) or of torchvision (a word)
    for number, word in INTERPOLATIONS.items():
        if value in (number, word):
            return word
    raise UserError(f"the image processor {name} resamples with {resample}; known are {list(INTERPOLATIONS.values())}")


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
