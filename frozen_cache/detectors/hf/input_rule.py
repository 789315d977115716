"""The input rule of a transformers image processor."""

from __future__ import annotations

from typing import Any, Literal

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.errors import UserError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
INTERPOLATIONS: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Pillow's numbers, as `resample` in preprocessor_config.json."""
CAN: dict[str, tuple[Interpolation, ...]] = {
    "pil": tuple(INTERPOLATIONS.values()),
    "torchvision": ("nearest", "bilinear", "bicubic", "lanczos"),
    "torchvision_float": ("nearest", "bilinear", "bicubic"),
}
"""What each resizes with; on tensors torchvision has no box and no hamming, and lanczos only with antialiasing."""
SIZES = "height and width, shortest_edge and longest_edge, or max_height and max_width"


def rule_from_processor(processor: Any) -> InputRule:
    """The `InputRule` that gives the processor's own `pixel_values` of a single image.

    Args:
        processor: an image processor of transformers, backed by torchvision or by PIL.

    Raises:
        UserError: where it resizes in a way that no rule describes, or not at all.
    """
    name = f"the image processor {type(processor).__name__}"
    if not getattr(processor, "do_resize", True):
        raise UserError(f"{name} does not resize (do_resize=False); set its `size` and do_resize=True")
    if getattr(processor, "do_center_crop", False):
        raise UserError(f"{name} cuts off the borders: set do_center_crop to false")
    size = _as_dict(getattr(processor, "size", None))
    _refuse_padding(processor, size, name)
    resample = _resample(processor)
    normalise = bool(getattr(processor, "do_normalize", False))
    return InputRule(
        **_resize(size, name),
        resample=resample,
        interpolation=_interpolation(getattr(processor, "resample", None), resample, name),
        rescale_factor=processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0,
        mean=_triple(processor, "image_mean", name) if normalise else None,
        std=_triple(processor, "image_std", name) if normalise else None,
    )


def _resize(size: dict[str, int], name: str) -> dict[str, Any]:
    """The rule's fields for a processor's `size`, in the order in which transformers looks at its keys."""
    if size.get("shortest_edge"):
        return {
            "resize": "shortest_edge",
            "shortest_edge": size["shortest_edge"],
            "longest_edge": size.get("longest_edge"),
            "exact_longest_edge": True,
        }
    if size.get("max_height") and size.get("max_width"):
        return {"resize": "fit", "max_size": (size["max_height"], size["max_width"])}
    if size.get("height") and size.get("width"):
        return {"resize": "stretch", "size": (size["height"], size["width"])}
    edge = size.get("longest_edge")
    way_on = f'; for a longest edge of {edge} write {{"max_height": {edge}, "max_width": {edge}}}' if edge else ""
    raise UserError(f"{name} has size {size}; expected {SIZES}{way_on}")


def _refuse_padding(processor: Any, size: dict[str, int], name: str) -> None:
    """Without `pad_size` a batch is padded to its largest image: never a single one."""
    pad_size = _as_dict(getattr(processor, "pad_size", None))
    fixed = {key: size.get(key) for key in ("height", "width")}
    if getattr(processor, "do_pad", False) and pad_size and pad_size != fixed:
        raise UserError(
            f"{name} pads every image to {pad_size}, and images are never padded here: set "
            "`pad_size` to null in its preprocessor_config.json, or `size` to a fixed height and width"
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


def _interpolation(resample: Any, backend: str, name: str) -> Interpolation:
    value = getattr(resample, "value", resample)  # of Pillow (a number) or of torchvision (a word)
    words = [word for number, word in INTERPOLATIONS.items() if value in (number, word)]
    if resample is None:
        return "bilinear"
    if not words:
        raise UserError(f"{name} resamples with {resample}; known are {list(INTERPOLATIONS.values())}")
    if words[0] not in CAN[backend]:
        numbers = ", ".join(f"{number} ({word})" for number, word in INTERPOLATIONS.items() if word in CAN[backend])
        raise UserError(
            f"{name} resamples by {words[0]}, which torchvision cannot do here: set `resample` in its "
            f"preprocessor_config.json to one of {numbers}, or give its ...Pil class in FILE.py:FACTORY"
        )
    return words[0]


def _triple(processor: Any, key: str, name: str) -> tuple[float, float, float]:
    values = getattr(processor, key, None)
    numbers = [values] * 3 if isinstance(values, int | float) else list(values or ())
    if len(numbers) != 3:
        raise UserError(f"{name} has {key} {values}; expected a number, or one for each of red, green and blue")
    first, second, third = (float(value) for value in numbers)
    return first, second, third
