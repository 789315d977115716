"""Images of more than 8 bits a channel as images of 8 bits, by a range that is known."""

from __future__ import annotations

import numpy as np
from PIL import Image

from frozen_cache.errors import UserError

_WHITE_IS_ZERO = 262
"""TIFF's tag PhotometricInterpretation; its value 0 says that 0 is white."""
_USUAL = (8, 10, 12, 14)
"""Bits that cameras and scanners put into 16."""


def stored_bits(file: Image.Image) -> str | None:
    """`16-bit grey`, `16-bit colour`, `32-bit integer` or `float` of an opened file that is not loaded; None for 8."""
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG"):
        return "16-bit grey"
    if file.mode in ("I", "F"):
        return {"I": "32-bit integer", "F": "float"}[file.mode]
    # Pillow reads the upper byte of each value; only its raw mode (`RGB;16B`) tells.
    return "16-bit colour" if any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())) else None


def to_eight_bits(image: Image.Image, *, kind: str, bit_depth: int | None, name: str) -> Image.Image:
    """An 8-bit image of a loaded one whose file stores more.

    Args:
        image: loaded.
        kind: of `stored_bits`.
        bit_depth: the values run from 0 to 2^bit_depth - 1; None for what the file's type says.
        name: of the file, for errors.

    Raises:
        UserError: a type without a range of its own, values outside the range, or ones that use so little of it that
            fewer bits may be meant. Says how to choose.
    """
    if kind == "16-bit colour":
        return _upper_byte(image, bit_depth=bit_depth, name=name)
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if bit_depth is None and kind != "16-bit grey":
        raise UserError(
            f"{name} is a {kind} image, whose values (here {low:g} to {high:g}) have no range of their own: "
            "--bit-depth N if they run from 0 to 2^N - 1, else save it with 8 or 16 bits"
        )
    top = 2.0 ** (bit_depth or 16) - 1
    if not (low >= 0 and high <= top):  # also what is not a number
        raise UserError(f"{name} has values from {low:g} to {high:g}, outside the range 0 to {top:g} of its bit depth")
    if bit_depth is None:
        _check_use(high, name=name)
    if getattr(image, "tag_v2", {}).get(_WHITE_IS_ZERO) == 0:
        values = top - values
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def _check_use(high: float, *, name: str) -> None:
    """Refuse 16 bits whose values fit into fewer: such an image would be almost black."""
    fits = next((bits for bits in _USUAL if high < 2**bits), None)
    if high > 0 and fits is not None:
        raise UserError(
            f"{name} has 16 bits and no value above {high:g}: --bit-depth {fits} if {fits} bits are meant, "
            "--bit-depth 16 if such images are dark pictures"
        )


def _upper_byte(image: Image.Image, *, bit_depth: int | None, name: str) -> Image.Image:
    """Colours of 16 bits, of which Pillow has kept the upper 8."""
    if bit_depth not in (None, 16):
        raise UserError(f"{name} has 16-bit colours, which are read by their upper 8 bits: save it with 8 bits")
    high = int(np.asarray(image.convert("RGB")).max(initial=0))
    if bit_depth is None and 0 < high < 2**6:
        raise UserError(
            f"{name} has 16-bit colours and no value above {high * 256 + 255}: save it with 8 bits if fewer bits are "
            "meant, --bit-depth 16 if such images are dark pictures"
        )
    return image
