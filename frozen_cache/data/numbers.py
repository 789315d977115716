"""Numbers as annotation files and people write them."""

from __future__ import annotations

import re
import sys
from typing import Any, TypeGuard

MOST_DIGITS = 18
"""Of a whole number that 64 bits surely hold."""


def is_finite_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a JSON file is a number that a float can hold; JSON's whole numbers have any size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def whole_number(text: str) -> int | None:
    """The number of a text that is one; None for any other text, `²` and a hundred digits among them."""
    text = text.strip()
    return int(text) if re.fullmatch(rf"-?[0-9]{{1,{MOST_DIGITS}}}", text) else None
